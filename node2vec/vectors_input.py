"""Vectors from a file in the word2vec format to Parquet, where tasks can read them: a batch at a time, whole or not."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from node2vec import word2vec_files
from node2vec.graph_files import file_system, replaced
from sparkdl.errors import ConfigError

BATCH_NUMBERS = 1 << 22  # of a row group: 16 MB
FILE_NUMBERS = 1 << 25  # of a file, about: 128 MB, what Spark gives one task


def to_parquet(path: str | os.PathLike[str], folder: str, binary: bool = False, integer_ids: bool = False) -> None:
    """Write ``part-*.parquet`` (id, vector: list<float32>) into `folder`, a path or URI, which must not be there.

    Ids are strings, or int64 with `integer_ids`. Raises ConfigError: see ``word2vec_files.read``; the file holds no
    vectors, or ids that are no integers. Then the folder is not there.
    """
    files, place = file_system(folder)
    num_vectors, dimensions = word2vec_files.shape(path)
    if not num_vectors:
        raise ConfigError(f"{os.fspath(path)} holds no vectors: its first line announces 0.")
    batches = word2vec_files.read(path, binary, max(1, BATCH_NUMBERS // dimensions))
    per_file = max(1, FILE_NUMBERS // BATCH_NUMBERS)
    files.create_dir(place, recursive=True)
    try:
        number = 0
        batch = next(batches, None)
        while batch is not None:
            table = _table(path, *batch, integer_ids)
            with (
                replaced(files, f"{place}/part-{number:05d}.parquet") as stream,
                pq.ParquetWriter(stream, table.schema) as writer,
            ):
                for left in reversed(range(per_file)):
                    writer.write_table(table)
                    batch = next(batches, None)
                    if batch is None or not left:
                        break
                    table = _table(path, *batch, integer_ids)
            number += 1
    except BaseException:
        files.delete_dir(place)
        raise


def _table(path: str | os.PathLike[str], ids: list[str], matrix: npt.NDArray[np.float32], integer_ids: bool) -> Any:
    offsets = pa.array(np.arange(len(ids) + 1, dtype=np.int32) * np.int32(matrix.shape[1]))
    vectors = pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(matrix).reshape(-1)))
    words = pa.array(ids, pa.string())
    return pa.table({"id": _integers(path, words) if integer_ids else words, "vector": vectors})


def _integers(path: str | os.PathLike[str], words: Any) -> Any:
    for word in words.to_pylist():
        if not word.removeprefix("-").isdecimal() or str(int(word)) != word or not -(1 << 63) <= int(word) < 1 << 63:
            raise ConfigError(
                f"{os.fspath(path)}: id {word!r} is no integer, and integer_ids=True: leave that out, and ids are "
                "strings."
            )
    return words.cast(pa.int64())
