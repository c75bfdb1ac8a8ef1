"""From a file of edges to vectors, beside PecanPy's walks and gensim's training: seconds and quality in the same run.

One JSON line for each of us and the peer: seconds by part and in all, macro-F1 and micro-F1 of node classification
(mean of 5 splits, half of the labels known) of the vectors, averaged over --seeds runs. Then one with the ratio.

Ours: Node2Vec.fit on a warm session (cold is told too), until the vectors are in Parquet. The peer: PecanPy SparseOTF
with as many threads as cores, its compilation not counted, and gensim with as many workers.

    python benchmarks/node2vec_end_to_end.py --peer PYTHON       a Python that has pecanpy and gensim
    python benchmarks/node2vec_end_to_end.py --quick             a minute: PPI, two walks a node, no labels' mean
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

BIASES = {"blogcatalog": (0.25, 0.25), "ppi": (4.0, 1.0)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", choices=tuple(BIASES), help="(blogcatalog; quick: ppi)")
    parser.add_argument("--graphs", type=Path, default=ROOT.parent / "shared" / "data" / "graphs", metavar="DIR")
    parser.add_argument("--partitions", type=int, help="P (default: the model's)")
    parser.add_argument("--episodes", type=int, help="E (default: the model's)")
    parser.add_argument("--negatives", default="shared", choices=("shared", "pair"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has pecanpy and gensim")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    name = options.graph or ("ppi" if options.quick else "blogcatalog")
    folder = options.graphs / name
    if not (folder / "labels.csv.gz").is_file():
        print(json.dumps({"graph": name, "skipped": f"{folder}/labels.csv.gz is missing"}))
        return
    cores = len(os.sched_getaffinity(0))
    case = {"graph": name, "folder": str(folder), "cores": cores, "num_walks": 2 if options.quick else 10}
    case |= {"p": BIASES[name][0], "q": BIASES[name][1], "seeds": 1 if options.quick else options.seeds}
    with tempfile.TemporaryDirectory() as scratch:
        found = [ours(case, options, Path(scratch))]
        print(json.dumps(found[0]), flush=True)
        if options.peer:
            found.append(peer(case, options.peer, Path(scratch)))
            print(json.dumps(found[1]), flush=True)
            ratio = round(found[1]["seconds"] / found[0]["seconds"], 2)
            print(json.dumps({"graph": name, "peer_over_ours": ratio, "cores": cores}))


def ours(case: dict[str, Any], options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Cold once, then one warm run a seed."""
    from node2vec.estimator import Node2Vec
    from sparkdl import spark_conf

    begun = time.perf_counter()
    spark = spark_conf.start_embedded(case["cores"], {"spark.local.dir": str(scratch / "local")})
    session = time.perf_counter() - begun
    seconds, scores = [], []
    for seed in range(-1, case["seeds"]):
        shutil.rmtree(scratch / "root", ignore_errors=True)
        n2v = Node2Vec(
            p=case["p"], q=case["q"], num_walks=case["num_walks"], seed=max(seed, 0), partitions=options.partitions,
            episodes=options.episodes, negatives=options.negatives,
        )  # fmt: skip
        begun = time.perf_counter()
        model = n2v.fit(f"{case['folder']}/edges.csv.gz", root=scratch / "root")
        seconds.append(time.perf_counter() - begun)
        if seed >= 0:
            rows = model.vectors.toPandas()
            scores.append(score(case, rows["id"].to_numpy(), np.stack(rows["vector"].to_numpy())))
    spark.stop()
    return {
        **about(case), "who": "ours", "seconds": round(float(np.mean(seconds[1:])), 2),
        "cold_seconds": round(seconds[0], 2), "session_seconds": round(session, 2), **mean(scores),
    }  # fmt: skip


def peer(case: dict[str, Any], python: str, scratch: Path) -> dict[str, Any]:
    """PecanPy and gensim."""
    found, scores = [], []
    for seed in range(case["seeds"]):
        wanted = case | {"output": str(scratch / "peer.npz"), "seed": seed}
        env = {**os.environ, "NUMBA_NUM_THREADS": str(case["cores"])}
        done = subprocess.run([python, "-c", PEER, json.dumps(wanted)], env=env, stdout=subprocess.PIPE, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        arrays = np.load(wanted["output"])
        scores.append(score(case, arrays["ids"], arrays["vectors"]))
    parts = {name: round(float(np.mean([run[name] for run in found])), 2) for name in found[0]}
    return {**about(case), "who": "PecanPy + gensim", "seconds": round(sum(parts.values()), 2), **parts, **mean(scores)}


def about(case: dict[str, Any]) -> dict[str, Any]:
    """What both have in common."""
    return {name: case[name] for name in ("graph", "p", "q", "num_walks", "cores", "seeds")}


def mean(scores: list[dict[str, float]]) -> dict[str, float]:
    """Over the seeds, and the load at the end."""
    found = {name: round(float(np.mean([one[name] for one in scores])), 4) for name in ("macro_f1", "micro_f1")}
    return {**found, "load": round(os.getloadavg()[0], 1)}


def score(case: dict[str, Any], ids: Any, vectors: Any) -> dict[str, float]:
    """Node classification; nodes without vector count as zeros."""
    from node2vec.evaluate import node_classification

    lines = np.loadtxt(f"{case['folder']}/labels.csv.gz", str, delimiter=",", skiprows=1)
    labels: dict[str, set[str]] = {}
    for node, label in lines:
        labels.setdefault(node, set()).add(label)
    place = {str(node): number for number, node in enumerate(ids)}
    matrix = np.zeros((len(labels), vectors.shape[1]), np.float32)
    for row, node in enumerate(labels):
        if node in place:
            matrix[row] = vectors[place[node]]
    return dict(node_classification(matrix, list(labels.values())))


PEER = """
import json, sys, time
import numpy as np, random
from pecanpy import pecanpy
from gensim.models import Word2Vec
case = json.loads(sys.argv[1])
random.seed(case["seed"])
begun = time.perf_counter()
edges = np.loadtxt(case["folder"] + "/edges.csv.gz", np.int64, delimiter=",", skiprows=1, usecols=(0, 1))
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
