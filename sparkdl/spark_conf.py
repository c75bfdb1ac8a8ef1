"""Spark settings as data: one table feeds the embedded session, ``sparkdl.check`` and the docs.

A session that the user made is never changed: ``check`` prints what its settings cost, ``warn_once`` logs it.
"""

from __future__ import annotations

import atexit
import importlib.metadata
import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pyspark import SparkContext
from pyspark.sql import SparkSession

from sparkdl.errors import ClusterError
from sparkdl.java_runtime import java_home

DISTRIBUTION = "sparkdl-torch"

Level = Literal["speed", "safety"]


class Setting(NamedTuple):
    """One Spark setting that matters here.

    ``match`` says how a value satisfies ``wants``: equal to it, or a number or duration at least as large.
    ``when`` says where it is wanted: of every session, only on a cluster, only where driver and executors are one
    local process, or only of the session that sparkdl starts itself (never asked of the user's).
    """

    key: str
    wants: str
    default: str  # what Spark does when the key is not set
    when: Literal["always", "cluster", "local", "embedded"]
    why: str
    level: Level = "speed"
    match: Literal["equals", "at least"] = "equals"
    since: tuple[int, int] = (3, 5)  # the first Spark version that knows the key


class Finding(NamedTuple):
    """A setting or circumstance that costs speed or safety: what it is now, what to make it, and why."""

    level: Level
    key: str
    value: str
    wants: str
    why: str


# fmt: off
SETTINGS = (
    Setting("spark.python.worker.reuse", "true", "true", "always", "the cached replica dies with its Python worker"),
    Setting("spark.python.unix.domain.socket.enabled", "true", "false", "always",
            "TCP between JVM and Python worker stalls on small replies: about 20 ms a stage", since=(4, 1)),
    Setting("spark.serializer", "org.apache.spark.serializer.JavaSerializer",
            "org.apache.spark.serializer.JavaSerializer", "always",
            "a Kryo instance is made for every stream, which small steps feel"),
    Setting("spark.broadcast.blockSize", "256k", "4m", "always",
            "Spark clears a whole block of memory for the task function of every stage"),
    Setting("spark.locality.wait", "10s", "3s", "cluster",
            "a task that gives up waiting for its own executor finds neither rows nor state elsewhere, and fails",
            match="at least"),
    Setting("spark.speculation", "false", "false", "always",
            "a speculative copy runs away from its replica's rows and takes a slot from a task that has work"),
    Setting("spark.task.maxFailures", "4", "4", "always",
            "fewer attempts turn one lost Python worker into a failed job", "safety", "at least"),
    Setting("spark.executor.cores", "1", "1", "cluster",
            "every task slot of an executor is a Python worker with a model of its own"),
    Setting("spark.shuffle.compress", "false", "true", "local",
            "lz4 hardly shrinks floats; on one host it only costs CPU"),
    Setting("spark.shuffle.spill.compress", "false", "true", "local", "the same for spilled data"),
    Setting("spark.rdd.compress", "false", "true", "local", "the same for persisted blocks"),
    Setting("spark.broadcast.compress", "false", "true", "local", "the same for broadcast blocks"),
    Setting("spark.shuffle.checksum.enabled", "false", "true", "local",
            "checksums guard against faulty networks and disks between hosts; here there is one host"),
    Setting("spark.driver.host", "127.0.0.1", "", "embedded", "a laptop's own name may not resolve"),
    Setting("spark.driver.extraJavaOptions", "-XX:+UseParallelGC -XX:TieredStopAtLevel=1", "", "embedded",
            "most local runs are short: the quick compiler wins for well over a thousand steps of a small model"),
    Setting("spark.ui.enabled", "false", "true", "embedded", "nobody looks at it, and it takes a port"),
    Setting("spark.ui.showConsoleProgress", "false", "true", "embedded", "its bars would break up ours"),
    Setting("spark.log.level", "ERROR", "WARN", "embedded", "Spark's warnings on a laptop are not about the training"),
    Setting("spark.api.mode", "classic", "classic", "embedded", "Spark Connect has no RDDs", "safety", since=(4, 0)),
)
# fmt: on


