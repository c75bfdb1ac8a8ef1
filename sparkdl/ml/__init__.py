"""Spark ML stages: estimators that train PyTorch models, and the models, for Pipeline, CrossValidator and streams."""

from __future__ import annotations

from sparkdl.ml.estimators import TorchClassifier, TorchEstimator, TorchRegressor
from sparkdl.ml.models import TorchClassificationModel, TorchModel, TorchRegressionModel
from sparkdl.ml.persistence import trusted

__all__ = [
    "TorchClassificationModel",
    "TorchClassifier",
    "TorchEstimator",
    "TorchModel",
    "TorchRegressionModel",
    "TorchRegressor",
    "trusted",
]
