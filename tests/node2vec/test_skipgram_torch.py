from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from node2vec import block_schedule, pair_kernel, skipgram, skipgram_torch
from node2vec.counter_rng import GOLDEN, key, mix_numpy
from node2vec.pair_kernel import NEGATIVES
from node2vec.skipgram import Sgns
from tests.node2vec.plain_skipgram import Walks, random_walks, streams_of

WALKS = st.lists(st.lists(st.integers(0, 11), max_size=15), min_size=1, max_size=8)
SEEDS = st.integers(0, 2**64 - 1)
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")),
]


@pytest.mark.parametrize("device", DEVICES)
@settings(deadline=None, max_examples=50)
@given(WALKS, st.integers(1, 20), SEEDS, st.integers(1, 3))
def test_the_same_pairs_in_the_same_order(device: str, walks: Walks, window: int, seed: int, num_parts: int) -> None:
    sgns, numbers = Sgns(window, 5, 8, np.uint64(seed)), np.arange(len(walks)) * 2**40
    streams = streams_of(walks, num_parts)
    for own, centres in enumerate(streams):
        for other, contexts in enumerate(streams):
            call = (centres, contexts, numbers, sgns, 2, own == other)
            assert skipgram_torch.pairs(*call, device).tolist() == skipgram.pairs(*call).tolist()


def test_long_walks_and_runs_of_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    (stream,) = streams_of([*random_walks(30, 300, 50), []], 1, 50)
    call = (stream, stream, np.arange(31), Sgns(300, 5, 8, np.uint64(0)), 0, True)
    wanted = skipgram.pairs(*call).tolist()
    for most in (1 << 22, 50_000, 1):
        monkeypatch.setattr(skipgram_torch, "MEETINGS", most)
        assert skipgram_torch.pairs(*call).tolist() == wanted


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_negatives(device: str) -> None:
    noise = skipgram.noise_of(np.arange(50) ** 3)
    keys = mix_numpy(np.arange(300, dtype=np.uint64))
    drawn = skipgram_torch.negative_rows(torch.tensor(keys.view(np.int64), device=device), 7, noise)
    assert drawn.tolist() == [[pair_kernel.negative_row(key, k, *noise) for k in range(7)] for key in keys]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_parts", [1, 2])
def test_batches_of_one_pair_are_what_the_kernel_does(device: str, num_parts: int) -> None:
    streams = streams_of(random_walks(10, 20, 300), num_parts, 300)
    rng = np.random.default_rng(1)
    for own, other in ((0, 0), (0, num_parts - 1)):
        shapes = [(block_schedule.part_size(300, part, num_parts), 12) for part in (own, other)]
        tables = [rng.normal(0, 0.3, shape).astype(np.float32) for shape in shapes]
        made = [torch.tensor(table, device=device) for table in tables]
        noise = skipgram.noise_of(np.ones(shapes[1][0]))
        sgns = Sgns(4, 5, 1, np.uint64(3))
        call = (noise, streams[own], streams[other], np.arange(10), sgns, 1, 5, own, own == other, 0.01, 0.005)
        # a row that a pair draws twice takes both steps at once here: a difference of the square of the rate
        assert skipgram_torch.train_block(*made, *call, batch=1) == skipgram.train_block(*tables, *call) > 100
        for wanted, tensor in zip(tables, made, strict=True):
            np.testing.assert_allclose(tensor.cpu().numpy(), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("keep", "num_pairs"), [(8, 64), (8, 50), (40, 90), (1, 7)])
