from __future__ import annotations

import random
import warnings
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparkdl import evaluate_job, optim, payload, slices
from sparkdl.columns import Columns
from sparkdl.errors import ConfigError, TrainingError
from sparkdl.evaluate_job import evaluate, finish, measure_rows
from sparkdl.payload import Payload
from sparkdl.stored_arrays import from_arrays
from sparkdl.versioned_state import state_plan

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROWS = 41
RANDOM = np.random.default_rng(0)
DATA = from_arrays(
    {
        "x": RANDOM.normal(size=(ROWS, 3)),
        "y": np.where(np.arange(ROWS) < 9, -100, RANDOM.integers(0, 4, ROWS)),
        "z": RANDOM.normal(size=ROWS),
        "w": RANDOM.uniform(size=ROWS),
    }
)


def made(loss: Any = None, y: str = "y", **more: Any) -> Payload:
    model = more.pop("model", None) or nn.Linear(3, 4)
    template, _ = optim.template(torch.optim.SGD, model)
    named = [(n, tuple(p.shape), template.group_of[n]) for n, p in model.named_parameters()]
    layout = slices.layout(named, template.elementwise)
    return Payload(
        model=model,
        loss=loss or nn.CrossEntropyLoss(),
        template=template,
        plan=state_plan(template, layout, *payload.buffer_sizes(model)),
        columns=Columns.parse("x", y, more.pop("weight_col", None)),
        seed=0,
        batch_size=4,
        **more,
    )


def network() -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    model(torch.randn(64, 3))  # running statistics that are not those of the start
    return model


def output_of(model: nn.Module) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(torch.from_numpy(DATA["x"]))
    model.train()
    return found


def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output.argmax(1) == target).float().mean()


