"""Lost executors are told from mistakes in user code."""

from __future__ import annotations

import pytest

from sparkdl.spark_failures import failure_text, first_line, is_cluster_failure, memory_hint


def test_failures_are_told_apart() -> None:
    lost = "Job aborted … Traceback (most recent call last):\n …\nsparkdl.errors.StateLost: versions [3], 4 is needed\n"
    assert is_cluster_failure(lost)
    assert first_line(lost) == "sparkdl.errors.StateLost: versions [3], 4 is needed"
    assert is_cluster_failure("Could not compute split, block rdd_7_1 of RDD 7 not found")
    assert not is_cluster_failure("… Traceback (most recent call last):\nValueError: mat1 and mat2")


def test_a_failure_of_python_is_its_own_text() -> None:
    assert failure_text(RuntimeError("Job aborted\nDriver stacktrace:\nat …")) == "Job aborted"


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("ExecutorLostFailure (executor 3 exited): java.lang.OutOfMemoryError: Java heap space", "executor.memory."),
        ("Container killed by YARN for exceeding physical memory limits. 9 GB of 8 GB", "memoryOverhead"),
        ("ExecutorLostFailure: … exited with exit code 137(SIGKILL, possible container OOM).", "memoryOverhead"),
        ("org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)", "memoryOverhead"),
    ],
)
def test_memory_that_ran_out_is_named(text: str, setting: str) -> None:
    assert is_cluster_failure(text)
    assert setting in memory_hint(text)


def test_other_losses_do_not_speak_of_memory() -> None:
    assert memory_hint("ExecutorLostFailure (executor 1 exited): Executor decommission finished") == ""
