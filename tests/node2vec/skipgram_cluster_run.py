"""Skip-gram training in a Spark session of its own, one of whose executors is killed; prints a JSON line.

Arguments: a folder, parts, cores of a task (and of an executor), and perhaps "resident": tables stay on executors.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from node2vec import resident_tables, skipgram_job, task_cores
from sparkdl import spark_conf
from tests.node2vec.test_skipgram_job import SETTINGS, corpus, vectors
from tests.node2vec.walk_cluster_run import executors


def main() -> None:
    folder, parts, cores = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    settings = {
        "spark.master": f"local-cluster[2,{cores},1024]",
        "spark.driver.memory": "1g",
        "spark.local.dir": str(folder / "local"),
    }
    spark = spark_conf.start_embedded(settings=settings)
    if "resident" in sys.argv:
        resident_tables.LARGE = 0
        skipgram_job.ROUNDS_KEPT = 3
    corpus(spark, folder / "root", parts)
    profile = task_cores.profile(spark.sparkContext, cores)
    killed: list[int] = []
    rounds: list[int] = []
    story = skipgram_job.story

    def story_and_kill(number: int, training: Any) -> str:
        rounds.append(number)
        if number == 5 and not killed:
            killed.append(executors()[0])
            os.kill(killed[0], signal.SIGKILL)
        return story(number, training)

    skipgram_job.story = story_and_kill
    np.save(folder / "found.npy", vectors(skipgram_job.train(spark, folder / "root", cores=cores, **SETTINGS)))
    print(json.dumps({"killed": len(killed), "profile": profile is not None, "rounds": rounds}))
    spark.stop()


if __name__ == "__main__":
    main()
