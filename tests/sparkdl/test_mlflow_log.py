"""What MLflow is told, by a module that stands in for it."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

from sparkdl.callbacks import FitState
from sparkdl.errors import ConfigError
from sparkdl.history import History
from sparkdl.mlflow_log import BATCH, MLflowLogger
from sparkdl.triggers import Moment


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class FakeRun:
    def __init__(self, run_id: str, name: str | None):
        self.info = types.SimpleNamespace(run_id=run_id, run_name=name)
        self.params: dict[str, str] = {}
        self.metrics: list[Metric] = []
        self.models: list[torch.nn.Module] = []
        self.status = "RUNNING"


class FakeMlflow(types.ModuleType):
    """As much of MLflow as is used, with its rules: one active run, parameters that cannot change, 1000 a batch."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.runs: dict[str, FakeRun] = {}
        self.experiment: str | None = None
        self.active: FakeRun | None = None
        self.broken = False
        self.entities = types.SimpleNamespace(Metric=Metric)
        self.pytorch = types.ModuleType("mlflow.pytorch")
        self.pytorch.log_model = self._log_model  # type: ignore[attr-defined]

    def active_run(self) -> FakeRun | None:
        return self.active

    def set_experiment(self, name: str) -> None:
        self.experiment = name

    def start_run(self, run_id: str | None = None, run_name: str | None = None) -> FakeRun:
        assert self.active is None, "Run is already active"
        if run_id is None:
            run_id = f"run{len(self.runs)}"
            self.runs[run_id] = FakeRun(run_id, run_name)
        self.active = self.runs[run_id]
        self.active.status = "RUNNING"
        return self.active

    def end_run(self, status: str = "FINISHED") -> None:
        assert self.active is not None
        self.active.status, self.active = status, None

    def log_params(self, params: dict[str, str]) -> None:
        assert self.active is not None
        for name, value in params.items():
            assert self.active.params.get(name, value) == value, "Changing param values is not allowed"
            self.active.params[name] = value

    def MlflowClient(self) -> FakeMlflow:
        return self

    def log_batch(self, run_id: str, metrics: list[Metric]) -> None:
        if self.broken:
            raise ConnectionError("no answer")
        assert len(metrics) <= 1000
        self.runs[run_id].metrics += metrics

    def _log_model(self, pytorch_model: torch.nn.Module, name: str, serialization_format: str = "pt2") -> None:
        assert self.active is not None
        assert (name, serialization_format) == ("model", "pickle"), "pt2 asks for an input_example"
        self.active.models.append(pytorch_model)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMlflow:
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setitem(sys.modules, "mlflow.pytorch", fake.pytorch)
    return fake


MODEL = torch.nn.Linear(2, 1)


