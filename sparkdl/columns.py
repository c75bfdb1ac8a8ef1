"""Which columns form a model's inputs, target and weight, and those as tensors, from stored columns."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparkdl.errors import ConfigError
from sparkdl.sparse_rows import SparseRows
from sparkdl.stored_arrays import SPARSE, Stored, Transform

__all__ = ["Columns", "FeatureCols"]

Array: TypeAlias = npt.NDArray[Any]
FeatureCols: TypeAlias = "str | Sequence[str | Sequence[str]] | Mapping[str, str | Sequence[str]]"
# One input: a column as it is, or several stacked side by side.
_Input: TypeAlias = "str | tuple[str, ...]"


@dataclass(frozen=True)
class Columns:
    """Which columns form the model's inputs, the target and the weight of a row."""

    positional: tuple[_Input, ...]
    keyword: tuple[tuple[str, _Input], ...]
    label_names: tuple[str, ...]
    weight_col: str | None
    transforms: tuple[tuple[str, Transform], ...] = ()

    @classmethod
    def parse(
        cls,
        feature_cols: FeatureCols,
        label_col: str | Sequence[str] | None = None,
        weight_col: str | None = None,
        transform: Mapping[str, Transform] | None = None,
    ) -> Columns:
        """Read the trainer's spelling.

        feature_cols: "x" is one input, ["u", "i"] two positional inputs; a nested list stacks its columns into one
            input, [["a", "b"], ["c"]]; a mapping names keyword inputs, {"ids": "x", "dense": ["a", "b"]}.
        label_col: one column, several (the target is then a tuple), or None.
        transform: column -> f(value of one row) -> number or array; or "sparse", for vectors that stay sparse.

        Raises ConfigError: something empty, given twice in one list, not a string, or a transform of another column.
        """
        positional: tuple[_Input, ...] = ()
        keyword: tuple[tuple[str, _Input], ...] = ()
        if isinstance(feature_cols, str):
            positional = (_one_input("feature_cols", feature_cols),)
        elif isinstance(feature_cols, Mapping):
            keyword = tuple(
                (_name("feature_cols", key), _one_input(f"feature_cols[{key!r}]", value))
                for key, value in feature_cols.items()
            )
        elif isinstance(feature_cols, Sequence):
            positional = tuple(_one_input("feature_cols", value) for value in feature_cols)
            _no_repeats("feature_cols", positional)
        else:
            raise ConfigError(
                f"feature_cols is {feature_cols!r}: pass a column's name, a list of names (positional inputs; a nested "
                "list is stacked into one input), or a dict of names (keyword inputs)."
            )
        if not positional and not keyword:
            raise ConfigError("feature_cols is empty: the model needs at least one input. Pass a column's name.")
        labels: tuple[str, ...] = ()
        if label_col is not None:
            labels = _names("label_col", [label_col] if isinstance(label_col, str) else label_col)
        weight = None if weight_col is None else _name("weight_col", weight_col)
        columns = cls(positional, keyword, labels, weight)
        return dataclasses.replace(columns, transforms=_transforms(transform, columns)) if transform else columns

    @property
    def feature_names(self) -> list[str]:
        """The columns of the inputs, in order, without repeats."""
        inputs = [*self.positional, *(value for _, value in self.keyword)]
        return list(dict.fromkeys(name for value in inputs for name in _columns_of(value)))

    @property
    def names(self) -> list[str]:
        """All used columns, in order, without repeats: inputs, labels, weight."""
        weight = () if self.weight_col is None else (self.weight_col,)
        return list(dict.fromkeys((*self.feature_names, *self.label_names, *weight)))

    def without_targets(self) -> Columns:
        """The same inputs alone, for what only predicts."""
        features = set(self.feature_names)
        transforms = tuple((name, f) for name, f in self.transforms if name in features)
        return Columns(self.positional, self.keyword, (), None, transforms)

    def inputs(self, batch: Mapping[str, Stored]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Positional and keyword inputs: the model is called as model(*positional, **keyword).

        batch: stored columns, each [rows, ...], picked by row numbers and so already copies, which the tensors keep.
        A column that is stored sparse becomes a COO tensor.
        """
        positional = tuple(_stacked(value, batch) for value in self.positional)
        return positional, {key: _stacked(value, batch) for key, value in self.keyword}

    def target(self, batch: Mapping[str, Stored]) -> Tensor | tuple[Tensor, ...] | None:
        """What the loss compares with: a tensor, a tuple if there are several labels, None if there is none."""
        # A column may be input and target at once (an autoencoder); the model may then change its input in place.
        shared = set(self.label_names).intersection(self.feature_names)
        found = {name: _array(batch[name]) for name in self.label_names}
        targets = tuple(_tensor(values.copy() if name in shared else values) for name, values in found.items())
        if not targets:
            return None
        return targets[0] if len(targets) == 1 else targets

    def weight(self, batch: Mapping[str, Stored]) -> Tensor | None:
        """How much each row counts: float32 [rows], or None.   Raises ConfigError: the column holds arrays."""
        if self.weight_col is None:
            return None
        values = _array(batch[self.weight_col])
        if values.ndim != 1:
            raise ConfigError(
                f"weight_col: column {self.weight_col!r} holds arrays of shape {values.shape[1:]}, but a row has one "
                "weight. Name a column of numbers."
            )
        return _tensor(values).to(torch.float32)


def _columns_of(value: _Input) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _one_input(where: str, value: object) -> _Input:
    return _name(where, value) if isinstance(value, str) else _names(where, value)


def _name(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where} holds {value!r} where a column's name is expected: pass a string.")
    if not value:
        raise ConfigError(f"{where} holds an empty name: pass the name of a column.")
    return value


def _names(where: str, values: object) -> tuple[str, ...]:
    if not isinstance(values, Sequence):
        raise ConfigError(f"{where} holds {values!r} where a column's name or a list of names is expected.")
    if not values:
        raise ConfigError(f"{where} holds an empty list: name at least one column, or leave the list out.")
    names = tuple(_name(where, value) for value in values)
    _no_repeats(where, names)
    return names


def _no_repeats(where: str, values: Sequence[_Input]) -> None:
    for number, value in enumerate(values):
        if value in values[:number]:
            raise ConfigError(f"{where} names {value!r} twice in one list: remove one of them.")


def _transforms(transform: Mapping[str, Transform], columns: Columns) -> tuple[tuple[str, Transform], ...]:
    if not isinstance(transform, Mapping):
        raise ConfigError(f"transform is {transform!r}: pass a dict, column -> function of one row's value.")
    used = columns.names
    for name, function in transform.items():
        if name not in used:
            close = difflib.get_close_matches(str(name), used, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"these are {', '.join(map(repr, used))}."
            raise ConfigError(f"transform names {name!r}, which is none of the columns in use; {hint}")
        if not callable(function) and function != SPARSE:
            raise ConfigError(
                f"transform[{name!r}] is {function!r}: pass a function of one row's value that returns a number or an "
                "array, or 'sparse' for vectors that the model takes as a sparse tensor."
            )
        if function == SPARSE and name not in columns.feature_names:
            raise ConfigError(
                f"transform[{name!r}] is 'sparse', which only inputs can be; labels and weights are dense."
            )
    return tuple(transform.items())


def _array(values: Stored) -> Array:
    """What is both an input and a label may be stored sparse."""
    return values.dense() if isinstance(values, SparseRows) else values


def _stacked(value: _Input, batch: Mapping[str, Stored]) -> Tensor:
    if isinstance(value, str):
        return _tensor(batch[value])
    if any(isinstance(batch[name], SparseRows) for name in value):
        return torch.cat([_sparse_part(name, batch[name]) for name in value], dim=1).coalesce()
    columns = {name: _array(batch[name]) for name in value}
    # [rows] becomes [rows, 1]
    parts = [values if values.ndim > 1 else values[:, np.newaxis] for values in columns.values()]
    if len({part.shape[2:] for part in parts}) > 1:
        shapes = ", ".join(f"{name!r} {values.shape[1:]}" for name, values in columns.items())
        raise ConfigError(
            "the columns of one input are joined along their first axis, so the other axes must agree; these are "
            f"{shapes}. Make them separate inputs."
        )
    dtypes = {part.dtype for part in parts}
    # numpy would make float64 of float32 and int64
    mixed = np.dtype(np.float32) if any(dtype.kind == "f" for dtype in dtypes) else np.dtype(np.int64)
    dtype = dtypes.pop() if len(dtypes) == 1 else mixed
    return _tensor(np.concatenate(parts, axis=1, dtype=dtype, casting="unsafe"))


def _sparse_part(name: str, values: Stored) -> Tensor:
    """One of the columns of an input of which another is sparse: [rows, width], sparse."""
    if not isinstance(values, SparseRows):
        if values.ndim > 2:
            raise ConfigError(
                f"column {name!r} holds arrays of shape {values.shape[1:]} and is joined with a sparse column, which "
                "only vectors and numbers can be. Make it an input of its own."
            )
        values = SparseRows.of_dense(values.reshape(len(values), -1).astype(np.float32, copy=False))
    return values.tensor()


def _tensor(values: Stored) -> Tensor:
    if isinstance(values, SparseRows):
        return values.tensor()
    # torch warns about read-only memory, and writing through a tensor must not change the stored column.
    if not values.flags.writeable or not values.flags.c_contiguous:
        values = np.array(values, order="C")
    return torch.from_numpy(values)
