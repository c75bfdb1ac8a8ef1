from __future__ import annotations

import itertools
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node2vec import graph_parts, walker_round, walks
from node2vec.graph import Graph
from node2vec.graph_parts import Part
from node2vec.walk_request import WalkRequest
from node2vec.walker_round import Trip
from sparkdl.errors import ConfigError
from tests.node2vec import part_graphs
from tests.node2vec.sample_graphs import PUBLIC, public
from tests.node2vec.transition_counts import count_all, p_value

BIASES = [(0.5, 2.0), (0.25, 4.0), (4.0, 0.25)]


def parts_of(
    graph: Graph,
    num_parts: int,
    hub_bytes: int,
    bits_per_edge: float | None,
    symmetric: bool = True,
    gamma: float | None = None,
) -> list[Part]:
    blocks = list(graph_parts.blocks_of(graph, 3))
    cut = graph_parts.layout(
        part_graphs.header(graph), blocks, num_parts, hub_bytes=hub_bytes, bits_per_edge=bits_per_edge
    )
    cut = cut._replace(symmetric=cut.symmetric and symmetric)
    words = graph_parts.filter_of(blocks, cut)
    floors = None if gamma is None else graph_parts.floors_of(blocks, gamma)
    return [graph_parts.cut_part(blocks, cut, number, words, floors) for number in range(num_parts)]


def played(
    graph: Graph, request: WalkRequest, num_parts: int, starts: Any = None, num_log: int = 300, **cut: Any
) -> Trip:
    num_starts = graph.num_nodes if starts is None else len(starts)
    this = walker_round.round_of(request, 0, request.num_walks * num_starts, num_starts, num_parts)
    return walker_round.walk_in_parts(parts_of(graph, num_parts, **cut), this, starts, num_log)


def check(graph: Graph, trip: Trip, request: WalkRequest, starts: Any = None) -> None:
    walks, lengths = part_graphs.twin(graph, request, starts)
    assert np.array_equal(trip.walks, walks)
    assert np.array_equal(trip.lengths, lengths)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("num_parts", [1, 2, 7])
def test_the_walks_are_the_twins(num_parts: int, directed: bool, weighted: bool) -> None:
    graph = part_graphs.skewed(directed=directed, weighted=weighted)
    for p, q in BIASES:
        request = WalkRequest(p=p, q=q, num_walks=3, walk_length=12, seed=5)
        for hub_bytes, bits_per_edge in ((0, 12.0), (3000, 1.5), (0, None), (10**9, None)):
            trip = played(graph, request, num_parts, hub_bytes=hub_bytes, bits_per_edge=bits_per_edge)
            check(graph, trip, request)
            assert (trip.num_hops == 0) == (num_parts == 1 or hub_bytes == 10**9)


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("num_parts", [1, 3])
def test_node2vec_plus_is_the_twins(num_parts: int, directed: bool) -> None:
    graph = part_graphs.skewed(directed=directed, weighted=True)
    plain = part_graphs.twin(graph, WalkRequest(p=0.5, q=2.0, num_walks=3, walk_length=12, seed=5))[0]
    for p, q in BIASES:
        for gamma in (0.0, 0.7):
            request = WalkRequest(p=p, q=q, num_walks=3, walk_length=12, seed=5, extend=True, gamma=gamma)
            for hub_bytes, bits_per_edge in ((0, 12.0), (3000, 1.5), (0, None)):
                trip = played(graph, request, num_parts, hub_bytes=hub_bytes, bits_per_edge=bits_per_edge, gamma=gamma)
                check(graph, trip, request)
                assert not np.array_equal(trip.walks, plain)


