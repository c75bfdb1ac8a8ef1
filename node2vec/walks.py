"""Second-order random walks in one process, on the whole graph: the twin of every other form.

Two kernels give the same walks, bit for bit. `walk_plain` makes one walk after the other and reads like the law in
``trial``. ``walk_lanes`` keeps 32 walks in flight, so that their memory accesses overlap, and can ask an edge filter.

Letters: V nodes, A arcs, n walks, L nodes a walk. Array arguments of both kernels:

    indptr int64 [V+1], indices int32 [A], ascending in each row
    weights float32 [A], cuts uint32 [A], others int32 [A], totals float64 [V]: see ``alias``; None if unweighted
    floors float64 [V]: noise floors of node2vec+; None for node2vec
    starts int32 [n], numbers int64 [n]: start node of each walk, and its number among the walks of that node
    walks int32 [n, L], lengths int32 [n]: the result
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from node2vec import alias, edge_filter, transition
from node2vec.counter_rng import PROPOSE, draw, key, low
from node2vec.jit import Bool, Int, Word, jit
from node2vec.trial import (
    ACCEPT,
    LOOK_UP,
    MAX_TRIALS,
    Law,
    decide_seen,
    decide_seen_plus,
    decide_unseen,
    excess_limit,
    law,
    position,
    proposal,
    returns_by_excess,
)
from node2vec.walk_lanes import walk_lanes
from sparkdl.errors import ConfigError

if TYPE_CHECKING:
    from node2vec.graph import Graph

Walks = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]


class Tables(NamedTuple):
    """What the kernels need beside the graph; arrays as in the head of this module, None where not needed."""

    cuts: Any = None
    others: Any = None
    totals: Any = None
    floors: Any = None
    words: Any = None  # uint64: the edge filter


def prepare(graph: Graph, *, extend: bool = False, gamma: float = 0.0, bits_per_edge: float | None = 12.0) -> Tables:
    """Alias tables, noise floors (`extend`: node2vec+, with its `gamma`) and edge filter (None: without) of a graph."""
    words = None
    if bits_per_edge is not None:
        words = edge_filter.build(graph.indptr, graph.indices, graph.directed, bits_per_edge)
    if graph.weights is None:  # node2vec+ is node2vec there: every edge is as heavy as its node's floor
        return Tables(words=words)
    floors = transition.noise_floors(graph.indptr, graph.weights, gamma) if extend else None
    return Tables(*alias.build(graph.indptr, graph.weights), floors, words)


def walk(
    graph: Graph,
    starts: npt.ArrayLike,
    numbers: npt.ArrayLike,
    walk_length: int,
    p: float = 1.0,
    q: float = 1.0,
    seed: int = 0,
    *,
    tables: Tables | None = None,
    lanes: bool = True,
) -> Walks:
    """Walks of `walk_length` nodes from `starts`, shorter where a node without out-edges ends them.

    `starts`: node numbers 0 .. V-1, [n]. `numbers`: which walk of its start node each one is, 0 or more, [n]. Walk r of
    node s depends on (graph, p, q, seed, s, r) alone. `tables`: of `prepare`, made here if not given. `lanes`: which
    kernel; both give the same.

    Returns int32 [n, walk_length] with -1 behind the end of a walk, and int32 [n], its number of nodes.
    Raises ConfigError: p, q, seed, walk_length or a start that cannot be used.
    """
    first, which = check(starts, numbers, walk_length, seed, len(graph.indptr) - 1)
    if tables is None:
        tables = prepare(graph, bits_per_edge=12.0 if lanes else None)
    walks = np.empty((len(first), walk_length), np.int32)
    lengths = np.empty(len(first), np.int32)
    arrays = (graph.indptr, graph.indices, graph.weights, *tables[:4])
    rest = (law(p, q), np.uint64(seed), first, which, walks, lengths)
    if lanes:
        done = walk_lanes(*arrays, tables.words, graph.directed, *rest)
    else:
        done = walk_plain(*arrays, *rest)
    assert done, "a step took 2^20 trials"  # see trial: this has no probability worth the name
    return walks, lengths


def check(
    starts: npt.ArrayLike, numbers: npt.ArrayLike, walk_length: int, seed: int, num_nodes: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """`starts` and `numbers` of ``walk`` as arrays of equal length; raises ConfigError for what cannot be used."""
    first = np.asarray(starts, np.int64)
    which = np.ascontiguousarray(np.broadcast_to(np.asarray(numbers, np.int64), first.shape))
    outside = first[(first < 0) | (first >= num_nodes)]
    if len(outside):
        raise ConfigError(f"a walk starts at node number {outside[0]}; the graph has nodes 0 to {num_nodes - 1}.")
    if len(which) and which.min() < 0:
        raise ConfigError(f"walk number {which.min()} is negative: the walks of a node are numbered 0, 1, 2, ...")
    if walk_length < 1:
        raise ConfigError(f"walk_length={walk_length}: a walk has one node, its start, at least.")
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed={seed} does not fit 64 bits: give 0 to 2^64 - 1.")
    return np.ascontiguousarray(first, np.int32), which


@jit
def walk_plain(
    indptr: Any,
    indices: Any,
    weights: Any,
    cuts: Any,
    others: Any,
    totals: Any,
    floors: Any,
    trial_law: Law,
    seed: Word,
    starts: Any,
    numbers: Any,
    walks: Any,
    lengths: Any,
) -> Bool:
    """One walk at a time. False: a step took more trials than the counter can tell apart."""
    walk_length = walks.shape[1]
    for row in range(len(starts)):
        walk_key = key(seed, np.int64(starts[row]), numbers[row])
        prev, cur = np.int64(-1), np.int64(starts[row])
        walks[row, 0] = cur
        length = 1
        while length < walk_length:
            arc = next_arc(
                indptr, indices, weights, cuts, others, totals, floors, trial_law, walk_key, length, prev, cur
            )
            if arc < 0:
                if arc == -2:
                    return False
                break
            prev, cur = cur, np.int64(indices[arc])
            walks[row, length] = cur
            length += 1
        walks[row, length:] = -1
        lengths[row] = length
    return True


@jit
def next_arc(
    indptr: Any,
    indices: Any,
    weights: Any,
    cuts: Any,
    others: Any,
    totals: Any,
    floors: Any,
    trial_law: Law,
    walk_key: Word,
    step: Int,
    prev: Int,
    cur: Int,
) -> Int:
    """The arc of step `step` (1 .. L-1) from `cur`, coming from `prev` (-1: the first step); -1 at a sink.

    -2: more trials than the counter can tell apart.
    """
    first = indptr[cur]
    degree = indptr[cur + 1] - first
    if degree == 0:
        return -1
    if degree == 1:
        return first
    limit = np.int64(0)
    if trial_law.excess > 0.0 and prev >= 0:
        if weights is None:
            limit = excess_limit(trial_law, np.float64(degree), 1.0)
        else:
            back = position(indices, first, first + degree, prev)
            if back >= 0:
                limit = excess_limit(trial_law, totals[cur], np.float64(weights[back]))
    for trial in range(MAX_TRIALS):
        if limit > 0 and returns_by_excess(walk_key, step, trial, limit):
            back = position(indices, first, first + degree, prev)  # v -> t may be missing, and then nothing is folded
            if back >= 0:
                return back
        bits = draw(walk_key, step, trial, PROPOSE)
        arc = proposal(walk_key, bits, step, trial, first, degree, cuts, others)
        if prev < 0:
            return arc
        x = indices[arc]
        is_weak = False
        if floors is not None:
            is_weak = weights[arc] < floors[cur]
        verdict = decide_unseen(trial_law, low(bits), x == prev, is_weak)
        if verdict == LOOK_UP:
            seen = position(indices, indptr[prev], indptr[prev + 1], x)
            if floors is None:
                accepted = decide_seen(trial_law, low(bits), seen >= 0)
            else:
                accepted = decide_seen_plus(trial_law, low(bits), seen >= 0, is_weak, weights[max(seen, 0)], floors[x])
        else:
            accepted = verdict == ACCEPT
        if accepted:
            return arc
    return -2
