"""Arrow columns to stored columns: what comes back, and what is refused in which words."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkdl import arrow_columns
from sparkdl.arrow_columns import ColumnReader, from_arrow
from sparkdl.sparse_rows import SparseRows
from sparkdl.stored_arrays import Kind

ML_VECTOR = pa.struct(
    [("type", pa.int8()), ("size", pa.int32()), ("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float64()))]
)


def dense(*values: float) -> dict[str, Any]:
    return {"type": 1, "size": None, "indices": None, "values": list(values)}


def sparse(size: int, entries: dict[int, float]) -> dict[str, Any]:
    return {"type": 0, "size": size, "indices": list(entries), "values": list(entries.values())}


numbers = st.integers(-1000, 1000)


@settings(deadline=None, max_examples=60, print_blob=True)
@given(st.data())
def test_any_rectangular_nesting_in_any_chunks_comes_back(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    array = np.arange(np.prod(shape)).reshape(shape)
    kind: pa.DataType = data.draw(st.sampled_from([pa.int32(), pa.int64(), pa.float64(), pa.float32()]))
    for width in reversed(shape[1:]):
        make = data.draw(st.sampled_from([pa.list_, pa.large_list, lambda inner, width=width: pa.list_(inner, width)]))
        kind = make(kind)
    start = data.draw(st.integers(0, shape[0] - 1))
    cut = data.draw(st.integers(start, shape[0]))
    whole = pa.array(array.tolist(), kind)
    column = pa.chunked_array([whole.slice(start, cut - start), whole.slice(cut)], kind)
    values = from_arrow(column, "x")
    assert values.shape == array[start:].shape
    assert np.array_equal(values, array[start:])
    assert values.dtype in (np.dtype(np.int64), np.dtype(np.float32))
    assert np.array_equal(from_arrow(whole, "x"), array)


def test_truth_values_and_bytes() -> None:
    assert from_arrow(pa.array([True, False]), "x").tolist() == [1.0, 0.0]
    assert from_arrow(pa.array([True, False]), "x").dtype == np.float32
    assert from_arrow(pa.array([1, 2], pa.uint8()), "x").dtype == np.int64
    assert from_arrow(pa.array([[1, 2]], pa.list_(pa.uint8())), "x").dtype == np.uint8
    assert from_arrow(pa.array([0.5], pa.float32()).cast(pa.float16()), "x").dtype == np.float32


def test_dense_vectors() -> None:
    values = from_arrow(pa.array([dense(1, 2), dense(3, 4), dense(5, 6)], ML_VECTOR).slice(1), "features")
    assert values.tolist() == [[3.0, 4.0], [5.0, 6.0]]
    assert values.dtype == np.float32


@settings(deadline=None, max_examples=60, print_blob=True)
@given(st.data())
def test_dense_and_sparse_vectors_come_back(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 5))
    vectors, expected = [], []
    for _ in range(data.draw(st.integers(1, 6))):
        if data.draw(st.booleans()):
            row = data.draw(st.lists(numbers, min_size=width, max_size=width))
            vectors.append(dense(*row))
        else:
            entries = data.draw(st.dictionaries(st.integers(0, width - 1), numbers))
            vectors.append(sparse(width, dict(sorted(entries.items()))))
            row = [entries.get(place, 0) for place in range(width)]
        expected.append(row)
    start = data.draw(st.integers(0, len(vectors) - 1))
    values = from_arrow(pa.array(vectors, ML_VECTOR).slice(start), "features")
    assert values.dtype == np.float32
    assert values.tolist() == expected[start:]


def test_no_rows() -> None:
    assert from_arrow(pa.array([], pa.float64()), "x").shape == (0,)
    assert from_arrow(pa.array([], pa.list_(pa.float64())), "x", kind=Kind("<f4", (3,))).shape == (0, 3)
    assert from_arrow(pa.chunked_array([], pa.list_(pa.list_(pa.int8()))), "x").shape == (0, 0, 0)
    assert from_arrow(pa.array([], ML_VECTOR), "x", kind=Kind("<f4", (4,))).shape == (0, 4)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([[1.0] * 4, [1.0] * 3]), r"column 'x': row 101 has 3 values, row 100 has 4 values; .* Pad them"),
        (
            pa.chunked_array([[[1.0] * 4], [[1.0] * 4, [1.0] * 4], [[2.0] * 3]]),
            "row 103 has 3 values, row 100 has 4 values",
        ),
        (pa.array([[[1], [2]], [[3], [4, 5]]]), "row 101 has 2 values, row 100 has 1 values"),
        (pa.array([dense(1, 2), sparse(3, {0: 1.0})], ML_VECTOR), "row 101 has 3 values, row 100 has 2 values"),
    ],
)
def test_ragged_arrays_are_refused(column: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_arrow(column, "x", first_row=100)


def test_arrays_unlike_those_of_an_earlier_part_are_refused() -> None:
    column = pa.array([[1.0, 2.0]])
    assert from_arrow(column, "x", first_row=7, kind=Kind("<f4", (2,))).shape == (1, 2)
    with pytest.raises(ValueError, match="column 'x': row 7 has 2 values, row 0 has 3 values"):
        from_arrow(column, "x", first_row=7, kind=Kind("<f4", (3,)))


@pytest.mark.parametrize(
    ("column", "row"),
    [
        (pa.array([1.0, None, 2.0]), 101),
        (pa.array([[1.0], None]), 101),
        (pa.array([[1.0, 2.0], [1.0, 2.0], [None, 1.0]]), 102),
        (pa.array([[[1, 2]], [[3, None]]]), 101),
        (pa.array([[1.0, 2.0], [3.0, None]], pa.list_(pa.float64(), 2)), 101),
        (pa.array([dense(1, 2), None], ML_VECTOR), 101),
        (pa.chunked_array([[1, 2], [3, None]]), 103),
    ],
)
def test_nulls_are_refused(column: Any, row: int) -> None:
    with pytest.raises(ValueError, match=f"column 'x': row {row} is null or holds one; .* Fill the nulls"):
        from_arrow(column, "x", first_row=100)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array(["a"]), "strings .*StringIndexer"),
        (pa.array([["a", "b"]]), "strings .*StringIndexer"),
        (pa.array(["a"], pa.large_string()), "strings .*StringIndexer"),
        (pa.array(["a"]).dictionary_encode(), "strings .*StringIndexer"),
        (pa.array([b"a"]), "binary: bytes say nothing of their shape. Pass transform="),
        (pa.array([{"a": 1}]), "struct<a: int64>: .* Select its fields"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "map<.*>: .* Select its fields"),
        (pa.array([None]), "nothing but nulls"),
        (pa.array([decimal.Decimal("1.5")]), "decimal128.*Cast the column to double"),
        (pa.array([datetime.date(2020, 1, 1)]), "date32.*: .* Turn the column into numbers"),
        (pa.array([], pa.string()), "strings .*StringIndexer"),
    ],
)
def test_columns_without_numbers_are_refused(column: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"column 'x' holds {message}"):
        from_arrow(column, "x")


# --- transforms, sparse vectors, batches ---


def test_a_transform_sees_values_as_python_has_them() -> None:
    seen: list[Any] = []

    def keep(value: Any) -> int:
        seen.append(value)
        return len(seen)

    columns = [
        pa.array([b"\x01", None]),
        pa.array([[1.0, 2.0], None], pa.list_(pa.float32())),
        pa.array([dense(1, 2), sparse(3, {1: 5.0})], ML_VECTOR),
        pa.array([datetime.date(2020, 1, 2)]),
        pa.array([{"data": b"x", "height": 2}]),
    ]
    for column in columns:
        from_arrow(column, "x", transform=keep)
    assert seen[:2] == [b"\x01", None]
    assert (seen[2].dtype, seen[2].tolist(), seen[3]) == (np.float32, [1, 2], None)
    assert [vector.tolist() for vector in seen[4:6]] == [[1, 2], [0, 5, 0]]
    assert seen[6:] == [datetime.date(2020, 1, 2), {"data": b"x", "height": 2}]


@given(st.data())
def test_sparse_vectors_stay_sparse(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 5))
    rows = data.draw(st.lists(st.lists(st.integers(0, 2), min_size=width, max_size=width), min_size=1, max_size=6))
    column = pa.array(
        [
            dense(*row) if data.draw(st.booleans()) else sparse(width, {i: float(v) for i, v in enumerate(row) if v})
            for row in rows
        ],
        ML_VECTOR,
    )
    kept = from_arrow(column, "v", transform="sparse")
    assert isinstance(kept, SparseRows)
    assert kept.dense().tolist() == rows
    arrays = from_arrow(pa.array(rows), "v", transform="sparse")
    assert isinstance(arrays, SparseRows)
    assert arrays.dense().tolist() == rows


def test_wide_sparse_vectors_are_not_written_out() -> None:
    column = pa.array([sparse(1 << 20, {7: 1.0})], ML_VECTOR)
    with pytest.raises(
        ValueError, match=r"column 'v' holds sparse vectors of 1,048,576 places: .* transform=\{'v': 'sparse'\}"
    ):
        from_arrow(column, "v")
    assert from_arrow(column, "v", transform="sparse").shape == (1, 1 << 20)
    with pytest.raises(ValueError, match="row 3 is null"):
        from_arrow(pa.array([None], ML_VECTOR), "v", first_row=3, transform="sparse")
    with pytest.raises(ValueError, match="'sparse' takes vectors, or arrays of numbers"):
        from_arrow(pa.array([1.0]), "v", transform="sparse")


def test_batches_are_read_in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_columns, "PART_BYTES", 100)
    batches = [pa.record_batch({"blob": [b"ab"] * size, "n": list(range(size))}) for size in (7, 0, 5)]
    reader = ColumnReader({"blob": lambda value: np.frombuffer(value * 10, np.uint8)})
    parts = list(reader.parts(batches))
    # the first row alone, then 28 bytes a row
    assert [len(part["n"]) for part in parts] == [1, 3, 3, 3, 2]
    assert reader.num_rows == 12
    assert np.concatenate([part["n"] for part in parts]).tolist() == [*range(7), *range(5)]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="column 'blob': row 1 has 3 values, row 0 has 2 values"):
        list(ColumnReader({"blob": list}).parts([pa.record_batch({"blob": [b"ab", b"abc"]})]))
    known = ColumnReader({}, {"n": Kind("<i8", (2,))})
    with pytest.raises(ValueError, match="column 'n': row 0 has a single number, row 0 has 2 values"):
        list(known.parts([batches[0].select(["n"])]))
