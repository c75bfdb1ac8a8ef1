from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node2vec import block_schedule, table_pieces
from node2vec.block_training import Training
from node2vec.table_pieces import IN, OUT


def training_of(num_nodes: int, num_parts: int, cores: int = 1) -> Training:
    return Training(
        dimensions=3, window=1, negative=1, keep=1, ns_exponent=1.0, alpha=1.0, min_alpha=0.0, epochs=1, seed=0,
        num_parts=num_parts, num_episodes=2, num_nodes=num_nodes, num_walks=1, cores=cores,
    )  # fmt: skip


def table(training: Training, part: int, first: int) -> np.ndarray:
    size = block_schedule.part_size(training.num_nodes, part, training.num_parts)
    return np.arange(first, first + 3 * size, dtype=np.float32).reshape(size, 3) + part


def sent(training: Training, num_bytes: int, task: int, number: int, kinds: tuple[int, ...] = (IN, OUT)) -> list[bytes]:
    pieces = table_pieces.pieces_of(training, num_bytes)
    groups, cores = training.num_groups, training.cores
    met = (task + number % groups + number // groups % 2) % groups
    blobs = [
        blob
        for kind, group in ((IN, task), (OUT, met))
        for part in range(group * cores, (group + 1) * cores)
        for blob in table_pieces.cut(pieces, task, (kind, number, part), table(training, part, 1000 * kind))
        if kind in kinds
    ]
    assert {to for to, _ in blobs} == {task}
    assert len(blobs) == len(kinds) * cores * pieces.number
    return [b"".join(bytes(buffer) for buffer in blob) for _, blob in blobs]


@settings(max_examples=100, deadline=None)
@given(
    num_nodes=st.integers(1, 60), num_groups=st.integers(1, 7), cores=st.integers(1, 3), num_bytes=st.integers(1, 200),
    number=st.integers(0, 13), task=st.integers(0, 6), seed=st.integers(0, 99), resident=st.booleans(),
)  # fmt: skip
def test_tables_arrive_whole_in_any_order(
    num_nodes: int, num_groups: int, cores: int, num_bytes: int, number: int, task: int, seed: int, resident: bool
) -> None:
    training, task = training_of(num_nodes, num_groups * cores, cores), task % num_groups
    blobs = sent(training, num_bytes, task, number, (OUT,) if resident else (IN, OUT))
    np.random.default_rng(seed).shuffle(blobs)
    pieces = table_pieces.pieces_of(training, num_bytes)
    found, inputs, outputs = table_pieces.received(training, pieces, task, blobs, resident)
    own, others = table_pieces.parts_met(training, training.group_round(number), task)
    assert found == number
    assert (list(inputs), list(outputs)) == ([] if resident else list(own), list(others))
    assert all(np.array_equal(inputs[part], table(training, part, 0)) for part in inputs)
    assert all(np.array_equal(outputs[part], table(training, part, 1000)) for part in outputs)


@pytest.mark.parametrize("cores", [1, 2])
def test_what_does_not_fit_is_noticed(cores: int) -> None:
    training = training_of(20 * cores, 3 * cores, cores)
    pieces = table_pieces.pieces_of(training, 24)
    blobs = sent(training, 24, 1, 4)
    with pytest.raises(AssertionError, match=f"got {8 * cores - 1} pieces"):
        table_pieces.received(training, pieces, 1, blobs[1:])
    with pytest.raises(AssertionError, match=r"rounds \[4, 5\]"):
        table_pieces.received(training, pieces, 1, [*blobs[1:], sent(training, 24, 1, 5)[0]])
    with pytest.raises(AssertionError, match="task 2 of round 4 got"):
        table_pieces.received(training, pieces, 2, blobs)
    with pytest.raises(AssertionError, match="task 1 of round 4 got"):
        table_pieces.received(training, pieces, 1, blobs, resident=True)
