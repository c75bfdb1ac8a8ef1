"""One forward and backward over a handful of rows on the driver, before any Spark step.

What would otherwise fail in every task, or train on nonsense without failing, becomes one sentence here.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F

from sparkdl.columns import Columns
from sparkdl.errors import ConfigError
from sparkdl.payload import Payload
from sparkdl.replica import CLASS_LOSSES, Batch, Replica

# They broadcast output and target: shapes that differ train on something else without an error.
ELEMENTWISE_LOSSES = (
    torch.nn.MSELoss,
    torch.nn.L1Loss,
    torch.nn.SmoothL1Loss,
    torch.nn.HuberLoss,
    torch.nn.BCELoss,
    torch.nn.BCEWithLogitsLoss,
    torch.nn.PoissonNLLLoss,
    torch.nn.KLDivLoss,
)
ELEMENTWISE_FUNCTIONS = (
    F.mse_loss,
    F.l1_loss,
    F.smooth_l1_loss,
    F.huber_loss,
    F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits,
)
_INDEX_LABELS = "number the labels 0, 1, 2, …, for example with pyspark.ml.feature.StringIndexer"


def check(payload: Payload, sample: Mapping[str, np.ndarray]) -> int | None:
    """Tries one step on ``sample`` (column -> [rows, …]). Model, rows and random generators stay as they are.

    Returns the number of classes if the loss compares with class numbers, otherwise None.

    Raises ConfigError: whatever does not fit, in one sentence with what to do.
    """
    for place in payload.plan.layout.tensors:
        dtype = payload.model.get_parameter(place.name).dtype
        if dtype != torch.float32:
            raise ConfigError(
                f"parameter {place.name!r} is {_plain(dtype)}, but weights are kept and updated in float32. Pass "
                "model.float(); precision='bf16' computes in bfloat16 all the same."
            )
    rows = {name: np.array(values) for name, values in sample.items()}  # copies: a model may change its input in place
    with kept_generators():
        return _Try(payload, rows).run()


@contextmanager
def kept_generators() -> Iterator[None]:
    """The global generators of torch (CPU), numpy and random are afterwards where they were before."""
    ours, theirs = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(theirs)


def check_labels(
    label_name: str,
    loss: Callable[..., Any],
    num_classes: int | None,
    label_min: float | None,
    label_max: float | None,
    label_nan: bool,
    label_fraction: float | None = None,
) -> None:
    """Whether the loss can take labels with these statistics. ``num_classes``: what :func:`check` returned.

    label_fraction: what :func:`fraction_in` found.

    Raises ConfigError: a NaN, or a label that is no class number of the model's outputs, or no probability for BCE.
    """
    # A loss of the user's own may well know what to do with NaN; class numbers cannot be NaN.
    of_torch = isinstance(loss, CLASS_LOSSES) or _is_of_torch(loss)
    where = f"label_col: column {label_name!r} holds"
    if label_nan and of_torch:
        raise ConfigError(
            f"{where} NaN, with which {_name(loss)} cannot be computed. Drop those rows, for example with "
            f"DataFrame.dropna(subset=[{label_name!r}])."
        )
    if label_fraction is not None and isinstance(loss, CLASS_LOSSES):
        raise ConfigError(
            f"{where} {_number(label_fraction)}, but {_name(loss)} compares with class numbers: {_INDEX_LABELS}, or "
            "use MSELoss for a quantity."
        )
    if label_min is None or label_max is None:
        return
    if isinstance(loss, CLASS_LOSSES) and num_classes is not None:
        for label in (label_min, label_max):
            if label != loss.ignore_index and not 0 <= label <= num_classes - 1:
                outputs = "1 output (0)" if num_classes == 1 else f"{num_classes} outputs (0..{num_classes - 1})"
                raise ConfigError(
                    f"{where} label {_number(label)} but the model has {outputs}. Give its last layer one output per "
                    f"class, or {_INDEX_LABELS}."
                )
    if isinstance(loss, torch.nn.BCELoss | torch.nn.BCEWithLogitsLoss) and (label_min < 0 or label_max > 1):
        label = label_min if label_min < 0 else label_max
        raise ConfigError(
            f"{where} label {_number(label)} but {_name(loss)} compares with probabilities, 0 to 1. Map the labels to "
            "0 and 1, or use CrossEntropyLoss for more than two classes."
        )


def fraction_in(labels: np.ndarray) -> float | None:
    """The first label that is no whole number, where every row has one number; NaN does not count."""
    if labels.ndim != 1 or labels.dtype.kind != "f":
        return None
    fractions = labels[(labels != np.floor(labels)) & ~np.isnan(labels)]
    return float(fractions[0]) if fractions.size else None


class _Try:
    """The stages of one step, each with its own sentences."""

    def __init__(self, payload: Payload, rows: Mapping[str, np.ndarray]):
        self.payload, self.rows = payload, rows
        self.num_rows = len(next(iter(rows.values())))
        self.of_torch = _is_of_torch(payload.loss) and payload.step_fn is None
        self.num_classes: int | None = None
        self.output: Any = None
        self.reached = "forward()"  # what runs now, for what raises in the middle of it

    def run(self) -> int | None:
        payload = self.payload
        self._check_sample_labels()
        self.batch = Batch(payload, self.rows, torch.device("cpu"))
        step_fn = None if payload.step_fn is None else self._step_fn
        try:
            replica = Replica(dataclasses.replace(payload, metrics={}, step_fn=step_fn))
        except Exception as error:
            raise ConfigError(
                f"model or loss cannot be copied ({_text(error)}). Keep in them only what copy.deepcopy can copy."
            ) from error
        self.model = replica.model.train()
        if step_fn is None:
            self._check_loss()
            self._check_signature()
            self.model.register_forward_hook(self._forward_done)
        with torch.autocast("cpu", torch.bfloat16, enabled=payload.precision == "bf16"):
            try:
                loss, _, _ = replica.measure(self.batch)
            except ConfigError:
                raise
            except Exception as error:
                self._refuse(error)
        self._backward(replica, loss)
        if step_fn is None:
            self._check_metrics()
        return self.num_classes

    def _refuse(self, error: Exception) -> NoReturn:
        first = f"{self.reached} failed on the first {self.num_rows} rows of the data"
        inputs = _inputs(self.payload.columns, self.batch)
        if self.reached == "forward()":
            hint = _hint(self.batch, str(error))
            raise ConfigError(f"{first}: {_text(error)}. Its inputs: {inputs}. {hint}") from error
        if self.reached == "step_fn":
            raise ConfigError(f"{first}: {_text(error)}. Its batch has the inputs {inputs}{self._target()}.") from error
        hint = "Make output and label what the loss compares."
        if isinstance(self.batch.target, torch.Tensor) and self.batch.target.dtype == torch.int64:
            hint = "If it wants floating-point labels, cast the label column to double."
        elif any(word in str(error) for word in ("Long", "Int", "integer")):
            hint = "If it wants whole numbers, cast the label column to bigint."
        raise ConfigError(
            f"{first}: {_text(error)}. The output is {_shown(self.output)}{self._target()}. {hint}"
        ) from error

    def _target(self) -> str:
        names = ", ".join(map(repr, self.payload.columns.label_names))
        return f", the label {names} {_shown(self.batch.target)}" if names else ", there is no label_col"

    def _check_sample_labels(self) -> None:
        names = self.payload.columns.label_names
        if self.payload.step_fn is not None or len(names) != 1:
            return
        labels = self.rows[names[0]]
        nan = bool(np.isnan(labels).any())
        check_labels(names[0], self.payload.loss, None, None, None, nan, fraction_in(labels))

    def _check_loss(self) -> None:
        loss, target = self.payload.loss, self.batch.target
        if getattr(loss, "reduction", "mean") == "sum":
            raise ConfigError(
                f"{_name(loss)} has reduction='sum', but a step follows the mean over its rows, whatever replicas hold "
                "them. Use reduction='mean' and scale the learning rate."
            )
        if self.of_torch and not isinstance(target, torch.Tensor):
            given = "label_col is None" if target is None else f"label_col gives {len(target)} targets"
            raise ConfigError(
                f"{given}, but {_name(loss)} compares with one. Name one column in label_col, or pass "
                "loss=f(output, target) that does what you want."
            )

    def _check_signature(self) -> None:
        try:
            signature = inspect.signature(self.model.forward)
        except (TypeError, ValueError):  # some compiled modules have none to show
            return
        try:
            signature.bind(*self.batch.inputs, **self.batch.kwargs)
        except TypeError as error:
            columns = self.payload.columns
            parameters = signature.parameters.values()
            num_arguments = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
            takes = f"forward() takes {_count(num_arguments, 'argument')} ({', '.join(map(str, parameters))})"
            if columns.keyword:
                names = ", ".join(repr(name) for name, _ in columns.keyword)
                raise ConfigError(
                    f"{takes}, feature_cols names {names}: {error}. Use the names of forward()'s arguments as the keys "
                    "of feature_cols."
                ) from error
            gives = f"feature_cols gives {_count(len(columns.positional), 'input')}"
            if num_arguments == 1 and len(columns.positional) > 1:
                names = ", ".join(f'"{name}"' for name in columns.feature_names)
                raise ConfigError(f"{takes}, {gives}; did you mean feature_cols=[[{names}]]?") from error
            raise ConfigError(f"{takes}, {gives}; give feature_cols one entry for each argument.") from error

    def _forward_done(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        """A hook: what comes out of the model is judged before the loss sees it."""
        self.reached = f"the loss {_name(self.payload.loss)}"
        self.output = output
        loss, target = self.payload.loss, self.batch.target
        elementwise = isinstance(loss, ELEMENTWISE_LOSSES) or any(loss is f for f in ELEMENTWISE_FUNCTIONS)
        if not (self.of_torch or elementwise):
            if isinstance(loss, CLASS_LOSSES) and isinstance(output, torch.Tensor) and isinstance(target, torch.Tensor):
                self._check_classes(loss, output, target)
            return
        if not isinstance(output, torch.Tensor):
            raise ConfigError(
                f"forward() returned {_shown(output)}, but {_name(loss)} takes one tensor. Return the tensor alone, or "
                "pass loss=f(output, target) that picks it."
            )
        if output.ndim == 0 or len(output) != self.num_rows:
            raise ConfigError(
                f"forward() returned {_shown(output)} for {self.num_rows} rows; the first axis must be the rows. Check "
                "what the model flattens, squeezes or sums over."
            )
        if isinstance(loss, CLASS_LOSSES):
            self._check_classes(loss, output, target)
        elif elementwise and isinstance(target, torch.Tensor) and output.shape != target.shape:
            raise ConfigError(_unequal(_name(loss), self.payload.columns.label_names[0], output, target))

    def _check_classes(self, loss: Any, output: torch.Tensor, target: torch.Tensor) -> None:
        (name,) = self.payload.columns.label_names
        if target.is_floating_point():  # probabilities of every class
            if output.shape != target.shape:
                raise ConfigError(_unequal(_name(loss), name, output, target))
            return
        rest = tuple(target.shape[1:])
        if output.ndim < 2 or (self.num_rows, *output.shape[2:]) != (self.num_rows, *rest):
            axes = ", ".join(("rows", "classes", *map(str, rest)))
            hint = f"return ({axes}) from forward()"
            if output.ndim == 1:
                hint += ", or use BCEWithLogitsLoss for two classes with one output"
            elif rest and output.shape[1:-1] == target.shape[1:]:
                hint += ": output.movedim(-1, 1)"
            elif rest == (1,):
                hint = "make the label a column of numbers instead of arrays of one"
            raise ConfigError(
                f"forward() returned {_shown(output)} and label {name!r} is {_shown(target)}, but {_name(loss)} needs "
                f"one output per class in the second axis and a class number for each place: {hint}."
            )
        self.num_classes = output.shape[1]
        counted = target[target != loss.ignore_index]
        if counted.numel():
            low, high = float(counted.min()), float(counted.max())
            check_labels(name, loss, self.num_classes, low, high, False)

    def _step_fn(self, model: torch.nn.Module, batch: Batch) -> Any:
        self.reached = "step_fn"
        assert self.payload.step_fn is not None
        result = self.payload.step_fn(model, batch)
        named = result if isinstance(result, Mapping) else {"loss": result}
        for name in ("loss", *self.payload.metrics):
            if name not in named:
                got = f"the keys {', '.join(map(repr, named))}" if isinstance(result, Mapping) else "the loss alone"
                raise ConfigError(
                    f"step_fn returned {got}, without {name!r}. Return a scalar loss, or a mapping with 'loss' and "
                    "every name in metrics."
                )
            if name != "loss":
                _require_number(f"{name!r} of step_fn", named[name])
        return result

    def _backward(self, replica: Replica, loss: Any) -> None:
        name = "step_fn" if self.payload.step_fn else _name(self.payload.loss)
        if not isinstance(loss, torch.Tensor) or loss.ndim:
            raise ConfigError(
                f"{name} returned {_shown(loss)} as the loss; it must be a scalar tensor, the mean over the rows. "
                "Use reduction='mean', or call .mean()."
            )
        if not math.isfinite(float(loss.detach())):
            broken = [repr(n) for n, values in self.rows.items() if not np.isfinite(values).all()]
            why = f"{', '.join(broken)} {'holds' if len(broken) == 1 else 'hold'} NaN or infinite values: clean them"
            if not broken:
                why = "the rows are all finite, so look at the model's scale, and at log, sqrt and divisions"
            raise ConfigError(f"the loss of the first {self.num_rows} rows is {float(loss.detach())}; {why}.")
        gradients: list[tuple[str, Any]] = []
        if loss.requires_grad:
            try:
                loss.backward()
            except Exception as error:
                raise ConfigError(
                    f"backward() failed on the first {self.num_rows} rows: {_text(error)}. The same would fail in "
                    "plain PyTorch: look at in-place operations and own autograd functions."
                ) from error
            places = self.payload.plan.layout.tensors
            gradients = [(p.name, replica.model.get_parameter(p.name).grad) for p in places]
        if all(gradient is None for _, gradient in gradients):
            raise ConfigError(
                "no gradient reached any parameter: somewhere between the parameters and the loss stands a detach(), "
                "item(), numpy(), argmax() or no_grad(). Compute the loss from the output itself."
            )
        for parameter, gradient in gradients:
            if gradient is not None and gradient.layout != torch.strided:
                raise ConfigError(
                    f"parameter {parameter!r} gets a sparse gradient; gradients are summed as one dense vector here. "
                    "Make its Embedding with sparse=False."
                )
            if gradient is not None and bool(gradient.isnan().any()):
                raise ConfigError(
                    f"the loss is finite, but the gradient of {parameter!r} is NaN on the first "
                    f"{self.num_rows} rows. Look for sqrt, log, norm or division at 0; add a small constant inside it."
                )

    def _check_metrics(self) -> None:
        output = self.output.detach() if isinstance(self.output, torch.Tensor) else self.output
        for name, metric in self.payload.metrics.items():
            try:
                with torch.no_grad():
                    value = copy.deepcopy(metric)(output, self.batch.target)
            except Exception as error:
                raise ConfigError(
                    f"metric {name!r} failed on the first {self.num_rows} rows: {_text(error)}. It was called with the "
                    f"output, {_shown(output)}, and the label, {_shown(self.batch.target)}."
                ) from error
            _require_number(f"metric {name!r}", value)


def _is_of_torch(loss: Any) -> bool:
    return isinstance(loss, torch.nn.Module) and type(loss).__module__.startswith("torch.nn.")


def _require_number(what: str, value: Any) -> None:
    try:
        float(value.detach() if isinstance(value, torch.Tensor) else value)
    except Exception as error:
        raise ConfigError(f"{what} is {_shown(value)}; it must be one number, the mean over the rows.") from error


def _unequal(loss: str, label: str, output: torch.Tensor, target: torch.Tensor) -> str:
    try:
        broadcast = tuple(torch.broadcast_shapes(output.shape, target.shape))
        would = f"{loss} would broadcast them to {broadcast} and compare places that do not belong together"
    except RuntimeError:
        would = f"{loss} compares them place by place"
    if output.shape == (*target.shape, 1):
        hint = "Squeeze the output: return output.squeeze(-1) from forward()"
    elif target.shape == (*output.shape, 1):
        hint = f"Make {label!r} a column of numbers instead of arrays of one, or return output.unsqueeze(-1)"
    else:
        hint = "Give the output the label's shape"
    return f"forward() returned {_shown(output)} and label {label!r} is {_shown(target)}: {would}. {hint}."


def _hint(batch: Batch, message: str) -> str:
    tensors = [*batch.inputs, *batch.kwargs.values()]
    floats = [t.is_floating_point() for t in tensors]
    if "indices" in message and any(floats):
        return "Floating-point columns arrive as float32: call .long() in forward(), or cast the column to bigint."
    if not all(floats) and any(word in message for word in ("dtype", "Long", "Byte", "scalar type")):
        return "Whole numbers arrive as int64 or uint8: call .float() in forward(), or cast the column to double."
    if "index out of range" in message:
        return "An Embedding has fewer rows than the largest number it is asked for, plus one."
    if "shape" in message and any(t.ndim == 1 for t in tensors):
        return 'A column of numbers is an input of shape (rows,): feature_cols=[["x"]] makes it (rows, 1).'
    return "Make feature_cols and the model's first layers fit each other."


def _inputs(columns: Columns, batch: Batch) -> str:
    shown = [f"{_spelled(v)} {_shown(t)}" for v, t in zip(columns.positional, batch.inputs, strict=True)]
    shown += [f"{key}={_spelled(value)} {_shown(batch.kwargs[key])}" for key, value in columns.keyword]
    return ", ".join(shown)


def _spelled(value: str | tuple[str, ...]) -> str:
    return repr(value if isinstance(value, str) else list(value))


def _shown(value: Any) -> str:
    """A value by its type and shape: float32 (8, 3)."""
    if isinstance(value, torch.Tensor):
        return f"{_plain(value.dtype)} {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(value)


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _text(error: Exception) -> str:
    message = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {message[:500]}" if message else type(error).__name__
