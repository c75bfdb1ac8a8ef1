"""A fit with validation, callbacks and checkpoints; resumed, it ends with the bits of one that never stopped."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession
from torch import nn
from torch.optim import lr_scheduler

from sparkdl import (
    Callback,
    EarlyStopping,
    EveryEpoch,
    MaxIteration,
    ModelCheckpoint,
    SeveralIteration,
    Trainer,
)
from sparkdl.callbacks import FitState
from sparkdl.errors import ConfigError
from sparkdl.fit_run import restore_callbacks
from sparkdl.history import History
from tests.sparkdl import resume_run
from tests.sparkdl.runs import arrays, norm_net

ROWS = 200  # with batches of 16: 10 steps an epoch of the 160 rows that are not held out


def trainer(form: str = "gather", steps_per_job: int = 1, **more: Any) -> Trainer:
    return Trainer(
        norm_net(),
        nn.CrossEntropyLoss(),
        partial(torch.optim.Adam, lr=0.01),
        scheduler=partial(lr_scheduler.CosineAnnealingLR, T_max=40),
        metrics={"accuracy": lambda output, target: (output.argmax(1) == target).float().mean()},
        **{"batch_size": 16, "replicas": 2, "form": form, "steps_per_job": steps_per_job, "seed": 3, **more},
    )


def fit(of: Trainer, root: Path, epochs: Any = 3, more: tuple[Callback, ...] = (), **options: Any) -> History:
    checkpoints = ModelCheckpoint(str(root), every=SeveralIteration(7) | EveryEpoch(), keep_last=2)
    stopping = EarlyStopping("val_loss", patience=1, restore_best=True)
    return of.fit(
        arrays(ROWS),
        epochs,
        validation=0.2,
        validate_every=SeveralIteration(5),
        callbacks=[stopping, checkpoints, *more],
        verbose=0,
        **options,
    )


class Stop(Callback):
    """Ends the training after a step, as if the driver had died behind its last checkpoint."""

    def __init__(self, step: int):
        self.step = step

    def pauses_at(self, moment: Any) -> bool:
        return bool(moment.step == self.step)

    def on_pause(self, state: FitState) -> bool:
        raise KeyboardInterrupt

    def on_exception(self, state: FitState, error: BaseException) -> None:
        assert isinstance(error, KeyboardInterrupt)
        self.step = -1


@pytest.fixture(scope="module")
def whole(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[History, Trainer]:
    """The training that nobody stopped."""
    one = trainer()
    return fit(one, tmp_path_factory.mktemp("whole")), one


@pytest.mark.parametrize(
    ("form", "steps_per_job", "dies_at"), [("gather", 1, 8), ("gather", 10, 23), ("fused", 4, 19), ("jobs", 1, 29)]
)
def test_a_resumed_training_has_the_same_bits(
    whole: tuple[History, Trainer], tmp_path: Path, form: str, steps_per_job: int, dies_at: int
) -> None:
    expected, model = whole
    stop = Stop(dies_at)
    with pytest.raises(KeyboardInterrupt):
        fit(trainer(form, steps_per_job), tmp_path, more=(stop,))
    assert stop.step == -1, "the callback was not told"
    second = trainer(form, steps_per_job, replicas=None)  # the checkpoint says how many there were
    history = fit(second, tmp_path, resume="auto")
    assert history.fingerprint == expected.fingerprint
    assert history["val_loss"] == expected["val_loss"]
    assert np.array_equal(history.validations, expected.validations)
    assert np.array_equal(history.steps[["step", "loss", "lr"]], expected.steps[["step", "loss", "lr"]])
    for name, tensor in second.model.state_dict().items():
        assert torch.equal(tensor, model.model.state_dict()[name]), name
    last = trainer()
    again = fit(last, tmp_path, resume="auto")  # finished: nothing is left to do
    assert again.fingerprint == expected.fingerprint
    assert len(again.steps) == len(expected.steps)


class Looks(Callback):
    """Looks at the weights in every hook that may."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float]] = []

    def _look(self, name: str, state: FitState) -> None:
        self.seen.append((name, float(next(state.model.parameters()).detach().sum())))

    def on_fit_start(self, state: FitState) -> None:
        self._look("start", state)

    def on_step_end(self, state: FitState, record: Any) -> None:
        self._look("step", state)

    def on_epoch_end(self, state: FitState) -> None:
        self._look("epoch", state)

    def on_fit_end(self, state: FitState) -> None:
        self._look("end", state)


