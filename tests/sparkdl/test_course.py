"""Between the steps: what is asked when, in which order, and what ends a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sparkdl import optim
from sparkdl.callbacks import Callback, FitState
from sparkdl.history import History, StepRecord
from sparkdl.step_settings import Plan, StepSettings
from sparkdl.training_loop import Schedule, StepReport, train
from sparkdl.triggers import EveryEpoch, MaxEpoch, MaxIteration, MinLoss, Moment, SeveralIteration, Trigger
from tests.sparkdl.runs import course

PLAN = Plan("run", 0, 8, (24,), ((0, 1),))  # three steps an epoch


class Steps:
    """An engine whose step s has the loss 10 - s."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def run(self, steps: Sequence[StepSettings]) -> list[StepReport]:
        self.steps += [s.step for s in steps]
        return [StepReport(s, np.array([[8, 8, 8.0 * (10 - s.step), 0, 0, 0, 0]]), 0.01) for s in steps]

    def mark(self) -> list[StepReport]:
        return []


def run(
    until: Trigger,
    validate: Callable[[], Mapping[str, float]] | None = None,
    every: Trigger | None = None,
    callbacks: Any = (),
) -> tuple[list[int], History]:
    template, stand_in = optim.template(partial(torch.optim.SGD, lr=1.0), nn.Linear(3, 2))
    engine, history = Steps(), History()
    of_run = course(history, PLAN, until, validate, every, callbacks)
    if not of_run.begin(0):
        train(engine, PLAN, Schedule(stand_in, None, template.hyper), of_run, 1, [], history)
        of_run.end()
    return engine.steps, history


class Diary(Callback):
    """Writes every call down; stops at one."""

    def __init__(self, stop_at: tuple[str, int] | None = None, pauses: Trigger | None = None):
        self.calls: list[tuple[str, int]] = []
        self.stop_at, self.pauses = stop_at, pauses
        self.values: list[dict[str, float]] = []

    def _note(self, name: str, step: int) -> bool:
        self.calls.append((name, step))
        return (name, step) == self.stop_at

    def on_fit_start(self, state: FitState) -> bool:
        return self._note("start", state.moment.step)

    def on_step_end(self, state: FitState, record: StepRecord) -> bool:
        return self._note("step", record.step + 1)

    def on_validation_end(self, state: FitState) -> bool:
        self.values.append(dict(state.moment.values))
        return self._note("validation", state.moment.step)

    def on_epoch_end(self, state: FitState) -> bool:
        return self._note("epoch", state.moment.step)

    def pauses_at(self, moment: Moment) -> bool:
        return self.pauses is not None and self.pauses(moment)

    def on_pause(self, state: FitState) -> bool:
        return self._note("pause", state.moment.step)

    def on_fit_end(self, state: FitState) -> None:
        self._note("end", state.moment.step)


def test_hooks_in_their_order() -> None:
    diary = Diary(pauses=SeveralIteration(2))
    run(MaxIteration(4), lambda: {"loss": 0.5}, EveryEpoch(), [diary])
    assert diary.calls == [
        ("start", 0),
        ("step", 1),
        ("step", 2),
        ("pause", 2),
        ("step", 3),
        ("validation", 3),
        ("epoch", 3),
        ("step", 4),
        ("pause", 4),
        ("end", 4),
    ]
    assert diary.values == [{"loss": 9.0, "val_loss": 0.5}]  # the epoch's mean of 10, 9, 8


@pytest.mark.parametrize(
    ("stop_at", "steps"),
    [(("start", 0), 0), (("step", 2), 3), (("validation", 4), 4), (("epoch", 3), 3), (("pause", 6), 6)],
)
def test_every_hook_can_end_the_run(stop_at: tuple[str, int], steps: int) -> None:
    diary, other = Diary(stop_at, SeveralIteration(3)), Diary()
    done, _ = run(MaxEpoch(9), lambda: {"loss": 0.5}, SeveralIteration(4), [diary, other])
    assert len(done) == steps
    assert (stop_at in other.calls) == (stop_at[0] != "pause"), "one that says stop keeps the others from being asked"


def test_a_value_ends_the_run_where_it_is_measured() -> None:
    assert len(run(MaxEpoch(9) | MinLoss(8.0))[0]) == 6  # epoch means 9, 6, …; single steps are not looked at
    values = iter([0.9, 0.5, 0.1])
    found, history = run(MaxEpoch(9) | MinLoss(0.3, "val_loss"), lambda: {"loss": next(values)}, SeveralIteration(2))
    assert len(found) == 6
    assert history["val_loss"][-1] == 0.1
    assert history.validations.to_dict("list") == {"epoch": [0, 1, 1], "step": [2, 4, 6], "val_loss": [0.9, 0.5, 0.1]}


def test_an_epoch_without_a_validation_has_no_value() -> None:
    _, history = run(MaxEpoch(2), lambda: {"loss": 1.0}, SeveralIteration(6))
    assert np.isnan(history["val_loss"][0])
    assert history["val_loss"][1] == 1.0


def test_nothing_left_to_do() -> None:
    history = History()
    assert course(history, PLAN, MaxEpoch(2)).begin(6)
    assert not course(history, PLAN, MaxEpoch(2)).begin(5)
