"""Columns as they are stored: an array [rows, ...] each, of one of a few types, whatever it came from.

Floating-point numbers and truth values are float32, whole numbers int64, images uint8; columns of sparse vectors that
stay sparse are `SparseRows`.  Here are the types, the sentences of what does not fit, and the way from arrays, tensors
and lists; `arrow_columns` has that from Spark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparkdl.errors import ConfigError
from sparkdl.sparse_rows import SparseRows

__all__ = [
    "SPARSE",
    "Kind",
    "Stored",
    "Transform",
    "from_arrays",
    "kinds_of",
    "ragged",
    "storage_dtype",
    "transformed",
    "transformed_value",
]

Array: TypeAlias = npt.NDArray[Any]
Stored: TypeAlias = "Array | SparseRows"
# What makes a number or an array of one row's value; the word SPARSE instead leaves sparse vectors sparse.
Transform: TypeAlias = "Callable[[Any], Any] | str"

SPARSE = "sparse"
DENSE_WIDTH = 16_384  # the widest sparse vector that is written out in full unasked: 64 KiB a row


class Kind(NamedTuple):
    """What every row of a stored column looks like."""

    dtype: str  # numpy's letters: "<f4", "<i8", "|u1"
    shape: tuple[int, ...]  # of one row
    sparse: bool = False

    @property
    def num_bytes(self) -> int:
        """Of a row; of a sparse one's place in the list of rows."""
        return 16 if self.sparse else math.prod(self.shape) * np.dtype(self.dtype).itemsize


def kinds_of(columns: Mapping[str, Stored]) -> dict[str, Kind]:
    """The kind of each column."""
    return {
        name: Kind(values.dtype.str, tuple(values.shape[1:]), isinstance(values, SparseRows))
        for name, values in columns.items()
    }


def storage_dtype(dtype: np.dtype[Any], ndim: int = 1, column: str = "") -> np.dtype[Any]:
    """The type a column is stored in: float32 for floating-point numbers and truth values, int64 for whole numbers.

    uint8 arrays (`ndim`, rows included, is 2 or more) stay uint8: they are images, at an eighth of the memory; the
    model converts them.   Raises TypeError: anything that is not a number.
    """
    if dtype.kind == "b" or (dtype.kind == "f" and dtype.itemsize <= 8):
        return np.dtype(np.float32)
    if dtype == np.uint8 and ndim >= 2:
        return np.dtype(np.uint8)
    if dtype.kind in "iu":
        return np.dtype(np.int64)
    if dtype.kind in "US":
        raise TypeError(no_numbers(column, f"strings ({dtype})"))
    raise TypeError(f"column {column!r} holds {dtype}: a model needs whole or floating-point numbers. Cast the column.")


def stored(values: Array, column: str) -> Array:
    """An array in its storage type.   Raises as `storage_dtype`; ConfigError: a number beyond int64."""
    dtype = storage_dtype(values.dtype, values.ndim, column)
    if values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
        raise ConfigError(
            f"column {column!r} holds {values.max()}, which is beyond int64, the type whole numbers are stored in. "
            "Cast the column to double, or index its values."
        )
    return values.astype(dtype, copy=False)


def no_numbers(column: str, what: str) -> str:
    """The sentence for strings."""
    return (
        f"column {column!r} holds {what}: a model needs numbers. Index the strings first, for example with "
        f"pyspark.ml.feature.StringIndexer, pass transform={{{column!r}: f}} with f(value) -> number or array, or "
        "leave the column out."
    )


def ragged(column: str, row: int, shape: tuple[int, ...], other_row: int, other_shape: tuple[int, ...]) -> ConfigError:
    """The error for two rows whose arrays differ in shape."""

    def counted(shape: tuple[int, ...]) -> str:
        if not shape:
            return "a single number"
        return f"{shape[0]} values" if len(shape) == 1 else f"the shape {shape}"

    return ConfigError(
        f"column {column!r}: row {row} has {counted(shape)}, row {other_row} has {counted(other_shape)}; "
        "the rows of a batch form one array. Pad them, or cut them, to one length."
    )


