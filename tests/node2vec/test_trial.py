from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node2vec import alias, transition, trial
from node2vec.counter_rng import COIN, EXCESS, PROPOSE, draw
from node2vec.graph import Graph
from sparkdl.errors import ConfigError
from tests.node2vec.sample_graphs import graphs, samples

BIASES = st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0, 0.3, 7.0])


def accepted_share(decides: Callable[[np.uint64], bool]) -> float:
    """How many of the 2^32 low halves are accepted: the first ones, up to a limit that is searched."""
    accepted, rejected = -1, 2**32
    while rejected - accepted > 1:
        middle = (accepted + rejected) // 2
        if decides(np.uint64(middle)):
            accepted = middle
        else:
            rejected = middle
    return rejected / 2**32


def ends_of_a_step(graph: Graph, t: int, v: int, p: float, q: float, extend: bool, gamma: float) -> list[float]:
    """Where the trials of ``trial``'s docstring end, by their exact probabilities."""
    law = trial.law(p, q)
    first, stop = int(graph.indptr[v]), int(graph.indptr[v + 1])
    degree = stop - first
    back = trial.position(graph.indices, first, stop, t)
    if graph.weights is None:
        proposed, limit = np.full(degree, 1 / degree), trial.excess_limit(law, float(degree), 1.0)
    else:
        tables = alias.build(graph.indptr, graph.weights)
        proposed = alias.probabilities(tables, first, stop)
        limit = trial.excess_limit(law, tables.totals[v], float(graph.weights[max(back, 0)]))
    excess = limit / 2**53 if back >= 0 else 0.0
    floors = (
        transition.noise_floors(graph.indptr, graph.weights, gamma) if extend and graph.weights is not None else None
    )
    ends = np.zeros(degree)
    for place, x in enumerate(graph.neighbors(v)):
        seen = trial.position(graph.indices, graph.indptr[t], graph.indptr[t + 1], x)
        is_weak = floors is not None and bool(graph.weights[first + place] < floors[v])

        def decides(half: np.uint64, x: int = int(x), seen: int = seen, is_weak: bool = is_weak) -> bool:
            verdict = trial.decide_unseen(law, half, x == t, is_weak)
            if verdict != trial.LOOK_UP:
                return bool(verdict == trial.ACCEPT)
            if floors is None:
                return bool(trial.decide_seen(law, half, seen >= 0))
            weight = graph.weights[max(seen, 0)]
            return bool(trial.decide_seen_plus(law, half, seen >= 0, is_weak, weight, floors[x]))

        ends[place] = (1 - excess) * proposed[place] * accepted_share(decides) + excess * (x == t)
    return list(ends / ends.sum())


@settings(deadline=None)
@given(graphs(), BIASES, BIASES, st.booleans(), st.sampled_from([-1.0, 0.0, 0.5]), st.data())
def test_a_step_ends_as_the_law_says(
    graph: Graph, p: float, q: float, extend: bool, gamma: float, data: st.DataObject
) -> None:
    """Not by drawing: the probabilities of all outcomes, to 2^-20."""
    arcs = [arc for arc in range(graph.num_arcs) if len(graph.neighbors(int(graph.indices[arc])))]
    if arcs:
        arc = data.draw(st.sampled_from(arcs))
        t, v = int(np.searchsorted(graph.indptr, arc, side="right")) - 1, int(graph.indices[arc])
        wanted = transition.probabilities(graph, t, v, p, q, extend, gamma)
        assert ends_of_a_step(graph, t, v, p, q, extend, gamma) == pytest.approx(wanted, rel=2**-20, abs=2**-28)


@given(BIASES, BIASES)
def test_the_bound_is_the_largest_bias_and_no_look_up_is_wasted(p: float, q: float) -> None:
    law = trial.law(p, q)
    assert max(law.common, law.far) == 2**32
    assert law.least == min(law.common, law.far)
    assert law.back <= 2**32
    assert law.back * law.envelope / 2**32 + law.excess * law.envelope == pytest.approx(1 / p, rel=1e-6)


def test_constants_by_hand() -> None:
    assert trial.law(0.5, 2) == (2**32, 2**32, 2**31, 2**31, 1.0, 0.5, 1.0)
    assert trial.law(0.25, 0.5) == (2**32, 2**31, 2**32, 2**31, 1.0, 2.0, 2.0)
    assert trial.law(4, 0.25) == (2**28, 2**30, 2**32, 2**30, 0.0, 4.0, 4.0)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_p_and_q_have_to_be_positive_numbers(value: float) -> None:
    with pytest.raises(ConfigError, match=f"p={value} is no bias"):
        trial.law(value, 1)
    with pytest.raises(ConfigError, match=f"q={value} is no bias"):
        trial.law(1, value)


def test_p_and_q_may_be_far_apart_but_not_beyond_the_counter() -> None:
    for p, q in ((100, 0.01), (1e-9, 1), (16384, 1), (1, 16384), (1, 1 / 16384), (128, 1 / 128)):
        assert trial.law(p, q).least >= 2**18
    for p, q in ((1000, 0.01), (16385, 1), (1, 16385), (1, 1 / 16385)):
        with pytest.raises(ConfigError, match=f"p={p} and q={q} make one kind of move up to .* times rarer"):
            trial.law(p, q)


@given(st.lists(st.integers(0, 60), max_size=20, unique=True), st.integers(0, 60), st.integers(0, 5))
def test_position_finds_what_is_there(row: list[int], vertex: int, before: int) -> None:
    indices = np.array([7] * before + sorted(row) + [7], np.int32)
    wanted = before + sorted(row).index(vertex) if vertex in row else -1
    assert trial.position(indices, before, before + len(row), vertex) == wanted


def test_proposals_use_the_draws_they_are_said_to() -> None:
    graph = samples()["lesmis weighted"]
    tables = alias.build(graph.indptr, graph.weights)
    first, degree = int(graph.indptr[10]), len(graph.neighbors(10))
    key = np.uint64(99)
    for number in range(200):
        bits = np.uint64(draw(key, 3, number, PROPOSE))
        slot = (int(bits) >> 32) * degree >> 32
        assert trial.proposal(key, bits, 3, number, first, degree, None, None) == first + slot
        keeps = int(draw(key, 3, number, COIN)) >> 32 < tables.cuts[first + slot]
        wanted = first + (slot if keeps else int(tables.others[first + slot]))
        assert trial.proposal(key, bits, 3, number, first, degree, tables.cuts, tables.others) == wanted
        excess = int(draw(key, 3, number, EXCESS)) >> 11
        assert trial.returns_by_excess(key, 3, number, np.int64(excess + 1))
        assert not trial.returns_by_excess(key, 3, number, np.int64(excess))
