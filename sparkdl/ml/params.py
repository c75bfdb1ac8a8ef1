"""The Params of the stages: columns in Spark's spelling, settings in that of :class:`sparkdl.Trainer`."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, TypeVar

from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import (
    HasFeaturesCol,
    HasLabelCol,
    HasPredictionCol,
    HasProbabilityCol,
    HasRawPredictionCol,
    HasSeed,
    HasValidationIndicatorCol,
    HasWeightCol,
)

from sparkdl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypedDict

    import torch

    from sparkdl.callbacks import Callback
    from sparkdl.optim import OptimizerArgument
    from sparkdl.stored_arrays import Transform
    from sparkdl.triggers import Trigger

    class Arguments(TypedDict, total=False):
        """What the constructors and ``setParams`` take."""

        model: torch.nn.Module | Callable[[], torch.nn.Module]
        loss: Callable[..., torch.Tensor] | None
        optimizer: OptimizerArgument | None
        learning_rate: float | None
        scheduler: Callable[[torch.optim.Optimizer], Any] | None
        metrics: Mapping[str, Any]
        step_fn: Callable[..., Any] | None
        features_col: str | Sequence[Any] | Mapping[str, Any]
        label_col: str | Sequence[str] | None
        weight_col: str | None
        validation_indicator_col: str | None
        validation_fraction: float | None
        early_stopping_patience: int | None
        prediction_col: str
        output_col: str
        probability_col: str
        raw_prediction_col: str
        transforms: Mapping[str, Transform]
        epochs: int | Trigger
        validate_every: Trigger | None
        callbacks: Sequence[Callback]
        resume: str | None
        batch_size: int
        predict_batch_size: int
        replicas: int | None
        device: str
        precision: str
        wire: str
        clip_norm: float | None
        clip_value: float | None
        accumulate: int
        form: str
        steps_per_job: int
        seed: int
        verbose: int


P = TypeVar("P", bound="ModelParams")

# the constructors' words for Spark's Params
SPELLING = {
    "features_col": "featuresCol",
    "feature_cols": "featuresCol",
    "label_col": "labelCol",
    "weight_col": "weightCol",
    "validation_indicator_col": "validationIndicatorCol",
    "prediction_col": "predictionCol",
    "output_col": "predictionCol",
    "probability_col": "probabilityCol",
    "raw_prediction_col": "rawPredictionCol",
}
_OTHERS_WORDS = {
    "num_workers": "replicas",
    "num_proc": "replicas",
    "max_iter": "epochs",
    "maxIter": "epochs",
    "num_epochs": "epochs",
    "lr": "learning_rate",
    "step_size": "learning_rate",
    "features_cols": "features_col",
    "transform": "transforms",
    "early_stopping_rounds": "early_stopping_patience",
    "validation": "validation_fraction",
    "optimizer_args": "optimizer=functools.partial(...)",
    "use_gpu": "device",
}


def _param(name: str, doc: str, converter: Callable[[Any], Any] | None = None) -> Param[Any]:
    return Param(Params._dummy(), name, doc, converter)


def _fraction(value: Any) -> float:
    found = TypeConverters.toFloat(value)
    if not 0.0 < found < 1.0:
        raise TypeError(f"{value!r} is no fraction of the rows: pass more than 0 and less than 1")
    return found


class ModelParams(HasFeaturesCol, HasPredictionCol):
    """What a model needs to predict; its estimator has the same Params."""

    featuresCol = _param(
        "featuresCol",
        "the column of the model's input; a list is several inputs, a nested list stacks columns into one, a dict is "
        "inputs by name",
    )
    transforms = _param("transforms", "column -> function of one row's value that returns numbers, or 'sparse'")
    predict_batch_size = _param("predict_batch_size", "rows that a model predicts at once", TypeConverters.toInt)
    device = _param("device", "'auto' (the GPU that Spark gives a task, else the CPU), 'cpu' or 'cuda'")
    precision = _param("precision", "'fp32', or 'bf16' for autocast", TypeConverters.toString)

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(transforms={}, predict_batch_size=1024, device="auto", precision="fp32")

    def setParams(self: P, **params: Any) -> P:
        """Sets Params by name, columns in Spark's spelling (featuresCol) or Python's (features_col).

        Raises ConfigError: there is no such Param; the sentence suggests one. TypeError: a value of the wrong type.
        """
        there = {param.name for param in self.params}
        words = {word: name for word, name in SPELLING.items() if name in there}
        for word, value in params.items():
            name = words.get(word, word)
            if name not in there:
                raise ConfigError(f"{type(self).__name__} has no Param {word!r}; {_suggestion(word, [*words, *there])}")
            self._set(**{name: value})
        return self

    def setFeaturesCol(self: P, value: Any) -> P:
        """Sets the Param ``featuresCol``."""
        return self._set(featuresCol=value)

    def setPredictionCol(self: P, value: str) -> P:
        """Sets the Param ``predictionCol``."""
        return self._set(predictionCol=value)

    def _value(self, name: str) -> Any:
        """A Param's value, or None."""
        param = self.getParam(name)
        return self.getOrDefault(param) if self.isDefined(param) else None


