from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from node2vec import stage, walk_files
from node2vec.walk_numbering import FirstLook, first_look, number_walks
from sparkdl.errors import ConfigError

pytestmark = pytest.mark.spark

SENTENCES = [
    ["a", "rose", "is", "a", "rose"],
    ["is", "a", "rose"],
    ["ünïcode", "is", "a", "\u2603"],
    ["a"],
]


def named(spark: SparkSession, root: Path) -> list[list[Any]]:
    ids = {row["index"]: row["id"] for row in spark.read.parquet(str(root / "ids")).collect()}
    return [[ids[number] for number in walk] for batch in walk_files.read(root / "walks") for walk in batch.to_pylist()]


def test_tokens_are_numbered_by_falling_frequency(spark: SparkSession, tmp_path: Path) -> None:
    number_walks(spark, spark.createDataFrame([(s,) for s in SENTENCES], ["walk"]), tmp_path)
    assert sorted(named(spark, tmp_path)) == sorted(SENTENCES)
    ids = [row["id"] for row in spark.read.parquet(str(tmp_path / "ids")).orderBy("index").collect()]
    counts = Counter(token for sentence in SENTENCES for token in sentence)
    assert ids == sorted(counts, key=lambda token: (-counts[token], token.encode()))
    settings = stage.settings_of(tmp_path, "walks")
    assert settings is not None
    assert settings["walk_length"] == 5


def test_partitions_and_their_order_do_not_count(spark: SparkSession, tmp_path: Path) -> None:
    rows = [([number % 7, number % 5, number % 3],) for number in range(60)]
    made = []
    for partitions in (1, 4):
        root = tmp_path / str(partitions)
        frame = spark.createDataFrame(rows[:: 1 if partitions == 1 else -1], "walk array<bigint>")
        number_walks(spark, frame.repartition(partitions), root)
        assert sorted(named(spark, root)) == sorted(walk for (walk,) in rows)
        made.append([walk for batch in walk_files.read(root / "walks") for walk in batch.to_pylist()])
    assert made[0] == made[1]


def test_rare_tokens_and_what_they_leave_empty_are_left_out(spark: SparkSession, tmp_path: Path) -> None:
    frame = spark.createDataFrame([(s, 1) for s in [*SENTENCES, ["once"], []]], ["words", "other"])
    number_walks(spark, frame, tmp_path, column="words", min_count=3)
    kept = {"a", "rose", "is"}
    expected = [[token for token in sentence if token in kept] for sentence in SENTENCES]
    assert sorted(named(spark, tmp_path)) == sorted(walk for walk in expected if walk)


def test_walks_are_numbered_once(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = spark.createDataFrame([(s,) for s in SENTENCES], ["walk"])
    number_walks(spark, frame, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("part-*")}
    number_walks(spark, frame, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("part-*")} == files
    with pytest.raises(ConfigError, match="made from other inputs"):
        number_walks(spark, frame.limit(2), tmp_path)


def test_a_first_look(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(s,) for s in [*SENTENCES, [], None]], "words array<string>")
    assert first_look(frame, "words") == FirstLook(6, 13, 5, 5)
    many = spark.range(1000).selectExpr("array(id, id + 1, id) as walk")
    found = first_look(many)
    assert found[:3] == (1000, 3000, 3)
    assert abs(found.distinct_tokens - 1001) < 150
    with pytest.raises(ConfigError, match="no column 'walk'"):
        first_look(frame)


@pytest.mark.parametrize(
    ("rows", "schema", "settings", "sentence"),
    [
        ([(["a"],)], "walk array<string>", {"column": "wlak"}, "the walks have no column 'wlak', only walk"),
        ([("a b",)], "walk string", {}, "column 'walk' is string; walks are arrays"),
        ([([0.5],)], "walk array<double>", {}, r"column 'walk' is array<double>; walks are arrays"),
        (
            [(["a", None],), (None,), (["b"],)],
            "walk array<string>",
            {},
            "2 of 3 walks in 'walk' are null or hold nulls",
        ),
        ([([],)], "walk array<string>", {}, "there is no token in column 'walk'"),
        ([(["a"] * 65_536,)], "walk array<string>", {}, "has 65536 tokens; at most 65535"),
        ([(["a"],)], "walk array<string>", {"min_count": 2}, "min_count=2 leaves nothing"),
    ],
)
def test_what_cannot_be_numbered(
    spark: SparkSession, tmp_path: Path, rows: list[Any], schema: str, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        number_walks(spark, spark.createDataFrame(rows, schema), tmp_path, **settings)
    assert stage.settings_of(tmp_path, "walks") is None
