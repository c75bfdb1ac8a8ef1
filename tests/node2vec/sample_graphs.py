"""Graphs to walk on: small ones from networkx, and the public ones of a folder that not every machine has."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import networkx as nx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st

from node2vec.graph import Graph

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("NODE2VEC_GRAPHS", ROOT.parent / "shared" / "data" / "graphs"))

PUBLIC = {  # name: (directed, weighted)
    "karate": (False, False),
    "lesmis": (False, True),
    "bitcoinotc": (True, True),
    "email_eu": (True, False),
}


def graph_of(
    src: npt.ArrayLike, dst: npt.ArrayLike, weight: npt.ArrayLike | None = None, directed: bool = False
) -> Graph:
    """The graph of some edges without repetition, between vertices 0 .. the largest."""
    tails, heads = np.asarray(src, np.int64), np.asarray(dst, np.int64)
    weights = np.ones(len(tails), np.float32) if weight is None else np.asarray(weight, np.float32)
    if not directed:
        other = tails != heads
        tails, heads = np.concatenate([tails, heads[other]]), np.concatenate([heads, tails[other]])
        weights = np.concatenate([weights, weights[other]])
    num_nodes = int(max(tails.max(initial=0), heads.max(initial=0))) + 1
    order = np.lexsort((heads, tails))
    indptr = np.zeros(num_nodes + 1, np.int64)
    np.cumsum(np.bincount(tails, minlength=num_nodes), out=indptr[1:])
    return Graph(indptr, heads[order].astype(np.int32), None if weight is None else weights[order], directed)


def from_networkx(graph: nx.Graph, weighted: bool = False) -> Graph:
    numbers = {node: number for number, node in enumerate(graph)}
    edges = [(numbers[u], numbers[v], data.get("weight", 1)) for u, v, data in graph.edges(data=True)]
    src, dst, weight = zip(*edges, strict=True)
    return graph_of(src, dst, weight if weighted else None, graph.is_directed())


def public(name: str) -> Graph:
    """One of the public graphs; skips the test where the folder is missing."""
    path = FOLDER / name / "edges.csv.gz"
    if not path.is_file():
        pytest.skip(f"no {path}: set NODE2VEC_GRAPHS to the folder of the public graphs")
    directed, weighted = PUBLIC[name]
    with gzip.open(path, "rt") as lines:
        rows = [line.rstrip("\n").split(",") for line in lines][1:]
    ids = sorted({end for row in rows for end in row[:2]})
    numbers = {node: number for number, node in enumerate(ids)}
    weight = [float(row[2]) for row in rows] if weighted else None
    return graph_of([numbers[row[0]] for row in rows], [numbers[row[1]] for row in rows], weight, directed)


def samples() -> dict[str, Graph]:
    """Undirected and directed, with and without weights, loops and sinks."""
    directed = nx.gnp_random_graph(60, 0.08, seed=1, directed=True)
    directed.remove_edges_from([(u, v) for u, v in directed.edges if u in (3, 7, 20)])  # three sinks
    directed.add_edges_from([(0, 0), (5, 5)])
    weights = np.random.default_rng(0)
    for _, _, data in directed.edges(data=True):
        data["weight"] = float(weights.lognormal())
    loops = nx.karate_club_graph()
    loops.add_edges_from([(0, 0), (9, 9), (33, 33)])
    return {
        "karate": from_networkx(nx.karate_club_graph()),
        "karate with loops": from_networkx(loops),
        "lesmis weighted": from_networkx(nx.les_miserables_graph(), weighted=True),
        "directed": from_networkx(directed),
        "directed weighted": from_networkx(directed, weighted=True),
        "star": from_networkx(nx.star_graph(9)),
    }


@st.composite
def graphs(draw: st.DrawFn, max_nodes: int = 9) -> Graph:
    """Any small graph; "undirected" ones may lack arcs, as rows capped by max_degree do."""
    num_nodes = draw(st.integers(1, max_nodes))
    ends = st.integers(0, num_nodes - 1)
    edges = sorted(draw(st.sets(st.tuples(ends, ends), min_size=1)))
    directed = draw(st.booleans())
    weight = None
    if not directed:
        edges = sorted({(min(edge), max(edge)) for edge in edges})
    if draw(st.booleans()):
        weight = draw(st.lists(st.floats(2**-10, 2**10, width=32), min_size=len(edges), max_size=len(edges)))
    graph = graph_of([u for u, _ in edges], [v for _, v in edges], weight, directed)
    if not directed and draw(st.booleans()):
        return without_arc(graph, draw(st.integers(0, graph.num_arcs - 1)))
    return graph


def without_arc(graph: Graph, arc: int) -> Graph:
    """The graph without one of its arcs; an edge's other arc stays."""
    row = np.searchsorted(graph.indptr, arc, side="right")
    indptr = graph.indptr.copy()
    indptr[row:] -= 1
    weights = None if graph.weights is None else np.delete(graph.weights, arc)
    return Graph(indptr, np.delete(graph.indices, arc), weights, graph.directed)


def every_start(graph: Graph, walks_per_node: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Start nodes and walk numbers of `walks_per_node` walks from each node."""
    return np.repeat(np.arange(graph.num_nodes), walks_per_node), np.tile(np.arange(walks_per_node), graph.num_nodes)
