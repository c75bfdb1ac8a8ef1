"""The law of a walk, stated so that it can be checked by eye; the kernels are tested against it.

A walk that came from t stands at v. It goes on to the neighbour x of v with probability proportional to
weight(v, x) * bias(t, v, x) (Grover and Leskovec, *node2vec*, KDD 2016, section 3.2.2):

    bias = 1/p   if x is t,
           1     if t -> x is an edge,
           1/q   otherwise.

A walk's first step goes by weight alone. An unweighted edge weighs 1. The three cases are asked in this order: back to
t counts as a return even where t has a loop. On directed graphs the question is whether the edge leads *from t to x*,
as in PecanPy (Liu and Krishnan, *Bioinformatics* 2021); the authors' first code asks for x -> t. A walk returns only
where v -> t is an edge, for it follows edges of v.

node2vec+ (Liu, Hirn and Krishnan, *Bioinformatics* 2023), as PecanPy has it, knows weak edges: those lighter than the
noise floor of their node, mean + gamma * standard deviation of its edges' weights and at least 0. An edge t -> x that
is weak for x counts only in part, and a weak edge v -> x is never favoured:

    bias = 1/p                                                 if x is t,
           1                                                   if weight(t, x) >= floor(x),
           min(1, 1/q)                                         otherwise, if weight(v, x) < floor(v),
           1/q + (1 - 1/q) * weight(t, x) / floor(x)           otherwise, with weight 0 where t -> x is no edge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from node2vec.graph import Graph

Floats = npt.NDArray[np.float64]


def probabilities(
    graph: Graph, prev: int | None, cur: int, p: float, q: float, extend: bool = False, gamma: float = 0.0
) -> Floats:
    """Where a walk goes from `cur` when it came from `prev` (None: its first step).

    Returns float64 [degree of cur]: the probability of each neighbour in the order of ``graph.indices``, of sum 1;
    empty at a sink. `extend` is node2vec+, which differs on weighted graphs only, and `gamma` its noise parameter.
    """
    neighbours, weights = _row(graph, cur)
    if prev is not None:
        weights = weights * _biases(graph, prev, cur, p, q, extend, gamma)
    return weights / weights.sum() if len(neighbours) else weights


def noise_floors(indptr: npt.NDArray[np.int64], weights: npt.NDArray[np.float32], gamma: float) -> Floats:
    """The noise floor of every node: mean + `gamma` * standard deviation of its edges' weights, at least 0.

    float64 [V]; 0 for a node without edges. The standard deviation divides by the count, as numpy's does.
    """
    degrees = np.diff(indptr)
    counts = np.maximum(degrees, 1)
    owner = np.repeat(np.arange(len(degrees)), degrees)
    means = np.bincount(owner, weights, len(degrees)) / counts
    squares = np.bincount(owner, (weights - means[owner]) ** 2, len(degrees)) / counts
    return np.asarray(np.maximum(means + gamma * np.sqrt(squares), 0.0), np.float64)


def _row(graph: Graph, vertex: int) -> tuple[npt.NDArray[np.int32], Floats]:
    start, stop = graph.indptr[vertex], graph.indptr[vertex + 1]
    if graph.weights is None:
        return graph.indices[start:stop], np.ones(stop - start)
    return graph.indices[start:stop], graph.weights[start:stop].astype(np.float64)


def _biases(graph: Graph, prev: int, cur: int, p: float, q: float, extend: bool, gamma: float) -> Floats:
    neighbours, weights = _row(graph, cur)
    from_prev, weights_from_prev = _row(graph, prev)
    if extend and graph.weights is not None:
        floor_of_cur = noise_floors(np.array([0, len(weights)]), weights.astype(np.float32), gamma)[0]
        biases = np.empty(len(neighbours))
        for place, x in enumerate(neighbours):
            weight = weights_from_prev[from_prev == x].sum()  # 0 where prev -> x is no edge
            of_x = _row(graph, int(x))[1].astype(np.float32)
            floor = noise_floors(np.array([0, len(of_x)]), of_x, gamma)[0]
            if np.any(from_prev == x) and weight >= floor:
                biases[place] = 1.0
            elif weights[place] < floor_of_cur:
                biases[place] = min(1.0, 1.0 / q)
            else:
                biases[place] = 1.0 / q + (1.0 - 1.0 / q) * (weight / floor if weight else 0.0)
    else:
        biases = np.where(np.isin(neighbours, from_prev), 1.0, 1.0 / q)
    biases[neighbours == prev] = 1.0 / p
    return biases
