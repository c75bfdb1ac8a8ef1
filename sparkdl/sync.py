"""Summing pieces in replica order, and updating lots with the sum: the pure half of a parameter sync.

The order of the sum is the order of replicas, whatever the order of arrival, so the bits never depend on the cluster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from sparkdl import wire
from sparkdl.errors import StateLost
from sparkdl.optim import Hyper, SliceOptimizer
from sparkdl.payload import Payload
from sparkdl.slices import Segment
from sparkdl.table_rows import TableSums, rows_of, sparse_rows
from sparkdl.versioned_state import VersionedState
from sparkdl.wire import Header, Source


class GradientSum:
    """The sum over replicas of a range of the flat vector, with the records and buffers that travel along.

    start, stop: elements of the flat vector that are summed here (a slice, or everything but the tables).
    tables: room for the tables' lots that are summed here as well.
    """

    def __init__(
        self, start: int, stop: int, num_replicas: int, num_buffer_floats: int, tables: TableSums | None = None
    ):
        self.start, self.stop = start, stop
        self.tables = tables
        self.total = torch.zeros(stop - start)
        self._scratch = torch.empty(0)
        self.records: dict[int, np.ndarray] = {}
        self.shared: dict[int, str] = {}  # replica -> the file its gradient is in, with same-host sharing
        self._floats: dict[int, torch.Tensor] = {}
        self._raw: dict[int, bytes] = {}
        self._num_replicas = num_replicas
        self._num_buffer_floats = num_buffer_floats
        self._next: dict[int, int] = {}  # piece -> how many of the contributors are in the sum already
        self._sizes: dict[int, int] = {}  # piece -> elements
        self._early: dict[tuple[int, int], torch.Tensor] = {}
        self._contributors: Sequence[int] = ()

    def read(self, source: Source, version: int, contributors: Sequence[int]) -> int | None:
        """Reads items until the source ends and adds them up.

        ``contributors``: the replicas that have rows in this step, ascending. Returns None, or, when the items were
        start tokens, the version that the state has already. Raises StateLost for items of another version or
        missing ones.
        """
        self._contributors = contributors
        self._next.clear()
        self._sizes.clear()
        self._early.clear()
        self.records.clear()
        self.shared.clear()
        self._floats.clear()
        self._raw.clear()
        if self.tables is not None:
            self.tables.clear()
        started: int | None = None
        for head in source:
            if head.kind == wire.START:
                started = head.version
                continue
            if head.kind == wire.EMPTY:
                continue
            if head.version != version:
                raise StateLost(f"a gradient of step {head.version} came in where one of step {version} was expected")
            if head.kind == wire.GRADIENT:
                self._add(source, head)
            elif head.kind == wire.ROWS and self.tables is not None:
                self.tables.add(source, head)
            elif head.kind == wire.SHARED:
                self.shared[head.replica] = wire.read(source, head).decode()
            elif head.kind == wire.RECORD:
                self.records[head.replica] = np.frombuffer(wire.read(source, head), np.float64)
            elif head.kind == wire.BUFFERS:
                data = wire.read(source, head)
                self._floats[head.replica] = (
                    torch.frombuffer(data, dtype=torch.float32, count=self._num_buffer_floats)
                    if self._num_buffer_floats
                    else torch.empty(0)
                )
                self._raw[head.replica] = bytes(data[self._num_buffer_floats * 4 :])
            else:
                raise StateLost(f"an item of kind {head.kind} came in where gradients were expected")
        if started is None:
            self._check_complete(version)
        return started

    def _check_complete(self, version: int) -> None:
        wanted = len(self._contributors)
        whole = sum(self._sizes.values()) == self.stop - self.start and set(self._next.values()) <= {wanted}
        if self.shared:
            whole = len(self.shared) == wanted
        if self.tables is not None:
            whole = whole and self.tables.is_complete(self._contributors)
        if len(self.records) != self._num_replicas or not whole or len(self._floats) not in (0, wanted):
            raise StateLost(f"gradients of step {version} are incomplete: replicas {sorted(self.records)} arrived")

    def _add(self, source: Source, head: Header) -> None:
        place = self.total[head.start - self.start : head.start - self.start + head.size]
        if head.replica not in self._contributors:
            raise StateLost(f"a gradient of replica {head.replica} came in, which has no rows in step {head.version}")
        order = self._contributors.index(head.replica)
        done = self._next.get(head.start, 0)
        self._sizes[head.start] = head.size
        if order != done:
            early = torch.empty(head.size, dtype=torch.bfloat16 if head.dtype else torch.float32)
            source.readinto(wire.view(early))
            self._early[head.start, order] = early
            self._next.setdefault(head.start, 0)
            return
        if order == 0 and not head.dtype:
            source.readinto(wire.view(place))
        else:
            piece = self._scratch_for(head)
            source.readinto(wire.view(piece))
            self._sum(place, piece, first=order == 0)
        done += 1
        while (early_piece := self._early.pop((head.start, done), None)) is not None:
            self._sum(place, early_piece, first=done == 0)
            done += 1
        self._next[head.start] = done

    @staticmethod
    def _sum(place: torch.Tensor, piece: torch.Tensor, first: bool) -> None:
        if first:
            place.copy_(piece)
        else:
            place.add_(piece)  # bf16 is widened first: the sum itself is fp32

    def _scratch_for(self, head: Header) -> torch.Tensor:
        dtype = torch.bfloat16 if head.dtype else torch.float32
        if self._scratch.dtype != dtype or self._scratch.numel() < head.size:
            self._scratch = torch.empty(head.size, dtype=dtype)
        return self._scratch[: head.size]

    def gradient(self, payload: Payload, start: int, stop: int) -> torch.Tensor:
        """Elements of the sum; of a table's segment, a sparse tensor (rows, width).

        :func:`finish` has been done to the latter; what lies before the tables is as it was summed.
        """
        if start < payload.plan.layout.dense_size:
            return self.total[start - self.start : stop - self.start]
        assert self.tables is not None
        return self.tables.sum(start, lambda values: finish(payload, values, self.scale()))

    def scale(self) -> float:
        """What turns the sum into the mean of the loss: rows / sum of denominators; 1.0 for a plain mean over rows."""
        rows = sum(float(self.records[r][0]) for r in sorted(self.records))
        denominator = sum(float(self.records[r][1]) for r in sorted(self.records))
        return 1.0 if denominator in (rows, 0.0) else rows / denominator

    def buffers(self) -> tuple[torch.Tensor, bytes] | None:
        """The model's buffers after the step: floats are the mean over the rows' replicas, others are the first's.

        The mean is the first replica's value and the weighed differences from it, so that what no replica changes (a
        table kept as a buffer) stays as it is to the last bit.
        """
        if not self._floats:
            return None
        order = sorted(self._floats)
        rows = {replica: float(self.records[replica][0]) for replica in order}
        first = self._floats[order[0]]
        floats = first.clone()
        for replica in order[1:]:
            mine = self._floats[replica]
            difference = torch.where(mine == first, 0.0, mine - first)  # a mask's -inf has no difference to itself
            floats.add_(difference * (rows[replica] / sum(rows.values())))
        return floats, self._raw[order[0]]


def square_norm(payload: Payload, lots: Sequence[int], gradient: Callable[[int, int], torch.Tensor]) -> list[float]:
    """The squared norm of each lot's gradient, summed in fp64, so that it is the same however lots are spread."""
    layout = payload.plan.layout

    def squares(segment: Segment) -> float:
        found = gradient(segment.start, segment.stop)
        return float((found._values() if found.is_sparse else found).double().square().sum())

    return [sum(squares(s) for s in layout.segments[slice(*layout.lots[lot])]) for lot in lots]


