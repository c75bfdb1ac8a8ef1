from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node2vec import block_schedule, table_pieces
from node2vec.block_training import Training
from node2vec.table_pieces import IN, OUT


def training_of(num_nodes: int, num_parts: int) -> Training:
    return Training(
        dimensions=3, window=1, negative=1, keep=1, ns_exponent=1.0, alpha=1.0, min_alpha=0.0, epochs=1, seed=0,
        num_parts=num_parts, num_episodes=2, num_nodes=num_nodes, num_walks=1,
    )  # fmt: skip


def table(training: Training, part: int, first: int) -> np.ndarray:
    size = block_schedule.part_size(training.num_nodes, part, training.num_parts)
    return np.arange(first, first + 3 * size, dtype=np.float32).reshape(size, 3)


def sent(training: Training, num_bytes: int, task: int, number: int) -> list[bytes]:
    pieces = table_pieces.pieces_of(training, num_bytes)
    other = block_schedule.output_part(task, block_schedule.round_at(number, training.num_parts, 2), training.num_parts)
    blobs = [
        *table_pieces.cut(pieces, task, (IN, number, task), table(training, task, 0)),
        *table_pieces.cut(pieces, task, (OUT, number, other), table(training, other, 1000)),
    ]
    assert {to for to, _ in blobs} == {task}
    assert len(blobs) == 2 * pieces.number
    return [b"".join(bytes(buffer) for buffer in blob) for _, blob in blobs]


@settings(max_examples=100, deadline=None)
@given(
    num_nodes=st.integers(1, 60), num_parts=st.integers(1, 7), num_bytes=st.integers(1, 200), number=st.integers(0, 13),
    task=st.integers(0, 6), seed=st.integers(0, 99),
)  # fmt: skip
def test_tables_arrive_whole_in_any_order(
    num_nodes: int, num_parts: int, num_bytes: int, number: int, task: int, seed: int
) -> None:
    training, task = training_of(num_nodes, num_parts), task % num_parts
    blobs = sent(training, num_bytes, task, number)
    np.random.default_rng(seed).shuffle(blobs)
    pieces = table_pieces.pieces_of(training, num_bytes)
    found, inputs, outputs = table_pieces.received(training, pieces, task, blobs)
    other = block_schedule.output_part(task, block_schedule.round_at(number, num_parts, 2), num_parts)
    assert found == number
    assert np.array_equal(inputs, table(training, task, 0))
    assert np.array_equal(outputs, table(training, other, 1000))


def test_what_does_not_fit_is_noticed() -> None:
    training = training_of(20, 3)
    pieces = table_pieces.pieces_of(training, 24)
    blobs = sent(training, 24, 1, 4)
    with pytest.raises(AssertionError, match="got 7 pieces"):
        table_pieces.received(training, pieces, 1, blobs[1:])
    with pytest.raises(AssertionError, match=r"rounds \[4, 5\]"):
        table_pieces.received(training, pieces, 1, [*blobs[1:], sent(training, 24, 1, 5)[0]])
    with pytest.raises(AssertionError, match="task 2 of round 4 got"):
        table_pieces.received(training, pieces, 2, blobs)
