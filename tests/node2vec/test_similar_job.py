from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from node2vec.nearest import Search, units
from node2vec.similar_job import num_blocks, similar_pairs
from node2vec.vector_survey import Shape

pytestmark = pytest.mark.spark


def twin(ids: list[Any], matrix: Any, top: int) -> dict[Any, list[tuple[Any, float]]]:
    search = Search(pa.array(ids), units(matrix), top)
    search.add(pa.array(ids), units(matrix))
    return grouped([tuple(row.values()) for table in search.result() for row in table.to_pylist()])


def grouped(rows: list[Any]) -> dict[Any, list[tuple[Any, float]]]:
    found: dict[Any, list[tuple[Any, float]]] = defaultdict(list)
    for name, other, similarity in rows:
        found[name].append((other, similarity))
    return dict(found)


def frame(spark: SparkSession, ids: list[Any], matrix: Any, kind: str) -> DataFrame:
    return spark.createDataFrame(
        [(name, row) for name, row in zip(ids, matrix.tolist(), strict=True)], f"id {kind}, vector array<float>"
    )


@pytest.mark.parametrize(("kind", "number"), [("string", 1), ("string", 5), ("int", 3), ("bigint", None)])
def test_the_pairs_are_the_twins_whatever_the_blocks(spark: SparkSession, kind: str, number: int | None) -> None:
    """Bit for bit and in its order; among the vectors are some that are equal, and one of zeros."""
    matrix = np.random.default_rng(5).normal(size=(300, 12)).astype(np.float32)
    matrix[40:60] = matrix[3]
    matrix[77] = 0
    ids = [f"né {i}" if kind == "string" else 7 * i - 500 for i in range(300)]
    found = similar_pairs(frame(spark, ids, matrix, kind), Shape(300, 12), 4, number)
    assert found.dtypes == [("id", kind), ("similar_id", kind), ("similarity", "float")]
    assert grouped(found.collect()) == twin(ids, matrix, 4)


def test_more_blocks_than_vectors_and_more_wanted_than_there_are(spark: SparkSession) -> None:
    matrix = np.eye(3, dtype=np.float32)
    found = similar_pairs(frame(spark, [1, 2, 3], matrix, "int"), Shape(3, 3), 10, number=8)
    assert grouped(found.collect()) == {1: [(2, 0.0), (3, 0.0)], 2: [(1, 0.0), (3, 0.0)], 3: [(1, 0.0), (2, 0.0)]}


def test_num_blocks() -> None:
    assert num_blocks(Shape(10, 128), slots=8) == 1
    assert num_blocks(Shape(5000, 128), slots=8) == 4
    assert num_blocks(Shape(100_000, 128), slots=8) == 24
    assert num_blocks(Shape(1_000_000, 128), slots=8) == 62  # of 8 MiB
