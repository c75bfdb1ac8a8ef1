"""Wrong input becomes one sentence before anything runs; right input trains; neither leaves anything behind."""

from __future__ import annotations

import glob
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from pyspark import SparkFiles
from pyspark.sql import DataFrame, SparkSession
from torch import nn

from sparkdl import Trainer, preflight_job, spark_conf
from sparkdl.errors import ClusterError, ConfigError, TrainingError
from sparkdl.replica import Batch
from sparkdl.spark_engine import SparkEngine
from tests.sparkdl.runs import arrays, mlp

SGD = partial(torch.optim.SGD, lr=0.1)
CROSS_ENTROPY = nn.CrossEntropyLoss()
SCHEMA = "features array<float>, label double"
ROWS = 30
FAR = 20  # a row that the try on the driver does not see


def rows() -> list[tuple[Any, Any]]:
    data = arrays(ROWS)
    return [(x.tolist(), float(y)) for x, y in zip(data["features"], data["label"], strict=True)]


def changed(row: int, features: Any = None, label: Any = 0.0) -> list[tuple[Any, Any]]:
    found = rows()
    found[row] = (found[row][0] if features is None else features, label)
    return found


def persistent(spark: SparkSession) -> set[int]:
    return set(spark.sparkContext._jsc.getPersistentRDDs())


def nothing_left(spark: SparkSession, before: set[int]) -> None:
    tracker = spark.sparkContext.statusTracker()
    deadline = time.monotonic() + 20  # a cancelled job ends when its tasks have noticed
    while tracker.getActiveJobsIds() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(tracker.getActiveJobsIds()) == []
    assert persistent(spark) <= before
    assert glob.glob(os.path.join(SparkFiles.getRootDirectory(), "sparkdl-*")) == []
    assert [spark.sparkContext.getLocalProperty(f"spark.{key}") for key in ("job.description", "jobGroup.id")] == [
        None,
        None,
    ]


@pytest.fixture
def tidy(spark: SparkSession) -> Iterator[SparkSession]:
    """A session; afterwards nothing of a run is left in it."""
    before = persistent(spark)
    yield spark
    nothing_left(spark, before)


@pytest.fixture
def refusing(tidy: SparkSession, monkeypatch: pytest.MonkeyPatch) -> SparkSession:
    """The same, where no step may run."""

    def begin(*arguments: Any) -> None:
        pytest.fail("a step would have run")

    monkeypatch.setattr(SparkEngine, "begin", begin)
    return tidy


def trainer(model: Any = None, loss: Any = CROSS_ENTROPY, optimizer: Any = SGD, **more: Any) -> Trainer:
    return Trainer(model or mlp(), loss, optimizer, **{"batch_size": 10, "replicas": 2} | more)


