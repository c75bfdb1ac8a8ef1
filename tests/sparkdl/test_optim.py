"""Updating a slice is slicing the update, for torch's own optimizers; what cannot be sliced is refused with a reason.

That whole models stay the same over steps is in test_versioned_state.py, where the state lives between them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import Optimizer

from sparkdl.errors import ConfigError
from sparkdl.optim import ELEMENTWISE, SliceOptimizer, changed, hyper_of, state_entries, template

law = settings(deadline=None, max_examples=30, print_blob=True)  # machines may be busy

ELEMENTWISE_CASES: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": partial(torch.optim.SGD, lr=0.1),
    "SGD momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
    "SGD Nesterov": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": partial(torch.optim.Adam, lr=0.01),
    "Adam amsgrad": partial(torch.optim.Adam, lr=0.01, amsgrad=True, weight_decay=0.01),
    "AdamW": partial(torch.optim.AdamW, lr=0.01),
    "Adagrad": partial(torch.optim.Adagrad, lr=0.1),
    "RMSprop": partial(torch.optim.RMSprop, lr=0.01, momentum=0.5, centered=True),
    "Adadelta": partial(torch.optim.Adadelta, lr=1.0),
    "NAdam": partial(torch.optim.NAdam, lr=0.01),
    "RAdam": partial(torch.optim.RAdam, lr=0.01),
    "Adamax": partial(torch.optim.Adamax, lr=0.01),
    "Rprop": partial(torch.optim.Rprop, lr=0.01),
    "ASGD": partial(torch.optim.ASGD, lr=0.01, t0=2),
}


def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))


class Plain(Optimizer):
    """A first-order optimizer of somebody else, with settings of its own."""

    def __init__(self, params: Any, lr: float = 0.1, start: Any = 0):
        super().__init__(params, {"lr": lr})
        self.start = start

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p].setdefault("kept", self.start)
                p.add_(p.grad, alpha=-group["lr"])


def test_each_elementwise_optimizer_is_tried() -> None:
    assert {make.func for make in ELEMENTWISE_CASES.values()} == set(ELEMENTWISE)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ELEMENTWISE_CASES)
@law
@given(borders=st.sets(st.integers(1, 499), max_size=6), seed=st.integers(0, 99))
def test_an_elementwise_update_may_be_cut_anywhere(name: str, borders: set[int], seed: int) -> None:
    make = ELEMENTWISE_CASES[name]
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randn(500, generator=generator).requires_grad_()
    oracle = make([whole])
    optimizer = SliceOptimizer(template(make, model())[0].blank)
    cuts = list(zip([0, *sorted(borders)], [*sorted(borders), 500], strict=True))
    weights = whole.detach().clone()
    states: list[dict[str, Any]] = [{} for _ in cuts]
    for _ in range(4):
        gradient = torch.randn(500, generator=generator)
        whole.grad = gradient.clone()
        oracle.step()
        parts = [weights[a:b] for a, b in cuts]
        states = optimizer.update(parts, [gradient[a:b] for a, b in cuts], [0] * len(cuts), states, [{}])
        assert torch.equal(weights, whole.detach())


@pytest.mark.parametrize("name", ELEMENTWISE_CASES)
def test_an_update_depends_on_its_arguments_alone(name: str) -> None:
    optimizer = SliceOptimizer(template(ELEMENTWISE_CASES[name], model())[0].blank)
    first, gradient = torch.randn(32), torch.randn(32)
    (state,) = optimizer.update([first.clone()], [gradient], [0], [{}], [{}])
    results = []
    for attempt in range(2):
        weights, again = first.clone(), copy.deepcopy(state)
        optimizer.update([weights], [gradient.clone()], [0], [again], [{}])
        results.append((weights, again))
        other: Any = [{"lr": 7.0}] if attempt == 0 else [{}]
        optimizer.update([torch.randn(3)], [torch.randn(3)], [0], [{}], other)  # what must leave no trace
    assert torch.equal(results[0][0], results[1][0])
    for key, value in results[0][1].items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(results[1][1][key]))


def test_the_template_names_the_group_of_every_trained_parameter() -> None:
    net = model()
    net[0].bias.requires_grad_(False)

    def make(params: Iterable[nn.Parameter]) -> Optimizer:
        weight, _, bias = params
        return torch.optim.AdamW([{"params": [bias], "lr": 0.5}, {"params": [weight], "betas": (0.5, 0.6)}], lr=0.1)

    found, optimizer = template(make, net)
    assert found.group_of == {"1.bias": 0, "0.weight": 1}  # 1.weight is in no group: not trained
    assert found.elementwise
    assert [(h["lr"], h["betas"]) for h in found.hyper] == [(0.5, [0.9, 0.999]), (0.1, [0.5, 0.6])]
    assert isinstance(optimizer, torch.optim.AdamW)
    assert len(found.blank) < 20_000, "the template holds no parameters"


def test_an_optimizer_already_built_is_taken_as_it_is() -> None:
    net = model()
    mine = torch.optim.Adam(net.parameters(), lr=0.2)
    found, optimizer = template(mine, net)
    assert optimizer is mine
    assert found.hyper[0]["lr"] == 0.2
    assert set(found.group_of) == {name for name, _ in net.named_parameters()}
    assert all(len(g["params"]) == 4 for g in mine.param_groups), "the given optimizer keeps its parameters"


def test_a_function_of_named_parameters_gets_names() -> None:
    def make(named_parameters: list[tuple[str, nn.Parameter]]) -> Optimizer:
        decay = [p for name, p in named_parameters if name.endswith("weight")]
        rest = [p for name, p in named_parameters if not name.endswith("weight")]
        return torch.optim.AdamW([{"params": decay}, {"params": rest, "weight_decay": 0.0}])

    found, _ = template(make, model())
    assert found.group_of == {"0.weight": 0, "0.bias": 1, "1.weight": 0, "1.bias": 1}


def test_an_optimizer_built_on_named_parameters_works() -> None:
    def make(named_parameters: list[tuple[str, nn.Parameter]]) -> Optimizer:
        return torch.optim.SGD(named_parameters, lr=0.5)

    found, _ = template(make, model())
    weights = torch.ones(4)
    SliceOptimizer(found.blank).update([weights], [torch.ones(4)], [0], [{}], [{}])
    assert weights.tolist() == [0.5] * 4


class Subclass(torch.optim.SGD):
    pass


class Declared(Subclass):
    elementwise = True


@pytest.mark.parametrize(
    ("make", "elementwise"),
    [
        (partial(torch.optim.Adafactor, lr=0.1), False),
        (partial(Subclass, lr=0.1), False),  # may do anything, so only between tensors
        (partial(Declared, lr=0.1), True),
        (partial(torch.optim.AdamW, fused=True), False),
        (Plain, False),
    ],
)
def test_only_known_or_declared_optimizers_are_cut_inside_tensors(make: Any, elementwise: bool) -> None:
    assert template(make, model())[0].elementwise is elementwise


class NeedsClosure(Optimizer):
    def __init__(self, params: Any):
        super().__init__(params, {"lr": 1.0})

    def step(self, closure: Callable[[], float]) -> float:  # type: ignore[override]
        return closure()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (torch.optim.LBFGS, "LBFGS evaluates the loss several times"),
        (NeedsClosure, "NeedsClosure evaluates the loss several times"),
        (torch.optim.SparseAdam, "SparseAdam takes sparse gradients only"),
        (lambda params: 3, "returned int, not a torch.optim.Optimizer"),
        (lambda params: None, "returned NoneType"),
        (lambda params: torch.optim.SGD([nn.Parameter(torch.zeros(4, 2))], lr=1.0), r"group 0 of SGD .* \(4, 2\)"),
        (lambda params: torch.optim.SGD(params, lr=-1.0), "could not be built .* ValueError: Invalid learning rate"),
        (lambda: None, "could not be built .* TypeError"),
    ],
)
def test_what_cannot_be_sliced_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        template(make, model())


def test_an_optimizer_of_another_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a trainable parameter of the model"):
        template(torch.optim.SGD(model().parameters(), lr=0.1), model())


def test_a_model_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to train"):
        template(torch.optim.SGD, model().requires_grad_(False))


def test_hyper_of_gives_plain_numbers() -> None:
    (found,) = hyper_of(torch.optim.Adam(model().parameters(), lr=torch.tensor(0.25), amsgrad=True))
    assert found["lr"] == 0.25
    assert isinstance(found["lr"], float)
    assert found["betas"] == [0.9, 0.999]
    assert found["amsgrad"] is True
    assert "params" not in found
    assert all(isinstance(v, bool | int | float | list) for v in found.values())


def test_changed_carries_only_what_differs_and_update_applies_it() -> None:
    found, optimizer = template(partial(torch.optim.Adam, lr=0.1), model())
    optimizer.param_groups[0]["lr"] = 0.5
    optimizer.param_groups[0]["betas"] = (0.8, 0.999)
    difference = changed(hyper_of(optimizer), found.hyper)
    assert difference == [{"lr": 0.5, "betas": [0.8, 0.999]}]
    weights, gradient = torch.randn(32), torch.randn(32)
    expected = weights.clone().requires_grad_()
    expected.grad = gradient
    oracle = torch.optim.Adam([expected], lr=0.5, betas=(0.8, 0.999))
    ours = SliceOptimizer(found.blank)
    state: dict[str, Any] = {}
    for _ in range(3):
        oracle.step()
        (state,) = ours.update([weights], [gradient], [0], [state], difference)
    assert torch.equal(weights, expected.detach())


def test_a_learning_rate_may_be_a_tensor() -> None:
    found, _ = template(partial(torch.optim.SGD, lr=torch.tensor(0.5)), model())
    weights = torch.zeros(4)
    SliceOptimizer(found.blank).update([weights], [torch.ones(4)], [0], [{}], [{"lr": 0.25}])
    assert weights.tolist() == [-0.25] * 4


SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "StepLR": partial(torch.optim.lr_scheduler.StepLR, step_size=1),
    "OneCycleLR": partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.5, total_steps=9),
    "CosineAnnealingLR": partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=9),
}


@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")  # the stand-in never steps itself
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_what_schedulers_add_to_the_groups_does_no_harm(scheduler: str) -> None:
    make = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    found, stand_in = template(make, model())
    weights, gradient = torch.randn(32), torch.randn(32)
    expected = weights.clone().requires_grad_()
    expected.grad = gradient
    oracle = make([expected])
    ours, theirs = SCHEDULERS[scheduler](stand_in), SCHEDULERS[scheduler](oracle)
    optimizer = SliceOptimizer(found.blank)
    state: dict[str, Any] = {}
    for _ in range(4):
        (state,) = optimizer.update([weights], [gradient], [0], [state], changed(hyper_of(stand_in), found.hyper))
        oracle.step()
        ours.step()
        theirs.step()
        assert torch.equal(weights, expected.detach())


def test_an_optimizers_own_attributes_reach_the_slices() -> None:
    optimizer = SliceOptimizer(template(partial(Plain, start=5), model())[0].blank)
    assert optimizer.update([torch.ones(2)], [torch.ones(2)], [0], [{}], [{}]) == [{"kept": 5}]


class Keeper(Optimizer):
    """Keeps one value of each kind."""

    kept: ClassVar[dict[str, Any]] = {
        "t": torch.zeros(2, 3),
        "half": torch.zeros(3, dtype=torch.bfloat16),
        "n": 3,
        "b": True,
        "f": 0.5,
    }

    def __init__(self, params: Any):
        super().__init__(params, {"lr": 1.0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            self.state[p].update(self.kept, none=None)


class TextKeeper(Keeper):
    kept: ClassVar[dict[str, Any]] = {"label": "text"}


def test_state_entries_lay_the_state_out_without_overlap() -> None:
    optimizer = SliceOptimizer(template(Keeper, model())[0].blank)
    entries, end = state_entries(optimizer, (4,), 0, 128, 1)
    assert [(e.name, e.kind) for e in entries] == [
        ("t", "tensor"), ("half", "tensor"), ("n", "int"), ("b", "bool"), ("f", "float"), ("none", "none"),
    ]  # fmt: skip
    assert [e.offset for e in entries] == list(range(128, 128 + 64 * 6, 64))
    assert end == 128 + 64 * 6
    assert (entries[0].shape, entries[1].dtype) == ((2, 3), torch.bfloat16)


def test_large_state_takes_as_many_bytes_as_it_needs() -> None:
    optimizer = SliceOptimizer(template(torch.optim.Adam, model())[0].blank)
    entries, end = state_entries(optimizer, (100,), 0, 0, 1)
    spans = sorted((e.offset, e.offset + 4 * max(1, *e.shape, 1)) for e in entries)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert {e.name for e in entries} == {"step", "exp_avg", "exp_avg_sq"}
    assert end >= spans[-1][1]
    assert end % 64 == 0


def test_state_that_cannot_be_kept_is_refused() -> None:
    optimizer = SliceOptimizer(template(TextKeeper, model())[0].blank)
    with pytest.raises(ConfigError, match=r"keeps a str in its state \(key 'label'\)"):
        state_entries(optimizer, (4,), 0, 0, 1)


class CountsInGroup(Optimizer):
    """As several libraries' LAMB and LARS do."""

    def __init__(self, params: Any):
        super().__init__(params, {"lr": 1.0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1


def test_numbers_that_a_step_leaves_in_a_group_are_refused() -> None:
    optimizer = SliceOptimizer(template(CountsInGroup, model())[0].blank)
    with pytest.raises(ConfigError, match="keeps 'step' in its parameter groups, where a step changes it"):
        state_entries(optimizer, (4,), 0, 0, 1)
