"""From columns to the inputs, target and weight of a model.

A column is stored as one rectangular array, [rows, ...], of one of a few types (`storage_dtype`), whatever it came
from: Arrow columns of a DataFrame or Parquet file (`from_arrow`), or arrays, tensors and lists given directly
(`from_arrays`).  `Columns` then says which of them form which input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparkdl.errors import ConfigError

if TYPE_CHECKING:  # a worker that only reads stored arrays need not load pyarrow
    import pyarrow as pa

__all__ = ["Columns", "FeatureCols", "from_arrays", "from_arrow", "ragged", "storage_dtype"]

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

    @classmethod
    def parse(
        cls,
        feature_cols: FeatureCols,
        label_col: str | Sequence[str] | None = None,
        weight_col: str | None = None,
    ) -> Columns:
        """Read the trainer's spelling.

        feature_cols: "x" is one input, ["u", "i"] two positional inputs; a nested list stacks its columns into one
            input, [["a", "b"], ["c"]]; a mapping names keyword inputs, {"ids": "x", "dense": ["a", "b"]}.
        label_col: one column, several (the target is then a tuple), or None.

        Raises ConfigError: something empty, given twice in one list, or not a string.
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
        return cls(positional, keyword, labels, weight)

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

    def inputs(self, batch: Mapping[str, Array]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Positional and keyword inputs: the model is called as model(*positional, **keyword).

        batch: stored columns, each [rows, ...], picked by row numbers and so already copies, which the tensors keep.
        """
        positional = tuple(_stacked(value, batch) for value in self.positional)
        return positional, {key: _stacked(value, batch) for key, value in self.keyword}

    def target(self, batch: Mapping[str, Array]) -> Tensor | tuple[Tensor, ...] | None:
        """What the loss compares with: a tensor, a tuple if there are several labels, None if there is none."""
        # A column may be input and target at once (an autoencoder); the model may then change its input in place.
        shared = set(self.label_names).intersection(self.feature_names)
        targets = tuple(_tensor(batch[name].copy() if name in shared else batch[name]) for name in self.label_names)
        if not targets:
            return None
        return targets[0] if len(targets) == 1 else targets

    def weight(self, batch: Mapping[str, Array]) -> Tensor | None:
        """How much each row counts: float32 [rows], or None.   Raises ConfigError: the column holds arrays."""
        if self.weight_col is None:
            return None
        values = batch[self.weight_col]
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


def _stacked(value: _Input, batch: Mapping[str, Array]) -> Tensor:
    if isinstance(value, str):
        return _tensor(batch[value])
    # [rows] becomes [rows, 1]
    parts = [batch[name] if batch[name].ndim > 1 else batch[name][:, np.newaxis] for name in value]
    if len({part.shape[2:] for part in parts}) > 1:
        shapes = ", ".join(f"{name!r} {batch[name].shape[1:]}" for name in value)
        raise ConfigError(
            "the columns of one input are joined along their first axis, so the other axes must agree; these are "
            f"{shapes}. Make them separate inputs."
        )
    dtypes = {part.dtype for part in parts}
    # numpy would make float64 of float32 and int64
    mixed = np.dtype(np.float32) if any(dtype.kind == "f" for dtype in dtypes) else np.dtype(np.int64)
    dtype = dtypes.pop() if len(dtypes) == 1 else mixed
    return _tensor(np.concatenate(parts, axis=1, dtype=dtype, casting="unsafe"))


def _tensor(values: Array) -> Tensor:
    # torch warns about read-only memory, and writing through a tensor must not change the stored column.
    if not values.flags.writeable or not values.flags.c_contiguous:
        values = np.array(values, order="C")
    return torch.from_numpy(values)


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
        raise TypeError(_no_numbers(column, f"strings ({dtype})"))
    raise TypeError(f"column {column!r} holds {dtype}: a model needs whole or floating-point numbers. Cast the column.")


def _no_numbers(column: str, what: str) -> str:
    return (
        f"column {column!r} holds {what}: a model needs numbers. Index the strings first, for example with "
        "pyspark.ml.feature.StringIndexer, or leave the column out."
    )


def _stored(values: Array, column: str) -> Array:
    dtype = storage_dtype(values.dtype, values.ndim, column)
    if values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
        raise ConfigError(
            f"column {column!r} holds {values.max()}, which is beyond int64, the type whole numbers are stored in. "
            "Cast the column to double, or index its values."
        )
    return values.astype(dtype, copy=False)


def ragged(column: str, row: int, shape: tuple[int, ...], other_row: int, other_shape: tuple[int, ...]) -> ConfigError:
    """The error for two rows whose arrays differ in shape."""

    def counted(shape: tuple[int, ...]) -> str:
        return f"{shape[0]} values" if len(shape) == 1 else f"the shape {shape}"

    return ConfigError(
        f"column {column!r}: row {row} has {counted(shape)}, row {other_row} has {counted(other_shape)}; "
        "the rows of a batch form one array. Pad them, or cut them, to one length."
    )


def _null(column: str, row: int) -> ConfigError:
    return ConfigError(
        f"column {column!r}: row {row} is null or holds one; a model needs a number in every place. Fill the nulls "
        "(DataFrame.fillna, pyspark.ml.feature.Imputer) or drop those rows (DataFrame.dropna)."
    )


def from_arrow(
    column: pa.Array | pa.ChunkedArray, name: str, first_row: int = 0, row_shape: tuple[int, ...] | None = None
) -> Array:
    """One Arrow column as one array [rows, ...] of a storage type; a sparse ML vector is written out in full.

    column: numbers or truth values, lists of them (nested too, if rectangular), or Spark ML vectors.
    first_row: the number, in messages, of the first row here;  row_shape: the shape of the rows before it, for a column
    that arrives in parts.

    Raises ConfigError: a null, or rows of different shapes.  TypeError: strings, binary, maps, structs, dates.
    """
    import pyarrow as pa

    parts: list[Array] = []
    row = first_row
    shape_row = 0
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        values = _stored(_values(chunk, name, row, 1), name)
        if len(chunk):
            if row_shape is None:
                row_shape, shape_row = values.shape[1:], row
            if values.shape[1:] != row_shape:
                raise ragged(name, row, values.shape[1:], shape_row, row_shape)
            parts.append(values)
        row += len(chunk)
    if parts:
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
    nothing = _stored(_values(pa.array([], column.type), name, row, 1), name)
    return nothing if row_shape is None else nothing.reshape(0, *row_shape)


def _values(array: pa.Array, name: str, first_row: int, per_row: int) -> Array:
    """An Arrow array as [len(array), ...]; element i belongs to row first_row + i // per_row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _values(array.storage, name, first_row, per_row)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    is_vector = pa.types.is_struct(kind) and [field.name for field in kind] == ["type", "size", "indices", "values"]
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if not (is_list or is_vector or is_number):
        raise TypeError(_refusal(kind, name))
    if array.null_count:
        first_null = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        raise _null(name, first_row + first_null // per_row)
    if is_number:
        values: Array = array.to_numpy(zero_copy_only=False)
        return values
    if is_vector:
        return _vectors(array, name, first_row, per_row)
    if pa.types.is_fixed_size_list(kind):
        width = kind.list_size
    else:
        width = _one_width(pc.list_value_length(array).to_numpy(zero_copy_only=False), name, first_row, per_row)
    flat = _values(array.flatten(), name, first_row, max(per_row * width, 1))
    return flat.reshape(len(array), width, *flat.shape[1:])


def _one_width(widths: npt.NDArray[np.integer[Any]], name: str, first_row: int, per_row: int) -> int:
    if not widths.size:
        return 0
    different = np.flatnonzero(widths != widths[0])
    if different.size:
        number = int(different[0])
        raise ragged(name, first_row + number // per_row, (int(widths[number]),), first_row, (int(widths[0]),))
    return int(widths[0])


def _vectors(array: pa.Array, name: str, first_row: int, per_row: int) -> Array:
    """Spark ML vectors, as Arrow sees them: type 1 is dense (values), type 0 sparse (size, indices, values)."""
    import pyarrow.compute as pc

    dense = array.field("type").to_numpy(zero_copy_only=False).astype(bool)
    num_values = pc.fill_null(pc.list_value_length(array.field("values")), 0).to_numpy(zero_copy_only=False)
    sizes = pc.fill_null(array.field("size"), 0).to_numpy(zero_copy_only=False)
    width = _one_width(np.where(dense, num_values, sizes), name, first_row, per_row)
    values: Array = array.field("values").flatten().to_numpy(zero_copy_only=False)
    if dense.all():
        return values.reshape(len(array), width)
    # Dense rows list no indices, so the indices, in order, are those of the sparse rows.
    of_sparse_row = np.repeat(~dense, num_values)
    full = np.zeros((len(array), width), dtype=np.float32)
    full[dense] = values[~of_sparse_row].reshape(-1, width)
    indices = array.field("indices").flatten().to_numpy(zero_copy_only=False)
    full[np.repeat(np.arange(len(array)), num_values)[of_sparse_row], indices] = values[of_sparse_row]
    return full


def _refusal(kind: pa.DataType, name: str) -> str:
    import pyarrow as pa

    types = pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind):
        return _no_numbers(name, f"strings ({kind})")
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return (
            f"column {name!r} holds {kind}: bytes say nothing of their shape. Decode them into an array column first, "
            "for example with a pandas_udf that returns array<float>."
        )
    if types.is_map(kind) or types.is_struct(kind):
        return (
            f"column {name!r} holds {kind}: a model needs numbers or arrays of one length. Select its fields as "
            "columns of their own, or assemble them with pyspark.ml.feature.VectorAssembler."
        )
    if types.is_null(kind):
        return f"column {name!r} holds nothing but nulls: a model needs numbers. Leave the column out, or fill it."
    if types.is_decimal(kind):
        return (
            f"column {name!r} holds {kind}: a model needs whole or floating-point numbers. Cast the column to double."
        )
    return (
        f"column {name!r} holds {kind}: a model needs whole or floating-point numbers. Turn the column into numbers "
        "first, for example with unix_timestamp or a cast."
    )


def from_arrays(data: Mapping[str, Any], names: Sequence[str] | None = None) -> dict[str, Array]:
    """Arrays, tensors and lists, each [rows, ...], as arrays of a storage type; `names`: only these columns.

    Raises ConfigError: a column is missing, no rows, unequal numbers of rows, a None, or rows of different shapes.
    TypeError: anything that is not a number.
    """
    columns: dict[str, Array] = {}
    for name in data if names is None else names:
        if name not in data:
            raise ConfigError(
                f"there is no column {name!r} in the data; it has {', '.join(map(repr, data))}. Name one of these in "
                "feature_cols, label_col or weight_col."
            )
        columns[name] = _stored(_as_array(data[name], name), name)
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
            return _null(name, row)
        if isinstance(value, str):
            return TypeError(_no_numbers(name, "strings"))
        if isinstance(value, bytes):
            return TypeError(
                f"column {name!r} holds bytes, which say nothing of their shape. Decode them into one array first."
            )
        if _shape(value) != _shape(array[0]):
            return ragged(name, row, _shape(value), 0, _shape(array[0]))
        if _shape(value) == (-1,):
            return ConfigError(f"column {name!r}: the lists in row {row} differ in length. Pad them to one length.")
    return TypeError(
        f"column {name!r} holds Python objects ({type(array.flat[0]).__name__}): a model needs one array of numbers. "
        "Build it with numpy.stack(rows) or numpy.array(rows, dtype=...)."
    )
