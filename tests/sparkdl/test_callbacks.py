"""Early stopping, checkpoints and the learning rate's notes, each on a course of values."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from sparkdl.callbacks import (
    Callback,
    EarlyStopping,
    FitState,
    LearningRateMonitor,
    ModelCheckpoint,
    Monitor,
)
from sparkdl.checkpoint_files import checkpoint_name
from sparkdl.errors import ConfigError
from sparkdl.history import History, StepRecord
from sparkdl.triggers import EveryEpoch, Moment, SeveralIteration


class World:
    """A training whose checkpoints are names in a set."""

    def __init__(self) -> None:
        self.model, self.there, self.notes = nn.Linear(2, 1), set[str](), list[str]()
        self.state = FitState(History(), 10, lambda: self.model, self._save, self.there.discard, self.notes.append)

    def _save(self, root: str) -> str:
        path = checkpoint_name(root, self.state.moment.step)
        self.there.add(path)
        return path

    def at(self, step: int, **values: float) -> FitState:
        self.state.moment = Moment(step, step // 10, step % 10 == 0, values)
        return self.state


def stops(callback: EarlyStopping, values: list[float]) -> int | None:
    """After how many values it says stop."""
    world = World()
    for number, value in enumerate(values):
        nn.init.constant_(world.model.weight, number)
        if callback.on_validation_end(world.at(10 * (number + 1), **{callback.monitor.name: value})):
            callback.on_fit_end(world.state)
            if callback.restore_best:
                assert world.model.weight[0, 0] == callback.best_step / 10 - 1
            return number + 1
    return None


@pytest.mark.parametrize(
    ("values", "options", "count"),
    [
        ([3, 2, 1, 0], {}, None),
        ([3, 2, 2, 2], {"patience": 1}, 4),
        ([3, 2, 2, 1, 2, 2], {"patience": 1}, 6),
        ([1, 2], {"patience": 0}, 2),
        ([1, 2, 1.5], {"patience": 0, "mode": "max"}, 3),
        ([3, 2.95, 2.9, 2.85], {"patience": 1, "min_delta": 0.1}, 3),
        ([math.nan, math.nan], {"patience": 1}, 2),
        ([2, math.nan, 1, 0], {"patience": 1, "restore_best": True}, None),
        ([2, 1, 3, 3], {"patience": 1, "restore_best": True}, 4),
    ],
)
def test_early_stopping(values: list[float], options: dict[str, float], count: int | None) -> None:
    assert stops(EarlyStopping("val_loss", **options), values) == count  # type: ignore[arg-type]


def test_early_stopping_says_why() -> None:
    world, callback = World(), EarlyStopping("val_auc", patience=0, mode="max")
    callback.on_validation_end(world.at(10, val_auc=0.9))
    assert callback.on_validation_end(world.at(20, val_auc=0.8))
    assert world.notes == ["stopped at step 20: val_auc has not been better than 0.9 (step 10) for 1 measurements"]
    assert world.state.history.events[-1] == (20, world.notes[0])


def test_early_stopping_on_the_training_loss_looks_at_epochs() -> None:
    world, callback = World(), EarlyStopping("loss", patience=0)
    assert callback.on_validation_end(world.at(5, val_loss=1.0)) is None
    assert callback.on_epoch_end(world.at(10, loss=1.0)) is False
    assert callback.on_epoch_end(world.at(20, loss=1.0)) is True


@pytest.mark.parametrize("cut", range(1, 5))
def test_early_stopping_goes_on_after_a_resume(cut: int) -> None:
    values = [2.0, 1.0, 3.0, 3.0, 0.5]
    whole = EarlyStopping(patience=1, restore_best=True)
    first, second = EarlyStopping(patience=1, restore_best=True), EarlyStopping(patience=1, restore_best=True)
    count = stops(whole, values)
    assert count == 4
    if stops(first, values[:cut]) is None:
        second.load_state_dict(first.state_dict())
        second.load_tensors(first.tensors())
        world = World()
        for n in range(cut, 4):
            nn.init.constant_(world.model.weight, n)
            answer = second.on_validation_end(world.at(10 * (n + 1), val_loss=values[n]))
        assert answer is True
        assert second.best_step == whole.best_step == 20
        assert torch.equal(second.tensors()["weight"], whole.tensors()["weight"])


def test_a_value_that_nobody_measures() -> None:
    with pytest.raises(ConfigError, match="monitor='val_f1' was not measured; there are 'val_loss'"):
        EarlyStopping("val_f1").on_validation_end(World().at(10, val_loss=1.0))


@pytest.mark.parametrize(
    ("keep_last", "monitor", "left"),
    [
        (None, None, [10, 20, 30, 40]),
        (1, None, [40]),
        (2, None, [30, 40]),
        (2, "val_loss", [20, 30, 40]),
        (1, "val_loss", [20, 40]),
    ],
)
def test_which_checkpoints_stay(keep_last: int | None, monitor: str | None, left: list[int]) -> None:
    world = World()
    callback = ModelCheckpoint("there/", EveryEpoch(), keep_last, monitor)
    for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0), (40, 2.0)):
        assert callback.pauses_at(Moment(step, step // 10, True))
        callback.on_pause(world.at(step, loss=0.0, val_loss=loss))
        resumed = ModelCheckpoint("there/", EveryEpoch(), keep_last, monitor)
        resumed.load_state_dict(callback.state_dict())
        callback = resumed
    assert world.there == {f"there/step-{step:08d}" for step in left}
    assert callback.last_path == "there/step-00000040"
    assert callback.best_path == ("there/step-00000020" if monitor else None)


def test_a_better_one_replaces_the_best() -> None:
    world, callback = World(), ModelCheckpoint("c", SeveralIteration(5), 1, "val_loss")
    for step, values in ((5, {"val_loss": 2.0}), (10, {"loss": 1.0}), (15, {"val_loss": 1.0}), (20, {"loss": 1.0})):
        callback.on_pause(world.at(step, **values))
    assert world.there == {"c/step-00000015", "c/step-00000020"}


def test_a_training_value_that_nobody_measures() -> None:
    callback = ModelCheckpoint("c", monitor="f1")
    with pytest.raises(ConfigError, match="monitor='f1' was not measured; there are 'loss'"):
        callback.on_pause(World().at(10, loss=1.0))


def test_the_learning_rate_is_noted_when_it_changes_much() -> None:
    world, callback = World(), LearningRateMonitor()
    for step, rate in enumerate([0.1, 0.09, 0.06, 0.05, 0.05, 0.0, 0.0]):
        record = StepRecord(step, 0, 8, 0.01, 1.0, rate, 1.0, 1.0, 1.0)
        callback.on_step_end(world.state, record)
    assert world.notes == ["learning rate 0.1 -> 0.05 at step 4", "learning rate 0.05 -> 0 at step 6"]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: EarlyStopping(mode="least"), "mode is 'least'; pass 'min' if small values of 'val_loss' are good"),
        (lambda: EarlyStopping(patience=-1), "patience is -1; pass how many measurements"),
        (lambda: EarlyStopping(min_delta=-0.1), "min_delta is -0.1; pass 0 or more"),
        (lambda: ModelCheckpoint(""), "ModelCheckpoint's path is ''; pass a directory"),
        (lambda: ModelCheckpoint(Path("c")), "ModelCheckpoint's path is PosixPath"),  # type: ignore[arg-type]
        (lambda: ModelCheckpoint("c", every=200), "every is 200; pass a trigger such as SeveralIteration"),  # type: ignore[arg-type]
        (lambda: ModelCheckpoint("c", keep_last=0), "keep_last is 0; pass a positive number of checkpoints"),
        (lambda: LearningRateMonitor(1.0), "factor is 1.0; pass a number above 1"),
        (lambda: Monitor("loss", "up"), "mode is 'up'"),
    ],
)
def test_arguments_that_cannot_be_used(make: object, sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make()  # type: ignore[operator]
    assert str(raised.value).startswith(sentence)


def test_a_callback_does_nothing_by_itself() -> None:
    world, callback = World(), Callback()
    state = world.at(10, loss=1.0)
    assert not callback.pauses_at(state.moment)
    assert [callback.on_fit_start(state), callback.on_epoch_end(state), callback.on_pause(state)] == [None] * 3
    assert callback.state_dict() == callback.tensors() == {}
