"""What callbacks decide is a function of what was measured, and goes on after a resume as if nothing had happened."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparkdl.callbacks import (
    Callback,
    EarlyStopping,
    FitState,
    LearningRateMonitor,
    ModelCheckpoint,
    Monitor,
    checkpoint_name,
)
from sparkdl.errors import ConfigError
from sparkdl.history import History, StepRecord
from sparkdl.triggers import EveryEpoch, Moment, SeveralIteration

losses = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5, math.nan]), min_size=1, max_size=12)


class Course:
    """A training as callbacks see it: each epoch has one step, and measures what it is told to."""

    def __init__(self, callback: Callback, epoch: int = 0):
        self.callback, self.epoch = callback, epoch
        self.noted: list[str] = []
        self.there: list[str] = []  # checkpoints
        self.model = torch.nn.Linear(1, 1, bias=False)
        self.state = FitState(History(), 1, lambda: self.model, self.save, self.there.remove, self.noted.append)

    def save(self, root: str) -> str:
        path = checkpoint_name(root, self.state.moment.step)
        if path not in self.there:
            self.there.append(path)
        return path

    def next(self, **values: float) -> bool:
        """One epoch; whether the callback ended the training."""
        self.epoch += 1
        with torch.no_grad():
            self.model.weight.fill_(self.epoch)
        self.state.moment = Moment(self.epoch, self.epoch, True, values)
        ended = (
            bool(self.callback.on_validation_end(self.state)) if any(v.startswith("val_") for v in values) else False
        )
        ended |= bool(self.callback.on_epoch_end(self.state))
        if self.callback.pauses_at(self.state.moment):
            ended |= bool(self.callback.on_pause(self.state))
        return ended

    def until_it_ends(self, values: list[float], name: str = "val_loss") -> int | None:
        """How many epochs were run when it ended."""
        for value in values:
            if self.next(loss=1.0, **{name: value}):
                return self.epoch
        return None


def stops_at(values: list[float], patience: int, min_delta: float = 0.0) -> int | None:
    """The first measurement that is the (patience + 1)-th in a row without a new best."""
    best, waited = math.inf, 0
    for number, value in enumerate(values, 1):
        if value < best - min_delta or (math.isinf(best) and not math.isnan(value)):
            best, waited = value, 0
        else:
            waited += 1
            if waited > patience:
                return number
    return None


@given(values=losses, patience=st.integers(0, 4), min_delta=st.sampled_from([0.0, 0.15]))
def test_early_stopping_ends_after_patience(values: list[float], patience: int, min_delta: float) -> None:
    callback = EarlyStopping("val_loss", patience=patience, min_delta=min_delta)
    assert Course(callback).until_it_ends(values) == stops_at(values, patience, min_delta)
    largest = EarlyStopping("val_score", patience=patience, min_delta=min_delta, mode="max")
    assert Course(largest).until_it_ends([-v for v in values], "val_score") == stops_at(values, patience, min_delta)


@given(values=losses, patience=st.integers(0, 3), at=st.integers(0, 12))
def test_early_stopping_goes_on_after_a_resume(values: list[float], patience: int, at: int) -> None:
    whole = stops_at(values, patience)
    first = EarlyStopping("val_loss", patience=patience, restore_best=True)
    course = Course(first)
    ended = course.until_it_ends(values[:at])
    if ended is None:
        second = EarlyStopping("val_loss", patience=patience, restore_best=True)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        second.load_tensors({name: tensor.clone() for name, tensor in first.tensors().items()})
        course = Course(second, epoch=min(at, len(values)))
        ended = course.until_it_ends(values[at:])
    assert ended == whole
    course.callback.on_fit_end(course.state)
    seen = values[: ended or len(values)]
    if best := [value for value in seen if not math.isnan(value)]:
        assert course.model.weight.item() == seen.index(min(best)) + 1


def test_early_stopping_says_why_and_restores_the_best() -> None:
    course = Course(EarlyStopping("val_loss", patience=1, restore_best=True))
    assert course.until_it_ends([0.5, 0.25, 0.3, 0.4, 0.1]) == 4
    course.callback.on_fit_end(course.state)
    assert course.model.weight.item() == 2
    assert course.noted == [
        "stopped at step 4: val_loss has not been better than 0.25 (step 2) for 2 measurements",
        "the weights of step 2, the best, were restored",
    ]
    assert course.state.history.events == [(4, note) for note in course.noted]


def test_early_stopping_on_the_trainings_own_loss() -> None:
    course = Course(EarlyStopping("loss", patience=0))
    assert not course.next(loss=0.5, val_loss=9.0)
    assert course.next(loss=0.5, val_loss=1.0)


def test_a_value_that_is_never_measured_is_told() -> None:
    with pytest.raises(ConfigError, match=r"monitor='val_auc' was not measured; there are 'loss', 'val_loss'"):
        Course(EarlyStopping("val_auc")).next(loss=0.5, val_loss=0.5)
    with pytest.raises(ConfigError, match="monitor='auc' was not measured; there are 'loss'"):
        Course(EarlyStopping("auc")).next(loss=0.5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EarlyStopping(patience=-1), "patience is -1; pass how many"),
        (lambda: EarlyStopping(patience=1.5), "patience is 1.5"),  # type: ignore[arg-type]
        (lambda: EarlyStopping(mode="least"), "mode is 'least'; pass 'min' if small values of 'val_loss' are good"),
        (lambda: EarlyStopping(min_delta=-0.5), "min_delta is -0.5"),
        (lambda: ModelCheckpoint(""), "ModelCheckpoint's path is ''; pass a directory"),
        (lambda: ModelCheckpoint("x", every=3), "every is 3; pass a trigger"),  # type: ignore[arg-type]
        (lambda: ModelCheckpoint("x", keep_last=0), "keep_last is 0; pass a positive number"),
        (lambda: LearningRateMonitor(1.0), "factor is 1.0; pass a number above 1"),
    ],
)
def test_arguments_that_cannot_be(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


@given(values=losses, keep_last=st.integers(1, 3), at=st.integers(0, 12))
def test_the_last_checkpoints_and_the_best_stay(values: list[float], keep_last: int, at: int) -> None:
    first = ModelCheckpoint("root/", keep_last=keep_last, monitor="val_loss")
    course = Course(first)
    course.until_it_ends(values[:at])
    second = ModelCheckpoint("root", keep_last=keep_last, monitor="val_loss")
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    resumed = Course(second, epoch=min(at, len(values)))
    resumed.there = course.there
    resumed.state = FitState(History(), 1, lambda: resumed.model, resumed.save, resumed.there.remove, print)
    resumed.until_it_ends(values[at:])
    steps = range(1, len(values) + 1)
    known = [(value, step) for step, value in zip(steps, values, strict=True) if not math.isnan(value)]
    wanted = {*steps[-keep_last:], *([min(known)[1]] if known else [])}
    assert sorted(resumed.there) == [f"root/step-{step:08d}" for step in sorted(wanted)]
    assert second.last_path == f"root/step-{len(values):08d}"
    assert second.best_path == (f"root/step-{min(known)[1]:08d}" if known else None)


def test_all_checkpoints_stay_unless_told_otherwise_and_come_when_the_trigger_fires() -> None:
    callback = ModelCheckpoint("root", every=SeveralIteration(2))
    course = Course(callback)
    for _ in range(5):
        course.next(loss=1.0)
    assert course.there == ["root/step-00000002", "root/step-00000004"]
    assert ModelCheckpoint("root").every(Moment(3, 1, True)) == EveryEpoch()(Moment(3, 1, True))


def test_a_checkpoint_that_is_written_again_is_one_checkpoint() -> None:
    course = Course(ModelCheckpoint("root", keep_last=2))
    for epoch in (0, 1, 1):  # resumed before the last one's callbacks were saved
        course.epoch = epoch
        course.next(loss=1.0)
    assert course.there == ["root/step-00000001", "root/step-00000002"]


def test_a_nan_is_never_the_best() -> None:
    monitor = Monitor("loss", "max")
    assert not monitor.improved(math.nan)
    assert monitor.improved(-math.inf)
    assert monitor.improved(1.0)
    assert not monitor.improved(1.0)
    assert monitor.best == 1.0


def test_the_learning_rate_is_noted_where_it_changes_much() -> None:
    course = Course(LearningRateMonitor(factor=2.0))
    for step, rate in enumerate([0.1, 0.09, 0.06, 0.05, 0.04, 0.0, 0.0, 0.2]):
        record = StepRecord(step, 0, 10, 0.1, 1.0, rate, 1.0, 1.0, 1.0)
        assert not course.callback.on_step_end(course.state, record)
    assert course.noted == [
        "learning rate 0.1 -> 0.05 at step 4",
        "learning rate 0.05 -> 0 at step 6",
        "learning rate 0 -> 0.2 at step 8",
    ]


def test_a_callback_does_nothing_unless_told() -> None:
    callback = Callback()
    course = Course(callback)
    assert not course.next(loss=1.0, val_loss=1.0)
    assert callback.on_fit_start(course.state) is None
    assert callback.on_checkpoint(course.state, "path") is None
    callback.on_fit_end(course.state)
    callback.load_state_dict(callback.state_dict())
    callback.load_tensors(callback.tensors())
    assert (callback.state_dict(), callback.tensors(), course.noted) == ({}, {}, [])
