"""Arrow columns, as Spark hands them to Python tasks, to stored columns (`stored_arrays`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sparkdl.errors import ConfigError
from sparkdl.sparse_rows import SparseRows
from sparkdl.stored_arrays import (
    DENSE_WIDTH,
    SPARSE,
    Array,
    Kind,
    Stored,
    Transform,
    kinds_of,
    no_numbers,
    null,
    ragged,
    stored,
    too_wide,
    transformed,
)

__all__ = ["ColumnReader", "from_arrow"]

PART_BYTES = 16 << 20  # of stored rows that are in memory at once on their way from Spark to the files


class ColumnReader:
    """Reads one record batch after the other of the same rows' columns.

    transforms: column -> what is called with each of its values, or "sparse".
    kinds: what the first rows of the data look like; rows unlike them are refused. None: the first batch's.
    """

    def __init__(self, transforms: Mapping[str, Transform], kinds: Mapping[str, Kind] | None = None):
        self.transforms = transforms
        self.kinds = dict(kinds or {})
        self.num_rows = 0

    def parts(self, batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, Stored]]:
        """The columns of all batches, at most about PART_BYTES at a time.   Raises as :func:`from_arrow`."""
        for batch in batches:
            start = 0
            while start < batch.num_rows:
                # the first row of all by itself, if nobody knows how large its transforms make it
                known = all(name in self.kinds for name in self.transforms)
                row_bytes = sum(kind.num_bytes for kind in self.kinds.values())
                num_rows = max(1, PART_BYTES // max(row_bytes, 1)) if known else 1
                yield self(batch.slice(start, num_rows))
                start += num_rows

    def __call__(self, batch: pa.RecordBatch | pa.Table) -> dict[str, Stored]:
        """The columns of one batch.   Raises as :func:`from_arrow`."""
        part = {
            name: from_arrow(batch.column(i), name, self.num_rows, self.kinds.get(name), self.transforms.get(name))
            for i, name in enumerate(batch.schema.names)
        }
        if batch.num_rows:
            self.kinds = {**kinds_of(part), **self.kinds}
        self.num_rows += batch.num_rows
        return part


def from_arrow(
    column: pa.Array | pa.ChunkedArray,
    name: str,
    first_row: int = 0,
    kind: Kind | None = None,
    transform: Transform | None = None,
) -> Stored:
    """One Arrow column as a stored column.

    column: numbers or truth values, lists of them (nested too, if rectangular), or Spark ML vectors; a sparse one is
        written out in full up to a width of DENSE_WIDTH. With a transform, anything.
    first_row: the number, in messages, of the first row here;  kind: of the rows before it.
    transform: called with each value as Python has it (lists of numbers and vectors as numpy arrays, a null as None);
        or "sparse": vectors, or lists, become SparseRows.

    Raises ConfigError: a null, rows of different shapes, a wide sparse vector, or a transform failed.  TypeError:
    strings, binary, maps, structs, dates.
    """
    parts: list[Any] = []
    row, shape_row = first_row, 0
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        if not len(chunk):
            continue
        values = _stored_chunk(chunk, name, row, kind, transform)
        if kind is None:
            kind, shape_row = kinds_of({name: values})[name], row
        if tuple(values.shape[1:]) != kind.shape:
            raise ragged(name, row, tuple(values.shape[1:]), shape_row, kind.shape)
        parts.append(values)
        row += len(chunk)
    if parts:
        found: Stored = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return found
    if kind is not None:
        empty = np.empty((0, *kind.shape), kind.dtype)
        return SparseRows.of_dense(empty) if kind.sparse else empty
    return _stored_chunk(pa.array([], column.type), name, row, None, transform)


def _stored_chunk(chunk: pa.Array, name: str, row: int, kind: Kind | None, transform: Transform | None) -> Stored:
    if callable(transform):
        return transformed(name, transform, _python_values(chunk), row, kind)
    if transform == SPARSE:
        chunk = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
        if _is_vector(chunk.type):
            return _sparse_vectors(chunk, name, row)
        dense = stored(_values(chunk, name, row, 1), name)
        if dense.ndim != 2:
            raise ConfigError(f"column {name!r} holds {chunk.type}: 'sparse' takes vectors, or arrays of numbers.")
        return SparseRows.of_dense(dense)
    return stored(_values(chunk, name, row, 1), name)


def _python_values(chunk: pa.Array) -> list[Any]:
    """What a transform is called with."""
    chunk = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
    kind = chunk.type
    if _is_vector(kind):
        return [None if value is None else _whole(value) for value in chunk.to_pylist()]
    if _is_list(kind) and _is_number(kind.value_type):
        return [None if not value.is_valid else value.values.to_numpy(zero_copy_only=False) for value in chunk]
    values: list[Any] = chunk.to_pylist()
    return values


def _whole(vector: Mapping[str, Any]) -> Array:
    """An ML vector as float64 [size]."""
    if vector["type"] == 1:
        return np.array(vector["values"], np.float64)
    full = np.zeros(vector["size"])
    full[vector["indices"]] = vector["values"]
    return full


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_vector(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind) and [field.name for field in kind] == ["type", "size", "indices", "values"])


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _values(array: pa.Array, name: str, first_row: int, per_row: int) -> Array:
    """An Arrow array as [len(array), ...]; element i belongs to row first_row + i // per_row."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _values(array.storage, name, first_row, per_row)
    if not (_is_list(kind) or _is_vector(kind) or _is_number(kind)):
        raise TypeError(_refusal(kind, name))
    _no_nulls(array, name, first_row, per_row)
    if _is_number(kind):
        values: Array = array.to_numpy(zero_copy_only=False)
        return values
    if _is_vector(kind):
        return _dense_vectors(array, name, first_row, per_row)
    if pa.types.is_fixed_size_list(kind):
        width = kind.list_size
    else:
        width = _one_width(pc.list_value_length(array).to_numpy(zero_copy_only=False), name, first_row, per_row)
    flat = _values(array.flatten(), name, first_row, max(per_row * width, 1))
    return flat.reshape(len(array), width, *flat.shape[1:])


