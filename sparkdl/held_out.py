"""Validation rows: given, or split off the training rows by a fraction or a boolean column.

A row's side depends on its content and the seed alone, so the split is the same on every cluster and after a resume.
Validation rows of a DataFrame are dealt out like training rows and kept on the executors for the run: every validation
adds up the same parts in the same order, so its values have the same bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import RDD, StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkdl.columns import Columns
from sparkdl.errors import ConfigError
from sparkdl.replica_data_job import deal, forget
from sparkdl.spark_internals import described
from sparkdl.training_data import Rows

_BUCKETS = 1 << 32


class Split(NamedTuple):
    """Training rows and validation rows."""

    train: Rows
    validation: Rows | None


def by_fraction(data: Rows, columns: Columns, fraction: float, seed: int) -> Split:
    """About ``fraction`` of the rows of a DataFrame, exactly that of arrays, for validation; at least one of each.

    Equal rows of a DataFrame are on the same side. Raises ConfigError: a fraction that is not between 0 and 1, or too
    few rows.
    """
    if not 0.0 < fraction < 1.0:
        raise ConfigError(f"validation={fraction} is a fraction of the rows: pass more than 0 and less than 1")
    if isinstance(data, DataFrame):
        bucket = F.pmod(F.xxhash64(F.lit(seed), *columns.names), F.lit(_BUCKETS))
        held = bucket < F.lit(int(fraction * _BUCKETS))
        return Split(data.filter(~held), data.filter(held))
    num_rows = len(next(iter(data.values())))
    count = min(max(round(fraction * num_rows), 1), num_rows - 1)
    if count < 1:
        raise ConfigError(
            f"validation={fraction} of {num_rows} rows: there must be one row to train on and one to hold out"
        )
    chosen = np.zeros(num_rows, bool)
    chosen[np.random.default_rng(seed).permutation(num_rows)[:count]] = True
    return Split(*({name: values[rows] for name, values in data.items()} for rows in _numbers(chosen)))


def by_column(data: Rows, flags: np.ndarray | None, column: str) -> Split:
    """The rows whose boolean ``column`` is true for validation. ``flags``: the column, where the data are arrays.

    Raises ConfigError: it is no boolean column, holds nulls, or one side has no rows.
    """
    if isinstance(data, DataFrame):
        kind = data.schema[column].dataType.typeName()
        if kind != "boolean":
            raise ConfigError(
                f"validation={column!r} is a column of type {kind}; name a boolean one: true rows validate"
            )
        flag = F.col(column)
        with described(data.sparkSession.sparkContext, f"sparkdl: rows with and without {column}"):
            found = data.agg(F.count("*"), F.count(flag), F.count_if(flag)).head()
        assert found is not None
        num_rows, known, num_true = found
        if known < num_rows:
            raise ConfigError(f"validation column {column!r} is null in {num_rows - known} of {num_rows} rows; fill it")
        _both_sides(column, num_true, num_rows)
        return Split(data.filter(~flag), data.filter(flag))
    assert flags is not None
    if flags.dtype != np.bool_ or flags.ndim != 1:
        raise ConfigError(f"validation={column!r} holds {flags.dtype} of shape {flags.shape}; name a boolean column")
    _both_sides(column, int(flags.sum()), len(flags))
    return Split(*({name: values[rows] for name, values in data.items()} for rows in _numbers(flags)))


def _numbers(held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the rows to train on, and of those that are held out."""
    return np.flatnonzero(~held), np.flatnonzero(held)


def _both_sides(column: str, num_true: int, num_rows: int) -> None:
    if num_true in (0, num_rows):
        side = "true" if num_true == 0 else "false"
        raise ConfigError(
            f"validation column {column!r} has 0 {side} rows of {num_rows:,}; true rows validate, false rows train"
        )


@contextlib.contextmanager
def kept(data: Rows, columns: Columns, num_replicas: int) -> Iterator[Rows]:
    """Validation rows for the length of a run; then neither blocks nor the files of a shuffle are left.

    Raises ConfigError: there are none.
    """
    if not isinstance(data, DataFrame):
        if not len(next(iter(data.values()))):
            raise ConfigError("the validation data have no rows")
        yield data
        return
    dealt = deal(data, columns.names, num_replicas).persist(StorageLevel.DISK_ONLY)
    counts: list[RDD[Any]] = []
    try:
        with described(data.sparkSession.sparkContext, "sparkdl: validation rows to the executors"):
            counts.append(dealt.mapInArrow(_counted, "rows bigint").rdd)  # count() would leave a shuffle of its own
            num_rows = sum(row.rows for row in counts[0].collect())
        if not num_rows:
            raise ConfigError("the validation data have no rows")
        yield dealt
    finally:
        dealt.unpersist()
        forget(counts)  # the shuffle behind them; only now, for what is persisted is not looked behind


def _counted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield pa.record_batch({"rows": [sum(batch.num_rows for batch in batches)]})
