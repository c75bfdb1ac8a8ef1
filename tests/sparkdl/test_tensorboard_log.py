"""What TensorBoard's files hold is read back from them, byte by byte as TensorBoard does."""

from __future__ import annotations

import math
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from sparkdl import Trainer
from sparkdl.callbacks import Callback, FitState, ModelCheckpoint
from sparkdl.errors import ConfigError
from sparkdl.history import History
from sparkdl.tensorboard_log import TensorBoard
from sparkdl.triggers import Moment
from tests.sparkdl.runs import arrays, mlp

pytest.importorskip("tensorboardX")

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkdl.history import StepRecord


def events(path: Path) -> list[Any]:
    """All events of a file: records of (length, its checksum, bytes, their checksum)."""
    from tensorboardX.proto.event_pb2 import Event

    data, found, at = path.read_bytes(), [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        event = Event()
        event.ParseFromString(data[at + 12 : at + 12 + length])
        found.append(event)
        at += 16 + length
    return found


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Name -> step -> value, of all files of a run in order of time, as TensorBoard shows them."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.iterdir(), key=lambda path: events(path)[0].wall_time):
        for event in events(path):
            if event.HasField("session_log"):  # an earlier run's steps from here on do not count
                found = {name: {s: v for s, v in line.items() if s < event.step} for name, line in found.items()}
            for value in event.summary.value:
                assert event.step not in found.setdefault(value.tag, {}), f"step {event.step} is written twice"
                found[value.tag][event.step] = value.simple_value
    return found


class Run:
    """A training's course as callbacks see it."""

    def __init__(self, callback: TensorBoard, begun: int = 0):
        self.callback, self.history = callback, History()
        self.noted: list[str] = []
        nothing: Any = None
        self.state = FitState(self.history, 4, nothing, nothing, nothing, self.noted.append)
        self.state.moment = Moment(begun, begun // 4, False)
        callback.on_fit_start(self.state)

    def step(self, step: int, loss: float = 0.5) -> StepRecord:
        record = self.history.add_step(step, step // 4, 10, 0.02, loss, 0.1, 3.0, 2.0, 1.0, {"accuracy": 0.75})
        self.callback.on_step_end(self.state, record)
        return record

    def epoch(self, steps: int) -> None:
        self.state.moment = Moment(steps, steps // 4, True, {"loss": 0.4, "val_loss": 0.25, "val_accuracy": 0.875})
        self.callback.on_validation_end(self.state)
        self.callback.on_epoch_end(self.state)


def test_every_step_and_every_validation_is_written(tmp_path: Path) -> None:
    run = Run(TensorBoard(tmp_path / "tb"))
    for step in range(4):
        run.step(step, 1.0 / (step + 1))
    run.epoch(4)
    found = scalars(tmp_path / "tb" / "train")  # visible at the epoch's end already
    assert found["loss"] == pytest.approx({1: 1.0, 2: 0.5, 3: 1 / 3, 4: 0.25})
    assert found["accuracy"] == dict.fromkeys(range(1, 5), 0.75)
    assert found["lr"][4] == pytest.approx(0.1)
    assert found["rows_per_second"][2] == pytest.approx(500)
    assert {name: line[3] for name, line in found.items() if name.startswith("ms/")} == {
        "ms/compute": 3.0, "ms/sync": 2.0, "ms/scheduling": 1.0,
    }  # fmt: skip
    assert scalars(tmp_path / "tb" / "validation") == {"loss": {4: 0.25}, "accuracy": {4: 0.875}}
    run.step(4, math.nan)
    run.callback.on_fit_end(run.state)
    assert math.isnan(scalars(tmp_path / "tb" / "train")["loss"][5])
    assert run.noted == []


def test_some_steps_only(tmp_path: Path) -> None:
    run = Run(TensorBoard(str(tmp_path), every=3))
    for step in range(8):
        run.step(step)
    run.callback.on_fit_end(run.state)
    assert sorted(scalars(tmp_path / "train")["loss"]) == [3, 6]


def test_a_resumed_run_shows_no_step_twice(tmp_path: Path) -> None:
    first = Run(TensorBoard(tmp_path))
    for step in range(6):  # the checkpoint was at step 4; the driver died after step 6
        first.step(step, 1.0)
    first.epoch(6)
    first.callback._close()  # as the end of its process does
    second = Run(TensorBoard(tmp_path), begun=4)
    for step in range(4, 9):
        second.step(step, 2.0)
    second.epoch(8)
    second.callback.on_fit_end(second.state)
    assert scalars(tmp_path / "train")["loss"] == dict.fromkeys(range(1, 5), 1.0) | dict.fromkeys(range(5, 10), 2.0)
    assert sorted(scalars(tmp_path / "validation")["loss"]) == [8]


def test_a_step_that_is_reported_again_is_not_written_again(tmp_path: Path) -> None:
    run = Run(TensorBoard(tmp_path))
    record = run.step(0)
    run.callback.on_step_end(run.state, record)
    run.callback.on_fit_end(run.state)
    assert list(scalars(tmp_path / "train")["loss"]) == [1]  # scalars() fails at a second one


@pytest.mark.spark
def test_a_remote_path_gets_the_files_at_each_epochs_end(spark: SparkSession, tmp_path: Path) -> None:
    callback = TensorBoard(f"file://{tmp_path}/x")
    assert callback.path == f"{tmp_path}/x"  # local, so nothing is copied
    callback.path, callback._remote = f"file:{tmp_path}/far", True  # the one remote file system that is here
    run = Run(callback)
    for step in range(4):
        run.step(step)
    assert not (tmp_path / "far").exists()
    run.epoch(4)
    (folder,) = {path.parent for path in (tmp_path / "far").rglob("events*") if path.parent.name == "train"}
    assert len(scalars(folder)["loss"]) == 4
    run.step(4)
    aside = Path(callback._aside.name)  # type: ignore[union-attr]
    callback.on_fit_end(run.state)
    assert len(scalars(folder)["loss"]) == 5
    assert len(list(folder.glob("events*"))) == 1
    assert not aside.exists()
    assert run.noted == []


@pytest.mark.spark
def test_a_copy_that_fails_does_not_end_the_training(spark: SparkSession, tmp_path: Path) -> None:
    run = Run(TensorBoard("nosuch://nowhere/tb"))
    run.step(0)
    run.epoch(1)
    run.callback.on_fit_end(run.state)
    assert run.noted[0].startswith("TensorBoard's files could not be copied, the next epoch tries again: nosuch://")
    assert len(run.noted) == 2


class Dies(Callback):
    """Ends the training with an error after the checkpoint of the first epoch and the steps of the second."""

    def on_epoch_end(self, state: FitState) -> bool | None:
        if state.moment.epoch == 2:
            raise KeyboardInterrupt
        return None


@pytest.mark.spark
def test_a_training_that_died_and_was_resumed_shows_each_step_once(spark: SparkSession, tmp_path: Path) -> None:
    data = arrays(rows=24)
    died: list[Callback] = [Dies()]
    while True:
        board = TensorBoard(tmp_path / "tb")
        trainer = Trainer(mlp(), torch.nn.CrossEntropyLoss(), batch_size=8, replicas=1)
        callbacks = [ModelCheckpoint(f"{tmp_path}/checkpoints"), board, *died]
        try:
            trainer.fit(data, epochs=2, validation=data, resume="auto", callbacks=callbacks, verbose=0)
            break
        except KeyboardInterrupt:
            board._close()  # as the end of its process does
            died.clear()
    assert sorted(scalars(tmp_path / "tb" / "train")["loss"]) == [1, 2, 3, 4, 5, 6]
    assert sorted(scalars(tmp_path / "tb" / "validation")["loss"]) == [3, 6]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": ""}, "TensorBoard's path is ''; pass a directory"),
        ({"path": 3}, "TensorBoard's path is 3"),
        ({"path": "x", "every": 0}, "TensorBoard's every is 0; pass a positive number of steps"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TensorBoard(**arguments)


def test_without_tensorboardx_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    with pytest.raises(ConfigError, match=r"pip install 'sparkdl-torch\[tensorboard\]'"):
        TensorBoard("runs")