def test_the_weights_that_a_callback_sees(spark: SparkSession) -> None:
    looks, one = Looks(), trainer()
    first = float(next(one.model.parameters()).detach().sum())
    one.fit(arrays(32), 2, callbacks=[looks], verbose=0)  # two steps an epoch
    names, sums = [name for name, _ in looks.seen], [value for _, value in looks.seen]
    assert names == ["start", "step", "step", "epoch", "step", "step", "epoch", "end"]
    assert sums[0] == sums[1] == sums[2] == first, "in on_step_end those of the last pause"
    assert sums[3] == sums[4] == sums[5] != first
    assert sums[6] == sums[7] == float(next(one.model.parameters()).detach().sum()) != sums[3]


def test_a_finished_training_may_go_further(whole: tuple[History, Trainer], tmp_path: Path) -> None:
    fit(trainer(), tmp_path, epochs=1)
    assert fit(trainer(), tmp_path, epochs=3, resume="auto").fingerprint == whole[0].fingerprint


def test_what_a_fit_leaves_behind(whole: tuple[History, Trainer], tmp_path: Path) -> None:
    expected, _ = whole
    one = trainer()
    fit(one, tmp_path, MaxIteration(15))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000014"]
    assert "val_accuracy" in expected
    loaded = trainer()
    loaded.load_checkpoint(str(tmp_path))
    from safetensors.torch import load_file

    found = load_file(tmp_path / "step-00000014" / "model.safetensors")
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, found[name])


def test_resume_without_a_checkpoint_begins_at_the_start(tmp_path: Path, whole: tuple[History, Trainer]) -> None:
    assert fit(trainer(), tmp_path / "nothing", resume="auto").fingerprint == whole[0].fingerprint


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"resume": "auto"}, "resume='auto' looks where a ModelCheckpoint writes; add one to callbacks"),
        ({"callbacks": [EarlyStopping("val_loss")]}, "EarlyStopping monitors 'val_loss', but fit has no validation"),
        ({"callbacks": [ModelCheckpoint("c", monitor="val_f1")]}, "ModelCheckpoint monitors 'val_f1', but fit has no"),
        ({"callbacks": [print]}, "callbacks holds <built-in function print>; pass objects of classes"),
        ({"validate_every": 5}, "validate_every is 5; pass a trigger"),
        ({"validation": 1.5}, "validation=1.5 is a fraction of the rows: pass more than 0 and less than 1"),
        ({"epochs": 0}, "epochs is 0; pass a positive integer"),
    ],
)
def test_arguments_that_cannot_be_used(spark: SparkSession, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        trainer().fit(arrays(ROWS), **options)
    assert str(raised.value).startswith(sentence)


def test_validation_by_a_column_of_arrays_and_frames(spark: SparkSession) -> None:
    data = arrays(ROWS)
    held = np.arange(ROWS) % 4 == 0
    by_arrays = trainer().fit({**data, "held": held}, validation="held", verbose=0)
    given = trainer().fit(
        {n: v[~held] for n, v in data.items()}, validation={n: v[held] for n, v in data.items()}, verbose=0
    )
    assert by_arrays.fingerprint == given.fingerprint
    assert by_arrays["val_loss"] == given["val_loss"]
    rows = [(x.tolist(), int(y), bool(h)) for x, y, h in zip(data["features"], data["label"], held, strict=True)]
    frame = spark.createDataFrame(rows, "features array<float>, label long, held boolean")
    first = trainer().fit(frame, validation="held", verbose=0)
    other = trainer().fit(frame.repartition(5), validation="held", verbose=0)
    assert first.fingerprint == other.fingerprint
    assert first["val_loss"] == other["val_loss"]


def test_callbacks_find_what_is_theirs() -> None:
    saved = [
        {"type": "ModelCheckpoint", "state": {"best": 1.0, "best_path": "a", "last_path": "b", "kept": []}},
        {"type": "EarlyStopping", "state": {"best": 0.5, "best_step": 4, "waited": 1}},
        {"type": "EarlyStopping", "state": {"best": 0.7, "best_step": 5, "waited": 2}},
    ]
    found = SimpleNamespace(state=SimpleNamespace(callbacks=saved), tensors=[{}, {"w": torch.ones(1)}, {}])
    first, second, third = EarlyStopping(), EarlyStopping("val_f1"), EarlyStopping("val_auc")
    restore_callbacks([first, second, third], found)  # type: ignore[arg-type]
    assert [(c.waited, c.best_step) for c in (first, second, third)] == [(1, 4), (2, 5), (0, 0)]
    assert list(first.tensors()) == ["w"]


@pytest.mark.timeout(600)
def test_a_driver_that_is_killed_again_and_again(spark: SparkSession, tmp_path: Path) -> None:
    for name in ("cut", "whole"):
        (tmp_path / name).mkdir()
    options = ["--steps", "120", "--steps-per-job", "10"]
    found = resume_run.killed(tmp_path / "cut", 120, 2, 0, options)
    assert len(found.pop("killed_at")) == 2
    assert found == json.loads(json.dumps(resume_run.train(tmp_path / "whole", 120, 10, "gather")))
