"""The model's output for Arrow arrays of input columns, as Spark's Arrow UDFs (from 4.1 on) give and take them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.ml.model_cache import ModelCache

Shape = tuple[int, ...]
Predict = Callable[..., np.ndarray]


class ArrowPredict:
    """Two iterator UDFs: from the arrays of each batch of Spark's to an array of as many outputs.

    make: builds what takes one numpy array [rows, …] a column and returns [rows] or [rows, values]; a Python worker
        keeps the last three of these, as it does for predict_batch_udf.
    shapes: of one row of each column; () is a number or bytes. returned: the type of the outputs.
    """

    def __init__(self, make: Callable[[], Predict], shapes: Sequence[Shape], batch_size: int, returned: pa.DataType):
        self.make, self.shapes, self.batch_size, self.returned = make, list(shapes), batch_size, returned
        self.key = uuid.uuid4()

    def one(self, batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        """Batches of a single column. (Spark tells the two apart by their types.)"""
        return self.several((batch,) for batch in batches)

    def several(self, batches: Iterator[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
        """Batches of several columns."""
        predict: Any = ModelCache.get(self.key)
        if predict is None:
            predict = self.make()
            ModelCache.add(self.key, predict)
        for columns in batches:
            arrays = [rows_of(column, shape) for column, shape in zip(columns, self.shapes, strict=True)]
            starts = range(0, len(columns[0]), self.batch_size)
            found = [predict(*(array[start : start + self.batch_size] for array in arrays)) for start in starts]
            yield self._column(found)

    def _column(self, outputs: list[np.ndarray]) -> pa.Array:
        if not outputs:
            return pa.array([], self.returned)
        values = np.concatenate(outputs)
        if values.ndim == 1:
            return pa.array(values, self.returned)
        borders = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
        flat = pa.array(values.reshape(-1), self.returned.value_type)
        return pa.ListArray.from_arrays(borders, flat, type=self.returned)


def rows_of(column: pa.Array, shape: Shape) -> np.ndarray:
    """A column as [rows, *shape], without nulls among its rows; bytes as objects. A null inside an array of floats is
    NaN; among whole numbers it makes the result float64.
    """
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        values: np.ndarray = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), *shape)
    else:
        values = column.to_numpy(zero_copy_only=False)
    return values if values.flags.writeable or values.dtype == object else values.copy()  # torch wants its own
