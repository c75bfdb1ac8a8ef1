"""Random bits as a function of numbers: no state, no order, the same bits under numba, numpy and torch.

A walk has a 64-bit key, made from the run's seed, its start node and its number among the walks of that node. Every
decision of the walk has a counter, made from the step, the trial within the step, and which of the trial's draws it
is; the draw is the splitmix64 output function (Steele, Lea and Flood, *Fast splittable pseudorandom number generators*,
OOPSLA 2014) at ``key + counter * GOLDEN``. So a walk is the same whoever computes it, in whatever order, and a retry
draws the same bits again.

The same functions come in three forms: ``mix``, ``key``, ``draw`` for scalars inside numba kernels, ``*_numpy`` for
arrays, ``*_torch`` for tensors on any device. Torch has no unsigned 64-bit arithmetic: there the bits live in int64,
which multiplies and adds the same bits, and the logical shift is spelled out. Called from Python, a kernel takes 64
bits as ``np.uint64``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from node2vec import arc_hash
from node2vec.jit import Int, Word, jit

if TYPE_CHECKING:
    import torch

Bits = npt.NDArray[np.uint64]

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: the counter's stride
_FIRST = 0xBF58476D1CE4E5B9  # the two multipliers of splitmix64
_SECOND = 0x94D049BB133111EB

WHICH_BITS = 2  # which draw of the trial: 0..3
TRIAL_BITS = 20  # trial within the step: 0 .. 2^20 - 1
PROPOSE = 0  # high 32 bits choose the neighbour, low 32 bits accept it
EXCESS = 1  # is it the return edge's excess
COIN = 2  # the coin of the alias table

_GOLDEN_U64 = np.uint64(GOLDEN)
_FIRST_U64 = np.uint64(_FIRST)
_SECOND_U64 = np.uint64(_SECOND)
_U32 = np.uint64(0xFFFFFFFF)


@jit
def mix(x: Word) -> Word:
    """The output function of splitmix64: a bijection of 64-bit numbers in which every input bit moves every output."""
    x = (x ^ (x >> np.uint64(30))) * _FIRST_U64
    x = (x ^ (x >> np.uint64(27))) * _SECOND_U64
    return x ^ (x >> np.uint64(31))


@jit
def key(seed: Word, start: Int, walk: Int) -> Word:
    """The key of walk number `walk` (0, 1, ...) of start node `start` (0 .. V-1) in a run with `seed`."""
    state = mix(np.uint64(seed) + _GOLDEN_U64)
    state = mix(state + (np.uint64(start) + np.uint64(1)) * _GOLDEN_U64)
    return mix(state + (np.uint64(walk) + np.uint64(1)) * _GOLDEN_U64)


@jit
def draw(walk_key: Word, step: Int, trial: Int, which: Int) -> Word:
    """64 bits for draw `which` (0..3) of trial `trial` (below 2^20) of step `step` (below 2^42)."""
    counter = (np.uint64(step) << np.uint64(22)) | (np.uint64(trial) << np.uint64(2)) | np.uint64(which)
    return mix(walk_key + counter * _GOLDEN_U64)


@jit
def high(bits: Word) -> Word:
    """The upper 32 bits, 0 .. 2^32 - 1."""
    return bits >> np.uint64(32)


@jit
def low(bits: Word) -> Word:
    """The lower 32 bits, 0 .. 2^32 - 1; independent of the upper ones."""
    return bits & _U32


@jit
def below(bits: Word, count: Int) -> Int:
    """A number 0 .. count-1 from the upper 32 bits: ``high * count >> 32``; `count` at most 2^31.

    Numbers differ in probability by at most 2^-32 each (Lemire, *Fast random integer generation in an interval*, 2019,
    without its rejection step).
    """
    return np.int64((high(bits) * np.uint64(count)) >> np.uint64(32))


def mix_numpy(x: Bits) -> Bits:
    """`mix` of every element of a uint64 array."""
    with np.errstate(over="ignore"):
        return np.asarray(arc_hash.mix(x), np.uint64)


def key_numpy(seed: int, start: npt.ArrayLike, walk: npt.ArrayLike) -> Bits:
    """`key` of every pair of `start` and `walk` (integers, broadcast together), uint64."""
    starts, walks = np.asarray(start).astype(np.uint64), np.asarray(walk).astype(np.uint64)
    with np.errstate(over="ignore"):
        state = mix_numpy(np.asarray(np.uint64(seed & 0xFFFFFFFFFFFFFFFF) + _GOLDEN_U64))
        state = mix_numpy(state + (starts + np.uint64(1)) * _GOLDEN_U64)
        return mix_numpy(state + (walks + np.uint64(1)) * _GOLDEN_U64)


def draw_numpy(walk_key: Bits, step: npt.ArrayLike, trial: npt.ArrayLike, which: int) -> Bits:
    """`draw` of every triple of `walk_key`, `step` and `trial` (broadcast together), uint64."""
    steps, trials = np.asarray(step).astype(np.uint64), np.asarray(trial).astype(np.uint64)
    counter = (steps << np.uint64(22)) | (trials << np.uint64(2)) | np.uint64(which)
    with np.errstate(over="ignore"):
        return mix_numpy(walk_key + counter * _GOLDEN_U64)


def _signed(bits: int) -> int:
    """The int64 with the same 64 bits."""
    return bits - (1 << 64) if bits >> 63 else bits


def _shift_right(x: torch.Tensor, count: int) -> torch.Tensor:
    """Logical shift: zeros enter from the left, where torch's ``>>`` of int64 repeats the sign."""
    return (x >> count) & ((1 << (64 - count)) - 1)


def mix_torch(x: torch.Tensor) -> torch.Tensor:
    """`mix` of every element of an int64 tensor that holds the 64 bits."""
    x = (x ^ _shift_right(x, 30)) * _signed(_FIRST)
    x = (x ^ _shift_right(x, 27)) * _signed(_SECOND)
    return x ^ _shift_right(x, 31)


def key_torch(seed: int, start: torch.Tensor, walk: torch.Tensor) -> torch.Tensor:
    """`key` of every pair of `start` and `walk` (int64, same device, broadcast together), as int64 bits."""
    state = int(mix_numpy(np.array([(seed + GOLDEN) & 0xFFFFFFFFFFFFFFFF], np.uint64))[0])
    keys = mix_torch((start + 1) * _signed(GOLDEN) + _signed(state))
    return mix_torch((walk + 1) * _signed(GOLDEN) + keys)


def draw_torch(walk_key: torch.Tensor, step: torch.Tensor | int, trial: Any, which: int) -> torch.Tensor:
    """`draw` of every triple of `walk_key`, `step` and `trial` (int64 or int, broadcast together), as int64 bits."""
    counter = (step << 22) | (trial << 2) | which
    stride = _signed(GOLDEN)
    if isinstance(counter, int):
        return mix_torch(walk_key + _signed((counter * GOLDEN) & 0xFFFFFFFFFFFFFFFF))
    return mix_torch(walk_key + counter * stride)


def high_torch(bits: torch.Tensor) -> torch.Tensor:
    """The upper 32 bits, int64 0 .. 2^32 - 1."""
    return _shift_right(bits, 32)


def low_torch(bits: torch.Tensor) -> torch.Tensor:
    """The lower 32 bits, int64 0 .. 2^32 - 1."""
    return bits & 0xFFFFFFFF
