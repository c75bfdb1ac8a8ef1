"""The schedule is torch's own, a step's record divides sums once, and the twin is plain PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from sparkdl import batches, optim, slices
from sparkdl.columns import Columns
from sparkdl.errors import ConfigError
from sparkdl.history import History, StepRecord
from sparkdl.payload import Payload, buffer_sizes
from sparkdl.saved_state import load_model, state_parts
from sparkdl.step_settings import Plan, StepSettings
from sparkdl.training_loop import Schedule, StepReport, Twin, record, train
from sparkdl.triggers import MaxEpoch, MaxIteration, SeveralIteration
from sparkdl.versioned_state import state_plan
from tests.sparkdl.runs import course

STEPS = 25


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 3))


def rows(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {"x": rng.normal(size=(count, 6)).astype(np.float32), "y": rng.integers(0, 3, count)}


def payload_of(model: nn.Module, make_optimizer: Callable[[Any], torch.optim.Optimizer], **more: Any) -> Payload:
    template, _ = optim.template(make_optimizer, model)
    named = [(n, tuple(p.shape), template.group_of[n]) for n, p in model.named_parameters() if n in template.group_of]
    layout = slices.layout(named, template.elementwise)
    return Payload(
        model=model,
        loss=nn.CrossEntropyLoss(),
        template=template,
        plan=state_plan(template, layout, *buffer_sizes(model)),
        columns=Columns.parse("x", "y"),
        **{"seed": 5, "batch_size": 8} | more,
    )


def twin_of(payload: Payload, data: dict[str, np.ndarray], replicas: int, directory: Path) -> tuple[Twin, Plan]:
    parts = [{name: np.ascontiguousarray(a[r::replicas]) for name, a in data.items()} for r in range(replicas)]
    layout = payload.plan.layout
    counts = tuple(len(part["x"]) for part in parts)
    plan = Plan("twin", payload.seed, payload.batch_size, counts, tuple(slices.cut(layout, 1)))
    return Twin(payload, plan, parts, str(directory)), plan


def run(
    twin: Twin, plan: Plan, epochs: int, make: Any = torch.optim.SGD, scheduler: Any = None, steps_per_job: int = 1
) -> History:
    template, stand_in = optim.template(make, twin.payload.model)
    history = History()
    names = list(twin.payload.metrics)
    schedule = Schedule(stand_in, scheduler, template.hyper)
    train(twin, plan, schedule, course(history, plan, MaxEpoch(epochs)), steps_per_job, names, history)
    return history


# --- schedule

SCHEDULERS: dict[str, tuple[Callable[[Any], torch.optim.Optimizer], Callable[[Any], Any]]] = {
    "none": (partial(torch.optim.SGD, lr=0.3), lambda optimizer: None),
    "step": (partial(torch.optim.SGD, lr=0.3), partial(lr_scheduler.StepLR, step_size=4, gamma=0.5)),
    "cosine": (partial(torch.optim.AdamW, lr=0.3), partial(lr_scheduler.CosineAnnealingLR, T_max=STEPS)),
    "lambda": (partial(torch.optim.Adam, lr=0.3), partial(lr_scheduler.LambdaLR, lr_lambda=lambda s: 1 / (s + 1))),
    "one cycle, momentum": (
        partial(torch.optim.SGD, lr=0.3, momentum=0.9),
        partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=STEPS + 1),
    ),
    "one cycle, betas": (
        partial(torch.optim.Adam, lr=0.3),
        partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=STEPS + 1),
    ),
    "cyclic": (
        partial(torch.optim.SGD, lr=0.3, momentum=0.9),
        partial(lr_scheduler.CyclicLR, base_lr=0.1, max_lr=0.5, step_size_up=3),
    ),
    "warm-up": (
        partial(torch.optim.SGD, lr=0.3),
        lambda optimizer: lr_scheduler.ChainedScheduler(
            [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5), lr_scheduler.ExponentialLR(optimizer, 0.9)]
        ),
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedule_has_the_numbers_of_torch(name: str) -> None:
    make_optimizer, make_scheduler = SCHEDULERS[name]
    scheduler_given = None if name == "none" else make_scheduler
    model = nn.Linear(3, 2)
    template, stand_in = optim.template(make_optimizer, model)
    schedule = Schedule(stand_in, scheduler_given, template.hyper)

    twin = copy.deepcopy(model)
    optimizer = make_optimizer(twin.parameters())
    scheduler = make_scheduler(optimizer)
    seen = set()
    for _ in range(STEPS):
        hyper, rate = schedule.next()
        group = optimizer.param_groups[0]
        now = template.hyper[0] | hyper[0]
        assert rate == now["lr"] == group["lr"]
        for key in {"momentum", "betas"} & set(group):
            expected = list(group[key]) if isinstance(group[key], tuple) else group[key]
            assert now[key] == expected
            seen.add(str(expected))
        twin(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    if name.startswith(("one cycle", "cyclic")):
        assert len(seen) > 5, "the momentum never changed"


def test_a_step_carries_only_what_changed() -> None:
    template, stand_in = optim.template(partial(torch.optim.Adam, lr=0.1), nn.Linear(3, 2))
    assert Schedule(stand_in, None, template.hyper).next() == ([{}], 0.1)
    schedule = Schedule(stand_in, partial(lr_scheduler.ExponentialLR, gamma=0.5), template.hyper)
    assert [schedule.next() for _ in range(3)] == [([{}], 0.1), ([{"lr": 0.05}], 0.05), ([{"lr": 0.025}], 0.025)]


def test_a_scheduler_that_waits_for_a_metric_is_refused() -> None:
    template, stand_in = optim.template(torch.optim.SGD, nn.Linear(3, 2))
    with pytest.raises(ConfigError, match="ReduceLROnPlateau waits for a metric, but schedulers here step once a step"):
        Schedule(stand_in, lr_scheduler.ReduceLROnPlateau, template.hyper)


def test_a_scheduler_function_must_give_a_scheduler() -> None:
    template, stand_in = optim.template(torch.optim.SGD, nn.Linear(3, 2))
    with pytest.raises(ConfigError, match=r"returned float, which has no step\(\); pass f\(optimizer\) -> "):
        Schedule(stand_in, lambda optimizer: 0.1, template.hyper)


# --- record

PLAN = Plan("run", 0, 8, (5, 1, 0), ((0, 1),))


def reported(*replicas: Sequence[float], seconds: float = 0.1) -> StepReport:
    return StepReport(StepSettings(7, 1, 2, [{}]), np.array(replicas, np.float64), seconds)


def test_sums_are_divided_once() -> None:
    # losses 1, 1, 1 on one replica and 9 on the other: the mean is 3, the mean of means would be 5
    found = record(
        reported([3, 3, 3.0, 1.5, 0, 0, 0, 0], [1, 1, 9.0, 0.0, 0, 0, 0, 0], [0] * 8), PLAN, 0.25, ["accuracy"]
    )
    assert found["loss"] == 3.0
    assert found["metrics"] == {"accuracy": 1.5 / 4}
    assert (found["rows"], found["step"], found["epoch"], found["lr"]) == (4, 7, 1, 0.25)


def test_the_loss_divides_by_its_denominator_and_metrics_by_rows() -> None:
    found = record(reported([4, 1.5, 6.0, 2.0, 0, 0, 0, 0], [2, 0.5, 2.0, 1.0, 0, 0, 0, 0]), PLAN, 0.1, ["m"])
    assert found["loss"] == 4.0
    assert found["metrics"] == {"m": 0.5}


def test_a_step_without_a_counted_label_has_loss_zero() -> None:
    assert record(reported([2, 0, 0, 0, 0, 0, 0]), PLAN, 0.1, [])["loss"] == 0.0


def test_times_are_those_of_the_slowest_replica() -> None:
    found = record(reported([1, 1, 1, 1, 2, 30, 4], [1, 1, 1, 5, 6, 10, 8], seconds=0.1), PLAN, 0.1, [])
    assert (found["compute_ms"], found["sync_ms"], found["scheduling_ms"]) == (30.0, 19.0, pytest.approx(51.0))
    found = record(reported([1, 1, 1, 1, 2, 300, 4], seconds=0.1), PLAN, 0.1, [])
    assert found["scheduling_ms"] == 0.0


# --- train


class Slow:
    """An engine that reports late, as the one on Spark does."""

    def __init__(self, every: int):
        self.every, self.out, self.jobs = every, list[StepSettings](), list[int]()

    def run(self, steps: Sequence[StepSettings]) -> list[StepReport]:
        self.jobs.append(len(steps))
        self.out += steps
        return self.mark() if len(self.out) >= self.every else []

    def mark(self) -> list[StepReport]:
        found, self.out = self.out, []
        return [StepReport(s, np.array([[8, 8, 8.0 * s.step, 0, 0, 0, 0]]), 0.01) for s in found]


@pytest.mark.parametrize("every", [1, 3, 100])
def test_every_step_is_recorded_once_and_in_order(every: int) -> None:
    plan = Plan("run", 0, 8, (20,), ((0, 1),))
    template, stand_in = optim.template(partial(torch.optim.SGD, lr=1.0), nn.Linear(3, 2))
    schedule = Schedule(stand_in, partial(lr_scheduler.ExponentialLR, gamma=0.5), template.hyper)
    engine, history, shown = Slow(every), History(), list[StepRecord]()
    epochs: list[int] = []

    def validate() -> dict[str, float]:
        epochs.append(len(epochs))
        assert len(shown) == 3 * len(epochs), "an epoch ended before its steps were reported"
        return {"loss": 9.0 + len(epochs)}

    train(engine, plan, schedule, course(history, plan, MaxEpoch(2), validate, show=shown.append), 2, [], history)
    assert engine.jobs == [2, 1, 2, 1]  # steps of two epochs are not in one job
    assert [(r.step, r.epoch) for r in shown] == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1)]
    assert history.steps["lr"].tolist() == [0.5**s for s in range(6)]
    assert history.steps["loss"].tolist() == list(range(6))
    assert epochs == [0, 1]
    assert history["val_loss"] == [10.0, 11.0]


@pytest.mark.parametrize("start", range(7))
def test_from_any_step_on_the_schedule_goes_on(start: int) -> None:
    plan = Plan("run", 0, 8, (20,), ((0, 1),))
    template, stand_in = optim.template(partial(torch.optim.SGD, lr=1.0), nn.Linear(3, 2))
    schedule = Schedule(stand_in, partial(lr_scheduler.ExponentialLR, gamma=0.5), template.hyper)
    engine, history, shown = Slow(4), History(), list[StepRecord]()
    train(engine, plan, schedule, course(history, plan, MaxIteration(9), show=shown.append), 4, [], history, start)
    assert [(r.step, r.epoch, r.lr) for r in shown] == [(s, s // 3, 0.5**s) for s in range(start, 9)]
    assert history["epoch"] == [epoch for epoch in range(3) if 3 * (epoch + 1) > start]


def test_a_pause_cuts_the_steps_of_a_job() -> None:
    plan = Plan("run", 0, 8, (80,), ((0, 1),))
    template, stand_in = optim.template(partial(torch.optim.SGD, lr=1.0), nn.Linear(3, 2))
    engine, history = Slow(100), History()
    until = MaxIteration(17) | MaxEpoch(5)
    of_run = course(history, plan, until, lambda: {"loss": 1.0}, SeveralIteration(4))
    train(engine, plan, Schedule(stand_in, None, template.hyper), of_run, 3, [], history)
    assert engine.jobs == [3, 1, 3, 1, 2, 2, 3, 1, 1]
    assert history.validations["step"].tolist() == [4, 8, 12, 16]


# --- twin


def trained_by_torch(model: nn.Module, data: dict[str, np.ndarray], plan: Plan, epochs: int, make: Any) -> nn.Module:
    optimizer = make(model.parameters())
    counts = plan.rows_per_replica
    for epoch in range(epochs):
        for step in range(plan.steps_per_epoch):
            picked = [
                np.arange(plan.num_rows)[r :: len(counts)][batches.rows(plan.seed, epoch, step, r, counts, 8)]
                for r in range(len(counts))
            ]
            chosen = np.concatenate(picked)
            optimizer.zero_grad()
            output = model(torch.from_numpy(data["x"][chosen]))
            nn.functional.cross_entropy(output, torch.from_numpy(data["y"][chosen])).backward()
            optimizer.step()
    return model


def assert_close(found: nn.Module, expected: nn.Module) -> None:
    theirs = expected.state_dict()
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("make", [partial(torch.optim.SGD, lr=0.1, momentum=0.9), partial(torch.optim.Adam, lr=0.01)])
def test_one_replica_is_plain_torch_with_buffers(make: Any, tmp_path: Path) -> None:
    data = rows(30)  # the last step of an epoch has six rows
    payload = payload_of(network(), make)
    twin, plan = twin_of(payload, data, 1, tmp_path)
    history = run(twin, plan, 2, make)
    assert history.steps["rows"].tolist() == [8, 8, 8, 6] * 2
    found = network()
    load_model(payload.plan, state_parts(twin.state, twin.version), found)
    assert_close(found, trained_by_torch(network(), data, plan, 2, make))
    assert int(found[1].num_batches_tracked) == 8
    twin.state.close()


@pytest.mark.parametrize("replicas", [2, 3, 7])
def test_replicas_are_plain_torch_on_the_same_rows(replicas: int, tmp_path: Path) -> None:
    def plain() -> nn.Module:
        return nn.Sequential(*[m for m in network() if not isinstance(m, nn.BatchNorm1d)])

    make = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    data = rows(30)
    payload = payload_of(plain(), make)
    twin, plan = twin_of(payload, data, replicas, tmp_path)
    run(twin, plan, 2, make, steps_per_job=3)
    found = plain()
    load_model(payload.plan, state_parts(twin.state, twin.version), found)
    assert_close(found, trained_by_torch(plain(), data, plan, 2, make))
    twin.state.close()


def test_a_schedule_reaches_the_twin(tmp_path: Path) -> None:
    payload = payload_of(network(), partial(torch.optim.SGD, lr=0.1))
    twin, plan = twin_of(payload, rows(16), 1, tmp_path)
    # a rate of zero: nothing but the buffers moves
    zero = partial(lr_scheduler.LambdaLR, lr_lambda=lambda step: 0.0)
    history = run(twin, plan, 1, partial(torch.optim.SGD, lr=0.1), zero)
    assert history.steps["lr"].tolist() == [0.0, 0.0]
    found = network()
    load_model(payload.plan, state_parts(twin.state, twin.version), found)
    for a, b in zip(found.parameters(), network().parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(found[1].running_mean, network()[1].running_mean)
    twin.state.close()


class Odd(nn.Module):
    """Buffers of several types, a scalar among them, and a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 3)
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.register_buffer("count", torch.tensor(0, dtype=torch.int32))
        self.register_buffer("sums", torch.tensor([0.5, 0.25], dtype=torch.float64))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("passing", torch.zeros(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        self.sums *= 3
        self.mask.logical_not_()
        self.scale += 0.5
        self.passing.add_(x.shape[0])
        return self.first(x) * self.frozen * self.scale


def test_load_state_brings_back_all_buffers(tmp_path: Path) -> None:
    payload = payload_of(Odd(), partial(torch.optim.Adam, lr=0.01))
    data = rows(24)
    twin, plan = twin_of(payload, data, 1, tmp_path)
    run(twin, plan, 1, partial(torch.optim.Adam, lr=0.01))
    found = Odd()
    found.frozen.data.fill_(5.0)  # not trained, so not touched
    load_model(payload.plan, state_parts(twin.state, twin.version), found)
    assert int(found.count) == 3
    assert found.sums.tolist() == [13.5, 6.75]
    assert found.mask.tolist() == [False, True, False]
    assert float(found.scale) == 2.5
    assert found.passing.tolist() == [24.0] * 3
    assert found.frozen.tolist() == [5.0] * 3
    flat = twin.state.weights(twin.version)
    place = {t.name: t for t in payload.plan.layout.tensors}["first.weight"]
    assert torch.equal(found.first.weight.detach().reshape(-1), flat[place.start : place.start + place.numel])
    # and a model that starts from them is at the same bits
    assert torch.equal(payload_of(found, torch.optim.SGD).initial_weights(), flat)
    twin.state.close()


def test_load_state_without_buffers(tmp_path: Path) -> None:
    model = nn.Linear(6, 3)
    payload = payload_of(model, torch.optim.SGD)
    twin, plan = twin_of(payload, rows(8), 2, tmp_path)
    run(twin, plan, 1)
    found = nn.Linear(6, 3)
    load_model(payload.plan, state_parts(twin.state, twin.version), found)
    assert not torch.equal(found.weight, model.weight)
    assert torch.equal(payload_of(found, torch.optim.SGD).initial_weights(), twin.state.weights(twin.version))
    twin.state.close()
