"""A line every half minute in which nothing else is said, so that a run that waits is told from a run that hangs.

A thread of the driver looks what Spark is doing for the run (:func:`sparkdl.heartbeat_job.jobs_of_group` on Spark) and
never stands in anybody's way: it neither keeps the process alive nor lets an error of its own out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple

from sparkdl.progress import Progress, show

__all__ = ["Heartbeat", "RunningJob", "sentence"]

logger = logging.getLogger("sparkdl")

SECONDS = 30.0
COUNTED_SECONDS = 15.0  # Spark's count of running tasks may be as old as the last heartbeat of an executor, 10 s


class RunningJob(NamedTuple):
    """A Spark job under way: its description, for how many seconds it has been running, and its tasks."""

    what: str
    seconds: float
    tasks: int
    done: int
    running: int


def sentence(jobs: Sequence[RunningJob]) -> str:
    """What is told of the jobs that run now, the oldest first."""
    if not jobs:
        return "no Spark job of this training is running: the driver is at work, or waits for executors"
    job = max(jobs, key=lambda job: job.seconds)
    running = f", {job.running} running"
    if job.seconds < COUNTED_SECONDS:
        running = ""
    elif not job.running and job.done < job.tasks:
        running = ", none running: there is no free task slot, or no executor"
    more = f"; {len(jobs) - 1} more jobs at the same time" if len(jobs) > 1 else ""
    what = job.what.removeprefix("sparkdl: ")
    return f"{what} has been running for {job.seconds:.0f} s: {job.done} of {job.tasks} tasks done{running}{more}"


class Heartbeat:
    """Speaks up when nothing was shown for ``seconds``, and again each ``seconds``, from entry to exit.

    jobs: gives the run's jobs that run now. verbose: 0 for silence. ``progress`` may come later; what it shows counts.
    """

    def __init__(
        self,
        jobs: Callable[[], Sequence[RunningJob]],
        verbose: int = 1,
        seconds: float = SECONDS,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.progress = progress
        self._jobs, self._seconds, self._clock = jobs, seconds, clock
        self._spoke = clock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sparkdl heartbeat", daemon=True) if verbose else None

    def beat(self) -> None:
        """Says a line if it is time for one."""
        now = self._clock()
        shown = self._spoke if self.progress is None else max(self._spoke, self.progress.shown_at)
        if now - shown < self._seconds:
            return
        self._spoke = now
        text = sentence(self._jobs())
        if not self._over.is_set():  # the run may have ended while Spark was asked
            (show if self.progress is None else self.progress.note)(text)

    def __enter__(self) -> Heartbeat:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)  # it may be waiting for an answer of the JVM

    def _watch(self) -> None:
        while not self._over.wait(self._seconds / 10):
            try:
                self.beat()
            except Exception:
                logger.debug("the heartbeat failed", exc_info=True)
