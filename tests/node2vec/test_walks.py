from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node2vec import transition, walks
from node2vec.graph import Graph
from sparkdl.errors import ConfigError
from tests.node2vec.sample_graphs import PUBLIC, every_start, graph_of, graphs, public, samples
from tests.node2vec.transition_counts import borders, p_value, walk_and_count

BIASES = [(1, 1), (0.25, 4), (4, 0.25), (0.5, 2)]
LEAST = 1e-4  # of the p-value
GOLDEN = {  # (p, q, node2vec+): sha256 of the walks on ring(40)
    (1, 1, False): "3da637eca2dd01dc",
    (1, 1, True): "3da637eca2dd01dc",
    (0.25, 4, False): "4d38f2257b684921",
    (0.25, 4, True): "251d790ce42f5a8a",
    (4, 0.25, False): "bda003b7d040eede",
    (4, 0.25, True): "72c61293e6e5ead8",
    (0.5, 2, False): "a02a5bafd76c6522",
    (0.5, 2, True): "d8cb1f92654d55cc",
}


def ring(num_nodes: int) -> Graph:
    """Every node with its neighbours at distance 1, 2 and 5."""
    nodes = np.arange(num_nodes)
    pairs = {tuple(sorted((int(u), int((u + far) % num_nodes)))) for far in (1, 2, 5) for u in nodes}
    edges = np.array(sorted(pairs))
    return graph_of(edges[:, 0], edges[:, 1], 1.0 + edges.sum(axis=1) % 4)


@pytest.mark.parametrize(("p", "q"), BIASES)
@pytest.mark.parametrize("name", samples())
def test_transitions_follow_the_law(name: str, p: float, q: float) -> None:
    graph = samples()[name]
    counts = walk_and_count(graph, p, q, 1_000_000, walks.prepare(graph))
    assert p_value(graph, *counts, p, q) >= LEAST


@pytest.mark.parametrize(("p", "q"), BIASES)
@pytest.mark.parametrize("gamma", [-0.5, 0.0, 1.0])
@pytest.mark.parametrize("name", ["lesmis weighted", "directed weighted"])
def test_transitions_follow_the_law_of_node2vec_plus(name: str, gamma: float, p: float, q: float) -> None:
    graph = samples()[name]
    num_transitions = 1_000_000 if gamma else 10_000_000
    counts = walk_and_count(graph, p, q, num_transitions, walks.prepare(graph, extend=True, gamma=gamma))
    assert p_value(graph, *counts, p, q, True, gamma) >= LEAST
    if q != 1:
        assert p_value(graph, *counts, p, q) < LEAST
        assert p_value(graph, *counts, p, q, True, gamma + 1) < LEAST


@pytest.mark.parametrize(("p", "q"), BIASES)
@pytest.mark.parametrize("name", PUBLIC)
def test_ten_million_transitions_of_public_graphs_follow_the_law(name: str, p: float, q: float) -> None:
    graph = public(name)
    counts = walk_and_count(graph, p, q, 10_000_000, walks.prepare(graph))
    assert p_value(graph, *counts, p, q) >= LEAST
    if p != q:
        assert p_value(graph, *counts, q, p) < LEAST


@pytest.mark.parametrize(("p", "q"), [(0.25, 4), (4, 0.25), (0.5, 2)])
@pytest.mark.parametrize("name", ["karate", "lesmis weighted", "directed", "directed weighted"])
def test_the_chi_squared_test_sees_p_and_q_swapped(name: str, p: float, q: float) -> None:
    graph = samples()[name]
    counts = walk_and_count(graph, q, p, 1_000_000, walks.prepare(graph))
    assert p_value(graph, *counts, p, q) < LEAST


@pytest.mark.parametrize(("p", "q"), BIASES)
@pytest.mark.parametrize("name", ["lesmis weighted", "directed weighted"])
def test_the_chi_squared_test_sees_weights_ignored(name: str, p: float, q: float) -> None:
    graph = samples()[name]
    light = Graph(graph.indptr, graph.indices, None, graph.directed)
    counts = walk_and_count(graph, p, q, 1_000_000, walks.prepare(light), light)
    assert p_value(graph, *counts, p, q) < LEAST


def test_the_chi_squared_test_sees_the_excess_drawn_once_a_step() -> None:
    """The error that passes by eye: the return edge's excess asked for at the first trial of a step only."""
    graph, p, q = samples()["karate"], 0.5, 2.0
    counts, first_counts = walk_and_count(graph, p, q, 1_000_000, walks.prepare(graph))
    cells, tails = borders(graph), np.repeat(np.arange(graph.num_nodes), graph.degrees)
    generator = np.random.default_rng(0)
    for arc in range(graph.num_arcs):
        row = slice(cells[arc], cells[arc + 1])
        law = transition.probabilities(graph, int(tails[arc]), int(graph.indices[arc]), p, q)
        back = graph.neighbors(int(graph.indices[arc])) == tails[arc]
        main = np.where(back, law * p, law)  # the return edge's bias of 1/p = 2 cut to M = 1
        share = 1.0 / (len(law) + 1.0)
        wrong = share * back + (1 - share) * main / main.sum()
        counts[row] = generator.multinomial(counts[row].sum(), wrong)
    assert p_value(graph, counts, first_counts, p, q) < LEAST


