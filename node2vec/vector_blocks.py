"""Vectors as blocks: ids and a float32 matrix side by side, as they leave Spark's tasks and travel as bytes.

A DataFrame holds a vector a row, as an array<float>. Tasks and files work on blocks of many rows, whose bytes are one
Arrow stream: the matrix is read where it lies, without a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

BLOCK_BYTES = 8 << 20  # of a block's matrix: large enough for a good matrix product, small enough to be one value


class Block(NamedTuple):
    """ids: Arrow integers or strings [n]; matrix: float32 [n, d], C order, perhaps read-only."""

    ids: pa.Array
    matrix: npt.NDArray[np.float32]


class Lengths(NamedTuple):
    """Of some vectors: how many, the dimensions of the first, its id in words, and what is wrong (or None)."""

    num_vectors: int
    dimensions: int
    first: str
    fault: str | None


def rows_of(dimensions: int) -> int:
    """How many vectors make a block of about 8 MiB."""
    return max(1, BLOCK_BYTES // (4 * dimensions))


def block_of(batch: pa.RecordBatch) -> Block:
    """A batch with the columns id and vector, in which :func:`lengths` finds no fault, as a block without a copy."""
    ids, vectors = batch.column(0), batch.column(1)
    values = vectors.flatten().to_numpy(zero_copy_only=False)
    return Block(ids, values.reshape(len(ids), -1) if len(ids) else np.empty((0, 0), np.float32))


def blocks_of(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[Block]:
    """Blocks of exactly `rows` rows, the last one of what is left, from batches of any size, in their order."""
    waiting: list[Block] = []
    count = 0
    for batch in batches:
        block = block_of(batch)
        while len(block.ids):
            taken = min(rows - count, len(block.ids))
            waiting.append(Block(block.ids.slice(0, taken), block.matrix[:taken]))
            block = Block(block.ids.slice(taken), block.matrix[taken:])
            count += taken
            if count == rows:
                yield _joined(waiting)
                waiting, count = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(blocks: list[Block]) -> Block:
    ids = blocks[0].ids if len(blocks) == 1 else pa.concat_arrays([block.ids for block in blocks])
    return Block(ids, np.concatenate([block.matrix for block in blocks]))


def to_bytes(block: Block) -> bytes:
    """A block as one Arrow stream."""
    values = pa.array(np.ascontiguousarray(block.matrix, np.float32).reshape(-1))
    vectors = pa.FixedSizeListArray.from_arrays(values, block.matrix.shape[1])
    batch = pa.RecordBatch.from_arrays([block.ids, vectors], names=["id", "vector"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def from_bytes(data: bytes) -> Block:
    """The block of :func:`to_bytes`; its matrix is read-only."""
    batch = pa.ipc.open_stream(data).read_next_batch()
    vectors = batch.column(1)
    matrix = vectors.flatten().to_numpy().reshape(len(vectors), vectors.type.list_size)
    return Block(batch.column(0), matrix)


def lengths(batch: pa.RecordBatch) -> Lengths:
    """Look at a batch (at least one row, columns id and vector): is every row an id and d finite numbers?

    The first fault of a kind is told in words, with the id of its row.
    """
    ids, vectors = batch.column(0), batch.column(1)
    first = in_words(ids[0])
    if ids.null_count:
        return Lengths(len(ids), 0, first, f"{ids.null_count} or more rows have no id")
    if vectors.null_count:
        return Lengths(len(ids), 0, first, f"the vector of {_at(ids, vectors.is_null())} is null")
    sizes = pc.list_value_length(vectors).to_numpy(zero_copy_only=False)
    dimensions = int(sizes[0])
    if not sizes.all():
        return Lengths(len(ids), dimensions, first, f"the vector of {_at(ids, sizes == 0)} is empty")
    if (sizes != dimensions).any():
        other = int(np.argmax(sizes != dimensions))
        return Lengths(
            len(ids), dimensions, first, different(first, dimensions, in_words(ids[other]), int(sizes[other]))
        )
    values = vectors.flatten()
    if values.null_count:
        empty = values.is_null().to_numpy(zero_copy_only=False).reshape(len(ids), -1).any(axis=1)
        return Lengths(len(ids), dimensions, first, f"the vector of {_at(ids, empty)} holds a null")
    finite = np.isfinite(values.to_numpy(zero_copy_only=False)).reshape(len(ids), -1).all(axis=1)
    if not finite.all():
        return Lengths(len(ids), dimensions, first, f"the vector of {_at(ids, ~finite)} holds NaN or infinity")
    return Lengths(len(ids), dimensions, first, None)


def different(first: str, dimensions: int, other: str, others: int) -> str:
    """The sentence's part about two vectors of different lengths."""
    return f"vectors have different lengths: that of {first} has {dimensions} numbers, that of {other} has {others}"


def in_words(value: pa.Scalar) -> str:
    """An id as errors show it: ``id 7``, ``id 'Valjean'``."""
    return f"id {value.as_py()!r}"


def _at(ids: pa.Array, mask: Any) -> str:
    return in_words(ids[int(np.argmax(np.asarray(mask)))])
