"""Rows and small stages that the tests of the Spark ML stages share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyspark.ml import Pipeline
from pyspark.ml.feature import StandardScaler, VectorAssembler
from torch import nn

from sparkdl.ml import TorchClassifier

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROWS = 60
SCHEMA = "id int, a double, b double, c double, x array<float>, label double, held boolean"
RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(ROWS, 3)).astype(np.float32)
LABELS = (X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 0)


def net() -> nn.Module:
    """Three classes, the same weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3))


def one_number() -> nn.Module:
    """A regression, [rows]."""
    with torch.random.fork_rng():
        torch.manual_seed(6)
        return nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))


def frame(spark: SparkSession, count: int = ROWS) -> DataFrame:
    """Columns as numbers and as an array, labels of three classes, and a sixth of the rows held out."""
    rows = [
        (i, *(float(v) for v in X[i]), [float(v) for v in X[i]], float(LABELS[i]), i % 6 == 0) for i in range(count)
    ]
    return spark.createDataFrame(rows, SCHEMA).coalesce(2)


def classifier(**options: Any) -> TorchClassifier:
    """Two replicas, two epochs of four steps."""
    settings = {"model": net(), "learning_rate": 0.05, "features_col": "x", "epochs": 2, "batch_size": 16}
    return TorchClassifier(**{**settings, "replicas": 2, "verbose": 0, **options})  # type: ignore[misc]


def pipeline(**options: Any) -> Pipeline:
    """Columns, assembled and scaled, to classes."""
    assembled = VectorAssembler(inputCols=["a", "b", "c"], outputCol="features")
    scaled = StandardScaler(inputCol="features", outputCol="scaled", withMean=True)
    return Pipeline(stages=[assembled, scaled, classifier(**{"features_col": "scaled", **options})])
