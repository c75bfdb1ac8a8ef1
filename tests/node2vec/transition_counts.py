"""Do walks follow the law? Their transitions are counted and compared with it by Pearson's chi-squared test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from node2vec import transition, walks
from node2vec.graph import Graph
from node2vec.jit import jit
from node2vec.trial import position
from tests.node2vec.sample_graphs import every_start

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def borders(graph: Graph) -> Counts:
    """First cell of each arc t -> v, int64 [A + 1]: it has one cell for each arc that leaves v."""
    result = np.zeros(graph.num_arcs + 1, np.int64)
    np.cumsum(graph.degrees[graph.indices], out=result[1:])
    return result


@jit
def count(indptr: Any, indices: Any, cells: Any, paths: Any, lengths: Any, counts: Any, first_counts: Any) -> int:
    """Add the transitions of some walks to `counts` (cells) and their first steps to `first_counts` (arcs).

    Returns the number of transitions; raises ValueError where a walk follows no arc.
    """
    total = 0
    for row in range(len(paths)):
        arc = np.int64(-1)
        for place in range(1, lengths[row]):
            v, x = paths[row, place - 1], paths[row, place]
            onward = position(indices, indptr[v], indptr[v + 1], x)
            if onward < 0:
                raise ValueError("a walk takes a step that is no arc")
            if arc < 0:
                first_counts[onward] += 1
            else:
                counts[cells[arc] + onward - indptr[v]] += 1
                total += 1
            arc = onward
    return total


def walk_and_count(
    graph: Graph, p: float, q: float, num_transitions: int, tables: walks.Tables, walked: Graph | None = None
) -> tuple[Counts, Counts]:
    """Transition and first-step counts of walks on `walked` (`graph` if not given) of 80 nodes."""
    walks_per_node = max(1, 400_000 // (80 * graph.num_nodes))

    def made() -> Iterator[walks.Walks]:
        for numbers in itertools.count(0, walks_per_node):
            starts, which = every_start(graph, walks_per_node)
            yield walks.walk(walked or graph, starts, which + numbers, 80, p, q, seed=11, tables=tables)

    return count_all(graph, made(), num_transitions)


def count_all(graph: Graph, made: Iterator[walks.Walks], num_transitions: int) -> tuple[Counts, Counts]:
    """Transition and first-step counts of as many walks as it takes."""
    cells = borders(graph)
    counts, first_counts = np.zeros(cells[-1], np.int64), np.zeros(graph.num_arcs, np.int64)
    total = 0
    while total < num_transitions:
        added = count(graph.indptr, graph.indices, cells, *next(made), counts, first_counts)
        assert added > 0
        total += added
    return counts, first_counts


def cell_statistics(observed: Counts, probabilities: Floats) -> tuple[float, int]:
    """Chi-squared and degrees of freedom of one multinomial sample; cells of expectation below 5 are one cell."""
    expected = observed.sum() * probabilities
    assert not observed[expected == 0].any(), "a walk went where the law never goes"
    order = np.argsort(expected)
    observed, expected = observed[order], expected[order]
    pooled = int((expected < 5).sum())
    while 0 < pooled < len(expected) and expected[:pooled].sum() < 5:
        pooled += 1
    if pooled:
        observed = np.concatenate([[observed[:pooled].sum()], observed[pooled:]])
        expected = np.concatenate([[expected[:pooled].sum()], expected[pooled:]])
    return float(((observed - expected) ** 2 / expected).sum()), len(expected) - 1


def p_value(
    graph: Graph,
    counts: Counts,
    first_counts: Counts,
    p: float,
    q: float,
    extend: bool = False,
    gamma: float = 0.0,
) -> float:
    """How likely counts as far from the law as these are, if the law holds."""
    cells = borders(graph)
    tails = np.repeat(np.arange(graph.num_nodes), graph.degrees)
    statistic, freedom = 0.0, 0
    for arc in np.flatnonzero(np.add.reduceat(np.append(counts, 0), cells[:-1]) * (np.diff(cells) > 1) >= 10):
        law = transition.probabilities(graph, int(tails[arc]), int(graph.indices[arc]), p, q, extend, gamma)
        added = cell_statistics(counts[cells[arc] : cells[arc + 1]], law)
        statistic, freedom = statistic + added[0], freedom + added[1]
    for vertex in np.flatnonzero(graph.degrees > 1):
        row = slice(graph.indptr[vertex], graph.indptr[vertex + 1])
        added = cell_statistics(first_counts[row], transition.probabilities(graph, None, int(vertex), p, q))
        statistic, freedom = statistic + added[0], freedom + added[1]
    assert freedom > 0
    return float(stats.chi2.sf(statistic, freedom))
