"""Lost executors are told from mistakes in user code."""

from __future__ import annotations

from sparkdl.spark_failures import failure_text, first_line, is_cluster_failure


def test_failures_are_told_apart() -> None:
    lost = "Job aborted … Traceback (most recent call last):\n …\nsparkdl.errors.StateLost: versions [3], 4 is needed\n"
    assert is_cluster_failure(lost)
    assert first_line(lost) == "sparkdl.errors.StateLost: versions [3], 4 is needed"
    assert is_cluster_failure("Could not compute split, block rdd_7_1 of RDD 7 not found")
    assert not is_cluster_failure("… Traceback (most recent call last):\nValueError: mat1 and mat2")


def test_a_failure_of_python_is_its_own_text() -> None:
    assert failure_text(RuntimeError("Job aborted\nDriver stacktrace:\nat …")) == "Job aborted"
