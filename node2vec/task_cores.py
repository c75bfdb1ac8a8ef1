"""Tasks of several cores: how Spark is asked for them, and how many of them run at once."""

from __future__ import annotations

import logging
import re
from typing import Any

from pyspark import SparkContext

from sparkdl.spark_internals import concurrent_tasks

logger = logging.getLogger("node2vec")


def profile(sc: SparkContext, cores: int) -> Any:
    """Spark's profile of a task with so many cores; None where there is nothing to ask for, or nobody to ask.

    A local master has none, and an older Spark, or one without executors of so many cores, refuses it. Tasks then count
    as one core each, and their threads share what there is.
    """
    if cores <= 1 or (sc.master or "").startswith("local["):
        return None
    try:
        jvm: Any = sc._jvm
        requests = jvm.org.apache.spark.resource.TaskResourceRequests().cpus(cores)
        asked = jvm.org.apache.spark.resource.ResourceProfileBuilder().require(requests).build()
        inner: Any = sc._jsc.sc()
        inner.resourceProfileManager().addResourceProfile(asked)
        return asked if int(inner.maxNumConcurrentTasks(asked)) > 0 else None
    except Exception:
        logger.debug("Spark gives tasks no %d cores", cores, exc_info=True)
        return None


def executor_cores(sc: SparkContext) -> int:
    """Cores of an executor, as far as the session says."""
    master = sc.master or ""
    if cluster := re.match(r"local-cluster\[\s*\d+\s*,\s*(\d+)", master):
        return int(cluster[1])
    return sc.defaultParallelism if master.startswith("local") else int(sc.getConf().get("spark.executor.cores", "1"))


def all_at_once(sc: SparkContext, num_tasks: int, cores: int) -> bool:
    """Whether each task may run where it ran before and need not wait for another one there.

    With more tasks than slots an idle executor takes over what waits for a busy one. A local master is one executor.
    """
    if (sc.master or "").startswith("local["):
        return True
    asked = profile(sc, cores)
    if asked is None:
        return num_tasks <= (concurrent_tasks(sc) or sc.defaultParallelism)
    return num_tasks <= int(sc._jsc.sc().maxNumConcurrentTasks(asked))
