"""Where every parameter lives in the flat vector, and the borders at which that vector may be cut.

Words, from large to small:

- *flat vector*: all trainable parameters, fp32, ordered by parameter group, each tensor at a multiple of 16 elements
  (64 bytes: kernels then see the same alignment whatever was cut before them, which keeps the bits the same).
- *slice*: what one parameter-sync task owns; a run of whole segments.
- *lot*: what is locked and stamped at once; a run of whole segments inside one slice.
- *segment*: what the optimizer updates as one parameter; a run of elements of one group (element-wise optimizers) or
  exactly one tensor in its own shape (all others).
- *piece*: a part of a slice on the wire, about 1 MB.

Law: updating a slice is slicing the update; cutting never changes a result (see :mod:`sparkdl.optim`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

ALIGNMENT = 16  # elements; 64 bytes of fp32
SEGMENT_SIZE = 1 << 17  # elements of an element-wise segment: weights and moments of one stay in a core's cache
LOT_SIZE = 1 << 16  # elements; small tensors are put together up to this, so that locks and optimizer calls stay few
PIECE_SIZE = 1 << 18  # elements; 1 MB of fp32
SLICE_BYTES = 1 << 20  # bytes; a sync task is not worth its scheduling for less


class TensorPlace(NamedTuple):
    """One parameter in the flat vector: elements ``start`` to ``start + numel``."""

    name: str
    shape: tuple[int, ...]
    start: int
    numel: int
    group: int


class Segment(NamedTuple):
    """Elements ``start`` to ``stop`` of the flat vector, updated as one parameter of ``shape`` in ``group``."""

    start: int
    stop: int
    group: int
    shape: tuple[int, ...]


class Piece(NamedTuple):
    """Elements ``start`` to ``stop`` of the flat vector, on their way to the owner of slice ``slice``."""

    slice: int
    start: int
    stop: int


class Layout(NamedTuple):
    """The flat vector: its tensors, its segments, and the lots (as ranges of segment numbers)."""

    size: int  # elements, padding included
    tensors: tuple[TensorPlace, ...]
    segments: tuple[Segment, ...]
    lots: tuple[tuple[int, int], ...]

    def lot_bounds(self, lot: int) -> tuple[int, int]:
        """First element and end of a lot; padding between its tensors included."""
        first, last = self.lots[lot]
        return self.segments[first].start, self.segments[last - 1].stop


def aligned(elements: int) -> int:
    """The next multiple of 16 at or above ``elements``."""
    return -(-elements // ALIGNMENT) * ALIGNMENT


def layout(parameters: Sequence[tuple[str, tuple[int, ...], int]], elementwise: bool) -> Layout:
    """Places parameters, given as (name, shape, group), in a flat vector.

    ``elementwise`` tells whether the optimizer treats every element on its own: then segments are even runs inside a
    group; otherwise each tensor is its own segment.
    """
    tensors: list[TensorPlace] = []
    position = 0
    for name, shape, group in sorted(parameters, key=lambda p: p[2]):  # stable: the model's order inside a group
        numel = math.prod(shape)
        tensors.append(TensorPlace(name, tuple(shape), position, numel, group))
        position = aligned(position + numel)
    segments: list[Segment] = []
    if elementwise:
        for group in dict.fromkeys(t.group for t in tensors):
            members = [t for t in tensors if t.group == group]
            stop = aligned(members[-1].start + members[-1].numel)
            for start in range(members[0].start, stop, SEGMENT_SIZE):
                end = min(start + SEGMENT_SIZE, stop)
                segments.append(Segment(start, end, group, (end - start,)))
    else:
        segments = [Segment(t.start, t.start + t.numel, t.group, t.shape) for t in tensors if t.numel]
    return Layout(position, tuple(tensors), tuple(segments), tuple(_lots(segments)))


def _lots(segments: Sequence[Segment]) -> list[tuple[int, int]]:
    lots: list[tuple[int, int]] = []
    first = 0
    for last, segment in enumerate(segments, start=1):
        if segment.stop - segments[first].start >= LOT_SIZE or last == len(segments):
            lots.append((first, last))
            first = last
    return lots


def num_slices(size: int, num_lots: int, num_replicas: int) -> int:
    """How many slices a vector of ``size`` fp32 elements is worth: 1 MB at least each, at most one a replica."""
    return max(1, min(num_replicas, num_lots, size * 4 // SLICE_BYTES))


def cut(layout: Layout, num_slices: int) -> list[tuple[int, int]]:
    """Cuts the lots into ``num_slices`` runs of about equal size; returns [first lot, end lot) of each slice."""
    borders = [0]
    for n in range(1, num_slices):
        target = layout.size * n // num_slices
        border = next(
            (i for i, lot in enumerate(layout.lots) if layout.segments[lot[0]].start >= target), len(layout.lots)
        )
        # leave at least one lot for every slice on both sides
        borders.append(max(borders[-1] + 1, min(border, len(layout.lots) - (num_slices - n))))
    borders.append(len(layout.lots))
    return list(itertools.pairwise(borders))


def slice_bounds(layout: Layout, lots: tuple[int, int]) -> tuple[int, int]:
    """First element and end of the slice that owns the lots ``lots[0]`` to ``lots[1]``: the next one's start, or all.

    So the slices leave nothing out, not even the padding behind a tensor.
    """
    stop = layout.lot_bounds(lots[1])[0] if lots[1] < len(layout.lots) else layout.size
    return layout.lot_bounds(lots[0])[0], stop


def pieces(layout: Layout, slices: Sequence[tuple[int, int]]) -> list[Piece]:
    """All pieces of all slices in ascending order; a piece never crosses the border of a slice."""
    found: list[Piece] = []
    for n, lots in enumerate(slices):
        start, stop = slice_bounds(layout, lots)
        found += [Piece(n, a, min(a + PIECE_SIZE, stop)) for a in range(start, stop, PIECE_SIZE)]
    return found
