"""Whole models keep torch's bits over many steps; and the file keeps its word with dying, late and concurrent tasks."""

from __future__ import annotations

import copy
import multiprocessing
import os
import random
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from sparkdl import slices, versioned_state
from sparkdl.errors import ConfigError, StateLost
from sparkdl.optim import SliceOptimizer, Template, changed, hyper_of, template
from sparkdl.versioned_state import VersionedState, state_plan

Make = Callable[[Any], Optimizer]


class Lamb(Optimizer):
    """LAMB: needs whole tensors (norms), and counts its steps in a Python number."""

    def __init__(self, params: Any, lr: float = 0.01, betas: tuple[float, float] = (0.9, 0.99)):
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p), trust=1.0, fresh=True)
                state["step"] += 1
                state["mean"] = state["mean"] * first + p.grad * (1 - first)  # a new tensor in every step
                state["square"].mul_(second).addcmul_(p.grad, p.grad, value=1 - second)
                update = (state["mean"] / (1 - first ** state["step"])) / (
                    (state["square"] / (1 - second ** state["step"])).sqrt() + 1e-6
                )
                norm, update_norm = float(p.norm()), float(update.norm())
                state["trust"] = norm / update_norm if norm and update_norm else 1.0
                state["fresh"] = False
                p.add_(update, alpha=-group["lr"] * state["trust"])


class Lars(Optimizer):
    """LARS: momentum, with a rate of its own for every tensor."""

    def __init__(self, params: Any, lr: float = 0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                rate = group["lr"] * float(p.norm()) / (float(p.grad.norm()) + 1e-6)
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.mul_(0.9).add_(p.grad, alpha=rate)
                p.sub_(buffer)


OPTIMIZERS: dict[str, Make] = {
    "SGD": partial(torch.optim.SGD, lr=0.1),
    "SGD momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.01),
    "SGD Nesterov": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, maximize=True),
    "Adam": partial(torch.optim.Adam, lr=0.01, weight_decay=0.01),
    "Adam amsgrad": partial(torch.optim.Adam, lr=0.01, amsgrad=True),
    "AdamW": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
    "Adagrad": partial(torch.optim.Adagrad, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.1),
    "RMSprop": partial(torch.optim.RMSprop, lr=0.01, momentum=0.5, centered=True),
    "Adadelta": partial(torch.optim.Adadelta, lr=1.0, weight_decay=0.01),
    "NAdam": partial(torch.optim.NAdam, lr=0.01, decoupled_weight_decay=True, weight_decay=0.1),
    "RAdam": partial(torch.optim.RAdam, lr=0.01, weight_decay=0.01),
    "Adamax": partial(torch.optim.Adamax, lr=0.01),
    "Rprop": partial(torch.optim.Rprop, lr=0.01),
    "ASGD": partial(torch.optim.ASGD, lr=0.01, t0=2, weight_decay=0.01),
    "Adafactor": partial(torch.optim.Adafactor, lr=0.05, weight_decay=0.01),
    "Lamb": Lamb,
    "Lars": Lars,
}


