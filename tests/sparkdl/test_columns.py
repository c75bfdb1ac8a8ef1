"""Columns: the trainer's spelling, what each becomes as tensors, and what is refused in which words."""

from __future__ import annotations

import datetime
import decimal
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkdl.columns import Columns, from_arrays, from_arrow, storage_dtype

BATCH = {
    "a": np.array([1.0, 2.0], dtype=np.float32),
    "b": np.array([3, 4]),
    "x": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=np.float32),
    "image": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "bytes": np.array([[7, 8], [9, 10]], dtype=np.uint8),
    "w": np.array([1, 3]),
    "y": np.array([0, 1]),
}

ML_VECTOR = pa.struct(
    [("type", pa.int8()), ("size", pa.int32()), ("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float64()))]
)


def dense(*values: float) -> dict[str, Any]:
    return {"type": 1, "size": None, "indices": None, "values": list(values)}


def sparse(size: int, entries: dict[int, float]) -> dict[str, Any]:
    return {"type": 0, "size": size, "indices": list(entries), "values": list(entries.values())}


# --- the spelling ---


def test_a_name_is_one_input() -> None:
    for spelling in ("x", ["x"], ("x",)):
        columns = Columns.parse(spelling)
        positional, keyword = columns.inputs(BATCH)
        assert len(positional) == 1
        assert keyword == {}
        assert torch.equal(positional[0], torch.tensor(BATCH["x"]))


def test_a_list_is_positional_inputs() -> None:
    positional, _ = Columns.parse(["b", "x"]).inputs(BATCH)
    assert [tuple(tensor.shape) for tensor in positional] == [(2,), (2, 3)]
    assert [tensor.dtype for tensor in positional] == [torch.int64, torch.float32]


def test_a_nested_list_is_stacked() -> None:
    positional, _ = Columns.parse([["a", "b"], ["y"]]).inputs(BATCH)
    assert positional[0].tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert positional[0].dtype == torch.float32
    assert positional[1].tolist() == [[0], [1]]
    assert positional[1].dtype == torch.int64


def test_scalars_and_arrays_are_stacked_on_axis_1() -> None:
    positional, _ = Columns.parse([["b", "x", "bytes"], ["bytes"]]).inputs(BATCH)
    assert positional[0].tolist() == [[3, 1, 2, 3, 7, 8], [4, 4, 5, 6, 9, 10]]
    assert positional[0].dtype == torch.float32
    assert positional[1].dtype == torch.uint8
    mixed, _ = Columns.parse([["b", "bytes"]]).inputs(BATCH)
    assert mixed[0].dtype == torch.int64


def test_a_dict_is_keyword_inputs() -> None:
    positional, keyword = Columns.parse({"ids": "b", "dense": ["a", "x"]}).inputs(BATCH)
    assert positional == ()
    assert list(keyword) == ["ids", "dense"]
    assert keyword["ids"].tolist() == [3, 4]
    assert tuple(keyword["dense"].shape) == (2, 4)


def test_names_are_in_order_without_repeats() -> None:
    columns = Columns.parse({"u": ["a", "b"], "v": "a", "w": "x"}, ["y", "x"], "a")
    assert columns.names == ["a", "b", "x", "y"]
    assert columns.feature_names == ["a", "b", "x"]


def test_targets() -> None:
    assert Columns.parse("x").target(BATCH) is None
    for spelling in ("y", ["y"]):
        target = Columns.parse("x", spelling).target(BATCH)
        assert isinstance(target, torch.Tensor)
        assert target.tolist() == [0, 1]
    targets = Columns.parse("x", ["y", "a"]).target(BATCH)
    assert isinstance(targets, tuple)
    assert [tensor.tolist() for tensor in targets] == [[0, 1], [1.0, 2.0]]


def test_weights() -> None:
    assert Columns.parse("x").weight(BATCH) is None
    weight = Columns.parse("x", "y", "w").weight(BATCH)
    assert weight is not None
    assert weight.tolist() == [1.0, 3.0]
    assert weight.dtype == torch.float32
    with pytest.raises(
        ValueError, match=r"weight_col: column 'x' holds arrays of shape \(3,\), but a row has one weight"
    ):
        Columns.parse("x", "y", "x").weight(BATCH)


def test_tensors_never_write_through_to_stored_columns() -> None:
    stored = np.arange(6, dtype=np.float32).reshape(2, 3)
    stored.flags.writeable = False
    columns = Columns.parse("x", "x")
    (tensor,), _ = columns.inputs({"x": stored})
    tensor.zero_()
    assert stored[1, 2] == 5
    picked = {"x": stored[np.array([1])]}
    (tensor,), _ = columns.inputs(picked)
    target = columns.target(picked)
    tensor.zero_()
    assert isinstance(target, torch.Tensor)
    assert target.tolist() == [[3.0, 4.0, 5.0]]


def test_tensors_are_contiguous() -> None:
    (tensor,), _ = Columns.parse("x").inputs({"x": np.ones((4, 3), dtype=np.float32).T})
    assert tensor.is_contiguous()


@pytest.mark.parametrize("spelling", ["x", ["a", "b"], [["a", "b"], ["x"]], {"ids": ["a", "b"], "x": "x"}])
def test_columns_are_pickled_and_compared_by_value(spelling: Any) -> None:
    columns = Columns.parse(spelling, ["y"], "w")
    assert pickle.loads(pickle.dumps(columns)) == columns
    assert hash(columns) == hash(Columns.parse(spelling, ["y"], "w"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "feature_cols is empty: the model needs at least one input"),
        (({},), "feature_cols is empty: the model needs at least one input"),
        (("",), "feature_cols holds an empty name"),
        ((["a", []],), "feature_cols holds an empty list"),
        ((["a", 3],), "feature_cols holds 3 where a column's name or a list of names is expected"),
        (([["a", 3]],), "feature_cols holds 3 where a column's name is expected"),
        ((3,), "feature_cols is 3: pass a column's name"),
        ((["a", "a"],), "feature_cols names 'a' twice in one list"),
        (([["a", "b", "a"]],), "feature_cols names 'a' twice in one list"),
        (({"ids": ["a", "a"]},), r"feature_cols\['ids'\] names 'a' twice in one list"),
        (({3: "a"},), "feature_cols holds 3 where a column's name is expected"),
        (("x", []), "label_col holds an empty list"),
        (("x", ["y", "y"]), "label_col names 'y' twice in one list"),
        (("x", 3), "label_col holds 3 where a column's name or a list of names is expected"),
        (("x", "y", ["w"]), r"weight_col holds \['w'\] where a column's name is expected"),
    ],
)
def test_wrong_spellings_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Columns.parse(*arguments)


def test_arrays_that_do_not_fit_together_are_refused() -> None:
    batch = {"image": BATCH["image"], "x": BATCH["x"]}
    with pytest.raises(ValueError, match=r"these are 'image' \(3, 4\), 'x' \(3,\)\. Make them separate inputs"):
        Columns.parse([["image", "x"]]).inputs(batch)


# --- the stored types ---


@pytest.mark.parametrize(
    ("dtype", "ndim", "stored"),
    [
        ("f2", 1, "f4"),
        ("f4", 1, "f4"),
        ("f8", 2, "f4"),
        ("?", 1, "f4"),
        ("i1", 2, "i8"),
        ("i2", 1, "i8"),
        ("i4", 1, "i8"),
        ("i8", 1, "i8"),
        ("u2", 2, "i8"),
        ("u4", 1, "i8"),
        ("u8", 1, "i8"),
        ("u1", 1, "i8"),
        ("u1", 2, "u1"),
        ("u1", 4, "u1"),
    ],
)
def test_storage_dtype(dtype: str, ndim: int, stored: str) -> None:
    assert storage_dtype(np.dtype(dtype), ndim) == np.dtype(stored)
    assert from_arrays({"x": np.ones((2,) * ndim, dtype=dtype)})["x"].dtype == np.dtype(stored)


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "m8[s]", "O", "V4"])
def test_other_types_are_refused(dtype: str) -> None:
    with pytest.raises(TypeError, match=r"column 'when' holds .*: a model needs whole or floating-point numbers"):
        storage_dtype(np.dtype(dtype), 1, "when")


