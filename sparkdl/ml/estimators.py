"""Estimators: a :class:`sparkdl.Trainer` behind Spark ML's Params, for Pipeline, CrossValidator and the like."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from pyspark import SparkContext
from pyspark.ml.base import Estimator
from pyspark.sql import DataFrame
from pyspark.sql.types import NumericType
from torch import nn

from sparkdl import predict_job, spark_conf, training_data
from sparkdl.callbacks import Callback, EarlyStopping, FitState
from sparkdl.class_scores import classes_of
from sparkdl.errors import ConfigError
from sparkdl.history import History
from sparkdl.ml.models import Fitted, TorchClassificationModel, TorchModel, TorchRegressionModel, one_row
from sparkdl.ml.params import ClassifierParams, TrainingParams
from sparkdl.ml.persistence import Saved
from sparkdl.optim import OptimizerArgument
from sparkdl.spark_internals import own_local_properties
from sparkdl.stored_arrays import kinds_of
from sparkdl.trainer import Trainer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sparkdl.ml.params import Arguments

__all__ = ["TorchClassifier", "TorchEstimator", "TorchRegressor"]

# Params that Trainer takes under the same name
_AS_THEY_ARE = [
    *("scheduler", "metrics", "step_fn", "batch_size", "replicas", "device", "precision", "wire", "clip_norm"),
    *("clip_value", "accumulate", "form", "steps_per_job", "seed"),
]


class TorchEstimator(Estimator[TorchModel], TrainingParams, Saved):
    """Trains a PyTorch model; ``fit`` returns a :class:`TorchModel` whose column is the model's output.

    Takes the arguments of :class:`sparkdl.Trainer` and of its ``fit``, all of them Params by the same names, but
    columns, which are Params in Spark's spelling (``features_col`` is ``featuresCol``):

    model: an nn.Module, which is copied before it is trained, or a function that builds one.
    loss, metrics, step_fn, scheduler: as for ``Trainer``.
    optimizer, learning_rate: f(params) -> Optimizer, Adam unless given; ``learning_rate`` is passed to it as ``lr``.
    features_col: a column; a list is several inputs, a nested list stacks columns, a dict is inputs by name.
    label_col, weight_col, prediction_col (or output_col): columns. transforms: ``Trainer``'s ``transform``.
    validation_indicator_col: a boolean column, true for the rows that validate; or validation_fraction: of the rows.
    early_stopping_patience: validations without a better loss that are borne; the model gets the best weights.
    epochs, validate_every, callbacks, resume, verbose: as for ``Trainer.fit``. Every fit gets copies of the callbacks.
    batch_size, replicas, device, precision, wire, clip_norm, clip_value, accumulate, form, steps_per_job, seed: as for
        ``Trainer``. predict_batch_size: rows that the model predicts at once.

    Fits may run on several threads at once (``CrossValidator(parallelism=3)``): no fit waits for another one's tasks,
    and where Spark's scheduler is FAIR each has a pool of its own.

    Raises ConfigError: an argument that does not exist. TypeError: one of the wrong type. ``fit`` raises as
    ``Trainer.fit`` does.
    """

    _makes: type[TorchModel] = TorchModel

    def __init__(self, **params: Unpack[Arguments]):
        super().__init__()
        self.setParams(**params)

    def _fit(self, dataset: DataFrame) -> TorchModel:
        spark_conf.refuse_connect(dataset.sparkSession)
        self._check(dataset)
        trainer = self._trainer()
        shape = _RowShape(self, trainer)
        with own_pool(dataset.sparkSession.sparkContext):
            history = trainer.fit(
                dataset,
                self._value("epochs"),
                validation=self._validation(dataset),
                validate_every=self._value("validate_every"),
                resume=self._value("resume"),
                callbacks=[shape, *self._callbacks()],
                verbose=self._value("verbose"),
            )
        model = self._makes(self._outcome(trainer, history, shape))
        return self._copyValues(model._resetUid(self.uid))

    def _check(self, dataset: DataFrame) -> None:
        """Raises ConfigError: what the estimator can tell before anything runs."""
        if self._value("model") is None:
            raise ConfigError("no model is given; pass model=, an nn.Module or a function that builds one")
        if self._value("validationIndicatorCol") and self._value("validation_fraction"):
            raise ConfigError("both validation_indicator_col and validation_fraction are given; pass one of them")
        if self._value("early_stopping_patience") is not None and self._validation(dataset) is None:
            raise ConfigError(
                "early_stopping_patience waits for a validation loss; pass validation_indicator_col, or "
                "validation_fraction such as 0.1"
            )

    def _default_loss(self) -> nn.Module | None:
        return None

    def _trainer(self) -> Trainer:
        model = self._value("model")
        return Trainer(
            copy.deepcopy(model) if isinstance(model, nn.Module) else model,
            loss=self._value("loss") or self._default_loss(),
            optimizer=self._optimizer(),
            feature_cols=self._value("featuresCol"),
            label_col=self._value("labelCol"),
            weight_col=self._value("weightCol"),
            transform=self._value("transforms") or None,
            **{name: self._value(name) for name in _AS_THEY_ARE},
        )

    def _optimizer(self) -> OptimizerArgument:
        made = self._value("optimizer") or torch.optim.Adam
        rate = self._value("learning_rate")
        if rate is None:
            return made
        if not callable(made):
            raise ConfigError(
                f"learning_rate={rate} goes to one optimizer, but optimizer is {made!r}; give each its own, for "
                "example by functools.partial(torch.optim.Adam, lr=1e-3), and no learning_rate"
            )
        try:
            known = list(inspect.signature(made).parameters.values())
        except (TypeError, ValueError):  # a builtin has none to look at
            known = []
        if known and not any(p.name == "lr" or p.kind is p.VAR_KEYWORD for p in known):
            raise ConfigError(f"learning_rate={rate} is passed to the optimizer as lr, which {made!r} does not take")
        return functools.partial(made, lr=rate)

    def _validation(self, dataset: DataFrame) -> str | float | None:
        column: str | None = self._value("validationIndicatorCol")
        if column is None:
            return self._value("validation_fraction")  # type: ignore[no-any-return]
        training_data.require_columns(dataset.columns, [column])
        return column

    def _callbacks(self) -> list[Callback]:
        """Copies, so that fits at the same time, or one after the other, do not share what callbacks remember."""
        found: list[Callback] = [copy.deepcopy(callback) for callback in self._value("callbacks")]
        patience = self._value("early_stopping_patience")
        if patience is not None:
            found.append(EarlyStopping("val_loss", patience=patience, restore_best=True))
        return found

    def _outcome(self, trainer: Trainer, history: History, shape: _RowShape) -> Fitted:
        model = self._value("model")
        return Fitted(
            module=trainer.model.eval(),
            factory=None if isinstance(model, nn.Module) else model,
            seed=self._value("seed"),
            kinds=shape.kinds,
            row_shape=shape.row_shape,
            history=history,
        )

    def _accept(self, row_shape: tuple[int, ...]) -> None:
        """Raises ConfigError: an output of which the model's columns cannot be made."""


