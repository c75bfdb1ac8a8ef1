"""What fit takes as data: RDDs of dicts, paths, pandas, arrays; and what is refused in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, Row, SparkSession

from sparkdl.columns import Columns
from sparkdl.errors import ConfigError
from sparkdl.replica_data_job import sample
from sparkdl.training_data import frame_of_dicts, read

pytestmark = pytest.mark.spark

COLUMNS = Columns.parse("x", "y")


def as_frame(data: Any) -> DataFrame:
    assert isinstance(data, DataFrame)
    return data


def test_an_rdd_of_dicts(spark: SparkSession) -> None:
    rows = [
        {
            "number": k + 0.5,
            "whole": k,
            "truth": k > 2,
            "array": np.full((2, 3), k, np.float32),
            "list": [k, 2],
            "tensor": torch.tensor([k / 2]),
            "vector": Vectors.sparse(3, {1: float(k)}),
            "mixed": k if k % 2 else k / 4,
            "blob": bytes([k]),
            "unused": object,
        }
        for k in range(10)
    ]
    names = [name for name in rows[0] if name != "unused"]
    columns = Columns.parse(names, None, transform={"blob": len})
    frame = as_frame(read(spark, spark.sparkContext.parallelize(rows, 3), columns))
    assert frame.columns == names
    found = sample(frame, columns, 10)
    assert {name: (str(v.dtype), v.shape[1:]) for name, v in found.items()} == {
        "number": ("float32", ()),
        "whole": ("int64", ()),
        "truth": ("float32", ()),
        "array": ("float32", (2, 3)),
        "list": ("int64", (2,)),
        "tensor": ("float32", (1,)),
        "vector": ("float32", (3,)),
        "mixed": ("float32", ()),
        "blob": ("int64", ()),
    }
    order = np.argsort(np.asarray(found["whole"]))
    for name in ("number", "whole", "truth", "array", "list", "mixed"):
        np.testing.assert_array_equal(found[name][order], np.array([row[name] for row in rows]))


def test_an_rdd_of_rows(spark: SparkSession) -> None:
    rdd = spark.sparkContext.parallelize([Row(x=[1.0, 2.0], y=0), Row(x=[3.0, 4.0], y=1)], 1)
    assert as_frame(read(spark, rdd, COLUMNS)).collect() == [Row(x=[1.0, 2.0], y=0), Row(x=[3.0, 4.0], y=1)]


GOOD = [{"x": [1.0, 2.0], "y": k} for k in range(8)]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "the training data have no rows"),
        ([(1, 2)], "the rows of the RDD are of type tuple; they must be dicts"),
        ([{"x": 1.0}], "the data have no column 'y'; they have 'x'"),
        ([{"x": {1: 2}, "y": 0}], "column 'x' holds a dict; in an RDD of dicts a value is a number"),
        ([{"x": [[1], [2, 3]], "y": 0}], "column 'x' holds a list; in an RDD of dicts"),
        ([{"x": 1.0, "y": 0}, {"x": [1.0], "y": 0}], "column 'x' holds float and array<float> in the first 2 rows"),
        ([{"x": None, "y": 0}], "column 'x' is None in the first 1 rows"),
        (
            [*GOOD, {"x": 1.0, "y": 0}],
            "row 8 of partition 0 of the RDD holds float in column 'x', the first rows hold arr",
        ),
        (
            [*GOOD, {"x": [1.0, 2.0], "y": 0.5}],
            "row 8 of partition 0 of the RDD holds float in column 'y', .* hold bigint",
        ),
        ([*GOOD, {"x": ["a"], "y": 0}], "row 8 of partition 0 of the RDD: column 'x' holds a list"),
        ([*GOOD, {"y": 0}], "row 8 of partition 0 of the RDD has no 'x'; it has 'y'"),
        ([*GOOD, 3], "row 8 of partition 0 of the RDD is a int; all rows must be dicts"),
        ([*GOOD, {"x": [1.0, 2.0, 3.0], "y": 0}], "column 'x': row .* has 3 values, row 0 has 2 values"),
    ],
)
def test_rows_that_differ_are_a_sentence(spark: SparkSession, rows: list[Any], sentence: str) -> None:
    rdd = spark.sparkContext.parallelize(rows, 1)
    with pytest.raises(ConfigError, match=rf"^{sentence}"):
        sample(frame_of_dicts(spark, rdd, ["x", "y"]), COLUMNS, 100)


def test_paths_and_pandas(spark: SparkSession, tmp_path: Path) -> None:
    frame = spark.createDataFrame([([1.0, 2.0], 1), ([3.0, 4.0], 0)], "x array<float>, y int")
    frame.coalesce(1).write.parquet(str(tmp_path / "a"))
    for data in (tmp_path / "a", str(tmp_path / "a"), [tmp_path / "a"]):
        assert sorted(as_frame(read(spark, data, COLUMNS)).collect()) == sorted(frame.collect())
    stored = read(spark, pd.DataFrame({"x": [[1.0, 2.0], [3.0, 4.0]], "y": [1, 0], "text": ["a", "b"]}), COLUMNS)
    assert isinstance(stored, dict)
    assert {name: values.shape for name, values in stored.items()} == {"x": (2, 2), "y": (2,)}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ([], "training data of type list cannot be read; pass a Spark DataFrame, Parquet paths, an RDD of dicts"),
        (7, "training data of type int cannot be read"),
        ({"x": [1.0], "yy": [1]}, "the data have no column 'y'; did you mean 'yy'\\? they have 'x', 'yy'"),
        ({"x": ["a"], "y": [1]}, "column 'x' holds strings"),
    ],
)
def test_what_is_no_data(spark: SparkSession, data: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{sentence}"):
        read(spark, data, COLUMNS)
