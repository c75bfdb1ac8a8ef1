"""What a replica hands over after its forward-backward, as items on the wire: a record, its buffers, its gradient."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence

import torch

from sparkdl import wire
from sparkdl.payload import Payload
from sparkdl.replica import Sums
from sparkdl.slices import Layout, Piece


def report_items(
    payload: Payload, num_slices: int, step: int, replica: int, sums: Sums
) -> Iterator[tuple[int, wire.Parts]]:
    """(slice, item): the record for every slice, and the model's buffers for slice 0.

    A replica without rows gives an empty item instead of its buffers: the number of items never changes, which lets
    Spark zip them with the pins of the sync tasks.
    """
    for number in range(num_slices):
        yield number, [wire.header(wire.RECORD, step, replica, 0, len(sums.record)), wire.bytes_of(sums.record)]
    if payload.plan.has_buffers:
        parts: wire.Parts = [wire.view(sums.float_buffers), sums.raw_buffers]
        head = wire.header(wire.BUFFERS, step, replica, 0, sum(len(p) for p in parts))
        yield 0, [head, *parts] if sums.num_rows else [wire.header(wire.EMPTY, step, replica)]


def gradient_items(
    payload: Payload, pieces: Sequence[Piece], step: int, replica: int, sums: Sums
) -> Iterator[tuple[int, wire.Parts]]:
    """(slice, item): the gradient's pieces; empty items from a replica without rows."""
    bf16 = payload.wire == "bf16"
    for number, start, stop in pieces:
        if sums.num_rows:
            head = wire.header(wire.GRADIENT, step, replica, start, stop - start, int(bf16))
            yield number, [head, *piece_parts(payload.plan.layout, sums.gradients, start, stop, bf16)]
        else:
            yield number, [wire.header(wire.EMPTY, step, replica)]


def piece_parts(
    layout: Layout, gradients: Sequence[torch.Tensor | None], start: int, stop: int, bf16: bool
) -> wire.Parts:
    """Elements ``start`` to ``stop`` of the flat gradient as memory to write, without putting it together first.

    Padding, and parameters that no row reached, are zeros.
    """
    parts: wire.Parts = []
    size = 2 if bf16 else 4
    position = start
    first = bisect.bisect_right(layout.tensors, start, key=lambda t: t.start) - 1
    for tensor, gradient in zip(layout.tensors[first:], gradients[first:], strict=True):
        if tensor.start >= stop:
            break
        a, b = max(start, tensor.start), min(stop, tensor.start + tensor.numel)
        if gradient is None or b <= a:
            continue
        if a > position:
            parts.append(bytes((a - position) * size))
        run = gradient.view(-1)[a - tensor.start : b - tensor.start]
        parts.append(wire.view(run.to(torch.bfloat16) if bf16 else run))
        position = b
    if stop > position:
        parts.append(bytes((stop - position) * size))
    return parts
