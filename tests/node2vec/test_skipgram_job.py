from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession

from node2vec import (
    block_schedule,
    block_training,
    corpus_files,
    resident_tables,
    rotation,
    skipgram_job,
    spark_shuffles,
    table_files,
)
from node2vec.corpus_job import counts_of, prepare
from node2vec.graph_files import file_system
from node2vec.skipgram_job import train
from sparkdl.errors import ClusterError, ConfigError, TrainingError
from tests.node2vec.test_corpus_job import random_walks, save_walks

pytestmark = pytest.mark.spark

ROOT = Path(__file__).resolve().parent.parent.parent
NODES = 70
SETTINGS: dict[str, Any] = {"dimensions": 12, "window": 4, "negative": 3, "alpha": 0.05, "seed": 9, "verbose": False}


def corpus(spark: SparkSession, root: Path, parts: int = 3, episodes: int = 4) -> None:
    save_walks(root, random_walks(150, NODES, 15), 4, NODES)
    prepare(spark, root, parts, episodes)


def vectors(frame: Any) -> np.ndarray:
    rows = frame.collect()
    found = np.zeros((NODES, len(rows[0]["vector"])), np.float32)
    for row in rows:
        found[row["index"]] = row["vector"]
    return found


def twin(
    root: Path, epochs: int = 1, keep: int = 8, init: Any = None, cores: int = 1, device: str = "cpu"
) -> np.ndarray:
    header = corpus_files.read_header(root / "corpus")
    files, folder = file_system(root / "corpus")
    parts = range(header.num_parts)
    streams = [
        [corpus_files.read_stream(files, f"{folder}/{corpus_files.stream_name(episode, part)}") for part in parts]
        for episode in range(header.num_episodes)
    ]
    training = block_training.Training(
        dimensions=12, window=4, negative=3, keep=keep, ns_exponent=0.75, alpha=0.05, min_alpha=0.0001, epochs=epochs,
        seed=9, num_parts=header.num_parts, num_episodes=header.num_episodes, num_nodes=NODES,
        num_walks=header.num_walks, cores=cores, device=device,
    )  # fmt: skip
    return block_training.train(
        training, streams, [counts_of(str(root / "corpus"), header.fingerprint, part) for part in parts], init
    )


@pytest.mark.parametrize(
    ("parts", "episodes", "epochs", "negatives"), [(1, 1, 2, "shared"), (3, 4, 1, "shared"), (2, 1, 2, "pair")]
)
def test_the_job_is_its_twin(
    spark: SparkSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parts: int,
    episodes: int,
    epochs: int,
    negatives: str,
) -> None:
    monkeypatch.setattr(skipgram_job, "ROUNDS_KEPT", 5)
    monkeypatch.setattr(rotation, "PIECE_BYTES", 300)  # six rows
    corpus(spark, tmp_path, parts, episodes)
    found = vectors(train(spark, tmp_path, epochs=epochs, negatives=negatives, **SETTINGS))
    assert np.array_equal(found, twin(tmp_path, epochs, 8 if negatives == "shared" else 1))
    left = {path.name for path in (tmp_path / "vectors").iterdir()}
    assert left == {"_SUCCESS", "_manifest.json", *(f"part-{part:05d}.parquet" for part in range(parts))}
    assert spark.sparkContext.getLocalProperty("spark.job.description") is None


@pytest.mark.parametrize(("parts", "cores"), [(2, 1), (4, 2), (2, 2)])
def test_tables_that_stay_and_tasks_of_several_cores(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int, cores: int
) -> None:
    monkeypatch.setattr(skipgram_job, "ROUNDS_KEPT", 3)
    monkeypatch.setattr(resident_tables, "LARGE", 0)
    names = []
    remove = skipgram_job._remove_resident
    monkeypatch.setattr(
        skipgram_job, "_remove_resident", lambda sc, form, name: names.append(name) or remove(sc, form, name)
    )  # fmt: skip
    corpus(spark, tmp_path, parts, 4)
    found = vectors(train(spark, tmp_path, cores=cores, **SETTINGS))
    assert np.array_equal(found, twin(tmp_path, cores=cores))
    assert len(names) == 1
    assert list(Path(spark.conf.get("spark.local.dir")).rglob("*.f32")) == []
    assert np.array_equal(vectors(train(spark, tmp_path, **SETTINGS)), found)  # without a number: what is there
    with pytest.raises(ConfigError, match="cores=3, but the corpus has"):
        train(spark, tmp_path, cores=3, **SETTINGS)
    if cores == 2:
        with pytest.raises(ConfigError, match="vectors was made with cores=2, this run has cores=1"):
            train(spark, tmp_path, cores=1, **SETTINGS)


