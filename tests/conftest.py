from __future__ import annotations

import os

# Before numpy and torch are loaded. Tensors are small here: threads would mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

settings.register_profile("sparkdl", deadline=None)  # machines may be busy, and numba compiles at first
settings.load_profile("sparkdl")


# Clusters that are started, and killed. Begun first, or one of several processes would have them alone at the end.
LONG = {"test_spark_engine.py", "test_fit_run.py", "test_spark_public.py", "test_skipgram_job.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One session for all tests: the embedded one on two task slots, its files in a temporary directory."""
    from sparkdl import spark_conf  # here, so that tests without Spark do not import it

    folder = tmp_path_factory.mktemp("spark")
    session = spark_conf.start_embedded(
        cores=2,
        settings={
            "spark.app.name": "sparkdl tests",
            "spark.driver.memory": "1g",
            "spark.local.dir": str(folder / "local"),
            "spark.sql.warehouse.dir": str(folder / "warehouse"),
            "spark.sql.shuffle.partitions": "2",
        },
    )
    yield session
    session.stop()
