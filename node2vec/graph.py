"""A graph as three arrays (compressed sparse rows), and how it is saved and opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node2vec.graph_files import (
    HEADER,
    Header,
    Part,
    Rows,
    file_system,
    fingerprint,
    part_name,
    read_header,
    read_rows,
    rows_sum,
    write_header,
    write_rows,
)


@dataclass(frozen=True, eq=False)
class Graph:
    """Vertices 0..V-1 and A arcs. Vertex v's arcs are ``indptr[v] .. indptr[v+1]``.

    indptr: int64 [V+1]; indices: int32 [A], the heads, each row strictly ascending; weights: float32 [A], positive, or
    None where every arc weighs 1; directed: whether an arc's reverse may be missing. In an undirected graph each edge
    is two arcs, and a self-loop one. The arrays may be read-only.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    weights: NDArray[np.float32] | None = None
    directed: bool = False

    @property
    def num_nodes(self) -> int:
        """V."""
        return len(self.indptr) - 1

    @property
    def num_arcs(self) -> int:
        """A."""
        return len(self.indices)

    @property
    def degrees(self) -> NDArray[np.int64]:
        """Arcs that leave each vertex, int64 [V]."""
        return np.diff(self.indptr)

    def neighbors(self, vertex: int) -> NDArray[np.int32]:
        """The heads of a vertex's arcs, int32 [degree], ascending: a view."""
        return self.indices[self.indptr[vertex] : self.indptr[vertex + 1]]

    def weights_of(self, vertex: int) -> NDArray[np.float32]:
        """The weights of a vertex's arcs, float32 [degree], in the order of :meth:`neighbors`; ones if unweighted."""
        if self.weights is None:
            return np.ones(int(self.indptr[vertex + 1] - self.indptr[vertex]), np.float32)
        return self.weights[self.indptr[vertex] : self.indptr[vertex + 1]]

    def rows(self, start: int, stop: int) -> Rows:
        """The rows of vertices start..stop-1; ``neighbors`` and ``weights`` are views."""
        first, last = int(self.indptr[start]), int(self.indptr[stop])
        weights = None if self.weights is None else self.weights[first:last]
        return Rows(self.indptr[start : stop + 1] - first, self.indices[first:last], weights)

    def fingerprint(self) -> str:
        """16 hexadecimal digits over all arcs and weights; ids do not enter."""
        sums = rows_sum(self.rows(0, self.num_nodes), 0)
        return fingerprint(self.num_nodes, self.directed, self.weights is not None, sums)

    def save(
        self,
        directory: str | os.PathLike[str],
        report: dict[str, Any] | None = None,
        borders: Sequence[int] | None = None,
    ) -> None:
        """Write the graph as :mod:`node2vec.graph_files` lays it out; an older graph there stops counting first.

        borders: the first vertex of every part, ascending from 0; one part if not given.
        """
        files, folder = file_system(directory)
        files.create_dir(folder, recursive=True)
        if files.get_file_info(f"{folder}/{HEADER}").is_file:
            files.delete_file(f"{folder}/{HEADER}")
        starts = list(borders or [0])
        parts = []
        for number, (start, stop) in enumerate(zip(starts, [*starts[1:], self.num_nodes], strict=True)):
            rows = self.rows(start, stop)
            write_rows(files, f"{folder}/{part_name(number)}", rows)
            parts.append(Part(part_name(number), start, stop - start, len(rows.neighbors)))
        header = Header(
            self.num_nodes,
            self.num_arcs,
            self.directed,
            self.weights is not None,
            tuple(parts),
            self.fingerprint(),
            report,
        )
        write_header(directory, header)

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> Graph:
        """The graph in a directory. One local part is memory-mapped and shared by all processes; several are copied.

        Raises ConfigError: the directory holds no complete graph.
        """
        header = read_header(directory)
        files, folder = file_system(directory)
        parts = [read_rows(files, f"{folder}/{part.name}") for part in header.parts]
        if len(parts) == 1:
            return cls(*parts[0], header.directed)
        indptr = np.zeros(header.num_nodes + 1, np.int64)
        indices = np.empty(header.num_arcs, np.int32)
        weights = np.empty(header.num_arcs, np.float32) if header.weighted else None
        arcs = 0
        for part, rows in zip(header.parts, parts, strict=True):
            indptr[part.first + 1 : part.first + part.rows + 1] = rows.offsets[1:] + arcs
            indices[arcs : arcs + part.arcs] = rows.neighbors
            if weights is not None:
                weights[arcs : arcs + part.arcs] = rows.weights
            arcs += part.arcs
        return cls(indptr, indices, weights, header.directed)
