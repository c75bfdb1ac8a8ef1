from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from node2vec import counter_rng as rng

U64 = st.integers(0, 2**64 - 1)
VERTEX = st.integers(0, 2**31 - 1)
MASK = 2**64 - 1


def mix_by_hand(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def as_bits(tensor: torch.Tensor) -> list[int]:
    return [int(value) & MASK for value in tensor.reshape(-1).tolist()]


def test_the_published_splitmix64_sequence() -> None:
    # The first outputs of java.util.SplittableRandom / Vigna's splitmix64.c with state 1234567.
    states = [(1234567 + (i + 1) * rng.GOLDEN) & MASK for i in range(5)]
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [int(rng.mix(np.uint64(state))) for state in states] == published


@given(U64, VERTEX, st.integers(0, 2**40), st.integers(0, 2**41), st.integers(0, 2**20 - 1), st.integers(0, 3))
def test_numba_numpy_and_torch_draw_the_same_bits(
    seed: int, start: int, walk: int, step: int, trial: int, which: int
) -> None:
    key = int(rng.key(np.uint64(seed), start, walk))
    state = mix_by_hand((seed + rng.GOLDEN) & MASK)
    state = mix_by_hand((state + (start + 1) * rng.GOLDEN) & MASK)
    assert key == mix_by_hand((state + (walk + 1) * rng.GOLDEN) & MASK)
    keys = rng.key_numpy(seed, [start], [walk])
    tensor = rng.key_torch(seed, torch.tensor([start]), torch.tensor([walk]))
    assert keys.tolist() == as_bits(tensor) == [key]

    counter = step << 22 | trial << 2 | which
    bits = int(rng.draw(np.uint64(key), step, trial, which))
    assert bits == mix_by_hand((key + counter * rng.GOLDEN) & MASK)
    assert rng.draw_numpy(keys, step, [trial], which).tolist() == [bits]
    assert as_bits(rng.draw_torch(tensor, step, torch.tensor([trial]), which)) == [bits]
    assert as_bits(rng.draw_torch(tensor, torch.tensor([step]), trial, which)) == [bits]
    assert as_bits(rng.draw_torch(tensor, step, trial, which)) == [bits]
    drawn = torch.tensor([bits - 2**64 if bits >> 63 else bits])
    assert as_bits(rng.high_torch(drawn)) == [int(rng.high(np.uint64(bits)))] == [bits >> 32]
    assert as_bits(rng.low_torch(drawn)) == [int(rng.low(np.uint64(bits)))] == [bits & 0xFFFFFFFF]


@given(U64, st.integers(1, 2**31 - 1))
def test_below_covers_its_range(bits: int, count: int) -> None:
    assert int(rng.below(np.uint64(bits), count)) == ((bits >> 32) * count) >> 32 < count


def test_below_reaches_both_ends() -> None:
    assert rng.below(np.uint64(0), 5) == 0
    assert rng.below(np.uint64(MASK), 5) == 4


@pytest.mark.parametrize("position", range(4))
def test_every_argument_changes_the_draw(position: int) -> None:
    """Neighbouring counters and keys share no bits: over 64k of them every bit is set half of the time."""
    number = np.arange(65536)
    arguments = [number if place == position else np.zeros(1, int) for place in range(4)]
    bits = rng.draw_numpy(rng.key_numpy(7, arguments[0], arguments[1]), arguments[2], arguments[3], 0)
    assert len(np.unique(bits)) == 65536
    share = np.unpackbits(bits.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
    assert np.all(np.abs(share - 0.5) < 5 * 0.5 / 256)  # five standard deviations of 65,536 fair coins
