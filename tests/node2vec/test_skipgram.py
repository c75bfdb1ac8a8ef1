from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node2vec import block_schedule, skipgram
from node2vec.skipgram import Sgns
from node2vec.token_streams import Stream
from sparkdl.errors import ConfigError
from tests.node2vec.plain_skipgram import Walks, negatives, plain, random_walks, reach, streams_of

WALKS = st.lists(st.lists(st.integers(0, 11), max_size=15), min_size=1, max_size=8)
SEEDS = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize("dimensions", [1, 5, 16, 37, 128])
@pytest.mark.parametrize("keep", [1, 2, 8, 50])
@pytest.mark.parametrize("num_parts", [1, 3])
def test_kernels_do_what_the_plain_program_does(dimensions: int, keep: int, num_parts: int) -> None:
    streams = streams_of(random_walks(12, 30, 40), num_parts, 40)
    walks = np.arange(12) * 2**33
    sgns = Sgns(4, 5, keep, np.uint64(2**63 + 5))
    rng = np.random.default_rng(dimensions)
    for own in range(num_parts):
        for other in range(num_parts):
            shapes = [(block_schedule.part_size(40, part, num_parts), dimensions) for part in (own, other)]
            tables = [rng.normal(0, dimensions**-0.5, shape) for shape in shapes]
            made = [table.astype(np.float32) for table in tables]
            noise = skipgram.noise_of(np.bincount(streams[other].rows, minlength=shapes[1][0]))
            call = (noise, streams[own], streams[other], walks, sgns, 3, 7, own)
            count = skipgram.train_block(*made, *call, own == other, 0.05, 0.01)
            assert count == plain(*tables, *call, 0.05, 0.01) > 50
            for wanted, array in zip(tables, made, strict=True):
                np.testing.assert_allclose(array, wanted, rtol=0, atol=2e-4)


@settings(deadline=None, max_examples=60)
@given(WALKS, st.integers(1, 6), st.integers(0, 9), st.integers(1, 9), SEEDS, st.integers(1, 4))
def test_any_small_corpus(walks: Walks, window: int, negative: int, keep: int, seed: int, num_parts: int) -> None:
    streams = streams_of(walks, num_parts)
    sgns = Sgns(window, negative, keep, np.uint64(seed))
    numbers = np.arange(len(walks))
    for own in range(num_parts):
        for other in range(num_parts):
            tables = [
                np.random.default_rng(part).normal(0, 0.5, (block_schedule.part_size(12, part, num_parts), 3))
                for part in (own, other)
            ]
            made = [table.astype(np.float32) for table in tables]
            noise = skipgram.noise_of(np.bincount(streams[other].rows, minlength=len(tables[1])))
            call = (noise, streams[own], streams[other], numbers, sgns, 0, 1, own)
            count = skipgram.train_block(*made, *call, own == other, 0.05, 0.05)
            assert count == plain(*tables, *call, 0.05, 0.05)
            for wanted, array in zip(tables, made, strict=True):
                np.testing.assert_allclose(array, wanted, rtol=0, atol=2e-4)


@settings(deadline=None)
@given(WALKS, st.integers(1, 20), SEEDS, st.integers(0, 3), st.integers(1, 5))
def test_pairs_are_those_of_the_window_whatever_the_parts(
    walks: Walks, window: int, seed: int, epoch: int, num_parts: int
) -> None:
    sgns = Sgns(window, 5, 8, np.uint64(seed))
    wanted = Counter(
        (centre, context)
        for number, walk in enumerate(walks)
        for position, centre in enumerate(walk)
        for where, context in enumerate(walk)
        if 0 < abs(where - position) <= reach(sgns, epoch, number, position)
    )
    streams = streams_of(walks, num_parts)
    made: Counter[tuple[int, int]] = Counter()
    for own, centres in enumerate(streams):
        for other, contexts in enumerate(streams):
            found = skipgram.pairs(centres, contexts, np.arange(len(walks)), sgns, epoch, own == other)
            assert found.dtype == np.int32
            ids = [block_schedule.id_of(part, found[:, k], num_parts) for k, part in enumerate((own, other))]
            made.update(zip(ids[0].tolist(), ids[1].tolist(), strict=True))
    assert made == wanted


@pytest.mark.parametrize("exponent", [0.75, 0.0, 1.0, -0.5])
def test_negatives_are_drawn_by_the_power_of_their_counts(exponent: float) -> None:
    counts = np.array([1000, 0, 300, 1, 50, 0, 7, 10**6])
    noise = skipgram.noise_of(counts, exponent)
    sgns = Sgns(5, 4, 1, np.uint64(9))
    drawn = [negatives(sgns, noise, 3, 2, walk, position, 9) for walk in range(250) for position in range(40)]
    observed = np.bincount(np.ravel(drawn), minlength=8)
    shares = np.where(counts > 0, np.maximum(counts, 1.0) ** exponent, 0.0)
    wanted = shares / shares.sum() * observed.sum()
    assert observed[counts == 0].sum() == 0
    large = wanted > 5
    rest = [observed[~large].sum()], [wanted[~large].sum() + 1e-9]
    observed, wanted = (np.append(a[large], b) for a, b in zip((observed, wanted), rest, strict=True))
    assert ((observed - wanted) ** 2 / np.maximum(wanted, 1)).sum() < 30  # 99.9 % of chi-squared(10)


