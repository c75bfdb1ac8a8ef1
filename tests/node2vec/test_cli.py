from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from node2vec import cli, walk_job
from node2vec.cli import main
from sparkdl.errors import ClusterError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[2]


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "node2vec", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("usage: node2vec")
    assert "index" in done.stdout
    assert "exit codes:" in done.stdout


@pytest.mark.parametrize("command", ["index", "walk"])
def test_every_option_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert "--root DIR" in capsys.readouterr().out
    top = cli.parser()
    (commands,) = [action for action in top._actions if action.dest == "command"]
    options = commands.choices[command]._actions  # type: ignore[index,union-attr]
    assert [action.dest for action in options if not action.help] == []


@pytest.mark.parametrize(
    "arguments", [["swim"], ["walk"], ["walk", "--root", "x", "--home", "cloud"], ["index", "--root", "x"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_bad_settings_exit_with_1_before_spark_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["walk", "--root", str(tmp_path), "--p", "0"]) == 1
    assert capsys.readouterr().err.startswith("node2vec: p=0.0 is no bias")
    assert main(["walk", "--root", str(tmp_path)]) == 1
    assert "Index the edges first" in capsys.readouterr().err


def test_a_cluster_that_fails_exits_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> bool:
        raise ClusterError("the executors are gone")

    monkeypatch.setattr(walk_job, "is_done", fail)
    assert main(["walk", "--root", str(tmp_path)]) == 3
    assert capsys.readouterr().err == "node2vec: the executors are gone\n"


@pytest.mark.spark
def test_index_and_walk(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edges.csv").write_text("src,dst,weight\n7,8,1\n8,9,2.5\n9,7,1\n9,9,1\n")
    root = str(tmp_path / "run")
    index = ["index", "--input", str(tmp_path / "edges.csv"), "--root", root]
    assert main([*index, "--self-loops", "drop"]) == 0
    assert "3  nodes" in capsys.readouterr().out
    walk = ["walk", "--root", root, "--p", "0.5", "--num-walks", "2", "--walk-length", "4"]
    assert main(walk) == 0
    out = capsys.readouterr().out
    assert "-> replicated" in out
    assert f"the walks are in {root}/walks" in out
    walks = pq.read_table(sorted((tmp_path / "run" / "walks").glob("part-*")))["walk"].to_pylist()
    assert [len(one) for one in walks] == [4] * 6

    def no_session(master: str | None) -> None:
        raise AssertionError("Spark was started")

    assert main([*index, "--self-loops", "drop"]) == 0  # done before
    monkeypatch.setattr(cli.spark_conf, "session_on", no_session)
    assert main(walk) == 0  # at once: without Spark
    assert capsys.readouterr().out.endswith(f"the walks are in {root}/walks\n")
    assert main([*walk, "--seed", "1"]) == 1
    assert "was made with seed=0, this run has seed=1" in capsys.readouterr().err


@pytest.mark.spark
def test_start_nodes_from_a_file(spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "edges.tsv").write_text("7\t8\n8\t9\n9\t7\n")
    root = str(tmp_path / "run")
    assert main(["index", "--input", str(tmp_path / "edges.tsv"), "--root", root, "--directed"]) == 0
    (tmp_path / "starts").write_text("9\n\n7\n")
    walk = ["walk", "--root", root, "--num-walks", "1", "--walk-length", "3", "--start-nodes", str(tmp_path / "starts")]
    assert main(walk) == 0
    assert pq.read_table(sorted((tmp_path / "run" / "walks").glob("part-*"))).num_rows == 2
    (tmp_path / "starts").write_text("x\n")
    assert main(walk) == 1
    assert "the ids of this graph are integers" in capsys.readouterr().err
    assert main([*walk[:-1], str(tmp_path / "none")]) == 1
    assert "the start nodes cannot be read" in capsys.readouterr().err
