"""How a graph lies on disk: a few Arrow IPC files, and ``graph.json``, which is written last.

``part-00000.arrow`` and its siblings hold consecutive vertices, one vertex a row, in one record batch:

    neighbors  large_list<int32>     the heads of the vertex's arcs, ascending
    weights    large_list<float32>   their weights, only in a weighted graph; lists as long as the neighbors'

That is 4 bytes an arc (8 if weighted) and 8 bytes a vertex (16 if weighted). One batch a file and no compression, so
that a file that is memory-mapped *is* the array. A directory without ``graph.json`` holds no graph. Directories are
local paths or URIs that ``pyarrow.fs`` knows (``hdfs://``, ``s3://``, ``gs://``; ``s3a://`` means ``s3://``).
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import fs

from node2vec.arc_hash import arc_hash, mix
from sparkdl.errors import ConfigError

FORMAT = 1
HEADER = "graph.json"


class Rows(NamedTuple):
    """Consecutive rows of a graph: what one file holds.

    offsets: int64 [R+1], from 0 to A; neighbors: int32 [A], each row ascending; weights: float32 [A] or None.
    """

    offsets: NDArray[np.int64]
    neighbors: NDArray[np.int32]
    weights: NDArray[np.float32] | None


class Part(NamedTuple):
    """A file of a graph: its name, its first vertex, how many vertices (rows) and arcs it holds."""

    name: str
    first: int
    rows: int
    arcs: int


@dataclass(frozen=True)
class Header:
    """``graph.json``. ``report`` is a :meth:`GraphReport.to_dict`; ``settings`` what the graph was made with."""

    num_nodes: int
    num_arcs: int
    directed: bool
    weighted: bool
    parts: tuple[Part, ...]
    fingerprint: str
    report: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays: 8 a node and 4 (weighted: 8) an arc, as :class:`node2vec.graph.Graph` holds them."""
        return 8 * (self.num_nodes + 1) + (8 if self.weighted else 4) * self.num_arcs


def absolute(root: str | os.PathLike[str]) -> str:
    """A path that stays the same on other hosts; a URI stays as it is."""
    name = os.fspath(root)
    return name.rstrip("/") if "://" in name else os.path.abspath(name)


def file_system(directory: str | os.PathLike[str]) -> tuple[fs.FileSystem, str]:
    """The file system of a path or URI, and the path on it."""
    name = os.fspath(directory)
    if "://" not in name:
        return fs.LocalFileSystem(), os.path.abspath(name)
    found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(name.replace("s3a://", "s3://", 1))
    return found


@contextmanager
def replaced(files: fs.FileSystem, path: str) -> Iterator[Any]:
    """A stream whose bytes become the file at ``path`` all at once, when the block ends without an error."""
    folder, _, name = path.rpartition("/")
    aside = f"{folder}/.{name}.{uuid.uuid4().hex}"
    try:
        with files.open_output_stream(aside) as stream:
            yield stream
    except BaseException:
        if files.get_file_info(aside).type != fs.FileType.NotFound:
            files.delete_file(aside)
        raise
    files.move(aside, path)  # overwrites: a task that runs twice writes the same bytes twice


def part_name(number: int) -> str:
    """The file name of a part."""
    return f"part-{number:05d}.arrow"


def write_rows(files: fs.FileSystem, path: str, rows: Rows) -> None:
    """Rows as one file, which appears at once or not at all."""
    offsets = pa.array(rows.offsets, pa.int64())
    columns = {"neighbors": pa.LargeListArray.from_arrays(offsets, pa.array(rows.neighbors, pa.int32()))}
    if rows.weights is not None:
        columns["weights"] = pa.LargeListArray.from_arrays(offsets, pa.array(rows.weights, pa.float32()))
    batch = pa.RecordBatch.from_pydict(columns)
    with replaced(files, path) as stream, pa.ipc.new_file(stream, batch.schema) as writer:
        writer.write_batch(batch)


def read_rows(files: fs.FileSystem, path: str) -> Rows:
    """A file's rows, read-only. A local file is memory-mapped: nothing is read before it is used."""
    local = isinstance(files, fs.LocalFileSystem)
    source = pa.memory_map(path, "r") if local else files.open_input_file(path)
    batch = pa.ipc.open_file(source).get_batch(0)
    neighbors = batch.column(0)
    weights = batch.column(1).values.to_numpy() if batch.num_columns > 1 else None
    return Rows(neighbors.offsets.to_numpy(), neighbors.values.to_numpy(), weights)


def write_header(directory: str | os.PathLike[str], header: Header) -> None:
    """``graph.json``, the last file: from here on the directory holds a graph."""
    files, folder = file_system(directory)
    with replaced(files, f"{folder}/{HEADER}") as stream:
        stream.write(json.dumps(asdict(header), indent=1).encode())


def read_header(directory: str | os.PathLike[str]) -> Header:
    """``graph.json``. Raises ConfigError: there is none, or another version wrote it."""
    files, folder = file_system(directory)
    path = f"{folder}/{HEADER}"
    if files.get_file_info(path).type != fs.FileType.File:
        raise ConfigError(
            f"{os.fspath(directory)} holds no graph: it has no {HEADER}, which is written last. Index the edges first."
        )
    with files.open_input_stream(path) as stream:
        values = json.loads(stream.read())
    if values.get("format") != FORMAT:
        raise ConfigError(
            f"the graph in {os.fspath(directory)} has format {values.get('format')}, this version reads {FORMAT}. "
            "Index the edges again in another directory."
        )
    return Header(**{**values, "parts": tuple(Part(*part) for part in values["parts"])})


def rows_sum(rows: Rows, first: int) -> int:
    """The part of these rows, the first of which is vertex ``first``, in the fingerprint of their graph.

    The sum, modulo 2**64, of a hash of every arc and of its weight's bits: it does not depend on how rows were cut.
    """
    tails = np.repeat(np.arange(first, first + len(rows.offsets) - 1, dtype=np.int64), np.diff(rows.offsets))
    hashes = arc_hash(tails, rows.neighbors)
    if rows.weights is not None:
        hashes = mix(hashes + rows.weights.view(np.uint32).astype(np.uint64))
    return int(hashes.sum(dtype=np.uint64))


def fingerprint(num_nodes: int, directed: bool, weighted: bool, sums: int) -> str:
    """16 hexadecimal digits that tell one graph from another; sums: the sum of every part's :func:`rows_sum`."""
    kind = num_nodes << 2 | directed << 1 | weighted
    return f"{int(mix(np.array([(sums ^ (kind << 20)) & 0xFFFFFFFFFFFFFFFF], np.uint64))[0]):016x}"
