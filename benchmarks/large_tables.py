"""Skip-gram tables several times as large as an executor's memory: does it train, and what does each process need?

A random corpus over so many nodes that both tables are `--times` executors' memory, trained on
local-cluster[2,1,MEMORY]: two executors of one core. Prints one JSON line: seconds of a round, and the largest resident
memory of the executors' JVMs, of the Python workers and of the driver.

    python benchmarks/large_tables.py
    python benchmarks/large_tables.py --quick         a minute: tables of a quarter of an executor's memory
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from processes import Watch, rss

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))
MB = 1 << 20
WALK_LENGTH = 40
DIMENSIONS = 128


class Peaks(Watch):
    """The highest resident memory of each kind of process."""

    def __init__(self) -> None:
        super().__init__()
        self.peaks = {"executor_jvm_mb": 0, "python_worker_mb": 0, "driver_jvm_mb": 0, "driver_python_mb": 0}

    def see(self, kind: str, pid: int) -> None:
        """Keep the highest."""
        name = f"{kind.lower().replace(' ', '_')}_mb"
        self.peaks[name] = max(self.peaks[name], rss(pid) // MB)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=int, default=1024, help="of an executor, in MB (%(default)s)")
    parser.add_argument("--times", type=float, default=4.0, help="the tables' size over it (%(default)s)")
    parser.add_argument("--partitions", type=int, help="(16; quick: 8)")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    times = 0.25 if options.quick else options.times
    options.partitions = options.partitions or (8 if options.quick else 16)
    num_nodes = int(times * options.memory * MB / (8 * DIMENSIONS))
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(Path(folder), num_nodes, options)))


def run(root: Path, num_nodes: int, options: argparse.Namespace) -> dict[str, Any]:
    """Prepare and train."""
    from node2vec import block_schedule, corpus_job, skipgram_job
    from sparkdl import spark_conf

    num_walks = max(20_000, num_nodes // 20)
    write_walks(root, num_nodes, num_walks)
    master = f"local-cluster[2,1,{options.memory}]"
    settings = {"spark.master": master, "spark.driver.memory": "1g", "spark.local.dir": str(root / "local")}
    settings["spark.executor.memory"] = f"{options.memory}m"
    spark = spark_conf.start_embedded(settings=settings)
    watch = Peaks()
    watch.start()
    begun = time.perf_counter()
    corpus_job.prepare(spark, root, options.partitions, 1)
    prepared = time.perf_counter()
    frame = skipgram_job.train(spark, root, dimensions=DIMENSIONS, window=5, verbose=False)
    seconds = time.perf_counter() - prepared
    found = frame.count()
    spark.stop()
    rounds = block_schedule.num_rounds(options.partitions, 1, 1)
    return {
        "nodes": num_nodes, "dimensions": DIMENSIONS, "tables_mb": 8 * DIMENSIONS * num_nodes // MB,
        "executor_memory_mb": options.memory, "partitions": options.partitions, "vectors": found,
        "prepare_s": round(prepared - begun, 1), "train_s": round(seconds, 1), "round_s": round(seconds / rounds, 2),
        **watch.peaks, "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def write_walks(root: Path, num_nodes: int, num_walks: int) -> None:
    """root/walks and root/ids: each node at least once, in walks of nodes that are near each other."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import fs

    from node2vec import stage, walk_files

    rng = np.random.default_rng(0)
    stage.begin(root, "walks", {"walk_length": WALK_LENGTH})
    borders = np.linspace(0, num_walks, 9).astype(int)
    for number in range(8):
        first, last = borders[number], borders[number + 1]
        starts = np.arange(first, last) * (num_nodes / num_walks)
        walks = (starts[:, None] + rng.integers(0, 200, (last - first, WALK_LENGTH))).astype(np.int64) % num_nodes
        lengths = np.full(last - first, WALK_LENGTH, np.int32)
        path = str(root / "walks" / walk_files.part_name(number))
        walk_files.write(fs.LocalFileSystem(), path, [walk_files.batch_of(walks.astype(np.int32), lengths)])
    stage.finish(root, "walks")
    (root / "ids").mkdir()
    index = pa.array(np.arange(num_nodes), pa.int32())
    pq.write_table(pa.table({"index": index, "id": index}), root / "ids" / "part-0.parquet")


if __name__ == "__main__":
    main()
