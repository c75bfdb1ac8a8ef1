"""Columns that Spark cannot hand to a prediction as numbers: one UDF makes a stored row's bytes of each value.

Bytes travel whole where arrays would become lists, of any type (images stay uint8) and any length (sparse vectors).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pyspark.ml.linalg import SparseVector, Vector
from pyspark.sql import Column, Row
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    ByteType,
    DataType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    ShortType,
)

from sparkdl.errors import ConfigError
from sparkdl.sparse_rows import ENTRY, SparseRows
from sparkdl.stored_arrays import Array, Kind, Stored, Transform, transformed_value

__all__ = ["packed", "unpacked"]

_DTYPES: dict[type[DataType], str] = {
    BooleanType: "?",
    ByteType: "i1",
    ShortType: "i2",
    IntegerType: "i4",
    LongType: "i8",
    FloatType: "f4",
    DoubleType: "f8",
}


def packed(column: Column, spark_type: DataType, name: str, transform: Transform, kind: Kind) -> Column:
    """A column of bytes: each value's stored row.   kind: what the rows look like.

    The query fails with a sentence at a value that the transform fails for, or that becomes another kind of row.
    """
    packer = _Packer(name, transform, kind, _element(spark_type))
    udf: Callable[..., Column] = F.udf(packer, BinaryType(), useArrow=False)  # Arrow knows no vectors here
    return udf(column)


def unpacked(values: Array, kind: Kind) -> Stored:
    """The stored rows of an array of such bytes, an object a row."""
    whole = b"".join(values)
    if kind.sparse:
        counts = np.array([len(value) // ENTRY.itemsize for value in values])
        entries = np.frombuffer(whole, ENTRY)
        return SparseRows(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), entries, kind.shape[0])
    return np.frombuffer(whole, kind.dtype).reshape(len(values), *kind.shape).copy()


def _element(kind: DataType) -> str | None:
    return _DTYPES.get(type(kind.elementType)) if isinstance(kind, ArrayType) else None


class _Packer:
    def __init__(self, name: str, transform: Transform, kind: Kind, element: str | None):
        self.name, self.transform, self.kind, self.element = name, transform, kind, element

    def __call__(self, value: Any) -> bytes:
        if not callable(self.transform):
            return self._entries(value)
        made = transformed_value(self.name, self.transform, self._plain(value), "a row", self.kind)
        if made.shape != self.kind.shape:
            raise self._unlike(made.shape)
        return made.tobytes()

    def _plain(self, value: Any) -> Any:
        """The value as transforms see it everywhere."""
        if isinstance(value, bytearray):
            return bytes(value)
        if isinstance(value, Row):
            return value.asDict(recursive=True)
        if isinstance(value, Vector):
            return value.toArray()
        return np.array(value, self.element) if self.element and value is not None else value

    def _entries(self, value: Any) -> bytes:
        """The entries of a sparse row."""
        if value is None:
            raise ConfigError(f"column {self.name!r} holds a null; fill or drop such rows before predict.")
        if isinstance(value, SparseVector):
            if value.size != self.kind.shape[0]:
                raise self._unlike((value.size,))
            entries = np.empty(len(value.indices), ENTRY)
            entries["index"], entries["value"] = value.indices, value.values
            return entries.tobytes()
        row = np.array(value.toArray() if isinstance(value, Vector) else value, np.float32)
        if row.shape != self.kind.shape:
            raise self._unlike(row.shape)
        return SparseRows.of_dense(row[np.newaxis]).entries.tobytes()

    def _unlike(self, shape: tuple[int, ...]) -> ConfigError:
        return ConfigError(
            f"column {self.name!r}: a row has the shape {shape}, the first row has {self.kind.shape}; pad or cut "
            "them to one shape before predict."
        )