def test_tables_that_are_lost_again_and_again_are_sent(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(skipgram_job, "ROUNDS_KEPT", 3)
    monkeypatch.setattr(skipgram_job, "MOST_LOSSES", 2)
    monkeypatch.setattr(resident_tables, "LARGE", 0)
    corpus(spark, tmp_path, 2, 4)
    story, begun = skipgram_job.story, []

    def story_and_loss(number: int, training: Any) -> str:
        begun.append(number)
        if number in (4, 5):
            for path in Path(spark.conf.get("spark.local.dir")).rglob("in-00001-*.f32"):
                path.unlink()
        return story(number, training)

    monkeypatch.setattr(skipgram_job, "story", story_and_loss)
    assert np.array_equal(vectors(train(spark, tmp_path, **SETTINGS)), twin(tmp_path))
    assert begun == [0, 1, 2, *[3, 4] * 2, *range(3, 8)]
    assert [record.levelname for record in caplog.records if record.name == "node2vec"] == ["WARNING"] * 2
    assert "1 of 2 times" in caplog.text
    assert "going back to round 3 of 8" in caplog.text


def test_large_tables_take_the_cores_of_an_executor(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_schedule, "LARGE_TABLE", 1)
    corpus(spark, tmp_path, 4, 1)
    assert np.array_equal(vectors(train(spark, tmp_path, **SETTINGS)), twin(tmp_path, cores=2))
    assert json.loads((tmp_path / "vectors" / "_manifest.json").read_text())["cores"] == 2


@pytest.mark.parametrize("cores", [1, 2])
def test_the_kernels_for_gpus_run_in_the_job(spark: SparkSession, tmp_path: Path, cores: int) -> None:
    corpus(spark, tmp_path, 2, 2)
    found = vectors(train(spark, tmp_path, device="torch", cores=cores, **SETTINGS))
    assert np.array_equal(found, twin(tmp_path, cores=cores, device="torch"))
    assert not np.array_equal(found, twin(tmp_path, cores=cores))
    assert np.array_equal(vectors(train(spark, tmp_path, **SETTINGS)), found)  # auto: what is there
    with pytest.raises(ConfigError, match="vectors was made with device='torch', this run has device='cpu'"):
        train(spark, tmp_path, device="cpu", cores=cores, **SETTINGS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_where_one_is_asked_for(spark: SparkSession, tmp_path: Path) -> None:
    corpus(spark, tmp_path, 2, 2)
    with pytest.raises(ClusterError, match=r'^device="cuda", but torch .* sees no CUDA device on [^\n]*$'):
        train(spark, tmp_path, device="cuda", **SETTINGS)


def test_a_learning_rate_that_is_too_large(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus(spark, tmp_path, 2, 1)
    story, begun = skipgram_job.story, []
    monkeypatch.setattr(skipgram_job, "story", lambda number, training: begun.append(number) or story(number, training))
    with pytest.raises(TrainingError, match=r"^the vector of node \d+ and \d+ others became [^\n]* a smaller alpha\.$"):
        train(spark, tmp_path, **(SETTINGS | {"alpha": 1e38}))
    assert begun == [0, 1]  # and no task failed
    assert [path.name for path in (tmp_path / "vectors").iterdir()] == ["_manifest.json"]
    assert np.array_equal(vectors(train(spark, tmp_path, **SETTINGS)), twin(tmp_path))


def test_another_corpus_in_the_same_place_is_seen(spark: SparkSession, tmp_path: Path) -> None:
    for parts in (3, 1):
        for stage in ("corpus", "vectors", "walks", "ids"):
            shutil.rmtree(tmp_path / stage, ignore_errors=True)
        corpus(spark, tmp_path, parts, 1)
        assert np.array_equal(vectors(train(spark, tmp_path, **SETTINGS)), twin(tmp_path))


def test_the_public_calls_give_the_same(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark_shuffles, "works", lambda sc: False)
    corpus(spark, tmp_path, 2, 2)
    assert np.array_equal(vectors(train(spark, tmp_path, **SETTINGS)), twin(tmp_path))


def test_a_training_that_broke_off_goes_on(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skipgram_job, "ROUNDS_KEPT", 3)
    corpus(spark, tmp_path)
    story, begun = skipgram_job.story, []

    def stops(number: int, training: Any) -> str:
        begun.append(number)
        if number == 8 and len(begun) < 12:
            raise KeyboardInterrupt
        return story(number, training)

    monkeypatch.setattr(skipgram_job, "story", stops)
    with pytest.raises(KeyboardInterrupt):
        train(spark, tmp_path, **SETTINGS)
    assert table_files.complete_rounds(str(tmp_path / "vectors")) == 6
    assert [path.name for path in (tmp_path / "vectors" / "_rounds").iterdir()] == ["00006"]
    begun += [-1] * 20
    assert np.array_equal(vectors(train(spark, tmp_path, **SETTINGS)), twin(tmp_path))
    assert begun[-6:] == list(range(6, 12))
    monkeypatch.setattr(skipgram_job, "story", None)  # nothing is trained again
    assert np.array_equal(vectors(train(spark, tmp_path, **SETTINGS)), twin(tmp_path))
    with pytest.raises(ConfigError, match="vectors was made with window=4, this run has window=5"):
        train(spark, tmp_path, **(SETTINGS | {"window": 5}))


def test_old_vectors_are_where_it_begins(spark: SparkSession, tmp_path: Path) -> None:
    corpus(spark, tmp_path)
    rng = np.random.default_rng(1)
    known = rng.permutation(NODES)[:30]
    old = rng.standard_normal((30, 12)).astype(np.float32)
    rows = [(int(index), vector.tolist()) for index, vector in zip(known, old, strict=True)]
    init = spark.createDataFrame(rows, "index int, vector array<float>")
    found = vectors(train(spark, tmp_path, init=init, **SETTINGS))
    header = corpus_files.read_header(tmp_path / "corpus")
    from node2vec import block_schedule, skipgram

    begin = np.zeros((NODES, 12), np.float32)
    for part in range(header.num_parts):
        made = skipgram.initial_inputs(NODES, 12, 9, part, header.num_parts)
        begin[block_schedule.id_of(part, np.arange(len(made)), header.num_parts)] = made
    begin[known] = old
    assert np.array_equal(found, twin(tmp_path, init=begin))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"dimensions": 0}, "dimensions=0 is less than 1"),
        ({"window": 0}, "window=0 is less than 1"),
        ({"epochs": 0}, "epochs=0 is less than 1"),
        ({"negative": -1}, "negative=-1 is negative"),
        ({"alpha": 0.0}, r"alpha=0\.0 and min_alpha=0\.0001: the learning rate"),
        ({"ns_exponent": float("nan")}, "ns_exponent=nan is no power"),
        ({"cores": 0}, "cores=0 is less than 1"),
        ({"device": "tpu"}, "device='tpu' is unknown"),
        ({"negatives": "gemm"}, "negatives='gemm' is unknown"),
    ],
)
def test_what_cannot_be_trained(spark: SparkSession, tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match="holds no"):
        train(spark, tmp_path)
    corpus(spark, tmp_path)
    with pytest.raises(ConfigError, match=sentence):
        train(spark, tmp_path, **(SETTINGS | settings))
    assert not (tmp_path / "vectors").exists()


def test_a_killed_executor_changes_nothing(tmp_path: Path) -> None:
    """Tables that are sent; and tables that stay, of tasks of two cores."""
    command = [sys.executable, "-m", "tests.node2vec.skipgram_cluster_run", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    sent, stay = map(json.loads, done.stdout.splitlines()[-2:])
    assert sent == {"killed": 1, "profile": False, "rounds": list(range(12))}
    assert (stay["killed"], stay["profile"]) == (1, True)
    back = stay["rounds"][6] == 3  # or Spark itself has made the lost tables again, all in one place
    assert stay["rounds"] == [*range(6), *range(3 if back else 6, 8)]
    assert ("going back to round 3 of 8" in done.stderr) == back
    for name, cores in (("sent", 1), ("stay", 2)):
        assert np.array_equal(np.load(tmp_path / f"{name}.npy"), twin(tmp_path / name, cores=cores))
