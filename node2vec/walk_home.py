"""Where the graph lives while it is walked: whole on every host (replicated), or cut over the executors (partitioned).

Replicated, no walker ever leaves its task. It costs every host a copy of the graph, of the edge filter and, if
weighted, of the alias tables, which must stay in the page cache: a step that waits for a disk is a thousand times
slower. Partitioned, every host still reads the graph once and holds the filter, but keeps and prepares only a part of
the rest; each step costs a part of a trip through the shuffle, and each superstep the start of a stage. `choose`
estimates both in seconds and takes the lower one that fits.

The rates below were measured on one machine of two cores and are there to compare the homes, not to promise times.
"""

from __future__ import annotations

from dataclasses import dataclass

from node2vec.graph_files import Header
from sparkdl.errors import ConfigError

HOMES = ("auto", "replicated", "partitioned")

HOST_SHARE = 0.7  # of the memory that executors' heaps leave: the tasks' buffers and the system need the rest
REPLICATED_STEP = 160e-9  # seconds of a core, R-MAT of 22M arcs, filter and lanes, Parquet included
PARTITIONED_STEP = 330e-9  # the same, all partitions' tasks and the shuffle included
SUPERSTEP = 0.1  # seconds to start a stage; a walk of L nodes takes about L of them
TRIP = 25 / 1e9  # seconds of a host's network for a step: 25 bytes at 1 GB a second; none where there is one host
FETCH = 200e6  # bytes a second a host reads from a shared file system
BUILD = 15e-9  # seconds of a core to enter an arc in the filter; three times that for its alias table


@dataclass(frozen=True)
class WalkHome:
    """The choice and what it rests on. Bytes are of one host's copy, seconds are estimates of the whole stage."""

    home: str
    why: str
    graph_bytes: int
    filter_bytes: int
    table_bytes: int
    room: int
    num_walks: int
    replicated_seconds: float
    partitioned_seconds: float

    @property
    def num_bytes(self) -> int:
        """What the replicated home keeps in the memory of each host."""
        return self.graph_bytes + self.filter_bytes + self.table_bytes

    def __str__(self) -> str:
        """Two lines for people: the sizes and the choice."""
        tables = f" + alias tables {_bytes(self.table_bytes)}" if self.table_bytes else ""
        return (
            f"a copy of the graph: {_bytes(self.graph_bytes)} + edge filter {_bytes(self.filter_bytes)}{tables} = "
            f"{_bytes(self.num_bytes)}; a host has room for {_bytes(self.room)}\n"
            f"{self.num_walks:,} walks: about {_seconds(self.replicated_seconds)} replicated, "
            f"{_seconds(self.partitioned_seconds)} partitioned -> {self.home}, {self.why}"
        )


def choose(
    header: Header,
    num_walks: int,
    walk_length: int,
    *,
    host_memory: int,
    hosts: int = 1,
    slots: int = 1,
    local: bool = False,
    extend: bool = False,
    bits_per_edge: float = 12.0,
    home: str = "auto",
) -> WalkHome:
    """The home of `num_walks` walks of `walk_length` nodes on the graph of `header`.

    host_memory: bytes of an executor's host (or of the container around it) without the executors' heaps; hosts, slots:
    how many hosts and, over all of them, tasks at once; local: the graph is one file on a disk of the host, which is
    mapped and not copied; home: "auto", or the one to take whatever it costs.
    Raises ConfigError: another home.
    """
    if home not in HOMES:
        raise ConfigError(f"home={home!r} is unknown; choose one of {', '.join(HOMES)}.")
    edges = header.num_arcs if header.directed else (header.num_arcs + 1) // 2
    filter_bytes = int(edges * bits_per_edge / 8)
    table_bytes = 0
    if header.weighted:
        table_bytes = 8 * header.num_arcs + (16 if extend else 8) * header.num_nodes
    room = int(host_memory * HOST_SHARE)
    total = header.num_bytes + filter_bytes + table_bytes
    steps = num_walks * max(walk_length - 1, 1)
    build = header.num_arcs * BUILD
    tables = 3 * build if header.weighted else 0.0
    fetch = header.num_bytes / FETCH
    replicated = (0.0 if local else fetch) + build + tables + steps * REPLICATED_STEP / slots
    partitioned = fetch + build + tables / hosts + walk_length * SUPERSTEP
    partitioned += steps * (PARTITIONED_STEP / slots + (TRIP / hosts if hosts > 1 else 0.0))
    fits = total <= room
    if home != "auto":
        chosen, why = home, "as asked" + ("" if fits or home == "partitioned" else ", though it does not fit")
    elif not fits:
        chosen, why = "partitioned", "since a copy does not fit"
    elif replicated <= partitioned:
        chosen, why = "replicated", "which fits and is faster"
    else:
        chosen, why = "partitioned", "since every host would make all alias tables for few walks"
    return WalkHome(chosen, why, header.num_bytes, filter_bytes, table_bytes, room, num_walks, replicated, partitioned)


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
