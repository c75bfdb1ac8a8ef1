"""Walks as Parquet files: one column ``walk``, a list of int32 vertex numbers, as long as the walk.

Every engine that reads Parquet reads them. A file is compressed with zstd, which takes walks to about 60 % at little
cost; dictionaries and statistics of vertex numbers are left out, for they only cost. The same walks make the same
bytes, so a task that runs again replaces its file with itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from node2vec.counter_rng import GOLDEN, mix_numpy
from node2vec.graph_files import file_system, replaced

COLUMN = "walk"
SCHEMA = pa.schema([pa.field(COLUMN, pa.list_(pa.field("element", pa.int32(), nullable=False)), nullable=False)])
MOST_NODES = 1 << 24  # of one row group: 64 MB as int32, and below the 2^31 that a list's offsets reach


def part_name(number: int) -> str:
    """The file of task `number`."""
    return f"part-{number:05d}.parquet"


def batch_of(walks: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32]) -> pa.RecordBatch:
    """The walks of a kernel without their tails. walks: int32 [n, L]; lengths: int32 [n], 0 .. L; n * L < 2^31."""
    num_walks, walk_length = walks.shape
    offsets = np.zeros(num_walks + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    nodes = walks.reshape(-1)
    if offsets[-1] < len(nodes):
        nodes = walks[np.arange(walk_length) < lengths[:, None]]
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(nodes), type=SCHEMA.field(0).type)
    return pa.RecordBatch.from_arrays([lists], schema=SCHEMA)


def write(files: fs.FileSystem, path: str, batches: Iterable[pa.RecordBatch]) -> None:
    """One file, a row group a batch; it appears at once, when all of it is written."""
    with (
        replaced(files, path) as stream,
        pq.ParquetWriter(
            stream, SCHEMA, compression="zstd", use_dictionary=False, write_statistics=False,
            use_compliant_nested_type=True,
        ) as writer,
    ):  # fmt: skip
        for batch in batches:
            writer.write_table(pa.Table.from_batches([batch]), row_group_size=max(1, batch.num_rows))


def read(directory: str | os.PathLike[str]) -> Iterator[pa.ListArray]:
    """The walks of all files of a directory, file by file and row group by row group: list<int32> [n] each."""
    files, folder = file_system(directory)
    for info in sorted(files.get_file_info(fs.FileSelector(folder)), key=lambda info: str(info.path)):
        if info.base_name.startswith("part-"):
            with files.open_input_file(info.path) as source:
                parquet = pq.ParquetFile(source)
                for group in range(parquet.num_row_groups):
                    yield from parquet.read_row_group(group, columns=[COLUMN]).column(0).chunks


def walks_hash(batches: Iterable[pa.ListArray]) -> int:
    """A 64-bit number of a set of walks, whatever their order and their cut into batches: the sum of a hash of each.

    batches: list<int32> [n], without empty lists. The hash of a walk depends on its nodes and their order.
    """
    total = 0
    for batch in batches:
        if len(batch):
            offsets = batch.offsets.to_numpy().astype(np.int64)
            nodes = batch.values.to_numpy()[offsets[0] : offsets[-1]].astype(np.uint64)
            total += int(_hashes(nodes, offsets - offsets[0]).sum(dtype=np.uint64))
    return total & 0xFFFFFFFFFFFFFFFF


def _hashes(nodes: npt.NDArray[Any], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """uint64 [n]: of nodes uint64 [offsets[n]], walk i at offsets[i] .. offsets[i+1]."""
    places = np.arange(len(nodes)) - np.repeat(offsets[:-1], np.diff(offsets))
    words = mix_numpy(places.astype(np.uint64) << np.uint64(32) | nodes)
    return mix_numpy(np.add.reduceat(words, offsets[:-1]) + np.uint64(GOLDEN))
