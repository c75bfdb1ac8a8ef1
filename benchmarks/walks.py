"""How many steps of random walks a core makes in a second, beside PecanPy on the same machine in the same run.

One JSON line per case and form:

  job cold, job warm   from the indexed graph to walks written as Parquet by Spark; cold is the first job of a session
                       (Python workers start, the host's files are made), warm the best of those after it
  kernel               walks into memory by one thread: in lanes with the edge filter, and plain, one after the other
  PecanPy ...          simulate_walks of SparseOTF and PreComp, into lists of strings as it makes them, compiled before;
                       its preparation is told apart

A step is a node of a walk after its first. steps_per_s_core = steps / seconds / cores; a job's seconds are wall clock.
Graphs are undirected and unweighted. R-MAT graphs are made here, as is random-V, V nodes of which each pair is an edge
with probability 5 %; the others are read from --graphs and left out, with a line that says so, when they are not there.

    python benchmarks/walks.py --quick                         under a minute
    python benchmarks/walks.py --pecanpy PYTHON                a Python of its own: pip install pecanpy==2.0.9 'numpy<2'
    python benchmarks/walks.py --full                          R-MAT up to 64M edges
    python benchmarks/walks.py --home partitioned --partitions 2
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

# name -> (R-MAT scale, edges); others are files
RMAT = {
    "rmat-250k": (14, 250_000), "rmat-1M": (16, 1_000_000), "rmat-4M": (18, 4_000_000), "rmat-16M": (20, 16_000_000),
    "rmat-64M": (22, 64_000_000),
}  # fmt: skip
CASES = ("ppi", "blogcatalog", "rmat-1M", "rmat-4M", "rmat-16M")
QUICK_CASES = ("ppi", "rmat-250k")
EDGE_PROBABILITY = 0.05
TARGET_STEPS = 50_000_000  # of a job, where the graph does not ask for more: long enough to hide the job's start
QUICK_STEPS = 5_000_000
KERNEL_STEPS = 10_000_000
LARGEST_FOR_PECANPY = 3_000_000  # arcs; above, a step of SparseOTF takes tens of microseconds
LARGEST_TABLES = 1e9  # numbers in the tables of PreComp: minutes to make, gigabytes
PECANPY_STEPS = {"SparseOTF": 1_500_000, "PreComp": 15_000_000}


def main() -> None:
    """Runs the cases, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", help=f"comma-separated, of {', '.join([*CASES, 'rmat-64M', 'rmat-250k'])}")
    parser.add_argument("--graphs", type=Path, default=ROOT.parent / "shared" / "data" / "graphs", metavar="DIR")
    parser.add_argument("--p", type=float, default=0.5)
    parser.add_argument("--q", type=float, default=2.0)
    parser.add_argument("--walk-length", type=int, default=80, metavar="L")
    parser.add_argument("--num-walks", type=int, metavar="N", help="from each node (default: as many as take seconds)")
    parser.add_argument(
        "--cores", type=int, default=len(os.sched_getaffinity(0)), help="task slots (default: %(default)s)"
    )
    parser.add_argument("--home", default="replicated", choices=("replicated", "partitioned"))
    parser.add_argument("--partitions", type=int, help="tasks (default: walk_job's)")
    parser.add_argument("--pecanpy", metavar="PYTHON", help="an interpreter that has pecanpy")
    parser.add_argument("--quick", action="store_true", help="small cases, to see that it works")
    parser.add_argument("--full", action="store_true", help="up to 64M edges")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        run_case(json.loads(options.case))
        return
    names = options.cases.split(",") if options.cases else QUICK_CASES if options.quick else CASES
    names = [*names, "rmat-64M"] if options.full else names
    for name in names:
        path = options.graphs / name / "edges.csv.gz"
        if name not in RMAT and not name.startswith("random-") and not path.is_file():
            print(json.dumps({"graph": name, "skipped": f"{path} is missing"}), flush=True)
            continue
        case = {key: value for key, value in vars(options).items() if key not in ("case", "cases", "graphs", "full")}
        case |= {"graph": name, "path": str(path)}
        subprocess.run([sys.executable, str(HERE), "--case", json.dumps(case)], check=True)


