"""The kernels of skip-gram on one block: finding the pairs in two token streams, and descending by each of them.

`meet` writes the pairs down, `descend` trains them. Both go through the two streams walk by walk and, in a walk,
context by context, with a place in the centres that follows the window. ``skipgram`` says what is trained, and what the
arguments are.

With shared negatives `descend` keeps the output rows that it needs again and again, the context's and the negatives',
in a small buffer, which stays in the processor's nearest cache; a pair touches one row of the tables, its centre's. A
row is in the buffer or in the table, never in both: where a context is among the negatives, it has no row of its own in
the buffer. So the result is that of all rows in the table, and the buffer is written back at the end.

The pairs of one *context* share negatives, not those of one centre: a centre that is pushed off the same five rows ten
times in a row learns less than from fifty (PPI: macro-F1 .163 instead of .176, and norms 18 % larger). It is the
arrangement of Ji et al., *Parallelizing word2vec in shared and distributed memory* (2016).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from node2vec.counter_rng import GOLDEN, below, key, low, mix
from node2vec.jit import Bool, Float, Int, Word, jit

import numba  # isort: skip  # behind node2vec.jit, which says what is missing

Function = TypeVar("Function", bound=Callable[..., Any])

# What a draw is for: others are made from the same seed.
WINDOWS = np.uint64(0x57494E444F5753)  # "WINDOWS"
NEGATIVES = np.uint64(0x4E45474154495645)  # "NEGATIVE"

LIMIT = 12.0  # where sigmoid is taken for 0 or 1: it is 6e-6 from them
PER_UNIT = 32  # places of the table of sigmoid; straight lines between them are off by 1.2e-5 at most
_SIGMOID = (1.0 / (1.0 + np.exp(-np.arange(-LIMIT, LIMIT + 2 / PER_UNIT, 1 / PER_UNIT)))).astype(np.float32)
AT_ONCE = 3  # rows of the buffer in one loop
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
    if low(bits) < np.uint64(cuts[slot]):
        return slot
    return np.int64(others[slot])


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
    reaches = np.empty(_most(centre_counts), np.int64)
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
            for one in range(near, centre_stop):
                distance = np.int64(centre_positions[one]) - position
                if distance > window:
                    break
                if abs(distance) > reaches[one - first_centre] or (same_part and distance == 0):
                    continue
                if count < len(found):
                    found[count, 0], found[count, 1] = centre_rows[one], context_rows[other]
                count += 1
    return count


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
    dimensions, num_walks = inputs.shape[1], len(walks)
    change = np.zeros(dimensions, np.float32)
    own = sgns.negative  # the context's place in the buffer, behind those of the negatives
    num_places = -(-(own + 1) // AT_ONCE) * AT_ONCE  # the last few may stay empty, with weight 0
    buffer = np.zeros((num_places, dimensions), np.float32)
    blocks = np.arange(0, num_places, AT_ONCE)
    slopes = np.zeros(num_places, np.float32)
    weights = np.zeros(num_places, np.float32)  # how often a negative was drawn
    rows = np.full(num_places, -1, np.int64)  # which rows of outputs the negatives are
    num_kept, num_used = 0, sgns.keep
    reaches = np.empty(_most(centre_counts), np.int64)
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
        near = first_centre
        for other in range(first_context, context_stop):
            position, output = np.int64(context_positions[other]), np.int64(context_rows[other])
            while near < centre_stop and np.int64(centre_positions[near]) < position - sgns.window:
                near += 1
            place = -1  # of the context in the buffer; it is put there at its first pair
            for one in range(near, centre_stop):
                distance = np.int64(centre_positions[one]) - position
                if distance > sgns.window:
                    break
                if abs(distance) > reaches[one - first_centre] or (same_part and distance == 0):
                    continue
                count += 1
                row = np.int64(centre_rows[one])
                pair_key = noise_key + np.uint64(((position + distance) << 16) + position + 1) * _GOLDEN
                if sgns.keep == 1:
                    pair_key = mix(pair_key)
                    _step(inputs, row, outputs, output, True, rate, change)
                    for k in range(sgns.negative):
                        drawn = negative_row(pair_key, k, cuts, others)
                        if drawn != output:
                            _step(inputs, row, outputs, drawn, False, rate, change)
                    _add(inputs, row, change)
                    continue
                if place < 0:
                    if num_used >= sgns.keep:
                        _put_back(buffer, outputs, rows, num_kept)
                        num_kept = _draw(mix(pair_key), sgns.negative, cuts, others, outputs, buffer, rows, weights)
                        num_used = 0
                    place = own
                    for k in range(num_kept):
                        if rows[k] == output:
                            place = k
                    if place == own:
                        _copy(outputs, output, buffer, own)
                    weight, weights[place] = weights[place], _ONE
                num_used += 1
                _shared_step(inputs, row, buffer, blocks, place, weights, rate, slopes, change)
            if place >= 0:
                weights[place] = weight
                if place == own:
                    _copy(buffer, own, outputs, output)
    _put_back(buffer, outputs, rows, num_kept)
    return count


@_reassociated
def _draw(
    pair_key: Word, negative: Int, cuts: Any, others: Any, outputs: Any, buffer: Any, rows: Any, weights: Any
) -> Int:
    """Copy the negatives of a pair to the buffer, a row that is drawn twice once with weight 2; returns how many."""
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
            _copy(outputs, drawn, buffer, place)
            num_kept += 1
        weights[place] += _ONE
    return num_kept


@_reassociated
def _put_back(buffer: Any, outputs: Any, rows: Any, num_kept: Int) -> None:
    """The negatives' rows from the buffer to the table."""
    for k in range(num_kept):
        _copy(buffer, k, outputs, rows[k])


