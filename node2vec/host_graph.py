"""The graph and its tables on one host: made once, memory-mapped by every task there.

A graph of one local file is mapped where it is. Any other, on a remote file system or in several parts, is first copied
part by part into a local directory. The edge filter and, for weighted graphs, alias tables and noise floors are built
beside it. Everything is ``.npy``, so that a map of the file is the array. A file's folder is named after what it was
made from (the graph's fingerprint; bits an edge; gamma), is written under another name and renamed when complete: a
folder that exists is whole. A file lock lets one process of the host do the work while the others wait.
"""

from __future__ import annotations

import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow import fs

from node2vec import alias, edge_filter, transition
from node2vec.graph import Graph
from node2vec.graph_files import Header, file_system, read_header, read_rows
from node2vec.walks import Tables
from sparkdl.errors import ClusterError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: several processes may do the same work, the first rename wins
    fcntl = None  # type: ignore[assignment]

FORMAT = 1  # of the folders' contents

Arrays = Mapping[str, NDArray[Any]]


def open_graph(
    directory: str,
    local: str,
    fingerprint: str,
    *,
    extend: bool = False,
    gamma: float = 0.0,
    bits_per_edge: float = 12.0,
) -> tuple[Graph, Tables]:
    """The graph at `directory` (path or URI) with its tables as `walks.prepare` makes them, all memory-mapped.

    `local`: a directory of this host, made if missing, that other processes and later runs may share. `fingerprint`:
    the graph's, as the driver saw it. Raises ClusterError: another graph is there.
    """
    header = read_header(directory)
    if header.fingerprint != fingerprint:
        raise ClusterError(
            f"the graph in {directory} is {header.fingerprint} on {platform.node()}, {fingerprint} on the driver: it "
            "was indexed anew meanwhile, or the path is not shared by all hosts."
        )
    home = os.path.join(local, f"graph-{FORMAT}-{fingerprint}")
    os.makedirs(home, exist_ok=True)
    files, folder = file_system(directory)
    if isinstance(files, fs.LocalFileSystem) and len(header.parts) == 1:
        graph = Graph.open(directory)
    else:
        arrays = _once(home, "arrays", lambda aside: _fetch(files, folder, header, aside))
        graph = Graph(arrays["indptr"], arrays["indices"], arrays.get("weights"), header.directed)
    return graph, _tables(graph, home, extend, gamma, bits_per_edge)


def _tables(graph: Graph, home: str, extend: bool, gamma: float, bits_per_edge: float) -> Tables:
    words = _once(home, f"filter-{bits_per_edge:g}", lambda aside: _save(aside, _filter(graph, bits_per_edge)))["words"]
    if graph.weights is None:
        return Tables(words=words)
    rows = _once(home, "alias", lambda aside: _save(aside, _alias(graph)))
    floors = None
    if extend:
        floors = _once(home, f"floors-{gamma!r}", lambda aside: _save(aside, _floors(graph, gamma)))["floors"]
    return Tables(rows["cuts"], rows["others"], rows["totals"], floors, words)


def _filter(graph: Graph, bits_per_edge: float) -> Arrays:
    return {"words": edge_filter.build(graph.indptr, graph.indices, graph.directed, bits_per_edge)}


def _alias(graph: Graph) -> Arrays:
    assert graph.weights is not None
    return alias.build(graph.indptr, graph.weights)._asdict()


def _floors(graph: Graph, gamma: float) -> Arrays:
    assert graph.weights is not None
    return {"floors": transition.noise_floors(graph.indptr, graph.weights, gamma)}


def _once(home: str, name: str, make: Callable[[str], None]) -> dict[str, NDArray[Any]]:
    """The arrays in ``home/name``, read-only maps; `make` fills a folder with them if nobody has yet."""
    final = os.path.join(home, name)
    if not os.path.isdir(final):
        with _locked(os.path.join(home, f"{name}.lock")):
            if not os.path.isdir(final):
                aside = f"{final}.{uuid.uuid4().hex}"
                os.makedirs(aside)
                try:
                    make(aside)
                    os.rename(aside, final)
                finally:
                    shutil.rmtree(aside, ignore_errors=True)
    names = [name for name in os.listdir(final) if name.endswith(".npy")]
    return {name[:-4]: _mapped(os.path.join(final, name)) for name in names}


def _mapped(path: str) -> NDArray[Any]:
    if os.path.getsize(path) <= 128:  # a header alone: nothing to map
        array = np.load(path)
        array.flags.writeable = False
        return np.asarray(array)
    return np.asarray(np.load(path, mmap_mode="r"))


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """One process at a time; the lock goes with the process that holds it."""
    with open(path, "a") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _save(folder: str, arrays: Arrays) -> None:
    for name, array in arrays.items():
        np.save(os.path.join(folder, f"{name}.npy"), array)


def _fetch(files: fs.FileSystem, folder: str, header: Header, aside: str) -> None:
    """Copy all parts into one set of arrays; no more than one part is in memory at a time."""

    def room(name: str, dtype: type, length: int) -> NDArray[Any]:
        path = os.path.join(aside, f"{name}.npy")
        if not length:  # nothing can be mapped
            np.save(path, np.empty(0, dtype))
            return np.empty(0, dtype)
        return np.lib.format.open_memmap(path, "w+", dtype, (length,))

    indptr = room("indptr", np.int64, header.num_nodes + 1)
    indices = room("indices", np.int32, header.num_arcs)
    weights = room("weights", np.float32, header.num_arcs) if header.weighted else None
    indptr[0] = arcs = 0
    for part in header.parts:
        rows = read_rows(files, f"{folder}/{part.name}")
        indptr[part.first + 1 : part.first + part.rows + 1] = rows.offsets[1:] + arcs
        indices[arcs : arcs + part.arcs] = rows.neighbors
        if weights is not None:
            weights[arcs : arcs + part.arcs] = rows.weights
        arcs += part.arcs
