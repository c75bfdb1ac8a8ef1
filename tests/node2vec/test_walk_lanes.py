from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node2vec import walks
from node2vec.graph import Graph
from node2vec.walk_lanes import NUM_LANES
from tests.node2vec.sample_graphs import every_start, graphs, samples

BIASES = [(1, 1), (0.25, 4), (4, 0.25), (0.5, 2), (2, 0.5), (0.25, 0.25)]


def same(graph: Graph, per_node: int, length: int, p: float, q: float, extend: bool, bits: float | None) -> bool:
    starts, numbers = every_start(graph, per_node)
    tables = walks.prepare(graph, extend=extend, bits_per_edge=bits)
    plain = walks.walk(graph, starts, numbers, length, p, q, 3, tables=tables, lanes=False)
    lanes = walks.walk(graph, starts, numbers, length, p, q, 3, tables=tables, lanes=True)
    return np.array_equal(plain[0], lanes[0]) and np.array_equal(plain[1], lanes[1])


@pytest.mark.parametrize(("p", "q"), BIASES)
@pytest.mark.parametrize("bits", [None, 1.0, 12.0])
@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.parametrize("name", samples())
def test_lanes_walk_as_one_walk_at_a_time(name: str, extend: bool, bits: float | None, p: float, q: float) -> None:
    assert same(samples()[name], 20, 40, p, q, extend, bits)


@settings(deadline=None)
@given(graphs(), st.integers(1, 9), st.integers(1, 6), st.sampled_from(BIASES), st.booleans(), st.booleans())
def test_any_graph_and_any_number_of_walks(
    graph: Graph, per_node: int, length: int, bias: tuple[float, float], extend: bool, with_filter: bool
) -> None:
    assert same(graph, per_node, length, *bias, extend, 6.0 if with_filter else None)


@pytest.mark.parametrize("num_walks", [1, NUM_LANES - 1, NUM_LANES, NUM_LANES + 1])
def test_lanes_may_be_empty(num_walks: int) -> None:
    graph = samples()["directed"]
    starts, numbers = np.arange(num_walks) % graph.num_nodes, np.arange(num_walks)
    lanes = walks.walk(graph, starts, numbers, 25, 0.5, 2)
    plain = walks.walk(graph, starts, numbers, 25, 0.5, 2, lanes=False)
    assert np.array_equal(lanes[0], plain[0])
    assert np.array_equal(lanes[1], plain[1])


def test_a_filter_that_lies_changes_the_walks() -> None:
    """So the filter is asked at all: an empty one denies every edge."""
    graph = samples()["karate"]
    starts, numbers = every_start(graph, 5)
    tables = walks.prepare(graph)
    liar = tables._replace(words=np.zeros_like(tables.words))
    truth = walks.walk(graph, starts, numbers, 40, 0.5, 2, tables=tables)
    assert not np.array_equal(truth[0], walks.walk(graph, starts, numbers, 40, 0.5, 2, tables=liar)[0])
