"""From a file of edges to vectors, beside PecanPy's walks and gensim's training: seconds and quality in the same run.

One JSON line for each number of parts and for the peer, averaged over --seeds runs:

  seconds          ours: Node2Vec.fit in a warm session, until the vectors are in Parquet (the first number of parts;
                   for the others training alone, train_seconds: walks are shared). The peer: reading, PecanPy
                   SparseOTF with as many threads as cores, its compilation not counted, gensim with as many workers
  macro_f1 ...     node classification, 5 splits, half of the labels known (blogcatalog: p = q = 0.25, ppi: 4, 1)
  auc, cosine_auc  link prediction, half of the edges held out (facebook: p = q = 1)

and one with the differences and the ratio.

    python benchmarks/node2vec_end_to_end.py --peer PYTHON       a Python that has pecanpy and gensim
    python benchmarks/node2vec_end_to_end.py --graph ppi --partitions 1,2,4,8 --peer PYTHON
    python benchmarks/node2vec_end_to_end.py --quick             a minute: PPI, two walks a node, one seed
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

BIASES = {"blogcatalog": (0.25, 0.25), "ppi": (4.0, 1.0), "facebook": (1.0, 1.0)}
SCORES = ("macro_f1", "micro_f1", "auc", "ap", "cosine_auc", "cosine_ap")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", choices=tuple(BIASES), help="(blogcatalog; quick: ppi)")
    parser.add_argument("--graphs", type=Path, default=ROOT.parent / "shared" / "data" / "graphs", metavar="DIR")
    parser.add_argument("--partitions", default="2", help="comma-separated numbers of parts (%(default)s)")
    parser.add_argument("--episodes", type=int, help="(default: the model's)")
    parser.add_argument("--negatives", default="shared", choices=("shared", "pair"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has pecanpy and gensim")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    name = options.graph or ("ppi" if options.quick else "blogcatalog")
    folder = options.graphs / name
    if not (folder / "edges.csv.gz").is_file():
        print(json.dumps({"graph": name, "skipped": f"{folder}/edges.csv.gz is missing"}))
        return
    case = {"graph": name, "p": BIASES[name][0], "q": BIASES[name][1], "num_walks": 2 if options.quick else 10}
    case |= {"cores": len(os.sched_getaffinity(0)), "seeds": 1 if options.quick else options.seeds}
    with tempfile.TemporaryDirectory() as scratch:
        task = task_of(name, folder, Path(scratch))
        case["edges"] = task["edges"]
        found = ours(case, task, options, Path(scratch))
        if options.peer:
            theirs = peer(case, task, options.peer, Path(scratch))
            better = {
                str(one["partitions"]): {key: round(one[key] - theirs[key], 4) for key in SCORES if key in one}
                for one in found
            }
            ratio = round(theirs["seconds"] / found[0]["seconds"], 2)
            print(json.dumps({"graph": name, "peer_over_ours": ratio, "ours_minus_peer": better}))


def task_of(name: str, folder: Path, scratch: Path) -> dict[str, Any]:
    """What is learned from, and what is asked of the vectors: ids are strings here."""
    from node2vec import evaluate

    if (folder / "labels.csv.gz").is_file():
        labels: dict[str, set[str]] = {}
        for node, label in np.loadtxt(folder / "labels.csv.gz", str, delimiter=",", skiprows=1):
            labels.setdefault(node, set()).add(label)
        return {"edges": str(folder / "edges.csv.gz"), "nodes": list(labels), "labels": list(labels.values())}
    ends = np.loadtxt(folder / "edges.csv.gz", np.int64, delimiter=",", skiprows=1, usecols=(0, 1))
    nodes, numbers = np.unique(ends, return_inverse=True)
    src, dst = numbers.reshape(ends.shape).T
    held = evaluate.hold_out_edges(src, dst, 0.5, seed=0)
    others = evaluate.sample_non_edges(src, dst, len(nodes), len(src), seed=0)
    count = int(held.sum())
    kept = np.flatnonzero(~held)[:count]
    edges = scratch / "train.csv"
    np.savetxt(edges, ends[~held], "%d", delimiter=",", header="src,dst", comments="")
    pairs = np.column_stack([src, dst])
    asked = {"test_positive": pairs[held], "test_negative": others[:count]}
    asked |= {"train_positive": pairs[kept], "train_negative": others[count : count + len(kept)]}
    return {"edges": str(edges), "nodes": [str(node) for node in nodes], "pairs": asked}


def score(task: dict[str, Any], ids: Any, vectors: Any) -> dict[str, float]:
    """Nodes without a vector count as zeros."""
    from node2vec import evaluate

    place = {str(node): number for number, node in enumerate(ids)}
    matrix = np.zeros((len(task["nodes"]), vectors.shape[1]), np.float32)
    for row, node in enumerate(task["nodes"]):
        if node in place:
            matrix[row] = vectors[place[node]]
    if "labels" in task:
        return dict(evaluate.node_classification(matrix, task["labels"]))
    return dict(evaluate.link_prediction(matrix, **task["pairs"]))


def ours(
    case: dict[str, Any], task: dict[str, Any], options: argparse.Namespace, scratch: Path
) -> list[dict[str, Any]]:
    """A run to warm up, then all seeds; with other numbers of parts on the same walks."""
    from node2vec.estimator import Node2Vec
    from sparkdl import spark_conf

    begun = time.perf_counter()
    spark = spark_conf.start_embedded(case["cores"], {"spark.local.dir": str(scratch / "local")})
    session = time.perf_counter() - begun
    parts = [int(part) for part in options.partitions.split(",")]
    seconds: dict[int, list[float]] = {part: [] for part in parts}
    scores: dict[int, list[dict[str, float]]] = {part: [] for part in parts}
    cold = 0.0
    for seed in range(-1, case["seeds"]):
        shutil.rmtree(scratch / "root", ignore_errors=True)
        for part in parts:
            for stage in ("corpus", "vectors"):
                shutil.rmtree(scratch / "root" / stage, ignore_errors=True)
            n2v = Node2Vec(
                p=case["p"], q=case["q"], num_walks=case["num_walks"], seed=max(seed, 0), partitions=part,
                episodes=options.episodes, negatives=options.negatives,
            )  # fmt: skip
            begun = time.perf_counter()
            model = n2v.fit(case["edges"], root=scratch / "root")
            taken = time.perf_counter() - begun
            if seed < 0:
                cold = taken
                break
            seconds[part].append(taken)
            rows = model.vectors.toPandas()
            scores[part].append(score(task, rows["id"].to_numpy(), np.stack(rows["vector"].to_numpy())))
    spark.stop()
    found = []
    for part in parts:
        times = {"seconds" if part == parts[0] else "train_seconds": round(float(np.mean(seconds[part])), 2)}
        times |= {"cold_seconds": round(cold, 2), "session_seconds": round(session, 2)} if part == parts[0] else {}
        found.append({**about(case), "who": "ours", "partitions": part, **times, **mean(scores[part])})
        print(json.dumps(found[-1]), flush=True)
    return found


def peer(case: dict[str, Any], task: dict[str, Any], python: str, scratch: Path) -> dict[str, Any]:
    """PecanPy and gensim."""
    runs, scores = [], []
    for seed in range(case["seeds"]):
        wanted = case | {"output": str(scratch / "peer.npz"), "seed": seed}
        env = {**os.environ, "NUMBA_NUM_THREADS": str(case["cores"])}
        done = subprocess.run([python, "-c", PEER, json.dumps(wanted)], env=env, stdout=subprocess.PIPE, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
        arrays = np.load(wanted["output"])
        scores.append(score(task, arrays["ids"], arrays["vectors"]))
    parts = {name: round(float(np.mean([run[name] for run in runs])), 2) for name in runs[0]}
    total = {"seconds": round(sum(parts.values()), 2)}
    found = {**about(case), "who": "PecanPy + gensim", **total, **parts, **mean(scores)}
    print(json.dumps(found), flush=True)
    return found


def about(case: dict[str, Any]) -> dict[str, Any]:
    """What both have in common."""
    return {name: case[name] for name in ("graph", "p", "q", "num_walks", "cores", "seeds")}


def mean(scores: list[dict[str, float]]) -> dict[str, float]:
    """Over the seeds, and the load at the end."""
    found = {name: round(float(np.mean([one[name] for one in scores])), 4) for name in SCORES if name in scores[0]}
    return {**found, "load": round(os.getloadavg()[0], 1)}


PEER = """
import json, sys, time
import numpy as np, random
from pecanpy import pecanpy
from gensim.models import Word2Vec
case = json.loads(sys.argv[1])
random.seed(case["seed"])
begun = time.perf_counter()
edges = np.loadtxt(case["edges"], np.int64, delimiter=",", skiprows=1, usecols=(0, 1))
import tempfile, os
with tempfile.TemporaryDirectory() as folder:
    np.savetxt(folder + "/edges", edges, "%d", delimiter="\\t")
    graph = pecanpy.SparseOTF(p=case["p"], q=case["q"], workers=case["cores"], verbose=False, random_state=case["seed"])
    graph.read_edg(folder + "/edges", weighted=False, directed=False)
read = time.perf_counter() - begun
move_forward, has_nbrs = graph.get_move_forward(), graph.get_has_nbrs()
graph.get_move_forward, graph.get_has_nbrs = lambda: move_forward, lambda: has_nbrs
graph.simulate_walks(1, 2)
begun = time.perf_counter()
walks = graph.simulate_walks(case["num_walks"], 79)
walked = time.perf_counter() - begun
begun = time.perf_counter()
settings = dict(vector_size=128, window=10, min_count=0, sg=1, epochs=1, sample=0)
model = Word2Vec(walks, workers=case["cores"], seed=case["seed"], **settings)
trained = time.perf_counter() - begun
np.savez(case["output"], ids=np.array(model.wv.index_to_key), vectors=model.wv.vectors)
print(json.dumps({"read_seconds": read, "walk_seconds": walked, "train_seconds": trained}))
"""


if __name__ == "__main__":
    main()
