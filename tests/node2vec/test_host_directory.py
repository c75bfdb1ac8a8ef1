"""One directory for all workers of an executor, outside of the user's."""

from __future__ import annotations

import os

from pyspark import SparkFiles
from pyspark.sql import SparkSession

from node2vec.host_directory import host_directory


def _of_task(number: int) -> str:
    return host_directory()


def test_tasks_share_it(spark: SparkSession) -> None:
    found = set(spark.sparkContext.parallelize(range(4), 4).map(_of_task).collect())
    assert found == {os.path.join(os.path.abspath(SparkFiles.getRootDirectory()), "node2vec")}
    assert host_directory() in found