def run_case(case: dict[str, Any]) -> None:
    """Prints the lines of one graph."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        graph = make_graph(case["graph"], case["path"], root)
        about = {key: case[key] for key in ("graph", "p", "q", "walk_length")}
        about |= {"nodes": graph.num_nodes, "arcs": graph.num_arcs}
        lines = [kernels(case, graph), jobs(case, graph, root)]
        if case["pecanpy"]:
            lines.append(pecanpy(case, graph, root))
        for form in lines:
            for line in form:
                rate = {}
                if "steps" in line:
                    rate["steps_per_s_core"] = round(line["steps"] / line["seconds"] / line["cores"])
                    line["seconds"] = round(line["seconds"], 3)
                print(json.dumps({**about, **line, **rate, "load": round(os.getloadavg()[0], 1)}), flush=True)


def make_graph(name: str, path: str, root: Path) -> Any:
    """Indexes the graph into `root`, without Spark."""
    import rmat

    from node2vec.edge_cleaning import clean

    if name in RMAT:
        src, dst = rmat.rmat(*RMAT[name])
    elif name.startswith("random-"):
        src, dst = random_edges(int(name.removeprefix("random-")))
    else:
        src, dst = np.loadtxt(path, np.int64, delimiter=",", skiprows=1, usecols=(0, 1), unpack=True)
    _, graph, report = clean(src, dst)
    graph.save(root / "graph", report.to_dict())
    return graph


def random_edges(num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of nodes is an edge with probability EDGE_PROBABILITY."""
    rng = np.random.default_rng(num_nodes)
    rows = [v + 1 + np.flatnonzero(rng.random(num_nodes - v - 1) < EDGE_PROBABILITY) for v in range(num_nodes)]
    return np.repeat(np.arange(num_nodes), [len(row) for row in rows]), np.concatenate(rows)


