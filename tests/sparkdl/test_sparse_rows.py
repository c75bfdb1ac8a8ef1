"""Sparse rows behave as the dense array that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparkdl.sparse_rows import ENTRY, SparseRows

arrays = hnp.arrays(
    np.float32, st.tuples(st.integers(0, 6), st.integers(1, 5)), elements=st.sampled_from([0, 0, 1, -2])
)


@given(arrays, st.data())
def test_picked_cut_and_joined_as_an_array(dense: np.ndarray, data: st.DataObject) -> None:
    rows = SparseRows.of_dense(dense)
    assert (len(rows), rows.shape, rows.ndim, rows.dtype) == (len(dense), dense.shape, 2, dense.dtype)
    np.testing.assert_array_equal(rows.dense(), dense)
    picked = np.array(data.draw(st.lists(st.integers(0, len(dense) - 1), max_size=9)) if len(dense) else [], np.int64)
    np.testing.assert_array_equal(rows[picked].dense(), dense[picked])
    cut = data.draw(st.slices(len(dense)))
    np.testing.assert_array_equal(rows[cut].dense(), dense[cut])
    joined = np.concatenate([rows, rows[cut], rows[picked]])  # type: ignore[list-item]  # numpy asks them to do it
    assert isinstance(joined, SparseRows)
    np.testing.assert_array_equal(joined.dense(), np.concatenate([dense, dense[cut], dense[picked]]))


@pytest.mark.parametrize("rows", [0, 3])
def test_a_step_that_no_row_number_reaches(rows: int) -> None:
    dense = np.eye(3, dtype=np.float32)[:rows]
    far = slice(None, None, 1 << 63)
    np.testing.assert_array_equal(SparseRows.of_dense(dense)[far].dense(), dense[far])


@given(arrays)
def test_as_a_tensor(dense: np.ndarray) -> None:
    tensor = SparseRows.of_dense(dense).tensor()
    assert tensor.layout == torch.sparse_coo
    assert tensor.is_coalesced()
    assert torch.equal(tensor.to_dense(), torch.from_numpy(dense))


def test_a_tensor_has_memory_of_its_own() -> None:
    rows = SparseRows.of_parts(np.array([1, 0, 2]), np.array([4, 0, 2]), np.array([1.0, 2.0, 3.0]), 5)
    assert rows.entries.dtype == ENTRY
    rows.tensor().values().zero_()
    assert rows.dense().tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [2, 0, 3, 0, 0]]


def test_a_linear_layer_takes_it_and_learns() -> None:
    dense = np.eye(3, 6, dtype=np.float32)
    layer = torch.nn.Linear(6, 2)
    layer(SparseRows.of_dense(dense).tensor()).sum().backward()
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, torch.from_numpy(dense.sum(axis=0)).expand(2, 6))


def test_numpy_does_nothing_else_with_it() -> None:
    rows = SparseRows.of_dense(np.eye(2, dtype=np.float32))
    with pytest.raises(TypeError, match="no implementation found"):
        np.stack([rows, rows])  # type: ignore[call-overload]
