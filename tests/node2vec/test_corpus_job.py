from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from node2vec import block_schedule, corpus_files, stage, token_streams
from node2vec.corpus_job import counts_of, prepare, walk_sources
from node2vec.graph_files import file_system
from sparkdl.errors import ConfigError

pytestmark = pytest.mark.spark


def save_walks(root: Path, lists: list[list[int]], num_files: int, num_nodes: int) -> None:
    """root/walks and root/ids as the stages before leave them."""
    stage.begin(root, "walks", {"walk_length": max(map(len, lists))})
    borders = [len(lists) * i // num_files for i in range(num_files + 1)]
    for number in range(num_files):
        some = pa.array(lists[borders[number] : borders[number + 1]], pa.list_(pa.int32()))
        pq.write_table(pa.table({"walk": some}), root / "walks" / f"part-{number:05d}.parquet", row_group_size=7)
    stage.finish(root, "walks")
    (root / "ids").mkdir()
    ids = pa.table({"index": pa.array(range(num_nodes), pa.int32()), "id": pa.array(range(num_nodes), pa.int64())})
    pq.write_table(ids, root / "ids" / "part-0.parquet")


def random_walks(num_walks: int, num_nodes: int, longest: int) -> list[list[int]]:
    rng = np.random.default_rng(num_walks)
    lengths = rng.integers(1, longest + 1, num_walks)
    return [(num_nodes * rng.random(length) ** 2).astype(int).tolist() for length in lengths]


def bytes_of(root: Path) -> dict[str, bytes]:
    folder = root / "corpus"
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".bin"}


def expected(lists: list[list[int]], parts: int, episodes: int, num_nodes: int, keep: Any = None, seed: int = 0) -> Any:
    nodes = np.array([node for walk in lists for node in walk], np.int32)
    offsets = np.cumsum([0, *map(len, lists)])
    return token_streams.streams(nodes, offsets, 0, parts, episodes, keep, seed, num_nodes=num_nodes)


@pytest.mark.parametrize(("parts", "episodes", "num_files"), [(1, 1, 1), (3, 4, 9)])
def test_the_streams_are_those_of_all_walks_at_once(
    spark: SparkSession, tmp_path: Path, parts: int, episodes: int, num_files: int
) -> None:
    lists = random_walks(60, 50, 12)
    save_walks(tmp_path, lists, num_files, 50)
    header = prepare(spark, tmp_path, parts, episodes)
    found = expected(lists, parts, episodes, 50)
    files, folder = file_system(tmp_path / "corpus")
    for episode in range(episodes):
        for part in range(parts):
            stream = corpus_files.read_stream(files, f"{folder}/{corpus_files.stream_name(episode, part)}")
            for array, other in zip(stream, found[episode][part], strict=True):
                assert np.array_equal(array, other)
    counts = np.bincount([node for walk in lists for node in walk], minlength=50)
    for part in range(parts):
        rows = np.arange(block_schedule.part_size(50, part, parts))
        ids = block_schedule.id_of(part, rows, parts)
        assert np.array_equal(counts_of(str(tmp_path / "corpus"), header.fingerprint, part), counts[ids])
    assert (header.num_walks, header.num_tokens, header.num_parts) == (60, sum(map(len, lists)), parts)
    assert prepare(spark, tmp_path, parts, episodes) == header


def test_how_walks_lie_in_files_does_not_count(spark: SparkSession, tmp_path: Path) -> None:
    lists = random_walks(90, 40, 9)
    made = []
    for num_files in (1, 4):
        root = tmp_path / str(num_files)
        save_walks(root, lists, num_files, 40)
        prepare(spark, root, 2, 3, min_count=3, sample=0.01, seed=5)
        made.append(bytes_of(root))
    assert made[0] == made[1]


def test_rare_and_frequent_nodes_are_left_out(spark: SparkSession, tmp_path: Path) -> None:
    lists = random_walks(200, 60, 10)
    save_walks(tmp_path, lists, 3, 60)
    header = prepare(spark, tmp_path, 2, 1, min_count=9, sample=0.02, seed=3)
    counts = np.bincount([node for walk in lists for node in walk], minlength=60)
    keep = token_streams.keep_thresholds(counts, 9, 0.02)
    found = expected(lists, 2, 1, 60, keep, 3)
    assert header.num_tokens == sum(len(stream.rows) for stream in found[0]) < sum(map(len, lists))
    files, folder = file_system(tmp_path / "corpus")
    for part in range(2):
        stream = corpus_files.read_stream(files, f"{folder}/{corpus_files.stream_name(0, part)}")
        assert np.array_equal(stream.rows, found[0][part].rows)


def test_only_footers_tell_sizes(spark: SparkSession, tmp_path: Path) -> None:
    lists = [[1, 2, 3], [4], [5, 6]]
    save_walks(tmp_path, lists, 2, 9)
    found = walk_sources(spark.sparkContext, str(tmp_path / "walks"))
    assert [source[1:] for source in found] == [(0, 1, 3), (1, 2, 3)]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"partitions": 0}, "partitions=0 is less than 1"),
        ({"episodes": 0}, "episodes=0 is less than 1"),
        ({"partitions": 51}, "partitions=51, but there are 50 nodes"),
        ({"min_count": -1}, "min_count=-1 is negative"),
        ({"sample": 1.5}, r"sample=1\.5 is no share"),
        ({"min_count": 10_000}, "min_count=10000 leaves nothing to train on"),
    ],
)
def test_what_cannot_be_prepared(spark: SparkSession, tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    save_walks(tmp_path, random_walks(20, 50, 5), 1, 50)
    with pytest.raises(ConfigError, match=sentence):
        prepare(spark, tmp_path, **settings)
    assert not (tmp_path / "corpus" / corpus_files.HEADER).exists()


def test_a_corpus_stays_when_the_slots_change(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_walks(tmp_path, random_walks(20, 50, 5), 1, 50)
    monkeypatch.setattr(block_schedule, "default_parts", lambda *_: 3)
    made = prepare(spark, tmp_path)
    assert (made.num_parts, made.num_episodes) == (3, 16)
    monkeypatch.setattr(block_schedule, "default_parts", lambda *_: 4)
    assert prepare(spark, tmp_path) == prepare(spark, tmp_path, episodes=16) == made
    with pytest.raises(ConfigError, match="corpus was made with parts=3, this run has parts=4"):
        prepare(spark, tmp_path, partitions=4)


def test_no_walks_one_node_and_other_settings(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no complete walks"):
        prepare(spark, tmp_path)
    save_walks(tmp_path / "one", [[0], [0]], 1, 1)
    with pytest.raises(ConfigError, match="know one node only"):
        prepare(spark, tmp_path / "one")
    save_walks(tmp_path / "two", [[0, 1], [1]], 1, 2)
    prepare(spark, tmp_path / "two")
    with pytest.raises(ConfigError, match=r"corpus was made with min_count=0, this run has min_count=1"):
        prepare(spark, tmp_path / "two", min_count=1)
