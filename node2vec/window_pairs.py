"""The pairs of two token streams: a context, and the centres in whose windows it is.

`meet` writes the pairs down; ``pair_kernel.descend`` trains them as it finds them, with the same functions. Both go
through the two streams walk by walk and, in a walk, context by context, with a place in the centres that follows the
window. ``skipgram`` says what a pair is, and what the arguments are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from node2vec.counter_rng import GOLDEN, below, key, mix
from node2vec.jit import Bool, Int, Word, jit, reassociated

WINDOWS = np.uint64(0x57494E444F5753)  # "WINDOWS": what a draw is for, since others are made from the same seed
_GOLDEN = np.uint64(GOLDEN)


@jit
def reach(walk_key: Word, position: Int, window: Int) -> Int:
    """How far the contexts of the centre at `position` may be: 1 .. window."""
    return 1 + below(mix(walk_key + np.uint64(position + 1) * _GOLDEN), window)


@jit
def reaches_of(walk_key: Word, positions: Any, window: Int, reaches: Any) -> None:
    """`reach` of each centre of a walk."""
    for one in range(len(positions)):
        reaches[one] = reach(walk_key, np.int64(positions[one]), window)


@reassociated
def near_centres(
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
def most_of(counts: Any) -> Int:
    """The largest of some counts; 0 if there are none."""
    most: Int = 0
    for count in counts:
        most = max(most, np.int64(count))
    return most


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
    most = most_of(centre_counts)
    reaches, near_positions, near_rows = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    centre_stop: Int = 0
    context_stop: Int = 0
    for place in range(len(walks)):
        first_centre, first_context = centre_stop, context_stop
        centre_stop += np.int64(centre_counts[place])
        context_stop += np.int64(context_counts[place])
        reaches_of(
            key(seed ^ WINDOWS, epoch, walks[place]), centre_positions[first_centre:centre_stop], window, reaches
        )
        near = first_centre
        for other in range(first_context, context_stop):
            position = np.int64(context_positions[other])
            while near < centre_stop and np.int64(centre_positions[near]) < position - window:
                near += 1
            positions, rows = centre_positions[near:centre_stop], centre_rows[near:centre_stop]
            own_reaches = reaches[near - first_centre :]
            num_near = near_centres(
                position, positions, rows, own_reaches, window, same_part, near_positions, near_rows
            )
            for k in range(min(num_near, len(found) - count)):
                found[count + k, 0], found[count + k, 1] = near_rows[k], context_rows[other]
            count += num_near
    return count
