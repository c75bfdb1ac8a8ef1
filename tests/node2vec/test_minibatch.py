from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node2vec import minibatch
from node2vec.minibatch import AT_ONCE, MOST


@numba.njit
def _fetch_all(table: np.ndarray) -> None:
    for row in range(len(table)):
        minibatch.fetch(table, row)


@cache
def kernels(size: int) -> tuple[Callable[..., None], Callable[..., None]]:
    """The two products of a size, to be called from Python."""
    write_scores, add_changes = minibatch.products(size)

    @numba.njit
    def scores(inputs, centres, first, outputs, rows, found):
        write_scores(inputs, centres, first, outputs, rows, found)

    @numba.njit
    def move(inputs, centres, first, outputs, rows, slopes):
        add_changes(inputs, centres, first, outputs, rows, slopes)

    return scores, move


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from([1, 2, MOST]), st.integers(1, 50), st.integers(1, 3), st.integers(1, 6), st.integers(0, 2**32 - 1)
)
def test_products_do_what_numpy_does(size: int, dimensions: int, blocks: int, num_rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs, outputs = (rng.normal(0, 1, (num_rows, dimensions)).astype(np.float32) for _ in range(2))
    first = int(rng.integers(0, 3))
    centres = rng.integers(0, num_rows, first + size)  # with so few rows some stand twice
    rows = rng.integers(0, num_rows, blocks * AT_ONCE)
    found = np.zeros(len(rows) * MOST, np.float32)
    scores, move = kernels(size)
    scores(inputs, centres, first, outputs, rows, found)
    wanted = outputs[rows].astype(float) @ inputs[centres[first:]].T
    np.testing.assert_allclose(found.reshape(-1, MOST)[:, :size], wanted, rtol=0, atol=2e-5)

    slopes = rng.normal(0, 0.3, len(found)).astype(np.float32)
    tables = inputs.astype(float), outputs.astype(float)
    before = tables[0].copy()
    for k, row in enumerate(rows):
        for i, centre in enumerate(centres[first:]):
            slope = float(slopes[k * MOST + i])
            tables[0][centre] += slope * tables[1][row]
            tables[1][row] += slope * before[centre]
    move(inputs, centres, first, outputs, rows, slopes)
    np.testing.assert_allclose(inputs, tables[0], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(outputs, tables[1], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("wrong", ["float64", "every other column"])
def test_other_arrays_are_refused_when_a_kernel_is_compiled(wrong: str) -> None:
    table = np.zeros((4, 32), np.float64 if wrong == "float64" else np.float32)
    table = table if wrong == "float64" else table[:, ::2]
    arrays = (np.zeros(4, np.int64), 0, np.zeros((4, 32), np.float32), np.zeros(AT_ONCE, np.int64))
    with pytest.raises(numba.core.errors.TypingError, match="a minibatch takes float32 of 2 dimensions in C order"):
        kernels(1)[0](table, *arrays, np.zeros(AT_ONCE * MOST, np.float32))


def test_fetching_changes_nothing() -> None:
    table = np.arange(70, dtype=np.float32).reshape(10, 7)
    _fetch_all(table)
    assert table.ravel().tolist() == list(range(70))
