"""LARS and LAMB are the papers' formulas, also in slices; the warm-up has torch's numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from sparkdl import Trainer
from sparkdl.errors import ConfigError
from sparkdl.large_batches import LAMB, LARS, layer_groups, warmup
from sparkdl.optim import template
from tests.sparkdl.runs import arrays, fingerprint_of_twin, mlp, trained_by_torch

Array = np.ndarray[Any, np.dtype[np.float64]]


def lars_by_paper(w: Array, gradients: list[Array], lr: float, m: float, decay: float, trust: float) -> Array:
    """Algorithm 1 of arXiv:1708.03888."""
    v = np.zeros_like(w)
    for g in gradients:
        local = trust * np.linalg.norm(w) / (np.linalg.norm(g) + decay * np.linalg.norm(w))
        v = m * v + lr * local * (g + decay * w)
        w = w - v
    return w


def lamb_by_paper(w: Array, gradients: list[Array], lr: float, b1: float, b2: float, eps: float, decay: float) -> Array:
    """Algorithm 2 of arXiv:1904.00962."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        r = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        w = w - lr * np.linalg.norm(w) / np.linalg.norm(r + decay * w) * (r + decay * w)
    return w


def stepped(make: Callable[[Any], Optimizer], w: Array, gradients: list[Array]) -> Array:
    parameter = nn.Parameter(torch.tensor(w, dtype=torch.float64))
    optimizer = make([parameter])
    for g in gradients:
        parameter.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
    return parameter.detach().numpy()


@given(seed=st.integers(0, 10**6), decay=st.sampled_from([0.0, 0.05]), shape=st.sampled_from([(3,), (4, 5)]))
def test_both_are_the_papers_formulas(seed: int, decay: float, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    w, gradients = rng.normal(size=shape), [rng.normal(size=shape) for _ in range(5)]
    found = stepped(partial(LARS, lr=0.7, momentum=0.8, weight_decay=decay, trust=0.02), w, gradients)
    np.testing.assert_allclose(found, lars_by_paper(w, gradients, 0.7, 0.8, decay, 0.02), rtol=1e-10)
    found = stepped(partial(LAMB, lr=0.1, betas=(0.8, 0.95), eps=1e-6, weight_decay=decay), w, gradients)
    np.testing.assert_allclose(found, lamb_by_paper(w, gradients, 0.1, 0.8, 0.95, 1e-6, decay), rtol=1e-10)


def test_a_step_of_lamb_is_as_long_as_the_rate_says_whatever_the_gradient() -> None:
    w = np.arange(1.0, 7.0)
    for scale in (1e-3, 1e3):
        moved = stepped(partial(LAMB, lr=0.25, eps=0.0, weight_decay=0.0), w, [scale * (w - 2.5)]) - w
        assert np.linalg.norm(moved) == pytest.approx(0.25 * np.linalg.norm(w), rel=1e-6)


@pytest.mark.parametrize("make", [partial(LARS, lr=0.1, trust=0.01), partial(LAMB, lr=0.1, weight_decay=0.0)])
def test_zero_weights_and_zero_gradients_give_numbers(make: Callable[[Any], Optimizer]) -> None:
    rng = np.random.default_rng(0)
    some, zeros = rng.normal(size=(3, 2)), np.zeros((3, 2))
    assert (stepped(make, some, [zeros, zeros]) == some).all()
    moved = stepped(make, zeros, [some, some])
    assert np.isfinite(moved).all()
    assert (moved != 0).all(), "weights that start at zero must get away from there"


def test_without_adaptation_they_are_sgd_and_adamw() -> None:
    rng = np.random.default_rng(1)
    w, gradients = rng.normal(size=7), [rng.normal(size=7) for _ in range(4)]
    found = stepped(partial(LARS, lr=0.1, weight_decay=0.01, adapt=False), w, gradients)
    expected = stepped(partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01), w, gradients)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    found = stepped(partial(LAMB, lr=0.1, eps=1e-8, weight_decay=0.01, adapt=False), w, gradients)
    expected = stepped(partial(torch.optim.AdamW, lr=0.1, eps=1e-8, weight_decay=0.01), w, gradients)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_parameter_without_gradient_stays_and_a_closure_is_evaluated() -> None:
    for make in (partial(LARS, lr=0.1), partial(LAMB, lr=0.1)):
        used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
        optimizer = make([used, unused])

        def closure(used: nn.Parameter = used) -> Any:
            loss = (used**2).sum()
            loss.backward()
            return loss

        assert optimizer.step(closure).item() == 4.0  # type: ignore[union-attr]
        assert (unused == 1).all()
        assert (used != 1).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(LARS, lr=-1.0), "lr is -1.0; pass a number of 0 or more"),
        (partial(LARS, lr=1.0, momentum=1.0), "momentum is 1.0; pass a number from 0 to below 1"),
        (partial(LARS, lr=1.0, trust=float("nan")), "trust is nan"),
        (partial(LAMB, lr=1.0, betas=(0.9, 1.5)), r"betas\[1\] is 1.5"),
        (partial(LAMB, lr=1.0, eps=-1.0), "eps is -1.0"),
    ],
)
def test_numbers_out_of_range_are_refused(make: Callable[[Any], Optimizer], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make([nn.Parameter(torch.ones(2))])


def test_biases_and_norms_are_a_group_of_their_own() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(4, 3), nn.Linear(3, 3, bias=False))
    model[2].weight.requires_grad_(False)
    layers, rest = layer_groups(model.named_parameters())
    assert [tuple(p.shape) for p in layers["params"]] == [(2, 1, 3, 3), (3, 3)]
    assert [tuple(p.shape) for p in rest["params"]] == [(2,), (2,), (2,), (3,)]
    assert LAMB([layers, rest], lr=0.1, weight_decay=0.5).param_groups[1]["weight_decay"] == 0.0
    (only,) = layer_groups(nn.Linear(2, 2, bias=False).named_parameters())
    assert "adapt" not in only


