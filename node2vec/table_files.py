"""Tables and vectors of a training on disk, under the folder of its stage:

    _rounds/00016/in-<part>.npy, out-<part>.npy   the tables before round 16 (of groups); _SUCCESS when all are there
    _init/part=<part>/                            Parquet row, vector: vectors to begin from, if there are any
    part-<part>.parquet                           index, vector: the result
    _not_finite/<part>.npy                        instead of it: the first node with NaN or infinity in it, how many

Every file appears whole or not at all; a task that runs twice writes the same bytes twice.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from node2vec.graph_files import file_system, replaced
from node2vec.stage import MARKER
from node2vec.table_pieces import Table, Tables

SCHEMA = pa.schema([pa.field("index", pa.int32(), nullable=False), pa.field("vector", pa.list_(pa.float32()))])
ROUNDS, OLD, WRONG = "_rounds", "_init", "_not_finite"
_MOST_NUMBERS = 1 << 24  # of a row group: 64 MB, and below the 2^31 that a list's offsets reach


def write_tables(output: str, number: int, inputs: Tables, outputs: Tables) -> None:
    """The tables that a task holds before round `number`, by part."""
    files, folder = file_system(output)
    home = f"{folder}/{ROUNDS}/{number:05d}"
    files.create_dir(home, recursive=True)
    for kind, tables in (("in", inputs), ("out", outputs)):
        for part, table in tables.items():
            with replaced(files, f"{home}/{kind}-{part:05d}.npy") as stream:
                np.save(stream, table)


def read_tables(output: str, number: int, inputs: Iterable[int], outputs: Iterable[int]) -> tuple[Tables, Tables]:
    """Some of the tables before round `number`: those of these parts."""
    files, folder = file_system(output)

    def read(kind: str, part: int) -> Table:
        with files.open_input_file(f"{folder}/{ROUNDS}/{number:05d}/{kind}-{part:05d}.npy") as stream:
            return np.asarray(np.load(stream), np.float32)

    return {part: read("in", part) for part in inputs}, {part: read("out", part) for part in outputs}


def complete(output: str, number: int) -> None:
    """All tables before round `number` are written: older ones are not needed any more."""
    files, folder = file_system(output)
    with replaced(files, f"{folder}/{ROUNDS}/{number:05d}/{MARKER}"):
        pass
    for info in files.get_file_info(fs.FileSelector(f"{folder}/{ROUNDS}")):
        if int(info.base_name) < number:
            files.delete_dir(info.path)


def complete_rounds(output: str) -> int:
    """How many rounds have been done and written down; 0 if none."""
    files, folder = file_system(output)
    if files.get_file_info(f"{folder}/{ROUNDS}").type == fs.FileType.NotFound:
        return 0
    names = [info.base_name for info in files.get_file_info(fs.FileSelector(f"{folder}/{ROUNDS}"))]
    markers = files.get_file_info([f"{folder}/{ROUNDS}/{name}/{MARKER}" for name in names])
    return max([0, *(int(name) for name, mark in zip(names, markers, strict=True) if mark.is_file)])


def clear(output: str) -> None:
    """Remove what only the training needed."""
    files, folder = file_system(output)
    for name in (ROUNDS, OLD, WRONG):
        if files.get_file_info(f"{folder}/{name}").type != fs.FileType.NotFound:
            files.delete_dir(f"{folder}/{name}")


def put_old_rows(output: str, part: int, inputs: Table) -> None:
    """Replace those rows of a part's inputs, in place, for which there is a vector to begin from."""
    files, folder = file_system(output)
    path = f"{folder}/{OLD}/part={part}"
    if files.get_file_info(path).type == fs.FileType.NotFound:
        return
    table = pq.read_table(path, filesystem=files, columns=["row", "vector"])
    for batch in table.to_batches():
        rows = batch.column(0).to_numpy()
        inputs[rows] = batch.column(1).flatten().to_numpy().reshape(len(rows), inputs.shape[1])


def write_vectors(output: str, part: int, index: npt.NDArray[np.int32], vectors: Table) -> None:
    """The result of a part: node numbers, int32 [n], and vectors, float32 [n, d].

    If some of the vectors are not finite, that is written instead, and nothing raised: a task that raises is tried four
    times, to the same end. The driver asks `not_finite`.
    """
    files, folder = file_system(output)
    dimensions = vectors.shape[1]
    step = max(1, _MOST_NUMBERS // dimensions)
    pieces = [slice(start, start + step) for start in range(0, len(index), step)]
    wrong = np.concatenate([index[:0], *(index[piece][~np.isfinite(vectors[piece]).all(axis=1)] for piece in pieces)])
    if len(wrong):
        files.create_dir(f"{folder}/{WRONG}", recursive=True)
        with replaced(files, f"{folder}/{WRONG}/{part:05d}.npy") as stream:
            np.save(stream, np.array([wrong.min(), len(wrong)], np.int64))
        return
    with (
        replaced(files, f"{folder}/part-{part:05d}.parquet") as stream,
        pq.ParquetWriter(stream, SCHEMA, compression="none", use_dictionary=False, write_statistics=False) as writer,
    ):
        for piece in pieces:
            some = np.ascontiguousarray(vectors[piece])
            offsets = pa.array(np.arange(len(some) + 1, dtype=np.int32) * dimensions)
            lists = pa.ListArray.from_arrays(offsets, pa.array(some.reshape(-1)))
            writer.write_table(pa.table([pa.array(index[piece]), lists], schema=SCHEMA))


def not_finite(output: str) -> tuple[int, int] | None:
    """The first node whose vector holds NaN or infinity, and how many such nodes there are; None if there are none."""
    files, folder = file_system(output)
    found = []
    for info in files.get_file_info(fs.FileSelector(f"{folder}/{WRONG}", allow_not_found=True)):
        with files.open_input_file(info.path) as stream:
            found.append(np.load(stream).tolist())
    return (min(first for first, _ in found), sum(count for _, count in found)) if found else None
