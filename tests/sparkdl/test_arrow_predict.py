"""Arrow arrays become the model's arrays and come back, in batches of any cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkdl.arrow_predict import ArrowPredict, rows_of

FLOATS = pa.list_(pa.field("element", pa.float32()))


class Made:
    """Counts how often the model is built, and how many rows it sees."""

    def __init__(self, answer: Callable[..., np.ndarray]) -> None:
        self.answer, self.builds, self.rows = answer, 0, list[int]()

    def __call__(self) -> Callable[..., np.ndarray]:
        self.builds += 1

        def predict(*arrays: np.ndarray) -> np.ndarray:
            self.rows.append(len(arrays[0]))
            return self.answer(*arrays)

        return predict


def lists(values: np.ndarray) -> pa.Array:
    borders = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(borders), pa.array(values.reshape(-1)), type=FLOATS)


@given(st.lists(st.integers(0, 7), max_size=5), st.integers(1, 4))
def test_every_row_has_its_output_in_its_place(lengths: list[int], batch_size: int) -> None:
    borders = np.cumsum([0, *lengths])
    x = np.arange(borders[-1] * 6, dtype=np.float32).reshape(-1, 2, 3)
    made = Made(lambda values, numbers: values.sum(axis=1) + numbers[:, None])
    function = ArrowPredict(made, [(2, 3), ()], batch_size, FLOATS)

    def batches() -> Iterator[tuple[pa.Array, ...]]:
        for start, end in itertools.pairwise(borders):
            yield lists(x[start:end].reshape(-1, 6)), pa.array(np.arange(start, end))

    found = list(function.several(batches()))
    assert [len(array) for array in found] == lengths
    assert all(array.type == FLOATS for array in found)
    rows = [row for array in found for row in array.to_pylist()]
    assert rows == (x.sum(axis=1) + np.arange(borders[-1])[:, None]).tolist()
    assert max(made.rows, default=0) <= batch_size
    list(function.several(batches()))
    assert made.builds == 1


def test_one_column_of_numbers() -> None:
    function = ArrowPredict(Made(lambda values: values * 2), [()], 2, pa.float32())
    (found,) = function.one(iter([pa.array([1.0, np.nan, 3.0], pa.float32())]))
    np.testing.assert_array_equal(found.to_numpy(), np.array([2, np.nan, 6], np.float32))
    assert found.null_count == 0  # NaN is a number


@pytest.mark.parametrize(
    ("column", "shape", "rows"),
    [
        (pa.array([[1.0, None]], FLOATS), (2,), np.array([[1, np.nan]], np.float32)),
        (pa.array([[1, None]], pa.list_(pa.int64())), (2,), np.array([[1, np.nan]])),
        (pa.array([[9.0], [1.0], [2.0]], FLOATS)[1:], (1,), np.array([[1], [2]], np.float32)),
        (pa.array([b"a", b"bc"]), (), np.array([b"a", b"bc"], object)),
    ],
)
def test_nulls_slices_and_bytes(column: pa.Array, shape: tuple[int, ...], rows: np.ndarray) -> None:
    found = rows_of(column, shape)
    assert found.dtype == rows.dtype
    np.testing.assert_array_equal(found, rows)
    assert found.flags.writeable
