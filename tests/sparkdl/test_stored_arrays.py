"""The types that columns are stored in, and what becomes of arrays, tensors and lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from sparkdl.sparse_rows import SparseRows
from sparkdl.stored_arrays import Kind, from_arrays, kinds_of, storage_dtype, transformed


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


def test_kinds() -> None:
    columns = from_arrays({"x": np.ones((3, 2)), "y": [1, 2, 3], "v": np.eye(3)}, transforms={"v": "sparse"})
    assert kinds_of(columns) == {"x": Kind("<f4", (2,)), "y": Kind("<i8", ()), "v": Kind("<f4", (3,), True)}
    assert {name: kind.num_bytes for name, kind in kinds_of(columns).items()} == {"x": 8, "y": 8, "v": 16}


def test_sparse_matrices() -> None:
    dense = np.array([[0, 1, 0], [2, 0, 3]], np.float32)
    matrices = {
        "csr": sparse.csr_matrix(dense),
        "coo": sparse.coo_array(dense),
        "torch": torch.tensor(dense).to_sparse(),
    }
    for matrix in matrices.values():
        kept = from_arrays({"v": matrix}, transforms={"v": "sparse"})["v"]
        assert isinstance(kept, SparseRows)
        assert kept.dense().tolist() == dense.tolist()
        whole = from_arrays({"v": matrix})["v"]
        assert isinstance(whole, np.ndarray)
        assert whole.tolist() == dense.tolist()
    wide = sparse.csr_matrix((2, 1_000_000))
    with pytest.raises(
        ValueError, match=r"sparse vectors of 1,000,000 places: .* 3\.8 MiB\. Pass transform=\{'v': 'sparse'\}"
    ):
        from_arrays({"v": wide})
    assert from_arrays({"v": wide}, transforms={"v": "sparse"})["v"].shape == (2, 1_000_000)


def test_a_transform_sees_each_value() -> None:
    columns = from_arrays(
        {"word": ["a", "bcd"], "blob": [b"\x01\x02", b"\x03\x04"], "n": [1, 2]},
        transforms={
            "word": len,
            "blob": lambda value: np.frombuffer(value, np.uint8),
            "n": lambda n: torch.ones(n * 0 + 2),
        },
    )
    assert columns["word"].tolist() == [1, 3]  # type: ignore[union-attr]
    assert columns["blob"].tolist() == [[1, 2], [3, 4]]  # type: ignore[union-attr]
    assert [str(columns[name].dtype) for name in ("word", "blob", "n")] == ["int64", "uint8", "float32"]


def uneven(value: int) -> Any:
    return [1.0] * (2 + value // 2)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            lambda value: 1 / (value - 3),
            "transform of column 'x' failed in row 13: ZeroDivisionError: .* The value was 3",
        ),
        (lambda value: "text", "transform of column 'x' returned 'text' for row 10; it must return a number"),
        (lambda value: None, "transform of column 'x' returned None for row 10"),
        (lambda value: [[1], [2, 3]], r"transform of column 'x' returned \[\[1\], \[2, 3\]\] for row 10"),
        (uneven, "column 'x': row 12 has 3 values, row 0 has 2 values"),
        (lambda value: 1.5 if value else 1, "returned float32 for row 11, but int64 for the first rows"),
    ],
)
def test_what_a_transform_does_wrong_is_told_with_its_row(transform: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transformed("x", transform, range(5), first_row=10)


def test_whole_numbers_among_fractions() -> None:
    found = transformed("x", lambda value: 1 if value else 0.5, range(3))
    assert (found.tolist(), str(found.dtype)) == ([0.5, 1, 1], "float32")
    assert transformed("x", len, [], kind=Kind("<i8", (2,))).shape == (0, 2)
