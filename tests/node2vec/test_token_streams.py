from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node2vec import block_schedule, token_streams
from node2vec.token_streams import ALWAYS, Stream
from sparkdl.errors import ConfigError

Walks = list[list[int]]

NUM_NODES = 40
WALKS = st.lists(st.lists(st.integers(0, NUM_NODES - 1), max_size=12), max_size=25)
PARTS = st.integers(1, 9)
EPISODES = st.integers(1, 5)
FIRST = st.one_of(st.just(0), st.integers(0, 2**40))


def arrays(walks: Walks) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(len(walks) + 1, np.int64)
    np.cumsum([len(walk) for walk in walks], out=offsets[1:])
    return np.array([node for walk in walks for node in walk], np.int32), offsets


def streams_of(walks: Walks, first: int, parts: int, episodes: int, **options: Any) -> list[list[Stream]]:
    options = {"num_nodes": NUM_NODES, **options}
    return token_streams.streams(*arrays(walks), first, parts, episodes, **options)


def by_hand(walks: Walks, first: int, parts: int, episodes: int) -> list[list[tuple[list[int], ...]]]:
    """The streams, as their definition says."""
    made: list[list[tuple[list[int], ...]]] = [[([], [], []) for _ in range(parts)] for _ in range(episodes)]
    for number, walk in enumerate(walks, first):
        for part, (counts, positions, rows) in enumerate(made[block_schedule.episode_of(number, episodes)]):
            own = [place for place, node in enumerate(walk) if block_schedule.part_of(node, parts) == part]
            counts.append(len(own))
            positions.extend(own)
            rows.extend(block_schedule.row_of(walk[place], parts) for place in own)
    return made


def lists(made: list[list[Stream]]) -> list[list[tuple[list[int], ...]]]:
    return [[tuple(array.tolist() for array in stream) for stream in of_episode] for of_episode in made]


def same(a: Stream, b: Stream) -> bool:
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def walks_in(streams: list[Stream], num_parts: int) -> Walks:
    """The walks of an episode, put together again from the streams of all parts."""
    places = [np.concatenate([[0], np.cumsum(stream.counts, dtype=np.int64)]) for stream in streams]
    found = []
    for walk in range(len(streams[0].counts)):
        tokens = {}
        for part, stream in enumerate(streams):
            own = slice(places[part][walk], places[part][walk + 1])
            ids = block_schedule.id_of(part, stream.rows[own].astype(np.int64), num_parts)
            for position, node in zip(stream.positions[own].tolist(), ids.tolist(), strict=True):
                assert position not in tokens
                tokens[position] = node
        assert sorted(tokens) == list(range(len(tokens)))
        found.append([tokens[position] for position in range(len(tokens))])
    return found


@given(WALKS, FIRST, PARTS, EPISODES)
def test_streams_are_what_their_definition_says(walks: Walks, first: int, parts: int, episodes: int) -> None:
    made = streams_of(walks, first, parts, episodes)
    assert lists(made) == by_hand(walks, first, parts, episodes)
    for stream in (stream for of_episode in made for stream in of_episode):
        assert [array.dtype for array in stream] == [np.uint8, np.uint8, np.int32]
        assert not any(array.flags.writeable for array in stream)


@given(WALKS, PARTS, EPISODES)
def test_every_token_is_there_once(walks: Walks, parts: int, episodes: int) -> None:
    made = streams_of(walks, 0, parts, episodes)
    for episode in range(episodes):
        numbers = block_schedule.walks_of(episode, len(walks), episodes)
        assert walks_in(made[episode], parts) == [walks[number] for number in numbers]


