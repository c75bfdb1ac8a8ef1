"""Rows of embedding tables that a step touched: in a model, on the wire, and summed over replicas.

A table is the weight of an ``Embedding`` or ``EmbeddingBag`` with ``sparse=True``. Its gradient is a coalesced sparse
tensor: ascending row numbers and a line of values for each. What travels of it is one item a lot, however few its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from sparkdl import wire
from sparkdl.errors import StateLost
from sparkdl.payload import Payload
from sparkdl.replica import Sums
from sparkdl.slices import Layout, table_owner
from sparkdl.wire import Header, Source


def sparse_rows(rows: torch.Tensor, values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """A coalesced sparse tensor of ``shape`` (rows, width): int64 [n] ascending, and fp32 [n, width]."""
    return torch.sparse_coo_tensor(rows[None], values, shape, is_coalesced=True, check_invariants=False)


def rows_of(gradient: torch.Tensor) -> torch.Tensor:
    """int64 [n]: the rows of a coalesced sparse tensor, ascending."""
    return gradient._indices()[0]


def item(kind: int, version: int, sender: int, lot: int, rows: torch.Tensor, values: torch.Tensor) -> wire.Parts:
    """Rows of a lot as an item: int32 numbers that count from the lot's first row, then fp32 or bf16 values."""
    parts: wire.Parts = [wire.view(rows.to(torch.int32)), wire.view(values)] if len(rows) else []
    dtype = int(values.dtype == torch.bfloat16)
    return [wire.header(kind, version, sender, lot, sum(map(len, parts)), dtype), *parts]


def read_item(source: Source, head: Header, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The inverse of :func:`item`: int64 [n] and fp32 [n, width]."""
    if not head.size:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, width)
    data = wire.read(source, head)
    dtype = torch.bfloat16 if head.dtype else torch.float32
    count = head.size // (4 + width * dtype.itemsize)
    rows = torch.frombuffer(data, dtype=torch.int32, count=count).to(torch.int64)
    return rows, torch.frombuffer(data, dtype=dtype, offset=count * 4).view(count, width).to(torch.float32)


def gradient_items(
    payload: Payload, num_slices: int, step: int, replica: int, sums: Sums
) -> Iterator[tuple[int, wire.Parts]]:
    """(slice, item): the touched rows of each table's lot; empty items from a replica without rows."""
    layout = payload.plan.layout
    bf16 = payload.wire == "bf16"
    gradients = dict(zip((t.start for t in layout.tensors), sums.gradients, strict=True))
    gradient: torch.Tensor | None = None
    table = 0
    for lot in layout.table_lots:
        segment = layout.table_segment(lot)
        if segment.start in gradients:
            table, gradient = segment.start, gradients[segment.start]
        owner = table_owner(layout, num_slices, lot)
        if not sums.num_rows:
            yield owner, [wire.header(wire.EMPTY, step, replica)]
        elif gradient is None:
            yield owner, [wire.header(wire.ROWS, step, replica, lot)]
        else:
            count, width = segment.shape
            first, rows = (segment.start - table) // width, rows_of(gradient)
            a, b = torch.searchsorted(rows, torch.tensor([first, first + count])).tolist()
            values = gradient._values()[a:b]
            yield (
                owner,
                item(wire.ROWS, step, replica, lot, rows[a:b] - first, values.to(torch.bfloat16) if bf16 else values),
            )


class TableSums:
    """The sums over replicas of some lots of tables, in replica order whatever came first."""

    def __init__(self, layout: Layout, lots: Sequence[int]):
        self._layout = layout
        self._lot_at = {layout.table_segment(lot).start: lot for lot in lots}
        self._parts: dict[int, dict[int, tuple[torch.Tensor, torch.Tensor]]] = {lot: {} for lot in lots}
        self._sums: dict[int, torch.Tensor] = {}

    def clear(self) -> None:
        """Forgets a step."""
        self._sums.clear()
        for parts in self._parts.values():
            parts.clear()

    def add(self, source: Source, head: Header) -> None:
        """Takes an item. Raises StateLost: it is of a lot that is not summed here."""
        if head.start not in self._parts:
            raise StateLost(f"rows of lot {head.start} came in where lots {sorted(self._parts)} are summed")
        width = self._layout.table_segment(head.start).shape[1]
        self._parts[head.start][head.replica] = read_item(source, head, width)

    def keep(self, source: Source, head: Header) -> None:
        """Takes an item that is a finished sum, as :meth:`sum` gave it in another task."""
        segment = self._layout.table_segment(head.start)
        self._sums[head.start] = sparse_rows(*read_item(source, head, segment.shape[1]), segment.shape)

    def is_complete(self, contributors: Sequence[int]) -> bool:
        """Whether these replicas, and no others, have sent rows (perhaps none) of every lot."""
        return all(parts.keys() == set(contributors) for parts in self._parts.values())

    def sum(self, start: int, finish: Callable[[torch.Tensor], torch.Tensor] = lambda values: values) -> torch.Tensor:
        """The sum of the lot that begins at element ``start``, as a coalesced sparse tensor (rows, width).

        ``finish`` is done once to its values.
        """
        lot = self._lot_at[start]
        if lot not in self._sums:
            shape = self._layout.table_segment(lot).shape
            parts = [self._parts[lot][replica] for replica in sorted(self._parts[lot])]
            rows, values = summed(parts, shape[1])
            self._sums[lot] = sparse_rows(rows, finish(values), shape)
        return self._sums[lot]


def summed(parts: Sequence[tuple[torch.Tensor, torch.Tensor]], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All rows that are in any of ``parts``, ascending, and the sums of their values in the order of ``parts``.

    Each part's rows ascend and come once, so that every value is added at one known place in the order.
    """
    if len(parts) == 1:
        return parts[0]
    rows = torch.unique(torch.cat([rows for rows, _ in parts] or [torch.empty(0, dtype=torch.int64)]))
    total = torch.zeros(len(rows), width)
    for mine, values in parts:
        total.index_add_(0, torch.searchsorted(rows, mine), values)
    return rows, total