def null(column: str, row: int) -> ConfigError:
    """The error for a null."""
    return ConfigError(
        f"column {column!r}: row {row} is null or holds one; a model needs a number in every place. Fill the nulls "
        "(DataFrame.fillna, pyspark.ml.feature.Imputer) or drop those rows (DataFrame.dropna)."
    )


def too_wide(column: str, width: int) -> ConfigError:
    """The error for sparse vectors that nobody wants written out in full."""
    return ConfigError(
        f"column {column!r} holds sparse vectors of {width:,} places: written out in full a row would take "
        f"{width * 4 / 2**20:.2g} MiB. Pass transform={{{column!r}: 'sparse'}} and the model gets a sparse tensor "
        "(torch.sparse_coo, which Linear takes), or make the vectors narrower, for example with "
        "FeatureHasher(numFeatures=4096)."
    )


def transformed(
    name: str, transform: Callable[[Any], Any], values: Sequence[Any], first_row: int = 0, kind: Kind | None = None
) -> Array:
    """What `transform` makes of each value, as one array [rows, ...] of a storage type.

    first_row: the number, in messages, of the first value;  kind: what it made of earlier rows.

    Raises ConfigError: as `transformed_value`, or a row of another shape.
    """
    rows: list[Array] = []
    for row, value in enumerate(values, first_row):
        array = transformed_value(name, transform, value, f"row {row}", kind)
        if kind is None:
            kind = Kind(array.dtype.str, array.shape)
        if array.shape != kind.shape:
            raise ragged(name, row, array.shape, 0, kind.shape)
        rows.append(array)
    if rows:
        return np.stack(rows)
    return np.empty((0,), np.float32) if kind is None else np.empty((0, *kind.shape), kind.dtype)


def transformed_value(name: str, transform: Callable[[Any], Any], value: Any, where: str, kind: Kind | None) -> Array:
    """What `transform` makes of one value, in the type of `kind`.   where: "row 7".

    Raises ConfigError: the transform raised, returned no numbers, or fractions after whole numbers.
    """
    try:
        made = transform(value)
    except Exception as error:
        message = " ".join(str(error).split())[:500]
        raise ConfigError(
            f"transform of column {name!r} failed in {where}: {type(error).__name__}: {message}. The value was "
            f"{_short(value)}."
        ) from error
    try:
        array = np.asarray(made.detach().cpu().numpy() if isinstance(made, Tensor) else made)
    except ValueError:  # lists of different lengths
        array = np.array(None)
    if array.dtype.kind not in "biuf":
        raise ConfigError(
            f"transform of column {name!r} returned {_short(made)} for {where}; it must return a number, or an array "
            "of numbers."
        )
    array = array.astype(storage_dtype(array.dtype, array.ndim + 1, name), copy=False)
    if kind is None or array.dtype == kind.dtype:
        return array
    if kind.dtype != "<f4":
        raise ConfigError(
            f"transform of column {name!r} returned {array.dtype} for {where}, but {np.dtype(kind.dtype)} for the "
            "first rows. Let it return one type, for example numpy.float32(value)."
        )
    return array.astype(np.float32)


def _short(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}, {text[:50]}…"


