"""Touched rows on the wire and their sums are those of the dense gradient, in replica order whatever came first."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparkdl import slices, wire
from sparkdl.errors import StateLost
from sparkdl.replica import Sums
from sparkdl.table_rows import TableSums, gradient_items, sparse_rows, summed
from tests.sparkdl.payloads import payload_of

law = settings(deadline=None, max_examples=40, print_blob=True)  # machines may be busy
ROWS, WIDTH = 50, 3


@pytest.fixture(autouse=True)
def _cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lots of 16 rows."""
    monkeypatch.setattr(slices, "TABLE_LOT_SIZE", 48)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.a, self.b = (nn.Embedding(ROWS, WIDTH, sparse=True) for _ in range(2))


def touched(seed: int, rows: set[int]) -> torch.Tensor:
    values = torch.randn(len(rows), WIDTH, generator=torch.Generator().manual_seed(seed))
    return sparse_rows(torch.tensor(sorted(rows), dtype=torch.int64), values, (ROWS, WIDTH))


def sums_of(a: torch.Tensor | None, b: torch.Tensor | None, num_rows: int = 4) -> Sums:
    return Sums(num_rows, [torch.zeros(2, 2), torch.zeros(2), a, b], np.zeros(3), torch.empty(0), b"")


sets = st.lists(st.sets(st.integers(0, ROWS - 1)), min_size=1, max_size=4)


@law
@given(sets, st.booleans(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_sums_are_those_of_the_dense_gradient(
    found: list[set[int]], bf16: bool, num_slices: int, shuffled: random.Random
) -> None:
    payload = payload_of(Two(), wire="bf16" if bf16 else "fp32")
    layout = payload.plan.layout
    assert (layout.dense_lots, len(layout.table_lots)) == (1, 8)
    by_slice: dict[int, list[bytes]] = {n: [] for n in range(num_slices)}
    total = torch.zeros(2, ROWS, WIDTH)
    for replica, rows in enumerate(found):
        gradients = touched(replica, rows), None if replica % 2 else touched(9 + replica, rows)
        for number, parts in gradient_items(payload, num_slices, 7, replica, sums_of(*gradients)):
            by_slice[number].append(b"".join(parts))
        for table, gradient in enumerate(gradients):
            if gradient is not None:
                values = gradient.to_dense()
                total[table] += values.bfloat16().float() if bf16 else values
    cut = slices.cut(layout, num_slices)
    seen: list[int] = []
    for number, items in by_slice.items():
        lots = [lot for lot in slices.lots_of(layout, cut, number) if lot in layout.table_lots]
        sums = TableSums(layout, lots)
        shuffled.shuffle(items)
        source = wire.BytesSource(items)
        for head in source:
            assert (head.kind, head.version) == (wire.ROWS, 7)
            sums.add(source, head)
        assert sums.is_complete(range(len(found)))
        assert not sums.is_complete(range(len(found) + 1)) or not lots
        for lot in lots:
            start, _, _, shape = layout.table_segment(lot)
            place = next(n for n in (1, 0) if start >= layout.tensors[2 + n].start)
            first = (start - layout.tensors[2 + place].start) // WIDTH
            result = sums.sum(start, partial(torch.mul, other=2.0))
            assert result.is_coalesced()
            assert torch.equal(result.to_dense() / 2.0, total[place, first : first + shape[0]])
            assert sums.sum(start, partial(torch.mul, other=2.0)) is result, "finished once"
        seen += lots
    assert sorted(seen) == list(layout.table_lots)


@law
@given(sets, st.randoms(use_true_random=False))
def test_the_order_of_parts_alone_decides_the_bits(found: list[set[int]], shuffled: random.Random) -> None:
    parts = [(g._indices()[0], g._values()) for g in map(touched, range(len(found)), found)]
    rows, values = summed(parts, WIDTH)
    expected = torch.zeros(ROWS, WIDTH)
    for mine, some in parts:  # one after the other, row by row, in any order of rows
        for n in shuffled.sample(range(len(mine)), len(mine)):
            expected[mine[n]] += some[n]
    assert rows.tolist() == sorted(set.union(*found))
    assert torch.equal(values, expected[rows])
    assert not expected[[n for n in range(ROWS) if n not in set.union(*found)]].any()


def test_there_are_always_as_many_items() -> None:
    payload = payload_of(Two())
    counts = []
    for sums in (sums_of(touched(0, {1, 40}), touched(0, set())), sums_of(None, None), sums_of(None, None, 0)):
        counts.append([number for number, _ in gradient_items(payload, 3, 7, 0, sums)])
        for _, (head, *parts) in gradient_items(payload, 3, 7, 0, sums):
            assert wire.payload_bytes(wire.unpack(head)) == sum(map(len, parts))
            assert wire.unpack(head).kind == (wire.ROWS if sums.num_rows else wire.EMPTY)
    assert counts[0] == counts[1] == counts[2] == [0, 1, 2, 0, 1, 2, 0, 1]


def test_rows_of_a_lot_that_is_not_summed_here_are_state_lost() -> None:
    layout = payload_of(Two()).plan.layout
    source = wire.BytesSource([wire.header(wire.ROWS, 7, 0, 3)])
    head = next(iter(source))
    with pytest.raises(StateLost, match=r"lot 3 came in where lots \[1, 2\]"):
        TableSums(layout, [1, 2]).add(source, head)
