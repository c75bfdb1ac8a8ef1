"""Small random graphs for the tests of the partitioned home, and the walks of the single-process twin on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from node2vec import walks
from node2vec.graph import Graph
from node2vec.graph_files import Header
from node2vec.walk_request import WalkRequest, walks_between

Ints = npt.NDArray[Any]


def header(graph: Graph) -> Header:
    return Header(graph.num_nodes, graph.num_arcs, graph.directed, graph.weights is not None, (), graph.fingerprint())


def graph_of(sources: Ints, targets: Ints, num_nodes: int, directed: bool, weighted: bool) -> Graph:
    """Parallel edges become one; undirected edges become two arcs of one weight."""
    if not directed:
        sources, targets = np.concatenate([sources, targets]), np.concatenate([targets, sources])
    arcs = np.unique(sources.astype(np.int64) * num_nodes + targets)
    sources, targets = arcs // num_nodes, arcs % num_nodes
    weights = None
    if weighted:
        weights = (1 + (np.minimum(sources, targets) * 7 + np.maximum(sources, targets) * 13) % 11).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=num_nodes))]).astype(np.int64)
    return Graph(indptr, targets.astype(np.int32), weights, directed)


def skewed(
    num_nodes: int = 200, num_edges: int = 1500, directed: bool = False, weighted: bool = False, seed: int = 0
) -> Graph:
    """Low vertices have many neighbours, high ones few or, if directed, none. With loops."""
    random = np.random.default_rng(seed)
    ends = (random.integers(0, num_nodes, (num_edges, 2)) * random.random((num_edges, 2))).astype(np.int64)
    return graph_of(ends[:, 0], ends[:, 1], num_nodes, directed, weighted)


def r_mat(scale: int, edges_a_node: int = 16, seed: int = 0) -> Graph:
    """Chakrabarti, Zhan and Faloutsos, *R-MAT*, SDM 2004, with a, b, c, d = .57, .19, .19, .05; undirected, simple,
    vertices by descending degree, those without edges left out."""
    random = np.random.default_rng(seed)
    ends = np.zeros((2, edges_a_node << scale), np.int64)
    for _ in range(scale):
        drawn = random.random(ends.shape[1])
        ends = ends * 2 + np.array([drawn >= 0.76, ((drawn >= 0.57) & (drawn < 0.76)) | (drawn >= 0.95)])
    ends = ends[:, ends[0] != ends[1]]
    degrees = np.bincount(np.unique(np.sort(ends, axis=0), axis=1).reshape(-1), minlength=1 << scale)
    order = np.argsort(-degrees, kind="stable")
    numbers = np.empty(1 << scale, np.int64)
    numbers[order] = np.arange(1 << scale)
    return graph_of(numbers[ends[0]], numbers[ends[1]], int((degrees > 0).sum()), False, False)


def twin(graph: Graph, request: WalkRequest, starts: Ints | None = None) -> walks.Walks:
    num_starts = graph.num_nodes if starts is None else len(starts)
    nodes, numbers = walks_between(0, request.num_walks * num_starts, starts, graph.num_nodes)
    tables = walks.prepare(graph, extend=request.extend, gamma=request.gamma, bits_per_edge=None)
    return walks.walk(
        graph, nodes, numbers, request.walk_length, request.p, request.q, request.seed, tables=tables, lanes=False
    )
