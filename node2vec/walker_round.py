"""A round of walks over the parts of a graph, without Spark: what each task gets, does and sends.

A round is a range of walk ids (see ``walk_request``) whose walks are in flight together. Its walks are born where their
start nodes are, and move in supersteps: each part advances the walkers it was sent and sends them on, until nobody
leaves a part any more. There is no common step; a walk that stays at home runs ahead. What parts send is bytes under a
key:

    0 .. P-1      walkers for that part: a head of two int64 counts, then arrivals, then verifications. One for each
                  part from each superstep task, also an empty one
    P .. P+A-1    log records of that bucket's walks
    P+A           the number of walkers sent, int64; nothing is there when none were

`walk_in_parts` plays a whole round with a dict of lists. It is the twin of ``partitioned_walk_job``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from node2vec import superstep
from node2vec.graph_parts import Part
from node2vec.superstep import ARRIVAL, VERIFICATION, Batch, Records
from node2vec.trial import law
from node2vec.walk_request import WalkRequest
from sparkdl.errors import ConfigError

Blob = list[Any]  # buffers that are sent as one item

LOG_RECORDS = 1 << 21  # of a task's buffer: 8 bytes each, 12 with the bucket, and 8 again sorted
BUCKET_NODES = 1 << 24  # of a bucket's walks: 64 MB; a position fits a uint32
MOST_WALKS = 2**31 - 1  # of a round: ids are int32 in the records
MOST_BYTES = 2**31 - 64  # of a blob, which is a Java array
_HEAD = np.dtype(np.int64)


class Round(NamedTuple):
    """Walks first .. first + num_walks - 1 of a run. Small: it is sent with every task."""

    request: WalkRequest
    first: int
    num_walks: int
    num_starts: int
    num_parts: int
    num_buckets: int

    @property
    def bucket_walks(self) -> int:
        """Walks of a bucket; the last may have fewer."""
        return max(1, -(-self.num_walks // self.num_buckets))

    def bucket(self, number: int) -> tuple[int, int]:
        """The walks of a bucket, first and behind the last, within the round."""
        return min(number * self.bucket_walks, self.num_walks), min((number + 1) * self.bucket_walks, self.num_walks)

    @property
    def batch(self) -> Batch:
        """What the kernels need of it."""
        request = self.request
        return Batch(
            self.first,
            self.num_starts,
            request.walk_length,
            self.bucket_walks,
            np.uint64(request.seed),
            law(request.p, request.q),
        )


def round_of(request: WalkRequest, first: int, num_walks: int, num_starts: int, num_parts: int) -> Round:
    """The round of `num_walks` walks from id `first` on, its log cut into enough buckets."""
    assert num_walks <= MOST_WALKS
    num_nodes = num_walks * request.walk_length
    num_buckets = max(1, min(num_walks, max(num_parts, -(-num_nodes // BUCKET_NODES))))
    bucket_walks = -(-num_walks // num_buckets)
    return Round(request, first, num_walks, num_starts, num_parts, -(-num_walks // bucket_walks))  # none is empty


def births(this: Round, number: int, starts: npt.NDArray[np.int32] | None) -> Records:
    """The walks that begin in part `number`: arrivals without a prev, int32 [n, 4]."""
    found: list[Records] = []
    nodes: npt.NDArray[Any]
    first, last = this.first, this.first + this.num_walks
    for walk_number in range(first // this.num_starts, -(-last // this.num_starts)):
        base = walk_number * this.num_starts
        start, stop = max(first - base, 0), min(last - base, this.num_starts)
        if starts is None:
            places = np.arange(start + (number - start) % this.num_parts, stop, this.num_parts)
            nodes = places
        else:
            places = start + np.flatnonzero(starts[start:stop] % this.num_parts == number)
            nodes = starts[places]
        records = np.empty((len(places), ARRIVAL), np.int32)
        records[:, 0], records[:, 1], records[:, 2], records[:, 3] = base + places - first, -1, nodes, 1
        found.append(records)
    return np.concatenate([np.empty((0, ARRIVAL), np.int32), *found])


def born(part: Part, this: Round, starts: npt.NDArray[np.int32] | None, num_log: int = LOG_RECORDS) -> Iterator[Any]:
    """The first superstep of a part: pairs of key and blob, as in the head of this module."""
    return _superstep(
        part, this, starts, np.empty((0, VERIFICATION), np.int32), births(this, part.number, starts), num_log
    )


def moved(
    part: Part,
    this: Round,
    starts: npt.NDArray[np.int32] | None,
    blobs: Sequence[bytes | bytearray | memoryview],
    num_log: int = LOG_RECORDS,
) -> Iterator[Any]:
    """A later superstep of a part, which was sent `blobs`: pairs of key and blob. Their order decides nothing."""
    arrivals, verifications = [np.empty((0, ARRIVAL), np.int32)], [np.empty((0, VERIFICATION), np.int32)]
    for blob in blobs:
        num_arrivals, num_verifications = np.frombuffer(blob, _HEAD, 2).tolist()
        records = np.frombuffer(blob, np.int32, offset=2 * _HEAD.itemsize)
        arrivals.append(records[: num_arrivals * ARRIVAL].reshape(-1, ARRIVAL))
        verifications.append(records[num_arrivals * ARRIVAL :].reshape(num_verifications, VERIFICATION))
    return _superstep(part, this, starts, np.concatenate(verifications), np.concatenate(arrivals), num_log)


def _superstep(
    part: Part,
    this: Round,
    starts: npt.NDArray[np.int32] | None,
    verifications: Records,
    arrivals: Records,
    num_log: int,
) -> Iterator[tuple[int, Blob]]:
    if starts is not None:  # as a mapped or a received array is: numba compiles a kernel for either kind
        starts = np.ascontiguousarray(starts, np.int32).view()
        starts.flags.writeable = False
    num_walkers = len(verifications) + len(arrivals)
    # a smaller buffer than one walk's steps would take no walker, for ever; more than all steps is never filled
    num_log = max(min(num_log, num_walkers * this.request.walk_length), superstep.NUM_LANES * this.request.walk_length)
    out = superstep.output(num_walkers, num_log)
    sorted_log = np.empty_like(out.log)
    borders = np.empty(this.num_buckets + 1, np.int64)
    while out.counts[3] < num_walkers:
        taken = int(out.counts[3])
        tables = (part.weights, part.cuts, part.others, part.totals, part.words, part.floors)
        ended = superstep.advance(part, *tables, this.batch, starts, verifications, arrivals, out)
        if ended != superstep.GOING or out.counts[3] == taken:
            raise AssertionError(f"part {part.number} stands still at record {taken} of {num_walkers} ({ended=})")
        count = int(out.counts[2])
        superstep.sort_by_bucket(out.log[:count], out.buckets[:count], sorted_log, borders)
        for bucket in np.flatnonzero(np.diff(borders)):
            yield part.num_parts + int(bucket), [sorted_log[borders[bucket] : borders[bucket + 1]]]
        out.counts[2] = 0
    yield from _walkers(part, out)
    sent = int(out.counts[0] + out.counts[1])
    if sent:
        yield part.num_parts + this.num_buckets, [np.array([sent], np.int64)]


def _walkers(part: Part, out: superstep.Output) -> Iterator[tuple[int, Blob]]:
    """One blob for each part."""
    groups = []
    for kind, records in enumerate((out.arrivals, out.verifications)):
        count = int(out.counts[kind])
        found, borders = np.empty((count, records.shape[1]), np.int32), np.empty(part.num_parts + 1, np.int64)
        superstep.sort_by_part(part, records[:count], found, borders)
        groups.append([found[borders[to] : borders[to + 1]] for to in range(part.num_parts)])
    for to, (arrivals, verifications) in enumerate(zip(*groups, strict=True)):
        if arrivals.nbytes + verifications.nbytes > MOST_BYTES:
            raise ConfigError(
                f"part {part.number} sends more walkers to part {to} than a Java array holds: take fewer walks in "
                "flight, or more parts."
            )
        yield to, [np.array([len(arrivals), len(verifications)], _HEAD), arrivals, verifications]


def assembled(
    this: Round, bucket: int, starts: npt.NDArray[np.int32] | None, blobs: Iterable[bytes | bytearray | memoryview]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The walks of a bucket from its log: int32 [n, L], -1 behind a walk's end, and int32 [n], their lengths."""
    first, last = this.bucket(bucket)
    walks = np.full((last - first, this.request.walk_length), -1, np.int32)
    places = (this.first + np.arange(first, last)) % this.num_starts
    walks[:, 0] = places if starts is None else starts[places]
    for blob in blobs:
        superstep.scatter(np.array(np.frombuffer(blob, np.int32)).reshape(-1, 2), walks.reshape(-1))
    lengths = (walks >= 0).sum(axis=1, dtype=np.int32)
    if not (walks[np.arange(len(walks)), lengths - 1] >= 0).all():  # an end before the last step: some are missing
        raise AssertionError(f"steps of bucket {bucket} were lost")
    return walks, lengths


