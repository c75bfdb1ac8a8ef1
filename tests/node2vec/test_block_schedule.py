from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node2vec import block_schedule
from node2vec.block_schedule import Round
from node2vec.jit import jit

PARTS = st.integers(1, 20)
EPISODES = st.integers(1, 20)


@given(st.integers(0, 500), PARTS)
def test_the_snake_is_a_bijection(num_nodes: int, num_parts: int) -> None:
    ids = np.arange(num_nodes)
    parts, rows = block_schedule.part_of(ids, num_parts), block_schedule.row_of(ids, num_parts)
    for part in range(num_parts):
        size = block_schedule.part_size(num_nodes, part, num_parts)
        assert rows[parts == part].tolist() == list(range(size))  # no gaps: a table has no other rows
        assert block_schedule.id_of(part, np.arange(size), num_parts).tolist() == ids[parts == part].tolist()
    assert sum(block_schedule.part_size(num_nodes, part, num_parts) for part in range(num_parts)) == num_nodes


def test_the_snake_goes_to_and_fro() -> None:
    assert block_schedule.part_of(np.arange(12), 3).tolist() == [0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0]
    assert block_schedule.row_of(np.arange(7), 3).tolist() == [0, 0, 0, 1, 1, 1, 2]


@jit
def in_a_kernel(node: Any, num_parts: Any) -> Any:
    part, row = block_schedule.part_of(node, num_parts), block_schedule.row_of(node, num_parts)
    return part, row, block_schedule.id_of(part, row, num_parts)


@given(st.integers(0, 2**31 - 1), st.integers(1, 2**31 - 1))
def test_numbers_arrays_and_kernels_agree(node: int, num_parts: int) -> None:
    part, row = block_schedule.part_of(node, num_parts), block_schedule.row_of(node, num_parts)
    assert block_schedule.id_of(part, row, num_parts) == node
    assert in_a_kernel(node, num_parts) == (part, row, node)
    array = np.array([node])
    assert block_schedule.part_of(array, num_parts).tolist() == [part]
    assert block_schedule.row_of(array, num_parts).tolist() == [row]
    assert block_schedule.id_of(part, np.array([row]), num_parts).tolist() == [node]


def test_parts_of_falling_frequencies_weigh_alike() -> None:
    frequencies = 1e6 / np.arange(1, 4001) ** 0.6
    ids = np.arange(len(frequencies))
    for num_parts in (2, 4, 8, 16):
        snake = np.bincount(block_schedule.part_of(ids, num_parts), frequencies)
        stripe = np.bincount(ids % num_parts, frequencies)
        assert np.ptp(snake) < 0.9 * np.ptp(stripe)
        assert snake.max() < 1.2 * snake.mean()


@given(PARTS, EPISODES, st.integers(0, 3), st.integers(0, 19), st.data())
def test_an_episode_has_every_block_once_and_a_round_no_part_twice(
    num_parts: int, num_episodes: int, epoch: int, episode: int, data: st.DataObject
) -> None:
    blocks = set()
    cores = data.draw(st.sampled_from([cores for cores in range(1, num_parts + 1) if num_parts % cores == 0]))
    for turn in range(num_parts):
        number = (epoch * num_episodes + episode % num_episodes) * num_parts + turn
        this = block_schedule.round_at(number, num_parts, num_episodes)
        assert this == Round(number, epoch, episode % num_episodes, turn)
        others = [block_schedule.output_part(task, this, num_parts, cores) for task in range(num_parts)]
        assert sorted(others) == list(range(num_parts))
        assert [block_schedule.holder(other, this, num_parts, cores) for other in others] == list(range(num_parts))
        blocks.update(enumerate(others))
    assert len(blocks) == num_parts**2


@given(PARTS, EPISODES, st.integers(0, 2000))
def test_tasks_of_one_core_play_the_rounds_as_they_are(num_parts: int, num_episodes: int, number: int) -> None:
    this = block_schedule.round_at(number, num_parts, num_episodes)
    assert block_schedule.fine_rounds(this, 1) == [this]
    for task in range(num_parts):
        assert block_schedule.output_part(task, this, num_parts) == (task + this.turn + this.episode) % num_parts


@given(st.integers(1, 5), st.integers(1, 4), EPISODES, st.integers(1, 3))
def test_a_group_meets_one_group_at_a_time_and_its_rounds_are_those_of_the_parts(
    num_groups: int, cores: int, num_episodes: int, epochs: int
) -> None:
    num_parts = num_groups * cores
    fine = []
    for this in block_schedule.rounds(num_groups, num_episodes, epochs):
        fine += block_schedule.fine_rounds(this, cores)
        for group in range(num_groups):
            met = block_schedule.parts_of(block_schedule.output_part(group, this, num_groups), cores)
            blocks = {
                (task, block_schedule.output_part(task, some, num_parts, cores))
                for some in block_schedule.fine_rounds(this, cores)
                for task in block_schedule.parts_of(group, cores)
            }
            assert blocks == {(task, other) for task in block_schedule.parts_of(group, cores) for other in met}
    assert fine == block_schedule.rounds(num_parts, num_episodes, epochs)


@given(PARTS, EPISODES, st.integers(0, 2000))
def test_an_output_part_is_sent_to_whoever_needs_it_next(num_parts: int, num_episodes: int, number: int) -> None:
    this, after = (block_schedule.round_at(n, num_parts, num_episodes) for n in (number, number + 1))
    for part in range(num_parts):
        to = block_schedule.next_holder(part, this, num_parts, num_episodes)
        assert block_schedule.output_part(to, after, num_parts) == part