class Largest:
    """A metric that gathers state as torchmetrics' do; not a mean over rows."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.value, self.updates = -np.inf, 0
        self.order: list[float] = []

    def update(self, output: torch.Tensor, target: torch.Tensor) -> None:
        self.value = max(self.value, float(output.max()))
        self.updates += 1
        self.order.append(float(target[0]))

    def merge_state(self, other: Largest) -> None:
        self.value = max(self.value, other.value)
        self.updates += other.updates
        self.order += other.order

    def compute(self) -> Any:
        return torch.tensor(self.value)


class Updates(Largest):
    def compute(self) -> float:
        return float(self.updates)


class Order(Largest):
    def compute(self) -> float:
        """A number that depends on the order in which partitions were merged."""
        return sum(value * (place + 1) for place, value in enumerate(self.order))


class Curve(Largest):
    def compute(self) -> torch.Tensor:
        return torch.ones(3)


@pytest.mark.parametrize("batch_size", [1, 7, ROWS, 100])
def test_same_as_torch(batch_size: int) -> None:
    model = network()
    output, target = output_of(model), torch.from_numpy(DATA["y"])
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    for loss in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=weight)):
        found = evaluate(DATA, model, made(loss, metrics={"accuracy": accuracy}), batch_size)
        assert found["loss"] == pytest.approx(float(loss(output, target)), rel=1e-6)
        assert found["accuracy"] == pytest.approx(float(accuracy(output, target)), rel=1e-6)
        assert list(found) == ["loss", "accuracy"]


def test_weighted_rows() -> None:
    model = nn.Linear(3, 1).eval()
    squeezed = nn.Sequential(model, nn.Flatten(0))
    found = evaluate(DATA, squeezed, made(nn.MSELoss(), "z", weight_col="w"), 7)
    with torch.no_grad():
        each = (squeezed(torch.from_numpy(DATA["x"])) - torch.from_numpy(DATA["z"])).square()
    weights = torch.from_numpy(DATA["w"])
    assert found["loss"] == pytest.approx(float((each * weights).sum() / weights.sum()), rel=1e-6)


def test_a_loss_over_no_rows_is_no_number() -> None:
    ignored = DATA | {"y": np.full(ROWS, -100)}
    assert np.isnan(evaluate(ignored, network(), made(), 8)["loss"])


def test_nothing_is_touched() -> None:
    model = network().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    rows = {name: values.copy() for name, values in DATA.items()}
    largest = Largest()
    built = made(metrics={"largest": largest})
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    expected = torch.rand(1), random.random(), np.random.random()
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    evaluate(rows, nn.Sequential(nn.Identity(), model), built, ROWS)
    assert (torch.rand(1), random.random(), np.random.random()) == expected
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.training
    assert largest.updates == 0
    assert all(np.array_equal(rows[name], DATA[name]) for name in rows)


def test_metric_objects_see_every_batch_once() -> None:
    model = network()
    used = Updates()
    used.update(torch.ones(1, 4), torch.ones(1))
    built = made(metrics={"largest": Largest(), "updates": used, "accuracy": accuracy})
    found = evaluate(DATA, model, built, 5)
    assert found["largest"] == float(output_of(model).max())
    assert found["updates"] == 9
    assert list(found) == ["loss", "largest", "updates", "accuracy"]


def test_parts_merge_to_the_whole() -> None:
    model = network()
    built = made(metrics={"accuracy": accuracy, "largest": Largest(), "order": Order()}, model=model)
    borders = [0, 0, 3, 17, 17, ROWS]
    parts = [
        measure_rows(built, "cpu", iter([{n: v[a:b] for n, v in DATA.items()}]), 5, i)
        for i, (a, b) in enumerate(pairwise(borders))
    ]
    assert [part.num_rows for part in parts] == [0, 3, 14, 0, 24]
    found = finish(built, parts)
    whole = evaluate(DATA, model, built, ROWS)
    for name in ("loss", "accuracy", "largest"):
        assert found[name] == pytest.approx(whole[name], rel=1e-6)
    firsts = [0, 3, 8, 13, 17, 22, 27, 32, 37]
    assert found["order"] == sum(float(DATA["y"][row]) * (place + 1) for place, row in enumerate(firsts))


def test_batches_cross_the_borders_of_parts() -> None:
    parts = [{"x": np.arange(a, b)} for a, b in ((0, 3), (3, 3), (3, 4), (4, 15), (15, 16))]
    found = [rows["x"].tolist() for rows in evaluate_job._rebatched(iter(parts), 5)]
    assert found == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14], [15]]


def test_step_fn() -> None:
    def step(model: nn.Module, batch: Any) -> Any:
        loss = F.mse_loss(model(*batch.inputs)[:, 0], batch.target)
        return {"loss": loss, "twice": 2 * loss}

    model = network()
    expected = float(F.mse_loss(output_of(model)[:, 0], torch.from_numpy(DATA["z"])))
    found = evaluate(DATA, model, made(F.mse_loss, "z", step_fn=step, metrics={"twice": accuracy}), 7)
    assert found == {"loss": pytest.approx(expected, rel=1e-6), "twice": pytest.approx(2 * expected, rel=1e-6)}
    with pytest.raises(ConfigError, match="'largest' need outputs and labels, but with step_fn only step_fn does"):
        evaluate(DATA, model, made(F.mse_loss, "z", step_fn=step, metrics={"largest": Largest()}), 7)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="have no rows"):
        evaluate({name: values[:0] for name, values in DATA.items()}, network(), made(), 7)
    with pytest.raises(
        ConfigError, match=r"'curve' \(Curve\) computes a tensor of shape \(3,\); it must be one number"
    ):
        evaluate(DATA, network(), made(metrics={"curve": Curve()}), 7)
    with pytest.raises(ConfigError, match="'y' holds NaN"):
        evaluate(DATA | {"y": np.full(ROWS, np.nan)}, network(), made(), 7)


def test_bf16() -> None:
    model = network()
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = F.cross_entropy(model(torch.from_numpy(DATA["x"])), torch.from_numpy(DATA["y"]))
    assert evaluate(DATA, model, made(precision="bf16"), 100)["loss"] == float(expected)


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> DataFrame:
    rows = [(i, *(DATA[name][i].tolist() for name in DATA)) for i in range(ROWS)]
    found = spark.createDataFrame(rows, "id int, x array<float>, y int, z float, w float")
    return found.repartitionByRange(3, "id").sortWithinPartitions("id").cache()


@pytest.mark.spark
def test_the_job_is_its_twin(frame: DataFrame) -> None:
    model = network()
    built = made(metrics={"accuracy": accuracy, "largest": Largest(), "order": Order()}, model=model)
    found = evaluate(frame, model, built, 4)
    sizes = [len(rows) for rows in frame.rdd.glom().collect()]
    assert min(sizes) > 0
    borders = np.cumsum([0, *sizes])
    torch.set_num_threads(1)
    parts = [
        measure_rows(built, "cpu", iter([{n: v[a:b] for n, v in DATA.items()}]), 4, i)
        for i, (a, b) in enumerate(pairwise(borders))
    ]
    assert found == finish(built, parts)
    assert evaluate(frame, model, built, 4) == found


@pytest.mark.spark
def test_empty_partitions(spark: SparkSession, frame: DataFrame) -> None:
    model = network()
    expected = evaluate(DATA, model, made(), ROWS)["loss"]
    empty = frame.union(frame.where("id < 0"))
    assert evaluate(empty, model, made(), 7)["loss"] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ConfigError, match="have no rows"):
        evaluate(frame.where("id < 0"), model, made(), 7)


@pytest.mark.spark
def test_what_fails_in_a_task_is_told_once(frame: DataFrame) -> None:
    from pyspark.sql import functions as F

    def broken(output: torch.Tensor, target: torch.Tensor) -> float:
        raise KeyError("no such thing")

    with pytest.raises(TrainingError, match=r"evaluate failed in a task: (?s:.)*KeyError: 'no such thing'"):
        evaluate(frame, network(), made(metrics={"broken": broken}), 7)
    ragged = frame.withColumn("x", F.when(F.col("id") == 3, F.array(F.lit(1.0).cast("float"))).otherwise(F.col("x")))
    with pytest.raises(ConfigError, match="column 'x': row 3 has 1 values, row 0 has 3 values"):
        evaluate(ragged, network(), made(), 7)
    nan = frame.withColumn("z", F.when(F.col("id") != 3, F.col("z")).otherwise(F.lit(float("nan"))))
    with pytest.raises(ConfigError, match="'z' holds NaN"):
        evaluate(nan, nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), made(nn.MSELoss(), "z"), 7)


@pytest.mark.spark
def test_torchmetrics(frame: DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchmetrics = pytest.importorskip("torchmetrics")
    model = network()
    kept = frame.where("y >= 0")
    metric = torchmetrics.classification.MulticlassAccuracy(num_classes=4, average="macro")
    found = evaluate(kept, model, made(metrics={"macro": metric}), 4)
    rows = DATA["y"] >= 0
    metric.update(output_of(model)[rows], torch.from_numpy(DATA["y"])[rows])
    assert found["macro"] == pytest.approx(float(metric.compute()), rel=1e-6)