@settings(deadline=None)
@given(graphs(), st.integers(0, 2**64 - 1), st.integers(1, 12), st.booleans(), st.booleans())
def test_walks_follow_arcs_and_end_only_at_sinks(
    graph: Graph, seed: int, length: int, lanes: bool, extend: bool
) -> None:
    starts, numbers = every_start(graph, 3)
    tables = walks.prepare(graph, extend=extend)
    paths, lengths = walks.walk(graph, starts, numbers, length, 0.5, 2, seed, tables=tables, lanes=lanes)
    assert paths.dtype == lengths.dtype == np.int32
    assert paths.shape == (len(starts), length)
    assert paths[:, 0].tolist() == starts.tolist()
    for path, nodes in zip(paths.tolist(), lengths.tolist(), strict=True):
        for v, x in itertools.pairwise(path[:nodes]):
            assert x in graph.neighbors(v)
        assert nodes == length or len(graph.neighbors(path[nodes - 1])) == 0
        assert path[nodes:] == [-1] * (length - nodes)


@pytest.mark.parametrize("lanes", [False, True])
def test_a_walk_depends_on_seed_start_and_number_alone(lanes: bool) -> None:
    graph = samples()["directed weighted"]
    starts, numbers = every_start(graph, 4)
    paths, lengths = walks.walk(graph, starts, numbers, 30, 0.25, 4, 5, lanes=lanes)
    order = np.random.default_rng(0).permutation(len(starts))[:77]
    again, again_lengths = walks.walk(graph, starts[order], numbers[order], 30, 0.25, 4, 5, lanes=lanes)
    assert np.array_equal(again, paths[order])
    assert np.array_equal(again_lengths, lengths[order])
    shorter, _ = walks.walk(graph, starts, numbers, 10, 0.25, 4, 5, lanes=lanes)
    assert np.array_equal(shorter, paths[:, :10])
    for other in (
        walks.walk(graph, starts, numbers, 30, 0.25, 4, 6, lanes=lanes),
        walks.walk(graph, starts, numbers + 4, 30, 0.25, 4, 5, lanes=lanes),
    ):
        assert (other[0] != paths).any(axis=1).mean() > 0.8


def test_walks_do_not_drift() -> None:
    """The same bits as ever: stored walks, resumed runs and other forms rely on it."""
    graph = ring(40)
    starts, numbers = every_start(graph, 2)
    digests = {}
    for p, q in BIASES:
        for extend in (False, True):
            tables = walks.prepare(graph, extend=extend)
            paths, _ = walks.walk(graph, starts, numbers, 20, p, q, 1, tables=tables)
            digests[p, q, extend] = hashlib.sha256(paths.astype("<i4").tobytes()).hexdigest()[:16]
    assert digests == GOLDEN


def test_unweighted_graphs_walk_alike_in_node2vec_plus() -> None:
    graph = samples()["karate"]
    starts, numbers = every_start(graph, 2)
    plain = walks.walk(graph, starts, numbers, 20, 0.5, 2)
    plus = walks.walk(graph, starts, numbers, 20, 0.5, 2, tables=walks.prepare(graph, extend=True))
    assert np.array_equal(plain[0], plus[0])


def test_read_only_arrays_will_do() -> None:
    graph = samples()["lesmis weighted"]
    for array in (graph.indptr, graph.indices, graph.weights):
        assert array is not None
        array.flags.writeable = False
    writable = samples()["lesmis weighted"]
    starts, numbers = every_start(graph, 1)
    for lanes in (False, True):
        mine = walks.walk(graph, starts, numbers, 20, 0.5, 2, lanes=lanes)
        assert np.array_equal(mine[0], walks.walk(writable, starts, numbers, 20, 0.5, 2, lanes=lanes)[0])


def test_no_walks_are_an_empty_array() -> None:
    paths, lengths = walks.walk(samples()["karate"], [], [], 5)
    assert paths.shape == (0, 5)
    assert lengths.shape == (0,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"starts": [34]}, "a walk starts at node number 34; the graph has nodes 0 to 33"),
        ({"starts": [-1]}, "a walk starts at node number -1"),
        ({"starts": [2**32 + 1]}, "a walk starts at node number 4294967297"),
        ({"numbers": [-2]}, "walk number -2 is negative"),
        ({"walk_length": 0}, "walk_length=0"),
        ({"seed": -1}, "seed=-1 does not fit 64 bits"),
        ({"seed": 2**64}, "does not fit 64 bits"),
        ({"p": 0}, "p=0 is no bias"),
        ({"q": float("nan")}, "q=nan is no bias"),
    ],
)
def test_what_cannot_be_used_is_refused(settings: dict[str, object], message: str) -> None:
    arguments = {"starts": [0], "numbers": [0], "walk_length": 5, **settings}
    with pytest.raises(ConfigError, match=message):
        walks.walk(samples()["karate"], **arguments)  # type: ignore[arg-type]
