"""A replica's rows as files: written part by part, read a step's rows at a time.

Each column of WIDE_BYTES a row or more has a file of its own; all narrower ones lie side by side as records in one
file, so that a row costs one access however many columns it has.  The entries of sparse columns lie one row after the
other in a file each; their places are in the records.

Files are mapped into memory.  Of those beyond KEPT_BYTES the process lets go after each reading: the rows stay in the
page cache as long as there is room, but do not count as memory of the process, for which cluster managers kill.  Where
a limit of the address space (`spark.executor.pyspark.memory`) leaves no room for a mapping, rows are read one by one.
"""

from __future__ import annotations

import json
import mmap
import os
import weakref
from collections.abc import Mapping
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from sparkdl.sparse_rows import ENTRY, SparseRows
from sparkdl.stored_arrays import Kind, Stored

__all__ = ["RowFiles", "RowWriter"]

Array: TypeAlias = npt.NDArray[Any]

WIDE_BYTES = 1024
KEPT_BYTES = 64 << 20
LISTING = "columns.json"
RECORDS = "records.bin"


class RowWriter:
    """Appends rows to the files of a directory that is there and empty."""

    def __init__(self, directory: str, kinds: Mapping[str, Kind]):
        self.kinds = dict(kinds)
        self.num_rows = 0
        self._directory = directory
        self._record = _record(self.kinds)
        self._ends = {name: 0 for name, kind in self.kinds.items() if kind.sparse}
        self._files: dict[str, BinaryIO] = {}
        try:
            for name in ([RECORDS] if self._record.names else []) + [_file(self.kinds, n) for n in self._own_files()]:
                self._files[name] = open(os.path.join(directory, name), "wb")  # noqa: SIM115 - closed in close()
        except OSError:
            self.close()
            raise

    def _own_files(self) -> list[str]:
        return [name for name, kind in self.kinds.items() if kind.sparse or kind.num_bytes >= WIDE_BYTES]

    def append(self, part: Mapping[str, Stored]) -> None:
        """Some rows of every column."""
        num_rows = len(next(iter(part.values())))
        records = np.zeros(num_rows, self._record)
        for number, (name, kind) in enumerate(self.kinds.items()):
            values = part[name]
            if isinstance(values, SparseRows):
                records[str(number)][:, 0] = values.starts[:-1] + self._ends[name]
                records[str(number)][:, 1] = np.diff(values.starts)
                self._ends[name] += len(values.entries)
                values.entries.tofile(self._files[_file(self.kinds, name)])
            elif kind.num_bytes >= WIDE_BYTES:
                np.ascontiguousarray(values, kind.dtype).tofile(self._files[_file(self.kinds, name)])
            else:
                records[str(number)] = values
        if self._record.names:
            records.tofile(self._files[RECORDS])
        self.num_rows += num_rows

    def close(self) -> None:
        """Closes the files, and lists what is in them."""
        for file in self._files.values():
            file.close()
        with open(os.path.join(self._directory, LISTING), "w") as listing:
            json.dump({"num_rows": self.num_rows, "entries": self._ends, "kinds": self.kinds}, listing)


class RowFiles:
    """The rows that a `RowWriter` left in a directory.   Raises FileNotFoundError: it left none."""

    def __init__(self, directory: str):
        with open(os.path.join(directory, LISTING)) as file:
            listing = json.load(file)
        self.num_rows: int = listing["num_rows"]
        self.kinds = {
            name: Kind(dtype, tuple(shape), sparse) for name, (dtype, shape, sparse) in listing["kinds"].items()
        }
        self._record = _record(self.kinds)
        self._records: _FixedRows | None = None
        if self._record.names:
            self._records = _FixedRows(os.path.join(directory, RECORDS), self.num_rows, self._record.itemsize)
        self._wide = {
            name: _FixedRows(os.path.join(directory, _file(self.kinds, name)), self.num_rows, kind.num_bytes)
            for name, kind in self.kinds.items()
            if not kind.sparse and kind.num_bytes >= WIDE_BYTES
        }
        self._entries = {
            name: _FixedRows(os.path.join(directory, _file(self.kinds, name)), count, ENTRY.itemsize)
            for name, count in listing["entries"].items()
        }

    def take(self, rows: npt.NDArray[np.int64]) -> dict[str, Stored]:
        """These rows of every column, in this order, as copies."""
        found: dict[str, Stored] = {}
        records: Array | None = None
        if self._records is not None:
            records = self._records.take(rows).view(self._record)[:, 0]
        for number, (name, kind) in enumerate(self.kinds.items()):
            if name in self._wide:
                found[name] = self._wide[name].take(rows).view(kind.dtype).reshape(len(rows), *kind.shape)
                continue
            assert records is not None
            if kind.sparse:
                starts, counts = records[str(number)].T
                entries = self._entries[name].take_runs(starts, counts).reshape(-1).view(ENTRY)
                found[name] = SparseRows(np.concatenate([[0], np.cumsum(counts)]), entries, kind.shape[0])
            else:
                found[name] = np.ascontiguousarray(records[str(number)])
        return found

    def expect(self, rows: npt.NDArray[np.int64]) -> None:
        """Has the disk bring these rows of large files, while something else computes."""
        for file in self._files():
            file.expect(rows)

    @property
    def large(self) -> bool:
        """Whether there is a file that is not kept in the process's memory."""
        return any(file.large for file in self._files())

    def _files(self) -> list[_FixedRows]:
        return [*([] if self._records is None else [self._records]), *self._wide.values()]


