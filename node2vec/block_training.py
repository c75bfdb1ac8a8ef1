"""A training run as rounds of blocks: what each task computes, and the whole run in one process.

`train_round` is one block of one round: it derives everything that ``skipgram.train_block`` wants from the settings,
the round and the part's number. `train_group` is one task of one round of groups: its c threads train c blocks at a
time, which share no row. `train` plays all rounds, one task after the other; it is the twin of ``skipgram_job``.
Tasks of a round touch disjoint rows, so their order changes nothing, and the result is a function of the corpus and the
settings. Parts, episodes and cores are among these: others train the same pairs in another order. So is the device.

Letters: V nodes, d dimensions, P parts, E episodes, c cores, N groups, n_A rows of part A, W_e walks of an episode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from node2vec import block_schedule, skipgram, training_device
from node2vec.block_schedule import Round
from node2vec.skipgram import Noise, Sgns
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
    cores: int = 1  # of a task, and parts of a group; a divisor of num_parts
    device: str = "cpu"  # or "cuda", "torch": see ``training_device``

    @property
    def num_rounds(self) -> int:
        """Rounds of the whole run."""
        return block_schedule.num_rounds(self.num_parts, self.num_episodes, self.epochs)

    @property
    def num_groups(self) -> int:
        """Groups of parts, and tasks of a round."""
        return self.num_parts // self.cores

    @property
    def num_group_rounds(self) -> int:
        """Rounds of groups of the whole run."""
        return block_schedule.num_rounds(self.num_groups, self.num_episodes, self.epochs)

    def group_round(self, number: int) -> Round:
        """The round of groups with this number."""
        return block_schedule.round_at(number, self.num_groups, self.num_episodes)

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
    """One block of a round, that of part `task` of the inputs: train all its pairs in place; returns their number.

    With s the part's ``block_schedule.output_part``: `inputs` float32 [n_task, d] and `outputs` float32 [n_s, d] are
    the tables of parts `task` and s, `centres` and `contexts` the streams of these parts in the round's episode, and
    `counts`, int64 [n_s], how often each row of part s occurs in the whole corpus. Needs 8 bytes for each walk of the
    episode beside these. On the CPU, by numba's kernels.
    """
    noise, training = skipgram.noise_of(counts, training.ns_exponent), training._replace(device="cpu")
    return _train_block(training, this, task, inputs, outputs, noise, centres, contexts, _walks(training, this))


def train_group(
    training: Training,
    this: Round,
    group: int,
    inputs: Sequence[Rows],
    outputs: Sequence[Rows],
    centres: Sequence[Stream],
    contexts: Sequence[Stream],
    counts: Sequence[npt.NDArray[np.int64]],
    threads: int = 1,
    device: str | None = None,
) -> int:
    """Task `group` of a round of groups: train all pairs of its c x c blocks, in place; returns their number.

    `this`: of ``training.group_round``. The sequences are as for `train_round`, for the c parts of `group` and of the
    group of outputs that it meets. threads: as many blocks are trained at once, at most c; they change no bit. A GPU
    has one block after the other. device: the name of the run's device here, as ``training_device.local`` has it.
    """
    cores, device = training.cores, device or training.device
    walks = _walks(training, this)
    with (
        _mapping(min(threads, cores) if device == "cpu" else 1) as mapped,
        training_device.tables_on(device, [*inputs, *outputs]) as tables,
    ):
        noises = list(mapped(lambda tokens: skipgram.noise_of(tokens, training.ns_exponent), counts))
        num_pairs = 0
        for fine in block_schedule.fine_rounds(this, cores):

            def block(place: int, fine: Round = fine) -> int:
                task = group * cores + place
                other = block_schedule.output_part(task, fine, training.num_parts, cores) % cores
                arrays = (tables[place], tables[cores + other], noises[other], centres[place], contexts[other])
                return _train_block(training, fine, task, *arrays, walks)

            num_pairs += sum(mapped(block, range(cores)))  # the sum waits for all: the next blocks take their rows
    return num_pairs


def _walks(training: Training, this: Round) -> npt.NDArray[np.int64]:
    return block_schedule.walks_of(this.episode, training.num_walks, training.num_episodes)


def _train_block(
    training: Training,
    this: Round,
    task: int,
    inputs: Any,
    outputs: Any,
    noise: Noise,
    centres: Stream,
    contexts: Stream,
    walks: npt.NDArray[np.int64],
) -> int:
    other = block_schedule.output_part(task, this, training.num_parts, training.cores)
    first_rate, last_rate = block_schedule.rates(this, training.num_rounds, training.alpha, training.min_alpha)
    return training_device.kernel(training.device)(
        inputs,
        outputs,
        noise,
        centres,
        contexts,
        walks,
        Sgns(training.window, training.negative, training.keep, np.uint64(training.seed)),
        epoch=this.epoch,
        round_number=this.number,
        input_part=task,
        same_part=other == task,
        first_rate=first_rate,
        last_rate=last_rate,
    )


@contextmanager
def _mapping(threads: int) -> Iterator[Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]]:
    """``map``, on so many threads: the kernels let go of the interpreter's lock."""
    if threads == 1:
        yield map
    else:
        with ThreadPoolExecutor(threads) as pool:
            yield pool.map


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
    groups, cores = training.num_groups, training.cores
    for this in block_schedule.rounds(groups, training.num_episodes, training.epochs):
        for group in range(groups):
            own = block_schedule.parts_of(group, cores)
            others = block_schedule.parts_of(block_schedule.output_part(group, this, groups), cores)
            of_episode = streams[this.episode]
            train_group(
                training,
                this,
                group,
                [inputs[part] for part in own],
                [outputs[part] for part in others],
                [of_episode[part] for part in own],
                [of_episode[part] for part in others],
                [counts[part] for part in others],
            )
    vectors = np.empty((training.num_nodes, training.dimensions), np.float32)
    for part in parts:
        vectors[training.ids_of(part)] = inputs[part]
    return vectors
