from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from node2vec import cli, cli_options, walk_job
from node2vec.cli import main
from sparkdl.errors import ClusterError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("run", "index", "walk", "prepare", "train", "neighbors", "export", "eval")
SMALL = ["--num-walks", "2", "--walk-length", "6", "--dimensions", "4", "--window", "2", "--partitions", "2",
         "--episodes", "1"]  # fmt: skip


def write_edges(folder: Path) -> str:
    """Two squares and an edge between them."""
    rings = [(f"{side}{n}", f"{side}{(n + 1) % 4}") for side in "ab" for n in range(4)]
    path = folder / "edges.csv"
    path.write_text("src,dst\n" + "".join(f"{a},{b}\n" for a, b in [*rings, ("a0", "b0")]))
    return str(path)


@pytest.fixture(scope="module")
def done(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with edges.csv, all stages in root, and the vectors in v.parquet."""
    folder = tmp_path_factory.mktemp("done")
    outputs = ["--root", str(folder / "root"), "--output", str(folder / "v.parquet")]
    assert main(["run", "--input", write_edges(folder), *outputs, *SMALL, "--seed", "3"]) == 0
    return folder


@pytest.fixture
def no_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_session(master: str | None) -> None:
        raise AssertionError("Spark was started")

    monkeypatch.setattr(cli.spark_conf, "session_on", no_session)


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "node2vec", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("usage: node2vec")
    assert [name for name in COMMANDS if not re.search(rf"^    {name}\s+\w", done.stdout, re.MULTILINE)] == []
    assert "exit codes:" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert "--root DIR" in capsys.readouterr().out
    top = cli.parser()
    (commands,) = [action for action in top._actions if action.dest == "command"]
    assert tuple(commands.choices) == COMMANDS  # type: ignore[arg-type]
    options = commands.choices[command]._actions  # type: ignore[index,union-attr]
    assert [action.dest for action in options if not action.help] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["swim"],
        [],
        ["walk"],
        ["walk", "--root", "x", "--home", "cloud"],
        ["walk", "--root", "x", "--num", "3"],
        ["index", "--root", "x"],
        ["run", "--input", "x"],
        ["run", "--input", "x", "--output", "v.txt", "--workers", "4"],
        ["neighbors", "--root", "x"],
        ["eval", "--root", "x"],
        ["eval", "--root", "x", "--labels", "a", "--edges", "b"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["walk", "--p", "0"], "p=0.0 is no bias"),
        (["walk"], "Index the edges first"),
        (["prepare", "--partitions", "0"], "partitions=0 is less than 1"),
        (["prepare"], "run `node2vec walk` there first"),
        (["train", "--alpha", "0"], "alpha=0.0 and min_alpha=0.0001"),
        (["train"], "holds no corpus"),
        (["neighbors", "a"], "run `node2vec train` there first"),
        (["export", "--output", "v.txt"], "run `node2vec train` there first"),
        (["eval", "--labels", "x"], "run `node2vec train` there first"),
        (["run", "--input", "x", "--output", "v.csv"], "the ending of v.csv does not say"),
        (["run", "--input", "x", "--output", "v.txt", "--epochs", "0"], "epochs=0 is less than 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("no_spark")
def test_what_cannot_be_is_said_before_spark_starts(
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([arguments[0], "--root", str(tmp_path), *arguments[1:]]) == 1
    told = capsys.readouterr().err
    assert told.startswith("node2vec: ")
    assert sentence in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ClusterError("the executors are gone"), 3, "the executors are gone"),
        (OSError("the disk is full"), 3, "a file cannot be read or written: the disk is full"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on."),
    ],
)
def test_a_failure_is_a_sentence_and_a_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    sentence: str,
) -> None:
    def fail(*arguments: object) -> bool:
        raise error

    monkeypatch.setattr(walk_job, "is_done", fail)
    assert main(["walk", "--root", str(tmp_path)]) == code
    assert capsys.readouterr().err == f"node2vec: {sentence}\n"


@pytest.mark.spark
def test_index_and_walk(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edges.csv").write_text("src,dst,weight\n7,8,1\n8,9,2.5\n9,7,1\n9,9,1\n")
    root = str(tmp_path / "run")
    index = ["index", "--input", str(tmp_path / "edges.csv"), "--root", root, "--weighted"]
    assert main([*index, "--self-loops", "drop"]) == 0
    assert "3  nodes" in capsys.readouterr().out
    walk = ["walk", "--root", root, "--p", "0.5", "--num-walks", "2", "--walk-length", "4"]
    assert main(walk) == 0
    out = capsys.readouterr().out
    assert "-> replicated" in out
    assert f"the walks are in {root}/walks" in out
    walks = pq.read_table(sorted((tmp_path / "run" / "walks").glob("part-*")))["walk"].to_pylist()
    assert [len(one) for one in walks] == [4] * 6
    assert main([*index, "--self-loops", "drop"]) == 0  # done before
    assert main([*walk, "--seed", "1"]) == 1
    assert "was made with seed=0, this run has seed=1" in capsys.readouterr().err
    (tmp_path / "edges.tsv").write_text("7\t8\n8\t9\n")
    assert main(["index", "--input", str(tmp_path / "edges.tsv"), "--root", root, "--weighted"]) == 1
    assert "--weighted was given, but the edges have no weights" in capsys.readouterr().err


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


@pytest.mark.spark
def test_stages_one_by_one_give_what_run_gives(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = ["--root", str(tmp_path / "root")]
    assert main(["index", *root, "--input", str(done / "edges.csv")]) == 0
    stages = [
        ["walk", *root, *SMALL[:4], "--seed", "3"],
        ["prepare", *root, *SMALL[8:], "--seed", "3"],
        ["train", *root, *SMALL[4:8], "--seed", "3"],
    ]
    for arguments in stages:
        assert main(arguments) == 0
    first = capsys.readouterr().out
    assert "the corpus is in" in first
    assert "the vectors are in" in first
    exported = tmp_path / "exported.parquet"
    assert main(["export", *root, "--output", str(exported)]) == 0
    vectors = [{row["id"]: row["vector"] for row in pq.read_table(path).to_pylist()} for path in
               (exported, done / "v.parquet")]  # fmt: skip
    assert vectors[0] == vectors[1]
    assert sorted(vectors[0]) == [f"{side}{n}" for side in "ab" for n in range(4)]
    with monkeypatch.context() as patch:
        patch.setattr(cli.spark_conf, "session_on", lambda master: pytest.fail("Spark was started"))
        for arguments in stages:
            assert main(arguments) == 0  # at once: without Spark
    for arguments in stages[1:]:
        assert main([*arguments[:-1], "4"]) == 1
        assert "was made with seed=3, this run has seed=4" in capsys.readouterr().err


@pytest.mark.spark
def test_run_tells_its_progress_and_goes_on(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ["run", "--input", str(done / "edges.csv"), *SMALL, "--seed", "3", "--root"]
    output = tmp_path / "v.txt"
    monkeypatch.setattr("node2vec.small_graph_job.build", lambda *arguments: pytest.fail("the graph was made again"))
    assert main([*run, str(done / "root"), "--output", str(output)]) == 0
    told = capsys.readouterr().out
    assert "8  nodes" in told
    stages = ("index", "walk", "prepare", "train")
    places = [told.index(f"{name} is done, {number} of 4") for number, name in enumerate(stages, 1)]
    assert places == sorted(places)
    assert told.endswith(f"the vectors are in {output}\n")
    assert output.read_text().startswith("8 4\n")


@pytest.mark.spark
def test_run_without_a_root(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "v.npy"
    run = ["run", "--input", str(done / "edges.csv"), *SMALL, "--seed", "3", "--output", str(output)]
    assert main(run) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.ids.npy", "v.npy"]
    found = dict(zip(np.load(tmp_path / "v.ids.npy").tolist(), np.load(output).tolist(), strict=True))
    assert found == {row["id"]: row["vector"] for row in pq.read_table(done / "v.parquet").to_pylist()}
    with monkeypatch.context() as patch:
        patch.setattr(cli.spark_conf, "session_on", lambda master: pytest.fail("Spark was started"))
        assert main(run) == 1  # it is there


@pytest.mark.spark
def test_ids_that_the_output_cannot_hold_are_refused_before_walks(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "edges.csv").write_text("src,dst\nnew york,boston\n")
    run = ["run", "--input", str(tmp_path / "edges.csv"), "--root", str(tmp_path / "root"), "--output"]
    assert main([*run, str(tmp_path / "v.txt")]) == 1
    assert "id 'new york' has whitespace in it" in capsys.readouterr().err
    assert not (tmp_path / "root" / "walks").exists()


@pytest.mark.spark
def test_neighbors(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["neighbors", "--root", str(done / "root"), "a1", "b2", "--top", "3"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["a1"] * 3 + ["b2"] * 3
    vectors = {row["id"]: np.array(row["vector"]) for row in pq.read_table(done / "v.parquet").to_pylist()}
    for asked, found, cosine in rows:
        a, b = vectors[asked], vectors[found]
        assert float(cosine) == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)
    assert main(["neighbors", "--root", str(done / "root"), "nobody"]) == 1
    assert "'nobody' not in the model" in capsys.readouterr().err


@pytest.mark.spark
def test_eval(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = tmp_path / "labels"
    labels.write_text("".join(f"{side}{n} {side}\n" for side in "abc" for n in range(4)))
    assert main(["eval", "--root", str(done / "root"), "--labels", str(labels), "--splits", "2"]) == 0
    told = capsys.readouterr()
    assert told.err == "8 of 12 labelled nodes take part\n"
    assert [line.split("\t")[0] for line in told.out.splitlines()] == [
        "macro_f1", "micro_f1", "macro_f1_std", "micro_f1_std",
    ]  # fmt: skip
    (tmp_path / "held.csv").write_text("src,dst\na1,a3\nb1,b3\n")
    assert main(["eval", "--root", str(done / "root"), "--edges", str(tmp_path / "held.csv")]) == 0
    scores = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert 0 <= float(scores["auc"]) <= 1
    assert main(["eval", "--root", str(done / "root"), "--edges", str(done / "edges.csv")]) == 1
    assert "9 of the 9 edges are in the graph" in capsys.readouterr().err


def test_defaults_of_run_are_those_of_the_settings() -> None:
    parsed = cli.parser().parse_args(["run", "--input", "x", "--output", "v.txt"])
    names = (*cli_options.GRAPH, *cli_options.WALK, *cli_options.CORPUS, *cli_options.TRAINING, "seed")
    assert cli_options.chosen(parsed, names) == cli_options.DEFAULTS
