from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

import sparkdl
from sparkdl import preflight_job
from sparkdl.preflight_job import COMPARED, differences, explain, preflight, versions

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DRIVER: dict[str, str | None] = dict.fromkeys(COMPARED, "1.0") | {"host": "laptop"}


def test_versions_of_this_process() -> None:
    answer = versions()
    assert set(COMPARED) <= set(answer)
    assert answer["python"] == ".".join(platform.python_version_tuple()[:2])
    assert answer["torch"] == torch.__version__
    assert answer["sparkdl"] == sparkdl.__version__
    assert Path(str(answer["sparkdl directory"])) == Path(sparkdl.__file__).parent


def test_equal_versions_differ_in_nothing() -> None:
    assert differences(DRIVER, DRIVER | {"host": "host7", "sparkdl directory": "elsewhere"}) == []


def test_what_follows_a_plus_is_not_compared() -> None:
    assert differences(DRIVER | {"torch": "2.13.0+cpu"}, DRIVER | {"torch": "2.13.0+cu130"}) == []
    assert differences(DRIVER | {"torch": "2.13.0+cpu"}, DRIVER | {"torch": "2.13.1+cpu"}) != []


def test_each_difference_is_a_clause() -> None:
    executor = DRIVER | {"torch": "0.9", "sparkdl": None, "host": "host7"}
    assert differences(DRIVER, executor) == [
        "torch is 0.9 on the executor at host7 and 1.0 on the driver",
        "sparkdl is missing on the executor at host7 (the driver has 1.0)",
    ]


@pytest.mark.parametrize("versions", [": 3.12 than that in driver: 3.11", " (3, 12) than that in driver 3.11"])
def test_another_python_is_explained(versions: str) -> None:
    sentence = explain(
        "pyspark.errors.exceptions.base.PySparkRuntimeError: [PYTHON_VERSION_MISMATCH] Python in worker has different "
        f"version{versions}, PySpark cannot run with different minor versions."
    )
    assert sentence is not None
    assert sentence.startswith("python is 3.12 on an executor and 3.11 on the driver")
    assert "--archives environment.tar.gz" in sentence


def test_a_missing_python_is_explained() -> None:
    missing = explain('java.io.IOException: Cannot run program "./environment/bin/python": error=2, No such file')
    assert missing is not None
    assert "no Python at ./environment/bin/python" in missing
    assert explain("java.lang.OutOfMemoryError") is None


@pytest.mark.spark
def test_executors_answer_like_the_driver(spark: SparkSession) -> None:
    sc = spark.sparkContext
    sc.setJobDescription("the caller's own")
    assert preflight(sc, 3) == [versions()] * 3
    assert sc.getLocalProperty("spark.job.description") == "the caller's own"
    sc.setLocalProperty("spark.job.description", None)  # type: ignore[arg-type]


@pytest.mark.spark
def test_a_different_package_stops_with_a_sentence(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight_job, "versions", lambda: versions() | {"sparkdl": "9.9"})
    with pytest.raises(RuntimeError, match=r"^sparkdl is .* and 9\.9 on the driver\. .*--py-files sparkdl\.zip$"):
        preflight(spark.sparkContext, 1)


@pytest.mark.spark
def test_executors_without_torch_stop_with_a_sentence(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # An environment with nothing installed: the worker still gets pyspark, because Spark brings its own.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setattr(spark.sparkContext, "pythonExec", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(RuntimeError, match=r"torch is missing on the executor at .*--archives environment\.tar\.gz"):
        preflight(spark.sparkContext, 1)


@pytest.mark.spark
def test_executors_without_python_stop_with_a_sentence(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(spark.sparkContext, "pythonExec", str(tmp_path / "python"))
    with pytest.raises(RuntimeError, match=f"no Python at {tmp_path}/python"):
        preflight(spark.sparkContext, 1)