class Run:
    """A training's course as callbacks see it."""

    def __init__(self, callback: MLflowLogger, begun: int = 0, settings: Any = None):
        self.callback, self.history, self.noted = callback, History(), list[str]()
        if settings:
            self.history.settings = settings  # type: ignore[attr-defined]
        nothing: Any = None
        self.state = FitState(self.history, 4, lambda: MODEL, nothing, nothing, self.noted.append)
        self.state.moment = Moment(begun, begun // 4, False)
        callback.on_fit_start(self.state)

    def steps(self, start: int, stop: int) -> None:
        for step in range(start, stop):
            record = self.history.add_step(step, step // 4, 10, 0.02, 1.0 / (step + 1), 0.1, 3, 2, 1, {"accuracy": 0.5})
            self.callback.on_step_end(self.state, record)

    def epoch(self, steps: int) -> None:
        self.state.moment = Moment(steps, steps // 4, True, {"loss": 0.4, "val_loss": 0.25})
        self.callback.on_validation_end(self.state)
        self.callback.on_epoch_end(self.state)


def curve(run: FakeRun, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in run.metrics if metric.key == name]


def test_a_run_of_its_own(mlflow: FakeMlflow) -> None:
    logger = MLflowLogger("digits", "first", params={"note": "x" * 1000})
    run = Run(logger, settings={"batch_size": 64})
    run.steps(0, 4)
    run.epoch(4)
    (found,) = mlflow.runs.values()
    assert curve(found, "loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert curve(found, "accuracy")[3] == (4, 0.5)
    assert curve(found, "lr")[0] == (1, 0.1)
    assert curve(found, "rows_per_second")[0] == (1, 500.0)
    assert curve(found, "val_loss") == [(4, 0.25)]
    assert curve(found, "val_accuracy") == []
    assert mlflow.experiment == "digits"
    assert found.info.run_name == "first"
    assert found.params == {"steps_per_epoch": "4", "batch_size": "64", "note": "x" * 500}
    run.callback.on_fit_end(run.state)
    assert found.models == [MODEL]
    assert found.status == "FINISHED"
    assert mlflow.active is None
    assert run.noted == []


def test_the_users_run_is_used_and_stays_open(mlflow: FakeMlflow) -> None:
    mine = mlflow.start_run(run_name="mine")
    run = Run(MLflowLogger("ignored", log_model=False))
    run.steps(0, 1)
    run.callback.on_fit_end(run.state)
    assert mlflow.active is mine
    assert mlflow.experiment is None, "an active run has its experiment already"
    assert curve(mine, "loss") == [(1, 1.0)]
    assert mine.models == []


def test_a_resumed_training_goes_on_in_its_run(mlflow: FakeMlflow) -> None:
    first = MLflowLogger()
    run = Run(first)
    run.steps(0, 4)
    run.epoch(4)
    saved = first.state_dict()
    mlflow.active = None  # its driver died
    second = MLflowLogger()
    second.load_state_dict(saved)
    run = Run(second, begun=4, settings={"batch_size": 32})
    run.steps(4, 6)
    run.callback.on_fit_end(run.state)
    (found,) = mlflow.runs.values()
    assert [step for step, _ in curve(found, "loss")] == [1, 2, 3, 4, 5, 6]
    assert "batch_size" not in found.params, "parameters are logged once, at the start"


def test_steps_are_sent_in_batches_and_some_only_if_wanted(mlflow: FakeMlflow) -> None:
    run = Run(MLflowLogger(every=5))
    run.steps(0, 3000)
    (found,) = mlflow.runs.values()
    assert BATCH <= len(found.metrics) <= 4 * 600
    run.callback.on_fit_end(run.state)
    assert [step for step, _ in curve(found, "loss")] == list(range(5, 3001, 5))


def test_a_server_that_does_not_answer_ends_nothing_and_gets_everything_later(mlflow: FakeMlflow) -> None:
    run = Run(MLflowLogger())
    mlflow.broken = True
    run.steps(0, 4)
    run.epoch(4)
    run.steps(4, 600)
    run.epoch(600)
    (found,) = mlflow.runs.values()
    assert found.metrics == []
    assert run.noted == ["MLflow did not take the values up to step 4, more tries follow: no answer"]
    mlflow.broken = False
    run.callback.on_fit_end(run.state)
    assert [step for step, _ in curve(found, "loss")] == list(range(1, 601))


def refuses(*args: Any, **more: Any) -> None:
    raise ModuleNotFoundError("No module named 'pandas'")


def older(model: torch.nn.Module, artifact_path: str) -> None:
    assert artifact_path == "model"


@pytest.mark.parametrize(
    ("log", "noted"),
    [
        (refuses, ["MLflow did not take the model: ModuleNotFoundError: No module named 'pandas'"]),
        (older, []),
    ],
)
def test_a_model_that_is_not_taken_is_a_note(mlflow: FakeMlflow, log: Callable[..., Any], noted: list[str]) -> None:
    mlflow.pytorch.log_model = log  # type: ignore[attr-defined]
    run = Run(MLflowLogger())
    run.callback.on_fit_end(run.state)
    assert run.noted == noted
    assert mlflow.runs["run0"].status == "FINISHED"


def test_a_training_that_failed_leaves_its_run_to_the_next(mlflow: FakeMlflow) -> None:
    logger = MLflowLogger()
    Run(logger)  # ends with an error, so on_fit_end is not called
    run = Run(logger)
    run.callback.on_fit_end(run.state)
    assert [found.status for found in mlflow.runs.values()] == ["FAILED", "FINISHED"]


def test_without_mlflow_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match="MLflowLogger needs mlflow, which is not installed here"):
        MLflowLogger()


def test_every_must_be_a_count(mlflow: FakeMlflow) -> None:
    with pytest.raises(ConfigError, match="MLflowLogger's every is 0"):
        MLflowLogger(every=0)
