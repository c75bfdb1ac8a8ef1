from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node2vec import transition
from node2vec.graph import Graph
from tests.node2vec.sample_graphs import graph_of, graphs

# t = 0, v = 1; 2 is a neighbour of both, 3 of v alone.
SQUARE = [(0, 1), (0, 2), (1, 2), (1, 3)]


def square(weight: list[float] | None = None) -> Graph:
    return graph_of([u for u, _ in SQUARE], [v for _, v in SQUARE], weight)


def test_return_common_and_far_by_hand() -> None:
    assert transition.probabilities(square(), 0, 1, 0.5, 4).tolist() == [2 / 3.25, 1 / 3.25, 0.25 / 3.25]


def test_weights_multiply_the_biases() -> None:
    law = transition.probabilities(square([2, 7, 3, 8]), 0, 1, 0.5, 4)
    assert law.tolist() == [4 / 9, 3 / 9, 2 / 9]


def test_the_first_step_goes_by_weight() -> None:
    assert transition.probabilities(square([2, 7, 3, 5]), None, 1, 0.5, 4).tolist() == [0.2, 0.3, 0.5]


def test_a_sink_has_no_way_on() -> None:
    graph = graph_of([0], [1], directed=True)
    assert transition.probabilities(graph, 0, 1, 0.5, 4).shape == (0,)


def test_on_directed_graphs_the_edge_from_prev_counts() -> None:
    """0 -> 1 -> {2, 3}; 0 -> 2 and 3 -> 0: 2 is common, 3 is not, and there is no way back."""
    graph = graph_of([0, 1, 1, 0, 3], [1, 2, 3, 2, 0], directed=True)
    assert transition.probabilities(graph, 0, 1, 0.25, 4).tolist() == [0.8, 0.2]


def test_after_a_loop_its_node_is_the_return() -> None:
    graph = graph_of([0, 0, 0], [0, 1, 2])
    assert transition.probabilities(graph, 0, 0, 0.5, 4).tolist() == [0.5, 0.25, 0.25]


def test_a_loop_at_prev_stays_a_return() -> None:
    graph = graph_of([0, 0, 1], [0, 1, 2])
    assert transition.probabilities(graph, 0, 1, 2, 2).tolist() == [0.5, 0.5]


def test_noise_floors_by_hand() -> None:
    indptr, weights = np.array([0, 2, 2, 5]), np.array([1, 3, 4, 4, 4], np.float32)
    assert transition.noise_floors(indptr, weights, 0.0).tolist() == [2, 0, 4]
    assert transition.noise_floors(indptr, weights, 0.5).tolist() == [2.5, 0, 4]
    assert transition.noise_floors(indptr, weights, -3.0).tolist() == [0, 0, 4]


def test_node2vec_plus_by_hand() -> None:
    """0-1: 4, 0-2: 2, 1-2: 6, 1-3: 1, 2-3: 10, 1-4: 5. Floors of 1 and 2: 4 and 6; t = 0, v = 1."""
    graph = graph_of([0, 0, 1, 1, 2, 1], [1, 2, 2, 3, 3, 4], [4, 2, 6, 1, 10, 5])
    q = 4.0
    to_2 = 1 / q + (1 - 1 / q) * 2 / 6  # the edge 0-2 of weight 2 is weak for 2
    to_3 = 1 / q  # the edge 1-3 is weak for 1: min(1, 1/q)
    to_4 = 1 / q  # no edge 0-4
    wanted = np.array([4 / 0.5, 6 * to_2, 1 * to_3, 5 * to_4])
    law = transition.probabilities(graph, 0, 1, 0.5, q, extend=True)
    assert law == pytest.approx(wanted / wanted.sum(), rel=1e-12)
    q = 0.25
    to_2 = 1 / q + (1 - 1 / q) * 2 / 6
    wanted = np.array([4 / 0.5, 6 * to_2, 1 * 1.0, 5 / q])
    law = transition.probabilities(graph, 0, 1, 0.5, q, extend=True)
    assert law == pytest.approx(wanted / wanted.sum(), rel=1e-12)


def test_a_common_neighbour_above_its_floor_has_bias_1() -> None:
    """0-2 is as heavy as the floor of 2, even though 1-2 is weak for 1."""
    graph = graph_of([0, 0, 1, 1], [1, 2, 2, 3], [4, 3, 1, 9])
    wanted = np.array([4 / 2, 1 * 1.0, 9 / 4])
    law = transition.probabilities(graph, 0, 1, 2, 4, extend=True)
    assert law == pytest.approx(wanted / wanted.sum(), rel=1e-12)


@given(graphs(), st.booleans(), st.floats(-2, 2))
def test_probabilities_add_up_and_ignore_p_and_q_of_1(graph: Graph, extend: bool, gamma: float) -> None:
    for prev in range(graph.num_nodes):
        for cur in graph.neighbors(prev).tolist():
            law = transition.probabilities(graph, prev, cur, 0.3, 5, extend, gamma)
            if len(law):
                assert law.sum() == pytest.approx(1)
                assert (law > 0).all()
                first = transition.probabilities(graph, None, cur, 0.3, 5)
                assert transition.probabilities(graph, prev, cur, 1, 1, extend, gamma) == pytest.approx(first)
