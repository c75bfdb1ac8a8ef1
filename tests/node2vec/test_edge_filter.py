from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node2vec import edge_filter
from node2vec.graph import Graph
from sparkdl.errors import ConfigError
from tests.node2vec.sample_graphs import from_networkx, graphs


@settings(deadline=None)
@given(graphs(), st.sampled_from([0.5, 6.0, 12.0]))
def test_no_edge_is_ever_denied(graph: Graph, bits_per_edge: float) -> None:
    """Neither one whose other arc was capped away."""
    words = edge_filter.build(graph.indptr, graph.indices, graph.directed, bits_per_edge)
    assert words.dtype == np.uint64
    for u in range(graph.num_nodes):
        for v in graph.neighbors(u):
            assert u == v or edge_filter.maybe(words, u, v, graph.directed)


@pytest.mark.parametrize(("bits_per_edge", "least", "most"), [(6.0, 0.03, 0.12), (12.0, 0.003, 0.03)])
@pytest.mark.parametrize("directed", [False, True])
def test_few_pairs_without_an_edge_are_answered_maybe(
    directed: bool, bits_per_edge: float, least: float, most: float
) -> None:
    graph = from_networkx(nx.gnm_random_graph(2000, 30_000, seed=3, directed=directed))
    words = edge_filter.build(graph.indptr, graph.indices, directed, bits_per_edge)
    assert len(words) == int(np.ceil(30_000 * bits_per_edge / 64))
    maybe = none = 0
    for u in range(100):
        for v in set(range(graph.num_nodes)) - set(graph.neighbors(u).tolist()) - {u}:
            none += 1
            maybe += bool(edge_filter.maybe(words, u, v, directed))
    assert least < maybe / none < most


def test_on_directed_graphs_the_direction_counts() -> None:
    graph = from_networkx(nx.gnm_random_graph(2000, 20_000, seed=3, directed=True))
    words = edge_filter.build(graph.indptr, graph.indices, True)
    denied = [not edge_filter.maybe(words, int(v), u, True) for u in range(200) for v in graph.neighbors(u)]
    assert np.mean(denied) > 0.9


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("num_parts", [1, 2, 7])
def test_parts_unite_to_the_whole(directed: bool, num_parts: int) -> None:
    graph = from_networkx(nx.gnm_random_graph(50, 300, seed=3, directed=directed))
    united = edge_filter.empty(300)
    for part in range(num_parts):
        rows = [graph.neighbors(v) for v in range(part, graph.num_nodes, num_parts)]
        indptr = np.cumsum([0, *map(len, rows)])
        words = edge_filter.empty(300)
        edge_filter.add(words, indptr, np.concatenate(rows), directed, part, num_parts)
        united |= words
    assert np.array_equal(united, edge_filter.build(graph.indptr, graph.indices, directed))


def test_a_graph_without_edges_has_a_filter_that_denies() -> None:
    words = edge_filter.build(np.zeros(3, np.int64), np.empty(0, np.int32), False)
    assert len(words) == 1
    assert not edge_filter.maybe(words, 0, 1, False)


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="bits_per_edge=0 leaves no room"):
        edge_filter.empty(10, 0)
    with pytest.raises(ConfigError, match="lower bits_per_edge"):
        edge_filter.empty(2**36, 12)
