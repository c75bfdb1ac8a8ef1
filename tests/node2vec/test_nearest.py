from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node2vec import nearest
from node2vec.nearest import Search, cosines, direction, nearest_to, units


def brute_force(ids: list[Any], matrix: npt.NDArray[np.float32], top: int) -> dict[Any, list[tuple[Any, float]]]:
    """Every cosine by itself, every list sorted whole."""
    rows = units(matrix).astype(np.float64)
    products = np.clip(np.array([[(row * other).sum() for other in rows] for row in rows]), -1, 1).astype(np.float32)

    def order(pair: tuple[Any, float]) -> tuple[float, Any]:
        return -pair[1], pair[0].encode() if isinstance(pair[0], str) else pair[0]

    return {
        name: sorted(((other, float(products[i, j])) for j, other in enumerate(ids) if j != i), key=order)[:top]
        for i, name in enumerate(ids)
    }


def searched(ids: pa.Array, matrix: npt.NDArray[np.float32], top: int, cut: list[int]) -> dict[Any, list[Any]]:
    """By a `Search` for each block, the candidates in another order each time."""
    borders = [0, *cut, len(ids)]
    blocks = [
        (ids.slice(start, stop - start), units(matrix[start:stop]))
        for start, stop in itertools.pairwise(borders)
        if stop > start
    ]
    found: dict[Any, list[Any]] = {name: [] for name in ids.to_pylist()}
    for number, block in enumerate(blocks):
        search = Search(*block, top)
        for other in np.random.default_rng(number).permutation(len(blocks)):
            search.add(*blocks[other])
        for table in search.result():
            for row in table.to_pylist():
                found[row["id"]].append((row["similar_id"], row["similarity"]))
    return found


def vectors(rows: int, columns: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


@given(data=st.data(), n=st.integers(1, 40), d=st.integers(1, 5), top=st.integers(1, 8), text=st.booleans())
def test_blocks_find_what_brute_force_finds(data: st.DataObject, n: int, d: int, top: int, text: bool) -> None:
    """Few different numbers make many ties, zero vectors among them."""
    numbers = st.sampled_from([0.0, 1.0, -1.0, 0.5, 3.0])
    matrix = np.array(
        data.draw(st.lists(st.lists(numbers, min_size=d, max_size=d), min_size=n, max_size=n)), np.float32
    )
    names = data.draw(st.permutations([f"é{i}" if text else i - 7 for i in range(n)]))
    cut = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    assert searched(pa.array(names), matrix, top, cut) == brute_force(list(names), matrix, top)


@pytest.mark.parametrize("cut", [[], [3], [2000], [1000, 2000, 2500]])
def test_larger_than_the_tiles(monkeypatch: pytest.MonkeyPatch, cut: list[int]) -> None:
    monkeypatch.setattr(nearest, "QUERIES", 256)
    monkeypatch.setattr(nearest, "CANDIDATES", 512)
    monkeypatch.setattr(nearest, "SAMPLE", 100)
    monkeypatch.setattr(nearest, "PAIRS", 1000)
    matrix = vectors(2600, 16)
    matrix[1300:1320] = matrix[7]  # twenty that are equally near
    rows = units(matrix).astype(np.float64)
    products = np.clip(np.einsum("id,jd->ij", rows, rows), -1, 1).astype(np.float32)
    np.fill_diagonal(products, -2)
    ids = np.random.default_rng(1).permutation(2600)
    found = searched(pa.array(ids), matrix, 5, cut)
    for row in [*range(0, 2600, 97), 7, 1305, 2599]:
        order = np.lexsort((ids, -products[row]))[:5]
        assert [pair[0] for pair in found[ids[row]]] == ids[order].tolist()
        np.testing.assert_allclose([pair[1] for pair in found[ids[row]]], products[row, order], rtol=0, atol=1.2e-7)


def test_a_cut_changes_no_bit() -> None:
    matrix, ids = vectors(500, 128), pa.array([f"n{i}" for i in range(500)])
    assert searched(ids, matrix, 10, []) == searched(ids, matrix, 10, [1, 130, 333])


def test_candidates_that_the_float32_product_puts_in_the_wrong_order() -> None:
    """Vectors that differ by the last bits: the product's own rounding must not decide."""
    base = vectors(1, 128, seed=3)
    matrix = np.concatenate([base, base + vectors(60, 128, seed=4) * np.float32(3e-7)])
    assert searched(pa.array(range(61)), matrix, 7, [20]) == brute_force(list(range(61)), matrix, 7)


def test_units_and_cosines() -> None:
    matrix = np.array([[3, 4], [0, 0], [1e-30, 0], [3e38, 3e38]], np.float32)
    np.testing.assert_allclose(units(matrix), [[0.6, 0.8], [0, 0], [1, 0], [0.5**0.5] * 2], rtol=1e-6)
    assert units(matrix).dtype == np.float32
    assert cosines(units(matrix), units(matrix)).tolist() == pytest.approx([1.0, 0.0, 1.0, 1.0], abs=1.2e-7)
    assert max(cosines(units(vectors(1000, 9)), units(vectors(1000, 9)))) == 1


def test_direction() -> None:
    a, b, none = np.array([[2, 0]], np.float32), np.array([[0, 5]], np.float32), np.empty((0, 2), np.float32)
    np.testing.assert_allclose(direction(np.concatenate([a, b]), none), [0.5**0.5, 0.5**0.5], rtol=1e-6)
    np.testing.assert_allclose(direction(a, b), [0.5**0.5, -(0.5**0.5)], rtol=1e-6)
    assert not direction(vectors(9, 7), vectors(9, 7)).any()


@given(n=st.integers(1, 50), top=st.integers(1, 9), left_out=st.sets(st.integers(0, 49), max_size=4))
def test_nearest_to(n: int, top: int, left_out: set[int]) -> None:
    matrix = np.random.default_rng(n).integers(-1, 2, (n, 3)).astype(np.float32)
    query = units(matrix[:1])[0]
    similarity = cosines(np.broadcast_to(query, matrix.shape), units(matrix)).tolist()
    expected = sorted((-similarity[i], i) for i in range(n) if i not in left_out)[:top]
    found = nearest_to(query, pa.array(range(n)), matrix, pa.array(left_out, pa.int64()), top)
    assert [(-row["similarity"], row["id"]) for row in found.to_pylist()] == expected