@pytest.mark.parametrize("counts", [[], [0], [0, 0, 0]])
def test_a_part_without_tokens_has_a_table_that_nobody_asks(counts: list[int]) -> None:
    noise = skipgram.noise_of(counts)
    assert len(noise.cuts) == len(noise.others) == len(counts)


def test_counts_and_exponents_of_any_size() -> None:
    noise = skipgram.noise_of([2**60, 2**61], 1000.0)
    assert noise.cuts.tolist()[0] == 0
    with pytest.raises(ConfigError, match="ns_exponent=nan is no exponent of counts"):
        skipgram.noise_of([1, 2], float("nan"))


@pytest.mark.parametrize("keep", [1, 8])
def test_a_negative_that_is_the_context_is_left_out(keep: int) -> None:
    streams = streams_of([[0, 0, 0, 0, 0]], 1, 1)
    made = []
    for negative in (0, 5):
        tables = [np.full((1, 6), value, np.float32) for value in (0.3, -0.2)]
        sgns = Sgns(3, negative, keep, np.uint64(0))
        skipgram.train_block(*tables, skipgram.noise_of([5]), *streams * 2, np.arange(1), sgns, 0, 0, 0, True, 0.1, 0.1)
        made.append(np.concatenate(tables))
    assert made[0].tolist() == made[1].tolist()
    assert (made[0][1] > -0.2).all()  # pulled towards its own input row, and pushed by nothing


def test_the_rate_falls_over_the_walks() -> None:
    walks = [[2 * k, 2 * k + 1] for k in range(10)]
    (stream,) = streams_of(walks, 1, 20)
    inputs, outputs = np.zeros((20, 4), np.float32), np.ones((20, 4), np.float32)
    sgns = Sgns(1, 0, 1, np.uint64(0))
    count = skipgram.train_block(
        inputs, outputs, skipgram.noise_of(np.ones(20)), stream, stream, np.arange(10), sgns, 0, 0, 0, True, 0.4, 0.2
    )
    assert count == 20
    wanted = np.repeat(0.4 - 0.02 * np.arange(10), 2) / 2  # sigmoid(0) = 1/2
    np.testing.assert_allclose(inputs, np.repeat(wanted[:, None], 4, axis=1), rtol=1e-6)


@pytest.mark.parametrize("keep", [1, 8])
def test_the_same_call_gives_the_same_bits_and_takes_mapped_arrays(keep: int, tmp_path: Path) -> None:
    (stream,) = streams_of(random_walks(40, 300, 50), 1, 50)
    assert stream.positions.dtype == np.uint16
    noise = skipgram.noise_of(np.bincount(stream.rows, minlength=50))

    def trained(stream: Stream) -> bytes:
        inputs, outputs = skipgram.initial_inputs(50, 24, 1, 0, 1), np.zeros((50, 24), np.float32)
        sgns = Sgns(10, 5, keep, np.uint64(1))
        skipgram.train_block(inputs, outputs, noise, stream, stream, np.arange(40), sgns, 0, 0, 0, True, 0.025, 0.0001)
        return inputs.tobytes() + outputs.tobytes()

    once = trained(stream)
    for name, array in zip(stream._fields, stream, strict=True):
        array.tofile(tmp_path / name)
    mapped = Stream(*(np.memmap(tmp_path / name, a.dtype, "r") for name, a in zip(stream._fields, stream, strict=True)))
    assert once == trained(stream) == trained(mapped) == trained(Stream(*(array.copy() for array in stream)))


def test_what_a_walk_draws_does_not_depend_on_the_walks_before_it() -> None:
    walks = random_walks(20, 30, 50)
    tables = []
    for cuts in ([0, 20], [0, 7, 8, 20]):
        inputs, outputs = skipgram.initial_inputs(50, 8, 1, 0, 1), np.zeros((50, 8), np.float32)
        for start, stop in pairwise(cuts):
            (stream,) = streams_of(walks[start:stop], 1, 50)
            noise, sgns = skipgram.noise_of(np.ones(50)), Sgns(5, 5, 1, np.uint64(1))
            skipgram.train_block(
                inputs, outputs, noise, stream, stream, np.arange(start, stop), sgns, 0, 0, 0, True, 0.1, 0.1
            )
        tables.append(inputs.tobytes() + outputs.tobytes())
    assert tables[0] == tables[1]


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 7), SEEDS)
def test_first_rows_do_not_depend_on_the_parts(num_nodes: int, dimensions: int, num_parts: int, seed: int) -> None:
    whole = skipgram.initial_inputs(num_nodes, dimensions, seed, 0, 1)
    assert whole.shape == (num_nodes, dimensions)
    assert whole.dtype == np.float32
    assert np.abs(whole).max() <= 1.0 / dimensions
    for part in range(num_parts):
        rows = skipgram.initial_inputs(num_nodes, dimensions, seed, part, num_parts)
        ids = block_schedule.id_of(part, np.arange(len(rows)), num_parts)
        assert rows.tolist() == whole[ids].tolist()


def test_first_rows_are_uniform_and_hang_on_the_seed() -> None:
    rows = skipgram.initial_inputs(2000, 10, 1, 0, 1) * 10
    assert np.histogram(rows, 20, (-1.0, 1.0))[0] == pytest.approx(np.full(20, 1000), rel=0.15)
    assert len(np.unique(rows)) > 19_900
    assert np.abs(np.corrcoef(rows.T) - np.eye(10)).max() < 0.1
    assert not (rows == skipgram.initial_inputs(2000, 10, 2, 0, 1) * 10).any()
