"""Laws of the exact epochs: every row once, exact sizes, the order of the virtual times, a random shuffle."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkdl import batches

law = settings(deadline=None, max_examples=60, print_blob=True)  # machines may be busy
replicas_rows = st.lists(st.integers(0, 30) | st.sampled_from([0, 1, 200]), min_size=1, max_size=9)
any_integer = st.integers(-(2**200), 2**200)


def order_of_replicas(rows_per_replica: list[int]) -> list[int]:
    """The oracle: all rows sorted by exact virtual time, ties by replica; each position's replica."""
    timed = [(Fraction(2 * k + 1, 2 * n), r) for r, n in enumerate(rows_per_replica) for k in range(n)]
    return [replica for _, replica in sorted(timed)]


# chi-squared with `bins` - 1 degrees of freedom: mean bins - 1, deviation sqrt(2 bins)
def assert_even(counts: np.ndarray) -> None:
    expected = counts.sum() / counts.size
    statistic = float(((counts - expected) ** 2 / expected).sum())
    deviation = (statistic - (counts.size - 1)) / (2 * counts.size) ** 0.5
    assert -4 < deviation < 4, f"chi-squared {statistic} for {counts.size} bins"


def shuffle(seed: int, num_rows: int) -> np.ndarray:
    return batches.rows(seed, 0, 0, 0, [num_rows], num_rows)


@law
@given(num_rows=st.integers(0, 10**6), batch_size=st.integers(1, 10**4))
def test_num_steps_rounds_up(num_rows: int, batch_size: int) -> None:
    steps = batches.num_steps(num_rows, batch_size)
    assert (steps - 1) * batch_size < num_rows <= steps * batch_size or (num_rows == 0 and steps == 0)


@law
@given(replicas_rows)
def test_shares_follow_the_sorted_virtual_times(rows_per_replica: list[int]) -> None:
    order = order_of_replicas(rows_per_replica)
    counts = [0] * len(rows_per_replica)
    for taken in range(min(len(order), 400) + 1):
        assert batches.shares(rows_per_replica, taken) == counts
        if taken < len(order):
            counts[order[taken]] += 1
    for taken in range(max(0, len(order) - 50), len(order) + 1):
        expected = np.bincount(order[:taken], minlength=len(rows_per_replica)).tolist()
        assert batches.shares(rows_per_replica, taken) == expected


@pytest.mark.parametrize(
    "rows_per_replica", [[1000] + [1] * 100, [1] * 50 + [3000], [303] + [3] * 60, [3] * 60 + [303]]
)
def test_shares_follow_the_sorted_virtual_times_when_many_must_be_repaired(rows_per_replica: list[int]) -> None:
    order = order_of_replicas(rows_per_replica)
    for taken in range(len(order) + 1):
        expected = np.bincount(order[:taken], minlength=len(rows_per_replica)).tolist()
        assert batches.shares(rows_per_replica, taken) == expected


@law
@given(st.lists(st.integers(0, 10**13), min_size=1, max_size=9), st.data())
def test_shares_are_exact_monotone_and_proportional_at_any_size(
    rows_per_replica: list[int], data: st.DataObject
) -> None:
    total = sum(rows_per_replica)
    taken = data.draw(st.integers(0, total))
    later = data.draw(st.integers(taken, min(total, taken + 1000)))
    counts = batches.shares(rows_per_replica, taken)
    counts_later = batches.shares(rows_per_replica, later)
    assert sum(counts) == taken
    for num_rows, count, count_later in zip(rows_per_replica, counts, counts_later, strict=True):
        assert 0 <= count <= count_later <= num_rows
        slack = Fraction(len(rows_per_replica), 2) + 1
        assert abs(count - Fraction(num_rows * taken, max(total, 1))) <= slack
    assert batches.shares(rows_per_replica, total) == rows_per_replica


