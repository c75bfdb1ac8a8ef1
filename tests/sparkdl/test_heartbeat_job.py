"""What runs on Spark is seen from another thread, and only what belongs to the run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sparkdl.heartbeat_job import jobs_of_group
from sparkdl.spark_internals import running_job

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def test_a_running_job_is_seen_with_its_tasks(spark: SparkSession, tmp_path: Path) -> None:
    sc, door, started = spark.sparkContext, tmp_path / "door", tmp_path / "started"
    door_name, started_name = str(door), str(started)

    def wait(number: int) -> int:
        import os
        import time

        if number == 0:
            return 0
        open(started_name, "w").close()
        for _ in range(6000):
            if os.path.exists(door_name):
                break
            time.sleep(0.01)
        return number

    def run(group: str, text: str) -> None:
        sc.setLocalProperty("spark.jobGroup.id", group)
        sc.setJobDescription(text)
        sc.parallelize(range(4), 4).map(wait).collect()

    thread = threading.Thread(target=run, args=("ours", "epoch 1 step 2"))
    thread.start()
    try:
        seen = []
        for _ in range(2000):
            seen = jobs_of_group(sc, "ours")
            if started.exists() and seen and seen[0].running and seen[0].done:
                break
            threading.Event().wait(0.01)
        (job,) = seen
        assert job.what == "epoch 1 step 2"
        assert (job.tasks, job.done) == (4, 1)
        assert 1 <= job.running <= 2
        assert job.seconds >= 0
        assert jobs_of_group(sc, "somebody else's") == []
    finally:
        door.touch()
        thread.join(120)
    assert jobs_of_group(sc, "ours") == []
    assert running_job(sc, 10**6) is None