@pytest.fixture(autouse=True)
def _cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of 48 elements: tensors of the model below are cut at odd places, lots hold several segments."""
    monkeypatch.setattr(slices, "SEGMENT_SIZE", 48)
    monkeypatch.setattr(slices, "LOT_SIZE", 80)
    monkeypatch.setattr(versioned_state, "PART_BYTES", 100)


def model(only_matrices: bool = False) -> nn.Module:
    torch.manual_seed(5)
    if only_matrices:
        return nn.Sequential(nn.Linear(7, 13, bias=False), nn.Linear(13, 11, bias=False), nn.Linear(11, 3, bias=False))
    return nn.Sequential(nn.Linear(7, 13), nn.Conv2d(2, 3, 3), nn.PReLU(), nn.BatchNorm1d(11), nn.Linear(13, 11))


def planned(make: Make, net: nn.Module, *buffers: int) -> tuple[Template, Optimizer, versioned_state.StatePlan]:
    found, stand_in = template(make, net)
    places = [(n, tuple(p.shape), found.group_of[n]) for n, p in net.named_parameters() if n in found.group_of]
    return found, stand_in, state_plan(found, slices.layout(places, found.elementwise, found.tables), *buffers)


def flat_of(layout: slices.Layout, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    flat = torch.zeros(layout.size)
    for t in layout.tensors:
        flat[t.start : t.start + t.numel] = tensors[t.name].detach().reshape(-1)
    return flat


def start(state: VersionedState, weights: torch.Tensor) -> None:
    state.begin(range(len(state.plan.layout.lots)), weights, (torch.empty(0), b""))


class Run:
    """A state that is brought forward with gradients which depend on the version alone."""

    def __init__(self, path: Path, make: Make = OPTIMIZERS["Adam"], net: nn.Module | None = None, *buffers: int):
        self.net = net or model()
        self.path = path
        self.template, self.stand_in, self.plan = planned(make, self.net, *buffers)
        self.lots = range(len(self.plan.layout.lots))
        self.optimizer = SliceOptimizer(self.template.blank)
        self.state = VersionedState(str(path), self.plan)
        self.initial = flat_of(self.plan.layout, dict(self.net.named_parameters()))
        start(self.state, self.initial)

    def gradients(self, version: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(version)
        return {n: torch.randn(p.shape, generator=generator) for n, p in self.net.named_parameters()}

    def update(self, version: int, lots: Iterable[int] | None = None, optimizer: Any = None, hyper: Any = None) -> None:
        gradient = flat_of(self.plan.layout, self.gradients(version))
        for lot in self.lots if lots is None else lots:
            self.state.update(
                lot, version, lambda a, b: gradient[a:b].clone(), optimizer or self.optimizer,
                hyper or [{} for _ in self.template.hyper],
            )  # fmt: skip

    def everything(self, version: int) -> list[bytes]:
        """All bytes of a version, lot by lot."""
        return [
            b"".join(bytes(memory) for _, _, memory in self.state.parts(lot, version))
            for lot in range(self.plan.num_lots)
        ]


def refuse(*_: Any) -> Any:
    raise AssertionError("a lot that is there must not be computed again")


def assert_equals_torch(
    run: Run, make: Make, steps: int = 5, tune: Callable[[Optimizer, int], None] | None = None
) -> None:
    """Updates lot by lot, in another order each step, equal one optimizer on the whole model, bit for bit."""
    net = copy.deepcopy(run.net)
    oracle = make([p for p in net.parameters() if p.requires_grad])
    for version in range(steps):
        for optimizer in (run.stand_in, oracle) if tune else ():
            tune(optimizer, version)
        gradients = run.gradients(version)
        for name, p in net.named_parameters():
            p.grad = gradients[name].clone() if name in run.template.group_of else None
        oracle.step()
        lots = list(run.lots)
        random.Random(version).shuffle(lots)
        run.update(version, lots, hyper=changed(hyper_of(run.stand_in), run.template.hyper))
        run.state.require(version + 1, run.lots)
        weights = run.state.weights(version + 1)
        after = dict(net.named_parameters())
        for t in run.plan.layout.tensors:
            place = weights[t.start : t.start + t.numel].view(t.shape)
            assert torch.equal(place, after[t.name].detach()), f"{t.name} after step {version}"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updating_slices_is_slicing_the_update(name: str, tmp_path: Path) -> None:
    run = Run(tmp_path / "state", OPTIMIZERS[name])
    assert len(run.lots) > 3
    borders = {s.start for s in run.plan.layout.segments} - {t.start for t in run.plan.layout.tensors}
    assert bool(borders) is run.template.elementwise, "element-wise optimizers are to be cut inside tensors, others not"
    assert_equals_torch(run, OPTIMIZERS[name])


def test_muon_updates_whole_matrices(tmp_path: Path) -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    make = partial(torch.optim.Muon, lr=0.05)
    assert_equals_torch(Run(tmp_path / "state", make, model(only_matrices=True)), make)


def in_groups(kind: Callable[..., Optimizer], *options: dict[str, Any]) -> Make:
    """Parameters dealt out to the groups in turn, so that groups and the model's order differ."""

    def make(params: Any) -> Optimizer:
        params = list(params)
        return kind([{"params": params[n :: len(options)]} | o for n, o in enumerate(options)], lr=0.01)

    return make


