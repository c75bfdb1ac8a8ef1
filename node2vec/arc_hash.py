"""A 64-bit hash of an arc, for choices and sums that must not depend on where or in which order arcs are seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_HALF = np.uint64(32)


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).

    x: uint64 of any shape; returns uint64 of that shape, a new array. A bijection of the 64-bit numbers.
    """
    x = (x ^ (x >> _SHIFTS[0])) * _FACTORS[0]
    x = (x ^ (x >> _SHIFTS[1])) * _FACTORS[1]
    return x ^ (x >> _SHIFTS[2])


def arc_hash(tails: NDArray[Any], heads: NDArray[Any], seed: int = 0) -> NDArray[np.uint64]:
    """The hash of every arc ``tails[i] -> heads[i]``.

    tails, heads: integers in 0..2**32-1, of one shape; returns uint64 of that shape. With one seed, different arcs have
    different hashes: (tail, head) is one 64-bit number, and it goes through a bijection.
    """
    word = (tails.astype(np.uint64) << _HALF) | heads.astype(np.uint64)
    return mix(word + mix(np.array([seed], np.uint64) + GOLDEN))