def test_numbers_beyond_int64_are_refused() -> None:
    with pytest.raises(ValueError, match="column 'id' holds 18446744073709551615, which is beyond int64"):
        from_arrays({"id": np.array([2**64 - 1], dtype=np.uint64)})


# --- Arrow ---

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
    assert from_arrow(pa.array([], pa.list_(pa.float64())), "x", row_shape=(3,)).shape == (0, 3)
    assert from_arrow(pa.chunked_array([], pa.list_(pa.list_(pa.int8()))), "x").shape == (0, 0, 0)
    assert from_arrow(pa.array([], ML_VECTOR), "x", row_shape=(4,)).shape == (0, 4)


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
    assert from_arrow(column, "x", first_row=7, row_shape=(2,)).shape == (1, 2)
    with pytest.raises(ValueError, match="column 'x': row 7 has 2 values, row 0 has 3 values"):
        from_arrow(column, "x", first_row=7, row_shape=(3,))


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
        (pa.array([b"a"]), "binary: bytes say nothing of their shape. Decode them into an array column first"),
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


# --- arrays, tensors and lists ---


def test_arrays_tensors_and_lists() -> None:
    columns = from_arrays(
        {
            "array": np.ones((3, 2)),
            "tensor": torch.ones(3, 2, requires_grad=True),
            "half": torch.tensor([1.5, 2.0, 3.0], dtype=torch.bfloat16),
            "list": [[1, 2], [3, 4], [5, 6]],
            "truth": [True, False, True],
        }
    )
    assert {name: str(values.dtype) for name, values in columns.items()} == {
        "array": "float32",
        "tensor": "float32",
        "half": "float32",
        "list": "int64",
        "truth": "float32",
    }
    assert columns["half"].tolist() == [1.5, 2.0, 3.0]
    assert columns["list"].tolist() == [[1, 2], [3, 4], [5, 6]]