def _suggestion(word: str, there: Sequence[str]) -> str:
    if word in _OTHERS_WORDS:
        return f"here it is {_OTHERS_WORDS[word]}"
    close = difflib.get_close_matches(word, there, 1)
    python = sorted(name for name in there if name == name.lower())
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(python)}"


class ClassifierParams(HasProbabilityCol, HasRawPredictionCol):
    """The further columns of a classifier; an empty name leaves one out."""

    def setProbabilityCol(self: PC, value: str) -> PC:
        """Sets the Param ``probabilityCol``."""
        return self._set(probabilityCol=value)

    def setRawPredictionCol(self: PC, value: str) -> PC:
        """Sets the Param ``rawPredictionCol``."""
        return self._set(rawPredictionCol=value)


PC = TypeVar("PC", bound=ClassifierParams)


class TrainingParams(ModelParams, HasLabelCol, HasWeightCol, HasValidationIndicatorCol, HasSeed):
    """What a training needs: the arguments of :class:`sparkdl.Trainer` and of its ``fit``."""

    labelCol = _param("labelCol", "the column, or columns, that the loss compares the output with; None: none")
    model = _param("model", "an nn.Module, which is copied, or a function that builds one")
    loss = _param("loss", "nn.Module or f(output, target) -> scalar mean over the rows")
    optimizer = _param("optimizer", "f(params) -> torch.optim.Optimizer; None: Adam")
    learning_rate = _param("learning_rate", "passed to the optimizer as lr; None: its own", TypeConverters.toFloat)
    scheduler = _param("scheduler", "f(optimizer) -> a scheduler of torch, stepped once a step")
    metrics = _param("metrics", "name -> f(output, target) -> scalar mean over the rows")
    step_fn = _param("step_fn", "f(model, batch) -> loss, or a mapping with 'loss'; replaces the loss")
    validation_fraction = _param("validation_fraction", "of the rows, held out for validation", _fraction)
    early_stopping_patience = _param(
        "early_stopping_patience",
        "validations without a better val_loss after which the training ends, with the best weights",
        TypeConverters.toInt,
    )
    epochs = _param("epochs", "how many, or a trigger that says when to end")
    validate_every = _param("validate_every", "a trigger; None: after each epoch")
    callbacks = _param("callbacks", "see sparkdl.callbacks; each fit gets copies")
    resume = _param("resume", "'auto' or a path: the checkpoint to go on from")
    batch_size = _param("batch_size", "rows of a step, over all replicas", TypeConverters.toInt)
    replicas = _param("replicas", "logical replicas; None: the task slots at the start", TypeConverters.toInt)
    wire = _param("wire", "'fp32' or 'bf16': how gradients travel", TypeConverters.toString)
    clip_norm = _param("clip_norm", "largest norm of a step's gradient", TypeConverters.toFloat)
    clip_value = _param("clip_value", "largest value of a step's gradient", TypeConverters.toFloat)
    accumulate = _param("accumulate", "parts into which a replica cuts its rows of a step", TypeConverters.toInt)
    form = _param("form", "'auto', 'gather', 'fused' or 'jobs': how a step runs", TypeConverters.toString)
    steps_per_job = _param("steps_per_job", "steps in one Spark job", TypeConverters.toInt)
    verbose = _param("verbose", "0: silence, 1: progress, 2: a line a step", TypeConverters.toInt)

    def __init__(self) -> None:
        super().__init__()
        names = "model loss optimizer learning_rate scheduler step_fn validation_fraction early_stopping_patience"
        names += " validate_every resume replicas clip_norm clip_value weightCol validationIndicatorCol"
        self._setDefault(**dict.fromkeys(names.split()))
        self._setDefault(metrics={}, callbacks=[], epochs=1, batch_size=512, accumulate=1, steps_per_job=1, verbose=1)
        self._setDefault(wire="fp32", form="auto", seed=0)  # Spark's own seed is another one in every process

    def setLabelCol(self: PT, value: Any) -> PT:
        """Sets the Param ``labelCol``."""
        return self._set(labelCol=value)

    def setWeightCol(self: PT, value: str | None) -> PT:
        """Sets the Param ``weightCol``."""
        return self._set(weightCol=value)

    def setValidationIndicatorCol(self: PT, value: str | None) -> PT:
        """Sets the Param ``validationIndicatorCol``."""
        return self._set(validationIndicatorCol=value)


PT = TypeVar("PT", bound=TrainingParams)
