"""Walk files as the corpus reads them: which walks each holds, told from the footers, and the walks themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from pyarrow import fs

from node2vec.graph_files import file_system


class Source(NamedTuple):
    """A file of walks: its path on the file system, and which walks it holds."""

    path: str
    first_walk: int
    num_walks: int
    num_tokens: int


def paths_in(directory: str) -> list[str]:
    """The files of walks in a directory, in the order of their names."""
    files, folder = file_system(directory)
    return sorted(
        info.path
        for info in files.get_file_info(fs.FileSelector(folder))
        if info.base_name.startswith("part-") and info.base_name.endswith(".parquet")
    )


class Footer:
    """Called with a path, tells the walks and the tokens in that file; small, so that it travels to tasks."""

    def __init__(self, directory: str):
        self.directory = directory

    def __call__(self, path: str) -> tuple[int, int]:
        """Nothing but the end of the file is read."""
        files, _ = file_system(self.directory)
        with files.open_input_file(path) as source:
            footer = pq.ParquetFile(source).metadata
        groups = (footer.row_group(group) for group in range(footer.num_row_groups))
        return footer.num_rows, sum(group.column(0).num_values for group in groups)


def numbered(paths: Sequence[str], sizes: Sequence[tuple[int, int]]) -> list[Source]:
    """Walks are numbered file by file, in this order. sizes: what `Footer` told of each path."""
    found, first = [], 0
    for path, (num_walks, num_tokens) in zip(paths, sizes, strict=True):
        found.append(Source(path, first, num_walks, num_tokens))
        first += num_walks
    return found


def walks_of(directory: str, source: Source) -> Iterator[tuple[int, npt.NDArray[np.int32], npt.NDArray[np.int64]]]:
    """Row group by row group: the number of the first walk, nodes int32 [T], offsets int64 [n+1]."""
    files, _ = file_system(directory)
    first = source.first_walk
    with files.open_input_file(source.path) as stream:
        parquet = pq.ParquetFile(stream)
        for group in range(parquet.num_row_groups):
            for chunk in parquet.read_row_group(group).column(0).chunks:
                offsets = chunk.offsets.to_numpy().astype(np.int64)
                nodes = chunk.values.to_numpy()[offsets[0] : offsets[-1]]
                yield first, np.ascontiguousarray(nodes, np.int32), offsets - offsets[0]
                first += len(chunk)
