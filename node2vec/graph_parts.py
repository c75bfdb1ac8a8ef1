"""A graph in P parts, for walks on a graph that no machine holds: part p owns the vertices v with v mod P = p.

Vertices are numbered by descending degree, so that the remainder spreads the heavy rows evenly. A part holds

- its own rows in the order of their vertices: the row of v is row v div P;
- then, again, the rows of the first H vertices, the hubs: a walk is where it was a moment ago, with probability in
  proportion to degree, so a share of the arcs that every part holds saves that share of the trips between parts;
- on weighted graphs, the alias tables of these rows;
- for node2vec+ on weighted graphs, the noise floors of all vertices (8 bytes each; see transition);
- the edge filter of the whole graph. Parts may fill it together: `add_edges` enters a part's own rows, and filters of
  one size are united by ``|``.

Parts are cut from `Block`: rows of consecutive vertices, one after the other, so nobody holds the graph. On disk a part
is a folder of raw arrays, memory-mapped by all processes of a machine; it is written aside and renamed, so it is there
completely or not at all.

Letters: V nodes, P parts, R own rows, H hub rows, B arcs of a part.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from node2vec import alias, edge_filter, transition
from node2vec.graph import Graph
from node2vec.graph_files import Header, Rows, file_system, read_rows
from node2vec.jit import jit
from sparkdl.errors import ConfigError

CONTENTS = "part.json"
_ARRAYS = {"indices": "int32", "weights": "float32", "cuts": "uint32", "others": "int32"}  # one number an arc


class Layout(NamedTuple):
    """How a graph is cut. Every field is a number, so that a layout is also a stamp (`stamp`)."""

    num_nodes: int
    num_parts: int
    num_hubs: int
    directed: bool
    symmetric: bool  # t -> x is an edge exactly if x -> t is one, so that either row answers
    weighted: bool
    num_words: int  # of the edge filter; 0: there is none

    def num_own(self, number: int) -> int:
        """R of part `number`."""
        return len(range(number, self.num_nodes, self.num_parts))


class Block(NamedTuple):
    """Rows of the vertices first, first + 1, ..."""

    first: int
    rows: Rows


class Part(NamedTuple):
    """One part; numba kernels take it as it is. The arrays are read-only."""

    number: int
    num_parts: int
    num_own: int
    num_hubs: int
    directed: bool
    symmetric: bool
    indptr: npt.NDArray[np.int64]  # [R+H+1]
    indices: npt.NDArray[np.int32]  # [B], vertices of the whole graph, ascending in each row
    weights: npt.NDArray[np.float32] | None  # [B]
    cuts: npt.NDArray[np.uint32] | None  # [B]; see alias
    others: npt.NDArray[np.int32] | None  # [B]
    totals: npt.NDArray[np.float64] | None  # [R+H]
    words: npt.NDArray[np.uint64] | None  # the edge filter of the whole graph
    floors: npt.NDArray[np.float64] | None  # [V], noise floors of the whole graph


@jit
def row_of(part: Part, vertex: int) -> int:
    """The row of a vertex in a part, 0 .. R+H-1; -1 if it is elsewhere."""
    if vertex < part.num_hubs:
        return part.num_own + vertex
    row = np.uint64(vertex) // np.uint64(part.num_parts)
    if np.int64(vertex) - np.int64(row) * part.num_parts == part.number:
        return np.int64(row)  # type: ignore[return-value]  # numba's int(row) would stay unsigned
    return -1


def blocks_of(graph: Graph, num_blocks: int = 1) -> Iterator[Block]:
    """A graph in memory as blocks."""
    borders = [graph.num_nodes * i // num_blocks for i in range(num_blocks + 1)]
    for start, stop in pairwise(borders):
        yield Block(start, graph.rows(start, stop))


def saved_blocks(directory: str | os.PathLike[str], header: Header) -> Iterator[Block]:
    """A saved graph as blocks, one a file, each read when its turn comes (mapped, if it is local)."""
    files, folder = file_system(directory)
    for part in header.parts:
        yield Block(part.first, read_rows(files, f"{folder}/{part.name}"))


def layout(
    header: Header, blocks: Iterable[Block], num_parts: int, *, hub_bytes: int = 0, bits_per_edge: float | None = 12.0
) -> Layout:
    """The cut of a graph into `num_parts`, with as many hub rows as `hub_bytes` hold in each part.

    `blocks`: the graph's, of which no more are read than hold the hubs. `bits_per_edge`: of the edge filter, None for
    none. Rows that were capped (the setting ``max_degree``) make an undirected graph asymmetric.
    """
    if num_parts < 1:
        raise ConfigError(f"parts={num_parts}: a graph is cut into one part at least.")
    bytes_per_arc = sum(np.dtype(kind).itemsize for kind in (_ARRAYS.values() if header.weighted else ("int32",)))
    bytes_per_row = 16 if header.weighted else 8
    num_hubs = 0
    left = hub_bytes
    for block in blocks if hub_bytes > 0 else ():
        ends = block.rows.offsets[1:] * bytes_per_arc + np.arange(1, len(block.rows.offsets)) * bytes_per_row
        fitting = int(np.searchsorted(ends, left, side="right"))
        num_hubs += fitting
        if fitting < len(ends):
            break
        left -= int(ends[-1]) if len(ends) else 0
    num_words = 0
    if bits_per_edge is not None:
        num_edges = header.num_arcs if header.directed else (header.num_arcs + 1) // 2
        num_words = len(edge_filter.empty(num_edges, bits_per_edge))
    capped = header.settings.get("max_degree") is not None
    symmetric = not header.directed and not capped
    return Layout(header.num_nodes, num_parts, num_hubs, header.directed, symmetric, header.weighted, num_words)


def stamp(fingerprint: str, cut: Layout) -> str:
    """What tells the files of one cut of one graph from another's: letters, digits and hyphens."""
    return "-".join([fingerprint, *(str(int(number)) for number in cut)])