def test_a_batch_is_a_step_of_gradient_descent(keep: int, num_pairs: int) -> None:
    rng = np.random.default_rng(num_pairs)
    walks = [[2 * k, 2 * k + 1] for k in range(num_pairs // 2)] + ([[0, 1]] if num_pairs % 2 else [])
    (stream,) = streams_of(walks, 1, 400)
    tables = [torch.tensor(rng.normal(0, 0.5, (400, 6)), dtype=torch.float32) for _ in range(2)]
    sgns, noise = Sgns(1, 3, keep, np.uint64(6)), skipgram.noise_of(np.ones(400))
    leaves = [table.double().requires_grad_() for table in tables]
    found = skipgram.pairs(stream, stream, np.arange(len(walks)), sgns, 0, True)
    group = 1 if keep == 1 else max(skipgram_torch.GROUP, keep)
    block_key = key(sgns.seed ^ NEGATIVES, 0, 0)
    golden = GOLDEN
    loss = torch.zeros((), dtype=torch.float64)
    for number, (centre, context) in enumerate(found.tolist()):
        walk, where = divmod(number // group * group, 2)  # the group's first pair has the context at `where`
        state = int(block_key)
        for counted in (walk, ((1 - where) << 16) + where):
            state = int(mix_numpy(np.array([(state + (counted + 1) * golden) % 2**64], np.uint64))[0])
        rate = 0.1 - 0.05 * (number // 2) / len(walks)
        loss -= rate * torch.nn.functional.logsigmoid(leaves[0][centre] @ leaves[1][context])
        for k in range(3):
            row = pair_kernel.negative_row(np.uint64(state), k, *noise)
            if row != context:
                loss -= rate * torch.nn.functional.logsigmoid(-leaves[0][centre] @ leaves[1][row])
    loss.backward()
    call = (noise, stream, stream, np.arange(len(walks)), sgns, 0, 0, 0, True, 0.1, 0.05)
    made = [table.clone() for table in tables]
    # a row is drawn by one group or a few, so its steps are capped only where they exceed 24 pairs' worth
    cap = skipgram_torch.CAP
    try:
        skipgram_torch.CAP = 1000
        assert skipgram_torch.train_block(*made, *call, batch=128) == len(found)
    finally:
        skipgram_torch.CAP = cap
    for leaf, tensor in zip(leaves, made, strict=True):
        assert leaf.grad is not None
        np.testing.assert_allclose(tensor.numpy(), (leaf - leaf.grad).detach().numpy(), rtol=0, atol=1e-5)


def test_a_row_moves_as_far_as_eight_pairs_ask() -> None:
    (stream,) = streams_of([[0, 1]] * 100, 1, 2)
    sgns, noise = Sgns(1, 0, 1, np.uint64(0)), skipgram.noise_of(np.ones(2))
    inputs, outputs = torch.zeros(2, 3), torch.ones(2, 3)
    skipgram_torch.train_block(inputs, outputs, noise, stream, stream, np.arange(100), sgns, 0, 0, 0, True, 0.1, 0.1)
    np.testing.assert_allclose(inputs.numpy(), np.full((2, 3), 8 * 0.1 / 2), rtol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep", [1, 8])
def test_walks_to_and_fro_stay_finite(device: str, keep: int) -> None:
    (stream,) = streams_of([[0, 1] * 40] * 200 + [[2, 3, 4] * 20] * 100, 1, 5)
    noise, sgns = skipgram.noise_of(np.bincount(stream.rows)), Sgns(10, 5, keep, np.uint64(0))
    inputs = torch.tensor(skipgram.initial_inputs(5, 16, 0, 0, 1), device=device)
    outputs = torch.zeros_like(inputs)
    for epoch in range(3):
        skipgram_torch.train_block(
            inputs, outputs, noise, stream, stream, np.arange(300), sgns, epoch, epoch, 0, True, 0.025, 0.025
        )
    assert float(inputs.abs().max()) < 20
    assert float(outputs.abs().max()) < 20


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep", [1, 8])
def test_two_cliques_come_apart_with_the_same_bits_each_time(device: str, keep: int) -> None:
    rng = np.random.default_rng(0)
    walks = [(rng.integers(0, 10, 40) + 10 * (number % 2)).tolist() for number in range(400)]
    (stream,) = streams_of(walks, 1, 20)
    noise, sgns = skipgram.noise_of(np.bincount(stream.rows)), Sgns(5, 5, keep, np.uint64(0))
    made = []
    for _ in range(2):
        inputs = torch.tensor(skipgram.initial_inputs(20, 16, 0, 0, 1), device=device)
        outputs = torch.zeros_like(inputs)
        for epoch in range(4):
            skipgram_torch.train_block(
                inputs, outputs, noise, stream, stream, np.arange(400), sgns, epoch, epoch, 0, True, 0.05, 0.05
            )
        made.append((inputs.cpu().numpy(), outputs.cpu().numpy()))
    assert made[0][0].tobytes() == made[1][0].tobytes()
    assert made[0][1].tobytes() == made[1][1].tobytes()
    unit = made[0][0] / np.linalg.norm(made[0][0], axis=1, keepdims=True)
    cosines = unit @ unit.T
    assert cosines[:10, :10].min() > cosines[:10, 10:].max() + 0.3


@pytest.mark.parametrize("device", DEVICES)
def test_no_pairs_change_nothing(device: str) -> None:
    streams = streams_of([[0], [], [3]], 2, 4)
    tables = [torch.ones(2, 3, device=device) for _ in range(2)]
    noise, sgns = skipgram.noise_of([0, 0]), Sgns(5, 5, 8, np.uint64(0))
    assert skipgram_torch.train_block(*tables, noise, *streams, np.arange(3), sgns, 0, 0, 0, False, 0.1, 0.1) == 0
    assert all(bool((table == 1).all()) for table in tables)
