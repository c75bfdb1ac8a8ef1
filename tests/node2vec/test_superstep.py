"""The kernel alone; that its walks are the twin's is asked in test_walker_round.py."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node2vec import graph_parts, superstep
from node2vec.graph_parts import Part
from node2vec.superstep import REJECTED, Batch, Output
from node2vec.trial import law
from tests.node2vec import part_graphs

L = 6


def part_of(number: int, num_parts: int, directed: bool = False, bits_per_edge: float | None = 12.0) -> Part:
    graph = part_graphs.skewed(directed=directed)
    cut = graph_parts.layout(part_graphs.header(graph), [], num_parts, bits_per_edge=bits_per_edge)
    blocks = list(graph_parts.blocks_of(graph))
    return graph_parts.cut_part(blocks, cut, number, graph_parts.filter_of(blocks, cut))


def batch_of(num_starts: int = 200) -> Batch:
    return Batch(0, num_starts, L, 50, np.uint64(1), law(0.5, 2.0))


def call(part: Part, verifications: Any, arrivals: Any, num_log: int = 10_000) -> tuple[int, Output]:
    records = [np.array(given, np.int32).reshape(-1, width) for given, width in ((verifications, 6), (arrivals, 4))]
    out = superstep.output(sum(map(len, records)), num_log)
    ended = superstep.advance(part, None, None, None, None, part.words, None, batch_of(), None, *records, out)
    return ended, out


def test_at_home_a_walk_makes_all_its_steps() -> None:
    ended, out = call(part_of(0, 1), [], [[w, -1, w, 1] for w in range(100)])
    assert ended == superstep.GOING
    assert out.counts.tolist() == [0, 0, 100 * (L - 1), 100]
    cells = out.log[: out.counts[2], 0].view(np.uint32).astype(int) + out.buckets[: out.counts[2]] * 50 * L
    assert sorted(cells.tolist()) == [w * L + step for w in range(100) for step in range(1, L)]


def test_a_walker_is_taken_only_if_the_log_has_room_for_all_of_it() -> None:
    arrivals = [[w, -1, w, 1] for w in range(100)]
    part = part_of(0, 1)
    _, whole = call(part, [], arrivals)
    records = np.array(arrivals, np.int32)
    out = superstep.output(100, 3 * L)
    made = []
    nothing = np.empty((0, 6), np.int32)
    while out.counts[3] < 100:
        before = out.counts[3]
        superstep.advance(part, None, None, None, None, part.words, None, batch_of(), None, nothing, records, out)
        assert before < out.counts[3]
        assert out.counts[2] <= 3 * L
        made += np.column_stack([out.buckets, out.log])[: out.counts[2]].tolist()
        out.counts[2] = 0
    expected = np.column_stack([whole.buckets, whole.log])[: whole.counts[2]].tolist()
    assert sorted(made) == sorted(expected)
    _, small = call(part, [], arrivals, num_log=L - 2)
    assert small.counts.tolist() == [0, 0, 0, 0]


def test_what_leaves_does_not_belong_here() -> None:
    for directed in (False, True):
        part = part_of(1, 3, directed, bits_per_edge=1.0)
        _, out = call(part, [], [[v, v - 1, v, 2] for v in range(1, 200, 3)])
        arrivals, leaving = out.arrivals[: out.counts[0]], out.verifications[: out.counts[1]]
        assert len(arrivals) > 10
        assert (arrivals[:, 2] % 3 != 1).all()
        assert len(leaving) > 0
        assert (leaving[:, 1] % 3 != 1).all()  # prev's row would have answered here
        if not directed:
            assert (leaving[:, 3] % 3 != 1).all()


def test_verifications_are_answered_where_a_row_knows() -> None:
    graph = part_graphs.skewed()
    prev = 4
    neighbour, stranger = (
        next(x for x in range(1, 200, 3) if (x in graph.neighbors(prev)) is wanted and x != prev)
        for wanted in (True, False)
    )
    # a low half that accepts an edge only: p = .5, q = 2 has thresholds 1 and 1/2 of 2^32
    walk, trial = next(
        (walk, trial)
        for walk in range(200)
        for trial in range(9)
        if superstep.low(superstep.draw(superstep.key(np.uint64(1), walk, 0), 3, trial, 0)) >= 3 << 30
    )
    part = part_of(1, 3)
    cur = next(v for v in range(0, 200, 3) if v not in (neighbour, stranger))
    _, out = call(part, [[walk, prev, cur, neighbour, 3, trial]], [])
    cell = int(out.log[0, 0]) + int(out.buckets[0]) * 50 * L
    assert (cell, out.log[0, 1]) == (walk * L + 3, neighbour)
    _, out = call(part, [[walk, prev, cur, stranger, 3, trial]], [])
    assert out.counts.tolist() == [0, 1, 0, 1]
    assert out.verifications[0].tolist() == [walk, prev, cur, REJECTED, 3, trial + 1]


def test_a_record_of_another_part_is_noticed() -> None:
    part = part_of(1, 3)
    assert call(part, [], [[0, -1, 3, 1]])[0] == superstep.WRONG_PART
    assert call(part, [[0, 3, 1, 6, 2, 0]], [])[0] == superstep.WRONG_PART


@pytest.mark.parametrize("symmetric", [True, False])
def test_records_are_sorted_by_destination(symmetric: bool) -> None:
    random = np.random.default_rng(1)
    part = part_of(0, 5)._replace(symmetric=symmetric)
    records = random.integers(0, 200, (300, 6)).astype(np.int32)
    records[::7, 3] = REJECTED
    to = np.where(records[:, 3] == REJECTED, records[:, 2], records[:, 3 if symmetric else 1]) % 5
    found, borders = np.empty_like(records), np.empty(6, np.int64)
    superstep.sort_by_part(part, records, found, borders)
    assert found.tolist() == records[np.argsort(to, kind="stable")].tolist()
    assert borders.tolist() == [0, *np.cumsum(np.bincount(to, minlength=5)).tolist()]
    arrivals = np.ascontiguousarray(records[:, :4])
    found = np.empty_like(arrivals)
    superstep.sort_by_part(part, arrivals, found, borders)
    assert found.tolist() == arrivals[np.argsort(arrivals[:, 2] % 5, kind="stable")].tolist()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), num_walks=st.integers(1, 30))
def test_logs_become_walks_in_any_order_and_twice(seed: int, num_walks: int) -> None:
    random = np.random.default_rng(seed)
    walks = random.integers(0, 2**31, num_walks * L).astype(np.int32)
    cells = random.permutation(num_walks * L)
    log = np.column_stack([cells.astype(np.uint32).view(np.int32), walks[cells]]).astype(np.int32)
    buckets = random.integers(0, 4, len(log)).astype(np.int32)
    by_bucket, borders = np.empty_like(log), np.empty(5, np.int64)
    superstep.sort_by_bucket(log, buckets, by_bucket, borders)
    assert by_bucket.tolist() == log[np.argsort(buckets, kind="stable")].tolist()
    found = np.full(num_walks * L, -1, np.int32)
    for start, stop in [*pairwise(borders), (0, 3)]:
        superstep.scatter(by_bucket[start:stop], found)
    assert found.tolist() == walks.tolist()


def test_positions_are_unsigned() -> None:
    log = np.array([[np.uint32(2**31 + 5).view(np.int32), 7]], np.int32)
    assert log[0, 0] < 0
    assert int(np.uint32(log[0, 0].view(np.uint32))) == 2**31 + 5