class TorchRegressor(TorchEstimator):
    """Trains a model that gives one number a row; ``prediction_col`` is a double.

    Takes what :class:`TorchEstimator` takes. loss: MSELoss unless given; output and label need the same shape.
    """

    _makes = TorchRegressionModel

    def _default_loss(self) -> nn.Module:
        return nn.MSELoss()

    def _accept(self, row_shape: tuple[int, ...]) -> None:
        if row_shape not in ((), (1,)):
            raise ConfigError(
                f"the model gives {row_shape} numbers a row, TorchRegressor tells one; return one from forward(), "
                "or use TorchEstimator, whose column is the output itself"
            )


class TorchClassifier(TorchEstimator, ClassifierParams):
    """Trains a model that tells classes; adds ``prediction_col``, ``probability_col`` and ``raw_prediction_col``.

    Takes what :class:`TorchEstimator` takes, and probability_col, raw_prediction_col (empty: no such column). Labels
    are 0 to num_classes - 1, as StringIndexer gives them.
    loss: CrossEntropyLoss unless given. The model gives one score a class, or, with BCEWithLogitsLoss (BCELoss), one
    number a row: the logit (the probability) of class 1.
    """

    _makes = TorchClassificationModel

    def _default_loss(self) -> nn.Module:
        return nn.CrossEntropyLoss()

    def _check(self, dataset: DataFrame) -> None:
        super()._check(dataset)
        label = self._value("labelCol")
        training_data.require_columns(dataset.columns, [label])
        kind = dataset.schema[label].dataType
        if not isinstance(kind, NumericType):
            hint = (
                "index it with pyspark.ml.feature.StringIndexer" if kind.typeName() == "string" else "cast it to double"
            )
            raise ConfigError(f"label column {label!r} is {kind.typeName()}; a class is a number from 0 on: {hint}")

    def _accept(self, row_shape: tuple[int, ...]) -> None:
        classes_of(row_shape, self._value("loss"))

    def _outcome(self, trainer: Trainer, history: History, shape: _RowShape) -> Fitted:
        num_classes, scale = classes_of(shape.row_shape, self._value("loss"))
        found = super()._outcome(trainer, history, shape)
        return dataclasses.replace(found, num_classes=num_classes, scale=scale)


class _RowShape(Callback):
    """Looks at what the model gives for a row, after the trainer's own dry run and before the first step."""

    def __init__(self, estimator: TorchEstimator, trainer: Trainer):
        self._estimator, self._trainer = estimator, trainer
        self.row_shape: tuple[int, ...] = ()
        self.kinds: tuple[Any, ...] = ()

    def on_fit_start(self, state: FitState) -> bool | None:
        """Raises ConfigError: the model's columns cannot be made of that."""
        columns = self._trainer.columns.without_targets()
        kinds = kinds_of(self._trainer.seen)
        self.kinds = tuple(kinds[name] for name in columns.feature_names)
        rows = one_row(columns, self.kinds)
        assert rows is not None
        predictor = predict_job.Predictor(copy.deepcopy(self._trainer.model), columns, "fp32", "cpu")
        self.row_shape, _ = predict_job.shape_of_one(predictor, rows)
        self._estimator._accept(self.row_shape)
        return None


# --- Spark's pools

POOL = "spark.scheduler.pool"
_pools: set[int] = set()  # numbers of those in use: Spark never forgets a pool, so names come back
_pools_lock = threading.Lock()


@contextlib.contextmanager
def own_pool(sc: SparkContext) -> Iterator[None]:
    """Where the scheduler is FAIR, jobs of this thread run in a pool of their own, unless the user has set one."""
    fair = sc.getConf().get("spark.scheduler.mode", "FIFO").upper() == "FAIR"
    if not fair or sc.getLocalProperty(POOL) is not None:
        yield
        return
    with _pools_lock:
        number = next(n for n in range(len(_pools) + 1) if n not in _pools)
        _pools.add(number)
    own_local_properties(sc)  # or another thread would take this pool for the user's
    sc.setLocalProperty(POOL, f"sparkdl-{number}")
    try:
        yield
    finally:
        sc.setLocalProperty(POOL, None)  # type: ignore[arg-type]  # None removes it
        with _pools_lock:
            _pools.discard(number)