def test_only_the_named_columns_are_read() -> None:
    data = {"x": [1.0], "comment": ["text"]}
    assert list(from_arrays(data, ("x",))) == ["x"]
    with pytest.raises(ValueError, match="there is no column 'y' in the data; it has 'x', 'comment'"):
        from_arrays(data, ("x", "y"))


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([[1, 2], [3, 4, 5]], ValueError, "column 'x': row 1 has 3 values, row 0 has 2 values; .* Pad them"),
        (np.array([[1], [2, 3]], dtype=object), ValueError, "column 'x': row 1 has 2 values, row 0 has 1 values"),
        ([[[1], [2, 3]], [[1], [2, 3]]], ValueError, "column 'x': the lists in row 0 differ in length"),
        ([1.0, None], ValueError, "column 'x': row 1 is null"),
        (["a", "b"], TypeError, "column 'x' holds strings"),
        (np.array(["a"], dtype=object), TypeError, "column 'x' holds strings"),
        ([{"a": 1}, {"a": 2}], TypeError, r"column 'x' holds Python objects \(dict\)"),
        (np.array([b"ab"], dtype=object), TypeError, "column 'x' holds bytes"),
        (np.array(["2020-01-01"], dtype="M8[D]"), TypeError, "column 'x' holds datetime64"),
        (np.float32(3), ValueError, "column 'x' is a single value"),
        ([], ValueError, "the data has no rows"),
        (np.ones((0, 3)), ValueError, "the data has no rows"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(values: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_arrays({"x": values})


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="column 'x' has 2 rows, column 'y' has 3: a row is one element of each"):
        from_arrays({"x": [1, 2], "y": [1, 2, 3]})
    with pytest.raises(ValueError, match="the data has no rows"):
        from_arrays({})
