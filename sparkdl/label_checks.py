"""Labels against what a model has outputs for: in the first rows, and, by their ranges, in all rows.

Which outputs a label is compared with is seen, not guessed: `ClassWatch` watches the dry run for the calls of
torch.nn.functional that take class numbers (and for embeddings, which take row numbers), whoever makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from sparkdl.dry_run_sentences import name_of, number
from sparkdl.errors import ConfigError
from sparkdl.replica import CLASS_LOSSES
from sparkdl.stored_arrays import Array

__all__ = ["ClassWatch", "Numbers", "ValueRange", "check_labels", "check_numbers", "check_rows"]

INDEX_LABELS = "number the labels 0, 1, 2, …, for example with pyspark.ml.feature.StringIndexer"
# What gives the same numbers in another type, shape or place.
_SAME_NUMBERS = frozenset(
    {"long", "int", "to", "type", "cpu", "clone", "detach", "contiguous"}
    | {"view", "view_as", "reshape", "reshape_as", "flatten", "ravel", "squeeze", "unsqueeze"}
)


class ValueRange(NamedTuple):
    """What the numbers of a column are: the least, the largest, NaN among them, one that is no whole number.

    low, high: None without rows (NaN does not count);  fraction: only of columns with one number a row.
    """

    low: float | None = None
    high: float | None = None
    nan: bool = False
    fraction: float | None = None

    @classmethod
    def of(cls, values: Array) -> ValueRange:
        """Of a stored column."""
        if not values.size:
            return cls()
        if values.dtype.kind != "f":
            return cls(float(values.min()), float(values.max()))
        whole = np.isfinite(values)
        finite = values if whole.all() else values[~np.isnan(values)]
        nan, fraction = finite.size < values.size, None
        if values.ndim == 1:
            fractions = finite[finite != np.floor(finite)]
            fraction = float(fractions[0]) if fractions.size else None
        if not finite.size:
            return cls(nan=nan)
        return cls(float(finite.min()), float(finite.max()), nan, fraction)

    @classmethod
    def joined(cls, ranges: Iterable[ValueRange]) -> ValueRange:
        """Of all rows, from the ranges of some."""
        found = list(ranges)
        lows = [r.low for r in found if r.low is not None]
        highs = [r.high for r in found if r.high is not None]
        fraction = next((r.fraction for r in found if r.fraction is not None), None)
        return cls(min(lows, default=None), max(highs, default=None), any(r.nan for r in found), fraction)


class Numbers(NamedTuple):
    """What a column's numbers stand for: 0 to size - 1 of a class loss's outputs, or of an Embedding's rows."""

    size: int | None  # None: nobody knows
    user: str  # "CrossEntropyLoss", "cross_entropy", "Embedding"
    ignored: int | None = None  # the label that a class loss leaves out


class ClassWatch(TorchFunctionMode):
    """While it is active, sees which columns' numbers go into class losses and embeddings: ``found``, by column.

    columns: name -> the tensor that the model or the loss gets.
    Raises ConfigError, out of the loss's call: a label that the outputs have no place for.
    """

    def __init__(self, columns: Mapping[str, torch.Tensor], loss: Callable[..., Any] | None):
        super().__init__()
        self.found: dict[str, Numbers] = {}
        self._loss = loss
        # by identity, and kept: an identity may come again once its tensor is gone
        self._known = {id(tensor): (name, tensor) for name, tensor in columns.items()}

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if function in (F.cross_entropy, F.nll_loss):
            output, target = (*args, *(named[k] for k in ("input", "target") if k in named))[:2]
            self._class_loss(function, output, target, named.get("ignore_index", -100))
        elif function is F.embedding:
            numbers, table = (*args, *(named[k] for k in ("input", "weight") if k in named))[:2]
            if (name := self._name(numbers)) is not None:
                self.found.setdefault(name, Numbers(len(table), "Embedding"))
        result = function(*args, **named)
        same = getattr(function, "__name__", "") in _SAME_NUMBERS and args and isinstance(result, torch.Tensor)
        if same and (name := self._name(args[0])) is not None:
            self._known[id(result)] = (name, result)
        return result

    def _name(self, tensor: Any) -> str | None:
        name, known = self._known.get(id(tensor), (None, None))
        return name if known is tensor else None

    def _class_loss(self, function: Any, output: Any, target: Any, ignored: int) -> None:
        name = self._name(target)
        if name is None or not isinstance(output, torch.Tensor) or not output.ndim or target.is_floating_point():
            return
        loss = name_of(self._loss) if isinstance(self._loss, CLASS_LOSSES) else function.__name__
        numbers = Numbers(output.shape[1 if output.ndim > 1 else 0], loss, ignored)
        counted = target[target != ignored]
        if counted.numel():
            check_numbers(name, numbers, ValueRange(float(counted.min()), float(counted.max())))
        self.found[name] = numbers


