"""What travels between tasks, as bytes: items of a 32-byte header and a payload.

A block (what one task leaves in the block store) is a sequence of items. The header says what an item is, which
version (= step) and replica it belongs to and where its elements go; a task refuses what is not of its version.
Gradients travel as fp32 or bf16; sums, weights and moments are always fp32.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

START, RECORD, GRADIENT, SUM, BUFFERS, WEIGHTS, STATE, SHARED, EMPTY, ROWS = range(10)

DTYPES = {"fp32": 0, "bf16": 1}

_HEADER = struct.Struct("<BBHiqqq")
HEADER_BYTES = _HEADER.size
REPLICA_BYTES, START_BYTES = range(4, 8), range(16, 24)  # where two numbers of the header are, for Spark's expressions

Parts = list["bytes | memoryview"]


class Header(NamedTuple):
    """kind; dtype (0 fp32, 1 bf16); version = step; replica (or slice) it comes from; first element; how many.

    ``ROWS`` (see :mod:`sparkdl.table_rows`) have their lot's number instead of the first element.
    """

    kind: int
    dtype: int
    version: int
    replica: int
    start: int
    size: int


class Source(Protocol):
    """Where items come from: a socket of Spark's worker, or bytes."""

    def __iter__(self) -> Iterator[Header]:
        """The headers of the items, one after the other; each payload is read before the next header is asked for."""

    def readinto(self, target: memoryview) -> None:
        """Reads the payload, or its next part, into ``target``."""

    def drain(self) -> None:
        """Passes over all items: a task that leaves input behind costs Spark its Python worker."""


def header(kind: int, version: int, replica: int = 0, start: int = 0, count: int = 0, dtype: int = 0) -> bytes:
    """A header as bytes."""
    return _HEADER.pack(kind, dtype, 0, replica, version, start, count)


def unpack(data: bytes | memoryview) -> Header:
    """The header at the start of ``data``."""
    kind, dtype, _, replica, version, start, count = _HEADER.unpack(data[:HEADER_BYTES])
    return Header(kind, dtype, version, replica, start, count)


def payload_bytes(head: Header) -> int:
    """Bytes of an item's payload: elements for numbers, bytes for ``STATE``, ``BUFFERS`` and ``ROWS``."""
    if head.kind in (GRADIENT, SUM, WEIGHTS):
        return head.size * (2 if head.dtype == 1 else 4)
    if head.kind == RECORD:
        return head.size * 8
    return head.size


def view(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, without a copy."""
    import torch  # here: node2vec's tasks need items but no torch, whose import takes a second

    flat = tensor.detach().reshape(-1)
    if flat.dtype == torch.bfloat16:
        flat = flat.view(torch.int16)
    return memoryview(flat.numpy()).cast("B")


def bytes_of(array: np.ndarray) -> memoryview:
    """The bytes of a contiguous array, without a copy."""
    return memoryview(np.ascontiguousarray(array)).cast("B") if array.size else memoryview(b"")


class BytesSource:
    """Items held in memory, each a ``bytes`` object of header and payload."""

    def __init__(self, items: Iterable[bytes | bytearray | memoryview]):
        self._items = iter(items)
        self._rest = memoryview(b"")

    def __iter__(self) -> Iterator[Header]:
        for item in self._items:
            data = memoryview(item)
            self._rest = data[HEADER_BYTES:]
            yield unpack(data)

    def readinto(self, target: memoryview) -> None:
        """See :class:`Source`."""
        target[:] = self._rest[: len(target)]
        self._rest = self._rest[len(target) :]

    def drain(self) -> None:
        """See :class:`Source`."""
        for _ in self._items:
            pass


class FileSource:
    """Items in a file, one after the other."""

    def __init__(self, path: str):
        self._path = path

    def __iter__(self) -> Iterator[Header]:
        with open(self._path, "rb") as self._file:
            while data := self._file.read(HEADER_BYTES):
                yield unpack(data)

    def readinto(self, target: memoryview) -> None:
        """See :class:`Source`."""
        if self._file.readinto(target) != len(target):
            raise EOFError(f"{self._path} ends in the middle of an item")

    def drain(self) -> None:
        """See :class:`Source`; nobody waits for the rest of a file."""


def read(source: Source, head: Header) -> bytearray:
    """A whole payload."""
    data = bytearray(payload_bytes(head))
    source.readinto(memoryview(data))
    return data
