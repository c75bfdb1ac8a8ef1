"""A short job before the first one that matters: do driver and executors run the same versions?

Its twin is ``versions()``: on equal installations every executor answers what the driver answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from pyspark import SparkContext

from sparkdl.errors import ClusterError

Versions = dict[str, str | None]
"""What one Python process answers: name -> version, None where the package is missing; and where it was asked."""

COMPARED = ("python", "pyspark", "torch", "numpy", "pyarrow", "cloudpickle", "sparkdl")

_SHIP_ENVIRONMENT = (
    "Give the executors the driver's environment: venv-pack -o environment.tar.gz, then "
    "spark-submit --archives environment.tar.gz#environment with PYSPARK_PYTHON=./environment/bin/python"
)
_SHIP_PACKAGE = (
    "Give the executors this package: install sparkdl-torch there, or zip the directory sparkdl and pass "
    "spark-submit --py-files sparkdl.zip"
)


def versions() -> Versions:
    """The versions in this process, its host, and the directory that sparkdl was imported from."""
    return next(_make_report()([]))


def preflight(sc: SparkContext, num_tasks: int) -> list[Versions]:
    """Compare the driver with the executors that ``num_tasks`` tasks happen to run on; return their answers.

    Raises ClusterError: an executor lacks a package, or has another version of it.
    """
    driver = versions()
    before = sc.getLocalProperty("spark.job.description")
    sc.setJobDescription("preflight: versions")
    try:
        # A list: parallelize(range) would be a Python job of its own.
        answers = sc.parallelize([0] * num_tasks, num_tasks).mapPartitions(_make_report()).collect()
    except Exception as error:
        sentence = explain(str(error))
        if sentence is None:
            raise
        raise ClusterError(sentence) from error
    finally:
        sc.setLocalProperty("spark.job.description", before)  # type: ignore[arg-type]  # None removes it
    for answer in answers:
        if unequal := differences(driver, answer):
            only_sparkdl = all(sentence.startswith("sparkdl ") for sentence in unequal)
            raise ClusterError(f"{'; '.join(unequal)}. {_SHIP_PACKAGE if only_sparkdl else _SHIP_ENVIRONMENT}")
    return answers


def differences(driver: Mapping[str, str | None], executor: Mapping[str, str | None]) -> list[str]:
    """One clause for each package that the executor lacks or has in another version than the driver.

    What follows a "+" is not compared: a driver with torch 2.13.0+cpu may well serve executors with 2.13.0+cu130.
    """
    clauses = []
    for name in COMPARED:
        mine, theirs = driver.get(name), executor.get(name)
        if (mine or "").partition("+")[0] == (theirs or "").partition("+")[0]:
            continue
        there = f"the executor at {executor.get('host')}"
        if theirs is None:
            clauses.append(f"{name} is missing on {there} (the driver has {mine})")
        else:
            clauses.append(f"{name} is {theirs} on {there} and {mine or 'missing'} on the driver")
    return clauses


def explain(error: str) -> str | None:
    """A sentence for a preflight that failed before it could answer; None: the error is not about versions."""
    # 4.x: "... different version: 3.12 than that in driver: 3.11"; 3.5: "... version (3, 12) than that in driver 3.11"
    if found := re.search(r"different version:? \(?(\d+)(?:\.|, )(\d+)\)? than that in driver:? (\d+\.\d+)", error):
        return (
            f"python is {found[1]}.{found[2]} on an executor and {found[3]} on the driver: functions cannot travel "
            f"between them. {_SHIP_ENVIRONMENT}"
        )
    if found := re.search(r'Cannot run program "([^"]+)"', error):
        return f"an executor has no Python at {found[1]}, which PYSPARK_PYTHON names. {_SHIP_ENVIRONMENT}"
    return None


def _make_report() -> Callable[[Iterable[int]], Iterator[Versions]]:
    def report(rows: Iterable[int]) -> Iterator[Versions]:
        # Nested and without globals, so that it is pickled by value: the executor may have no sparkdl to import.
        import importlib
        import os
        import platform
        import socket

        for _ in rows:  # a task that leaves input unread costs its worker
            pass
        python = ".".join(platform.python_version_tuple()[:2])
        answer: dict[str, str | None] = {"host": socket.gethostname(), "python": python}
        for name in ("pyspark", "torch", "numpy", "pyarrow", "cloudpickle", "sparkdl"):
            try:
                module = importlib.import_module(name)
                answer[name] = str(module.__version__)
                if name == "sparkdl":
                    answer["sparkdl directory"] = os.path.dirname(module.__file__ or "")
            except ModuleNotFoundError:
                answer[name] = None
            except Exception as error:  # installed, but a library below it is missing or too old
                answer[name] = f"broken ({type(error).__name__}: {error})"
        yield answer

    return report
