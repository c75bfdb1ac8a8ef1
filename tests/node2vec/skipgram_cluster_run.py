"""Skip-gram training in a Spark session of its own, one of whose executors is killed; prints a JSON line."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from node2vec import skipgram_job
from sparkdl import spark_conf
from tests.node2vec.test_skipgram_job import SETTINGS, corpus, vectors
from tests.node2vec.walk_cluster_run import executors


def main() -> None:
    folder = Path(sys.argv[1])
    settings = {
        "spark.master": "local-cluster[2,1,1024]",
        "spark.driver.memory": "1g",
        "spark.local.dir": str(folder / "local"),
    }
    spark = spark_conf.start_embedded(settings=settings)
    corpus(spark, folder / "root")
    killed: list[int] = []
    story = skipgram_job.story

    def story_and_kill(number: int, training: Any) -> str:
        if number == 5:
            killed.append(executors()[0])
            os.kill(killed[0], signal.SIGKILL)
        return story(number, training)

    skipgram_job.story = story_and_kill
    np.save(folder / "found.npy", vectors(skipgram_job.train(spark, folder / "root", **SETTINGS)))
    print(json.dumps({"killed": len(killed)}))
    spark.stop()


if __name__ == "__main__":
    main()
