"""A training run as rounds of blocks: what each task computes, and the whole run in one process.

`train_round` is one task of one round: it derives everything that ``skipgram.train_block`` wants from the settings, the
round and the task's number. `train` plays all rounds, one task after the other; it is the twin of ``skipgram_job``.
Tasks of a round touch disjoint rows, so their order changes nothing, and the result is a function of the corpus and the
settings. Parts and episodes are among these: another P or E trains the same pairs in another order.

Letters: V nodes, d dimensions, P parts, E episodes, n_A rows of part A, W_e walks of an episode, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from node2vec import block_schedule, skipgram
from node2vec.block_schedule import Round
from node2vec.skipgram import Sgns
from node2vec.token_streams import Stream

Rows = npt.NDArray[np.float32]


class Training(NamedTuple):
    """The settings of a run and the size of its corpus. Small: it is sent with every task."""

    dimensions: int
    window: int  # the farthest that a context is from its centre, in positions
    negative: int  # negatives of a pair
    keep: int  # pairs that share negatives, at least; 1: fresh ones for each pair
    ns_exponent: float  # negatives are drawn in proportion to counts to this power
    alpha: float  # the learning rate at the start
    min_alpha: float  # and at the end
    epochs: int
    seed: int
    num_parts: int
    num_episodes: int
    num_nodes: int
    num_walks: int

    @property
    def num_rounds(self) -> int:
        """Rounds of the whole run."""
        return block_schedule.num_rounds(self.num_parts, self.num_episodes, self.epochs)

    def ids_of(self, part: int) -> npt.NDArray[np.int64]:
        """The ids of a part's rows, in the order of the rows: int64 [n_A]."""
        rows = np.arange(block_schedule.part_size(self.num_nodes, part, self.num_parts), dtype=np.int64)
        return np.asarray(block_schedule.id_of(part, rows, self.num_parts), np.int64)


def train_round(
    training: Training,
    this: Round,
    task: int,
    inputs: Rows,
    outputs: Rows,
    centres: Stream,
    contexts: Stream,
    counts: npt.NDArray[np.int64],
) -> int:
    """Task `task` of a round: train all pairs of its block, in place; returns their number.

    With s the task's ``block_schedule.output_part``: `inputs` float32 [n_task, d] and `outputs` float32 [n_s, d] are
    the tables of parts `task` and s, `centres` and `contexts` the streams of these parts in the round's episode, and
    `counts`, int64 [n_s], how often each row of part s occurs in the whole corpus. Needs 8 bytes for each walk of the
    episode beside these.
    """
    other = block_schedule.output_part(task, this, training.num_parts)
    first_rate, last_rate = block_schedule.rates(this, training.num_rounds, training.alpha, training.min_alpha)
    return skipgram.train_block(
        inputs,
        outputs,
        skipgram.noise_of(counts, training.ns_exponent),
        centres,
        contexts,
        block_schedule.walks_of(this.episode, training.num_walks, training.num_episodes),
        Sgns(training.window, training.negative, training.keep, np.uint64(training.seed)),
        epoch=this.epoch,
        round_number=this.number,
        input_part=task,
        same_part=other == task,
        first_rate=first_rate,
        last_rate=last_rate,
    )


def train(
    training: Training,
    streams: Sequence[Sequence[Stream]],
    counts: Sequence[npt.NDArray[np.int64]],
    init: Rows | None = None,
) -> Rows:
    """A whole run in one process: the vectors float32 [V, d], row by id.

    `streams`: ``[episode][part]``, each of all walks of the corpus (``token_streams``); `counts`: ``[part]``, int64
    [n_A], tokens of each row in the whole corpus. `init`: float32 [V, d], vectors to begin from; None: at random.
    """
    parts = range(training.num_parts)
    inputs = [
        skipgram.initial_inputs(training.num_nodes, training.dimensions, training.seed, part, training.num_parts)
        if init is None
        else np.array(init[training.ids_of(part)], np.float32, order="C")
        for part in parts
    ]
    outputs = [np.zeros_like(rows) for rows in inputs]
    for this in block_schedule.rounds(training.num_parts, training.num_episodes, training.epochs):
        for task in parts:
            other = block_schedule.output_part(task, this, training.num_parts)
            of_episode = streams[this.episode]
            train_round(
                training, this, task, inputs[task], outputs[other], of_episode[task], of_episode[other], counts[other]
            )
    vectors = np.empty((training.num_nodes, training.dimensions), np.float32)
    for part in parts:
        vectors[training.ids_of(part)] = inputs[part]
    return vectors
