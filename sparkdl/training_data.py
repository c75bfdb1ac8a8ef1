"""What users hand over as data, as one of two things: a DataFrame, or arrays on the driver."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from sparkdl import replica_data_job, spark_conf
from sparkdl.columns import Columns, from_arrays
from sparkdl.errors import ConfigError

Data = DataFrame | str | Sequence[str] | Mapping[str, Any]
Rows = DataFrame | dict[str, np.ndarray]

SAMPLE_ROWS = 8


def rows_of(spark: SparkSession, data: Data, columns: Columns) -> Rows:
    """The rows as a DataFrame, or as arrays of storage types, of the used columns alone.

    Raises ConfigError: data of a kind that cannot be read, paths that are not there, columns that are missing.
    """
    if isinstance(data, Mapping):
        require(list(data), columns.names)
        try:
            return from_arrays(data, columns.names)
        except TypeError as error:
            raise ConfigError(str(error)) from error
    if isinstance(data, str) or (isinstance(data, Sequence) and data and all(isinstance(p, str) for p in data)):
        data = _parquet(spark, [data] if isinstance(data, str) else list(data))
    if type(data).__name__ == "DataFrame" and type(data).__module__.startswith("pyspark.sql.connect"):
        spark_conf.refuse_connect(getattr(data, "sparkSession", None))
    if not isinstance(data, DataFrame):
        raise ConfigError(
            f"training data of type {type(data).__name__} cannot be read; pass a Spark DataFrame, Parquet paths or "
            "a dict of arrays (a pandas DataFrame: dict(frame.items()), an RDD: spark.createDataFrame(rdd))"
        )
    require(data.columns, columns.names)
    return data


def _parquet(spark: SparkSession, paths: list[str]) -> DataFrame:
    try:
        return spark.read.parquet(*paths)
    except PySparkException as error:
        found = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{', '.join(map(repr, paths))} cannot be read as Parquet: {found}") from error


def sample(data: Rows, columns: Columns) -> dict[str, np.ndarray]:
    """The first rows as arrays. Raises ConfigError: there are none, or they cannot be used."""
    if not isinstance(data, DataFrame):
        return {name: array[:SAMPLE_ROWS] for name, array in data.items()}
    try:
        return replica_data_job.sample(data, columns, SAMPLE_ROWS)
    except TypeError as error:
        raise ConfigError(str(error)) from error


def require(there: Sequence[str], wanted: Sequence[str]) -> None:
    """Raises ConfigError: a wanted column is not there; names the nearest that is."""
    for name in wanted:
        if name not in there:
            close = difflib.get_close_matches(name, there, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(
                f"the data have no column {name!r}; {hint}they have {', '.join(map(repr, there))} "
                "(feature_cols, label_col and weight_col say which are used)"
            )
