"""Walks on a graph cut over the executors: walkers travel by shuffle. Its twin is ``walker_round.walk_in_parts``.

A round of walks is one lineage of supersteps (``spark_shuffles``): each is a Spark stage of P tasks, of which task p
has part p of the graph mapped. Steps are logged into the same shuffle; at the round's end one task a bucket reads its
log from all supersteps, and writes ``part-<number>.parquet``. The round's shuffles are then removed. What is written
depends on nothing but the graph, the request and the cut into rounds and buckets.

The part files lie in the executor's own directory (``spark.node2vec.hostDir`` names another, see
``replicated_walk_job``), made by the task that makes the part's token; a task that finds none makes them again.
To cut its part, an executor reads the graph once from end to end, file by file, and builds the whole edge filter on
the way; it keeps 1 / P of the rows, the hubs and the filter.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Container, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pyspark import SparkContext
from pyspark.broadcast import Broadcast

from node2vec import spark_shuffles
from node2vec.graph_files import read_header
from node2vec.host_directory import host_directory
from node2vec.replicated_walk_job import HOST_DIR, Part, described
from node2vec.spark_shuffles import Blob
from sparkdl import worker_heap
from sparkdl.errors import ClusterError
from sparkdl.spark_internals import concurrent_tasks

if TYPE_CHECKING:
    from node2vec import graph_parts
    from node2vec.walk_request import WalkRequest
    from node2vec.walker_round import Round

HUB_BYTES = 64 << 20  # of the rows that every part holds
WALKERS = 2_000_000  # in flight, a part: about 110 bytes each, and 50 MB for the log
OPEN_PARTS = 8  # that a Python worker keeps mapped: its own, and those it took over


def write_walks(
    sc: SparkContext,
    graph: str,
    fingerprint: str,
    output: str,
    request: dict[str, Any],
    starts: npt.NDArray[np.int32] | None = None,
    *,
    parts: int | None = None,
    there: Container[str] = (),
    hub_bytes: int = HUB_BYTES,
    bits_per_edge: float | None = 12.0,
    walkers: int | None = None,
) -> list[Part]:
    """Write the walks of `request` into `output`, round by round; returns the parts written, in order.

    `graph`: directory of the graph of `fingerprint`; `request`: the fields of a ``WalkRequest``; `starts`: int32 [S],
    None for all nodes. `graph` and `output` are paths or URIs that every host understands. `parts`: P, by default the
    tasks that can run at once. `there`: names of files that are complete already. `hub_bytes`: of hub rows in each
    part; `bits_per_edge`: of the edge filter; `walkers`: walks in flight, a part (default: WALKERS). None of these
    five changes a walk.
    Raises ConfigError: a setting that cannot be used. ClusterError: another graph is there.
    """
    from node2vec import graph_parts, walk_request
    from node2vec.walk_files import part_name

    header = read_header(graph)
    if header.fingerprint != fingerprint:
        raise ClusterError(
            f"the graph in {graph} is {header.fingerprint}, and was {fingerprint} before: index it again."
        )
    wanted = walk_request.WalkRequest(**request)
    num_starts = header.num_nodes if starts is None else len(starts)
    rounds = rounds_of(sc, wanted, num_starts, parts, walkers)
    num_parts = rounds[0].num_parts if rounds else 1
    blocks = graph_parts.saved_blocks(graph, header)
    cut = graph_parts.layout(header, blocks, num_parts, hub_bytes=hub_bytes, bits_per_edge=bits_per_edge)
    shared = None if starts is None else sc.broadcast(starts)
    gamma = wanted.gamma if wanted.extend and header.weighted else None
    home = _Home(graph, fingerprint, cut, gamma, sc.getConf().get(HOST_DIR, None))
    written: list[Part] = []
    num_files = 0
    for number, this in enumerate(rounds):
        files = range(num_files, num_files + this.num_buckets)
        if any(part_name(file) not in there for file in files):
            written += _write_round(sc, this, f"round {number + 1} of {len(rounds)}", home, shared, output, num_files)
        num_files = files.stop
    if shared is not None:
        shared.destroy()
    return written


def rounds_of(
    sc: SparkContext, request: WalkRequest, num_starts: int, parts: int | None = None, walkers: int | None = None
) -> list[Round]:
    """The rounds that `write_walks` makes; each writes as many files as it has buckets."""
    from node2vec import walk_request, walker_round

    num_parts = concurrent_tasks(sc) or sc.defaultParallelism if parts is None else parts
    total = request.num_walks * num_starts
    in_flight = min((walkers or WALKERS) * max(num_parts, 1), walker_round.MOST_WALKS)
    ranges = walk_request.cut(total, -(-total // in_flight)) if total else []
    return [walker_round.round_of(request, first, last - first, num_starts, num_parts) for first, last in ranges]


def _write_round(
    sc: SparkContext, this: Round, name: str, home: _Home, starts: Any, output: str, first_file: int
) -> list[Part]:
    began = time.perf_counter()
    form = spark_shuffles.shuffles(sc, this.num_parts, this.num_parts + this.num_buckets + 1, home)
    superstep = _Superstep(home, this, starts)
    sent: list[Any] = []
    try:
        sent.append(form.born(superstep))
        with described(sc, f"{name}, superstep 1"):
            moving = form.run(sent[-1])
        while moving:
            sent.append(form.moved(sent[-1], superstep.later))
            with described(sc, f"{name}, superstep {len(sent)}"):
                moving = form.run(sent[-1])
        seconds = (time.perf_counter() - began) * this.num_parts / this.num_buckets
        with described(sc, f"{name}, writing {this.num_walks} walks"):
            found = form.finish(sent, _Assembly(this, starts, output, first_file, home.host_dir))
    finally:
        form.drop(sent)
        form.close()
    numbers = sorted(np.frombuffer(item, np.float64).tolist() for item in found)
    from node2vec.walk_files import part_name

    return [
        Part(part_name(int(number)), int(walks), int(nodes), 0.0, seconds, write)
        for number, walks, nodes, write in numbers
    ]


def local_folder(host_dir: str | None) -> str:
    """Where an executor keeps its part files; see ``replicated_walk_job``."""
    return host_dir or host_directory()


class _Home:
    """Where a graph's parts are: called in a task, makes sure that a part is on this executor."""

    def __init__(
        self, graph: str, fingerprint: str, cut: graph_parts.Layout, gamma: float | None, host_dir: str | None
    ):
        self.graph, self.fingerprint, self.cut, self.gamma = graph, fingerprint, tuple(cut), gamma
        self.host_dir = host_dir

    def __call__(self, number: int) -> None:
        self.part(number)

    def part(self, number: int) -> graph_parts.Part:
        """The part, mapped."""
        local = local_folder(self.host_dir)
        return _open(self.graph, self.fingerprint, self.cut, self.gamma, local, number)


