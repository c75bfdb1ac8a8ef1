from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node2vec.vector_blocks import Block, block_of, blocks_of, from_bytes, lengths, rows_of, to_bytes


def batch(ids: list[Any], vectors: list[Any], kind: pa.DataType | None = None) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array(ids, kind), pa.array(vectors, pa.list_(pa.float32()))], names=["id", "vector"]
    )


@given(st.lists(st.integers(0, 7), max_size=6), st.integers(1, 9), st.booleans())
def test_blocks_have_all_rows_in_order(sizes: list[int], rows: int, text: bool) -> None:
    total = sum(sizes)
    ids = [f"n{i}" if text else i for i in range(total)]
    whole = batch(ids, [[i, i + 0.5] for i in range(total)], pa.string() if text else pa.int32())
    starts = np.cumsum([0, *sizes])
    cut = list(blocks_of((whole.slice(start, size) for start, size in zip(starts, sizes, strict=False)), rows))
    assert [len(block.ids) for block in cut] == [rows] * (total // rows) + [total % rows] * (total % rows > 0)
    sent = [from_bytes(to_bytes(block)) for block in cut]
    assert [name for block in sent for name in block.ids.to_pylist()] == ids
    assert [row for block in sent for row in block.matrix.tolist()] == [[i, i + 0.5] for i in range(total)]
    assert all(block.ids.type == whole.column(0).type and block.matrix.dtype == np.float32 for block in sent)


def test_a_slice_of_a_batch() -> None:
    whole = batch(["a", "b", "c"], [[1, 2], [3, 4], [5, 6]])
    block = block_of(whole.slice(1, 2))
    assert (block.ids.to_pylist(), block.matrix.tolist()) == (["b", "c"], [[3, 4], [5, 6]])
    assert from_bytes(to_bytes(Block(block.ids.slice(1), block.matrix[1:]))).matrix.tolist() == [[5, 6]]


def test_rows_of() -> None:
    assert rows_of(128) * 128 * 4 == 8 << 20
    assert rows_of(10**8) == 1


@pytest.mark.parametrize(
    ("ids", "vectors", "fault"),
    [
        ([3, None], [[1, 2], [1, 2]], "have no id"),
        ([3, 8], [[1, 2], None], "the vector of id 8 is null"),
        ([3, 8], [[1, 2], []], "the vector of id 8 is empty"),
        ([3, 8], [[1, 2], [1, None]], "the vector of id 8 holds a null"),
        (["a", "b b"], [[1, 2], [1, math.nan]], "the vector of id 'b b' holds NaN or infinity"),
        (["a", "b"], [[-math.inf, 2], [1, 1]], "the vector of id 'a' holds NaN or infinity"),
        ([3, 8], [[1, 2], [1, 2, 3]], "that of id 3 has 2 numbers, that of id 8 has 3"),
        ([3, 8], [[1, 2], [3, 4]], None),
    ],
)
def test_faults_are_told_with_their_id(ids: list[Any], vectors: list[Any], fault: str | None) -> None:
    seen = lengths(batch(ids, vectors))
    assert (seen.num_vectors, seen.first) == (2, f"id {ids[0]!r}")
    assert seen.fault is None if fault is None else fault in str(seen.fault)
    if fault is None:
        assert seen.dimensions == 2
