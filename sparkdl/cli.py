"""The command ``sparkdl``: ``doctor`` says what about this cluster costs speed or safety, ``inspect`` what a checkpoint
holds.

Exit codes: 0 done, 1 the checkpoint cannot be used, 2 wrong usage, 3 the cluster cannot be used as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparkdl import inspect_checkpoint
from sparkdl.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from sparkdl.preflight_job import Versions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="sparkdl", description="PyTorch training as Spark jobs")
    commands = parser.add_subparsers(dest="command", required=True)
    doctor_parser = commands.add_parser("doctor", help="check a cluster's settings and versions, changing nothing")
    doctor_parser.add_argument("--master", help="Spark master; default: the session sparkdl would start itself")
    doctor_parser.add_argument("--tasks", type=int, default=4, help="tasks that report versions (default: 4)")
    inspect_parser = commands.add_parser("inspect", help="show a checkpoint, without Spark and the model's class")
    inspect_parser.add_argument("checkpoint", help="its directory, step-XXXXXXXX: a local path or a URI")
    parsed = parser.parse_args(arguments)
    try:
        if parsed.command == "doctor":
            doctor(parsed.master, parsed.tasks)
            return 0
        return inspect(parsed.checkpoint)
    except (ClusterError, ConfigError) as error:
        print(f"sparkdl: {error}", file=sys.stderr)
        return 3 if isinstance(error, ClusterError) else 1


def inspect(path: str) -> int:
    """Print what a checkpoint holds; 1 if it cannot be resumed. Raises ConfigError: there is none."""
    found = inspect_checkpoint.contents(path)
    print("\n".join(inspect_checkpoint.report(found)))
    return 1 if found.problem else 0


def doctor(master: str | None = None, num_tasks: int = 4) -> None:
    """Print the settings' findings and the versions of driver and executors. Raises ClusterError: they differ."""
    from sparkdl import spark_conf  # here, so that `inspect` needs no Spark
    from sparkdl.preflight_job import preflight, versions

    spark = spark_conf.session_on(master)
    print(f"Spark {spark.version}, master {spark.sparkContext.master}")
    spark_conf.check(spark)
    print(_version_lines("driver", versions()))
    answers = {answer["host"]: answer for answer in preflight(spark.sparkContext, num_tasks)}
    for host, answer in sorted(answers.items(), key=str):
        print(_version_lines(f"executor at {host}", answer))


def _version_lines(place: str, answer: Versions) -> str:
    from sparkdl.preflight_job import COMPARED

    packages = ", ".join(f"{name} {answer.get(name) or 'missing'}" for name in COMPARED)
    return f"{place}: {packages}\n        sparkdl from {answer.get('sparkdl directory', '-')}"
