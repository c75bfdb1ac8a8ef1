"""Tables on their way from one task to another: in pieces that fit a network's buffers, in any order.

A piece is a head of four int64 (kind, the round of groups in which the table is trained next, part, number of the
piece) and float32 rows. Every table has as many pieces, so that every task receives as many; the last ones may hold no
rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from node2vec import block_schedule
from node2vec.block_schedule import Round
from node2vec.block_training import Training

Blob = list[Any]  # buffers that are sent as one item
Table = npt.NDArray[np.float32]  # [rows of a part, d]
Tables = dict[int, Table]  # of some parts

IN, OUT = 0, 1  # kinds
_HEAD = 4


class Pieces(NamedTuple):
    """How all tables of a run travel."""

    rows: int  # of a piece
    number: int  # of a table's pieces


def pieces_of(training: Training, num_bytes: int) -> Pieces:
    """Pieces of at most `num_bytes`, or one row."""
    rows = max(1, num_bytes // (4 * training.dimensions))
    largest = -(-training.num_nodes // training.num_parts)
    return Pieces(rows, -(-largest // rows))


def cut(pieces: Pieces, to: int, about: tuple[int, int, int], table: Table) -> Iterator[tuple[int, Blob]]:
    """The pieces of a table, each behind the task that gets it. about: kind, round, part."""
    for index in range(pieces.number):
        yield to, [np.array([*about, index], np.int64), table[index * pieces.rows : (index + 1) * pieces.rows]]


def received(
    training: Training, pieces: Pieces, task: int, blobs: Iterable[bytes], resident: bool = False
) -> tuple[int, Tables, Tables]:
    """The number of the round of groups, and the tables of inputs and outputs that `task` trains in it, by part.

    resident: inputs are not sent, and there are none of them here.
    Raises AssertionError: the pieces are not those of one round and of this task, or some are missing.
    """
    tables: dict[tuple[int, int], Table] = {}
    numbers, seen = set(), set()
    for blob in blobs:
        kind, number, part, index = np.frombuffer(blob, np.int64, _HEAD).tolist()
        if (kind, part) not in tables:
            size = block_schedule.part_size(training.num_nodes, part, training.num_parts)
            tables[kind, part] = np.empty((size, training.dimensions), np.float32)
        rows = np.frombuffer(blob, np.float32, offset=8 * _HEAD).reshape(-1, training.dimensions)
        tables[kind, part][index * pieces.rows : index * pieces.rows + len(rows)] = rows
        numbers.add(number)
        seen.add((kind, part, index))
    assert len(numbers) == 1, f"task {task} was sent tables of rounds {sorted(numbers)}"
    this = training.group_round(min(numbers))
    own, others = parts_met(training, this, task)
    wanted = {(OUT, part) for part in others} | {(IN, part) for part in own if not resident}
    assert set(tables) == wanted, f"task {task} of round {this.number} got {sorted(tables)}"
    assert len(seen) == len(wanted) * pieces.number, f"task {task} of round {this.number} got {len(seen)} pieces"
    inputs = {} if resident else {part: tables[IN, part] for part in own}
    return this.number, inputs, {part: tables[OUT, part] for part in others}


def parts_met(training: Training, this: Round, task: int) -> tuple[range, range]:
    """The parts of inputs and of outputs that a task holds in a round of groups."""
    group = int(block_schedule.output_part(task, this, training.num_groups))
    return block_schedule.parts_of(task, training.cores), block_schedule.parts_of(group, training.cores)
