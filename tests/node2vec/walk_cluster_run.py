"""Walks of the partitioned home in a Spark session of their own, for tests that kill executors; prints a JSON line."""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path
from typing import Any

from node2vec import partitioned_walk_job, spark_shuffles, walk_files
from node2vec.graph_files import read_header
from sparkdl import spark_conf


def executors() -> list[int]:
    """The executor processes under this one."""
    parents, found = {}, []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if b"CoarseGrainedExecutorBackend" in command:
                found.append(int(entry.name))

    def is_ours(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return sorted(filter(is_ours, found))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--graph", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--request", type=json.loads, required=True)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--kill-at", type=int, help="kill an executor before this superstep")
    arguments = parser.parse_args()
    settings = {
        "spark.master": "local-cluster[2,1,1024]",
        "spark.driver.memory": "1g",
        "spark.local.dir": f"{arguments.folder}/local",
    }
    spark = spark_conf.start_embedded(settings=settings)
    private = spark_shuffles.works(spark.sparkContext)  # now, so that its supersteps are not counted
    killed: list[int] = []
    run = spark_shuffles.PrivateShuffles.run
    supersteps = 0

    def run_and_kill(self: Any, sent: Any) -> bool:
        nonlocal supersteps
        supersteps += 1
        if supersteps == arguments.kill_at:
            killed.append(executors()[0])
            os.kill(killed[0], signal.SIGKILL)
        return run(self, sent)

    spark_shuffles.PrivateShuffles.run = run_and_kill  # type: ignore[method-assign]
    output = f"{arguments.folder}/walks"
    fingerprint = read_header(arguments.graph).fingerprint
    parts = partitioned_walk_job.write_walks(
        spark.sparkContext, arguments.graph, fingerprint, output, arguments.request, **arguments.options
    )
    walks = [walk for chunk in walk_files.read(output) for walk in chunk.to_pylist()]
    (Path(arguments.folder) / "walks.json").write_text(json.dumps(walks))
    print(json.dumps({"supersteps": supersteps, "killed": len(killed), "files": len(parts), "private": private}))
    spark.stop()


if __name__ == "__main__":
    main()