@pytest.mark.parametrize(("p", "q"), [(1, 1), (0.25, 4), (4, 0.25), (0.5, 2)])
@pytest.mark.parametrize("name", PUBLIC)
def test_ten_million_transitions_over_parts_follow_the_law(name: str, p: float, q: float) -> None:
    graph = public(name)
    parts = parts_of(graph, 3, hub_bytes=1000, bits_per_edge=6.0)
    walks_per_node = max(1, 4_000_000 // (80 * graph.num_nodes))

    def made() -> Iterator[walks.Walks]:
        for number in itertools.count():
            request = WalkRequest(p=p, q=q, walk_length=80, seed=11)
            num_walks = walks_per_node * graph.num_nodes
            this = walker_round.round_of(request, number * num_walks, num_walks, graph.num_nodes, 3)
            trip = walker_round.walk_in_parts(parts, this)
            yield trip.walks, trip.lengths

    counts = count_all(graph, made(), 10_000_000)
    assert p_value(graph, *counts, p, q) >= 1e-4
    if p != q:
        assert p_value(graph, *counts, q, p) < 1e-4


def test_a_row_without_its_mirror_is_never_asked_instead() -> None:
    """As max_degree makes them: undirected by name, but some edges have one arc only."""
    whole = part_graphs.skewed()
    kept = np.random.default_rng(2).random(whole.num_arcs) < 0.6
    sources = np.repeat(np.arange(whole.num_nodes), whole.degrees)[kept]
    directed = part_graphs.graph_of(sources, whole.indices[kept], whole.num_nodes, True, False)
    graph = Graph(directed.indptr, directed.indices)
    request = WalkRequest(p=0.5, q=2.0, num_walks=3, walk_length=10)
    check(graph, played(graph, request, 3, hub_bytes=500, bits_per_edge=3.0, symmetric=False), request)
    with pytest.raises(AssertionError):
        check(graph, played(graph, request, 3, hub_bytes=500, bits_per_edge=3.0), request)


@settings(max_examples=30, deadline=None)
@given(
    num_nodes=st.integers(1, 40),
    num_edges=st.integers(0, 150),
    directed=st.booleans(),
    num_parts=st.integers(1, 6),
    num_walks=st.integers(1, 3),
    walk_length=st.integers(1, 6),
    seed=st.integers(0, 2**64 - 1),
    data=st.data(),
)
def test_any_range_of_any_starts_of_any_small_graph(
    num_nodes: int,
    num_edges: int,
    directed: bool,
    num_parts: int,
    num_walks: int,
    walk_length: int,
    seed: int,
    data: st.DataObject,
) -> None:
    graph = part_graphs.skewed(num_nodes, num_edges, directed, seed=num_edges)
    nodes = st.lists(st.integers(0, num_nodes - 1), min_size=1, max_size=9)
    chosen = data.draw(st.none() | nodes)
    starts = None if chosen is None else np.array(chosen, np.int32)
    num_starts = num_nodes if starts is None else len(starts)
    request = WalkRequest(p=0.5, q=2.0, num_walks=num_walks, walk_length=walk_length, seed=seed)
    first = data.draw(st.integers(0, num_walks * num_starts - 1))
    last = data.draw(st.integers(first + 1, num_walks * num_starts))
    this = walker_round.round_of(request, first, last - first, num_starts, num_parts)
    parts = parts_of(graph, num_parts, data.draw(st.sampled_from([0, 200])), data.draw(st.sampled_from([None, 2.0])))
    trip = walker_round.walk_in_parts(parts, this, starts, num_log=data.draw(st.sampled_from([1, 40, 10_000])))
    walks, lengths = part_graphs.twin(graph, request, starts)
    assert np.array_equal(trip.walks, walks[first:last])
    assert np.array_equal(trip.lengths, lengths[first:last])


@settings(max_examples=200, deadline=None)
@given(num_walks=st.integers(1, 10**6), walk_length=st.integers(1, 10**5), num_parts=st.integers(1, 300))
def test_buckets_cut_a_round_without_gaps(num_walks: int, walk_length: int, num_parts: int) -> None:
    request = WalkRequest(walk_length=walk_length)
    this = walker_round.round_of(request, 5, num_walks, 1000, num_parts)
    borders = [this.bucket(number) for number in range(this.num_buckets)]
    assert borders[0][0] == 0
    assert borders[-1][1] == num_walks
    assert all(stop == start for (_, stop), (start, _) in pairwise(borders))
    assert all(start < stop for start, stop in borders)
    assert this.bucket_walks == 1 or this.bucket_walks * walk_length < walker_round.BUCKET_NODES + walk_length


@pytest.mark.parametrize(("p", "q"), [(0.25, 0.25), (0.25, 4.0), (4.0, 0.25), (0.5, 2.0), (2.0, 0.5), (1.0, 1.0)])
def test_a_step_costs_little_more_than_one_trip(p: float, q: float) -> None:
    graph = part_graphs.r_mat(
        15, 4
    )  # sparse: on a dense one with q < 1 most of the filter's maybes are edges, 1.25 trips
    request = WalkRequest(p=p, q=q, num_walks=1, walk_length=10)
    trip = played(graph, request, 64, num_log=10**6, hub_bytes=0, bits_per_edge=12.0)
    steps = int(trip.lengths.sum() - len(trip.lengths))
    assert trip.num_hops <= 1.1 * steps
    assert trip.num_bytes <= 18 * steps
    hubs = played(graph, request, 64, num_log=10**6, hub_bytes=graph.num_arcs, bits_per_edge=12.0)
    assert hubs.num_hops < 0.9 * trip.num_hops
    assert np.array_equal(hubs.walks, trip.walks)


def test_lost_steps_and_full_blobs_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    request = WalkRequest(walk_length=3)
    this = walker_round.round_of(request, 0, 2, 2, 1)
    log = np.array([[1, 8], [2, 9], [5, 7]], np.int32)  # walk 1 has a second step without a first
    with pytest.raises(AssertionError, match="lost"):
        walker_round.assembled(this, 0, None, [log.tobytes()])
    monkeypatch.setattr(walker_round, "MOST_BYTES", 100)
    graph = part_graphs.skewed()
    with pytest.raises(ConfigError, match="fewer walks in flight"):
        played(graph, WalkRequest(), 2, hub_bytes=0, bits_per_edge=None)
