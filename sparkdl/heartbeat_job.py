"""What Spark is doing for a run: its jobs that run now, as the heartbeat tells them."""

from __future__ import annotations

import time

from pyspark import SparkContext

from sparkdl.heartbeat import RunningJob
from sparkdl.spark_internals import running_job

__all__ = ["jobs_of_group"]


def jobs_of_group(sc: SparkContext, group: str) -> list[RunningJob]:
    """The jobs of a job group that run now. May be called from any thread; empty if Spark tells nothing."""
    tracker = sc.statusTracker()
    ours = set(tracker.getJobIdsForGroup(group))
    found = []
    for number in sorted(ours & set(tracker.getActiveJobsIds())):
        known = running_job(sc, number)
        if known is None:  # it has just ended, or this Spark does not say
            continue
        what, began, tasks, done, running = known
        found.append(RunningJob(what or f"Spark job {number}", max(0.0, time.time() - began), tasks, done, running))
    return found