@functools.lru_cache(maxsize=OPEN_PARTS)
def _open(
    graph: str, fingerprint: str, numbers: tuple[int, ...], gamma: float | None, local: str, number: int
) -> graph_parts.Part:
    from pathlib import Path

    from node2vec import graph_parts

    cut = graph_parts.Layout._make(numbers)
    home = Path(local) / f"parts-{graph_parts.stamp(fingerprint, cut)}"
    folder, filter_path = home / f"part-{number:05d}", home / "filter"
    floors_path = None if gamma is None else home / f"floors-{gamma!r}"
    part = graph_parts.open_part(folder, filter_path, cut, number, floors_path)
    if part is not None:
        return part
    header = read_header(graph)
    if header.fingerprint != fingerprint:
        raise ClusterError(
            f"the graph in {graph} is {header.fingerprint} on {os.uname().nodename} and {fingerprint} on the driver: "
            "it was indexed anew meanwhile, or the path is not shared by all hosts."
        )
    if cut.num_words and not filter_path.is_file():
        graph_parts.save_filter(filter_path, graph_parts.saved_blocks(graph, header), cut)
    if floors_path is not None and not floors_path.is_file():
        assert gamma is not None
        graph_parts.save_floors(floors_path, graph_parts.saved_blocks(graph, header), gamma)
    graph_parts.save_part(folder, graph_parts.saved_blocks(graph, header), cut, number)
    part = graph_parts.open_part(folder, filter_path, cut, number, floors_path)
    assert part is not None
    return part


class _Superstep:
    """What a task of a superstep runs; the first one is given no blobs."""

    def __init__(self, home: _Home, this: Round, starts: Broadcast[npt.NDArray[np.int32]] | None, first: bool = True):
        self.home, self.round, self.starts, self.first = home, this, starts, first

    @functools.cached_property
    def later(self) -> _Superstep:
        """All supersteps but the first: one object, so that it is pickled once a round."""
        return _Superstep(self.home, self.round, self.starts, first=False)

    def __call__(self, split: int, blobs: Iterable[bytes]) -> Iterator[tuple[int, Blob]]:
        part = self.home.part(split)
        from node2vec import walker_round

        starts = None if self.starts is None else self.starts.value
        if self.first:
            yield from walker_round.born(part, self.round, starts)
        else:
            yield from walker_round.moved(part, self.round, starts, list(blobs))
        worker_heap.set_apart()


class _Assembly:
    """What the task of a bucket runs: its file, then four float64 (file number, walks, nodes, seconds)."""

    def __init__(self, this: Round, starts: Any, output: str, first_file: int, host_dir: str | None):
        self.round, self.starts, self.output, self.first_file = this, starts, output, first_file
        self.host_dir = host_dir

    def __call__(self, bucket: int, blobs: Iterable[bytes]) -> Iterator[bytes]:
        from node2vec import walk_files, walker_round
        from node2vec.graph_files import file_system

        began = time.perf_counter()
        starts = None if self.starts is None else self.starts.value
        walks, lengths = walker_round.assembled(self.round, bucket, starts, blobs)
        files, folder = file_system(self.output)
        files.create_dir(folder, recursive=True)
        number = self.first_file + bucket
        walk_files.write(files, f"{folder}/{walk_files.part_name(number)}", [walk_files.batch_of(walks, lengths)])
        seconds = time.perf_counter() - began
        yield np.array([number, len(walks), lengths.sum(dtype=np.int64), seconds], np.float64).tobytes()