def clip_factor(payload: Payload, square_norms: Sequence[float]) -> float:
    """By what ``clip_norm`` multiplies the gradient: ``torch.nn.utils.clip_grad_norm_``'s rule."""
    if payload.clip_norm is None:
        return 1.0
    norm = math.sqrt(sum(square_norms))
    factor = payload.clip_norm / (norm + 1e-6)
    return 1.0 if factor >= 1.0 else factor  # noqa: FURB136 - min() would hide a NaN


def finish(payload: Payload, gradient: torch.Tensor, scale: float) -> torch.Tensor:
    """Turns a range of the sum into the gradient that the optimizer sees, before ``clip_norm``; in place."""
    if scale != 1.0:
        gradient.mul_(scale)
    if payload.clip_value is not None:
        gradient.clamp_(-payload.clip_value, payload.clip_value)
    return gradient


def update_lots(
    payload: Payload,
    state: VersionedState,
    optimizer: SliceOptimizer,
    lots: Sequence[int],
    version: int,
    gradient: Callable[[int, int], torch.Tensor],
    clip: float,
    hyper: Hyper,
) -> None:
    """Brings lots from ``version`` to the next one. ``gradient(start, stop)`` is what :func:`finish` left."""

    def clipped(start: int, stop: int) -> torch.Tensor:
        found = gradient(start, stop)
        if clip == 1.0:
            return found
        return sparse_rows(rows_of(found), found._values() * clip, found.shape) if found.is_sparse else found * clip

    for lot in lots:
        state.update(lot, version, clipped, optimizer, hyper)