# --- arguments: refused by Trainer(...) itself, without a session


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 0}, "batch_size is 0; pass a positive integer"),
        ({"batch_size": -1}, "batch_size is -1; pass a positive integer"),
        ({"batch_size": 2.5}, "batch_size is 2.5; pass a positive integer"),
        ({"batch_size": True}, "batch_size is True; pass a positive integer"),
        ({"batch_size": "64"}, "batch_size is '64'; pass a positive integer"),
        ({"replicas": 0}, "replicas is 0; pass a positive integer"),
        ({"accumulate": 0}, "accumulate is 0; pass a positive integer"),
        ({"steps_per_job": 0}, "steps_per_job is 0; pass a positive integer"),
        ({"steps_per_job": 257}, "steps_per_job is 257; pass at most 256"),
        ({"form": "ring"}, "form is 'ring'; pass one of 'auto', 'jobs', 'fused', 'gather'"),
        ({"precision": "fp16"}, "precision is 'fp16'; pass one of 'fp32', 'bf16'"),
        ({"wire": "int8"}, "wire is 'int8'; pass one of 'fp32', 'bf16'"),
        ({"device": "gpu"}, "device is 'gpu'; pass 'auto', 'cpu' or 'cuda'"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0; pass a positive number, or None not to clip"),
        ({"clip_value": -1.0}, "clip_value is -1.0; pass a positive number, or None not to clip"),
        ({"loss": None}, "neither loss nor step_fn is given; pass for example loss=torch.nn.CrossEntropyLoss()"),
        ({"loss": "mse"}, "loss is 'mse', which cannot be called; pass a function"),
        ({"metrics": {"accuracy": 0.5}}, "accuracy is 0.5, which cannot be called; pass a function"),
        ({"scheduler": 0.1}, "scheduler is 0.1, which cannot be called; pass a function"),
        ({"model": 5}, "model is 5; pass an nn.Module or a function that builds one"),
        ({"model": dict}, "model=<class 'dict'> built a dict, not an nn.Module"),
        ({"steps_per_job": 2, "form": "jobs"}, "steps_per_job=2 puts steps into one job, form='jobs' splits them"),
        (
            {"steps_per_job": 2, "form": "fused", "clip_norm": 1.0},
            "steps_per_job=2 with clip_norm and form='fused': the norm of all slices must be known before any is "
            "updated, which ends the job; use form='gather' or steps_per_job=1",
        ),
        ({"feature_cols": []}, "feature_cols is empty: the model needs at least one input. Pass a column's name."),
        ({"feature_cols": {}}, "feature_cols is empty: the model needs at least one input."),
        ({"feature_cols": ""}, "feature_cols holds an empty name: pass the name of a column."),
        ({"feature_cols": [[]]}, "feature_cols holds an empty list: name at least one column"),
        ({"feature_cols": ["a", "a"]}, "feature_cols names 'a' twice in one list: remove one of them."),
        ({"feature_cols": [["a", "a"]]}, "feature_cols names 'a' twice in one list: remove one of them."),
        ({"label_col": []}, "label_col holds an empty list"),
        ({"weight_col": ""}, "weight_col holds an empty name"),
    ],
)
def test_arguments_that_cannot_be_used(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        trainer(**options)
    assert str(raised.value).startswith(sentence)


def test_a_model_function_is_seeded() -> None:
    def build() -> nn.Module:
        return nn.Linear(12, 5)

    before = torch.get_rng_state()
    first, again, other = (trainer(build, seed=seed).model.weight for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_models_built_on_several_threads_at_once_get_their_own_seeds() -> None:
    def slowly() -> nn.Module:
        layers = []
        for width in range(1, 6):
            layers.append(nn.Linear(width, width))
            time.sleep(0.002)  # another thread's turn
        return nn.Sequential(*layers)

    def weights(seed: int) -> bytes:
        built = Trainer(slowly, CROSS_ENTROPY, SGD, replicas=1, batch_size=1, seed=seed).model
        return b"".join(value.numpy().tobytes() for value in built.state_dict().values())

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(weights, range(12)))
    assert together == [weights(seed) for seed in range(12)]


# --- data and set-ups: refused by fit, before any step


class Case(NamedTuple):
    """A set-up and the sentence that fit answers with. ``data`` may be a function of the session."""

    sentence: str
    data: Any = None
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed


def frame(content: Callable[[], list[tuple[Any, Any]]], schema: str = SCHEMA) -> Callable[[SparkSession], DataFrame]:
    return lambda spark: spark.createDataFrame(content(), schema)


class Locked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()
        self.guard = threading.Lock()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.inner(features)


class Flat(nn.Module):
    """Forgets the axis of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.inner(features).sum(1)


def ragged_arrays() -> dict[str, Any]:
    return {"features": [[0.0] * (11 if row == FAR else 12) for row in range(ROWS)], "label": [0] * ROWS}


def with_label(row: int, label: float) -> dict[str, np.ndarray]:
    data = {"features": arrays(ROWS)["features"], "label": arrays(ROWS)["label"].astype(np.float64)}
    data["label"][row] = label
    return data


NAN = "label_col: column 'label' holds NaN, with which CrossEntropyLoss cannot be computed. Drop those rows"
RANGE = "label_col: column 'label' holds label 9 but the model has 5 outputs (0..4). Give its last layer"
CASES = {
    "wrong column of arrays": Case(
        "the data have no column 'features'; did you mean 'feature'? they have 'feature', 'label' (feature_cols",
        {"feature": [[1.0]], "label": [0]},
    ),
    "wrong column of a frame": Case(
        "the data have no column 'features'; did you mean 'Features'? they have 'Features', 'label' (feature_cols",
        frame(rows, "Features array<float>, label double"),
    ),
    "nothing like that column": Case(
        "the data have no column 'label'; they have 'features', 'z' (feature_cols",
        frame(rows, "features array<float>, z double"),
    ),
    "strings in a frame": Case(
        "column 'features' holds strings (string): a model needs numbers. Index the strings first",
        frame(lambda: [("a", 0.0)] * ROWS, "features string, label double"),
    ),
    "strings in arrays": Case(
        "column 'features' holds strings", {"features": ["a"] * ROWS, "label": np.zeros(ROWS, np.int64)}
    ),
    "ragged frame": Case(
        "column 'features': row 3 has 11 values, row 0 has 12 values", frame(lambda: changed(3, [0.0] * 11))
    ),
    "ragged frame, far behind": Case(" has 11 values, ", frame(lambda: changed(FAR, [0.0] * 11))),
    "ragged arrays": Case(f"column 'features': row {FAR} has 11 values, row 0 has 12 values", ragged_arrays()),
    "uneven columns": Case(
        "column 'features' has 30 rows, column 'label' has 29: a row is one element of each",
        {"features": np.zeros((30, 12)), "label": np.zeros(29)},
    ),
    "null": Case("column 'label': row 3 is null or holds one", frame(lambda: changed(3, label=None))),
    "null, far behind": Case(" is null or holds one; a model needs", frame(lambda: changed(FAR, label=None))),
    "null in an array, far behind": Case(
        " is null or holds one; a model needs", frame(lambda: changed(FAR, [None] + [0.0] * 11))
    ),
    "None in arrays": Case("column 'label': row 1 is null", {"features": np.zeros((3, 12)), "label": [0, None, 1]}),
    "NaN label": Case(NAN, with_label(2, np.nan)),
    "NaN label, far behind": Case(NAN, with_label(FAR, np.nan)),
    "NaN label in a frame, far behind": Case(NAN, frame(lambda: changed(FAR, label=float("nan")))),
    "label out of range": Case(RANGE, with_label(2, 9)),
    "label out of range, far behind": Case(RANGE, with_label(FAR, 9)),
    "label out of range in a frame, far behind": Case(RANGE, frame(lambda: changed(FAR, label=9.0))),
    "negative label, far behind": Case("label_col: column 'label' holds label -1 but", with_label(FAR, -1)),
    "fraction as label, far behind": Case(
        "label_col: column 'label' holds 1.5, but CrossEntropyLoss", with_label(FAR, 1.5)
    ),
    "fraction as label": Case("label_col: column 'label' holds 1.5, but CrossEntropyLoss", with_label(2, 1.5)),
    "no rows": Case("the training data have no rows", frame(list)),
    "no rows in arrays": Case("the data has no rows", {"features": np.zeros((0, 12)), "label": np.zeros(0)}),
    "wrong shape": Case("forward() returned float32 (8,) and label 'label' is int64 (8,)", options={"model": Flat()}),
    "too many inputs": Case(
        "forward() takes 1 argument",
        {"a": np.zeros(9), "b": np.zeros(9), "label": np.zeros(9)},
        {"model": nn.Linear(2, 2), "feature_cols": ["a", "b"]},
    ),
    "wrong width": Case("forward() failed on the first 8 rows of the data", options={"model": nn.Linear(13, 5)}),
    "nothing to train": Case(
        "the model has no parameter with requires_grad=True", options={"model": mlp().requires_grad_(False)}
    ),
    "unpicklable model": Case("model.guard is a lock and cannot be sent to the executors", options={"model": Locked()}),
    "LBFGS": Case("LBFGS evaluates the loss several times", options={"optimizer": torch.optim.LBFGS}),
    "SparseAdam": Case("SparseAdam takes sparse gradients only", options={"optimizer": torch.optim.SparseAdam}),
    "no optimizer": Case("optimizer=", options={"optimizer": lambda params: 0.1}),
    "ReduceLROnPlateau": Case(
        "ReduceLROnPlateau waits for a metric", options={"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau}
    ),
    "a number as data": Case("training data of type int cannot be read; pass a Spark DataFrame, Parquet paths", 7),
    "a list as data": Case("training data of type list cannot be read", [[1.0, 2.0]]),
    "no paths": Case("training data of type list cannot be read", []),
    "a pandas frame without the column": Case("the data have no column 'features'", pd.DataFrame({"label": [1]})),
    "numbers as data": Case("training data of type list cannot be read; pass a Spark DataFrame, Parquet paths", [1, 2]),
    "missing Parquet": Case("'/no/such/place' cannot be read as Parquet: [PATH_NOT_FOUND]", "/no/such/place"),
    "missing Parquet among others": Case(
        "'/no/such/place', '/no/other/place' cannot be read as Parquet: ", ["/no/such/place", "/no/other/place"]
    ),
}


@pytest.mark.spark
@pytest.mark.parametrize("name", CASES)
def test_one_sentence_before_any_step(refusing: SparkSession, name: str) -> None:
    case = CASES[name]
    data = arrays(ROWS) if case.data is None else case.data(refusing) if callable(case.data) else case.data
    with pytest.raises(ConfigError) as raised:
        trainer(**case.options).fit(data, verbose=0)
    text = str(raised.value)
    assert case.sentence in text if case.sentence.startswith(" ") else text.startswith(case.sentence)
    assert "\n" not in text
    assert "Traceback" not in text


@pytest.mark.spark
def test_epochs_and_validation_are_checked_first(refusing: SparkSession) -> None:
    with pytest.raises(ConfigError, match="epochs is 0; pass a positive integer"):
        trainer().fit(arrays(ROWS), epochs=0)
    with pytest.raises(ConfigError, match="the data have no column 'features'"):
        trainer().fit(arrays(ROWS), validation={"label": [1]}, verbose=0)


@pytest.mark.spark
def test_spark_connect_is_refused(refusing: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = type("SparkSession", (), {"__module__": "pyspark.sql.connect.session"})()
    remote_frame = type("DataFrame", (), {"__module__": "pyspark.sql.connect.dataframe", "sparkSession": remote})()
    sentence = "this is a Spark Connect session, and Spark Connect has no RDDs.*Use a classic session"
    for use in (trainer().fit, trainer().evaluate, trainer().predict):
        with pytest.raises(ClusterError, match=sentence):
            use(remote_frame)
    monkeypatch.setattr(spark_conf, "session", lambda: remote)
    with pytest.raises(ClusterError, match=sentence):
        trainer().fit(arrays(ROWS))


@pytest.mark.spark
def test_another_torch_on_the_executors(refusing: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    here = preflight_job.versions()
    monkeypatch.setattr(preflight_job, "versions", lambda: here | {"torch": "1.0.0"})
    with pytest.raises(ClusterError) as raised:
        trainer().fit(arrays(ROWS), verbose=0)
    text = str(raised.value)
    assert text.startswith(f"torch is {torch.__version__} on the executor at ")
    assert "and 1.0.0 on the driver. Give the executors the driver's environment: venv-pack" in text


# --- user code that fails in a task


class Picky(nn.Module):
    """Fails on one row of the data, which the try on the driver does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if float(features.max()) > 1e6:
            raise ValueError(f"this row is {features.max():.0f} high")
        return self.inner(features)


@pytest.mark.spark
@pytest.mark.parametrize("form", ["gather", "fused"])
def test_a_model_that_fails_later_tells_its_own_traceback(tidy: SparkSession, form: str) -> None:
    data = arrays(ROWS)
    data["features"][FAR] = 1e7
    own = trainer(Picky(), form=form)
    with pytest.raises(TrainingError) as raised:
        own.fit(data, epochs=2, verbose=0)
    text = str(raised.value)
    assert "ValueError: this row is 10000000 high" in text
    assert 'raise ValueError(f"this row is' in text  # the line of the user's own file
    assert "Driver stacktrace" not in text
    for a, b in zip(own.model.parameters(), mlp().parameters(), strict=True):
        assert torch.equal(a, b)  # as if fit had not been called


# --- training


def step_of_torch(model: nn.Module, loss: Callable[[nn.Module], torch.Tensor], steps: int = 1) -> nn.Module:
    optimizer = SGD(model.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    return model


def assert_equal(found: nn.Module, expected: nn.Module) -> None:
    for a, b in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.wide, self.narrow = nn.Linear(2, 3), nn.Linear(1, 3)

    def forward(self, wide: torch.Tensor, narrow: torch.Tensor) -> torch.Tensor:
        return self.wide(wide) + self.narrow(narrow)


@pytest.mark.spark
def test_nested_and_named_inputs_and_several_labels(tidy: SparkSession) -> None:
    rng = np.random.default_rng(0)
    data = {name: rng.normal(size=20).astype(np.float32) for name in "abc"}
    data |= {"y": rng.integers(0, 3, 20), "z": rng.normal(size=20).astype(np.float32)}
    a, b, c, y, z = (torch.from_numpy(data[name]) for name in "abcyz")

    def both(output: torch.Tensor, target: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return nn.functional.cross_entropy(output, target[0]) + (output[:, 0] - target[1]).square().mean()

    expected = step_of_torch(TwoInputs(), lambda m: both(m(torch.stack([a, b], 1), c[:, None]), (y, z)))
    prints = set()
    for inputs in ([["a", "b"], ["c"]], {"narrow": ["c"], "wide": ["a", "b"]}):
        own = trainer(TwoInputs(), both, batch_size=20, feature_cols=inputs, label_col=["y", "z"])
        prints.add(own.fit(data, verbose=0).fingerprint)
        assert_equal(own.model, expected)
    assert len(prints) == 1


@pytest.mark.spark
def test_step_fn_with_metrics_is_the_loss(tidy: SparkSession) -> None:
    data = arrays(ROWS)
    largest = float(data["features"].max())

    def step(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        output = model(*batch.inputs, **batch.kwargs)
        return {
            "loss": nn.functional.cross_entropy(output, batch.target.long()),
            "label": batch.target.float().mean(),
            "size": batch.inputs[0].max() / largest,
        }

    ignored = {"label": lambda output, target: 0.0, "size": lambda output, target: 0.0}
    own = trainer(loss=None, step_fn=step, metrics=ignored, batch_size=ROWS)
    history = own.fit(data, verbose=0)
    x, y = torch.from_numpy(data["features"]), torch.from_numpy(data["label"])
    assert_equal(own.model, step_of_torch(mlp(), lambda m: nn.functional.cross_entropy(m(x), y)))
    assert history["label"] == [pytest.approx(float(data["label"].mean()))]
    assert 0 < history["size"][0] <= 1
    assert history["loss"] == [pytest.approx(nn.functional.cross_entropy(mlp()(x), y).item(), rel=1e-5)]


@pytest.mark.spark
def test_validation_evaluate_and_predict(tidy: SparkSession, caplog: pytest.LogCaptureFixture) -> None:
    data, held_out = arrays(40), {name: a[25:] for name, a in arrays(40).items()}
    own = trainer(metrics={"accuracy": lambda output, target: (output.argmax(1) == target).float().mean()})
    with caplog.at_level(logging.WARNING, "sparkdl"):
        history = own.fit(data, epochs=2, validation=held_out, verbose=0)
    assert caplog.text == ""
    assert history.steps["rows"].tolist() == [10] * 8
    assert history.epochs["epoch"].tolist() == [0, 1]
    with torch.no_grad():
        output = own.model(torch.from_numpy(held_out["features"]))
    target = torch.from_numpy(held_out["label"])
    loss = float(nn.functional.cross_entropy(output, target))
    accuracy = float((output.argmax(1) == target).float().mean())
    assert history.epochs["val_loss"].iloc[-1] == pytest.approx(loss, rel=1e-5)
    assert history["val_accuracy"][-1] == pytest.approx(accuracy)
    assert history["val_loss"][0] != history["val_loss"][1]

    records = [(x.tolist(), int(y)) for x, y in zip(held_out["features"], held_out["label"], strict=True)]
    given = tidy.createDataFrame(records, "features array<float>, label int").repartition(3)
    for found in (own.evaluate(held_out), own.evaluate(given)):
        assert found == {"loss": pytest.approx(loss, rel=1e-5), "accuracy": pytest.approx(accuracy)}
    predicted = own.predict(given, output_col="scores").collect()
    assert len(predicted) == 15
    for row in predicted:
        with torch.no_grad():
            expected = own.model(torch.tensor([row.features]))[0]
        torch.testing.assert_close(torch.tensor(row.scores), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match="the data have no column 'features'; they have 'label'"):
        own.predict(given.select("label"))
    with pytest.raises(ConfigError, match="the data have no column 'label'"):
        own.evaluate(given.drop("label"))


@pytest.mark.spark
def test_a_second_fit_goes_on_and_equal_runs_have_equal_fingerprints(tidy: SparkSession) -> None:
    data = arrays(ROWS)
    x, y = torch.from_numpy(data["features"]), torch.from_numpy(data["label"])

    def build() -> nn.Module:
        return nn.Linear(12, 5)

    def loss(model: nn.Module) -> torch.Tensor:
        return nn.functional.cross_entropy(model(x), y)

    own = trainer(build, batch_size=ROWS, seed=6)
    start = nn.Linear(12, 5)
    start.load_state_dict(own.model.state_dict())
    model = own.model
    first = own.fit(data, verbose=0)
    second = own.fit(data, verbose=0)
    assert own.model is model
    assert_equal(own.model, step_of_torch(start, loss, steps=2))
    again = trainer(build, batch_size=ROWS, seed=6).fit(data, verbose=0)
    assert first.fingerprint == again.fingerprint != second.fingerprint
    assert len(str(first.fingerprint)) == 64
    assert second["loss"][0] < first["loss"][0]


@pytest.mark.spark
def test_parquet_files_are_the_frame(tidy: SparkSession, tmp_path: Path) -> None:
    records = rows()
    whole = tidy.createDataFrame(records, SCHEMA)
    paths = [str(tmp_path / name) for name in ("first", "second")]
    for path, part in zip(paths, (records[:12], records[12:]), strict=True):
        tidy.createDataFrame(part, SCHEMA).repartition(2).write.parquet(path)
    prints = []
    for data in (whole, paths, str(tmp_path / "*")):
        history = trainer().fit(data, verbose=0)
        assert history.steps["rows"].tolist() == [10, 10, 10]
        prints.append(history.fingerprint)
    assert len(set(prints)) == 1
