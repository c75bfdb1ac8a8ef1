"""What the estimators' ``fit`` returns: models that add columns to a DataFrame, batch or streaming."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pyspark.ml.base import Model
from pyspark.ml.functions import array_to_vector
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType
from torch import nn

from sparkdl import predict_job, spark_conf, training_data
from sparkdl.class_scores import ClassScores, Scale
from sparkdl.columns import Columns
from sparkdl.errors import ConfigError
from sparkdl.history import History
from sparkdl.ml.params import ClassifierParams, ModelParams
from sparkdl.ml.persistence import Saved
from sparkdl.sparse_rows import SparseRows
from sparkdl.stored_arrays import Kind, Stored

__all__ = ["TorchClassificationModel", "TorchModel", "TorchRegressionModel"]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a training leaves.

    module: trained, on the CPU. factory: what built it, if it was not given as a module. seed: that it was built with.
    kinds: of the feature columns, in their order. row_shape: of the output for one row. num_classes, scale: of a
    classifier.
    """

    module: nn.Module
    factory: Any = None
    seed: int = 0
    kinds: tuple[Kind, ...] = ()
    row_shape: tuple[int, ...] = ()
    num_classes: int = 0
    scale: Scale = "classes"
    history: History | None = field(default=None, compare=False)


class TorchModel(Model, ModelParams, Saved):
    """A trained PyTorch model as a Transformer: ``transform`` adds its output as the column ``prediction_col``.

    A number becomes a float (a bigint if it is a whole number), an array an ML vector, nested arrays arrays. All other
    columns stay, and so does the order of rows. Works on streaming DataFrames too: what the columns hold is known
    from the training. Needs no running job: it reads no rows before the query does.

    Comes from ``TorchEstimator.fit`` or ``TorchModel.load``.
    """

    def __init__(self, fitted: Fitted | None = None):
        super().__init__()
        self._fitted = fitted

    @property
    def fitted(self) -> Fitted:
        """What the training left. Raises ConfigError: this is no trained model."""
        if self._fitted is None:
            raise ConfigError(f"this {type(self).__name__} holds no model; it comes from fit() or load()")
        return self._fitted

    @property
    def model(self) -> nn.Module:
        """The trained module, an ordinary one on the CPU."""
        return self.fitted.module

    @property
    def has_summary(self) -> bool:
        """Whether the history of the training is known: after ``fit``, and after ``load`` as well."""
        return self.fitted.history is not None

    @property
    def hasSummary(self) -> bool:
        """Spark's spelling of ``has_summary``."""
        return self.has_summary

    @property
    def summary(self) -> History:
        """Every step, epoch and validation of the training. Raises RuntimeError: there is none."""
        if self.fitted.history is None:
            raise RuntimeError(f"there is no training summary of this {type(self).__name__}")
        return self.fitted.history

    def _transform(self, dataset: DataFrame) -> DataFrame:
        spark_conf.refuse_connect(dataset.sparkSession)
        there = {name.lower() for name in dataset.columns}
        for param in (p for p in self.params if p.name.endswith("Col") and p.name != "featuresCol"):
            if (name := self._value(param.name)) and name.lower() in there:
                python = "".join(f"_{c.lower()}" if c.isupper() else c for c in param.name)
                raise ConfigError(
                    f"column {name!r} is there already, and {type(self).__name__} would write it: pass another "
                    f"{python} to its estimator, or drop the column before"
                )
        return self._predicted(dataset)

    def _predicted(self, dataset: DataFrame) -> DataFrame:
        name = self.getPredictionCol()
        found = self._output(dataset, self.model, name)
        if isinstance(kind := found.schema[name].dataType, ArrayType) and kind.elementType == FloatType():
            return found.withColumn(name, _vector(_column(name), self.fitted.row_shape[0], name))
        return found

    def _output(self, dataset: DataFrame, module: nn.Module, output_col: str) -> DataFrame:
        """The frame with a column of what ``module`` gives: as :func:`sparkdl.predict_job.predict` has it."""
        columns = Columns.parse(self._value("featuresCol"), transform=self._value("transforms") or None)
        training_data.require_columns(dataset.columns, columns.feature_names)
        return predict_job.predict(
            dataset,
            module,
            columns,
            output_col,
            self._value("predict_batch_size"),
            precision=self._value("precision"),
            device=self._value("device"),
            sample=one_row(columns, self.fitted.kinds),
        )


class TorchRegressionModel(TorchModel):
    """A trained regressor: ``prediction_col`` is a double."""

    def _predicted(self, dataset: DataFrame) -> DataFrame:
        name = self.getPredictionCol()
        return self._output(dataset, _OneNumber(self.model), name).withColumn(name, _column(name).cast("double"))


class TorchClassificationModel(TorchModel, ClassifierParams):
    """A trained classifier: ``raw_prediction_col`` and ``probability_col`` are vectors, ``prediction_col`` is a double.

    An empty name leaves a column out. See :class:`sparkdl.class_scores.ClassScores`.
    """

    @property
    def num_classes(self) -> int:
        """How many classes there are: 0 to num_classes - 1."""
        return self.fitted.num_classes

    @property
    def numClasses(self) -> int:
        """Spark's spelling of ``num_classes``."""
        return self.num_classes

    def _predicted(self, dataset: DataFrame) -> DataFrame:
        size = self.num_classes
        names = {
            "raw": self.getRawPredictionCol(),
            "probability": self.getProbabilityCol(),
            "prediction": self.getPredictionCol(),
        }
        wanted = [name for name, column in names.items() if column]
        if not wanted:
            return dataset
        together = f"{self.uid}__scores"
        found = self._output(dataset, ClassScores(self.model, size, self.fitted.scale, wanted), together)
        place, columns = 1, {}
        for name in wanted:
            if name == "prediction":
                about = {"ml_attr": {"type": "nominal", "num_vals": size}}
                value = F.element_at(_column(together), place).cast("double").alias(names[name], metadata=about)
            else:
                value = _vector(F.slice(_column(together), place, size), size, names[name])
            columns[names[name]] = value
            place += size
        return found.withColumns(columns).drop(together)


class _OneNumber(nn.Module):
    """A regressor whose rows come as [rows] or [rows, 1]."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any, **named: Any) -> torch.Tensor:
        output: torch.Tensor = self.model(*inputs, **named)
        return output.reshape(-1)


def one_row(columns: Columns, kinds: tuple[Kind, ...]) -> dict[str, Stored] | None:
    """A row of zeros for each feature column, which tells shapes; None: these are other columns than in training."""
    names = columns.feature_names
    if len(names) != len(kinds):
        return None
    found: dict[str, Stored] = {}
    for name, kind in zip(names, kinds, strict=True):
        nothing = np.zeros(0, np.int64)
        found[name] = (
            SparseRows.of_parts(np.zeros(1, np.int64), nothing, nothing, kind.shape[0])
            if kind.sparse
            else np.zeros((1, *kind.shape), kind.dtype)
        )
    return found


def _column(name: str) -> Column:
    quoted = name.replace("`", "``")
    return F.col(f"`{quoted}`")


def _vector(values: Column, size: int, name: str) -> Column:
    return array_to_vector(values).alias(name, metadata={"ml_attr": {"num_attrs": size}})
