"""Vectors in a DataFrame: which columns they need, one pass that finds what is wrong with them, and blocks of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import pyarrow as pa
from pyspark import SparkContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from node2vec import vector_blocks
from node2vec.nearest import units
from node2vec.vector_blocks import Block
from sparkdl import spark_internals
from sparkdl.errors import ConfigError

INTEGERS = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)


class Shape(NamedTuple):
    """How many vectors there are, and how many numbers each has."""

    num_vectors: int
    dimensions: int


def columns_of(frame: DataFrame) -> DataFrame:
    """The columns id and vector (array<float>) of a frame, which may have others. Nothing runs.

    Raises ConfigError: there are no such columns; ids are neither integers nor strings; vectors no arrays of numbers.
    """
    for name in ("id", "vector"):
        if name not in frame.columns:
            raise ConfigError(
                f"the vectors have no column {name!r}, only {', '.join(frame.columns)}. Rename one: "
                f'vectors.withColumnRenamed("...", "{name}").'
            )
    id_type, kind = frame.schema["id"].dataType, frame.schema["vector"].dataType
    if not isinstance(id_type, (*INTEGERS, T.StringType)):
        raise ConfigError(f"the column id is {id_type.simpleString()}; ids are integers or strings: cast it.")
    if not isinstance(kind, T.ArrayType) or not isinstance(kind.elementType, (T.FloatType, T.DoubleType)):
        raise ConfigError(
            f"the column vector is {kind.simpleString()}, not array<float>; pyspark.ml.functions.vector_to_array "
            'turns vectors of Spark ML into arrays, cast("array<float>") other numbers.'
        )
    vector = F.col("vector")
    return frame.select("id", vector if isinstance(kind.elementType, T.FloatType) else vector.cast("array<float>"))


def survey(vectors: DataFrame) -> Shape:
    """Read all vectors once, and their ids a second time, on the executors. vectors: as `columns_of` gives them.

    Raises ConfigError: there are none; an id or a vector is missing, or an id is there twice; vectors are of different
    lengths or hold what is no number; it names one id for which this is so.
    """
    with described(vectors.sparkSession.sparkContext, "checking vectors"):
        rows = vectors.mapInArrow(_look, _LOOKED).collect()
    if not rows:
        raise ConfigError("there are no vectors: the DataFrame has no rows.")
    rows = sorted(rows, key=lambda row: str(row["first"]))
    faults = sorted(row["fault"] for row in rows if row["fault"] is not None)
    if faults:
        raise ConfigError(f"{faults[0]}. Leave such rows out, or mend them.")
    one = rows[0]
    for row in rows:
        if row["dimensions"] != one["dimensions"]:
            words = vector_blocks.different(one["first"], one["dimensions"], row["first"], row["dimensions"])
            raise ConfigError(f"{words}. All vectors of a model have the same.")
    with described(vectors.sparkSession.sparkContext, "looking for ids that are there twice"):
        twice = vectors.groupBy("id").count().where("count > 1").orderBy("id").head()
    if twice is not None:
        raise ConfigError(
            f"id {twice['id']!r} is there {twice['count']} times: a node has one vector. Drop the others, for example "
            'with dropDuplicates(["id"]).'
        )
    return Shape(sum(row["num_vectors"] for row in rows), one["dimensions"])


_LOOKED = "num_vectors long, dimensions int, first string, fault string"


def _look(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """One row about a partition that has rows."""
    total: vector_blocks.Lengths | None = None
    for batch in batches:
        if batch.num_rows:
            seen = vector_blocks.lengths(batch)
            if total is None:
                total = seen
            else:
                fault = total.fault or seen.fault
                if fault is None and seen.dimensions != total.dimensions:
                    fault = vector_blocks.different(total.first, total.dimensions, seen.first, seen.dimensions)
                total = total._replace(num_vectors=total.num_vectors + seen.num_vectors, fault=fault)
    if total is not None:
        columns = [pa.array([value], kind) for value, kind in zip(total, _ARROW, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, names=list(total._fields))


_ARROW = (pa.int64(), pa.int32(), pa.string(), pa.string())


def blocks(vectors: DataFrame, rows: int, as_units: bool = False) -> DataFrame:
    """Vectors as blocks: one column ``block`` (binary, see ``vector_blocks``), each of `rows` vectors of a partition.

    The last block of a partition may be smaller. as_units: with vectors scaled to length 1. Nothing runs.
    """
    return vectors.mapInArrow(_Cut(rows, as_units), "block binary")


class _Cut:
    """What a task runs. Importable, so that workers keep their modules."""

    def __init__(self, rows: int, as_units: bool):
        self.rows, self.as_units = rows, as_units

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for block in vector_blocks.blocks_of(batches, self.rows):
            ready = Block(block.ids, units(block.matrix)) if self.as_units else block
            yield pa.RecordBatch.from_arrays([pa.array([vector_blocks.to_bytes(ready)], pa.binary())], names=["block"])


def local_blocks(vectors: DataFrame, dimensions: int, text: str) -> Iterator[Block]:
    """All vectors, block by block, on the driver, which holds those of one partition at a time; text: what for."""
    with described(vectors.sparkSession.sparkContext, text):
        for row in blocks(vectors, vector_blocks.rows_of(dimensions)).toLocalIterator():
            yield vector_blocks.from_bytes(bytes(row["block"]))


def described(sc: SparkContext, text: str) -> AbstractContextManager[None]:
    """Jobs inside are shown as ``node2vec model: <text>``; the former description comes back."""
    return spark_internals.described(sc, f"node2vec model: {text}")