def check_numbers(column: str, numbers: Numbers, values: ValueRange) -> None:
    """Whether all values are numbers that their user has a place for.   Raises ConfigError: one is not."""
    of_label = numbers.user != "Embedding"
    where = f"{'label_col' if of_label else 'feature_cols'}: column {column!r} holds"
    if of_label and values.nan:
        raise ConfigError(f"{where} NaN, which is no class number for {numbers.user}. Drop those rows.")
    if values.fraction is not None:
        what = f"compares with class numbers: {INDEX_LABELS}" if of_label else "looks up row numbers: cast the column"
        hint = ", or use MSELoss for a quantity" if of_label else ""
        raise ConfigError(f"{where} {number(values.fraction)}, but {numbers.user} {what}{hint}.")
    for value in (values.low, values.high):
        if value is None or value == numbers.ignored or numbers.size is None or 0 <= value <= numbers.size - 1:
            continue
        if not of_label:
            raise ConfigError(
                f"{where} {number(value)} but its Embedding has {numbers.size} rows (0..{numbers.size - 1}). Give "
                "the Embedding one row for each number, or number the values from 0 on."
            )
        outputs = "1 output (0)" if numbers.size == 1 else f"{numbers.size} outputs (0..{numbers.size - 1})"
        raise ConfigError(
            f"{where} label {number(value)} but the model has {outputs}. Give its last layer one output per class, or "
            f"{INDEX_LABELS}."
        )


def check_labels(label: str, loss: Callable[..., Any], numbers: Numbers | None, values: ValueRange) -> None:
    """Whether the loss can take labels like these.   numbers: what the dry run saw this label used for.

    Raises ConfigError: a NaN, a label that is no class number of the model's outputs, or no probability for BCE.
    """
    # A loss of the user's own may well know what to do with NaN; class numbers cannot be NaN.
    where = f"label_col: column {label!r} holds"
    if values.nan and (isinstance(loss, CLASS_LOSSES) or is_of_torch(loss)):
        raise ConfigError(
            f"{where} NaN, with which {name_of(loss)} cannot be computed. Drop those rows, for example with "
            f"DataFrame.dropna(subset=[{label!r}])."
        )
    if numbers is None and isinstance(loss, CLASS_LOSSES):
        numbers = Numbers(None, name_of(loss))
    if numbers is not None:
        check_numbers(label, numbers, values)
    if isinstance(loss, torch.nn.BCELoss | torch.nn.BCEWithLogitsLoss):
        for value in (values.low, values.high):
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(
                    f"{where} label {number(value)} but {name_of(loss)} compares with probabilities, 0 to 1. Map the "
                    "labels to 0 and 1, or use CrossEntropyLoss for more than two classes."
                )


def check_rows(
    labels: Iterable[str],
    loss: Callable[..., Any],
    used: Mapping[str, Numbers],
    ranges: Iterable[Mapping[str, ValueRange]],
) -> None:
    """Whether the columns of all rows hold what the dry run saw them used for.

    labels: the label columns.  used: what `dry_run.check` returned.  ranges: of
    some rows each, by column.   Raises ConfigError: as :func:`check_labels`, of any label or looked-up column.
    """
    parts, names = list(ranges), list(labels)
    for name in dict.fromkeys([*names, *used]):
        values = ValueRange.joined(part[name] for part in parts if name in part)
        if name not in names:
            check_numbers(name, used[name], values)
        elif len(names) == 1:
            check_labels(name, loss, used.get(name), values)
        elif name in used:
            check_numbers(name, used[name], values)


def is_of_torch(loss: Any) -> bool:
    """Whether a loss is one of torch's modules, and not somebody's own."""
    return isinstance(loss, torch.nn.Module) and type(loss).__module__.startswith("torch.nn.")