@given(
    WALKS,
    st.lists(st.integers(0, 25), max_size=4),
    FIRST,
    PARTS,
    EPISODES,
    st.none() | st.lists(st.sampled_from([0, 2**30, 2**31, ALWAYS]), min_size=NUM_NODES, max_size=NUM_NODES),
    st.sets(st.integers(0, 24), max_size=2),
)
def test_the_cut_into_files_changes_nothing(
    walks: Walks, cuts: list[int], first: int, parts: int, episodes: int, keep: list[int] | None, long: set[int]
) -> None:
    walks = [walk * (1 + 300 * (number in long)) for number, walk in enumerate(walks)]  # these need 16 bits
    thresholds = None if keep is None else np.array(keep, np.uint32)
    whole = streams_of(walks, first, parts, episodes, keep=thresholds, seed=7)
    borders = sorted({0, len(walks), *(min(cut, len(walks)) for cut in cuts)}) or [0]
    pieces = [
        streams_of(walks[start:stop], first + start, parts, episodes, keep=thresholds, seed=7)
        for start, stop in zip(borders, borders[1:] or borders, strict=False)
    ]
    for episode in range(episodes):
        for part in range(parts):
            assert same(token_streams.joined([piece[episode][part] for piece in pieces]), whole[episode][part])


def test_a_slice_of_a_longer_array() -> None:
    """As Arrow has it: offsets into values that begin before the first walk."""
    nodes, offsets = np.arange(20, dtype=np.int32), np.array([5, 9, 9, 12])
    made = token_streams.streams(nodes, offsets, 3, 2, 2, num_nodes=20)
    assert lists(made) == by_hand([[5, 6, 7, 8], [], [9, 10, 11]], 3, 2, 2)


@given(st.lists(st.integers(0, 2**31 - 2), min_size=1, max_size=50), st.integers(1, 3000))
def test_large_ids_are_divided_exactly(ids: list[int], parts: int) -> None:
    ids += [node // parts * parts for node in ids] + [max(node // parts * parts - 1, 0) for node in ids]
    made = streams_of([ids], 0, parts, 1, num_nodes=2**31 - 1)
    assert walks_in(made[0], parts) == [ids]


@pytest.mark.parametrize(("length", "kind"), [(255, np.uint8), (256, np.uint16), (65_535, np.uint16)])
def test_long_walks_take_two_bytes(length: int, kind: type) -> None:
    walk = [number % NUM_NODES for number in range(length)]
    made = streams_of([[1], walk], 0, 1, 1)[0][0]
    assert (made.counts.dtype, made.positions.dtype) == (kind, kind)
    assert made.counts.tolist() == [1, length]
    assert made.positions.tolist() == [0, *range(length)]


def test_walks_that_are_too_long() -> None:
    with pytest.raises(ConfigError, match=r"a walk has 65536 nodes, .* at most 65535 nodes fit. Cut it"):
        streams_of([[1], [0] * 65_536], 0, 2, 1)


@pytest.mark.parametrize("wrong", [-1, NUM_NODES])
def test_ids_of_another_graph(wrong: int) -> None:
    with pytest.raises(ConfigError, match=f"hold node number {wrong}, and the numbers go from 0 to 39"):
        streams_of([[1, 2], [3, wrong, 4]], 0, 2, 1)
    with pytest.raises(ConfigError, match=f"hold node number {wrong}"):
        token_streams.count_tokens(np.array([0, wrong], np.int32), NUM_NODES)


def test_dropped_tokens_move_the_rest_together() -> None:
    keep = np.full(NUM_NODES, ALWAYS, np.uint32)
    keep[[3, 5]] = 0
    made = streams_of([[3, 1, 5, 2], [5, 3], [4, 4, 3, 4]], 0, 2, 1, keep=keep)
    assert lists(made) == by_hand([[1, 2], [], [4, 4, 4]], 0, 2, 1)


def test_tokens_stay_as_often_as_their_threshold_says() -> None:
    keep = np.array([0.0, 0.1, 0.5, 0.9]) * 2**32
    walks = [[0, 1, 2, 3] * 20 for _ in range(500)]
    kept = {}
    for seed in (1, 2):
        (stream,) = streams_of(walks, 0, 1, 1, keep=keep.astype(np.uint32), seed=seed, num_nodes=4)[0]
        counts = token_streams.count_tokens(stream.rows, 4)
        for count, probability in zip(counts.tolist(), (0.0, 0.1, 0.5, 0.9), strict=True):
            assert abs(count - 10_000 * probability) <= 5 * math.sqrt(10_000 * probability * (1 - probability))
        kept[seed] = stream
    assert not np.array_equal(kept[1].counts, kept[2].counts)
    assert len(np.unique(kept[1].counts)) > 10  # walks that are alike lose different tokens


def word2vec_keeps(count: int, sample: float, train_words: int) -> float:
    """word2vec.c, line for line: ``ran``, above which nothing is discarded."""
    ran = (math.sqrt(count / (sample * train_words)) + 1) * (sample * train_words) / count
    return min(ran, 1.0)


@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=20),
    st.integers(0, 1000),
    st.sampled_from([0, 1e-5, 1e-3, 0.5]),
)
def test_thresholds_are_word2vecs(counts: list[int], min_count: int, sample: float) -> None:
    found = token_streams.keep_thresholds(np.array(counts), min_count, sample)
    retained = sum(count for count in counts if count >= min_count)
    if found is None:
        assert sample == 0
        assert min_count <= 1
        return
    assert found.dtype == np.uint32
    for count, threshold in zip(counts, found.tolist(), strict=True):
        if count < min_count:
            assert threshold == 0
        elif sample == 0:
            assert threshold == ALWAYS
        elif count > 0:
            wanted = word2vec_keeps(count, sample, retained)
            assert threshold == ALWAYS if wanted == 1 else threshold == pytest.approx(wanted * 2**32, abs=1)
    again = token_streams.keep_thresholds(np.array(counts[:1]), min_count, sample, total=retained)
    assert again is not None
    assert again.tolist() == found[:1].tolist()  # of some ids, given the total of all


