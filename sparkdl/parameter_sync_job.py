"""Parameter-sync tasks: gradient pieces of one slice in, its new weights out. The mathematics is :mod:`sparkdl.sync`'s.

With ``clip_norm`` no slice can be updated before the norm of all is known: the sums then wait in a file of the
executor for a second job, and only the norms pass through the driver.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from sparkdl import replica_cache, state_job, sync, table_rows, wire
from sparkdl.errors import StateLost
from sparkdl.replica_cache import RunCache, job_settings
from sparkdl.slices import lots_of, slice_bounds
from sparkdl.step_settings import JobSettings, Plan, StepSettings
from sparkdl.versioned_tables import VersionedTables
from sparkdl.wire import Source


class SyncTask:
    """The task of slice ``number``; the job's mode says what it does, ``position`` which of its steps it syncs."""

    def __init__(self, plan: Plan, position: int = 0):
        self.plan, self.position = plan, position

    def __call__(self, number: int, source: Source) -> Iterator[wire.Parts]:
        """See :data:`sparkdl.spark_internals.TaskFunction`."""
        job, plan = job_settings(), self.plan
        cache = replica_cache.get(plan.run)
        state = cache.state(job.generation)
        lots = state_job.owned_lots(cache.payload.plan, plan, number)
        if job.mode == "step":
            settings = job.steps[self.position]
            _read_and_update(cache, plan, job, settings, number, source)
            yield from weights(cache, plan, state, settings.step + 1, number)
        elif job.mode == "sum":
            yield from _sum(cache, plan, job, job.steps[0], number, source)
        elif job.mode == "update":
            source.drain()
            _update_from_file(cache, plan, job, job.steps[0], number)
            yield from weights(cache, plan, state, job.steps[0].step + 1, number)
        elif job.mode == "restore":
            state_job.restore(cache, job, lots, source)
            yield from weights(cache, plan, state, job.version, number, whole=True)
        else:
            source.drain()
            if job.mode == "digest":
                yield from state_job.fingerprint(state, job.version, lots)
            elif number == 0:
                yield from state_job.read_records(cache, plan, job)


def weights(
    cache: RunCache, plan: Plan, state: VersionedTables, version: int, number: int, whole: bool = False
) -> Iterator[wire.Parts]:
    """A slice's weights (and from slice 0 the buffers) as items; of tables the rows that changed, or the ``whole``."""
    state.require(version, state_job.owned_lots(cache.payload.plan, plan, number))
    for lot in _tables(cache, plan, number):
        if not whole:
            yield table_rows.item(wire.ROWS, version, number, lot, *state.table_rows(lot, version))
            continue
        for offset, _, memory in state.parts(lot, version, weights_only=True):
            yield [wire.header(wire.STATE, version, lot, offset, len(memory)), memory]
    flat = state.weights(version)
    for piece in cache.pieces(plan):
        if piece.slice == number:
            head = wire.header(wire.WEIGHTS, version, number, piece.start, piece.stop - piece.start)
            yield [head, wire.view(flat[piece.start : piece.stop])]
    if number == 0 and cache.payload.plan.has_buffers:
        floats, raw = state.buffers(version)
        yield [wire.header(wire.BUFFERS, version, 0, 0, len(floats) * 4 + len(raw)), wire.view(floats), wire.view(raw)]


def _read(cache: RunCache, plan: Plan, settings: StepSettings, number: int, source: Source) -> sync.GradientSum:
    start, stop = slice_bounds(cache.payload.plan.layout, plan.slices[number])
    total = cache.sum(start, stop, plan.num_replicas, _tables(cache, plan, number))
    total.read(source, settings.step, plan.contributors(settings.index))
    sync.finish(cache.payload, total.total, total.scale())
    return total


def _tables(cache: RunCache, plan: Plan, number: int) -> list[int]:
    layout = cache.payload.plan.layout
    return [lot for lot in lots_of(layout, plan.slices, number) if lot >= layout.dense_lots]


def _keep_shared(
    cache: RunCache, plan: Plan, job: JobSettings, settings: StepSettings, number: int, total: sync.GradientSum
) -> None:
    """What slice 0 does for all: the model's buffers and the records."""
    if number == 0:
        if (buffers := total.buffers()) is not None:
            cache.state(job.generation).set_buffers(settings.step + 1, *buffers)
        state_job.keep_records(cache, plan, job.generation, settings.step, total.records)