class Trip(NamedTuple):
    """A round played by `walk_in_parts`: what came out, and what it took."""

    walks: npt.NDArray[np.int32]  # [num_walks, L]
    lengths: npt.NDArray[np.int32]  # [num_walks]
    num_supersteps: int
    num_hops: int  # records sent between parts
    num_bytes: int  # of walkers' records


def walk_in_parts(
    parts: Sequence[Part], this: Round, starts: npt.NDArray[np.int32] | None = None, num_log: int = LOG_RECORDS
) -> Trip:
    """A whole round over all parts, one task after the other in one process."""
    control = this.num_parts + this.num_buckets
    sent: dict[int, list[bytes]] = {}
    log: dict[int, list[bytes]] = {}
    supersteps = hops = num_bytes = 0
    while supersteps == 0 or control in sent:
        received, sent = sent, {}
        for part in parts:
            blobs = received.get(part.number, [])
            tasks = born(part, this, starts, num_log) if supersteps == 0 else moved(part, this, starts, blobs, num_log)
            for to, blob in tasks:
                kept = log if this.num_parts <= to < control else sent
                kept.setdefault(to, []).append(
                    b"".join(memoryview(buffer).cast("B") if buffer.size else b"" for buffer in blob)
                )
        supersteps += 1
        hops += sum(int(np.frombuffer(blob, np.int64)[0]) for blob in sent.get(control, []))
        num_bytes += sum(len(blob) - 2 * _HEAD.itemsize for to in range(this.num_parts) for blob in sent[to])
    made = [assembled(this, bucket, starts, log.get(this.num_parts + bucket, [])) for bucket in range(this.num_buckets)]
    walks, lengths = (np.concatenate(arrays) for arrays in zip(*made, strict=True))
    return Trip(walks, lengths, supersteps, hops, num_bytes)