class _Piece(NamedTuple):
    """Some rows of a part, in the part's order; the fields are as in `Part`, with degrees [rows] for indptr."""

    degrees: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32] | None
    cuts: npt.NDArray[np.uint32] | None
    others: npt.NDArray[np.int32] | None
    totals: npt.NDArray[np.float64] | None


def _pieces(blocks: Iterable[Block], cut: Layout, number: int) -> Iterator[_Piece]:
    """A part from its first row to its last: what the blocks hold of its own rows, then the hubs."""
    hubs = []
    for block in blocks:
        num_rows = len(block.rows.offsets) - 1
        yield _piece(block.rows, (number - block.first) % cut.num_parts, num_rows, cut.num_parts)
        if block.first < cut.num_hubs:
            hubs.append(_piece(block.rows, 0, min(num_rows, cut.num_hubs - block.first), 1))
    yield from hubs


def _piece(rows: Rows, start: int, stop: int, stride: int) -> _Piece:
    """The rows start, start + stride, ... below stop."""
    degrees = np.diff(rows.offsets)[start:stop:stride]
    firsts = np.ascontiguousarray(rows.offsets[:-1][start:stop:stride])
    offsets = np.zeros(len(degrees) + 1, np.int64)
    np.cumsum(degrees, out=offsets[1:])
    indices = _gathered(rows.neighbors, firsts, offsets)
    if rows.weights is None:
        return _Piece(degrees, indices, None, None, None, None)
    weights = _gathered(rows.weights, firsts, offsets)
    tables = alias.build(offsets, weights)
    return _Piece(degrees, indices, weights, *tables)


def _gathered(values: Any, firsts: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> Any:
    """Rows that begin at ``firsts`` one behind the other, row r at offsets[r] .. offsets[r+1]."""
    found = np.empty(int(offsets[-1]), values.dtype)
    _gather(values, firsts, offsets, found)
    return found


@jit
def _gather(values: Any, firsts: Any, offsets: Any, found: Any) -> None:
    for row in range(len(firsts)):
        for place in range(offsets[row + 1] - offsets[row]):
            found[offsets[row] + place] = values[firsts[row] + place]


def add_edges(words: edge_filter.Words, part: Part) -> None:
    """Enter the edges of a part's own rows into a filter of the whole graph's size, uint64 [num_words]."""
    edge_filter.add(words, part.indptr[: part.num_own + 1], part.indices, part.directed, part.number, part.num_parts)


def filter_of(blocks: Iterable[Block], cut: Layout) -> edge_filter.Words | None:
    """The filter of the whole graph, uint64 [num_words], or None if the layout has none."""
    if cut.num_words == 0:
        return None
    words = np.zeros(cut.num_words, np.uint64)
    _fill(words, blocks, cut)
    return words


def _fill(words: edge_filter.Words, blocks: Iterable[Block], cut: Layout) -> None:
    for block in blocks:
        edge_filter.add(words, block.rows.offsets, block.rows.neighbors, cut.directed, block.first, 1)


def floors_of(blocks: Iterable[Block], gamma: float) -> npt.NDArray[np.float64]:
    """The noise floors of a whole weighted graph, float64 [V], as ``transition.noise_floors`` has them."""
    found = [
        transition.noise_floors(block.rows.offsets, block.rows.weights, gamma)
        for block in blocks
        if block.rows.weights is not None
    ]
    return np.concatenate([np.empty(0, np.float64), *found])


def cut_part(
    blocks: Iterable[Block],
    cut: Layout,
    number: int,
    words: edge_filter.Words | None = None,
    floors: npt.NDArray[np.float64] | None = None,
) -> Part:
    """Part `number` of a graph, in memory. `words`, `floors`: what it has of the whole graph."""
    pieces = list(_pieces(blocks, cut, number))
    degrees = np.concatenate([piece.degrees for piece in pieces])
    arrays: list[Any] = [np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)]
    for name in ("indices", "weights", "cuts", "others", "totals"):
        found = [getattr(piece, name) for piece in pieces]
        arrays.append(None if found[0] is None else np.concatenate(found))
    return _part(cut, number, [*arrays, words, floors])