def _no_nulls(array: pa.Array, name: str, first_row: int, per_row: int) -> None:
    if array.null_count:
        first_null = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        raise null(name, first_row + first_null // per_row)


def _one_width(widths: npt.NDArray[np.integer[Any]], name: str, first_row: int, per_row: int) -> int:
    if not widths.size:
        return 0
    different = np.flatnonzero(widths != widths[0])
    if different.size:
        number = int(different[0])
        raise ragged(name, first_row + number // per_row, (int(widths[number]),), first_row, (int(widths[0]),))
    return int(widths[0])


def _vector_parts(array: pa.Array, name: str, first_row: int, per_row: int) -> tuple[Array, Array, int, Array, Array]:
    """Spark ML's vectors as Arrow sees them: type 1 is dense (values), type 0 sparse (size, indices, values).

    Which rows are dense, how many values each lists, the width, all values, and the indices of the sparse rows' values.
    """
    dense = array.field("type").to_numpy(zero_copy_only=False).astype(bool)
    num_values = pc.fill_null(pc.list_value_length(array.field("values")), 0).to_numpy(zero_copy_only=False)
    sizes = pc.fill_null(array.field("size"), 0).to_numpy(zero_copy_only=False)
    width = _one_width(np.where(dense, num_values, sizes), name, first_row, per_row)
    values: Array = array.field("values").flatten().to_numpy(zero_copy_only=False)
    indices: Array = array.field("indices").flatten().to_numpy(zero_copy_only=False)
    return dense, num_values, width, values, indices


def _dense_vectors(array: pa.Array, name: str, first_row: int, per_row: int) -> Array:
    dense, num_values, width, values, indices = _vector_parts(array, name, first_row, per_row)
    if dense.all():
        return values.reshape(len(array), width)
    if width > DENSE_WIDTH:
        raise too_wide(name, width)
    # Dense rows list no indices, so the indices, in order, are those of the sparse rows.
    of_sparse_row = np.repeat(~dense, num_values)
    full = np.zeros((len(array), width), dtype=np.float32)
    full[dense] = values[~of_sparse_row].reshape(-1, width)
    full[np.repeat(np.arange(len(array)), num_values)[of_sparse_row], indices] = values[of_sparse_row]
    return full


def _sparse_vectors(array: pa.Array, name: str, first_row: int) -> SparseRows:
    _no_nulls(array, name, first_row, 1)
    dense, num_values, width, values, indices = _vector_parts(array, name, first_row, 1)
    places = np.empty(len(values), np.int64)
    of_dense_row = np.repeat(dense, num_values)
    places[of_dense_row] = np.tile(np.arange(width), int(dense.sum()))
    places[~of_dense_row] = indices
    return SparseRows.of_parts(num_values, places, values, width)


def _refusal(kind: pa.DataType, name: str) -> str:
    types = pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind):
        return no_numbers(name, f"strings ({kind})")
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return (
            f"column {name!r} holds {kind}: bytes say nothing of their shape. Pass transform={{{name!r}: f}} with "
            "f(bytes) -> array, for example one that decodes an image, or make them an array column first."
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
