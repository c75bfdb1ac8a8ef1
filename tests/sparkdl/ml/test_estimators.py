from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder
from pyspark.sql import DataFrame, SparkSession
from torch import nn

from sparkdl import Trainer
from sparkdl.callbacks import Callback, FitState
from sparkdl.errors import ConfigError
from sparkdl.ml import TorchClassificationModel, TorchClassifier, TorchEstimator, TorchRegressionModel, TorchRegressor
from sparkdl.ml.estimators import POOL, own_pool
from tests.sparkdl.ml.stages import classifier, frame, net, one_number

pytestmark = pytest.mark.spark

ROOT = Path(__file__).parents[3]
WORDS = "words array<int>, label double"


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> DataFrame:
    return frame(spark).cache()


class Counter(Callback):
    """Counts epochs."""

    def __init__(self) -> None:
        self.epochs = 0

    def on_epoch_end(self, state: FitState) -> bool | None:
        self.epochs += 1
        return self.epochs == 1


def test_a_fit_is_the_trainers(rows: DataFrame) -> None:
    given, counter = net(), Counter()
    stage = classifier(model=given, callbacks=[counter], epochs=5)
    model = stage.fit(rows)
    trainer = Trainer(net(), nn.CrossEntropyLoss(), partial(torch.optim.Adam, lr=0.05), feature_cols="x", **SETTINGS)
    history = trainer.fit(rows, epochs=1, verbose=0)
    assert isinstance(model, TorchClassificationModel)
    assert model.uid == stage.uid
    assert model.summary.fingerprint == history.fingerprint  # the copy of the callback ended it after an epoch
    assert counter.epochs == 0
    assert all(torch.equal(a, b) for a, b in zip(given.parameters(), net().parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(model.model.parameters(), trainer.model.parameters(), strict=True))
    assert (model.has_summary, model.hasSummary, model.num_classes) == (True, True, 3)
    assert stage.fit(rows).summary.fingerprint == history.fingerprint


SETTINGS: dict[str, Any] = {"batch_size": 16, "replicas": 2}


def test_validation_by_a_column_and_early_stopping(rows: DataFrame) -> None:
    stage = classifier(validation_indicator_col="held", early_stopping_patience=0, learning_rate=20.0, epochs=9)
    history = stage.fit(rows).summary
    assert len(history.epochs) < 9
    assert history.epochs["rows"].tolist()[0] == 50
    with pytest.raises(ConfigError, match=r"early_stopping_patience waits for a validation loss"):
        classifier(early_stopping_patience=1).fit(rows)
    with pytest.raises(ConfigError, match=r"both validation_indicator_col and validation_fraction"):
        classifier(validation_indicator_col="held", validation_fraction=0.5).fit(rows)
    with pytest.raises(ConfigError, match=r"the data have no column 'hold'; did you mean 'held'"):
        classifier(validation_indicator_col="hold").fit(rows)
    with pytest.raises(ConfigError, match=r"validation column 'none' has 0 true rows of 60"):
        classifier(validation_indicator_col="none").fit(rows.selectExpr("*", "id < 0 as none"))


def test_regression(rows: DataFrame) -> None:
    stage = TorchRegressor(model=one_number, features_col="x", label_col="a", verbose=0, **SETTINGS)
    model = stage.fit(rows)
    assert isinstance(model, TorchRegressionModel)
    found = model.transform(rows)
    assert dict(found.dtypes)["prediction"] == "double"
    with torch.no_grad():
        expected = model.model(torch.tensor([row["x"] for row in rows.collect()])).numpy()
    assert np.allclose([row["prediction"] for row in found.collect()], expected, atol=1e-6)


def test_cross_validation_on_three_threads_is_that_on_one(rows: DataFrame) -> None:
    stage = classifier(epochs=1)
    grid = ParamGridBuilder().addGrid(stage.learning_rate, [0.001, 0.05, 0.2]).build()
    settings = {"estimator": stage, "estimatorParamMaps": grid, "evaluator": MulticlassClassificationEvaluator()}
    found = [
        CrossValidator(numFolds=2, seed=1, parallelism=threads, **settings).fit(rows).avgMetrics for threads in (1, 3)
    ]
    assert found[0] == found[1]
    assert len(set(found[0])) > 1


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        (TorchClassifier(features_col="x"), "no model is given; pass model="),
        (classifier(optimizer=lambda params: torch.optim.SGD(params)), "is passed to the optimizer as lr, which"),
        (classifier(optimizer={"dense": torch.optim.Adam}), "learning_rate=0.05 goes to one optimizer, but optimizer"),
        (classifier(label_col="held"), "label column 'held' is boolean; a class is a number from 0 on: cast it"),
        (classifier(label_col="lebel"), "the data have no column 'lebel'; did you mean 'label'?"),
        (classifier(loss=lambda o, t: o.mean(), model=nn.Unflatten(1, (3, 1))), "nothing to train|no parameter"),
        (
            classifier(loss=lambda o, t: o.mean(), model=nn.Sequential(nn.Linear(3, 6), nn.Unflatten(1, (2, 3)))),
            r"the model gives \(2, 3\) numbers a row; TorchClassifier tells one class a row",
        ),
        (
            TorchRegressor(model=net(), loss=lambda o, t: o.mean(), features_col="x", verbose=0),
            r"the model gives \(3,\) numbers a row, TorchRegressor tells one",
        ),
        (TorchEstimator(model=net(), features_col="x"), "neither loss nor step_fn is given"),
    ],
    ids=["model", "lr", "optimizers", "boolean", "label", "frozen", "pixels", "numbers", "loss"],
)
def test_refused_before_the_first_step(rows: DataFrame, stage: TorchEstimator, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        stage.fit(rows)


def test_fits_share_a_fair_scheduler_through_pools_of_their_own(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.sparkdl.ml.fair_run", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["pools"] == ["default", "sparkdl-0", "sparkdl-1", "sparkdl-2", "users"]
    assert found["inside"] == "sparkdl-0"  # its number is free again
    assert found["after"] is None


def test_a_fifo_scheduler_has_no_pools(spark: SparkSession) -> None:
    with own_pool(spark.sparkContext):
        assert spark.sparkContext.getLocalProperty(POOL) is None


def test_embeddings_may_have_an_optimizer_of_their_own(spark: SparkSession, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Embedding(20, 8, sparse=True), nn.Flatten(), nn.Linear(16, 2))
    pair = {"dense": partial(torch.optim.Adam, lr=0.01), "sparse": partial(torch.optim.SparseAdam, lr=0.05)}
    stage = classifier(model=model, optimizer=pair, learning_rate=None, features_col="words", epochs=3)
    words = spark.createDataFrame([([i % 20, 7 * i % 20], float(i % 20 > 9)) for i in range(80)], WORDS).coalesce(1)
    stage.write().save(str(tmp_path / "stage"))
    fitted = [estimator.fit(words) for estimator in (stage, TorchClassifier.load(str(tmp_path / "stage")))]
    assert len({found.summary.fingerprint for found in fitted}) == 1
    scored = fitted[0].transform(words)
    accuracy = MulticlassClassificationEvaluator(metricName="accuracy").evaluate(scored)
    assert accuracy > 0.8
    fitted[0].write().save(str(tmp_path / "model"))
    again = TorchClassificationModel.load(str(tmp_path / "model")).transform(words)
    assert [row.rawPrediction for row in again.collect()] == [row.rawPrediction for row in scored.collect()]