def lars(params: Iterable[nn.Parameter]) -> Optimizer:
    return LARS(layer_groups(("", p) for p in params), lr=1.0, weight_decay=0.01, trust=0.02)


def lamb(params: Iterable[nn.Parameter]) -> Optimizer:
    return LAMB(layer_groups(("", p) for p in params), lr=0.02)


@pytest.mark.parametrize("make", [lars, lamb])
def test_slices_are_cut_at_tensors_and_everything_is_state(make: Callable[[Any], Optimizer]) -> None:
    found, optimizer = template(make, mlp())
    assert not found.elementwise
    before = copy.deepcopy([{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups])
    for p in (p for g in optimizer.param_groups for p in g["params"]):
        p.grad = torch.ones_like(p)
    optimizer.step()
    after = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    assert before == after, "what a step leaves in a group is lost between two steps of a slice"


@pytest.mark.spark
@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("make", [lars, lamb])
def test_replicas_give_the_weights_of_one_process(spark: Any, make: Callable[[Any], Optimizer], replicas: int) -> None:
    data = arrays(rows=150)
    trainer = Trainer(
        mlp(), nn.CrossEntropyLoss(), make, batch_size=64, replicas=replicas, form="fused" if replicas == 3 else "auto"
    )
    history = trainer.fit(data, epochs=3, verbose=0)
    assert history.fingerprint == fingerprint_of_twin(trainer, mlp(), data, epochs=3)
    expected = trained_by_torch(mlp(), make, data, replicas, batch_size=64, epochs=3, seed=0)
    start = mlp()
    for found, wanted, first in zip(trainer.model.parameters(), expected.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(found, first, rtol=1e-4, atol=1e-5), "nothing was trained"


# --- warm-up


def rates(make: Callable[[Optimizer], Any], steps: int, lr: float = 0.8) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=lr)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@given(steps=st.integers(1, 40))
def test_the_rate_grows_in_equal_parts(steps: int) -> None:
    found = rates(partial(warmup, steps=steps), steps + 5)
    assert found == pytest.approx([0.8 * min(1.0, (i + 1) / steps) for i in range(steps + 5)])


@given(steps=st.integers(1, 15))
def test_then_counts_from_the_end_of_the_warm_up(steps: int) -> None:
    then = partial(CosineAnnealingLR, T_max=20)
    assert rates(partial(warmup, steps=steps, then=then), steps + 20)[steps:] == pytest.approx(rates(then, 20))


def test_two_groups_keep_their_ratio() -> None:
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups)
    warmup(optimizer, 10, partial(CosineAnnealingLR, T_max=5))
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.1, 0.01])


@pytest.mark.parametrize(
    ("steps", "then", "words"),
    [
        (0, None, "warmup's steps is 0; pass a positive number of steps"),
        (True, None, "warmup's steps is True"),
        (2.5, None, "warmup's steps is 2.5"),
        (3, 0.1, "warmup's then is 0.1; pass a function of the optimizer"),
        (3, lambda optimizer: None, "then returned NoneType"),
        (3, ReduceLROnPlateau, "then returned ReduceLROnPlateau"),
    ],
)
def test_a_warm_up_that_cannot_be_is_refused(steps: Any, then: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        warmup(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0), steps, then)
