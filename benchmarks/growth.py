"""How time and memory grow with the graph: R-MAT graphs of 1M to 64M edges, indexed and walked on this machine.

One JSON line a graph, each in a process of its own:

  index_s          from a Parquet file of edges to root/graph and root/ids, cold
  replicated_s     one walk of 80 nodes from every node, p = 0.5, q = 2, to Parquet: the first of the session
  partitioned_s    the same, the graph cut into as many parts as there are cores
  *_peak_mb        most memory of all processes together (proportional set size: shared pages count once)
  bytes_per_edge   of root/graph, by edges given (before repeats are united)

and one with the slopes of log time and log memory over log edges, and with what these rates make of the two graphs that
Fugue's authors published (10M nodes and 300M edges: 3 h on 500 cores; 100M and 3B: 8 h on 2000 cores; both with
training): seconds of indexing and of 10 walks of 80 nodes from every node in the partitioned home, cores times this
machine's rate on its largest graph. No network and no training is in these.

    python benchmarks/growth.py
    python benchmarks/growth.py --quick             under a minute: 250k and 1M edges
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from processes import processes_below, proportional_size

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))

SIZES = {
    "250k": (14, 250_000),
    "1M": (16, 1_000_000),
    "4M": (18, 4_000_000),
    "16M": (20, 16_000_000),
    "64M": (22, 64_000_000),
}
PUBLISHED = [  # nodes, edges, cores, hours of Fugue's whole pipeline
    (10_000_000, 300_000_000, 500, 3.0),
    (100_000_000, 3_000_000_000, 2000, 8.0),
]
WALK_LENGTH = 80
NUM_WALKS = 10  # of the published pipelines; here each node has one
MB = 1 << 20


class Watch(threading.Thread):
    """Samples the memory of this process and all below it."""

    def __init__(self, every: float = 0.5) -> None:
        super().__init__(daemon=True)
        self.every = every
        self.peak = 0

    def run(self) -> None:
        """Goes on until the process ends."""
        while True:
            self.peak = max(self.peak, sum(map(proportional_size, [os.getpid(), *processes_below(os.getpid())])))
            time.sleep(self.every)

    def taken(self) -> int:
        """The highest since the last call, in megabytes."""
        peak, self.peak = self.peak, 0
        return round(peak / MB)


def run_case(name: str, heap: str) -> dict[str, Any]:
    """Indexes and walks one graph."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import rmat

    from node2vec import graph_job, walk_job
    from sparkdl import spark_conf

    scale, edges = SIZES[name]
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        path, root = f"{folder}/edges.parquet", f"{folder}/root"
        src, dst = rmat.rmat(scale, edges)
        pq.write_table(pa.table({"src": src, "dst": dst}), path, row_group_size=1 << 20)
        del src, dst
        pa.default_memory_pool().release_unused()
        spark = spark_conf.start_embedded(cores, {"spark.local.dir": f"{folder}/local", "spark.driver.memory": heap})
        spark.range(1000).count()
        watch = Watch()
        watch.start()
        found: dict[str, Any] = {"edges": edges, "cores": cores}
        begun = time.perf_counter()
        report = graph_job.index(spark, path, root)
        found |= {"index_s": round(time.perf_counter() - begun, 2), "index_peak_mb": watch.taken()}
        size = sum(file.stat().st_size for file in Path(root, "graph").rglob("*") if file.is_file())
        found |= {"nodes": report.nodes, "bytes_per_edge": round(size / edges, 2)}
        for home in ("replicated", "partitioned"):
            begun = time.perf_counter()
            walk_job.walk(spark, root, 0.5, 2.0, 1, WALK_LENGTH, home=home, verbose=False)
            found |= {f"{home}_s": round(time.perf_counter() - begun, 2), f"{home}_peak_mb": watch.taken()}
            shutil.rmtree(f"{root}/walks")
        found["steps"] = report.nodes * (WALK_LENGTH - 1)
        spark.stop()
    return found | {"load": round(os.getloadavg()[0], 1)}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Slopes over the graphs of a million edges and more (all, if there are fewer than two), and the estimates."""
    large = [row for row in rows if row["edges"] >= 1_000_000]
    large = large if len(large) > 1 else rows
    logs = [math.log(row["edges"]) for row in large]
    slopes = {
        key: round(float(np.polyfit(logs, [math.log(row[key]) for row in large], 1)[0]), 2)
        for key in rows[0]
        if key.endswith(("_s", "_mb"))
    }
    last = rows[-1]
    estimates = []
    for nodes, edges, cores, hours in PUBLISHED:
        index = last["index_s"] * last["cores"] / last["edges"] * edges / cores
        walk = last["partitioned_s"] * last["cores"] / last["steps"] * nodes * NUM_WALKS * (WALK_LENGTH - 1) / cores
        estimates.append(
            {
                "nodes": nodes, "edges": edges, "cores": cores, "index_s": round(index), "walk_s": round(walk),
                "published_h": hours, "published_over_ours": round(hours * 3600 / (index + walk)),
            }
        )  # fmt: skip
    return {"slopes": slopes, "estimates": estimates}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1M,4M,16M,64M", help=f"of {', '.join(SIZES)} (%(default)s)")
    parser.add_argument("--heap", default="6g", help="of the JVM (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="250k and 1M edges")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run_case(options.case, options.heap)))
        return
    rows = []
    for name in ["250k", "1M"] if options.quick else options.sizes.split(","):
        command = [sys.executable, str(HERE), "--case", name, "--heap", options.heap]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append(json.loads(printed.splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
    print(json.dumps(summary(rows)))


if __name__ == "__main__":
    main()
