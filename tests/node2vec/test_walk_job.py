from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from node2vec import partitioned_walk_job, replicated_walk_job, walk_files, walk_job
from node2vec.walk_files import walks_hash
from node2vec.walk_job import walk, with_ids
from node2vec.walk_request import WalkRequest
from node2vec.walks import walk as twin
from sparkdl.errors import ClusterError, ConfigError
from tests.node2vec.indexed_graphs import random_edges, save_indexed

pytestmark = pytest.mark.spark


def walks_of(root: Path) -> list[list[int]]:
    return [walk for batch in walk_files.read(root / "walks") for walk in batch.to_pylist()]


def test_all_nodes_are_walked_from(spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, graph = save_indexed(tmp_path, random_edges(200, 900, seed=7))
    frame = walk(spark, tmp_path, p=0.5, q=2, num_walks=2, walk_length=9, seed=3)
    starts = np.tile(np.arange(graph.num_nodes), 2)
    numbers = np.repeat(np.arange(2), graph.num_nodes)
    expected = walk_files.batch_of(*twin(graph, starts, numbers, 9, 0.5, 2, seed=3, lanes=False)).column(0)
    assert walks_hash(walk_files.read(tmp_path / "walks")) == walks_hash([expected])
    assert frame.dtypes == [("walk", "array<int>")]
    assert sorted(row["walk"] for row in frame.collect()) == sorted(expected.to_pylist())
    assert "-> replicated, which fits and is faster" in capsys.readouterr().out


def test_partitions_change_no_walk(spark: SparkSession, tmp_path: Path) -> None:
    hashes = set()
    for partitions in (1, 2, 7):
        root = tmp_path / f"{partitions}"
        save_indexed(root, random_edges(200, 900, seed=7))
        walk(spark, root, num_walks=2, walk_length=9, partitions=partitions, verbose=False)
        assert len(list((root / "walks").glob("part-*.parquet"))) == partitions
        hashes.add(walks_hash(walk_files.read(root / "walks")))
    assert len(hashes) == 1


def test_both_homes_make_the_same_walks(spark: SparkSession, tmp_path: Path) -> None:
    hashes = set()
    for home in ("replicated", "partitioned"):
        save_indexed(tmp_path / home, random_edges(200, 900, seed=7, weighted=True))
        walk(spark, tmp_path / home, 0.5, 2, num_walks=2, walk_length=9, partitions=3, home=home, verbose=False)
        hashes.add(walks_hash(walk_files.read(tmp_path / home / "walks")))
    assert len(hashes) == 1


@pytest.mark.parametrize("text", [False, True])
def test_start_nodes_and_walks_in_the_users_ids(spark: SparkSession, tmp_path: Path, text: bool) -> None:
    """Every pair of consecutive ids is an edge as given, and each walk starts where it was asked to."""
    src, dst, _ = random_edges(200, 900, seed=7, text=text)
    save_indexed(tmp_path, (src, dst, None), directed=True)
    starts = [src[5], dst[8], src[5], src[100]]
    frame = walk(spark, tmp_path, num_walks=4, walk_length=9, start_nodes=starts, partitions=3, verbose=False)
    named = with_ids(spark, tmp_path, frame)
    assert named.dtypes == [("walk", "array<string>" if text else "array<bigint>")]
    walks = [row["walk"] for row in named.collect()]
    assert sorted(row[0] for row in walks) == sorted([*dict.fromkeys(starts)] * 4)
    edges = set(zip(src.tolist(), dst.tolist(), strict=True))
    assert {pair for row in walks for pair in itertools.pairwise(row)} <= edges
    assert sorted(map(len, walks)) == sorted(map(len, walks_of(tmp_path)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"p": 0}, "p=0 is no bias"),
        ({"q": -2}, "q=-2 is no bias"),
        ({"walk_length": 0}, "walk_length=0 makes no walk"),
        ({"num_walks": 0}, "num_walks=0 makes no walk"),
        ({"partitions": 0}, "partitions=0 is less than 1"),
        ({"home": "cloud"}, "home='cloud' is unknown"),
        ({"start_nodes": []}, "start_nodes is empty"),
        ({"start_nodes": ["a"]}, "start_nodes holds 'a', but the ids of this graph are integers"),
        (
            {"start_nodes": [1000, -1, 7, 8, -9, 10, 11, 7]},
            r"6 of 7 start nodes are not in the graph: -9, -1, 7, 8, 10, \.\.\.\. Leave them out",
        ),
    ],
)
def test_what_cannot_be_walked_leaves_nothing(
    spark: SparkSession, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    save_indexed(tmp_path, random_edges(200, 900, seed=7))
    with pytest.raises(ConfigError, match=words):
        walk(spark, tmp_path, **options)
    assert not (tmp_path / "walks").exists()


def test_no_graph_at_root(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"graph holds no graph: .*Index the edges first"):
        walk(spark, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_walks_are_made_once(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_indexed(tmp_path, random_edges(200, 900, seed=7))
    request = WalkRequest(num_walks=1, walk_length=5)
    assert not walk_job.is_done(tmp_path, request)
    first = walk(spark, tmp_path, num_walks=1, walk_length=5, verbose=False).count()
    assert walk_job.is_done(tmp_path, request)
    monkeypatch.setattr(replicated_walk_job, "write_walks", None)  # a second job would fail
    again = walk(spark, tmp_path, num_walks=1, walk_length=5, partitions=7, home="partitioned")
    assert again.count() == first
    for other in ({"seed": 1}, {"start_nodes": [1000]}, {"p": 2.0}):
        with pytest.raises(ConfigError, match=r"walks was made with .* Use another root"):
            walk(spark, tmp_path, **({"num_walks": 1, "walk_length": 5} | other))


def test_a_task_that_fails_leaves_no_walks(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, graph = save_indexed(tmp_path, random_edges(200, 900, seed=7))
    cut = walk_job.cut

    def beyond(total: int, parts: int) -> list[tuple[int, int]]:
        *ranges, (first, _) = cut(total, parts)
        return [*ranges, (first, -first)] if parts == 1 else [*ranges, (-5, 3)]  # walk number -1

    monkeypatch.setattr(walk_job, "cut", beyond)
    with pytest.raises(Exception, match="walk number -1 is negative"):
        walk(spark, tmp_path, num_walks=1, walk_length=5, partitions=3, verbose=False)
    left = {path.name for path in (tmp_path / "walks").iterdir()}
    assert "_SUCCESS" not in left
    assert not any(name.startswith(".") or "00002" in name for name in left)
    monkeypatch.undo()
    assert walk(spark, tmp_path, num_walks=1, walk_length=5, partitions=2, verbose=False).count() == graph.num_nodes
    assert len(list((tmp_path / "walks").glob("part-*"))) == 2  # what the failed run left is gone


@pytest.mark.parametrize("home", ["replicated", "partitioned"])
def test_walks_that_broke_off_go_on(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setattr(partitioned_walk_job, "WALKERS", 150)
    _, graph = save_indexed(tmp_path, random_edges(200, 900, seed=7))
    asked: dict[str, Any] = {"num_walks": 3, "walk_length": 6, "partitions": 2, "home": home, "verbose": False}
    walk(spark, tmp_path, **asked)
    whole = walks_hash(walk_files.read(tmp_path / "walks"))
    files = sorted((tmp_path / "walks").glob("part-*"))
    assert len(files) == (2 if home == "replicated" else 4)
    (tmp_path / "walks" / "_SUCCESS").unlink()
    files[-1].unlink()
    before = {file: file.stat().st_mtime_ns for file in files[:-1]}
    assert walk(spark, tmp_path, **asked).count() == 3 * graph.num_nodes
    assert walks_hash(walk_files.read(tmp_path / "walks")) == whole
    again = {file for file in before if file.stat().st_mtime_ns != before[file]}
    assert again == set(files[2:3] if home == "partitioned" else [])  # the other file of its round


def test_parts_that_the_driver_does_not_see(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_indexed(tmp_path, random_edges(200, 900, seed=7))
    lost = replicated_walk_job.Part("part-00000.parquet", 1, 1, 0.0, 0.0, 0.0)
    monkeypatch.setattr(replicated_walk_job, "write_walks", lambda *args: [lost])
    with pytest.raises(ClusterError, match=r"executors wrote .*part-00000\.parquet, but the driver does not see it"):
        walk(spark, tmp_path, num_walks=1, walk_length=5, verbose=False)
    assert not (tmp_path / "walks" / "_SUCCESS").exists()


def test_the_manifest_says_what_the_walks_are(spark: SparkSession, tmp_path: Path) -> None:
    _, graph = save_indexed(tmp_path, random_edges(200, 900, seed=7))
    walk(spark, tmp_path, p=0.25, num_walks=1, walk_length=5, verbose=False)
    (manifest,) = (tmp_path / "walks").glob("*manifest.json")
    settings = json.loads(manifest.read_text())
    assert settings["inputs"] == graph.fingerprint()
    assert {name: settings[name] for name in ("p", "num_walks", "start_nodes")} == {
        "p": 0.25, "num_walks": 1, "start_nodes": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "megabytes"), [("1g", 1024), ("512m", 512), ("2048", 2048), ("1536MB", 1536), ("4t", 1 << 22)]
)
def test_memory_settings(text: str, megabytes: int) -> None:
    assert walk_job._megabytes(text) == megabytes