GROUPS = {
    "Adam": in_groups(torch.optim.Adam, {"betas": (0.5, 0.9)}, {"lr": 0.1, "weight_decay": 0.1}, {}),
    "SGD": in_groups(torch.optim.SGD, {"momentum": 0.9}, {"momentum": 0.5, "nesterov": True}, {}),
    "Adafactor": in_groups(torch.optim.Adafactor, {"weight_decay": 0.1}, {"lr": 0.2}),
    "Lamb": in_groups(Lamb, {"betas": (0.5, 0.9)}, {"lr": 0.1}),
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups_keep_their_own_numbers(name: str, tmp_path: Path) -> None:
    assert_equals_torch(Run(tmp_path / "state", GROUPS[name]), GROUPS[name])


def tune(optimizer: Optimizer, version: int) -> None:
    for number, group in enumerate(optimizer.param_groups):
        group["lr"] = 0.1 / (version + number + 1)
        if "betas" in group and version >= 2:
            group["betas"] = (0.7, 0.8)
        if group.get("momentum") and version >= 2:
            group["momentum"] = 0.3


@pytest.mark.parametrize("name", GROUPS)
def test_numbers_may_change_from_step_to_step(name: str, tmp_path: Path) -> None:
    assert_equals_torch(Run(tmp_path / "state", GROUPS[name]), GROUPS[name], tune=tune)


@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")  # the stand-in never steps itself
def test_a_scheduler_may_drive_the_groups(tmp_path: Path) -> None:
    schedulers: dict[int, Any] = {}

    def one_cycle(optimizer: Optimizer, version: int) -> None:
        if version == 0:
            schedulers[id(optimizer)] = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=9)
        else:
            schedulers[id(optimizer)].step()

    assert_equals_torch(Run(tmp_path / "state", GROUPS["Adam"]), GROUPS["Adam"], tune=one_cycle)


def test_frozen_parameters_are_not_in_the_state(tmp_path: Path) -> None:
    net = model()
    net[0].requires_grad_(False)
    run = Run(tmp_path / "state", OPTIMIZERS["AdamW"], net)
    assert not any(t.name.startswith("0.") for t in run.plan.layout.tensors)
    assert_equals_torch(run, OPTIMIZERS["AdamW"])


def test_a_new_state_has_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "one")
    state = VersionedState(str(tmp_path / "two"), run.plan)
    assert not any(state.has(version, [lot]) for version in (0, 1, 2, 3) for lot in run.lots)
    with pytest.raises(StateLost, match="version 7 is needed"):
        state.require(7, run.lots)


