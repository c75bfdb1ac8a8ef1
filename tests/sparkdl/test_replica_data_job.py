"""Rows to replicas: each row once, in the same place however Spark holds the rows; bad rows become a sentence."""

from __future__ import annotations

import glob
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark import SparkFiles
from pyspark.broadcast import Broadcast
from pyspark.ml.linalg import Vectors, VectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import DoubleType, StructField, StructType

from sparkdl import replica_cache, replica_data_job
from sparkdl.columns import Columns
from sparkdl.errors import ConfigError
from sparkdl.label_checks import ValueRange
from sparkdl.replica_data_job import ReplicaRows, array_tokens, deal, frame_tokens, read_tokens, sample
from sparkdl.row_files import RowFiles

pytestmark = pytest.mark.spark

COLUMNS = Columns.parse(["x", "k"], "y")
SCHEMA = "x array<float>, k bigint, y double, unused string"


@pytest.fixture
def run(spark: SparkSession) -> Iterator[str]:
    """A run's name; its files are removed afterwards."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    yield name
    replica_cache.remove(name)
    assert glob.glob(os.path.join(SparkFiles.getRootDirectory(), "sparkdl-*")) == []


@pytest.fixture
def payload(spark: SparkSession) -> Broadcast[bytes]:
    return spark.sparkContext.broadcast(b"the payload")


def records(count: int) -> list[tuple[Any, ...]]:
    return [([k / 2, -float(k)], k, float(k % 3), "text") for k in range(count)]


def stored(run: str, replica: int) -> dict[str, Any]:
    """All rows; driver and executor are one here."""
    files = RowFiles(os.path.join(replica_cache.run_directory(run), f"data-{replica}"))
    return files.take(np.arange(files.num_rows))


def dealt(frame: DataFrame, num_replicas: int) -> list[list[int]]:
    found = deal(frame, ["x", "k"], num_replicas)
    assert found.columns == ["x", "k"]
    return [[row.k for row in part] for part in found.rdd.glom().collect()]


def test_a_row_has_one_place_however_the_frame_is_partitioned(spark: SparkSession) -> None:
    frame = spark.createDataFrame(records(40), SCHEMA)
    first = dealt(frame.repartition(1), 3)
    assert len(first) == 3
    assert sorted(k for part in first for k in part) == list(range(40))
    assert all(part for part in first)
    assert any(part != sorted(part) for part in first)  # the order is the hashes', not the file's
    assert dealt(frame.repartition(5).orderBy("y"), 3) == first
    assert dealt(frame.coalesce(2).sort(frame.k.desc()), 3) == first


def test_rows_that_are_equal_all_stay(spark: SparkSession) -> None:
    frame = spark.createDataFrame(records(5) * 4, SCHEMA)
    assert sorted(k for part in dealt(frame, 2) for k in part) == sorted(list(range(5)) * 4)


def test_a_frame_is_written_once(spark: SparkSession, run: str, payload: Broadcast[bytes]) -> None:
    frame = spark.createDataFrame(records(20), SCHEMA)
    tokens = read_tokens(frame_tokens(frame, COLUMNS, 3, run, payload))
    assert [t.replica for t in tokens] == [0, 1, 2]
    assert sum(t.num_rows for t in tokens) == 20
    found = [stored(run, replica) for replica in range(3)]
    assert sorted(np.concatenate([part["k"] for part in found]).tolist()) == list(range(20))
    for token, part in zip(tokens, found, strict=True):
        assert list(part) == ["x", "k", "y"]
        assert [part[name].dtype for name in part] == [np.float32, np.int64, np.float32]
        assert len(part["k"]) == token.num_rows
        np.testing.assert_array_equal(part["x"], np.stack([part["k"] / 2, -part["k"]], axis=1))
        np.testing.assert_array_equal(part["y"], part["k"] % 3)
        assert token.ranges["y"] == (part["y"].min(), part["y"].max(), False, None)
        assert token.ranges["k"] == (part["k"].min(), part["k"].max(), False, None)
        assert token.host == os.uname().nodename
    assert (Path(replica_cache.run_directory(run)) / "payload").read_bytes() == b"the payload"

    # placed again after a lost executor: what is here is used as it is
    folder = Path(replica_cache.run_directory(run))
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert len(times) == 1 + 3 * 3
    assert read_tokens(frame_tokens(frame, COLUMNS, 3, run, payload)) == tokens
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == times

    # a replica whose files are gone gets the same rows again
    before = stored(run, 1)
    for path in (folder / "data-1").iterdir():
        path.unlink()
    (folder / "data-1").rmdir()
    assert read_tokens(frame_tokens(frame.repartition(4), COLUMNS, 3, run, payload)) == tokens
    for name, array in stored(run, 1).items():
        np.testing.assert_array_equal(array, before[name])


def test_more_replicas_than_rows(spark: SparkSession, run: str, payload: Broadcast[bytes]) -> None:
    frame = spark.createDataFrame(records(2), SCHEMA)
    tokens = read_tokens(frame_tokens(frame, COLUMNS, 5, run, payload))
    assert [t.replica for t in tokens] == list(range(5))
    assert sorted(t.num_rows for t in tokens)[-2:] in ([1, 1], [0, 2])
    for token in tokens:
        assert {name: len(array) for name, array in stored(run, token.replica).items()} == dict.fromkeys(
            ["x", "k", "y"], token.num_rows
        )
        if not token.num_rows:
            assert token.ranges["y"] == ValueRange()


def test_ml_vectors(spark: SparkSession, run: str, payload: Broadcast[bytes]) -> None:
    vectors = [
        (Vectors.dense([1.0, 0.0, k]) if k % 2 else Vectors.sparse(3, {0: 1.0, 2: float(k)}), float(k))
        for k in range(12)
    ]
    schema = StructType([StructField("v", VectorUDT()), StructField("y", DoubleType())])
    frame = spark.createDataFrame(vectors, schema).repartition(3)
    columns = Columns.parse("v", "y")
    read_tokens(frame_tokens(frame, columns, 2, run, payload))
    found = [stored(run, replica) for replica in range(2)]
    y = np.concatenate([part["y"] for part in found])
    assert sorted(y.tolist()) == list(range(12))
    v = np.concatenate([part["v"] for part in found])
    assert v.dtype == np.float32
    np.testing.assert_array_equal(v, np.stack([np.ones(12), np.zeros(12), y], axis=1))
    seen = sample(frame, columns, 4)
    np.testing.assert_array_equal(seen["v"], np.stack([np.ones(4), np.zeros(4), seen["y"]], axis=1))


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (
            ([0.0], 7, 1.0, ""),
            "column 'x': row .* has 1 values, row 0 has 2 values|column 'x': .* has 2 values, .* 1 v",
        ),
        ((None, 7, 1.0, ""), "column 'x': row .* is null or holds one; a model needs a number in every place"),
        (([0.0, None], 7, 1.0, ""), "column 'x': row .* is null or holds one"),
        (([0.0, 1.0], None, 1.0, ""), "column 'k': row .* is null or holds one"),
        (([0.0, 1.0], 7, None, ""), "column 'y': row .* is null or holds one"),
    ],
)
def test_a_bad_row_is_a_sentence(
    spark: SparkSession, run: str, payload: Broadcast[bytes], bad: tuple[Any, ...], sentence: str
) -> None:
    frame = spark.createDataFrame([*records(10), bad], SCHEMA)
    with pytest.raises(ConfigError, match=sentence):
        read_tokens(frame_tokens(frame, COLUMNS, 2, run, payload))
    # nothing half-written is taken for a replica's rows later
    folder = Path(replica_cache.run_directory(run))
    assert len(list(folder.glob("data-*"))) == 1


def test_strings_and_no_rows(spark: SparkSession, run: str, payload: Broadcast[bytes]) -> None:
    frame = spark.createDataFrame(records(10), SCHEMA)
    with pytest.raises(ConfigError, match="column 'unused' holds strings"):
        read_tokens(frame_tokens(frame, Columns.parse("unused", "y"), 2, run, payload))
    with pytest.raises(ConfigError, match="the training data have no rows"):
        read_tokens(frame_tokens(frame.filter("k < 0"), COLUMNS, 2, run, payload))
    with pytest.raises(ConfigError, match="the training data have no rows"):
        sample(frame.filter("k < 0"), COLUMNS, 8)


def test_nan_labels_are_told(spark: SparkSession, run: str, payload: Broadcast[bytes]) -> None:
    frame = spark.createDataFrame([*records(6), ([0.0, 0.0], 6, float("nan"), "")], SCHEMA)
    (token,) = read_tokens(frame_tokens(frame, COLUMNS, 1, run, payload))
    assert token.ranges["y"] == (0, 2, True, None)


def test_a_label_between_two_classes_is_told(spark: SparkSession, run: str, payload: Broadcast[bytes]) -> None:
    frame = spark.createDataFrame([*records(6), ([0.0, 0.0], 6, 1.5, "")], SCHEMA)
    tokens = read_tokens(frame_tokens(frame, COLUMNS, 2, run, payload))
    assert sorted(str(token.ranges["y"].fraction) for token in tokens) == ["1.5", "None"]


def test_small_arrow_batches_are_one_array(spark: SparkSession, run: str, payload: Broadcast[bytes]) -> None:
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "3")
    try:
        frame = spark.createDataFrame(records(20), SCHEMA)
        (token,) = read_tokens(frame_tokens(frame, COLUMNS, 1, run, payload))
        assert token.num_rows == 20
        part = stored(run, 0)
        assert sorted(part["k"].tolist()) == list(range(20))
        np.testing.assert_array_equal(part["x"], np.stack([part["k"] / 2, -part["k"]], axis=1))
        assert len(sample(frame, COLUMNS, 8)["k"]) == 8
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")


def test_arrays_are_dealt_in_turn(spark: SparkSession, run: str, payload: Broadcast[bytes]) -> None:
    data = {
        "x": np.arange(22, dtype=np.float32).reshape(11, 2),
        "k": np.arange(11),
        "y": np.arange(11) % 4,
        "unused": np.zeros(11),
    }
    shared = spark.sparkContext.broadcast(data)
    tokens = read_tokens(array_tokens(spark.sparkContext, shared, COLUMNS, 4, run, payload))
    assert [t.num_rows for t in tokens] == [3, 3, 3, 2]
    assert [t.ranges["y"][:2] for t in tokens] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    for replica in range(4):
        part = stored(run, replica)
        assert list(part) == ["x", "k", "y"]
        for name, array in part.items():
            np.testing.assert_array_equal(array, data[name][replica::4])
    assert read_tokens(array_tokens(spark.sparkContext, shared, COLUMNS, 4, run, payload)) == tokens
    shared.destroy()


def test_an_error_in_one_token_is_raised(spark: SparkSession) -> None:
    good = ReplicaRows(0, 3, "host", {"y": ValueRange(0, 1, True)})
    bad = ReplicaRows(1, 0, "", {}, "column 'x': a sentence")
    tokens = spark.sparkContext.parallelize([(token.dumps(),) for token in (bad, good)], 2)
    with pytest.raises(ConfigError, match=r"^column 'x': a sentence$"):
        read_tokens(tokens)
    tokens = spark.sparkContext.parallelize([(good.dumps(),)], 1)
    assert read_tokens(tokens) == [good]


def test_a_try_sees_the_used_columns_of_the_first_rows(spark: SparkSession) -> None:
    frame = spark.createDataFrame(records(20), SCHEMA).repartition(3)
    seen = sample(frame, COLUMNS, 8)
    assert {name: array.shape for name, array in seen.items()} == {"x": (8, 2), "k": (8,), "y": (8,)}
    assert seen["x"].dtype == np.float32
    assert replica_data_job.sample(frame, COLUMNS, 30)["k"].shape == (20,)
