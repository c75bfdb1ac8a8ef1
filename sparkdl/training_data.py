"""What `fit` and `evaluate` take as data: DataFrames, Parquet paths, RDDs of dicts, dicts of arrays.

All of it becomes either a DataFrame with the used columns or stored columns on the driver.
"""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from pyspark import RDD
from pyspark.errors import PySparkException
from pyspark.ml.linalg import Vector, VectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from sparkdl import replica_data_job, spark_conf
from sparkdl.columns import Columns
from sparkdl.errors import ConfigError
from sparkdl.spark_failures import as_config_error
from sparkdl.stored_arrays import Stored, from_arrays

__all__ = ["Data", "Rows", "frame_of_dicts", "read", "require_columns", "sample"]

Data: TypeAlias = "DataFrame | RDD[Any] | str | os.PathLike[str] | Sequence[Any] | Mapping[str, Any]"

Rows: TypeAlias = "DataFrame | dict[str, Stored]"

_OTHERS = (T.StringType, T.BinaryType, VectorUDT)  # than numbers and arrays of them
FIRST_ROWS = 8  # from which the types of columns are told


def read(spark: SparkSession, data: Data, columns: Columns) -> Rows:
    """The data as a DataFrame that has the columns in use, or, given as arrays, as stored columns.

    Raises ConfigError: it cannot be read, or has not all of the columns.
    """
    if type(data).__name__ == "DataFrame" and type(data).__module__.startswith("pandas."):
        frame: Any = data
        data = {str(name): v.tolist() if v.dtype == object else v.to_numpy() for name, v in frame.items()}
    if isinstance(data, Mapping):
        require_columns(list(data), columns.names)
        try:
            return from_arrays(data, columns.names, dict(columns.transforms))
        except TypeError as error:
            raise ConfigError(str(error)) from error
    paths = [data] if isinstance(data, str | os.PathLike) else data
    if isinstance(paths, Sequence) and paths and all(isinstance(p, str | os.PathLike) for p in paths):
        data = _parquet(spark, [os.fspath(p) for p in paths])
    if isinstance(data, RDD):
        return frame_of_dicts(spark, data, columns.names)
    if type(data).__name__ == "DataFrame" and type(data).__module__.startswith("pyspark.sql.connect"):
        spark_conf.refuse_connect(getattr(data, "sparkSession", None))
    if not isinstance(data, DataFrame):
        raise ConfigError(
            f"training data of type {type(data).__name__} cannot be read; pass a Spark DataFrame, Parquet paths, an "
            "RDD of dicts, or a dict of arrays"
        )
    require_columns(data.columns, columns.names)
    return data


def sample(data: Rows, columns: Columns) -> dict[str, Stored]:
    """The first rows as stored columns. Raises ConfigError: there are none, or they cannot be used."""
    if not isinstance(data, DataFrame):
        return {name: array[:FIRST_ROWS] for name, array in data.items()}
    try:
        return replica_data_job.sample(data, columns, FIRST_ROWS)
    except TypeError as error:
        raise ConfigError(str(error)) from error


