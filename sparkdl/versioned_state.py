"""Weights, optimizer state and buffers of one executor: a memory-mapped file that holds two versions.

Version v is what step v starts from. It lies in half ``v % 2``; step v reads that half and writes version v + 1 into
the other one, so a task that is retried, or runs twice at the same time, always finds its input whole. Every lot has
a stamp in each half and a byte-range lock: whoever holds the lock brings the lot forward, everybody else finds it
done. A process that dies lets go of its locks and leaves a lot without a stamp, which the next one redoes. The file
is a cache with an expiry date, never the truth: what is missing or stale raises :class:`StateLost`, and the driver
goes back to the last snapshot.

All tasks of an executor share the file, so k replicas on one executor also share the work of an update.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from sparkdl.errors import ConfigError, StateLost
from sparkdl.optim import Entry, SliceOptimizer, Template, entry_bytes, state_entries
from sparkdl.slices import Layout

PAGE = 4096
PART_BYTES = 1 << 24
BUFFER_BYTES = (1 << 31) - (1 << 20)  # of a model: they are one item, whose length is a 32-bit number to Spark
SHARE_BYTES = 1 << 26  # of a snapshot in one block: what a task's result or a block may be is limited, state is not


class StatePlan(NamedTuple):
    """Bytes of one half: weights, then optimizer state, then the model's buffers, then the rows that changed.

    row_lists: where the changed rows of each table's lot are: an int64 count, then room for an int32 for each.
    """

    layout: Layout
    entries: tuple[tuple[Entry, ...], ...]  # of every segment; offsets from the start of the half
    buffer_start: int  # bytes; start of the float buffers
    num_buffer_floats: int
    num_buffer_bytes: int  # all other buffers (integers, …), as they are
    half_bytes: int  # a multiple of the page size
    row_lists: tuple[int, ...] = ()  # bytes

    @property
    def num_lots(self) -> int:
        """Lots of weights, and one more for the model's buffers if it has any."""
        return len(self.layout.lots) + self.has_buffers

    @property
    def has_buffers(self) -> bool:
        """Whether the model has buffers."""
        return self.num_buffer_floats + self.num_buffer_bytes > 0


