from __future__ import annotations

import numpy as np
import pytest

from node2vec import window_pairs
from node2vec.counter_rng import key_numpy
from node2vec.skipgram import Sgns
from tests.node2vec.plain_skipgram import reach


def test_the_reach_is_uniform_and_hashed_from_epoch_walk_and_position() -> None:
    sgns = Sgns(10, 5, 8, np.uint64(4))
    drawn = [[[reach(sgns, e, w, p) for p in range(40)] for w in range(50)] for e in range(2)]
    table = np.array(drawn)
    assert np.bincount(table.ravel(), minlength=11)[1:] == pytest.approx(np.full(10, 400), rel=0.2)
    assert (table[0] != table[1]).mean() == pytest.approx(0.9, abs=0.03)
    assert (table[:, 0] != table[:, 1]).mean() == pytest.approx(0.9, abs=0.1)


def test_a_context_has_the_centres_in_whose_windows_it_is() -> None:
    """At most as far as the window goes, at most as far as the centre reaches, and not itself."""
    positions, rows = np.array([1, 3, 4, 5, 9], np.uint8), np.array([7, 3, 0, 5, 2], np.int32)
    near_positions, near_rows = np.zeros(5, np.int64), np.zeros(5, np.int64)
    for same_part, wanted in ((True, [3]), (False, [3, 0])):
        reaches = np.array([2, 1, 4, 0, 9])
        found = window_pairs.near_centres(4, positions, rows, reaches, 4, same_part, near_positions, near_rows)
        assert near_rows[:found].tolist() == wanted
        assert near_positions[:found].tolist() == [3, 4][: len(wanted)]


def test_the_kernel_reaches_as_far_as_the_plain_program() -> None:
    sgns, reaches = Sgns(10, 5, 8, np.uint64(4)), np.zeros(40, np.int64)
    walk_key = np.uint64(key_numpy(int(sgns.seed ^ window_pairs.WINDOWS), 1, 17))
    window_pairs.reaches_of(walk_key, np.arange(40, dtype=np.uint8), 10, reaches)
    assert reaches.tolist() == [reach(sgns, 1, 17, position) for position in range(40)]


def test_the_largest_count() -> None:
    assert window_pairs.most_of(np.array([3, 200, 5], np.uint8)) == 200
    assert window_pairs.most_of(np.empty(0, np.uint8)) == 0
