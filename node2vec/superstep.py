"""Walks that visit the parts of a graph: the kernel of one superstep.

A walk travels only where it has to, as one of two records of int32:

    arrival       walk, prev, cur, step                    16 bytes: it stands at cur, whose row is here
    verification  walk, prev, cur, candidate, step, trial  24 bytes: is prev -> candidate an edge? A row here knows.
                                                           candidate -2: rejected elsewhere, make this trial at cur
                                                           trial has WEAK added if cur -> candidate is (node2vec+)

It carries no random state and no path. Every draw is recomputed from (seed, start, walk number, step, trial), and each
step is logged where it is decided, as a uint32 position in the matrix of its bucket's walks and the int32 vertex. So
who walks what where cannot change a bit of the result; what is decided, and with which bits, is ``trial``'s alone.

Where a verification goes: on symmetric graphs to the owner of the candidate, who can answer in prev's stead, and where
an accepted walk is at home at once; on others to the owner of prev. A row of prev (or candidate) that is here, as an
own row or a hub's, is asked instead. The edge filter's "no" needs no row at all, its "maybe" decides nothing.

The kernel keeps 32 walks in flight, as ``walk_lanes`` does and for its reasons.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from node2vec.counter_rng import PROPOSE, draw, key, low
from node2vec.edge_filter import maybe
from node2vec.graph_parts import Part, row_of
from node2vec.jit import jit
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

Records = npt.NDArray[np.int32]

NUM_LANES = 32
ARRIVAL, VERIFICATION = 4, 6  # int32 of a record
REJECTED = -2
WEAK = 1 << 30
_ENDED, _LEAVE = 3, 4  # verdicts beside trial's

GOING, TOO_MANY_TRIALS, WRONG_PART = 0, 1, 2  # how a call ended


class Batch(NamedTuple):
    """The walks of a round as a kernel needs them; ids are 0 .. W-1 within the round."""

    first: int  # the id of walk 0 among all walks: walk number * number of starts + place of the start
    num_starts: int
    walk_length: int  # L
    bucket_walks: int  # walks of a bucket
    seed: np.uint64
    law: Law


class Output(NamedTuple):
    """Buffers that `advance` fills; the caller may give the same ones again."""

    arrivals: Records  # [n, 4]
    verifications: Records  # [n, 6]
    log: Records  # [m, 2]: position (uint32 bits), vertex
    buckets: Records  # [m]: where the log records go
    counts: npt.NDArray[np.int64]  # [4]: records in each of the first three; input records taken


def output(num_walkers: int, num_log: int) -> Output:
    """Empty buffers for so many walkers (each leaves once at most) and so many log records."""
    return Output(
        np.empty((num_walkers, ARRIVAL), np.int32),
        np.empty((num_walkers, VERIFICATION), np.int32),
        np.empty((num_log, 2), np.int32),
        np.empty(num_log, np.int32),
        np.zeros(4, np.int64),
    )


@jit
def destination(part: Part, prev: int, cur: int, candidate: int) -> int:
    """The part that a verification goes to."""
    if candidate == REJECTED:
        return cur % part.num_parts
    return (candidate if part.symmetric else prev) % part.num_parts


@jit
def advance(
    part: Part,
    weights: Any,
    cuts: Any,
    others: Any,
    totals: Any,
    words: Any,
    floors: Any,
    batch: Batch,
    starts: Any,
    verifications: Records,
    arrivals: Records,
    out: Output,
) -> int:
    """Move the walkers from input record ``out.counts[3]`` on until all of them have left or ended, or the log is full.

    weights .. floors: the part's, once more: numba drops the branches of a missing array only if it is an argument.
    starts: int32 [num_starts], start nodes by their places; None: the place is the node.
    verifications: int32 [n, 6]; arrivals: int32 [m, 4]; they count as one sequence. A walker is taken only if the log
    has room for all its steps and for those of the walkers in flight, so that no state is left behind between calls:
    the caller empties the log and calls again until all input is taken. Returns GOING, or what went wrong.
    """
    walk_length = batch.walk_length
    trial_law = batch.law
    num_verifications = len(verifications)
    num_input = num_verifications + len(arrivals)
    num_arrivals, num_leaving, num_log, taken = out.counts[0], out.counts[1], out.counts[2], out.counts[3]

    walks = np.empty(NUM_LANES, np.int64)
    keys = np.empty(NUM_LANES, np.uint64)
    prevs = np.empty(NUM_LANES, np.int64)
    curs = np.empty(NUM_LANES, np.int64)
    candidates = np.empty(NUM_LANES, np.int64)
    steps = np.empty(NUM_LANES, np.int64)
    trials = np.empty(NUM_LANES, np.int64)
    visiting = np.empty(NUM_LANES, np.bool_)  # came as a verification and has not been answered; cur's row is not here
    fresh = np.empty(NUM_LANES, np.bool_)  # cur's row was not read yet
    firsts = np.empty(NUM_LANES, np.int64)
    degrees = np.empty(NUM_LANES, np.int64)
    limits = np.zeros(NUM_LANES, np.uint64)
    halves = np.empty(NUM_LANES, np.uint64)
    arcs = np.empty(NUM_LANES, np.int64)
    weak = np.zeros(NUM_LANES, np.bool_)  # node2vec+: cur -> candidate is below the noise floor of cur
    verdicts = np.empty(NUM_LANES, np.int64)
    asking = np.empty(NUM_LANES, np.int64)  # the lanes that look prev -> candidate up
    wanted = np.empty(NUM_LANES, np.int64)  # what they look for
    lows = np.empty(NUM_LANES, np.int64)
    widths = np.empty(NUM_LANES, np.int64)

    active = 0
    while True:
        while active < NUM_LANES and taken < num_input and num_log + (active + 1) * (walk_length - 1) <= len(out.log):
            if taken < num_verifications:
                walks[active] = verifications[taken, 0]
                prevs[active], curs[active] = verifications[taken, 1], verifications[taken, 2]
                candidates[active] = verifications[taken, 3]
                steps[active], trials[active] = verifications[taken, 4], verifications[taken, 5]
                visiting[active] = candidates[active] != REJECTED
                if floors is not None:
                    weak[active] = trials[active] >= WEAK
                    trials[active] &= WEAK - 1
            else:
                record = taken - num_verifications
                walks[active] = arrivals[record, 0]
                prevs[active], curs[active] = arrivals[record, 1], arrivals[record, 2]
                steps[active], trials[active] = arrivals[record, 3], 0
                visiting[active] = False
            taken += 1
            if steps[active] < walk_length:
                number = (batch.first + walks[active]) // batch.num_starts
                start = batch.first + walks[active] - number * batch.num_starts
                if starts is not None:
                    start = np.int64(starts[start])
                keys[active] = key(batch.seed, start, number)
                fresh[active] = True
                active += 1
        if active == 0:
            break

        # The row that a walker stands at.
        for lane in range(active):
            if fresh[lane] and not visiting[lane]:
                row = row_of(part, curs[lane])
                if row < 0:
                    return WRONG_PART
                firsts[lane] = part.indptr[row]
                degrees[lane] = part.indptr[row + 1] - part.indptr[row]
                arcs[lane] = row

        # A neighbour is proposed.
        for lane in range(active):
            verdicts[lane] = LOOK_UP
            step, trial = steps[lane], trials[lane]
            if visiting[lane]:
                halves[lane] = low(draw(keys[lane], step, trial, PROPOSE))
                continue
            first, degree = firsts[lane], degrees[lane]
            if degree <= 1:
                arcs[lane] = first
                verdicts[lane] = ACCEPT if degree == 1 else _ENDED
                continue
            if trial_law.excess > 0.0 and prevs[lane] >= 0:
                if fresh[lane]:
                    limits[lane] = 0
                    if weights is None:
                        limits[lane] = excess_limit(trial_law, np.float64(degree), 1.0)
                    else:
                        back = position(part.indices, first, first + degree, prevs[lane])
                        if back >= 0:
                            total, weight = totals[arcs[lane]], np.float64(weights[back])
                            limits[lane] = excess_limit(trial_law, total, weight)
                if returns_by_excess(keys[lane], step, trial, limits[lane]):
                    back = position(part.indices, first, first + degree, prevs[lane])
                    if back >= 0:
                        arcs[lane] = back
                        verdicts[lane] = ACCEPT
                        continue
            bits = draw(keys[lane], step, trial, PROPOSE)
            halves[lane] = low(bits)
            arcs[lane] = proposal(keys[lane], bits, step, trial, first, degree, cuts, others)

        # Which one it is, and whether that decides.
        for lane in range(active):
            if visiting[lane] or verdicts[lane] == _ENDED:
                continue
            fresh[lane] = False
            candidates[lane] = part.indices[arcs[lane]]
            if verdicts[lane] == LOOK_UP:
                if prevs[lane] < 0:
                    verdicts[lane] = ACCEPT
                else:
                    if floors is not None:
                        weak[lane] = weights[arcs[lane]] < floors[curs[lane]]
                    is_return = candidates[lane] == prevs[lane]
                    verdicts[lane] = decide_unseen(trial_law, halves[lane], is_return, weak[lane])

        # The filter may know that prev -> candidate is no edge; else a row here may answer.
        if words is not None:
            for lane in range(active):
                if (
                    verdicts[lane] == LOOK_UP
                    and not visiting[lane]
                    and not maybe(words, prevs[lane], candidates[lane], part.directed)
                ):
                    if floors is None:
                        accepted = decide_seen(trial_law, halves[lane], False)
                    else:
                        accepted = decide_seen_plus(trial_law, halves[lane], False, weak[lane], 0.0, 0.0)
                    verdicts[lane] = ACCEPT if accepted else REJECT
        num_asking = 0
        for lane in range(active):
            if verdicts[lane] == LOOK_UP:
                row = row_of(part, prevs[lane])
                wanted[num_asking] = candidates[lane]
                if row < 0 and part.symmetric:
                    row = row_of(part, candidates[lane])
                    wanted[num_asking] = prevs[lane]
                if row < 0:
                    if visiting[lane]:
                        return WRONG_PART
                    verdicts[lane] = _LEAVE
                    continue
                asking[num_asking] = lane
                lows[num_asking] = part.indptr[row]
                widths[num_asking] = part.indptr[row + 1] - part.indptr[row]
                num_asking += 1

        # trial.position for all of them, halving by halving.
        searching = num_asking > 0
        while searching:
            searching = False
            for place in range(num_asking):
                if widths[place] > 1:
                    half = widths[place] >> 1
                    if part.indices[lows[place] + half - 1] < wanted[place]:
                        lows[place] += half
                    widths[place] -= half
                    searching = True
        for place in range(num_asking):
            lane = asking[place]
            is_edge = widths[place] == 1 and part.indices[lows[place]] == wanted[place]
            if floors is None:
                accepted = decide_seen(trial_law, halves[lane], is_edge)
            else:
                weight_seen = weights[lows[place]] if is_edge else np.float32(0.0)
                floor = floors[candidates[lane]]
                accepted = decide_seen_plus(trial_law, halves[lane], is_edge, weak[lane], weight_seen, floor)
            verdicts[lane] = ACCEPT if accepted else REJECT

        # Go on, leave or end; from the last lane down, so that a lane that is given up can take the last one's walker.
        for lane in range(active - 1, -1, -1):
            stays = False
            if verdicts[lane] == ACCEPT:
                step, vertex = steps[lane], candidates[lane]
                bucket = walks[lane] // batch.bucket_walks
                cell = (walks[lane] - bucket * batch.bucket_walks) * walk_length + step
                out.log[num_log, 0] = np.int32(np.uint32(cell))
                out.log[num_log, 1] = vertex
                out.buckets[num_log] = bucket
                num_log += 1
                prevs[lane], curs[lane] = curs[lane], vertex
                steps[lane], trials[lane] = step + 1, 0
                visiting[lane], fresh[lane] = False, True
                if step + 1 < walk_length:
                    stays = row_of(part, vertex) >= 0
                    if not stays:
                        out.arrivals[num_arrivals, 0] = walks[lane]
                        out.arrivals[num_arrivals, 1] = prevs[lane]
                        out.arrivals[num_arrivals, 2] = vertex
                        out.arrivals[num_arrivals, 3] = step + 1
                        num_arrivals += 1
            elif verdicts[lane] != _ENDED:
                if verdicts[lane] == REJECT:
                    trials[lane] += 1
                    if trials[lane] == MAX_TRIALS:
                        return TOO_MANY_TRIALS
                    candidates[lane] = REJECTED
                    stays = not visiting[lane] or row_of(part, curs[lane]) >= 0
                    visiting[lane] = False
                if not stays:
                    out.verifications[num_leaving, 0] = walks[lane]
                    out.verifications[num_leaving, 1] = prevs[lane]
                    out.verifications[num_leaving, 2] = curs[lane]
                    out.verifications[num_leaving, 3] = candidates[lane]
                    out.verifications[num_leaving, 4] = steps[lane]
                    out.verifications[num_leaving, 5] = trials[lane]
                    if floors is not None and weak[lane] and candidates[lane] != REJECTED:
                        out.verifications[num_leaving, 5] += WEAK
                    num_leaving += 1
            if not stays:
                active -= 1
                walks[lane], keys[lane] = walks[active], keys[active]
                prevs[lane], curs[lane], candidates[lane] = prevs[active], curs[active], candidates[active]
                steps[lane], trials[lane] = steps[active], trials[active]
                visiting[lane], fresh[lane], weak[lane] = visiting[active], fresh[active], weak[active]
                firsts[lane], degrees[lane], limits[lane] = firsts[active], degrees[active], limits[active]
    out.counts[0], out.counts[1], out.counts[2], out.counts[3] = num_arrivals, num_leaving, num_log, taken
    return GOING


@jit
def sort_by_part(part: Part, records: Records, found: Records, starts: npt.NDArray[np.int64]) -> None:
    """A counting sort of arrivals or verifications, int32 [n, 4 or 6], by the part they go to, into `found`.

    `starts`: int64 [P+1], written: where each part's records begin.
    """
    starts[:] = 0
    for i in range(len(records)):
        starts[_target(part, records, i) + 1] += 1
    for number in range(part.num_parts):
        starts[number + 1] += starts[number]
    ends = starts.copy()
    for i in range(len(records)):
        number = _target(part, records, i)
        for column in range(records.shape[1]):
            found[ends[number], column] = records[i, column]
        ends[number] += 1


@jit
def _target(part: Part, records: Records, i: int) -> int:
    if records.shape[1] == ARRIVAL:
        return int(records[i, 2]) % part.num_parts
    return destination(part, records[i, 1], records[i, 2], records[i, 3])


@jit
def sort_by_bucket(log: Records, buckets: Records, found: Records, starts: npt.NDArray[np.int64]) -> None:
    """A counting sort of log records, int32 [n, 2], by buckets, int32 [n], into `found`; `starts`: int64 [A+1]."""
    starts[:] = 0
    for i in range(len(buckets)):
        starts[buckets[i] + 1] += 1
    for bucket in range(len(starts) - 1):
        starts[bucket + 1] += starts[bucket]
    ends = starts.copy()
    for i in range(len(buckets)):
        place = ends[buckets[i]]
        found[place, 0], found[place, 1] = log[i, 0], log[i, 1]
        ends[buckets[i]] = place + 1


@jit
def scatter(log: Records, walks: npt.NDArray[np.int32]) -> None:
    """Write log records, int32 [n, 2], into the matrix of their bucket's walks, int32 [m * L], flat.

    In any order, also twice.
    """
    for i in range(len(log)):
        walks[np.int64(np.uint32(log[i, 0]))] = log[i, 1]
