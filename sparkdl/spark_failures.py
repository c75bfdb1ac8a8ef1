"""What a failed Spark job says: whether user code raised, or the cluster lost something that can be made again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors.exceptions.captured import CapturedException

from sparkdl.errors import ConfigError

FAILURES = (Py4JJavaError, CapturedException)  # how a failed job reaches Python

SIGNS_OF_LOSS = (
    "sparkdl.errors.StateLost",
    "Could not compute split",
    "Block rdd_",
    "ExecutorLostFailure",
    "Python worker exited unexpectedly",
    "Spark closed the task's input",
)

KILLED_FOR_MEMORY = re.compile(r"exceeding (\w+ )?memory limits|OOMKilled|(code|status):? 137", re.IGNORECASE)


def failure_text(error: Exception) -> str:
    """What Spark says of a failed job, without the JVM's stack."""
    java = error.java_exception if isinstance(error, Py4JJavaError) else None
    text = str(error)
    while java is not None:  # an ExecutionException wraps what happened
        text = str(java.getMessage() or text)
        java = java.getCause()
        if "Job aborted" in text:
            break
    return text.split("\nDriver stacktrace:")[0]


def is_cluster_failure(text: str) -> bool:
    """Whether the cluster lost something, as opposed to user code that raised."""
    return any(sign in text for sign in SIGNS_OF_LOSS) or "Traceback (most recent call last)" not in text


def first_line(text: str) -> str:
    """A failure in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("sparkdl.errors.")]
    return (named or lines or [text])[-1 if named else 0][:300]


def memory_hint(text: str) -> str:
    """What to do where a failure shows, or suggests, that memory ran out; else nothing."""
    if re.search(r"OutOfMemoryError|Java heap space|GC overhead limit", text):
        return " An executor's JVM ran out of memory: raise spark.executor.memory."
    if KILLED_FOR_MEMORY.search(text):
        cause = "The executor was killed for its memory (exit status 137)"
    elif "Python worker exited unexpectedly" in text:
        cause = "A Python worker that ends by itself has mostly been killed because memory ran out"
    else:
        return ""
    return (
        f" {cause}: Python and torch live outside of the JVM's heap, so raise spark.executor.memoryOverhead, or let "
        "each task hold less, by a smaller batch_size, accumulate, or fewer task slots on an executor."
    )


@contextmanager
def as_config_error() -> Iterator[None]:
    """A ConfigError that a task raised is one on the driver too, its sentence alone."""
    try:
        yield
    except FAILURES as error:
        found = re.search(r"^(?:sparkdl\.errors\.)?ConfigError: (.*)$", failure_text(error), re.MULTILINE)
        if found is None:
            raise
        raise ConfigError(found[1]) from None