def test_version_0_has_no_optimizer_state(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    assert [run.state.state(0, n) for n in range(len(run.plan.layout.segments))] == [{}] * len(run.plan.layout.segments)
    assert torch.equal(run.state.weights(0), run.initial)
    weights_only = sum(len(data) for data in run.everything(0))
    assert weights_only == run.plan.layout.size * 4
    run.update(0)
    assert set(run.state.state(1, 0)) == {"step", "exp_avg", "exp_avg_sq"}
    assert run.state.state(1, 0)["step"].item() == 1


def test_python_numbers_in_the_state_keep_their_type(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", Lamb)
    for version in range(3):
        run.update(version)
    found = run.state.state(3, 0)
    assert (found["step"], type(found["step"])) == (3, int)
    assert type(found["trust"]) is float
    assert found["fresh"] is False


def test_an_update_that_runs_twice_changes_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    run.update(0)
    run.update(1)
    before = run.everything(2), run.everything(1)
    for lot in run.lots:
        run.state.update(lot, 1, refuse, run.optimizer, [{}])
    assert (run.everything(2), run.everything(1)) == before


def test_two_versions_are_kept_and_older_ones_are_gone(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    run.update(0)
    run.update(1)
    assert [run.state.has(version, run.lots) for version in range(4)] == [False, True, True, False]
    with pytest.raises(StateLost, match=r"holds versions \[1, 2\] .* version 0 is needed"):
        run.state.require(0, run.lots)


def test_a_missing_source_is_state_lost(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    with pytest.raises(StateLost, match="version 1 is needed"):
        run.update(1)
    run.update(0, lots=[0])
    run.update(1, lots=[0])
    with pytest.raises(StateLost):
        run.update(1, lots=[1])
    assert not run.state.has(2, [1]), "a lot without source must not count"


def test_a_late_copy_of_an_old_step_leaves_newer_versions_alone(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    for version in range(3):
        run.update(version)
    before = run.everything(2), run.everything(3)
    with pytest.raises(StateLost):
        run.update(0)  # what it would write lies where version 3 is
    assert run.state.has(3, run.lots)
    assert (run.everything(2), run.everything(3)) == before


class Changeable(Optimizer):
    def __init__(self, params: Any):
        super().__init__(params, {"lr": 1.0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            self.state[p]["second" if "first" in self.state[p] else "first"] = 1.0


def test_state_that_changes_its_keys_is_refused_and_not_stamped(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", Changeable)
    run.update(0)
    with pytest.raises(RuntimeError, match=r"changed its keys from \['first'\] to \['first', 'second'\]"):
        run.update(1)
    assert not run.state.has(2, [0])


# --- processes -------------------------------------------------------------------------------------------------------


def in_processes(functions: Sequence[Callable[[], None]]) -> list[int | None]:
    """Runs functions at the same time, each in its own process; returns their exit codes."""
    context = multiprocessing.get_context("fork")  # keeps local functions usable; torch's threads are idle here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork with threads around
        processes = [context.Process(target=f) for f in functions]
        for process in processes:
            process.start()
    for process in processes:
        process.join(60)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


class DiesHalfway:
    """Stands in for a SliceOptimizer in a process that is killed while it writes."""

    def update(self, params: Sequence[torch.Tensor], *_: Any) -> None:
        for p in params:
            p.fill_(float("nan"))
        os._exit(9)


def test_a_process_killed_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    run, undisturbed = Run(tmp_path / "one"), Run(tmp_path / "two")
    run.update(0)
    run.update(1, lots=[0, 2])

    def die() -> None:
        mine = VersionedState(str(run.path), run.plan)
        gradient = torch.full((run.plan.layout.size,), 7.0)
        mine.update(1, 1, lambda a, b: gradient[a:b], DiesHalfway(), [{}])  # type: ignore[arg-type]

    assert in_processes([die]) == [9]
    first, last = run.plan.layout.lot_bounds(1)
    assert run.state.weights(2)[first:last].isnan().any(), "the process should have left garbage"
    assert not run.state.has(2, [1])
    assert run.state.has(2, [0, 2])
    run.update(1)  # must not wait for the dead process's lock either
    for version in (0, 1):
        undisturbed.update(version)
    assert run.everything(2) == undisturbed.everything(2)


def test_a_process_killed_over_an_older_version_does_not_leave_its_stamp(tmp_path: Path) -> None:
    run, undisturbed = Run(tmp_path / "one"), Run(tmp_path / "two")
    for version in range(3):
        run.update(version)
        undisturbed.update(version)

    def die() -> None:
        mine = VersionedState(str(run.path), run.plan)
        mine.update(0, 3, lambda a, b: torch.zeros(b - a), DiesHalfway(), [{}])  # type: ignore[arg-type]

    assert in_processes([die]) == [9]
    assert not run.state.has(2, [0]), "version 2 of the lot lay where the garbage is now"
    run.update(3)
    undisturbed.update(3)
    assert run.everything(4) == undisturbed.everything(4)


@pytest.mark.parametrize("name", ["Adam", "Lamb"])
def test_processes_share_the_work_and_get_the_same_bits(name: str, tmp_path: Path) -> None:
    alone, run = Run(tmp_path / "alone", OPTIMIZERS[name]), Run(tmp_path / "shared", OPTIMIZERS[name])
    steps, num_lots = 6, len(run.lots)
    context = multiprocessing.get_context("fork")
    barrier, updates = context.Barrier(2), context.Value("i", 0)

    class Counting:
        def update(self, *arguments: Any) -> Any:
            with updates.get_lock():
                updates.value += 1
            return run.optimizer.update(*arguments)

    def work(first: int) -> None:
        run.state = VersionedState(str(run.path), run.plan)
        for version in range(steps):
            run.update(version, [*range(first, num_lots), *range(first)], Counting())
            run.state.require(version + 1, run.lots)
            barrier.wait(30)  # in Spark the end of a stage

    assert in_processes([partial(work, 0), partial(work, num_lots // 2)]) == [0, 0]
    for version in range(steps):
        alone.update(version)
    assert run.everything(steps) == alone.everything(steps)
    assert run.everything(steps - 1) == alone.everything(steps - 1)
    assert updates.value == steps * num_lots, "each lot is to be computed once a step, whoever does it"


# --- snapshots and buffers -------------------------------------------------------------------------------------------


def reader(data: bytes | memoryview) -> Callable[[memoryview], None]:
    def readinto(target: memoryview) -> None:
        target[:] = data

    return readinto


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adafactor", "Lamb"])
@pytest.mark.parametrize("version", [0, 3])
def test_restore_is_the_inverse_of_parts(name: str, version: int, tmp_path: Path) -> None:
    run = Run(tmp_path / "one", OPTIMIZERS[name], None, 22, 17)
    for n in range(version):
        run.update(n)
    floats, raw = torch.randn(22), bytes(range(17))
    run.state.set_buffers(version, floats, raw)
    copied = Run(tmp_path / "two", OPTIMIZERS[name], None, 22, 17)
    copied.state = VersionedState(str(tmp_path / "three"), run.plan)
    for lot in range(run.plan.num_lots):
        parts = list(run.state.parts(lot, version))
        assert len(parts) > 1 or run.plan.has_buffers
        assert [p[0] for p in parts] == np.cumsum([0, *(len(p[2]) for p in parts[:-1])]).tolist()
        assert parts[-1][1] == 0
        assert all(len(memory) <= 100 for _, _, memory in parts)
        for number, (offset, rest, memory) in enumerate(parts):
            assert rest == sum(len(p[2]) for p in parts[number + 1 :])
            assert not copied.state.has(version, [lot]), "the last part makes it count"
            copied.state.restore(lot, version, offset, len(memory), reader(memory))
        assert copied.state.has(version, [lot])
    assert copied.everything(version) == run.everything(version)
    found_floats, found_raw = copied.state.buffers(version)
    assert torch.equal(found_floats, floats)
    assert bytes(found_raw.numpy()) == raw
    for n in (version, version + 1):
        run.update(n)
        copied.update(n)
    assert torch.equal(copied.state.weights(version + 2), run.state.weights(version + 2))
    assert copied.everything(version + 2)[:-1] == run.everything(version + 2)[:-1]


def test_restore_leaves_what_is_there_alone_and_reads_the_part_all_the_same(tmp_path: Path) -> None:
    run = Run(tmp_path / "one")
    run.update(0)
    parts = {lot: [(o, bytes(m)) for o, _, m in run.state.parts(lot, 1)] for lot in run.lots}
    run.state = VersionedState(str(tmp_path / "two"), run.plan)
    for lot in run.lots:
        for offset, data in parts[lot]:
            run.state.restore(lot, 1, offset, len(data), reader(data))
    before = run.everything(1)
    run.update(1)  # brought forward: version 1 and 2 are there
    run.update(2, lots=[0])  # lot 0 even further: its version 1 is gone
    later = run.everything(2)
    taken = []
    for lot in run.lots:
        for offset, data in parts[lot]:

            def garbage(target: memoryview) -> None:
                taken.append(len(target))
                target[:] = b"\xff" * len(target)

            run.state.restore(lot, 1, offset, len(data), garbage)
    assert taken == [len(data) for lot in run.lots for _, data in parts[lot]]
    assert run.everything(1)[1:] == before[1:]
    assert run.everything(2) == later
    assert run.state.has(3, [0])
    assert not run.state.has(1, [0])


def test_a_restore_that_broke_off_is_done_again(tmp_path: Path) -> None:
    run = Run(tmp_path / "one")
    run.update(0)
    expected = run.everything(1)
    parts = [(o, bytes(m)) for o, _, m in run.state.parts(0, 1)]
    run.state = VersionedState(str(tmp_path / "two"), run.plan)
    for offset, data in parts[:-1]:
        run.state.restore(0, 1, offset, len(data), reader(b"\xff" * len(data)))
    assert not run.state.has(1, [0])
    for offset, data in parts:
        run.state.restore(0, 1, offset, len(data), reader(data))
    assert run.everything(1)[0] == expected[0]


def test_a_part_of_another_run_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path / "one")
    state = VersionedState(str(tmp_path / "two"), run.plan)
    with pytest.raises(RuntimeError, match="part of lot 0 starts at byte 3"):
        state.restore(0, 0, 3, 4, reader(b"abcd"))


def test_parts_of_groups_with_and_without_state(tmp_path: Path) -> None:
    make = in_groups(torch.optim.SGD, {"momentum": 0.9}, {}, {"momentum": 0.9})
    run, copied = Run(tmp_path / "one", make), Run(tmp_path / "two", make)
    copied.state = VersionedState(str(tmp_path / "three"), run.plan)
    run.update(0)
    for lot in run.lots:
        for offset, _, memory in run.state.parts(lot, 1):
            copied.state.restore(lot, 1, offset, len(memory), reader(memory))
    run.update(1)
    copied.update(1)
    assert torch.equal(copied.state.weights(2), run.state.weights(2))


@pytest.mark.parametrize(("floats", "raw"), [(5, 3), (5, 0), (0, 3), (32, 16)])
def test_buffers_have_versions_too(floats: int, raw: int, tmp_path: Path) -> None:
    run = Run(tmp_path / "state", OPTIMIZERS["SGD"], None, floats, raw)
    lot = len(run.lots)
    assert run.plan.num_lots == lot + 1
    assert not run.state.has(0, [lot])
    for version in (0, 1):
        run.state.set_buffers(version, torch.full((floats,), float(version)), bytes([version]) * raw)
    run.state.set_buffers(1, torch.full((floats,), 9.0), bytes([9]) * raw)  # there already: nothing happens
    run.update(0)
    for version in (0, 1):
        run.state.require(version, [lot])
        found_floats, found_raw = run.state.buffers(version)
        assert found_floats.tolist() == [float(version)] * floats
        assert found_raw.tolist() == [version] * raw


def test_a_model_without_buffers_has_no_lot_for_them(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    assert not run.plan.has_buffers
    assert run.plan.num_lots == len(run.lots)


def test_views_outlive_close(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    weights = run.state.weights(0)
    run.state.close()
    assert torch.equal(weights, run.initial)


def test_buffers_that_cannot_travel_in_one_item_are_refused() -> None:
    found, _, plan = planned(OPTIMIZERS["SGD"], nn.Linear(2, 2))
    state_plan(found, plan.layout, (1 << 29) - (1 << 18), 0)
    with pytest.raises(ConfigError, match=r"buffers hold 2.1 GB, .* with requires_grad=False"):
        state_plan(found, plan.layout, (1 << 29) - (1 << 18), 1)


def test_a_state_begins_from_parts_of_the_weights(tmp_path: Path) -> None:
    _, _, plan = planned(OPTIMIZERS["SGD"], model())
    weights = torch.randn(plan.layout.size)
    states = [VersionedState(str(tmp_path / name), plan) for name in ("whole", "parts")]
    start(states[0], weights)
    states[1].begin(range(len(plan.layout.lots)), lambda a, b: weights[a:b], (torch.empty(0), b""))
    assert torch.equal(states[0].weights(0), states[1].weights(0))
    for state in states:
        state.close()