def require_columns(there: Sequence[str], wanted: Iterable[str]) -> None:
    """Raises ConfigError: a wanted column is not there; it suggests one that is spelled alike."""
    for name in wanted:
        if name not in there:
            close = difflib.get_close_matches(name, there, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(
                f"the data have no column {name!r}; {hint}they have {', '.join(map(repr, there))} "
                "(feature_cols, label_col and weight_col say which are used)"
            )


def _parquet(spark: SparkSession, paths: list[str]) -> DataFrame:
    try:
        return spark.read.parquet(*paths)
    except PySparkException as error:
        found = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{', '.join(map(repr, paths))} cannot be read as Parquet: {found}") from error


def frame_of_dicts(spark: SparkSession, rows: RDD[Any], names: Sequence[str]) -> DataFrame:
    """An RDD of dicts (or Rows) as a DataFrame with these columns. Their types are told from the first rows.

    Values are numbers, lists or numpy arrays of them (any depth, rectangular), torch tensors, ML vectors, and, for
    columns with a transform, strings and bytes.

    Raises ConfigError: no rows, a first row that is no dict or lacks a column, or values of no such type. A later row
    unlike the first ones raises the same in the task that meets it.
    """
    with as_config_error():
        first = rows.take(FIRST_ROWS)
    if not first:
        raise ConfigError("the training data have no rows")
    for row in map(_as_mapping, first):
        if row is None:
            raise ConfigError(
                f"the rows of the RDD are of type {type(first[0]).__name__}; they must be dicts, column name -> value. "
                "Map them first, for example rdd.map(lambda r: {'x': r[0], 'y': r[1]})."
            )
        require_columns(list(row), names)
    types = {name: _common_type(name, [_as_mapping(row)[name] for row in first]) for name in names}  # type: ignore[index]
    schema = T.StructType([T.StructField(name, kind) for name, kind in types.items()])
    converted = rows.mapPartitionsWithIndex(_Converter(types))
    return spark.createDataFrame(converted, schema, verifySchema=False)


def _as_mapping(row: Any) -> Mapping[str, Any] | None:
    if isinstance(row, T.Row):
        return row.asDict()
    return row if isinstance(row, Mapping) else None


def _common_type(name: str, values: Sequence[Any]) -> T.DataType:
    found = {kind.json(): kind for value in values if value is not None for kind in [_type_of(name, value)]}
    if not found:
        raise ConfigError(f"column {name!r} is None in the first {len(values)} rows: a model needs numbers.")
    kinds = list(found.values())
    fractions = [kind for kind in kinds if "float" in kind.json()]
    if len(kinds) == 2 and len(fractions) == 1 and _depth(kinds[0]) == _depth(kinds[1]):
        return fractions[0]  # whole numbers among others
    if len(kinds) > 1:
        raise ConfigError(
            f"column {name!r} holds {' and '.join(k.simpleString() for k in kinds)} in the first {len(values)} rows; "
            "give all rows one type."
        )
    return kinds[0]


def _type_of(name: str, value: Any) -> T.DataType:
    if isinstance(value, str):
        return T.StringType()
    if isinstance(value, bytes | bytearray):
        return T.BinaryType()
    if isinstance(value, Vector):
        return VectorUDT()
    array = _as_array(value)
    if array is None or array.dtype.kind not in "biuf":
        raise ConfigError(
            f"column {name!r} holds a {type(value).__name__}; in an RDD of dicts a value is a number, a list or a "
            "numpy array of numbers, an ML vector, or, with a transform, a string or bytes."
        )
    kind: T.DataType = T.FloatType() if array.dtype.kind in "bf" else T.LongType()
    for _ in range(array.ndim):
        kind = T.ArrayType(kind)
    return kind


def _as_array(value: Any) -> np.ndarray | None:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    try:
        return np.asarray(value)
    except ValueError:  # lists of different lengths
        return None


def _depth(kind: T.DataType) -> int:
    return 1 + _depth(kind.elementType) if isinstance(kind, T.ArrayType) else 0


class _Converter:
    """Dicts to tuples in the order and types of the schema."""

    def __init__(self, types: Mapping[str, T.DataType]):
        self.types = types

    def __call__(self, partition: int, rows: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
        for number, row in zip(itertools.count(), rows):
            where = f"row {number} of partition {partition} of the RDD"
            values = _as_mapping(row)
            if values is None:
                raise ConfigError(f"{where} is a {type(row).__name__}; all rows must be dicts, as the first ones are.")
            missing = [name for name in self.types if name not in values]
            if missing:
                raise ConfigError(f"{where} has no {missing[0]!r}; it has {', '.join(map(repr, values))}.")
            yield tuple(self._value(where, name, kind, values[name]) for name, kind in self.types.items())

    @staticmethod
    def _value(where: str, name: str, kind: T.DataType, value: Any) -> Any:
        if value is None:
            return None
        try:
            found = _type_of(name, value)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        if isinstance(found, _OTHERS) and found == kind:
            return bytearray(value) if isinstance(value, bytes) else value
        numbers = not isinstance(kind, _OTHERS) and not isinstance(found, _OTHERS) and _depth(found) == _depth(kind)
        if not numbers or ("float" in found.json() and "float" not in kind.json()):
            raise ConfigError(
                f"{where} holds {found.simpleString()} in column {name!r}, the first rows hold {kind.simpleString()}; "
                "give all rows one type."
            )
        array = _as_array(value)
        assert array is not None
        return (array.astype(np.float64) if "float" in kind.json() else array.astype(np.int64)).tolist()
