"""Putting state in place on the executors, and taking it out: start, snapshot, restore, records, fingerprint.

The pure parts are :class:`sparkdl.versioned_state.VersionedState`'s; here they meet the run's files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from pyspark import SparkFiles

from sparkdl import replica_cache, versioned_state, wire
from sparkdl.payload import read_buffers
from sparkdl.replica_cache import RECORDED_STEPS, RunCache, job_settings
from sparkdl.saved_state import items, lot_fingerprint
from sparkdl.slices import lots_of
from sparkdl.step_settings import JobSettings, Plan
from sparkdl.versioned_state import StatePlan, VersionedState, share_parts
from sparkdl.wire import FileSource, Source

FINGERPRINT_BYTES = 8 + 32  # a lot's number and its hash


def restore(cache: RunCache, job: JobSettings, lots: Sequence[int], source: Source) -> None:
    """Puts ``job.version`` of these lots in place: from a snapshot's items, or, in version 0, from the payload."""
    state = cache.state(job.generation)
    wanted = set(lots)
    if job.file:
        source.drain()
        source = FileSource(job.file if os.path.isabs(job.file) else SparkFiles.get(job.file))
    for head in source:
        if head.kind == wire.STATE and head.version == job.version and head.replica in wanted:
            state.restore(head.replica, head.version, head.start, head.size, source.readinto)
        elif size := wire.payload_bytes(head):
            source.readinto(memoryview(bytearray(size)))
    if job.version == 0 and not state.has(0, lots):
        first = cache.first_payload()
        by_parts = all(p.is_contiguous() for p in first.model.parameters())  # else each part would copy a whole tensor
        weights = first.initial_weights if by_parts else first.initial_weights()
        state.begin(lots, weights, read_buffers(first.model))
    state.require(job.version, lots)


def snapshot(state: VersionedState, version: int, lots: Sequence[int]) -> Iterator[wire.Parts]:
    """These lots of a version as items."""
    state.require(version, lots)
    yield from items(share_parts(state, lots, version), version)


class SnapshotTask:
    """Task i emits a share of a slice's lots, or of all: (slice or None, share) is ``places[i]``."""

    def __init__(self, plan: Plan, places: Sequence[tuple[int | None, int]]):
        self.plan, self.places, self.share_bytes = plan, places, versioned_state.SHARE_BYTES

    def __call__(self, number: int, source: Source) -> Iterator[wire.Parts]:
        """See :data:`sparkdl.spark_internals.TaskFunction`."""
        source.drain()
        job = job_settings()
        cache = replica_cache.get(self.plan.run)
        owner, share = self.places[number]
        lots = range(cache.payload.plan.num_lots) if owner is None else owned_lots(cache.payload.plan, self.plan, owner)
        state = cache.state(job.generation)
        state.require(job.version, lots)
        yield from items(share_parts(state, lots, job.version, share, self.share_bytes), job.version)


def owned_lots(plan: StatePlan, run: Plan, number: int) -> list[int]:
    """The lots of a slice; slice 0 also keeps the model's buffers."""
    lots = lots_of(plan.layout, run.slices, number)
    if number == 0 and plan.has_buffers:
        lots.append(len(plan.layout.lots))
    return lots


def fingerprint(state: VersionedState, version: int, lots: Sequence[int]) -> Iterator[wire.Parts]:
    """One item: a 32-byte hash of each lot's weights, optimizer state or buffers, behind its number."""
    state.require(version, lots)
    found = b"".join(lot.to_bytes(8, "little") + lot_fingerprint(state, version, lot) for lot in lots)
    yield [wire.header(wire.STATE, version, 0, 0, len(found)), found]


def read_fingerprints(items: Iterable[bytes]) -> list[bytes]:
    """The hashes of all lots in order, out of the items of :func:`fingerprint`."""
    found: dict[int, bytes] = {}
    for item in items:
        for start in range(wire.HEADER_BYTES, len(item), FINGERPRINT_BYTES):
            record = item[start : start + FINGERPRINT_BYTES]
            found[int.from_bytes(record[:8], "little")] = record[8:]
    return [found[lot] for lot in sorted(found)]


def keep_records(cache: RunCache, plan: Plan, generation: int, step: int, records: dict[int, np.ndarray]) -> None:
    """Remembers what all replicas reported of a step, for the next records job."""
    ring = cache.records(generation, plan.num_replicas)
    slot = ring[step % RECORDED_STEPS]
    for replica, record in records.items():
        slot[replica, :-1] = record
        slot[replica, -1] = step + 1


def read_records(cache: RunCache, plan: Plan, job: JobSettings) -> Iterator[wire.Parts]:
    """The records of steps ``job.first`` to ``job.version``; a step that is not there (any more) is left out."""
    ring = cache.records(job.generation, plan.num_replicas)
    for step in range(job.first, job.version):
        slot = ring[step % RECORDED_STEPS]
        if (slot[:, -1] == step + 1).all():
            yield [wire.header(wire.RECORD, step, 0, 0, slot[:, :-1].size), wire.bytes_of(slot[:, :-1])]


class RemoveTask:
    """Deletes the run's files on the executor."""

    def __init__(self, run: str):
        self.run = run

    def __call__(self, replica: int, source: Source) -> Iterator[wire.Parts]:
        """See :data:`sparkdl.spark_internals.TaskFunction`."""
        source.drain()
        replica_cache.remove(self.run)
        yield from ()
