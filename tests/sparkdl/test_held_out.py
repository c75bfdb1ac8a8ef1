"""Validation rows: split by content, whatever the partitions; both sides have rows; nothing is kept after a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkdl import held_out
from sparkdl.columns import Columns
from sparkdl.errors import ConfigError

COLUMNS = Columns.parse("x", "y")


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> DataFrame:
    return spark.range(2000).select(F.col("id").cast("double").alias("x"), (F.col("id") % 3).alias("y"))


def keys(rows: Any) -> set[float]:
    return {row["x"] for row in rows.select("x").collect()}


def test_a_fraction_of_a_frame_does_not_depend_on_its_partitions(frame: DataFrame) -> None:
    train, validation = held_out.by_fraction(frame, COLUMNS, 0.2, 5)
    held = keys(validation)
    assert len(held) == pytest.approx(400, abs=60)
    assert keys(train) | held == keys(frame)
    assert not keys(train) & held
    again = held_out.by_fraction(frame.repartition(7).orderBy(F.rand(1)), COLUMNS, 0.2, 5)
    assert keys(again.validation) == held
    assert keys(held_out.by_fraction(frame, COLUMNS, 0.2, 6).validation) != held


@pytest.mark.parametrize(("rows", "fraction", "count"), [(10, 0.2, 2), (10, 0.01, 1), (10, 0.99, 9), (2, 0.5, 1)])
def test_a_fraction_of_arrays_is_exact(rows: int, fraction: float, count: int) -> None:
    data = {"x": np.arange(rows), "y": np.arange(rows) * 2}
    train, validation = held_out.by_fraction(data, COLUMNS, fraction, 3)
    assert isinstance(train, dict)
    assert isinstance(validation, dict)
    assert len(validation["x"]) == count
    assert sorted([*train["x"], *validation["x"]]) == list(range(rows))
    assert (validation["y"] == 2 * validation["x"]).all()


def test_a_boolean_column(frame: DataFrame) -> None:
    flagged = frame.withColumn("held", F.col("x") < 30)
    train, validation = held_out.by_column(flagged, None, "held")
    assert keys(validation) == set(map(float, range(30)))
    assert len(keys(train)) == 1970
    flags = np.arange(5) > 3
    found = held_out.by_column({"x": np.arange(5)}, flags, "held")
    assert isinstance(found.validation, dict)
    assert found.validation["x"].tolist() == [4]


def test_splits_that_cannot_be(frame: DataFrame) -> None:
    def column(expression: Any) -> DataFrame:
        return frame.withColumn("held", expression)

    arrays = {"x": np.arange(4)}
    cases: list[tuple[Any, str]] = [
        (lambda: held_out.by_fraction(frame, COLUMNS, 1.0, 0), "validation=1.0 is a fraction of the rows"),
        (lambda: held_out.by_fraction({"x": np.arange(1)}, COLUMNS, 0.5, 0), "validation=0.5 of 1 rows: there must be"),
        (lambda: held_out.by_column(column(F.lit(1)), None, "held"), "validation='held' is a column of type int"),
        (
            lambda: held_out.by_column(column(F.when(F.col("x") > 4, F.col("x") > 9)), None, "held"),
            "validation column 'held' is null in 5 of 2000 rows; fill it",
        ),
        (
            lambda: held_out.by_column(column(F.lit(False)), None, "held"),
            "validation column 'held' has 0 true rows of 2,000; true rows validate, false rows train",
        ),
        (lambda: held_out.by_column(column(F.lit(True)), None, "held"), "validation column 'held' has 0 false rows"),
        (lambda: held_out.by_column(arrays, np.arange(4), "held"), "validation='held' holds int64 of shape (4,)"),
        (lambda: held_out.by_column(arrays, np.zeros(4, bool), "held"), "validation column 'held' has 0 true rows"),
    ]
    for split, sentence in cases:
        with pytest.raises(ConfigError) as raised:
            split()
        assert str(raised.value).startswith(sentence)


def test_rows_are_kept_for_a_run_and_no_longer(frame: DataFrame, spark: SparkSession) -> None:
    before = set(spark.sparkContext._jsc.getPersistentRDDs())
    with held_out.kept(frame, COLUMNS, 3) as kept:
        assert isinstance(kept, DataFrame)
        assert kept.rdd.getNumPartitions() == 3
        assert len(set(spark.sparkContext._jsc.getPersistentRDDs()) - before) == 1
        first = kept.collect()
    assert set(spark.sparkContext._jsc.getPersistentRDDs()) == before
    with held_out.kept(frame.repartition(5), COLUMNS, 3) as kept:
        assert isinstance(kept, DataFrame)
        assert kept.collect() == first
    for empty in (frame.limit(0), {"x": np.empty(0)}):
        with pytest.raises(ConfigError, match="the validation data have no rows"), held_out.kept(empty, COLUMNS, 2):
            pass


def test_the_shuffle_files_go_with_the_run(frame: DataFrame, spark: SparkSession) -> None:
    local = Path(spark.conf.get("spark.local.dir") or "")

    def files() -> set[Path]:
        return {path for path in local.rglob("*") if path.is_file()}

    before = files()
    with held_out.kept(frame, COLUMNS, 3) as kept:
        assert isinstance(kept, DataFrame)
        assert len(kept.collect()) == 2000
        during = files()
    assert [path for path in during - before if path.name.startswith("shuffle_")]
    assert files() - before == set()