def test_the_first_block_of_episodes_is_not_always_the_same() -> None:
    firsts = {block_schedule.output_part(0, block_schedule.round_at(4 * e, 4, 16), 4) for e in range(16)}
    assert firsts == {0, 1, 2, 3}


@given(PARTS, EPISODES, st.integers(0, 3))
def test_a_run_has_all_rounds_in_order(num_parts: int, num_episodes: int, epochs: int) -> None:
    found = block_schedule.rounds(num_parts, num_episodes, epochs)
    assert len(found) == block_schedule.num_rounds(num_parts, num_episodes, epochs)
    assert [(this.epoch, this.episode, this.turn) for this in found] == [
        (epoch, episode, turn)
        for epoch in range(epochs)
        for episode in range(num_episodes)
        for turn in range(num_parts)
    ]


@given(PARTS, EPISODES, st.integers(1, 3), st.floats(1e-4, 1.0), st.floats(0.0, 1.0))
def test_the_learning_rate_falls_without_a_jump(
    num_parts: int, num_episodes: int, epochs: int, alpha: float, share: float
) -> None:
    min_alpha = share * alpha
    all_rounds = block_schedule.rounds(num_parts, num_episodes, epochs)
    found = [block_schedule.rates(this, len(all_rounds), alpha, min_alpha) for this in all_rounds]
    assert found[0][0] == alpha
    assert found[-1][1] == min_alpha
    assert [last for _, last in found[:-1]] == [first for first, _ in found[1:]]
    falls = [first - last for first, last in found]
    assert falls == pytest.approx([(alpha - min_alpha) / len(all_rounds)] * len(all_rounds), abs=1e-12)


@pytest.mark.parametrize(
    ("num_nodes", "num_tokens", "slots", "parts"),
    [
        (1_999, 10**9, 8, 1),  # few nodes
        (10**6, 999_999, 8, 1),  # few tokens
        (2_000, 10**6, 8, 2),
        (10_312, 8_000_000, 2, 2),
        (10_312, 8_000_000, 64, 10),  # 1,000 nodes a part
        (10**7, 10**9, 64, 16),
        (10**7, 10**9, 1, 1),
        (10**7, 10**9, 0, 1),
    ],
)
def test_default_parts(num_nodes: int, num_tokens: int, slots: int, parts: int) -> None:
    assert block_schedule.default_parts(num_nodes, num_tokens, slots) == parts


@pytest.mark.parametrize(
    ("num_nodes", "num_parts", "executor_cores", "cores"),
    [
        (8 * 32_768, 8, 4, 4),
        (8 * 32_767, 8, 4, 1),  # 16 MB a part at 128 dimensions
        (10**7, 8, 3, 2),  # a divisor of the parts
        (10**7, 7, 4, 1),
        (10**7, 4, 16, 4),
        (10**7, 4, 0, 1),
    ],
)
def test_default_cores(num_nodes: int, num_parts: int, executor_cores: int, cores: int) -> None:
    assert block_schedule.default_cores(num_nodes, 128, num_parts, executor_cores) == cores


def test_default_episodes() -> None:
    assert [block_schedule.default_episodes(parts) for parts in (1, 2, 7, 8, 16)] == [1, 16, 16, 32, 32]


@given(st.integers(0, 300), EPISODES)
def test_episodes_deal_out_the_walks(num_walks: int, num_episodes: int) -> None:
    dealt = [block_schedule.walks_of(episode, num_walks, num_episodes) for episode in range(num_episodes)]
    of_walks = block_schedule.episode_of(np.arange(num_walks), num_episodes)
    for episode, walks in enumerate(dealt):
        assert walks.dtype == np.int64
        assert walks.tolist() == np.flatnonzero(of_walks == episode).tolist()
    assert sum(map(len, dealt)) == num_walks


@given(st.integers(0, 2**62), EPISODES)
def test_kernels_deal_alike(walk: int, num_episodes: int) -> None:
    episode = int(block_schedule.episode_of_walk(walk, num_episodes))
    assert int(block_schedule.episode_of(walk, num_episodes)) == episode
    assert block_schedule.episode_of([[walk]], num_episodes).tolist() == [[episode]]
    assert 0 <= episode < num_episodes


def test_an_episode_is_a_random_sample_of_the_walks() -> None:
    """Chi-squared: of all walks, and of every seventh, which may all begin at one node."""
    for walks in (np.arange(16_000), np.arange(0, 16_000 * 7, 7)):
        counts = np.bincount(block_schedule.episode_of(walks, 16), minlength=16)
        assert ((counts - 1000) ** 2 / 1000).sum() < 45  # 15 degrees of freedom: once in 13,000
    both = np.bincount(16 * block_schedule.episode_of(np.arange(15_999), 16) + block_schedule.episode_of(
        np.arange(1, 16_000), 16
    ), minlength=256)  # fmt: skip
    assert ((both - 62.5) ** 2 / 62.5).sum() < 360  # 255 degrees of freedom


def test_the_deal_does_not_drift() -> None:
    """A corpus that was prepared by another version is read with this one's walk numbers."""
    assert block_schedule.episode_of(np.arange(12), 16).tolist() == [15, 4, 15, 12, 11, 10, 1, 12, 3, 6, 9, 6]
