"""Walks with the whole graph on every host: one task a range of walk ids, no shuffle. Its twin is ``walks.walk_plain``.

A task maps the graph and its tables (``host_graph``), walks its range in batches and writes ``part-<task>.parquet``.
What it writes depends on its range alone: a task that runs again, or twice at once, replaces its file with the same.

Files of a host are kept in the executor's own directory, which Spark removes with the executor. The setting
``spark.node2vec.hostDir`` names a directory of every host instead, for hosts with several executors and for runs one
after the other: it is never cleared.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pyspark import SparkContext
from pyspark.broadcast import Broadcast

from node2vec.host_directory import host_directory
from sparkdl import spark_conf, spark_internals, worker_heap

HOST_DIR = "spark.node2vec.hostDir"
TASKS_PER_SLOT = 4  # so that a slow one does not hold up the stage
FEWEST_NODES = 1 << 18  # of a task's walks: below that the task costs more than its walks
MOST_NODES = 1 << 24  # of a batch, which is a row group: see walk_files


class Part(NamedTuple):
    """What a task wrote, and its seconds for opening the graph, walking and writing."""

    name: str
    num_walks: int
    num_nodes: int
    open_seconds: float
    walk_seconds: float
    write_seconds: float


def num_tasks(total_nodes: int, slots: int) -> int:
    """How many tasks share walks of so many nodes: a few a slot, none too small, none more than one row group."""
    few = min(TASKS_PER_SLOT * slots, -(-total_nodes // FEWEST_NODES))
    return max(1, few, -(-total_nodes // MOST_NODES))


def write_walks(
    sc: SparkContext,
    graph: str,
    fingerprint: str,
    num_nodes: int,
    output: str,
    request: dict[str, Any],
    starts: npt.NDArray[np.int32] | None,
    ranges: list[tuple[int, int]],
    there: Container[str] = (),
    bits_per_edge: float = 12.0,
) -> list[Part]:
    """Write the walks of each range of ids as one file in `output`; returns the parts written, in order.

    `graph`: directory of the graph, of `fingerprint` and `num_nodes`; `request`: the fields of a ``WalkRequest``;
    `starts`: int32 [S], None for all nodes. `graph` and `output` are paths or URIs that every host understands.
    `there`: names of files that are complete already.
    """
    from node2vec.walk_files import part_name

    shares = [(number, first, last) for number, (first, last) in enumerate(ranges) if part_name(number) not in there]
    if not shares:
        return []
    shared = None if starts is None else sc.broadcast(starts)
    task = _Task(
        graph, fingerprint, num_nodes, output, request, shared, bits_per_edge, sc.getConf().get(HOST_DIR, None)
    )
    with described(sc, f"{sum(last - first for _, first, last in shares)} walks"):
        parts = sc.parallelize(shares, len(shares)).map(task).collect()
    if shared is not None:
        shared.destroy()
    return parts


def described(sc: SparkContext, text: str) -> AbstractContextManager[None]:
    """Jobs inside are shown as ``node2vec walk: <text>``; the former description comes back."""
    return spark_internals.described(sc, f"node2vec walk: {text}")


def prepare_numba(local: str) -> None:
    """To call before numba is imported: one thread, and a folder for compiled code where none can be written.

    `local`: a directory of this host. A cache folder that the user set is kept.
    """
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    if not os.access(os.path.dirname(os.path.abspath(__file__)), os.W_OK):
        os.environ.setdefault("NUMBA_CACHE_DIR", os.path.join(local, "numba"))


def host_memory(_: int) -> tuple[str, int]:
    """This host's name, and its memory (or that of the container around it) in megabytes: run as a task."""
    return platform.node(), spark_conf.memory_mb()


class _Task:
    """What a task runs. Importable, so that workers keep their modules."""

    def __init__(
        self,
        graph: str,
        fingerprint: str,
        num_nodes: int,
        output: str,
        request: dict[str, Any],
        starts: Broadcast[npt.NDArray[np.int32]] | None,
        bits_per_edge: float,
        host_dir: str | None,
    ):
        self.graph, self.fingerprint, self.num_nodes, self.output = graph, fingerprint, num_nodes, output
        self.request, self.starts, self.bits_per_edge, self.host_dir = request, starts, bits_per_edge, host_dir

    def __call__(self, share: tuple[int, int, int]) -> Part:
        # executors answer ".", see sparkdl.replica_cache
        local = self.host_dir or host_directory()
        part = _write_part(self, local, *share)
        worker_heap.set_apart()
        return part


def _write_part(task: _Task, local: str, number: int, first: int, last: int) -> Part:
    from node2vec import host_graph, walk_files, walks
    from node2vec.graph_files import file_system
    from node2vec.walk_request import WalkRequest, walks_between

    request = WalkRequest(**task.request)
    seconds = [0.0, 0.0, 0.0]
    began = time.perf_counter()
    graph, tables = host_graph.open_graph(
        task.graph,
        local,
        task.fingerprint,
        extend=request.extend,
        gamma=request.gamma,
        bits_per_edge=task.bits_per_edge,
    )
    seconds[0] = time.perf_counter() - began
    starts = None if task.starts is None else task.starts.value
    size = max(1, MOST_NODES // request.walk_length)
    num_nodes = 0

    def batches() -> Iterator[Any]:
        nonlocal num_nodes
        for start in range(first, last, size):
            began = time.perf_counter()
            stop = min(start + size, last)
            made, lengths = walks.walk(
                graph,
                *walks_between(start, stop, starts, task.num_nodes),
                request.walk_length,
                request.p,
                request.q,
                request.seed,
                tables=tables,
            )
            num_nodes += int(lengths.sum(dtype=np.int64))
            seconds[1] += time.perf_counter() - began
            yield walk_files.batch_of(made, lengths)

    began = time.perf_counter()
    files, folder = file_system(task.output)
    name = walk_files.part_name(number)
    walk_files.write(files, f"{folder}/{name}", batches())
    seconds[2] = time.perf_counter() - began - seconds[1]
    return Part(name, last - first, num_nodes, *seconds)
