"""Tables brought forward by rows equal torch's optimizer on the whole table, whoever dies or comes late."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, Adagrad, Optimizer, SparseAdam

from sparkdl import saved_state, slices
from sparkdl.errors import StateLost
from sparkdl.optim import SliceOptimizer
from sparkdl.table_rows import sparse_rows
from sparkdl.versioned_tables import VersionedTables, weights_plan
from tests.sparkdl.payloads import payload_of

law = settings(deadline=None, max_examples=12, print_blob=True)  # machines may be busy
ROWS, WIDTH = 60, 4
MAKE: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": partial(SGD, lr=0.1),
    "SparseAdam": partial(SparseAdam, lr=0.1),
    "Adagrad": partial(Adagrad, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.5),
}


@pytest.fixture(autouse=True)
def _cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lots of 16 rows: 16, 16, 16 and 12."""
    monkeypatch.setattr(slices, "TABLE_LOT_SIZE", 64)


class DiesHalfway(SliceOptimizer):
    """Raises once, after it has changed what it was to change."""

    armed = True

    def update(self, params: Any, grads: Any, *rest: Any) -> Any:
        new = super().update(params, grads, *rest)
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt
        return new


class Run:
    """A table, and the same in plain torch."""

    def __init__(self, directory: str, make: Callable[[Any], Optimizer]):
        self.net = nn.Embedding(ROWS, WIDTH, sparse=True)
        payload = payload_of(self.net, make=make)
        self.template, self.plan, self.directory = payload.template, payload.plan, directory
        self.lots = list(self.plan.layout.table_lots)
        self.state = VersionedTables(f"{directory}/state", self.plan)
        self.state.begin(self.lots, payload.initial_weights(), (torch.empty(0), b""))
        self.optimizer = SliceOptimizer(self.template.blank)
        self.oracle = make(self.net.parameters())
        self.last = torch.empty(0)

    def step(self, version: int, rows: set[int], optimizer: Any = None) -> None:
        """One step of both; some lots are asked for twice."""
        index = torch.tensor(sorted(rows), dtype=torch.int64)
        values = torch.randn(len(rows), WIDTH, generator=torch.Generator().manual_seed(version))
        self.last = torch.zeros(ROWS, WIDTH).index_copy_(0, index, values)
        for lot in [*self.lots[version % 3 :], *self.lots]:
            self.update(lot, version, index, values, optimizer or self.optimizer)
        self.net.weight.grad = sparse_rows(index, values, (ROWS, WIDTH))
        self.oracle.step()

    def update(self, lot: int, version: int, index: torch.Tensor, values: torch.Tensor, optimizer: Any) -> None:
        start, _, _, shape = self.plan.layout.table_segment(lot)
        mine = (index >= start // WIDTH) & (index < start // WIDTH + shape[0])
        gradient = sparse_rows(index[mine] - start // WIDTH, values[mine], shape)
        try:
            self.state.update(lot, version, lambda a, b: gradient, optimizer, [{}])
        except KeyboardInterrupt:
            assert not self.state.has(version + 1, [lot])
            self.state.update(lot, version, lambda a, b: gradient, optimizer, [{}])

    def check(self, version: int) -> None:
        self.state.require(version, self.lots)
        table = self.state.weights(version)[: ROWS * WIDTH].view(ROWS, WIDTH)
        assert torch.equal(table, self.net.weight.detach())
        for key in self.oracle.state[self.net.weight]:
            theirs = self.oracle.state[self.net.weight][key]
            mine = [self.state.state(version, n)[key] for n in range(len(self.lots))]
            if isinstance(theirs, torch.Tensor) and theirs.ndim:
                assert torch.equal(torch.cat(mine), theirs), key
            else:
                assert all(float(found) == float(theirs) for found in mine), key

    def restored(self, version: int) -> None:
        """As after going back: a new file with this version alone."""
        parts = [(lot, offset, bytes(m)) for lot, offset, m in saved_state.state_parts(self.state, version)]
        self.state.close()
        self.state = VersionedTables(f"{self.directory}/state-{version}", self.plan)
        saved_state.restore(self.state, [(lot, offset, memoryview(m)) for lot, offset, m in parts], version)


@pytest.mark.parametrize("name", MAKE)
@law
@given(steps=st.lists(st.sets(st.integers(0, ROWS - 1)), min_size=1, max_size=7), data=st.data())
def test_touched_rows_alone_give_torchs_bits(name: str, steps: list[set[int]], data: st.DataObject) -> None:
    again = data.draw(st.sets(st.integers(1, len(steps))), label="restored after")
    dying = data.draw(st.sets(st.integers(0, len(steps) - 1)), label="a task dies in")
    with tempfile.TemporaryDirectory() as directory:
        run = Run(directory, MAKE[name])
        for version, rows in enumerate(steps):
            run.step(version, rows, DiesHalfway(run.template.blank) if version in dying else None)
            run.check(version + 1)
            if version + 1 in again:
                run.restored(version + 1)
                run.check(version + 1)
        run.state.close()


def test_a_step_writes_the_rows_of_two_steps_and_no_others(tmp_path: Path) -> None:
    run = Run(str(tmp_path), MAKE["SparseAdam"])
    for version in range(3):
        run.step(version, {version, 20})
    place = run.state.weights(4)[: ROWS * WIDTH].view(ROWS, WIDTH)  # where version 2 is
    moment = run.state._tensor(4, run.plan.entries[0][1])
    assert moment.shape == (16, WIDTH)
    place[[5, 30]] = 7.0
    moment[5] = 7.0
    run.step(3, {3, 20})
    assert (place[[5, 30]] == 7.0).all()
    assert (moment[5] == 7.0).all()
    assert [run.state.changed_rows(lot, 4).tolist() for lot in run.lots] == [[3], [4], [], []]


def test_copies_follow_by_rows_and_refuse_to_miss_a_version(tmp_path: Path) -> None:
    run = Run(str(tmp_path), MAKE["SparseAdam"])
    copies = VersionedTables(str(tmp_path / "copies"), weights_plan(run.plan))
    for lot in run.lots:
        for offset, _, memory in run.state.parts(lot, 0, weights_only=True):

            def read(target: memoryview, memory: memoryview = memory) -> None:
                target[:] = memory

            copies.restore(lot, 0, offset, len(memory), read)
    for version in range(6):
        run.step(version, {version, 7 * version, 59})
        for lot in run.lots * 2:
            copies.put_rows(lot, version + 1, *run.state.table_rows(lot, version + 1))
        assert torch.equal(copies.weights(version + 1), run.state.weights(version + 1))
    run.step(6, {1})
    run.step(7, {2})
    with pytest.raises(StateLost, match=r"holds versions \[5, 6\] of the weights, version 7 is needed"):
        copies.put_rows(run.lots[0], 8, *run.state.table_rows(run.lots[0], 8))
    copies.close()
    run.state.close()
