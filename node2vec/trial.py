"""One trial of one step of a walk: the rejection sampling that every form of the walk shares.

The law (``transition``) needs weight(v, x) * bias(t, v, x) over all neighbours x of v. Nothing is tabulated per edge:
a neighbour is proposed by weight alone and accepted by its bias, until one is accepted. With

    M = max(1, 1/q)                          a bound of every bias but the return edge's,
    excess = max(1/p - M, 0) / M             what the return edge has above it, in units of M,

step s of a walk (1, 2, ...; the start node is position 0) is made so:

1. A row without neighbours ends the walk; a row of one neighbour gives that neighbour, without any draw.
2. Trials 0, 1, 2, ... follow until one ends the step:
   a. If the excess is above 0 and v -> t is an edge: with probability ``excess * weight(v, t) / (weight of row v +
      excess * weight(v, t))`` the walk returns to t. The draw (``EXCESS``) belongs to the trial, not to the step: it is
      repeated after each rejection. (This is KnightKing's outlier folding: Yang et al., SOSP 2019.)
   b. A neighbour x is proposed in proportion to weight(v, x): by the upper half of the draw ``PROPOSE``, on weighted
      graphs by the row's alias table with the draw ``COIN``.
   c. x is accepted if the lower half of the draw ``PROPOSE`` is below bias(t, v, x) / M, where the return edge's bias
      is cut to M. The first step accepts at once.

Each bias is at most M, in node2vec+ too, whose biases all lie between 1 and 1/q; so c is a probability, and a trial's
chance to end at x is proportional to the law's weight of x. In c the edge t -> x need not be looked up when the lower
half is below the smaller of both thresholds. (The larger one is 1: nothing can be rejected without the look-up.)

Probabilities of c are integers in units of 2^-32, those of a integers in units of 2^-53, computed from float64 by
single operations in a fixed order, so that all machines and devices decide alike.

How many trials can a step take? One ends the step with probability r = min(1/p, 1, 1/q) / max(1, 1/q) at least (for
p < 1 read 1/p as 1). `law` refuses p and q with r below 2^-14. Then 2^20 trials, all that the counter can tell apart,
fail together with probability (1 - 2^-14)^(2^20) < e^-64 = 1.6e-28 a step: it does not happen, and needs no remedy.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from node2vec.counter_rng import COIN, EXCESS, TRIAL_BITS, below, draw, high
from node2vec.jit import Bool, Float, Int, Word, jit
from sparkdl.errors import ConfigError

Ints = npt.NDArray[Any]  # int32 or int64

MAX_TRIALS = 1 << TRIAL_BITS
RAREST = 2.0**-14

REJECT, ACCEPT, LOOK_UP = 0, 1, 2


class Law(NamedTuple):
    """p and q as a trial uses them; thresholds are in units of 2^-32 of M, 0 .. 2^32."""

    back: np.uint64  # x is t
    common: np.uint64  # t -> x is an edge
    far: np.uint64  # it is none
    least: np.uint64  # the smaller of the last two
    excess: np.float64  # what the return edge has above M, in units of M
    outward: np.float64  # 1/q
    envelope: np.float64  # M


def law(p: float, q: float) -> Law:
    """The constants of `p` and `q`.

    Raises ConfigError: p or q not positive and finite, or so far apart that a trial may succeed less than once in 2^14.
    """
    for name, value in (("p", p), ("q", q)):
        if not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"{name}={value} is no bias: give a positive number (1 for a walk without bias).")
    envelope = max(1.0, 1.0 / q)
    rarest = min(1.0 / max(p, 1.0), 1.0, 1.0 / q) / envelope
    if rarest < RAREST:
        raise ConfigError(
            f"p={p} and q={q} make one kind of move up to {1 / rarest:.0f} times rarer than another: walks would spend "
            f"their time on rejected trials. Choose p and q with max(p, q, 1) * max(1, 1/q) at most {1 / RAREST:.0f}."
        )
    back, common, far = (threshold(min(bias, envelope), envelope) for bias in (1.0 / p, 1.0, 1.0 / q))
    return Law(
        np.uint64(back),
        np.uint64(common),
        np.uint64(far),
        np.uint64(min(common, far)),
        np.float64(max(1.0 / p - envelope, 0.0) / envelope),
        np.float64(1.0 / q),
        np.float64(envelope),
    )


def threshold(bias: float, envelope: float) -> int:
    """`bias` / `envelope` in units of 2^-32, rounded to the nearest."""
    return int(bias / envelope * 4294967296.0 + 0.5)


@jit
def position(indices: Ints, start: Int, stop: Int, vertex: Int) -> Int:
    """Where `vertex` is in the ascending ``indices[start:stop]``, as an index of `indices`; -1 if it is not there."""
    count = stop - start
    while count > 1:  # no early exit: the compiler turns the choice into arithmetic
        half = count >> 1
        if indices[start + half - 1] < vertex:
            start += half
        count -= half
    if count == 1 and indices[start] == vertex:
        return start
    return -1


@jit
def excess_limit(trial_law: Law, row_weight: Float, return_weight: Float) -> Int:
    """The probability of 2a in units of 2^-53.

    `row_weight`: sum of the weights of row v (its degree if unweighted); `return_weight`: weight(v, t), 0 if v -> t is
    no edge. Unweighted, 1 may be passed unseen if the edge is looked up whenever `returns_by_excess` says so.
    """
    share = trial_law.excess * return_weight
    return np.int64(share / (row_weight + share) * 9007199254740992.0)


@jit
def returns_by_excess(walk_key: Word, step: Int, trial: Int, limit: Int) -> Bool:
    """2a: does this trial end in the return edge's excess."""
    return np.int64(draw(walk_key, step, trial, EXCESS) >> np.uint64(11)) < limit


