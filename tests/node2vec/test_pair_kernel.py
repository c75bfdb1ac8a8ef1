from __future__ import annotations

import numpy as np
import pytest

from node2vec import pair_kernel, skipgram
from node2vec.counter_rng import GOLDEN, key_numpy, mix_numpy
from node2vec.skipgram import Sgns
from tests.node2vec.plain_skipgram import negatives, random_walks, reach, streams_of


def test_the_reach_is_uniform_and_hashed_from_epoch_walk_and_position() -> None:
    sgns = Sgns(10, 5, 8, np.uint64(4))
    drawn = [[[reach(sgns, e, w, p) for p in range(40)] for w in range(50)] for e in range(2)]
    table = np.array(drawn)
    assert np.bincount(table.ravel(), minlength=11)[1:] == pytest.approx(np.full(10, 400), rel=0.2)
    assert (table[0] != table[1]).mean() == pytest.approx(0.9, abs=0.03)
    assert (table[:, 0] != table[:, 1]).mean() == pytest.approx(0.9, abs=0.1)


def test_kernels_draw_as_the_plain_program_does() -> None:
    noise = skipgram.noise_of([5, 1, 0, 40, 3])
    sgns = Sgns(5, 7, 1, np.uint64(9))
    block_key = key_numpy(int(sgns.seed ^ pair_kernel.NEGATIVES), 3, 2)
    walk_key = mix_numpy(block_key + np.array([18], np.uint64) * np.uint64(GOLDEN))
    pair_key = mix_numpy(walk_key + np.array([(4 << 16) + 6 + 1], np.uint64) * np.uint64(GOLDEN))[0]
    drawn = [pair_kernel.negative_row(pair_key, number, *noise) for number in range(7)]
    assert drawn == negatives(sgns, noise, 3, 2, 17, 4, 6)


@pytest.mark.parametrize("keep", [1, 8])
def test_large_and_broken_scores_leave_finite_rows(keep: int) -> None:
    (stream,) = streams_of(random_walks(5, 20, 10), 1, 10)
    noise, sgns = skipgram.noise_of(np.ones(10)), Sgns(5, 5, keep, np.uint64(1))
    for value in (pair_kernel.LIMIT, np.nextafter(np.float32(pair_kernel.LIMIT), np.float32(0)), 1e30, np.inf, np.nan):
        for sign in (1, -1):
            inputs, outputs = np.full((10, 1), value, np.float32), np.full((10, 1), sign, np.float32)
            call = (noise, stream, stream, np.arange(5), sgns, 0, 0, 0, True, 0.1, 0.1)
            assert skipgram.train_block(inputs, outputs, *call) > 0
            assert np.isfinite(inputs).all() or value > pair_kernel.LIMIT or np.isnan(value)


def test_sigmoid_is_close() -> None:
    scores = np.linspace(-30, 30, 20_001).astype(np.float32)
    made = np.array([pair_kernel.sigmoid(score) for score in scores], float)
    np.testing.assert_allclose(made, 1 / (1 + np.exp(-scores.astype(float))), rtol=0, atol=2e-7)
    assert 0 <= made.min() <= made.max() <= 1
    assert pair_kernel.sigmoid(np.float32("inf")) > 1 - 2e-7
    assert pair_kernel.sigmoid(np.float32("-inf")) < 2e-7
    assert pair_kernel.sigmoid(np.float32("nan")) < 2e-7


def test_a_step_takes_the_slope_of_sigmoid() -> None:
    scores = np.linspace(-13, 13, 2001).astype(np.float32)
    (stream,) = streams_of([[2 * k, 2 * k + 1] for k in range(2001)], 1, 4002)
    inputs, outputs = np.repeat(scores, 2)[:, None].copy(), np.ones((4002, 1), np.float32)
    sgns = Sgns(1, 0, 1, np.uint64(0))
    call = (skipgram.noise_of(np.ones(4002)), stream, stream, np.arange(2001), sgns, 0, 0, 0, True, 1.0, 1.0)
    before = inputs.copy()
    skipgram.train_block(inputs, outputs, *call)
    share = 1 - (inputs - before)[::2, 0].astype(float)  # the first of each two pairs: its output row was still 1
    np.testing.assert_allclose(share, 1 / (1 + np.exp(-scores.astype(float))), rtol=0, atol=2e-6)