def _update(
    cache: RunCache, plan: Plan, job: JobSettings, settings: StepSettings, number: int, total: sync.GradientSum
) -> None:
    """Brings the slice's lots forward with its finished sum; ``job.clip`` is 1.0 without ``clip_norm``."""
    sync.update_lots(
        cache.payload,
        cache.state(job.generation),
        cache.optimizer,
        lots_of(cache.payload.plan.layout, plan.slices, number),
        settings.step,
        partial(total.gradient, cache.payload),
        job.clip,
        settings.hyper,
    )


def _read_and_update(
    cache: RunCache, plan: Plan, job: JobSettings, settings: StepSettings, number: int, source: Source
) -> None:
    began = time.perf_counter()
    total = _read(cache, plan, settings, number, source)
    _update(cache, plan, job, settings, number, total)
    # the replicas could not know how long the sync would take: slice 0 speaks for all
    place = cache.payload.record_names.index("update_ms")
    total.records = {r: record.copy() for r, record in total.records.items()}
    for record in total.records.values():
        record[place] = (time.perf_counter() - began) * 1e3
    _keep_shared(cache, plan, job, settings, number, total)


def _sum(
    cache: RunCache, plan: Plan, job: JobSettings, settings: StepSettings, number: int, source: Source
) -> Iterator[wire.Parts]:
    """Keeps the slice's sum in a file, stamped with its step, and tells the squared norms of its lots."""
    total = _read(cache, plan, settings, number, source)
    with open(aside := f"{_sum_path(cache, job, number)}-{os.getpid()}", "wb") as file:
        file.write(wire.header(wire.SUM, settings.step, number, total.start, len(total.total)))
        file.write(wire.view(total.total))
        for lot in _tables(cache, plan, number):
            found = total.gradient(cache.payload, *cache.payload.plan.layout.lot_bounds(lot))
            rows, values = table_rows.rows_of(found), found._values()
            file.writelines(table_rows.item(wire.ROWS, settings.step, number, lot, rows, values))
    os.rename(aside, _sum_path(cache, job, number))
    _keep_shared(cache, plan, job, settings, number, total)
    lots = lots_of(cache.payload.plan.layout, plan.slices, number)
    norms = np.array(sync.square_norm(cache.payload, lots, partial(total.gradient, cache.payload)))
    yield [wire.header(wire.RECORD, settings.step, number, 0, len(norms)), wire.bytes_of(norms)]


def _update_from_file(cache: RunCache, plan: Plan, job: JobSettings, settings: StepSettings, number: int) -> None:
    start, stop = slice_bounds(cache.payload.plan.layout, plan.slices[number])
    total = cache.sum(start, stop, plan.num_replicas, _tables(cache, plan, number))
    source = wire.FileSource(_sum_path(cache, job, number))
    try:
        for head in source:
            if head.version != settings.step:
                raise StateLost(
                    f"this executor holds the sum of step {head.version}, that of step {settings.step} is needed"
                )
            if head.kind == wire.SUM:
                source.readinto(wire.view(total.total))
            elif total.tables is not None:
                total.tables.keep(source, head)
    except FileNotFoundError:
        raise StateLost(f"this executor has no summed gradient of slice {number}") from None
    _update(cache, plan, job, settings, number, total)


def _sum_path(cache: RunCache, job: JobSettings, number: int) -> str:
    return os.path.join(cache.directory, f"sum-{job.generation}-{number}")


class PinTask:
    """As many empty items as slice ``number`` gets from all replicas in a step: the other side of the zip."""

    def __init__(self, plan: Plan, items: tuple[int, ...]):
        self.plan, self.items = plan, items

    def __call__(self, number: int, source: Source) -> Iterator[wire.Parts]:
        """See :data:`sparkdl.spark_internals.TaskFunction`."""
        source.drain()
        for _ in range(self.items[number]):
            yield [b"\0"]


def items_per_step(plan: Plan, num_pieces: dict[int, int], has_buffers: bool, table_lots: int = 0) -> tuple[int, ...]:
    """How many items each slice gets in a step; see :func:`sparkdl.forward_backward_job.forward_backward`."""
    num = len(plan.slices)
    counts = (1 + num_pieces[n] + (n == 0 and has_buffers) + len(range(n, table_lots, num)) for n in range(num))
    return tuple(count * plan.num_replicas for count in counts)