def state_plan(template: Template, layout: Layout, num_buffer_floats: int = 0, num_buffer_bytes: int = 0) -> StatePlan:
    """Lays out one half for this optimizer and layout.

    Raises ConfigError: the buffers are too large; they travel in one item.
    """
    if num_buffer_floats * 4 + num_buffer_bytes > BUFFER_BYTES:
        raise ConfigError(
            f"the model's buffers hold {(num_buffer_floats * 4 + num_buffer_bytes) / 1e9:.1f} GB, and at most "
            f"{BUFFER_BYTES / 1e9:.1f} GB can travel with each step; make large tables parameters with "
            "requires_grad=False"
        )
    optimizer = SliceOptimizer(template.blank)
    offset = layout.size * 4
    seen: dict[tuple[tuple[int, ...], int, bool], tuple[tuple[Entry, ...], int]] = {}
    entries = []
    for segment in layout.segments:
        key = (segment.shape, segment.group, segment.start >= layout.dense_size)
        if key not in seen:
            found, end = state_entries(optimizer, *key[:2], 0, len(template.hyper), key[2])
            seen[key] = (tuple(found), end)
        relative, size = seen[key]
        entries.append(tuple(e._replace(offset=e.offset + offset) for e in relative))
        offset += size
    buffers = offset
    offset += -(-num_buffer_floats * 4 // 64) * 64 + num_buffer_bytes
    row_lists = []
    for lot in layout.table_lots:
        row_lists.append(-(-offset // 64) * 64)
        offset = row_lists[-1] + 8 + 4 * layout.table_segment(lot).shape[0]
    half = -(-offset // PAGE) * PAGE
    return StatePlan(layout, tuple(entries), buffers, num_buffer_floats, num_buffer_bytes, half, tuple(row_lists))


def lot_ranges(plan: StatePlan, lot: int, version: int) -> list[tuple[int, int]]:
    """Where a lot's bytes lie in a half, in the order in which they travel: weights, then optimizer state.

    The lot after the last one is the model's buffers. In version 0 there is no optimizer state yet.
    """
    if lot == len(plan.layout.lots):
        size = -(-plan.num_buffer_floats * 4 // 64) * 64 + plan.num_buffer_bytes
        return [(plan.buffer_start, plan.buffer_start + size)]
    start, stop = plan.layout.lot_bounds(lot)
    first, last = plan.layout.lots[lot]
    ranges = [(start * 4, stop * 4)]
    entries = [e for n in range(first, last) for e in plan.entries[n]] if version else []
    if entries:
        ranges.append((entries[0].offset, entries[-1].offset + entry_bytes(entries[-1])))
    return ranges


def num_shares(plan: StatePlan, lots: Sequence[int], version: int) -> int:
    """Into how many shares these lots' parts are cut for a snapshot; see :func:`share_parts`."""
    return max(1, -(-sum(lot_bytes(plan, lot, version) for lot in lots) // SHARE_BYTES))


def share_parts(
    state: VersionedState, lots: Sequence[int], version: int, share: int | None = None, share_bytes: int = SHARE_BYTES
) -> Iterator[tuple[int, int, memoryview]]:
    """The parts (lot, offset, memory) of these lots; of a share those that begin in its ``share_bytes`` of them all."""
    position = 0
    for lot in lots:
        size = lot_bytes(state.plan, lot, version)
        if share is None or position // share_bytes <= share <= (position + size) // share_bytes:
            for offset, _, memory in state.parts(lot, version):
                if share is None or (position + offset) // share_bytes == share:
                    yield lot, offset, memory
        position += size


def lot_bytes(plan: StatePlan, lot: int, version: int) -> int:
    """Bytes of a lot in all its parts."""
    return sum(stop - start for start, stop in lot_ranges(plan, lot, version))


class VersionedState:
    """The file. One object a process: byte-range locks belong to the process and end with its first ``close``."""

    def __init__(self, path: str, plan: StatePlan):
        self.plan = plan
        stamps = 2 * plan.num_lots * 8
        self._stamp_bytes = -(-stamps // PAGE) * PAGE
        size = self._stamp_bytes + 2 * plan.half_bytes
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, size)  # zeros: no lot of either half is stamped; the same size again changes nothing
        self._map = mmap.mmap(self._file, size)
        whole = torch.frombuffer(self._map, dtype=torch.uint8)
        # a stamp is version + 1, so that zero means "nothing here"
        self._stamps = np.frombuffer(self._map, np.int64, 2 * plan.num_lots).reshape(2, plan.num_lots)
        self._halves = [
            whole[self._stamp_bytes + h * plan.half_bytes : self._stamp_bytes + (h + 1) * plan.half_bytes]
            for h in (0, 1)
        ]
        self._weights = [half[: plan.layout.size * 4].view(torch.float32) for half in self._halves]

    def close(self) -> None:
        """Gives the file back; views of it stay valid as long as they are held."""
        os.close(self._file)

    def weights(self, version: int) -> torch.Tensor:
        """fp32 [size]: the flat vector of ``version``, in place. Check :meth:`require` first."""
        return self._weights[version % 2]

    def buffers(self, version: int) -> tuple[torch.Tensor, torch.Tensor]:
        """fp32 [num_buffer_floats] and uint8 [num_buffer_bytes] of ``version``, in place."""
        plan = self.plan
        half = self._halves[version % 2]
        floats = half[plan.buffer_start : plan.buffer_start + plan.num_buffer_floats * 4].view(torch.float32)
        start = plan.buffer_start + -(-plan.num_buffer_floats * 4 // 64) * 64
        return floats, half[start : start + plan.num_buffer_bytes]

    def has(self, version: int, lots: Sequence[int]) -> bool:
        """Whether all of these lots are there in this version."""
        return bool((self._stamps[version % 2, list(lots)] == version + 1).all())

    def require(self, version: int, lots: Sequence[int]) -> None:
        """Raises StateLost unless all of these lots are there in this version."""
        if not self.has(version, lots):
            # what is half written counts as nothing
            found = sorted(set((np.maximum(self._stamps[:, list(lots)], 0) - 1).ravel().tolist()))
            raise StateLost(f"this executor holds versions {found} of the weights, version {version} is needed")

    @contextmanager
    def _locked(self, lot: int) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, lot)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, lot)

    def _write(self, lot: int, version: int, write: Callable[[], None], source: int | None = None) -> None:
        """Puts ``version`` of a lot in place once, whoever and however many ask for it, from version ``source``."""
        with self._locked(lot):
            stamps = self._stamps[version % 2]
            if stamps[lot] == version + 1:
                return
            if source is not None:
                self.require(source, [lot])  # before anything is touched: a late copy of an old task does no harm
            stamps[lot] = 0
            write()
            stamps[lot] = version + 1

    def state(self, version: int, segment: int) -> dict[str, Any]:
        """The optimizer state of a segment; tensors in place. Empty in version 0: no step has made any."""
        if version == 0:
            return {}
        return {e.name: self._value(version, e) for e in self.plan.entries[segment]}

    def _tensor(self, version: int, entry: Entry) -> torch.Tensor:
        size = math.prod(entry.shape) * entry.dtype.itemsize
        return self._halves[version % 2][entry.offset : entry.offset + size].view(entry.dtype).view(entry.shape)

    def _value(self, version: int, entry: Entry) -> Any:
        tensor = self._tensor(version, entry)
        if entry.kind == "tensor":
            return tensor
        return None if entry.kind == "none" else {"int": int, "float": float, "bool": bool}[entry.kind](tensor.item())

    def _segment(self, version: int, number: int) -> torch.Tensor:
        s = self.plan.layout.segments[number]
        return self._weights[version % 2][s.start : s.stop].view(s.shape)

    def update(
        self,
        lot: int,
        version: int,
        gradient: Callable[[int, int], torch.Tensor],
        optimizer: SliceOptimizer,
        hyper: Any,
    ) -> None:
        """Brings a lot from ``version`` to ``version + 1``. ``gradient(start, stop)`` gives the summed gradient."""

        def write() -> None:
            first, last = self.plan.layout.lots[lot]
            numbers = range(first, last)
            segments = self.plan.layout.segments[first:last]
            params, states = [], []
            for n in numbers:
                target = self._segment(version + 1, n)
                target.copy_(self._segment(version, n))
                params.append(target)
                state = {}
                for entry in self.plan.entries[n] if version else ():
                    state[entry.name] = (
                        self._tensor(version + 1, entry).copy_(self._tensor(version, entry))
                        if entry.kind == "tensor"
                        else self._value(version, entry)
                    )
                states.append(state)
            grads = [gradient(s.start, s.stop).view(s.shape) for s in segments]
            new = optimizer.update(params, grads, [s.group for s in segments], states, hyper)
            for n, state in zip(numbers, new, strict=True):
                self._keep(version + 1, n, state)

        self._write(lot, version + 1, write, source=version)

    def _keep(self, version: int, segment: int, state: dict[str, Any]) -> None:
        """Stores what the optimizer left outside the file: first states, replaced tensors, Python numbers."""
        entries = self.plan.entries[segment]
        if len(state) != len(entries):
            raise RuntimeError(
                f"the optimizer's state changed its keys from {[e.name for e in entries]} to {list(state)} after the "
                "first step; an optimizer must keep the same state from its first step on"
            )
        for entry in entries:
            value, place = state[entry.name], self._tensor(version, entry)
            if entry.kind == "none" and value is not None:
                raise RuntimeError(f"the optimizer's state {entry.name!r} was None after its first step and is not now")
            if entry.kind == "tensor":
                if value.data_ptr() != place.data_ptr():
                    place.copy_(value)
            elif entry.kind != "none":
                place.fill_(value)

    def set_buffers(self, version: int, floats: torch.Tensor, raw: bytes | memoryview | np.ndarray) -> None:
        """Puts the model's buffers of ``version`` in place."""

        def write() -> None:
            target_floats, target_raw = self.buffers(version)
            target_floats.copy_(floats)
            if self.plan.num_buffer_bytes:
                target_raw.numpy()[:] = np.frombuffer(raw, np.uint8)

        self._write(len(self.plan.layout.lots), version, write)

    def begin(
        self,
        lots: Sequence[int],
        weights: torch.Tensor | Callable[[int, int], torch.Tensor],
        buffers: tuple[torch.Tensor, bytes],
    ) -> None:
        """Puts version 0 of these lots in place: the model's weights and buffers, no optimizer state.

        weights: fp32 [size], or a function of (start, stop) that gives a part of it.
        """

        def write() -> None:
            part = weights[start:stop] if isinstance(weights, torch.Tensor) else weights(start, stop)
            self._weights[0][start:stop] = part

        for lot in lots:
            if lot < len(self.plan.layout.lots):
                start, stop = self.plan.layout.lot_bounds(lot)
                self._write(lot, 0, write)
            else:
                self.set_buffers(0, *buffers)

    def parts(self, lot: int, version: int, weights_only: bool = False) -> Iterator[tuple[int, int, memoryview]]:
        """A lot's bytes (weights and state, or the buffers for the last lot) in place, at most 16 MB at a time.

        Yields (offset, bytes still to come, memory); offsets count from the lot's first byte.
        """
        half = self._halves[version % 2].numpy()
        ranges = lot_ranges(self.plan, lot, version)[: 1 if weights_only else None]
        total, offset = sum(b - a for a, b in ranges), 0
        for a, b in ranges:
            for start in range(a, b, PART_BYTES):
                part = half[start : min(start + PART_BYTES, b)]
                yield offset, total - offset - len(part), memoryview(part)
                offset += len(part)

    def restore(self, lot: int, version: int, offset: int, size: int, readinto: Callable[[memoryview], None]) -> None:
        """Reads one part back; the parts of a lot come in order, and the last one makes it count.

        A lot that any other task of this executor has already restored (or brought forward since) is left alone; the
        part is read and dropped.
        """
        with self._locked(lot):
            if self._stamps[:, lot].any():
                readinto(memoryview(bytearray(size)))
                return
            for place, rest, memory in self.parts(lot, version):
                if place == offset:
                    readinto(memory)
                    if rest == 0:
                        self._stamps[version % 2, lot] = version + 1
                    return
        raise RuntimeError(f"a snapshot's part of lot {lot} starts at byte {offset}, where no part of this run starts")
