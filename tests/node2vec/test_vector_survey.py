from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from node2vec.nearest import units
from node2vec.vector_blocks import from_bytes
from node2vec.vector_survey import blocks, columns_of, local_blocks, survey
from sparkdl.errors import ConfigError

pytestmark = pytest.mark.spark


def frame(spark: SparkSession, rows: list[Any], schema: str = "id long, vector array<float>") -> DataFrame:
    return spark.createDataFrame(rows, schema)


def test_the_columns_and_their_types(spark: SparkSession) -> None:
    given = frame(spark, [([1.0, 2.0], "x", 5)], "vector array<double>, other string, id int")
    assert columns_of(given).dtypes == [("id", "int"), ("vector", "array<float>")]


@pytest.mark.parametrize(
    ("schema", "row", "words"),
    [
        ("node long, vector array<float>", (1, [1.0]), "no column 'id', only node, vector"),
        ("id long, features array<float>", (1, [1.0]), "no column 'vector'"),
        ("id double, vector array<float>", (1.0, [1.0]), "the column id is double"),
        ("id long, vector array<string>", (1, ["1"]), r"the column vector is array<string>"),
        ("id long, vector float", (1, 1.0), "the column vector is float"),
    ],
)
def test_other_columns_are_refused(spark: SparkSession, schema: str, row: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        columns_of(frame(spark, [row], schema))


def test_a_survey_counts(spark: SparkSession) -> None:
    rows = [(i, [float(i), 1.0, 2.0]) for i in range(70)]
    assert survey(frame(spark, rows).repartition(5)) == (70, 3)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((99, None), "the vector of id 99 is null"),
        ((99, [1.0, None]), "the vector of id 99 holds a null"),
        ((99, [1.0, math.nan]), "the vector of id 99 holds NaN"),
        ((None, [1.0, 2.0]), "no id"),
        ((7, [1.0, 2.0]), "id 7 is there 2 times"),
        ((99, [1.0]), r"different lengths: that of id \d+ has \d numbers, that of id \d+ has \d"),
    ],
)
@pytest.mark.parametrize("partitions", [1, 4])
def test_a_survey_finds_the_one_wrong_row(spark: SparkSession, row: Any, words: str, partitions: int) -> None:
    rows = [*((i, [float(i), 1.0]) for i in range(20)), row]
    with pytest.raises(ConfigError, match=words):
        survey(frame(spark, rows).repartition(partitions))


def test_no_vectors(spark: SparkSession) -> None:
    with pytest.raises(ConfigError, match="no vectors"):
        survey(frame(spark, []))


def test_blocks(spark: SparkSession) -> None:
    rows = [(f"n{i}", [float(i), 1.0]) for i in range(25)]
    given = frame(spark, rows, "id string, vector array<float>").coalesce(1)
    found = [from_bytes(bytes(row["block"])) for row in blocks(given, 10).collect()]
    assert [block.ids.to_pylist() for block in found] == [
        [f"n{i}" for i in range(a, b)] for a, b in ((0, 10), (10, 20), (20, 25))
    ]
    assert found[2].matrix.tolist() == [[float(i), 1.0] for i in range(20, 25)]
    scaled = from_bytes(bytes(blocks(given, 100, as_units=True).head()["block"]))  # type: ignore[index]
    np.testing.assert_array_equal(scaled.matrix, units(np.array([row[1] for row in rows], np.float32)))


def test_local_blocks_come_in_the_frames_order(spark: SparkSession) -> None:
    given = spark.range(0, 50, 1, 3).select("id", F.array(F.col("id").cast("float")).alias("vector"))
    found = list(local_blocks(given, 1, "reading"))
    assert [name for block in found for name in block.ids.to_pylist()] == list(range(50))
    assert len(found) == 3
