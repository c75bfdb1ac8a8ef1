"""One forward and backward over a handful of rows on the driver, before any Spark step.

What would otherwise fail in every task, or train on nonsense without failing, becomes one sentence here.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F

from sparkdl.dry_run_sentences import counted, hint_of, inputs_text, name_of, plain, shown, text_of, unequal
from sparkdl.errors import ConfigError
from sparkdl.label_checks import ClassWatch, Numbers, ValueRange, check_labels, is_of_torch
from sparkdl.payload import Payload
from sparkdl.replica import CLASS_LOSSES, Batch, Replica
from sparkdl.sparse_rows import SparseRows
from sparkdl.stored_arrays import Stored

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


def check(payload: Payload, sample: Mapping[str, Stored]) -> dict[str, Numbers]:
    """Tries one step on ``sample`` (column -> [rows, …]). Model, rows and random generators stay as they are.

    Returns, for columns whose numbers a class loss or an embedding was seen to take, what for: all rows can then be
    compared with it (`label_checks.check_rows`).

    Raises ConfigError: whatever does not fit, in one sentence with what to do.
    """
    for place in payload.plan.layout.tensors:
        dtype = payload.model.get_parameter(place.name).dtype
        if dtype != torch.float32:
            raise ConfigError(
                f"parameter {place.name!r} is {plain(dtype)}, but weights are kept and updated in float32. Pass "
                "model.float(); precision='bf16' computes in bfloat16 all the same."
            )
    # copies: a model may change its input in place
    rows = {name: values[:] if isinstance(values, SparseRows) else np.array(values) for name, values in sample.items()}
    with kept_generators():
        return _Try(payload, rows).run()


_DRAWING = threading.RLock()  # fits on several threads of one driver share the generators


@contextmanager
def kept_generators() -> Iterator[None]:
    """The global generators of torch (CPU), numpy and random are afterwards where they were before.

    One thread at a time: else a model built on one thread would get weights that another one's dry run drew.
    """
    with _DRAWING:
        ours, theirs = random.getstate(), np.random.get_state()
        try:
            with torch.random.fork_rng(devices=[]):
                yield
        finally:
            random.setstate(ours)
            np.random.set_state(theirs)


class _Try:
    """The stages of one step, each with its own sentences."""

    def __init__(self, payload: Payload, rows: Mapping[str, Stored]):
        self.payload, self.rows = payload, rows
        self.num_rows = len(next(iter(rows.values())))
        self.of_torch = is_of_torch(payload.loss) and payload.step_fn is None
        self.output: Any = None
        self.reached = "forward()"  # what runs now, for what raises in the middle of it

    def run(self) -> dict[str, Numbers]:
        payload = self.payload
        names = payload.columns.label_names
        if payload.step_fn is None and len(names) == 1 and isinstance(labels := self.rows[names[0]], np.ndarray):
            values = ValueRange.of(labels)
            check_labels(names[0], payload.loss, None, ValueRange(nan=values.nan, fraction=values.fraction))
        self.batch = Batch(payload, self.rows, torch.device("cpu"))
        step_fn = None if payload.step_fn is None else self._step_fn
        try:
            replica = Replica(dataclasses.replace(payload, metrics={}, step_fn=step_fn))
        except Exception as error:
            raise ConfigError(
                f"model or loss cannot be copied ({text_of(error)}). Keep in them only what copy.deepcopy can copy."
            ) from error
        self.model = replica.model.train()
        if step_fn is None:
            self._check_loss()
            self._check_signature()
            self.model.register_forward_hook(self._forward_done)
        with torch.autocast("cpu", torch.bfloat16, enabled=payload.precision == "bf16"):
            compiled = any(type(module).__name__ == "OptimizedModule" for module in self.model.modules())
            self.watch = ClassWatch({} if compiled else self._numbers(), None if payload.step_fn else payload.loss)
            try:
                with nullcontext() if compiled else self.watch:
                    loss, _, _ = replica.measure(self.batch)
            except ConfigError:
                raise
            except Exception as error:
                self._refuse(error)
        self._backward(replica, loss)
        if step_fn is None:
            self._check_metrics()
        return self.watch.found

    def _refuse(self, error: Exception) -> NoReturn:
        first = f"{self.reached} failed on the first {self.num_rows} rows of the data"
        inputs = inputs_text(self.payload.columns, self.batch)
        if self.reached == "forward()":
            hint = hint_of(self.batch, str(error))
            raise ConfigError(f"{first}: {text_of(error)}. Its inputs: {inputs}. {hint}") from error
        if self.reached == "step_fn":
            raise ConfigError(
                f"{first}: {text_of(error)}. Its batch has the inputs {inputs}{self._target()}."
            ) from error
        hint = "Make output and label what the loss compares."
        if isinstance(self.batch.target, torch.Tensor) and self.batch.target.dtype == torch.int64:
            hint = "If it wants floating-point labels, cast the label column to double."
        elif any(word in str(error) for word in ("Long", "Int", "integer")):
            hint = "If it wants whole numbers, cast the label column to bigint."
        raise ConfigError(
            f"{first}: {text_of(error)}. The output is {shown(self.output)}{self._target()}. {hint}"
        ) from error

    def _target(self) -> str:
        names = ", ".join(map(repr, self.payload.columns.label_names))
        return f", the label {names} {shown(self.batch.target)}" if names else ", there is no label_col"

    def _numbers(self) -> dict[str, torch.Tensor]:
        """The tensors of single columns, by column: inputs, and labels, which come last and so win."""
        columns, batch = self.payload.columns, self.batch
        named = [*zip(columns.positional, batch.inputs, strict=True)]
        named += [(value, batch.kwargs[key]) for key, value in columns.keyword]
        if columns.label_names:
            targets = batch.target if isinstance(batch.target, tuple) else [batch.target]
            named += zip(columns.label_names, targets, strict=True)
        return {name: tensor for name, tensor in named if isinstance(name, str)}

    def _check_loss(self) -> None:
        loss, target = self.payload.loss, self.batch.target
        if getattr(loss, "reduction", "mean") == "sum":
            raise ConfigError(
                f"{name_of(loss)} has reduction='sum', but a step follows the mean over its rows, whatever replicas "
                "hold them. Use reduction='mean' and scale the learning rate."
            )
        if self.of_torch and not isinstance(target, torch.Tensor):
            given = "label_col is None" if target is None else f"label_col gives {len(target)} targets"
            raise ConfigError(
                f"{given}, but {name_of(loss)} compares with one. Name one column in label_col, or pass "
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
            takes = f"forward() takes {counted(num_arguments, 'argument')} ({', '.join(map(str, parameters))})"
            if columns.keyword:
                names = ", ".join(repr(name) for name, _ in columns.keyword)
                raise ConfigError(
                    f"{takes}, feature_cols names {names}: {error}. Use the names of forward()'s arguments as the keys "
                    "of feature_cols."
                ) from error
            gives = f"feature_cols gives {counted(len(columns.positional), 'input')}"
            if num_arguments == 1 and len(columns.positional) > 1:
                names = ", ".join(f'"{name}"' for name in columns.feature_names)
                raise ConfigError(f"{takes}, {gives}. Did you mean feature_cols=[[{names}]]?") from error
            if len(columns.positional) == 1 and num_arguments == len(columns.feature_names) > 1:
                names = ", ".join(f'"{name}"' for name in columns.feature_names)
                raise ConfigError(f"{takes}, {gives}. Did you mean feature_cols=[{names}]?") from error
            raise ConfigError(f"{takes}, {gives}; give feature_cols one entry for each argument.") from error

    def _forward_done(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        """A hook: what comes out of the model is judged before the loss sees it."""
        self.reached = f"the loss {name_of(self.payload.loss)}"
        self.output = output
        loss, target = self.payload.loss, self.batch.target
        elementwise = isinstance(loss, ELEMENTWISE_LOSSES) or any(loss is f for f in ELEMENTWISE_FUNCTIONS)
        if not (self.of_torch or elementwise):
            if isinstance(loss, CLASS_LOSSES) and isinstance(output, torch.Tensor) and isinstance(target, torch.Tensor):
                self._check_classes(loss, output, target)
            return
        if not isinstance(output, torch.Tensor):
            raise ConfigError(
                f"forward() returned {shown(output)}, but {name_of(loss)} takes one tensor. Return the tensor alone, "
                "or pass loss=f(output, target) that picks it."
            )
        if output.ndim == 0 or len(output) != self.num_rows:
            raise ConfigError(
                f"forward() returned {shown(output)} for {self.num_rows} rows; the first axis must be the rows. Check "
                "what the model flattens, squeezes or sums over."
            )
        if isinstance(loss, CLASS_LOSSES):
            self._check_classes(loss, output, target)
        elif elementwise and isinstance(target, torch.Tensor) and output.shape != target.shape:
            raise ConfigError(unequal(name_of(loss), self.payload.columns.label_names[0], output, target))

    def _check_classes(self, loss: Any, output: torch.Tensor, target: torch.Tensor) -> None:
        (name,) = self.payload.columns.label_names
        if target.is_floating_point():  # probabilities of every class
            if output.shape != target.shape:
                raise ConfigError(unequal(name_of(loss), name, output, target))
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
                f"forward() returned {shown(output)} and label {name!r} is {shown(target)}, but {name_of(loss)} needs "
                f"one output per class in the second axis and a class number for each place: {hint}."
            )
        # where the first rows have no label that counts, the loss is never called
        self.watch.found[name] = Numbers(output.shape[1], name_of(loss), loss.ignore_index)

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
        name = "step_fn" if self.payload.step_fn else name_of(self.payload.loss)
        if not isinstance(loss, torch.Tensor) or loss.ndim:
            raise ConfigError(
                f"{name} returned {shown(loss)} as the loss; it must be a scalar tensor, the mean over the rows. "
                "Use reduction='mean', or call .mean()."
            )
        if not math.isfinite(float(loss.detach())):
            broken = [repr(n) for n, values in self.rows.items() if not _all_finite(values)]
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
                    f"backward() failed on the first {self.num_rows} rows: {text_of(error)}. The same would fail in "
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
            if gradient is None:
                continue
            if parameter in self.payload.template.tables and not gradient.is_sparse:
                raise ConfigError(
                    f"parameter {parameter!r} belongs to an Embedding with sparse=True, but gets a dense gradient: "
                    "the model uses it elsewhere too, as another layer's weight or in a norm. Use sparse=False."
                )
            if parameter not in self.payload.template.tables and gradient.layout != torch.strided:
                raise ConfigError(
                    f"parameter {parameter!r} gets a sparse gradient, but is no weight of a torch.nn.Embedding or "
                    "EmbeddingBag with sparse=True; only those may. Use one of them, or sparse=False."
                )
            if bool((gradient.coalesce().values() if gradient.is_sparse else gradient).isnan().any()):
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
                    f"metric {name!r} failed on the first {self.num_rows} rows: {text_of(error)}. It was called with "
                    f"the output, {shown(output)}, and the label, {shown(self.batch.target)}."
                ) from error
            _require_number(f"metric {name!r}", value)


def _all_finite(values: Stored) -> bool:
    return bool(np.isfinite(values.entries["value"] if isinstance(values, SparseRows) else values).all())


def _require_number(what: str, value: Any) -> None:
    try:
        float(value.detach() if isinstance(value, torch.Tensor) else value)
    except Exception as error:
        raise ConfigError(f"{what} is {shown(value)}; it must be one number, the mean over the rows.") from error