def _file(kinds: Mapping[str, Kind], name: str) -> str:
    return f"column-{list(kinds).index(name)}.bin"


def _record(kinds: Mapping[str, Kind]) -> np.dtype[Any]:
    """The narrow columns, and of sparse ones (start, count), by their numbers; the largest types first, so aligned."""
    fields: list[tuple[str, str, tuple[int, ...]]] = []
    for number, kind in enumerate(kinds.values()):
        if kind.sparse:
            fields.append((str(number), "<i8", (2,)))
        elif kind.num_bytes < WIDE_BYTES:
            fields.append((str(number), kind.dtype, kind.shape))
    fields.sort(key=lambda field: -np.dtype(field[1]).itemsize)
    packed = np.dtype(fields)
    if not fields:
        return packed
    names, offsets = list(packed.names or ()), [packed.fields[name][1] for name in packed.names or ()]  # type: ignore[index]
    formats = [(dtype, shape) for _, dtype, shape in fields]
    itemsize = max(8, -(-packed.itemsize // 8) * 8)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize})


class _FixedRows:
    """A file of rows of one size."""

    def __init__(self, path: str, num_rows: int, row_bytes: int):
        self._row_bytes = row_bytes
        self._map: Array | None = None
        self.large = num_rows * row_bytes > KEPT_BYTES
        if not num_rows * row_bytes:
            self._map = np.empty((num_rows, row_bytes), np.uint8)
            return
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._memory = _mapping(self._file, num_rows * row_bytes)
        if self._memory is not None:
            self._map = np.frombuffer(self._memory, np.uint8).reshape(num_rows, row_bytes)
            if self.large:  # rows come from all over the file: reading ahead would only cost
                self._memory.madvise(mmap.MADV_RANDOM)

    def take(self, rows: Array) -> Array:
        """uint8 [rows, row_bytes]."""
        if self._map is not None:
            found: Array = self._map.take(rows, axis=0)
            if self.large and self._memory is not None:
                self._memory.madvise(mmap.MADV_DONTNEED)
            return found
        found = np.empty((len(rows), self._row_bytes), np.uint8)
        memory, size = memoryview(found.reshape(-1)), self._row_bytes
        for number, row in enumerate(rows.tolist()):
            self._read(memory[number * size : (number + 1) * size], row * size)
        return found

    def take_runs(self, starts: Array, counts: Array) -> Array:
        """uint8 [sum of counts, row_bytes]: for each start, as many rows from there on as its count says."""
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        if self._map is not None:
            return self.take(np.arange(total) + np.repeat(starts - (ends - counts), counts))
        found = np.empty((total, self._row_bytes), np.uint8)
        memory, size = memoryview(found.reshape(-1)), self._row_bytes
        for start, count, end in zip(starts.tolist(), counts.tolist(), ends.tolist(), strict=True):
            self._read(memory[(end - count) * size : end * size], start * size)
        return found

    def _read(self, memory: memoryview, offset: int) -> None:
        while memory:
            count = os.preadv(self._file, [memory], offset)
            if not count:
                raise EOFError("a file of rows is shorter than its listing says")
            memory, offset = memory[count:], offset + count

    def expect(self, rows: Array) -> None:
        """Starts reading rows of a large file into the page cache."""
        if self.large and hasattr(os, "posix_fadvise"):
            for row in rows.tolist():
                os.posix_fadvise(self._file, row * self._row_bytes, self._row_bytes, os.POSIX_FADV_WILLNEED)


def _mapping(file: int, size: int) -> mmap.mmap | None:
    """None: no address space is left under the process's limit."""
    try:
        return mmap.mmap(file, size, prot=mmap.PROT_READ)
    except OSError:
        return None
