"""Skip-gram training in a Spark session of its own, one of whose executors is killed; prints a JSON line a training.

First with tables that are sent, then with tables that stay on executors, of tasks of two cores. Argument: a folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from node2vec import resident_tables, skipgram_job, task_cores
from sparkdl import spark_conf
from sparkdl.spark_internals import concurrent_tasks
from tests.node2vec.test_skipgram_job import SETTINGS, corpus, vectors
from tests.node2vec.walk_cluster_run import executors

TRAININGS = {"sent": (3, 1), "stay": (4, 2)}  # parts, cores


def main() -> None:
    folder = Path(sys.argv[1])
    settings = {
        "spark.master": "local-cluster[2,2,1024]",
        "spark.driver.memory": "1g",
        "spark.local.dir": str(folder / "local"),
    }
    spark = spark_conf.start_embedded(settings=settings)
    sc = spark.sparkContext
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
    for name, (parts, cores) in TRAININGS.items():
        if name == "stay":
            resident_tables.LARGE = 0
            skipgram_job.ROUNDS_KEPT = 3
        killed.clear()
        rounds.clear()
        while concurrent_tasks(sc) != 4 or len(executors()) != 2:  # both are there, and so both get work
            time.sleep(0.1)
        corpus(spark, folder / name, parts)
        found = vectors(skipgram_job.train(spark, folder / name, cores=cores, **SETTINGS))
        np.save(folder / f"{name}.npy", found)
        profile = task_cores.profile(sc, cores) is not None
        print(json.dumps({"killed": len(killed), "profile": profile, "rounds": rounds}))
    spark.stop()


if __name__ == "__main__":
    main()