@law
@given(any_integer, any_integer, replicas_rows, st.integers(1, 200))
def test_every_row_once_per_epoch_and_every_step_full(
    seed: int, epoch: int, rows_per_replica: list[int], batch_size: int
) -> None:
    total = sum(rows_per_replica)
    batch_size = max(batch_size, total // 40)  # at most 41 steps: quick
    seen: list[list[np.ndarray]] = [[] for _ in rows_per_replica]
    for step in range(batches.num_steps(total, batch_size)):
        picked = [
            batches.rows(seed, epoch, step, replica, rows_per_replica, batch_size)
            for replica in range(len(rows_per_replica))
        ]
        assert sum(map(len, picked)) == min(batch_size, total - step * batch_size)
        for rows, numbers in zip(seen, picked, strict=True):
            assert numbers.dtype == np.int64
            rows.append(numbers)
    for num_rows, rows in zip(rows_per_replica, seen, strict=True):
        numbers = np.concatenate(rows) if rows else np.array([], dtype=np.int64)
        assert np.array_equal(np.sort(numbers), np.arange(num_rows))


@law
@given(st.integers(1, 300_000), any_integer)
def test_a_shuffle_is_a_bijection_at_any_size(num_rows: int, seed: int) -> None:
    assert np.array_equal(np.sort(shuffle(seed, num_rows)), np.arange(num_rows))


def test_a_step_of_a_billion_rows_is_computed_alone() -> None:
    rows_per_replica = [10**9, 10**9 + 7]
    picked = batches.rows(3, 1, 10**6, 1, rows_per_replica, 512)
    assert len(np.unique(picked)) == len(picked) == 256
    assert 0 <= picked.min() <= picked.max() < 10**9 + 7


@pytest.mark.parametrize("num_rows", [20, 1020, 2000, 40_000])
def test_first_and_neighbouring_positions_are_spread_evenly(num_rows: int) -> None:
    # [seeds, 3]: the rows at the first, the second and the last position of many shuffles
    keys = [batches._round_keys(0, epoch, 5) for epoch in range(6000)]
    positions = np.array([0, 1, num_rows - 1], dtype=np.uint64)
    rows = np.array([batches._shuffled(positions, num_rows, key) for key in keys]).astype(np.int64)
    bins = rows * 20 // num_rows
    for position in range(3):
        assert_even(np.bincount(bins[:, position], minlength=20))
    if num_rows >= 1000:  # independent but for the row already taken
        assert_even(np.bincount(bins[:, 0] * 20 + bins[:, 1], minlength=400))
        assert_even(np.bincount(bins[:, 0] * 20 + bins[:, 2], minlength=400))
        assert_even(np.bincount((rows[:, 1] - rows[:, 0]) % num_rows * 20 // num_rows, minlength=20))


@pytest.mark.parametrize("num_rows", [1000, 40_000])
def test_neighbours_within_one_shuffle_are_unrelated(num_rows: int) -> None:
    rows = np.concatenate([shuffle(seed, num_rows) for seed in range(40_000 // num_rows + 1)])
    assert_even(np.bincount((rows[1:] - rows[:-1]) % num_rows * 20 // num_rows, minlength=20))
    ascending = float(np.mean(rows[1:] > rows[:-1]))
    assert abs(ascending - 0.5) < 0.01


@pytest.mark.parametrize("num_rows", [3, 4])
def test_tiny_shuffles_take_every_order_equally_often(num_rows: int) -> None:
    orders = [tuple(shuffle(seed, num_rows).tolist()) for seed in range(4800)]
    _, counts = np.unique(np.array(orders), axis=0, return_counts=True)
    assert len(counts) == {3: 6, 4: 24}[num_rows]
    assert_even(counts)


def test_seed_epoch_and_replica_are_kept_apart() -> None:
    keys = [
        (0, 0, 0),
        (0, 0, 1),
        (0, 1, 0),
        (1, 0, 0),
        (-1, 0, 0),
        (2**64, 0, 0),
        (2**64 - 1, 0, 0),
        (11, 1, 0),
        (1, 11, 0),
    ]
    shuffles = set()
    for seed, epoch, replica in keys:
        shuffles.add(tuple(batches.rows(seed, epoch, 0, replica, [50, 50], 100).tolist()))
    assert len(shuffles) == len(keys)


def test_numpy_integers_give_the_same_rows_as_python_integers() -> None:
    plain = batches.rows(7, 2, 1, 0, [40, 30], 16)
    numpy = batches.rows(np.int64(7), np.int32(2), np.int64(1), 0, [40, 30], 16)  # type: ignore[arg-type]
    assert np.array_equal(plain, numpy)


def test_golden_rows() -> None:
    """Frozen: a stopped run that resumes under a newer release must see the same rows."""
    assert batches.shares([10, 4, 0, 7], 11) == [5, 2, 0, 4]
    assert batches.rows(0, 0, 0, 0, [10], 10).tolist() == [4, 2, 7, 5, 9, 3, 1, 0, 6, 8]
    assert batches.rows(-5, 3, 2, 1, [3000, 2000], 20).tolist() == [740, 402, 743, 1665, 692, 404, 858, 1599]
    assert batches.rows(2**70, 1, 10**6, 0, [10**9, 10**9], 8).tolist() == [406856723, 733938280, 731611637, 144960170]


def test_mistakes_are_sentences() -> None:
    with pytest.raises(ValueError, match="batch_size is 0: a step needs at least one row"):
        batches.num_steps(10, 0)
    with pytest.raises(ValueError, match=r"taken is 11: an epoch of 10 rows has the positions 0 to 10\."):
        batches.shares([4, 6], 11)
    with pytest.raises(ValueError, match=r"step is 3: an epoch of 10 rows in steps of 4 has the steps 0 to 2\."):
        batches.rows(0, 0, 3, 0, [10], 4)