@pytest.mark.parametrize(
    ("min_count", "sample", "text"), [(0, 1.0, "sample=1.0"), (0, -0.1, "sample=-0.1"), (-1, 0.0, "min_count=-1")]
)
def test_thresholds_of_wrong_settings(min_count: int, sample: float, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        token_streams.keep_thresholds(np.array([1]), min_count, sample)


@given(st.lists(st.integers(0, 9), max_size=50))
def test_counts(ids: list[int]) -> None:
    counts = token_streams.count_tokens(np.array(ids, np.int32), 10)
    assert counts.dtype == np.int64
    assert counts.tolist() == [ids.count(node) for node in range(10)]


@given(WALKS, st.booleans(), PARTS, EPISODES)
def test_bytes_and_back(walks: Walks, long: bool, parts: int, episodes: int) -> None:
    walks = walks + [[1] * 256] * long
    for stream in (stream for of_episode in streams_of(walks, 0, parts, episodes) for stream in of_episode):
        buffers = token_streams.to_bytes(stream)
        assert sum(map(len, buffers)) % 8 == 0
        content = b"".join(buffers)
        found = token_streams.from_bytes(content)
        assert same(found, stream)
        assert not any(array.flags.writeable for array in found)
        assert all(array.ctypes.data % 8 == np.frombuffer(content, np.uint8).ctypes.data % 8 for array in found)
        assert all(np.shares_memory(array, np.frombuffer(content, np.uint8)) for array in found if len(array))


def test_no_pieces_and_no_walks() -> None:
    nothing = token_streams.joined([])
    assert [len(array) for array in nothing] == [0, 0, 0]
    assert same(token_streams.from_bytes(b"".join(token_streams.to_bytes(nothing))), nothing)
    assert same(streams_of([], 0, 2, 3)[2][1], nothing)


def test_bytes_that_are_no_stream() -> None:
    content = b"".join(token_streams.to_bytes(streams_of([[1, 2, 3]], 0, 1, 1)[0][0]))
    for wrong in (b"", content[:31], b"x" * 64, content[8:]):
        with pytest.raises(ConfigError, match="a file holds no stream of tokens"):
            token_streams.from_bytes(wrong, "a file")
    for wrong in (content[:-8], content + bytes(8)):
        with pytest.raises(ConfigError, match=f"a file should have {len(content)} bytes and has {len(wrong)}"):
            token_streams.from_bytes(wrong, "a file")
