from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sparkdl import cli
from sparkdl.errors import ClusterError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[2]


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "sparkdl", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: sparkdl")
    assert "doctor" in done.stdout


def test_wrong_usage_exits_with_2() -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["surgeon"])
    assert caught.value.code == 2


def test_a_cluster_that_cannot_be_used_exits_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(master: str | None, num_tasks: int) -> None:
        raise ClusterError("torch is missing")

    monkeypatch.setattr(cli, "doctor", fail)
    assert cli.main(["doctor", "--master", "yarn"]) == 3
    assert capsys.readouterr().err == "sparkdl: torch is missing\n"


@pytest.mark.spark
def test_doctor(spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--tasks", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Spark {spark.version}, master local[2,4]"
    assert [line.split(" ")[0] for line in lines if "torch" in line] == ["driver:", "executor"]