@jit
def proposal(walk_key: Word, bits: Word, step: Int, trial: Int, first: Int, degree: Int, cuts: Any, others: Any) -> Int:
    """2b: the arc proposed, first .. first+degree-1; `bits` is the trial's ``PROPOSE`` draw.

    `cuts`, `others`: the alias tables of the arcs, or None on unweighted graphs.
    """
    arc = first + below(bits, degree)
    if cuts is not None and high(draw(walk_key, step, trial, COIN)) >= cuts[arc]:
        arc = first + others[arc]
    return arc


@jit
def decide_unseen(trial_law: Law, low_bits: Word, is_return: Bool, is_weak: Bool) -> Int:
    """2c as far as it goes without the edge t -> x: REJECT, ACCEPT or LOOK_UP.

    `is_return`: x is t. `is_weak`: node2vec+ finds v -> x below the noise floor of v; False in plain node2vec.
    """
    if is_return:
        return ACCEPT if low_bits < trial_law.back else REJECT
    if low_bits < trial_law.least:
        return ACCEPT
    if is_weak and trial_law.least == trial_law.common:  # q <= 1: a weak edge has bias 1 whatever t -> x is
        return REJECT
    return LOOK_UP


@jit
def decide_seen(trial_law: Law, low_bits: Word, is_edge: Bool) -> Bool:
    """2c after LOOK_UP, in plain node2vec: is x accepted, given whether t -> x is an edge."""
    return low_bits < (trial_law.common if is_edge else trial_law.far)


@jit
def decide_seen_plus(trial_law: Law, low_bits: Word, is_edge: Bool, is_weak: Bool, weight: Float, floor: Float) -> Bool:
    """2c after LOOK_UP, in node2vec+: is x accepted, given weight(t, x) (if t -> x `is_edge`) and the floor of x."""
    if is_edge and weight >= floor:
        return low_bits < trial_law.common
    if is_weak:
        return low_bits < trial_law.least
    share = np.float64(weight) / np.float64(floor) if is_edge else 0.0
    bias = trial_law.outward + (1.0 - trial_law.outward) * share
    return low_bits < np.uint64(bias / trial_law.envelope * 4294967296.0 + 0.5)