def from_arrays(
    data: Mapping[str, Any], names: Sequence[str] | None = None, transforms: Mapping[str, Transform] | None = None
) -> dict[str, Stored]:
    """Arrays, tensors and lists, each [rows, ...], as stored columns; scipy's and torch's sparse matrices too.

    names: only these columns;  transforms: column -> what is called with each of its values, or "sparse".

    Raises ConfigError: a column is missing, no rows, unequal numbers of rows, a None, rows of different shapes, or a
    transform failed.  TypeError: anything that is not a number.
    """
    columns: dict[str, Stored] = {}
    for name in data if names is None else names:
        if name not in data:
            raise ConfigError(
                f"there is no column {name!r} in the data; it has {', '.join(map(repr, data))}. Name one of these in "
                "feature_cols, label_col or weight_col."
            )
        columns[name] = _column(name, data[name], (transforms or {}).get(name))
    first = next(iter(columns), None)
    if first is None or not len(columns[first]):
        raise ConfigError("the data has no rows: there is nothing to train on.")
    for name, values in columns.items():
        if len(values) != len(columns[first]):
            raise ConfigError(
                f"column {first!r} has {len(columns[first])} rows, column {name!r} has {len(values)}: a row is one "
                "element of each. Give all columns the same length."
            )
    return columns


def _column(name: str, values: Any, transform: Transform | None) -> Stored:
    if callable(transform):
        return transformed(name, transform, values)
    sparse: SparseRows | None = None
    if isinstance(values, Tensor) and values.layout != torch.strided:
        entries = values.detach().cpu().to_sparse_coo().coalesce()
        if entries.ndim != 2 or entries.dense_dim():
            raise ConfigError(
                f"column {name!r} is a sparse tensor of shape {tuple(values.shape)}: pass one [rows, width]."
            )
        lines, places = entries.indices().numpy()
        counts = np.bincount(lines, minlength=len(values))
        sparse = SparseRows.of_parts(counts, places, entries.values().float().numpy(), values.shape[1])
    elif hasattr(values, "tocsr"):
        rows = values.tocsr(copy=True)
        rows.sum_duplicates()
        sparse = SparseRows.of_parts(np.diff(rows.indptr), rows.indices, rows.data, rows.shape[1])
    if transform == SPARSE:
        if sparse is None:
            array = stored(_as_array(values, name), name)
            if array.ndim != 2:
                raise ConfigError(f"column {name!r} has the shape {array.shape}: 'sparse' takes one vector a row.")
            sparse = SparseRows.of_dense(array)
        return sparse
    if sparse is not None:
        if sparse.width > DENSE_WIDTH:
            raise too_wide(name, sparse.width)
        return sparse.dense()
    return stored(_as_array(values, name), name)


def _as_array(values: Any, name: str) -> Array:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        array: Array = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    elif hasattr(values, "dtype"):
        array = np.asarray(values)
    else:
        try:
            array = np.asarray(values)
        except ValueError:  # numpy's own sentence does not say which row
            array = np.empty(len(values), dtype=object)
            for row, value in enumerate(values):
                array[row] = value
    if array.ndim == 0:
        raise ConfigError(f"column {name!r} is a single value: give one value per row, as an array, tensor or list.")
    if array.dtype == object:
        raise _object_error(array, name)
    return array


def _shape(value: Any) -> tuple[int, ...]:
    try:
        return np.shape(value)
    except ValueError:  # lists of different lengths
        return (-1,)


def _object_error(array: Array, name: str) -> Exception:
    for row, value in enumerate(array):
        if value is None:
            return null(name, row)
        if isinstance(value, str):
            return TypeError(no_numbers(name, "strings"))
        if isinstance(value, bytes):
            return TypeError(
                f"column {name!r} holds bytes, which say nothing of their shape. Decode them into one array first, or "
                f"pass transform={{{name!r}: f}} with f(bytes) -> array."
            )
        if _shape(value) != _shape(array[0]):
            return ragged(name, row, _shape(value), 0, _shape(array[0]))
        if _shape(value) == (-1,):
            return ConfigError(f"column {name!r}: the lists in row {row} differ in length. Pad them to one length.")
    return TypeError(
        f"column {name!r} holds Python objects ({type(array.flat[0]).__name__}): a model needs one array of numbers. "
        "Build it with numpy.stack(rows) or numpy.array(rows, dtype=...)."
    )
