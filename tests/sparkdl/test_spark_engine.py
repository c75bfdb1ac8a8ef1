"""Law 2 under failures: the same bits on other masters, and after tasks, workers and executors were lost."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.sparkdl.cluster_run import trainer_and_rows
from tests.sparkdl.runs import fingerprint_of_twin

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> list[dict[str, Any]]:
    """Trains in a process of its own; what it says of each training."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.sparkdl.cluster_run", "--folder", folder, *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@functools.lru_cache
def undisturbed(epochs: int = 4, sparse: bool = False) -> str:
    """What the twin, one process without Spark, makes of the same training."""
    trainer, rows = trainer_and_rows("gather", sparse, "no such file")
    return fingerprint_of_twin(trainer, trainer.model, rows, epochs)


@pytest.mark.spark
def test_one_slot_has_the_bits_of_the_twin() -> None:
    assert [found["fingerprint"] for found in run("--master", "local[1,4]")] == [undisturbed()]


@pytest.mark.spark
@pytest.mark.timeout(600)
def test_killed_executors_change_no_bit() -> None:
    found = run(
        "--master", "local-cluster[2,1,1024]", "--forms", "gather", "fused", "sparse-fused", "gather",
        "--kill", "executor", "executor", "executor", "all-executors", "--at", "17", "--conf",
        "spark.executor.memory=600m",
    )  # fmt: skip
    assert [each["killed"] for each in found] == [1, 1, 1, 2]
    assert all(each["events"] for each in found), "a run did not notice"
    dense, sparse = undisturbed(), undisturbed(sparse=True)
    assert [each["fingerprint"] for each in found] == [dense, dense, sparse, dense]


@pytest.mark.spark
@pytest.mark.parametrize("arguments", [("--forms", "fused"), ("--same-host",)])
def test_killed_workers_change_no_bit(arguments: tuple[str, ...]) -> None:
    (found,) = run(*arguments, "--kill", "worker", "--at", "12", "25")
    assert found["killed"] >= 1
    assert found["fingerprint"] == undisturbed()


@pytest.mark.spark
def test_a_task_that_fails_once_or_runs_twice_changes_no_bit() -> None:
    speculation = (
        "spark.speculation=true", "spark.speculation.interval=10ms", "spark.speculation.multiplier=1.01",
        "spark.speculation.quantile=0.1", "spark.speculation.minTaskRuntime=1ms",
    )  # fmt: skip
    found = run(
        "--master", "local[3,4]", "--forms", "gather", "jobs", "--kill", "task", "task", "--at", "11", "--conf",
        *speculation,
    )  # fmt: skip
    assert [each["fingerprint"] for each in found] == [undisturbed()] * 2


@pytest.mark.spark
def test_replicas_spread_to_an_executor_that_joins() -> None:
    (found,) = run(
        "--master", "local-cluster[2,1,1024]", "--join", "15", "--epochs", "6", "--conf", "spark.executor.memory=600m",
    )  # fmt: skip
    assert [text.partition(" at step")[0] for _, text in found["events"]] == ["1 executors joined"]
    assert found["fingerprint"] == undisturbed(epochs=6)