def kernels(case: dict[str, Any], graph: Any) -> Iterator[dict[str, Any]]:
    """One thread, walks into memory; the first call compiles."""
    from node2vec.walks import prepare, walk

    tables = prepare(graph)
    steps = QUICK_STEPS if case["quick"] else KERNEL_STEPS
    num_walks = max(1, steps // (case["walk_length"] - 1))
    if case["num_walks"]:
        num_walks = case["num_walks"] * graph.num_nodes
    rng = np.random.default_rng(0)
    starts = rng.permutation(np.arange(num_walks) % graph.num_nodes).astype(np.int32)
    numbers = np.arange(num_walks) // graph.num_nodes
    for name, lanes in (("kernel, lanes and filter", True), ("kernel, plain", False)):
        walk(graph, starts[:10], numbers[:10], 3, case["p"], case["q"], tables=tables, lanes=lanes)
        begun = time.perf_counter()
        _, lengths = walk(graph, starts, numbers, case["walk_length"], case["p"], case["q"], tables=tables, lanes=lanes)
        seconds = time.perf_counter() - begun
        yield {"form": name, "cores": 1, "steps": int(lengths.sum()) - num_walks, "seconds": seconds}


def jobs(case: dict[str, Any], graph: Any, root: Path) -> Iterator[dict[str, Any]]:
    """The Spark job: cold once, then warm."""
    from node2vec import walk_files, walk_job
    from sparkdl import spark_conf

    per_walk = graph.num_nodes * (case["walk_length"] - 1)
    num_walks = case["num_walks"] or max(1, round((QUICK_STEPS if case["quick"] else TARGET_STEPS) / per_walk))
    begun = time.perf_counter()
    spark = spark_conf.start_embedded(case["cores"], {"spark.local.dir": str(root / "local")})
    session = time.perf_counter() - begun
    runs = []
    for _ in range(2 if case["quick"] else 4):
        shutil.rmtree(root / "walks", ignore_errors=True)
        begun = time.perf_counter()
        walk_job.walk(
            spark, root, case["p"], case["q"], num_walks, case["walk_length"],
            partitions=case["partitions"], home=case["home"], verbose=False,
        )  # fmt: skip
        runs.append(time.perf_counter() - begun)
    spark.stop()
    walks = sum(len(batch) for batch in walk_files.read(root / "walks"))
    steps = sum(len(batch.flatten()) for batch in walk_files.read(root / "walks")) - walks
    size = sum(path.stat().st_size for path in (root / "walks").glob("part-*"))
    about = {"cores": case["cores"], "steps": steps, "walks": walks}
    yield {"form": f"job cold, {case['home']}", **about, "seconds": runs[0], "session_seconds": round(session, 2)}
    yield {
        "form": f"job warm, {case['home']}",
        **about,
        "seconds": min(runs[1:]),
        "bytes_per_step": round(size / steps, 2),
    }


def tables_of(graph: Any) -> float:
    """Numbers in one table for each arc, as long as the row that the arc leads to."""
    degrees = np.diff(graph.indptr).astype(float)
    return float((degrees**2).sum())


def pecanpy(case: dict[str, Any], graph: Any, root: Path) -> Iterator[dict[str, Any]]:
    """PecanPy, in its own interpreter, with as many threads as we have tasks."""
    if graph.num_arcs > LARGEST_FOR_PECANPY:
        yield {"form": "PecanPy", "skipped": f"more than {LARGEST_FOR_PECANPY} arcs would take hours"}
        return
    np.savez(root / "graph.npz", indptr=graph.indptr, indices=graph.indices)
    env = {**os.environ, "NUMBA_NUM_THREADS": str(case["cores"])}
    env.pop("NUMBA_CACHE_DIR", None)
    for mode, steps in PECANPY_STEPS.items():
        if mode == "PreComp" and (case["quick"] or tables_of(graph) > LARGEST_TABLES):
            continue
        steps = steps // 10 if case["quick"] else steps
        arguments = {"npz": str(root / "graph.npz"), "mode": mode, "steps": steps * case["cores"]}
        arguments |= {key: case[key] for key in ("p", "q", "walk_length")}
        done = subprocess.run(
            [case["pecanpy"], "-c", PECANPY, json.dumps(arguments)],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            yield {"form": f"PecanPy {mode}", "skipped": done.stderr.strip().splitlines()[-1]}
        else:
            yield {"form": f"PecanPy {mode}", "cores": case["cores"], **json.loads(done.stdout.splitlines()[-1])}


# Its walk_length counts steps. It makes its two functions anew in every call, and numba compiles them anew; here they
# are kept, so that a short call compiles them for the one that counts.
PECANPY = """
import json, sys, time
import numpy as np
from pecanpy import pecanpy
given = json.loads(sys.argv[1])
arrays = np.load(given["npz"])
def prepared(indptr, indices):
    graph = getattr(pecanpy, given["mode"])(p=given["p"], q=given["q"], workers=1, verbose=False, random_state=0)
    graph.set_node_ids([str(node) for node in range(len(indptr) - 1)])
    graph.indptr, graph.indices = indptr.astype(np.uint32), indices.astype(np.uint32)
    graph.data = np.ones(len(indices), np.float32)
    begun = time.perf_counter()
    graph.preprocess_transition_probs()
    return graph, time.perf_counter() - begun
_, compiling = prepared(np.array([0, 1, 3, 4]), np.array([1, 0, 2, 1]))
graph, seconds = prepared(arrays["indptr"], arrays["indices"])
preparing, num_nodes = max(0.0, seconds - compiling), len(arrays["indptr"]) - 1
length = given["walk_length"] - 1
num_walks = max(1, round(given["steps"] / num_nodes / length))
if num_walks == 1 and num_nodes * length > 2 * given["steps"]:
    length = max(2, given["steps"] // num_nodes)
move_forward, has_nbrs = graph.get_move_forward(), graph.get_has_nbrs()
graph.get_move_forward, graph.get_has_nbrs = lambda: move_forward, lambda: has_nbrs
graph.simulate_walks(1, 2)
begun = time.perf_counter()
made = graph.simulate_walks(num_walks, length)
seconds = time.perf_counter() - begun
steps = sum(map(len, made)) - len(made)
print(json.dumps({"steps": steps, "seconds": seconds, "prepare_seconds": round(preparing, 2)}))
"""


if __name__ == "__main__":
    main()
