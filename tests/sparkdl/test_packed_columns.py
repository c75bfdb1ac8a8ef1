"""Columns with a transform on their way to a prediction: the stored rows' bytes, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pyspark.ml.linalg import DenseVector, SparseVector
from pyspark.sql import Row
from pyspark.sql.types import ArrayType, BinaryType, DoubleType, FloatType

from sparkdl.packed_columns import _element, _Packer, unpacked
from sparkdl.sparse_rows import SparseRows
from sparkdl.stored_arrays import Kind


def rows(packer: _Packer, values: list[Any]) -> np.ndarray:
    return np.array([packer(value) for value in values], dtype=object)


def test_what_a_transform_makes_comes_back() -> None:
    kind = Kind("|u1", (2, 1))
    packer = _Packer("x", lambda value: np.frombuffer(value, np.uint8).reshape(2, 1), kind, None)
    found = unpacked(rows(packer, [bytearray(b"\x01\x02"), bytearray(b"\x03\x04")]), kind)
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.tolist(), found.flags.writeable) == (np.uint8, [[[1], [2]], [[3], [4]]], True)


def test_values_are_what_they_are_in_training() -> None:
    seen: list[Any] = []

    def keep(value: Any) -> int:
        seen.append(value)
        return 1

    kind = Kind("<i8", ())
    for spark_type, value in (
        (BinaryType(), bytearray(b"a")),
        (ArrayType(FloatType()), [1.0, 2.0]),
        (DoubleType(), 3.0),
        (BinaryType(), None),
        (ArrayType(FloatType()), None),
    ):
        _Packer("x", keep, kind, _element(spark_type))(value)
    for value in (SparseVector(3, {1: 5.0}), Row(data=bytearray(b"b"), height=2)):
        _Packer("x", keep, kind, None)(value)
    assert seen[0] == b"a"
    assert isinstance(seen[0], bytes)
    assert (seen[1].dtype, seen[1].tolist(), seen[2:5]) == (np.float32, [1, 2], [3.0, None, None])
    assert seen[5].tolist() == [0, 5, 0]
    assert seen[6]["height"] == 2


def test_sparse_rows_come_back() -> None:
    kind = Kind("<f4", (4,), True)
    values = [SparseVector(4, {1: 5.0, 3: 1.0}), DenseVector([0, 0, 2, 0]), SparseVector(4, {}), [1.0, 0, 0, 0]]
    found = unpacked(rows(_Packer("v", "sparse", kind, None), values), kind)
    assert isinstance(found, SparseRows)
    assert found.dense().tolist() == [[0, 5, 0, 1], [0, 0, 2, 0], [0, 0, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("transform", "kind", "value", "message"),
    [
        (
            lambda v: [1.0] * v,
            Kind("<f4", (2,)),
            3,
            r"column 'x': a row has the shape \(3,\), the first row has \(2,\)",
        ),
        (lambda v: 1 / v, Kind("<f4", ()), 0, "transform of column 'x' failed in a row: ZeroDivisionError"),
        ("sparse", Kind("<f4", (2,), True), SparseVector(3, {}), r"has the shape \(3,\), the first row has \(2,\)"),
        ("sparse", Kind("<f4", (2,), True), [1.0], r"has the shape \(1,\), the first row has \(2,\)"),
        ("sparse", Kind("<f4", (2,), True), None, "column 'x' holds a null"),
    ],
)
def test_rows_that_do_not_fit(transform: Any, kind: Kind, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _Packer("x", transform, kind, None)(value)