@_reassociated
def _copy(source: Any, row: Int, target: Any, place: Int) -> None:
    """A row of one table to a place of another: numba's own assignment of slices takes many times as long."""
    for j in range(source.shape[1]):
        target[place, j] = source[row, j]


@_reassociated
def sigmoid(score: Float) -> Float:
    """1 / (1 + exp(-score)), float32, within 2e-5; 0 for what is not a number, which must not reach the table."""
    if score >= np.float32(LIMIT):
        return _ONE
    if score > np.float32(-LIMIT):
        place = (score + np.float32(LIMIT)) * np.float32(PER_UNIT)
        whole = np.int64(place)
        return _SIGMOID[whole] + (place - np.float32(whole)) * (_SIGMOID[whole + 1] - _SIGMOID[whole])
    return _ZERO


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


@_reassociated
def _shared_step(
    inputs: Any, row: Int, buffer: Any, blocks: Any, place: Int, weights: Any, rate: Float, slopes: Any, change: Any
) -> None:
    """One pair: move the input row and all rows of the buffer, of which the one at `place` is the context's.

    Three rows at a time, so that an element of the input row is loaded once for them; `blocks` says where each three
    begin. It is an array, for if the compiler knew it would ask, before all blocks, whether any two rows overlap
    anywhere, find that those of different blocks do, and use no vector registers.
    """
    for block in range(len(blocks)):
        k = blocks[block]
        first, second, third = _ZERO, _ZERO, _ZERO
        for j in range(len(change)):
            first += inputs[row, j] * buffer[k, j]
            second += inputs[row, j] * buffer[k + 1, j]
            third += inputs[row, j] * buffer[k + 2, j]
        slopes[k], slopes[k + 1], slopes[k + 2] = first, second, third
    for k in range(len(slopes)):
        slopes[k] = rate * ((_ONE if k == place else _ZERO) - weights[k] * sigmoid(slopes[k]))
    for j in range(len(change)):
        change[j] = inputs[row, j]
    for block in range(len(blocks)):
        k = blocks[block]
        first, second, third = slopes[k], slopes[k + 1], slopes[k + 2]
        for j in range(len(change)):
            x, a, b, c = inputs[row, j], buffer[k, j], buffer[k + 1, j], buffer[k + 2, j]
            change[j] += first * a + second * b + third * c
            buffer[k, j] = a + first * x
            buffer[k + 1, j] = b + second * x
            buffer[k + 2, j] = c + third * x
    for j in range(len(change)):
        inputs[row, j] = change[j]
