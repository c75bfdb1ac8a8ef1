"""The kernels of skip-gram on one block: finding the pairs in two token streams, and descending by each of them.

`meet` writes the pairs down, `descend` trains them. Both go through the two streams walk by walk and, in a walk,
context by context, with a place in the centres that follows the window. ``skipgram`` says what is trained, and what the
arguments are.

With shared negatives the pairs of a context are trained in minibatches: four at once, and what is left two and one at
once (``minibatch``). What bounds a step is loading and storing rows; so those of the context and of its negatives are
loaded and stored a quarter as often as pair by pair.

The pairs of one *context* share negatives, not those of one centre: a centre that is pushed off the same five rows ten
times in a row learns less than from fifty (PPI: macro-F1 .163 instead of .176, and norms 18 % larger). It is the
arrangement of Ji et al., *Parallelizing word2vec in shared and distributed memory* (2016).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from node2vec import minibatch
from node2vec.counter_rng import GOLDEN, below, key, low, mix
from node2vec.jit import Bool, Float, Int, Word, jit
from node2vec.minibatch import AT_ONCE, MOST, fetch

import numba  # isort: skip  # behind node2vec.jit, which says what is missing

Function = TypeVar("Function", bound=Callable[..., Any])

# What a draw is for: others are made from the same seed.
WINDOWS = np.uint64(0x57494E444F5753)  # "WINDOWS"
NEGATIVES = np.uint64(0x4E45474154495645)  # "NEGATIVE"

# tanh(x) is x times a quotient of polynomials of x^2, the highest power first; where it is flat, it is 1 within 3e-7.
_FLAT = np.float32(7.905311)
_ABOVE = tuple(
    np.float32(number)
    for number in (
        -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08, 1.48572235717979e-05,
        6.37261928875436e-04, 4.89352455891786e-03,
    )
)  # fmt: skip
_UNDER = tuple(
    np.float32(number)
    for number in (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
)
AHEAD = 2  # positions: how long before its first pair a centre's row is asked for
LIMIT = 2 * float(_FLAT)  # sigmoid is the same beyond it
_SCORES_OF_4, _MOVE_4 = minibatch.products(4)
_SCORES_OF_2, _MOVE_2 = minibatch.products(2)
_SCORES_OF_1, _MOVE_1 = minibatch.products(1)
_GOLDEN = np.uint64(GOLDEN)
_ONE = np.float32(1.0)
_ZERO = np.float32(0.0)


def _reassociated(function: Function) -> Function:
    """Compile a function whose sums may be taken in any order, and so in vector registers. No NaN is assumed away.

    Its machine code is kept with that of the kernel that it becomes part of.
    """
    flags: dict[str, Any] = {"nogil": True, "forceinline": True, "error_model": "numpy"}
    compiled: Function = numba.njit(fastmath={"reassoc", "contract", "arcp", "nsz"}, **flags)(function)
    return compiled


@jit
def reach(walk_key: Word, position: Int, window: Int) -> Int:
    """How far the contexts of the centre at `position` may be: 1 .. window."""
    return 1 + below(mix(walk_key + np.uint64(position + 1) * _GOLDEN), window)


@_reassociated
def negative_row(pair_key: Word, number: Int, cuts: Any, others: Any) -> Int:
    """Negative `number` (0, 1, ...) of a pair: a row of the output part."""
    bits = mix(pair_key + np.uint64(number + 1) * _GOLDEN)
    slot = below(bits, len(cuts))
    other = np.int64(others[slot])  # loaded in any case: nobody can guess which way a branch would go
    return slot if low(bits) < np.uint64(cuts[slot]) else other


@jit
def meet(
    centre_counts: Any,
    centre_positions: Any,
    centre_rows: Any,
    context_counts: Any,
    context_positions: Any,
    context_rows: Any,
    walks: Any,
    window: Int,
    seed: Word,
    epoch: Int,
    same_part: Bool,
    found: Any,
) -> Int:
    """Write the pairs of ``skipgram.pairs`` into `found`, int32 [n, 2], as far as it reaches; returns their number."""
    count: Int = 0
    most = _most(centre_counts)
    reaches, near_positions, near_rows = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    centre_stop: Int = 0
    context_stop: Int = 0
    for place in range(len(walks)):
        first_centre, first_context = centre_stop, context_stop
        centre_stop += np.int64(centre_counts[place])
        context_stop += np.int64(context_counts[place])
        _reaches(key(seed ^ WINDOWS, epoch, walks[place]), centre_positions[first_centre:centre_stop], window, reaches)
        near = first_centre
        for other in range(first_context, context_stop):
            position = np.int64(context_positions[other])
            while near < centre_stop and np.int64(centre_positions[near]) < position - window:
                near += 1
            positions, rows = centre_positions[near:centre_stop], centre_rows[near:centre_stop]
            own_reaches = reaches[near - first_centre :]
            num_near = _near(position, positions, rows, own_reaches, window, same_part, near_positions, near_rows)
            for k in range(min(num_near, len(found) - count)):
                found[count + k, 0], found[count + k, 1] = near_rows[k], context_rows[other]
            count += num_near
    return count


@_reassociated
def _near(
    position: Int,
    centre_positions: Any,
    centre_rows: Any,
    reaches: Any,
    window: Int,
    same_part: Bool,
    near_positions: Any,
    near_rows: Any,
) -> Int:
    """Write down the centres that a context at `position` pairs with; returns their number. The first is in its window.

    Each is written down, and overwritten if it does not count: nobody can guess which way a branch would go.
    """
    num_near = 0
    for one in range(len(centre_positions)):
        distance = np.int64(centre_positions[one]) - position
        if distance > window:
            break
        near_positions[num_near], near_rows[num_near] = position + distance, centre_rows[one]
        num_near += (abs(distance) <= reaches[one]) & ((not same_part) | (distance != 0))
    return num_near


@jit
def _most(counts: Any) -> Int:
    """The largest of some counts; 0 if there are none."""
    most: Int = 0
    for count in counts:
        most = max(most, np.int64(count))
    return most


@jit
def _reaches(walk_key: Word, positions: Any, window: Int, reaches: Any) -> None:
    """`reach` of each centre of a walk."""
    for one in range(len(positions)):
        reaches[one] = reach(walk_key, np.int64(positions[one]), window)


@jit
def descend(
    inputs: Any,
    outputs: Any,
    cuts: Any,
    others: Any,
    centre_counts: Any,
    centre_positions: Any,
    centre_rows: Any,
    context_counts: Any,
    context_positions: Any,
    context_rows: Any,
    walks: Any,
    sgns: Any,
    epoch: Int,
    round_number: Int,
    input_part: Int,
    same_part: Bool,
    first_rate: Float,
    last_rate: Float,
) -> Int:
    """What ``skipgram.train_block`` does; arrays as there. `sgns`: a ``skipgram.Sgns``."""
    num_walks, most = len(walks), _most(centre_counts)
    reaches, near_positions, near_rows = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    change = np.empty(inputs.shape[1], np.float32)
    num_places = -(-(sgns.negative + 1) // AT_ONCE) * AT_ONCE
    rows = np.zeros(num_places, np.int64)  # the negatives, then the context in all other places
    weights = np.zeros(num_places * MOST, np.float32)  # how often a negative was drawn
    targets = np.zeros(num_places * MOST, np.float32)
    slopes = np.zeros(num_places * MOST, np.float32)
    num_kept, num_used = 0, sgns.keep
    block_key = key(sgns.seed ^ NEGATIVES, round_number, input_part)
    count: Int = 0
    centre_stop: Int = 0
    context_stop: Int = 0
    for number in range(num_walks):
        first_centre, first_context = centre_stop, context_stop
        centre_stop += np.int64(centre_counts[number])
        context_stop += np.int64(context_counts[number])
        if first_centre == centre_stop or first_context == context_stop:
            continue
        rate = np.float32(first_rate + (last_rate - first_rate) * (number / num_walks))
        walk_key = key(sgns.seed ^ WINDOWS, epoch, walks[number])
        _reaches(walk_key, centre_positions[first_centre:centre_stop], sgns.window, reaches)
        noise_key = mix(block_key + np.uint64(walks[number] + 1) * _GOLDEN)
        near, far = first_centre, first_centre
        for other in range(first_context, context_stop):
            position, output = np.int64(context_positions[other]), np.int64(context_rows[other])
            if other + 1 < context_stop:
                fetch(outputs, np.int64(context_rows[other + 1]))
            while far < centre_stop and np.int64(centre_positions[far]) <= position + sgns.window + AHEAD:
                fetch(inputs, np.int64(centre_rows[far]))
                far += 1
            while near < centre_stop and np.int64(centre_positions[near]) < position - sgns.window:
                near += 1
            num_near = _near(
                position,
                centre_positions[near:centre_stop],
                centre_rows[near:centre_stop],
                reaches[near - first_centre :],
                sgns.window,
                same_part,
                near_positions,
                near_rows,
            )
            count += num_near
            if sgns.keep == 1:
                for one in range(num_near):
                    row = near_rows[one]
                    pair_key = mix(noise_key + np.uint64((near_positions[one] << 16) + position + 1) * _GOLDEN)
                    _step(inputs, row, outputs, output, True, rate, change)
                    for k in range(sgns.negative):
                        drawn = negative_row(pair_key, k, cuts, others)
                        if drawn != output:
                            _step(inputs, row, outputs, drawn, False, rate, change)
                    _add(inputs, row, change)
            elif num_near:
                if num_used >= sgns.keep:
                    pair_key = mix(noise_key + np.uint64((near_positions[0] << 16) + position + 1) * _GOLDEN)
                    num_kept = _draw(pair_key, sgns.negative, cuts, others, rows, weights)
                    num_used = 0
                num_used += num_near
                place = num_kept
                for k in range(num_kept):
                    if rows[k] == output:
                        place = k
                rows[num_kept:] = output
                weight = weights[place * MOST]
                _set(place, _ONE, _ONE, targets, weights)
                _share(inputs, near_rows[:num_near], outputs, rows, targets, weights, rate, slopes)
                _set(place, _ZERO, weight, targets, weights)
    return count


@_reassociated
def _draw(pair_key: Word, negative: Int, cuts: Any, others: Any, rows: Any, weights: Any) -> Int:
    """Write down the negatives of a pair, a row that is drawn twice once with weight 2; returns how many rows."""
    num_kept = 0
    for k in range(len(weights)):
        weights[k] = _ZERO
    for number in range(negative):
        drawn = negative_row(pair_key, number, cuts, others)
        place = num_kept
        for k in range(num_kept):
            if rows[k] == drawn:
                place = k
        if place == num_kept:
            rows[place] = drawn
            num_kept += 1
        for lane in range(place * MOST, (place + 1) * MOST):
            weights[lane] += _ONE
    return num_kept


@_reassociated
def _set(place: Int, target: Float, weight: Float, targets: Any, weights: Any) -> None:
    """What the output row at `place` shall be to each centre of a minibatch."""
    for lane in range(place * MOST, (place + 1) * MOST):
        targets[lane], weights[lane] = target, weight


@_reassociated
def _share(
    inputs: Any, centres: Any, outputs: Any, rows: Any, targets: Any, weights: Any, rate: Float, slopes: Any
) -> None:
    """Train the pairs of a context with `centres`, rows of inputs, against `rows` of outputs."""
    first, stop = 0, len(centres)
    while first + 4 <= stop:
        _SCORES_OF_4(inputs, centres, first, outputs, rows, slopes)
        _slope(targets, weights, rate, slopes)
        _MOVE_4(inputs, centres, first, outputs, rows, slopes)
        first += 4
    if first + 2 <= stop:
        _SCORES_OF_2(inputs, centres, first, outputs, rows, slopes)
        _slope(targets, weights, rate, slopes)
        _MOVE_2(inputs, centres, first, outputs, rows, slopes)
        first += 2
    if first < stop:
        _SCORES_OF_1(inputs, centres, first, outputs, rows, slopes)
        _slope(targets, weights, rate, slopes)
        _MOVE_1(inputs, centres, first, outputs, rows, slopes)


@_reassociated
def _slope(targets: Any, weights: Any, rate: Float, slopes: Any) -> None:
    """From scores to slopes, in place."""
    for lane in range(len(slopes)):
        slopes[lane] = rate * (targets[lane] - weights[lane] * sigmoid(slopes[lane]))


@_reassociated
def sigmoid(score: Float) -> Float:
    """1 / (1 + exp(-score)), float32, within 1e-6; next to 0 for what is not a number, which must not reach the table.

    It is (1 + tanh(score / 2)) / 2 with a quotient of polynomials for tanh, whose coefficients are those of the library
    Eigen: without branch or table, so that a loop over scores becomes vector instructions.
    """
    half = np.float32(0.5) * score
    half = min(_FLAT, max(-_FLAT, half))  # in this order: what is not a number becomes -_FLAT
    square = half * half
    above, under = _ABOVE[0], _UNDER[0]
    for k in range(1, len(_ABOVE)):
        above = above * square + _ABOVE[k]
    for k in range(1, len(_UNDER)):
        under = under * square + _UNDER[k]
    return np.float32(0.5) + np.float32(0.5) * half * above / under


@_reassociated
def _step(inputs: Any, row: Int, outputs: Any, output: Int, is_context: Bool, rate: Float, change: Any) -> None:
    """Move one output row by its gradient, and add what it asks of the input row to `change`, float32 [d].

    A pair begins with its context, and `change` anew: a loop that clears it would become a call of memset, which takes
    longer than a step.
    """
    score = _ZERO
    for j in range(len(change)):
        score += inputs[row, j] * outputs[output, j]
    slope = rate * ((_ONE if is_context else _ZERO) - sigmoid(score))
    for j in range(len(change)):
        value = outputs[output, j]
        change[j] = slope * value + (_ZERO if is_context else change[j])
        outputs[output, j] = value + slope * inputs[row, j]


@_reassociated
def _add(inputs: Any, row: Int, change: Any) -> None:
    """Move the input row by what was asked of it."""
    for j in range(len(change)):
        inputs[row, j] += change[j]