def check(spark: SparkSession | None = None) -> list[Finding]:
    """Print what about this session costs speed or safety and what to set; return the same as a list.

    Without an argument the active session is meant, or a new embedded one. Raises ClusterError: Spark Connect.
    """
    spark = session() if spark is None else spark
    found = findings(spark)
    sys.stdout.write(table(found) + "\n")
    return found


def session_on(master: str | None) -> SparkSession:
    """What a command line runs on: a session on ``master``; without one, that of :func:`session`."""
    if master is None:
        return session()
    if master.startswith("local"):
        prepare_environment()
    return SparkSession.builder.master(master).getOrCreate()


def session() -> SparkSession:
    """The active session; without one, what spark-submit was asked for; else an embedded ``local[*]`` session.

    Raises ClusterError: the session is, or would be, one of Spark Connect; or there is no Java to start one with.
    """
    if _active_context() is not None:
        return SparkSession.getActiveSession() or SparkSession.builder.getOrCreate()
    _refuse_connect_environment()
    # spark-submit has started the JVM already, or tells the launcher which cluster to use: its settings hold.
    if "PYSPARK_GATEWAY_PORT" in os.environ or "--master" in os.environ.get("PYSPARK_SUBMIT_ARGS", ""):
        return SparkSession.builder.getOrCreate()
    return start_embedded()


def start_embedded(cores: int | None = None, settings: dict[str, str] | None = None) -> SparkSession:
    """Start a session inside this process's machine with the right settings; ``settings`` adds to or replaces them.

    ``cores``: task slots; None: all that this process may use.
    """
    prepare_environment()
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # else Spark warns where the host's name is a loopback
    builder = SparkSession.builder
    for key, value in (embedded_settings(cores or usable_cores(), memory_mb()) | (settings or {})).items():
        builder = builder.config(key, value)
    started = builder.getOrCreate()
    atexit.register(started.stop)  # else the Python workers complain when the JVM goes away with this process
    return started


def prepare_environment() -> None:
    """Set what a JVM and its Python workers inherit: must run before the JVM starts.

    Raises ClusterError: no Java 17 or newer.
    """
    os.environ["JAVA_HOME"] = str(java_home())
    # Otherwise Spark starts the system's python3, which may have no torch.
    os.environ["PYSPARK_PYTHON"] = sys.executable


def embedded_settings(cores: int, memory: int) -> dict[str, str]:
    """Settings of the embedded session on a machine with ``cores`` cores and ``memory`` megabytes."""
    wanted = {setting.key: setting.wants for setting in SETTINGS if setting.when != "cluster"}
    return wanted | {
        # Without the second number a local master never retries: one lost Python worker would end the run.
        "spark.master": f"local[{cores},4]",
        "spark.app.name": "sparkdl",
        # A quarter: the Python workers' models and the page cache of the rows need the rest.
        "spark.driver.memory": f"{min(4096, max(1024, memory // 4))}m",
    }


def usable_cores() -> int:
    """Cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def memory_mb() -> int:
    """Megabytes of memory of this machine, or of the container around this process if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return (min(total, int(text)) if text.isdigit() else total) >> 20


def findings(spark: SparkSession) -> list[Finding]:
    """What about this session costs speed or safety; safety first. Raises ClusterError: Spark Connect."""
    refuse_connect(spark)
    settings = dict(spark.sparkContext.getConf().getAll())
    found = deviations(settings, spark.version) + foreign_packages(importlib.metadata.packages_distributions())
    return sorted(found, key=lambda finding: finding.level != "safety")


