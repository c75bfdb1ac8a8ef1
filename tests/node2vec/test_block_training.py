from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node2vec import block_schedule, block_training, skipgram, token_streams
from node2vec.block_training import Training
from node2vec.skipgram import Sgns
from node2vec.token_streams import Stream

NUM_NODES = 30
CUTS = [(1, 1), (1, 4), (2, 1), (2, 4), (3, 2), (4, 16), (7, 3)]
CORES = [(2, 2), (4, 2), (4, 4), (6, 3)]  # parts, cores


class Corpus(NamedTuple):
    streams: list[list[Stream]]
    counts: list[np.ndarray]


def random_walks(num_walks: int = 60, seed: int = 0) -> list[np.ndarray]:
    """Two circles of nodes, and walks that stay in one of them; some are empty or of one node."""
    rng = np.random.default_rng(seed)
    walks = []
    for number in range(num_walks):
        length = (0, 1, 20)[min(number, 2)]
        steps = rng.integers(-2, 3, length).cumsum() + rng.integers(NUM_NODES)
        walks.append(2 * (steps % (NUM_NODES // 2)) + number % 2)
    return [walk.astype(np.int32) for walk in walks]


def corpus(walks: list[np.ndarray], num_parts: int, num_episodes: int, num_files: int = 1) -> Corpus:
    """Read in as many files."""
    borders = [len(walks) * i // num_files for i in range(num_files + 1)]
    pieces = []
    for start, stop in pairwise(borders):
        offsets = np.concatenate([[0], np.cumsum([len(walk) for walk in walks[start:stop]])]).astype(np.int64)
        nodes = np.concatenate([np.empty(0, np.int32), *walks[start:stop]])
        pieces.append(token_streams.streams(nodes, offsets, start, num_parts, num_episodes, num_nodes=NUM_NODES))
    streams = [
        [token_streams.joined([piece[episode][part] for piece in pieces]) for part in range(num_parts)]
        for episode in range(num_episodes)
    ]
    counts = []
    for part in range(num_parts):
        size = block_schedule.part_size(NUM_NODES, part, num_parts)
        rows = np.concatenate([of_episode[part].rows for of_episode in streams])
        counts.append(token_streams.count_tokens(rows, size))
    return Corpus(streams, counts)


def training(num_parts: int, num_episodes: int, num_walks: int = 60, **changes: Any) -> Training:
    values = {
        "dimensions": 8, "window": 4, "negative": 3, "keep": 8, "ns_exponent": 0.75, "alpha": 0.05, "min_alpha": 0.001,
        "epochs": 1, "seed": 5, "num_nodes": NUM_NODES, **changes,
    }  # fmt: skip
    return Training(num_parts=num_parts, num_episodes=num_episodes, num_walks=num_walks, **values)


class Played(NamedTuple):
    inputs: list[np.ndarray]
    num_pairs: int


def played(run: Training, data: Corpus, order: int) -> Played:
    """All rounds by hand, the tasks of a round in ascending (1) or descending (-1) order."""
    parts = list(range(run.num_parts))
    inputs = [skipgram.initial_inputs(run.num_nodes, run.dimensions, run.seed, part, run.num_parts) for part in parts]
    outputs = [np.zeros_like(rows) for rows in inputs]
    num_pairs = 0
    for this in block_schedule.rounds(run.num_parts, run.num_episodes, run.epochs):
        for task in parts[::order]:
            other = block_schedule.output_part(task, this, run.num_parts, run.cores)
            of_episode = data.streams[this.episode]
            num_pairs += block_training.train_round(
                run, this, task, inputs[task], outputs[other], of_episode[task], of_episode[other], data.counts[other]
            )
    return Played(inputs, num_pairs)


@pytest.mark.parametrize("keep", [1, 8])
def test_one_part_is_one_call_of_the_kernel(keep: int) -> None:
    walks = random_walks()
    data, run = corpus(walks, 1, 1), training(1, 1, keep=keep)
    (stream,), (counts,) = data.streams[0], data.counts
    inputs = skipgram.initial_inputs(NUM_NODES, 8, 5, 0, 1)
    start = inputs.copy()
    outputs = np.zeros_like(inputs)
    sgns = Sgns(window=4, negative=3, keep=keep, seed=np.uint64(5))
    num_pairs = skipgram.train_block(
        inputs, outputs, skipgram.noise_of(counts, 0.75), stream, stream, np.arange(60), sgns,
        epoch=0, round_number=0, input_part=0, same_part=True, first_rate=0.05, last_rate=0.001,
    )  # fmt: skip
    assert num_pairs > 1000
    found = block_training.train(run, data.streams, data.counts)
    assert (found.dtype, found.shape) == (np.float32, (NUM_NODES, 8))
    assert found.tobytes() == inputs.tobytes()
    assert np.abs(found - start).max() > 0.01


@pytest.mark.parametrize(("num_parts", "num_episodes"), CUTS)
def test_every_pair_is_trained_once_whatever_the_cut(num_parts: int, num_episodes: int) -> None:
    """As pairs of ids, over all rounds of two epochs; and as many as `train_round` counts."""

    def pairs_of(run: Training) -> tuple[Counter[tuple[int, int, int]], int]:
        data = corpus(walks, run.num_parts, run.num_episodes)
        sgns = Sgns(run.window, run.negative, run.keep, np.uint64(run.seed))
        found: Counter[tuple[int, int, int]] = Counter()
        for this in block_schedule.rounds(run.num_parts, run.num_episodes, run.epochs):
            numbers = block_schedule.walks_of(this.episode, run.num_walks, run.num_episodes)
            for task in range(run.num_parts):
                other = block_schedule.output_part(task, this, run.num_parts)
                streams = data.streams[this.episode]
                rows = skipgram.pairs(streams[task], streams[other], numbers, sgns, this.epoch, task == other)
                centres, contexts = run.ids_of(task)[rows[:, 0]], run.ids_of(other)[rows[:, 1]]
                epochs = np.full(len(rows), this.epoch)
                found.update(zip(epochs.tolist(), centres.tolist(), contexts.tolist(), strict=True))
        return found, played(run, data, 1).num_pairs

    walks = random_walks()
    wanted, num_wanted = pairs_of(training(1, 1, epochs=2))
    found, num_found = pairs_of(training(num_parts, num_episodes, epochs=2))
    assert found == wanted
    assert num_found == num_wanted == wanted.total()
    assert len({epoch for epoch, _, _ in wanted}) == 2


@pytest.mark.parametrize(("num_parts", "cores"), CORES)
def test_groups_train_the_blocks_of_all_rounds_on_any_number_of_threads(num_parts: int, cores: int) -> None:
    data = corpus(random_walks(), num_parts, 3)
    run = training(num_parts, 3, cores=cores, epochs=2)
    wanted = played(run, data, -1)
    parts = range(num_parts)
    for threads in (1, 2, 5):
        inputs = [skipgram.initial_inputs(NUM_NODES, 8, 5, part, num_parts) for part in parts]
        outputs = [np.zeros_like(rows) for rows in inputs]
        num_pairs = 0
        for this in block_schedule.rounds(run.num_groups, 3, 2):
            for group in range(run.num_groups):
                own = block_schedule.parts_of(group, cores)
                met = block_schedule.parts_of(block_schedule.output_part(group, this, run.num_groups), cores)
                streams = data.streams[this.episode]
                arrays = [[some[part] for part in of] for some, of in (
                    (inputs, own), (outputs, met), (streams, own), (streams, met), (data.counts, met))]  # fmt: skip
                num_pairs += block_training.train_group(run, this, group, *arrays, threads)
        assert num_pairs == wanted.num_pairs
        assert [rows.tobytes() for rows in inputs] == [rows.tobytes() for rows in wanted.inputs]
    vectors = block_training.train(run, data.streams, data.counts)
    assert all(vectors[run.ids_of(part)].tobytes() == wanted.inputs[part].tobytes() for part in parts)
    one = block_training.train(run._replace(cores=1), data.streams, data.counts)
    assert num_parts == cores or one.tobytes() != vectors.tobytes()  # one group meets itself in the same order
    assert run.num_group_rounds * cores == run.num_rounds == 2 * 3 * num_parts


@pytest.mark.parametrize(("num_parts", "num_episodes"), CUTS)
def test_the_order_of_tasks_changes_no_bit(num_parts: int, num_episodes: int) -> None:
    data, run = corpus(random_walks(), num_parts, num_episodes), training(num_parts, num_episodes)
    vectors = block_training.train(run, data.streams, data.counts)
    for order in (1, -1):
        for part, inputs in enumerate(played(run, data, order).inputs):
            assert vectors[run.ids_of(part)].tobytes() == inputs.tobytes()


@settings(max_examples=20)
@given(st.sampled_from(CUTS), st.integers(2, 70), st.integers(0, 5))
def test_the_result_does_not_depend_on_the_files_of_walks(cut: tuple[int, int], num_files: int, seed: int) -> None:
    walks = random_walks(seed=seed)
    one, many = corpus(walks, *cut), corpus(walks, *cut, num_files=num_files)
    run = training(*cut, epochs=2)
    first = block_training.train(run, one.streams, one.counts)
    assert first.tobytes() == block_training.train(run, many.streams, many.counts).tobytes()


@pytest.mark.parametrize(
    "changes", [{"seed": 6}, {"epochs": 2}, {"window": 3}, {"negative": 4}, {"keep": 1}, {"ns_exponent": 0.0},
                {"alpha": 0.04}, {"min_alpha": 0.0}]
)  # fmt: skip
def test_every_setting_counts(changes: dict[str, Any]) -> None:
    data = corpus(random_walks(), 2, 2)
    found = [block_training.train(run, *data) for run in (training(2, 2), training(2, 2, **changes))]
    assert found[0].tobytes() != found[1].tobytes()


def test_a_run_may_begin_with_given_vectors() -> None:
    data, run = corpus(random_walks(), 3, 2), training(3, 2)
    init = np.empty((NUM_NODES, 8), np.float32)
    for part in range(3):
        init[run.ids_of(part)] = skipgram.initial_inputs(NUM_NODES, 8, 5, part, 3)
    before = init.copy()
    found = block_training.train(run, *data, init=init)
    assert found.tobytes() == block_training.train(run, *data).tobytes()
    assert init.tobytes() == before.tobytes()  # it is not trained in place
    assert block_training.train(run, *data, init=init + np.float32(0.1)).tobytes() != found.tobytes()


def test_what_a_task_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every round, its epoch, its walks, its rates, and whether its parts are one."""
    told = []

    def train_block(*arguments: Any, **named: Any) -> int:
        told.append((arguments, named))
        return 0

    monkeypatch.setattr(skipgram, "train_block", train_block)
    run = training(2, 2, epochs=2, alpha=1.0, min_alpha=0.0)
    data = corpus(random_walks(), 2, 2)
    block_training.train(run, *data)
    assert [named["round_number"] for _, named in told] == [n // 2 for n in range(16)]
    assert [named["input_part"] for _, named in told] == [0, 1] * 8
    assert [named["epoch"] for _, named in told] == [0] * 8 + [1] * 8
    # turn 0 of episode 0: the diagonal; turn 1: the other blocks; episode 1 begins with these
    assert [named["same_part"] for _, named in told] == [True, True, False, False, False, False, True, True] * 2
    assert [named["first_rate"] for _, named in told] == [1.0 - (n // 2) / 8 for n in range(16)]
    assert [named["last_rate"] for _, named in told] == [1.0 - (n // 2 + 1) / 8 for n in range(16)]
    for number, ((inputs, outputs, noise, centres, contexts, walks, sgns), named) in enumerate(told):
        episode = number // 4 % 2
        other = named["input_part"] if named["same_part"] else 1 - named["input_part"]
        assert walks.tolist() == block_schedule.walks_of(episode, 60, 2).tolist()
        assert centres is data.streams[episode][named["input_part"]]
        assert contexts is data.streams[episode][other]
        assert (len(inputs), len(outputs), len(noise.cuts)) == (15, 15, 15)
        assert noise.cuts.tolist() == skipgram.noise_of(data.counts[other], 0.75).cuts.tolist()
        assert sgns == Sgns(4, 3, 8, np.uint64(5))


def test_blocks_learn_what_one_block_learns() -> None:
    """Nodes of one circle come out more alike than nodes of both, and vectors as long as with one part, within 25 %."""
    lengths = []
    for cut in ((1, 1), (4, 16)):
        walks = random_walks(600)
        data = corpus(walks, *cut)
        vectors = block_training.train(training(*cut, num_walks=600, epochs=5), *data).astype(np.float64)
        norms = np.linalg.norm(vectors, axis=1)
        cosines = (vectors / norms[:, None]) @ (vectors / norms[:, None]).T
        same_circle = np.arange(NUM_NODES)[:, None] % 2 == np.arange(NUM_NODES) % 2
        assert cosines[same_circle].mean() > cosines[~same_circle].mean() + 0.45  # untrained vectors: 0
        lengths.append(norms.mean())
    assert lengths[1] == pytest.approx(lengths[0], rel=0.25)
