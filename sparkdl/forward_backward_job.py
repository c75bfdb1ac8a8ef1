"""Forward-backward tasks: weights in, gradient pieces out. The mathematics is :mod:`sparkdl.replica`'s."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from sparkdl import replica_cache, table_rows, wire
from sparkdl.errors import StateLost
from sparkdl.replica_cache import RunCache, job_settings
from sparkdl.replica_items import gradient_items, piece_parts, report_items
from sparkdl.step_settings import Plan, StepSettings
from sparkdl.versioned_tables import VersionedTables
from sparkdl.wire import Source


def forward_backward(
    cache: RunCache,
    plan: Plan,
    generation: int,
    settings: StepSettings,
    replica: int,
    weights: torch.Tensor,
    buffers: tuple[torch.Tensor, torch.Tensor],
    timings: tuple[float, float] | list[float],
    tables: VersionedTables | None = None,
) -> Iterator[tuple[int, wire.Parts]]:
    """A replica's share of a step as (slice, item), see :mod:`sparkdl.replica_items`.

    ``timings``: milliseconds of reading and updating that went before. ``tables``: where embedding tables lie, if there
    are any.
    """
    payload = cache.payload
    began = time.perf_counter()
    rows = plan.rows(settings, replica)
    files = cache.data(replica)
    arrays = files.take(rows)
    if files.large and settings.index + 1 < plan.steps_per_epoch:
        files.expect(plan.rows(replace(settings, index=settings.index + 1), replica))
    cache.replica.bind(weights, tables, settings.step)
    sums = cache.replica.forward_backward(arrays, plan.rows_in_step(settings.index), settings.step, replica, buffers)
    names = payload.record_names
    sums.record[names.index("read_ms")], sums.record[names.index("update_ms")] = timings
    sums.record[names.index("compute_ms")] = (time.perf_counter() - began) * 1e3
    sums.record[names.index("write_ms")] = cache.write_ms
    began = time.perf_counter()
    yield from report_items(payload, len(plan.slices), settings.step, replica, sums)
    if plan.same_host and sums.num_rows:
        path = os.path.join(cache.directory, f"gradient-{generation}-{replica}")
        layout = payload.plan.layout
        parts = piece_parts(layout, sums.gradients, 0, layout.dense_size, payload.wire == "bf16")
        cache.shared_gradient(path, create=True).write(settings.step, parts)
        yield 0, [wire.header(wire.SHARED, settings.step, replica, 0, len(path.encode())), path.encode()]
    else:
        yield from gradient_items(payload, cache.pieces(plan), settings.step, replica, sums)
    yield from table_rows.gradient_items(payload, len(plan.slices), settings.step, replica, sums)
    cache.write_ms = (time.perf_counter() - began) * 1e3


class ForwardBackwardTask:
    """Reads the weights of all slices from the block store; every item goes out behind a key, its slice.

    position: which of the job's steps this is (``steps_per_job``).
    """

    def __init__(self, plan: Plan, position: int = 0):
        self.plan, self.position = plan, position

    def __call__(self, replica: int, source: Source) -> Iterator[wire.Parts]:
        """See :data:`sparkdl.spark_internals.TaskFunction`."""
        job = job_settings()
        settings = job.steps[self.position]
        cache = replica_cache.get(self.plan.run)
        began = time.perf_counter()
        tables = cache.tables(job.generation) if cache.payload.plan.layout.table_lots else None
        read_weights(cache, self.plan, settings.step, source, tables)
        timings = ((time.perf_counter() - began) * 1e3, 0.0)
        items = forward_backward(
            cache, self.plan, job.generation, settings, replica, cache.weights, cache.buffers, timings, tables
        )
        for number, parts in items:
            yield [struct.pack(">q", number)]
            yield parts


def read_weights(
    cache: RunCache, plan: Plan, version: int, source: Source, tables: VersionedTables | None = None
) -> None:
    """Fills the worker's copy of the flat vector (and the buffers); it is whole and of one version, or StateLost.

    tables: the executor's copy of the tables, which is brought to this version.
    """
    layout = cache.payload.plan.layout
    elements = 0
    for head in source:
        if head.version != version:
            raise StateLost(f"weights of step {head.version} came in where those of step {version} were expected")
        if head.kind == wire.WEIGHTS:
            source.readinto(wire.view(cache.weights[head.start : head.start + head.size]))
            elements += head.size
        elif head.kind == wire.ROWS and tables is not None:
            rows, values = table_rows.read_item(source, head, layout.table_segment(head.start).shape[1])
            tables.put_rows(head.start, version, rows, values)
        elif head.kind == wire.STATE and tables is not None:
            tables.restore(head.replica, version, head.start, head.size, source.readinto)
        elif head.kind == wire.BUFFERS:
            data = wire.read(source, head)
            floats, raw = cache.buffers
            floats.copy_(torch.frombuffer(data, dtype=torch.float32, count=len(floats)) if len(floats) else floats)
            if len(raw):
                raw.copy_(torch.frombuffer(data, dtype=torch.uint8, offset=len(floats) * 4))
    wanted = sum(p.stop - p.start for p in cache.pieces(plan))
    if elements != wanted:
        raise StateLost(f"weights of step {version} are incomplete: {elements} of {wanted} elements arrived")
    if tables is not None:
        tables.require(version, layout.table_lots)
