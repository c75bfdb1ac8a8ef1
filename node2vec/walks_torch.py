"""The walks of ``walks`` as torch tensor code, for the CPU and for GPUs: the same numbers, bit for bit.

All walks take their steps together. A step's trials go on with the walks that have not been accepted yet; a trial is a
handful of gathers, integer hashes and comparisons, and a search in the sorted row of t, halving by halving. The law is
``trial``'s, told again in tensors: every probability is the same integer, from the same float64 operations in the same
order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from node2vec.counter_rng import COIN, EXCESS, PROPOSE, draw_torch, high_torch, key_torch, low_torch
from node2vec.trial import MAX_TRIALS, Law, law
from node2vec.walks import Tables, Walks, check, prepare

if TYPE_CHECKING:
    from node2vec.graph import Graph

Tensor = torch.Tensor


class DeviceGraph(NamedTuple):
    """A graph and its tables on one device; letters and meanings as in ``walks``, None where not needed."""

    indptr: Tensor  # int64 [V+1]
    indices: Tensor  # int32 [A]
    weights: Tensor | None  # float32 [A]
    cuts: Tensor | None  # int64 [A]: torch compares no uint32
    others: Tensor | None  # int32 [A]
    totals: Tensor | None  # float64 [V]
    floors: Tensor | None  # float64 [V]
    halvings: int  # that end the search in the longest row


def to_device(graph: Graph, tables: Tables | None = None, device: str | torch.device = "cpu") -> DeviceGraph:
    """Copy a graph and its tables (of ``walks.prepare``; made here if not given) to `device`."""
    if tables is None:
        tables = prepare(graph, bits_per_edge=None)

    def copy(array: npt.NDArray[np.generic] | None) -> Tensor | None:
        return None if array is None else torch.tensor(array, device=device)

    longest = int(np.diff(graph.indptr).max(initial=0))
    return DeviceGraph(
        torch.tensor(graph.indptr, device=device),
        torch.tensor(graph.indices, device=device),
        copy(graph.weights),
        copy(None if tables.cuts is None else tables.cuts.astype(np.int64)),
        copy(tables.others),
        copy(tables.totals),
        copy(tables.floors),
        longest.bit_length(),
    )


def walk(
    graph: DeviceGraph,
    starts: npt.ArrayLike,
    numbers: npt.ArrayLike,
    walk_length: int,
    p: float = 1.0,
    q: float = 1.0,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """``walks.walk`` on the device of `graph`: int32 [n, walk_length] and int32 [n], left on that device."""
    trial_law = law(p, q)
    first, which = check(starts, numbers, walk_length, seed, len(graph.indptr) - 1)
    device = graph.indptr.device
    cur = torch.tensor(first, device=device).long()
    keys = key_torch(seed, cur, torch.tensor(which, device=device))
    prev = torch.full_like(cur, -1)
    walks = torch.full((len(cur), walk_length), -1, dtype=torch.int32, device=device)
    lengths = torch.ones(len(cur), dtype=torch.int32, device=device)
    walks[:, 0] = cur.int()
    rows = torch.arange(len(cur), device=device)  # the walks that have not ended
    for step in range(1, walk_length):
        alive = graph.indptr[cur + 1] > graph.indptr[cur]
        if not bool(alive.all()):
            rows, keys, prev, cur = rows[alive], keys[alive], prev[alive], cur[alive]
        if not len(rows):
            break
        prev, cur = cur, _next(graph, trial_law, keys, step, prev, cur)
        walks[rows, step] = cur.int()
        lengths[rows] = step + 1
    return walks, lengths


def walk_numpy(
    graph: Graph,
    starts: npt.ArrayLike,
    numbers: npt.ArrayLike,
    walk_length: int,
    p: float = 1.0,
    q: float = 1.0,
    seed: int = 0,
    *,
    tables: Tables | None = None,
    device: str | torch.device = "cpu",
) -> Walks:
    """``walks.walk`` computed on `device`, from and to numpy arrays."""
    walks, lengths = walk(to_device(graph, tables, device), starts, numbers, walk_length, p, q, seed)
    return walks.cpu().numpy(), lengths.cpu().numpy()


def _next(graph: DeviceGraph, trial_law: Law, keys: Tensor, step: int, prev: Tensor, cur: Tensor) -> Tensor:
    """Where each walk goes from `cur` (int64 [m], no sinks), coming from `prev` (-1 throughout at step 1)."""
    first = graph.indptr[cur]
    degree = graph.indptr[cur + 1] - first
    result = graph.indices[first].long()  # right for rows of one neighbour
    trying = torch.nonzero(degree > 1).squeeze(1)
    excess = None
    if trial_law.excess > 0 and step > 1:
        excess = _excess_limits(graph, trial_law, prev, cur, first, degree)
    for trial in range(MAX_TRIALS):
        if not len(trying):
            return result
        k, t, v, start, count = keys[trying], prev[trying], cur[trying], first[trying], degree[trying]
        bits = draw_torch(k, step, trial, PROPOSE)
        arc = start + ((high_torch(bits) * count) >> 32)
        if graph.cuts is not None and graph.others is not None:
            coin = high_torch(draw_torch(k, step, trial, COIN))
            arc = torch.where(coin < graph.cuts[arc], arc, start + graph.others[arc])
        x = graph.indices[arc].long()
        if step == 1:
            result[trying] = x
            return result
        accepted = _accepted(graph, trial_law, low_torch(bits), t, v, arc, x)
        if excess is not None:
            returns = (draw_torch(k, step, trial, EXCESS) >> 11) & ((1 << 53) - 1) < excess[trying]
            x = torch.where(returns, t, x)
            accepted |= returns
        result[trying[accepted]] = x[accepted]
        trying = trying[~accepted]
    raise AssertionError("a step took 2^20 trials")  # see trial: this has no probability worth the name


def _excess_limits(
    graph: DeviceGraph, trial_law: Law, prev: Tensor, cur: Tensor, first: Tensor, degree: Tensor
) -> Tensor:
    """``trial.excess_limit`` of each walk, int64 [m]: 0 where cur -> prev is no edge."""
    back, is_edge = _position(graph, first, degree, prev)
    share = is_edge.double() * float(trial_law.excess)
    if graph.weights is None or graph.totals is None:
        row_weight = degree.double()
    else:
        share = share * graph.weights[back].double()
        row_weight = graph.totals[cur]
    return (share / (row_weight + share) * 9007199254740992.0).long()


def _accepted(
    graph: DeviceGraph, trial_law: Law, low_bits: Tensor, prev: Tensor, cur: Tensor, arc: Tensor, x: Tensor
) -> Tensor:
    """2c of ``trial`` for every walk, bool [m]; only walks that have to look prev -> x up do so."""
    back, common, far, least = (int(value) for value in trial_law[:4])
    is_return = x == prev
    accepted = low_bits < torch.where(is_return, back, least)
    asking = torch.nonzero(~accepted & ~is_return).squeeze(1)
    if len(asking):
        prev, low_bits, x = prev[asking], low_bits[asking], x[asking]
        start = graph.indptr[prev]
        seen, is_edge = _position(graph, start, graph.indptr[prev + 1] - start, x)
        limit = torch.where(is_edge, common, far)
        if graph.floors is not None and graph.weights is not None:
            floor, weight = graph.floors[x], graph.weights[seen].double()
            is_weak = graph.weights[arc[asking]].double() < graph.floors[cur[asking]]
            part = torch.where(is_edge & (weight < floor), weight / floor, 0.0)
            bias = float(trial_law.outward) + (1.0 - float(trial_law.outward)) * part
            limit = (bias / float(trial_law.envelope) * 4294967296.0 + 0.5).long()
            limit = torch.where(is_weak, least, limit)
            limit = torch.where(is_edge & (weight >= floor), common, limit)
        accepted[asking] = low_bits < limit
    return accepted


def _position(graph: DeviceGraph, start: Tensor, count: Tensor, vertex: Tensor) -> tuple[Tensor, Tensor]:
    """``trial.position`` in rows of one neighbour or more: the arc that it would be, int64 [m], and whether it is."""
    for _ in range(graph.halvings):
        half = count >> 1
        start = start + half * (graph.indices[(start + half - 1).clamp_(min=0)] < vertex)
        count = count - half
    return start, graph.indices[start] == vertex
