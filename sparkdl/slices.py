"""Where every parameter lives in the flat vector, and the borders at which that vector may be cut.

Words, from large to small:

- *flat vector*: all trainable parameters, fp32, ordered by parameter group, each tensor at a multiple of 16 elements
  (64 bytes: kernels then see the same alignment whatever was cut before them, which keeps the bits the same).
- *slice*: what one parameter-sync task owns; a run of whole segments.
- *lot*: what is locked and stamped at once; a run of whole segments inside one slice.
- *segment*: what the optimizer updates as one parameter; a run of elements of one group (element-wise optimizers) or
  exactly one tensor in its own shape (all others).
- *piece*: a part of a slice on the wire, about 1 MB.
- *table*: the weights of an ``Embedding(sparse=True)``. Tables lie behind all else and are cut into lots of whole rows,
  one segment each, which belong to the slices in turn. Their gradients travel as touched rows, not as pieces.

Law: updating a slice is slicing the update; cutting never changes a result (see :mod:`sparkdl.optim`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

ALIGNMENT = 16  # elements; 64 bytes of fp32
SEGMENT_SIZE = 1 << 17  # elements of an element-wise segment: weights and moments of one stay in a core's cache
LOT_SIZE = 1 << 16  # elements; small tensors are put together up to this, so that locks and optimizer calls stay few
PIECE_SIZE = 1 << 18  # elements; 1 MB of fp32
SLICE_BYTES = 1 << 20  # bytes; a sync task is not worth its scheduling for less
TABLE_LOTS = 8  # of a table at most: each costs an optimizer's call in every step, however few rows were touched
TABLE_LOT_SIZE = 1 << 20  # elements of a table's lot at least


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
    dense_size: int  # elements before the first table, padding included
    dense_lots: int  # lots before the first table

    @property
    def table_lots(self) -> range:
        """The lots of tables: one segment each."""
        return range(self.dense_lots, len(self.lots))

    def table_segment(self, lot: int) -> Segment:
        """The rows of a table that ``lot`` is; its ``shape`` is (rows, width)."""
        return self.segments[self.lots[lot][0]]

    def lot_bounds(self, lot: int) -> tuple[int, int]:
        """First element and end of a lot; padding between its tensors included."""
        first, last = self.lots[lot]
        return self.segments[first].start, self.segments[last - 1].stop


def aligned(elements: int) -> int:
    """The next multiple of 16 at or above ``elements``."""
    return -(-elements // ALIGNMENT) * ALIGNMENT


def layout(
    parameters: Sequence[tuple[str, tuple[int, ...], int]], elementwise: bool, tables: Collection[str] = ()
) -> Layout:
    """Places parameters, given as (name, shape, group), in a flat vector.

    ``elementwise`` tells whether the optimizer treats every element on its own: then segments are even runs inside a
    group; otherwise each tensor is its own segment. ``tables``: names of those whose gradients are sparse.
    """
    tensors: list[TensorPlace] = []
    position = 0
    # stable: the model's order inside a group
    for name, shape, group in sorted(parameters, key=lambda p: (p[0] in tables, p[2])):
        numel = math.prod(shape)
        tensors.append(TensorPlace(name, tuple(shape), position, numel, group))
        position = aligned(position + numel)
    dense = [t for t in tensors if t.name not in tables]
    dense_size = aligned(dense[-1].start + dense[-1].numel) if dense else 0
    segments: list[Segment] = []
    if elementwise:
        for group in dict.fromkeys(t.group for t in dense):
            members = [t for t in dense if t.group == group]
            stop = aligned(members[-1].start + members[-1].numel)
            for start in range(members[0].start, stop, SEGMENT_SIZE):
                end = min(start + SEGMENT_SIZE, stop)
                segments.append(Segment(start, end, group, (end - start,)))
    else:
        segments = [Segment(t.start, t.start + t.numel, t.group, t.shape) for t in dense if t.numel]
    lots = _lots(segments)
    dense_lots = len(lots)
    for t in tensors[len(dense) :]:
        for segment in _table_segments(t):
            segments.append(segment)
            lots.append((len(segments) - 1, len(segments)))
    return Layout(position, tuple(tensors), tuple(segments), tuple(lots), dense_size, dense_lots)


def _table_segments(table: TensorPlace) -> list[Segment]:
    """Runs of whole rows; multiples of 16 rows, so that each begins at a multiple of 64 bytes."""
    if not table.numel:
        return []
    rows, width = table.shape
    size = max(TABLE_LOT_SIZE, -(-table.numel // TABLE_LOTS))
    step = aligned(-(-size // width))
    bounds = [(first, min(first + step, rows)) for first in range(0, rows, step)]
    return [Segment(table.start + a * width, table.start + b * width, table.group, (b - a, width)) for a, b in bounds]


def _lots(segments: Sequence[Segment]) -> list[tuple[int, int]]:
    lots: list[tuple[int, int]] = []
    first = 0
    for last, segment in enumerate(segments, start=1):
        if segment.stop - segments[first].start >= LOT_SIZE or last == len(segments):
            lots.append((first, last))
            first = last
    return lots


def num_slices(size: int, num_lots: int, num_replicas: int, num_table_lots: int = 0) -> int:
    """How many slices a vector is worth: at most one a replica, and one a lot.

    size, num_lots: of what lies before the tables, of which a slice is to have 1 MB at least.
    """
    return max(1, min(num_replicas, max(min(num_lots, size * 4 // SLICE_BYTES), num_table_lots)))


def cut(layout: Layout, num_slices: int) -> list[tuple[int, int]]:
    """Cuts the lots before the tables into ``num_slices`` runs of about equal size.

    Returns [first lot, end lot) of each slice; where there are fewer lots than slices, the last ones own none.
    """
    lots = layout.dense_lots
    wanted = max(1, min(num_slices, lots))
    borders = [0]
    for n in range(1, wanted):
        target = layout.dense_size * n // wanted
        border = next((i for i in range(lots) if layout.segments[layout.lots[i][0]].start >= target), lots)
        # leave at least one lot for every slice on both sides
        borders.append(max(borders[-1] + 1, min(border, lots - (wanted - n))))
    borders += [lots] * (num_slices - wanted + 1)
    return list(itertools.pairwise(borders))


def lots_of(layout: Layout, slices: Sequence[tuple[int, int]], number: int) -> list[int]:
    """The lots of slice ``number``: its run of those before the tables, and every so many-th of the tables'."""
    return [*range(*slices[number]), *layout.table_lots[number :: len(slices)]]


def table_owner(layout: Layout, num_slices: int, lot: int) -> int:
    """The slice that owns a lot of a table; see :func:`lots_of`."""
    return (lot - layout.dense_lots) % num_slices


def slice_bounds(layout: Layout, lots: tuple[int, int]) -> tuple[int, int]:
    """First element and end of the lots ``lots[0]`` to ``lots[1]``: the next one's start, or the first table's.

    So the slices leave nothing out, not even the padding behind a tensor.
    """
    first, last = (layout.lot_bounds(lot)[0] if lot < layout.dense_lots else layout.dense_size for lot in lots)
    return first, last


def pieces(layout: Layout, slices: Sequence[tuple[int, int]]) -> list[Piece]:
    """All pieces of all slices in ascending order; a piece never crosses the border of a slice."""
    found: list[Piece] = []
    for n, lots in enumerate(slices):
        start, stop = slice_bounds(layout, lots)
        found += [Piece(n, a, min(a + PIECE_SIZE, stop)) for a in range(start, stop, PIECE_SIZE)]
    return found
