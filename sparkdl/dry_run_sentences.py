"""The words of the dry run's sentences: tensors by type and shape, columns as they were spelled, hints."""

from __future__ import annotations

from typing import Any

import torch

from sparkdl.columns import Columns
from sparkdl.replica import Batch


def unequal(loss: str, label: str, output: torch.Tensor, target: torch.Tensor) -> str:
    """Output and label of different shapes, what an element-wise loss would do with them, and what helps."""
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
    return f"forward() returned {shown(output)} and label {label!r} is {shown(target)}: {would}. {hint}."


def hint_of(batch: Batch, message: str) -> str:
    """What may help against an error that forward() raised with these inputs."""
    tensors = [*batch.inputs, *batch.kwargs.values()]
    floats = [t.is_floating_point() for t in tensors]
    if "shape" not in message and any(t.is_sparse for t in tensors):
        return "Linear and torch.sparse.mm take a sparse input; elsewhere call .to_dense() in forward()."
    if "indices" in message and any(floats):
        return "Floating-point columns arrive as float32: call .long() in forward(), or cast the column to bigint."
    if not all(floats) and any(word in message for word in ("dtype", "Long", "Byte", "scalar type")):
        return "Whole numbers arrive as int64 or uint8: call .float() in forward(), or cast the column to double."
    if "index out of range" in message:
        return "An Embedding has fewer rows than the largest number it is asked for, plus one."
    if "shape" in message and any(t.ndim == 1 for t in tensors):
        return 'A column of numbers is an input of shape (rows,): feature_cols=[["x"]] makes it (rows, 1).'
    return "Make feature_cols and the model's first layers fit each other."


def inputs_text(columns: Columns, batch: Batch) -> str:
    """All inputs: 'x' float32 (8, 3), ids='u' int64 (8,)."""
    words = [f"{spelled(v)} {shown(t)}" for v, t in zip(columns.positional, batch.inputs, strict=True)]
    words += [f"{key}={spelled(value)} {shown(batch.kwargs[key])}" for key, value in columns.keyword]
    return ", ".join(words)


def spelled(value: str | tuple[str, ...]) -> str:
    """A column, or the list of columns, of one input."""
    return repr(value if isinstance(value, str) else list(value))


def shown(value: Any) -> str:
    """A value by its type and shape: float32 (8, 3)."""
    if isinstance(value, torch.Tensor):
        return f"{'sparse ' if value.is_sparse else ''}{plain(value.dtype)} {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"


def plain(dtype: torch.dtype) -> str:
    """float32, without torch."""
    return str(dtype).removeprefix("torch.")


def counted(number: int, noun: str) -> str:
    """1 input, 2 inputs."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def number(value: float) -> str:
    """7 for 7.0, 1.5 for 1.5."""
    return str(int(value)) if float(value).is_integer() else repr(value)


def name_of(function: Any) -> str:
    """What a function, or the class of an object, is called."""
    return str(getattr(function, "__name__", type(function).__name__))


def text_of(error: Exception) -> str:
    """An exception in one line."""
    message = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {message[:500]}" if message else type(error).__name__