def deviations(settings: dict[str, str], spark_version: str) -> list[Finding]:
    """The entries of SETTINGS that a session with these settings does not satisfy."""
    version = _version(spark_version)
    master = settings.get("spark.master", "")
    place = "local" if re.match(r"local(\[|$)", master) else "cluster"
    found = []
    for setting in SETTINGS:
        value = settings.get(setting.key, setting.default)
        if setting.when in ("always", place) and version >= setting.since and not satisfied(setting, value):
            found.append(Finding(setting.level, setting.key, value, _wish(setting), setting.why))
    if re.fullmatch(r"local(\[[^,\]]*\])?", master):
        slots = master[6:-1] or "1"
        why = (
            "a local master without a second number never retries a task: one lost Python worker sends the run back to "
            "its last snapshot"
        )
        found.append(Finding("safety", "spark.master", master, f"local[{slots},4]", why))
    return found


def satisfied(setting: Setting, value: str) -> bool:
    """Whether ``value`` is what the setting wants."""
    if setting.match == "at least":
        return _number(value) >= _number(setting.wants)
    return value.strip().lower() == setting.wants.lower()


def foreign_packages(distributions_of: Mapping[str, list[str]]) -> list[Finding]:
    """Other distributions that also install a package named sparkdl or node2vec: whichever comes first wins."""
    found = []
    for package in ("sparkdl", "node2vec"):
        for name in sorted(set(distributions_of.get(package, [])) - {DISTRIBUTION}):
            why = f"it also installs a package {package!r}; which of the two is imported depends on the path's order"
            found.append(Finding("safety", package, name, f"pip uninstall {name}", why))
    return found


def table(found: list[Finding]) -> str:
    """Findings as text: one block each, safety first."""
    if not found:
        return "sparkdl: nothing in this session's settings costs speed or safety"
    lines = []
    for finding in found:
        lines.append(f"{finding.level:<7} {finding.key} is {finding.value or 'not set'}, set {finding.wants}")
        lines.append(f"        because {finding.why}")
    return "\n".join(lines)


_warned: set[str] = set()  # application ids


def warn_once(spark: SparkSession, logger: logging.Logger) -> None:
    """Log what this session's settings cost, once an application. The embedded session has nothing to report."""
    application = spark.sparkContext.applicationId
    if application in _warned:
        return
    _warned.add(application)
    small = {setting.key for setting in SETTINGS if setting.when == "local"}  # a few percent: for check() only
    if found := [finding for finding in findings(spark) if finding.key not in small]:
        logger.warning("this Spark session works, but some settings cost speed or safety:\n%s", table(found))


def refuse_connect(spark: object) -> None:
    """Raise ClusterError if ``spark`` is a session of Spark Connect."""
    if any(kind.__module__.startswith("pyspark.sql.connect") for kind in type(spark).__mro__):
        raise ClusterError(_CONNECT)


_CONNECT = (
    "this is a Spark Connect session, and Spark Connect has no RDDs, which sparkdl trains with. "
    "Use a classic session: unset SPARK_REMOTE, SPARK_API_MODE and 'spark.remote', and start it with "
    "SparkSession.builder.master(...).getOrCreate(), spark-submit or the pyspark shell"
)


def _refuse_connect_environment() -> None:
    # Without a context, any builder would connect if one of these is set; SPARK_CONNECT_MODE_ENABLED is what
    # pyspark sets itself once a remote session exists.
    connected = "SPARK_REMOTE" in os.environ or "SPARK_CONNECT_MODE_ENABLED" in os.environ
    if connected or os.environ.get("SPARK_API_MODE", "").lower() == "connect":
        raise ClusterError(_CONNECT)


def _active_context() -> SparkContext | None:
    # getActiveSession() answers for the current thread only; this holds for the whole process.
    return getattr(SparkContext, "_active_spark_context", None)


def _version(text: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (3, 5)


_MILLISECONDS = {"": 1.0, "ms": 1.0, "us": 0.001, "s": 1e3, "m": 6e4, "min": 6e4, "h": 3.6e6, "d": 8.64e7}


def _number(text: str) -> float:
    """A count, or a duration in milliseconds."""
    found = re.fullmatch(r"\s*(\d+)\s*([a-z]*)\s*", text.lower())
    return int(found[1]) * _MILLISECONDS.get(found[2], 1.0) if found else 0.0


def _wish(setting: Setting) -> str:
    return f"at least {setting.wants}" if setting.match == "at least" else setting.wants
