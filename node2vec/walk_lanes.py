"""The walk kernel for large graphs: 32 walks in flight, one phase of a trial at a time.

A trial reads a row's bounds, a neighbour, perhaps the filter's word, perhaps another row: each a cache miss on a large
graph, and each needed before the next. One walk alone waits for every miss. Here a phase makes the same access for all
walks in flight, none of which needs another's, and the processor overlaps them. A walk that ends gives its lane to
the next one. What is decided, and with which bits, is ``trial``'s alone, so that the walks are those of
``walks.walk_plain``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from node2vec.counter_rng import PROPOSE, draw, key, low
from node2vec.edge_filter import maybe
from node2vec.jit import Bool, Word, jit
from node2vec.trial import (
    ACCEPT,
    LOOK_UP,
    MAX_TRIALS,
    REJECT,
    Law,
    decide_seen,
    decide_seen_plus,
    decide_unseen,
    excess_limit,
    position,
    proposal,
    returns_by_excess,
)

NUM_LANES = 32


@jit
def walk_lanes(
    indptr: Any,
    indices: Any,
    weights: Any,
    cuts: Any,
    others: Any,
    totals: Any,
    floors: Any,
    words: Any,
    directed: Bool,
    trial_law: Law,
    seed: Word,
    starts: Any,
    numbers: Any,
    walks: Any,
    lengths: Any,
) -> Bool:
    """All walks; arguments as in ``walks``, `words` the edge filter or None. False: a step took too many trials."""
    num_walks, walk_length = walks.shape
    rows = np.empty(NUM_LANES, np.int64)  # which walk
    keys = np.empty(NUM_LANES, np.uint64)
    prevs = np.empty(NUM_LANES, np.int64)
    curs = np.empty(NUM_LANES, np.int64)
    steps = np.empty(NUM_LANES, np.int64)
    trials = np.empty(NUM_LANES, np.int64)
    firsts = np.empty(NUM_LANES, np.int64)  # row of cur
    degrees = np.empty(NUM_LANES, np.int64)
    prev_firsts = np.empty(NUM_LANES, np.int64)  # row of prev
    prev_degrees = np.empty(NUM_LANES, np.int64)
    backs = np.empty(NUM_LANES, np.int64)  # on weighted graphs, the arc from cur to prev, or -1
    halves = np.empty(NUM_LANES, np.uint64)  # low half of the trial's draw
    arcs = np.empty(NUM_LANES, np.int64)
    candidates = np.empty(NUM_LANES, np.int64)
    weak = np.zeros(NUM_LANES, np.bool_)
    verdicts = np.empty(NUM_LANES, np.int64)
    asking = np.empty(NUM_LANES, np.int64)  # the lanes that look t -> x up
    lows = np.empty(NUM_LANES, np.int64)
    counts = np.empty(NUM_LANES, np.int64)

    waiting = 0  # the first walk that has no lane yet
    active = 0
    while True:
        while active < NUM_LANES and waiting < num_walks:
            start = np.int64(starts[waiting])
            walks[waiting, 0] = start
            if walk_length == 1:
                lengths[waiting] = 1
            else:
                rows[active] = waiting
                keys[active] = key(seed, start, numbers[waiting])
                prevs[active], curs[active], steps[active], trials[active] = -1, start, 1, 0
                prev_firsts[active], prev_degrees[active] = 0, 0
                active += 1
            waiting += 1
        if active == 0:
            return True

        # The row of cur; a walk that tries again finds it in the cache.
        for lane in range(active):
            firsts[lane] = indptr[curs[lane]]
            degrees[lane] = indptr[curs[lane] + 1] - firsts[lane]

        # A neighbour is proposed.
        for lane in range(active):
            first, degree, step, trial = firsts[lane], degrees[lane], steps[lane], trials[lane]
            verdicts[lane] = LOOK_UP
            if degree <= 1:
                arcs[lane] = first
                verdicts[lane] = ACCEPT
                continue
            if trial_law.excess > 0.0 and prevs[lane] >= 0:
                if weights is None:
                    limit = excess_limit(trial_law, np.float64(degree), 1.0)
                else:
                    if trial == 0:
                        backs[lane] = position(indices, first, first + degree, prevs[lane])
                    limit = np.int64(0)
                    if backs[lane] >= 0:
                        limit = excess_limit(trial_law, totals[curs[lane]], np.float64(weights[backs[lane]]))
                if returns_by_excess(keys[lane], step, trial, limit):
                    back = position(indices, first, first + degree, prevs[lane])
                    if back >= 0:
                        arcs[lane] = back
                        verdicts[lane] = ACCEPT
                        continue
            bits = draw(keys[lane], step, trial, PROPOSE)
            halves[lane] = low(bits)
            arcs[lane] = proposal(keys[lane], bits, step, trial, first, degree, cuts, others)

        # Which vertex it is.
        for lane in range(active):
            if degrees[lane] > 0:
                candidates[lane] = indices[arcs[lane]]

        # What can be decided unseen; who still asks is listed.
        num_asking = 0
        for lane in range(active):
            if verdicts[lane] == LOOK_UP:
                if prevs[lane] < 0:
                    verdicts[lane] = ACCEPT
                    continue
                if floors is not None:
                    weak[lane] = weights[arcs[lane]] < floors[curs[lane]]
                verdict = decide_unseen(trial_law, halves[lane], candidates[lane] == prevs[lane], weak[lane])
                verdicts[lane] = verdict
                asking[num_asking] = lane
                num_asking += verdict == LOOK_UP

        # The filter may know that t -> x is no edge; the others are kept in the list.
        if words is not None:
            num_all, num_asking = num_asking, 0
            for place in range(num_all):
                lane = asking[place]
                if floors is None:
                    accepted = decide_seen(trial_law, halves[lane], False)
                else:
                    accepted = decide_seen_plus(trial_law, halves[lane], False, weak[lane], 0.0, 0.0)
                verdicts[lane] = ACCEPT if accepted else REJECT
                asking[num_asking] = lane
                num_asking += maybe(words, prevs[lane], candidates[lane], directed)

        # trial.position in the row of t for all of them, halving by halving; t has the edge to v at least.
        longest = 0
        for place in range(num_asking):
            lows[place], counts[place] = prev_firsts[asking[place]], prev_degrees[asking[place]]
            longest = max(longest, counts[place])
        while longest > 1:
            longest -= longest >> 1
            for place in range(num_asking):
                half = counts[place] >> 1
                probe = indices[lows[place] + half - (half > 0)]
                lows[place] += half * (probe < candidates[asking[place]])
                counts[place] -= half
        for place in range(num_asking):
            lane, seen = asking[place], lows[place]
            is_edge = indices[seen] == candidates[lane]
            if floors is None:
                accepted = decide_seen(trial_law, halves[lane], is_edge)
            else:
                accepted = decide_seen_plus(
                    trial_law, halves[lane], is_edge, weak[lane], weights[seen], floors[candidates[lane]]
                )
            verdicts[lane] = ACCEPT if accepted else REJECT

        # Go on, or try again; from the last lane down, so that a lane that ends can take the last one's walk. Whether
        # a trial succeeds cannot be foreseen: sums and products cost less here than a branch.
        for lane in range(active - 1, -1, -1):
            row, length = rows[lane], steps[lane]
            if degrees[lane] > 0:
                taken = np.int64(verdicts[lane] == ACCEPT)
                walks[row, length] = candidates[lane]  # of a rejected one the next trial writes anew
                prevs[lane] += taken * (curs[lane] - prevs[lane])
                curs[lane] += taken * (candidates[lane] - curs[lane])
                prev_firsts[lane] += taken * (firsts[lane] - prev_firsts[lane])
                prev_degrees[lane] += taken * (degrees[lane] - prev_degrees[lane])
                trials[lane] = (trials[lane] + 1) * (1 - taken)
                length += taken
                steps[lane] = length
                if trials[lane] == MAX_TRIALS:
                    return False
            if degrees[lane] == 0 or length == walk_length:
                walks[row, length:] = -1
                lengths[row] = length
                active -= 1
                rows[lane], keys[lane], backs[lane] = rows[active], keys[active], backs[active]
                prevs[lane], curs[lane] = prevs[active], curs[active]
                steps[lane], trials[lane] = steps[active], trials[active]
                prev_firsts[lane], prev_degrees[lane] = prev_firsts[active], prev_degrees[active]
