"""A file of state whose embedding tables are brought forward by the rows that a step touched, whatever their size.

The half that gets version v + 1 holds version v - 1, and each half also says which rows its version changed. So the
rows that version v changed are copied over, then those of step v are updated. Only where the other half holds nothing
of use (after a restore, and in the first two steps) is a whole lot copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from sparkdl.optim import SliceOptimizer
from sparkdl.versioned_state import StatePlan, VersionedState


def weights_plan(plan: StatePlan) -> StatePlan:
    """The same without optimizer state, for copies of weights that somebody else updates."""
    return plan._replace(entries=((),) * len(plan.entries))


class VersionedTables(VersionedState):
    """The file, where lots of tables follow the version before the last by rows."""

    def update(
        self,
        lot: int,
        version: int,
        gradient: Callable[[int, int], torch.Tensor],
        optimizer: SliceOptimizer,
        hyper: Any,
    ) -> None:
        """See :class:`VersionedState`; the gradient of a table's segment is a coalesced sparse tensor (rows, width)."""
        if lot < self.plan.layout.dense_lots:
            super().update(lot, version, gradient, optimizer, hyper)
            return
        number = self.plan.layout.lots[lot][0]
        segment = self.plan.layout.segments[number]
        found: list[torch.Tensor] = []

        def rows() -> torch.Tensor:
            found.append(gradient(segment.start, segment.stop))
            return found[0]._indices()[0]

        def write() -> None:
            state = {
                e.name: self._tensor(version + 1, e) if e.kind == "tensor" else self._value(version, e)
                for e in (self.plan.entries[number] if version else ())
            }
            param = self._segment(version + 1, number)
            (new,) = optimizer.update([param], found, [segment.group], [state], hyper)
            self._keep(version + 1, number, new)

        self._write_rows(lot, version + 1, rows, write)

    def put_rows(self, lot: int, version: int, rows: torch.Tensor, values: torch.Tensor) -> None:
        """Brings a copy of a table's lot from ``version - 1`` to ``version``: these rows have these values now.

        Raises StateLost: it is at another version.
        """
        target = self._segment(version, self.plan.layout.lots[lot][0])
        self._write_rows(lot, version, lambda: rows, lambda: target.index_copy_(0, rows, values))

    def _write_rows(
        self, lot: int, version: int, get_rows: Callable[[], torch.Tensor], write: Callable[[], Any]
    ) -> None:
        """Puts ``version`` of a table's lot in place once: first as the version before, then ``write`` changes rows."""
        number = self.plan.layout.lots[lot][0]
        entries = [e for e in self.plan.entries[number] if e.kind == "tensor"]
        with self._locked(lot):
            stamps = self._stamps[version % 2]
            if stamps[lot] == version + 1:
                return
            self.require(version - 1, [lot])
            rows = get_rows()
            # Version 0 has no optimizer state; so version 2, which lies over it, is written whole.
            torn = stamps[lot] == -(version + 1)  # somebody died here: these rows may be the new ones already
            follows = torn or (stamps[lot] == version - 1 and version > 2)
            stamps[lot] = -(version + 1) if follows else 0
            stale = [self.changed_rows(lot, version - 1), *([rows] if torn else [])] if follows else None
            _bring(self._segment(version - 1, number), self._segment(version, number), stale)
            for e in entries if version > 1 else []:
                of_rows = e.shape[:1] == self.plan.layout.segments[number].shape[:1]
                _bring(self._tensor(version - 1, e), self._tensor(version, e), stale if of_rows else None)
            write()
            count, places = self._row_list(lot, version)
            count[0] = len(rows)
            places[: len(rows)] = rows
            stamps[lot] = version + 1

    def _row_list(self, lot: int, version: int) -> tuple[torch.Tensor, torch.Tensor]:
        layout = self.plan.layout
        start = self.plan.row_lists[lot - layout.dense_lots]
        half, size = self._halves[version % 2], 4 * layout.table_segment(lot).shape[0]
        return half[start : start + 8].view(torch.int64), half[start + 8 : start + 8 + size].view(torch.int32)

    def changed_rows(self, lot: int, version: int) -> torch.Tensor:
        """int64 [n]: the rows of a table's lot in which ``version`` differs from the one before, if it was updated."""
        count, places = self._row_list(lot, version)
        return places[: int(count[0])].to(torch.int64)

    def table_rows(self, lot: int, version: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows that :meth:`changed_rows` names, and copies of their weights: fp32 [n, width]."""
        rows = self.changed_rows(lot, version)
        return rows, self._segment(version, self.plan.layout.lots[lot][0]).index_select(0, rows)


def _bring(source: torch.Tensor, target: torch.Tensor, rows: Sequence[torch.Tensor] | None) -> None:
    """Copies these rows, or all."""
    if rows is None:
        target.copy_(source)
    else:
        for some in rows:
            target.index_copy_(0, some, source.index_select(0, some))