def _part(cut: Layout, number: int, arrays: list[Any]) -> Part:
    """All arrays read-only, as mapped ones are: numba compiles a kernel for either kind."""
    frozen: list[Any] = [None if array is None else np.ascontiguousarray(array).view() for array in arrays]
    for array in frozen:
        if array is not None:
            array.flags.writeable = False
    own = cut.num_own(number)
    return Part(number, cut.num_parts, own, cut.num_hubs, cut.directed, cut.symmetric, *frozen)


def save_part(folder: Path, blocks: Iterable[Block], cut: Layout, number: int) -> None:
    """Write part `number` as a folder, which appears at once; one that is there already stays."""
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    aside.mkdir(parents=True)
    try:
        degrees, totals = [], []
        names = list(_ARRAYS) if cut.weighted else ["indices"]
        streams = {name: (aside / name).open("wb") for name in names}
        try:
            for piece in _pieces(blocks, cut, number):
                degrees.append(piece.degrees)
                if piece.totals is not None:
                    totals.append(piece.totals)
                for name, stream in streams.items():
                    getattr(piece, name).tofile(stream)
        finally:
            for stream in streams.values():
                stream.close()
        np.concatenate([[0], np.cumsum(np.concatenate(degrees))]).astype(np.int64).tofile(aside / "indptr")
        if cut.weighted:
            np.concatenate(totals).tofile(aside / "totals")
        (aside / CONTENTS).write_text(json.dumps({"layout": list(cut), "number": number}))
        _publish(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def save_filter(path: Path, blocks: Iterable[Block], cut: Layout) -> None:
    """Write the filter of the whole graph as a file, which appears at once; for layouts that have one."""
    with _replacing(path) as aside:
        _fill(np.asarray(np.memmap(aside, np.uint64, "w+", shape=(cut.num_words,))), blocks, cut)


def save_floors(path: Path, blocks: Iterable[Block], gamma: float) -> None:
    """Write the noise floors of a whole weighted graph as a file, which appears at once."""
    with _replacing(path) as aside:
        floors_of(blocks, gamma).tofile(aside)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _publish(aside: Path, folder: Path) -> None:
    try:
        aside.rename(folder)
    except OSError:
        if not (folder / CONTENTS).is_file():  # else another process was faster, with the same bytes
            raise


def open_part(
    folder: Path, filter_path: Path, cut: Layout, number: int, floors_path: Path | None = None
) -> Part | None:
    """The part in a folder, mapped; None if it, its filter or its floors are not there or belong to another cut."""
    try:
        if json.loads((folder / CONTENTS).read_text()) != {"layout": list(cut), "number": number}:
            return None
        kinds = {"indptr": "int64", **_ARRAYS, "totals": "float64"}
        wanted = list(kinds) if cut.weighted else ["indptr", "indices"]
        found = {name: _mapped(folder / name, kinds[name]) for name in wanted}
        words = _mapped(filter_path, "uint64") if cut.num_words else None
        floors = None if floors_path is None else _mapped(floors_path, "float64")
    except FileNotFoundError:
        return None
    return _part(cut, number, [*(found.get(name) for name in kinds), words, floors])


def _mapped(path: Path, kind: str) -> npt.NDArray[Any]:
    with path.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size == 0:
            return np.empty(0, kind)
        return np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), kind)
