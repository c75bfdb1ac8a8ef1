"""A model's output as another column of a DataFrame, batch or streaming: one UDF on Spark's predict_batch_udf.

Its twin is ``Predictor``, called with the same rows as arrays. Columns become arrays as in training (numbers with a
fraction and truth values float32, whole numbers int64); Spark casts and checks them before they reach Python. Columns
with a transform, and sparse ones, come as bytes of stored rows (`packed_columns`), made by a UDF of their own.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import cloudpickle
import numpy as np
import pyarrow as pa
import torch
from pyspark import TaskContext
from pyspark.broadcast import Broadcast
from pyspark.ml.functions import predict_batch_udf, vector_to_array
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.types import ArrayType, DataType, FloatType, LongType

from sparkdl import replica_cache, replica_data_job
from sparkdl.arrow_columns import from_arrow
from sparkdl.columns import Columns
from sparkdl.dry_run import kept_generators
from sparkdl.errors import ConfigError
from sparkdl.packed_columns import packed, unpacked
from sparkdl.stored_arrays import Kind, Stored, from_arrays, kinds_of

Shape = tuple[int, ...]


def predict(
    frame: DataFrame,
    model: torch.nn.Module,
    columns: Columns,
    output_col: str = "prediction",
    batch_size: int = 1024,
    precision: str = "fp32",
    device: str = "auto",
    sample: Mapping[str, Any] | None = None,
) -> DataFrame:
    """``frame`` with the output of ``model`` (its weights as they are now) for the inputs of ``columns``. Lazy.

    The new column holds a number, an array or nested arrays, after what one row gives: float32 as float, whole numbers
    and truth values as bigint. A row with a null input, or an array of another length than the first row's, fails the
    query; a null inside an array of floats reaches the model as NaN.

    sample: rows (column -> [rows, …]) to find the shapes of arrays with. None: the first row of ``frame``, which a
        small job reads. A streaming DataFrame has no row to look at: numbers, and vectors whose metadata (those of
        VectorAssembler) tell their size, work without a sample; other arrays need one.

    Raises ConfigError: a column or an output that cannot be used, before anything runs.
    """
    columns = columns.without_targets()
    names, transforms = columns.feature_names, dict(columns.transforms)
    plain = [name for name in names if name not in transforms]
    dtypes = {name: _dtype(frame.schema[name].dataType, name) for name in plain}
    rows: dict[str, Any] = {
        name: np.asarray(values[:1], dtypes[name]) for name, values in _sample(frame, plain, dtypes, sample).items()
    }
    rows |= _transformed_sample(frame, columns, sample) if transforms else {}
    kinds = {name: kind for name, kind in kinds_of(rows).items() if name in transforms}
    try:
        pickled = cloudpickle.dumps(model)
        copied: torch.nn.Module = cloudpickle.loads(pickled)
    except Exception as error:
        raise ConfigError(
            f"the model cannot be sent to the executors ({type(error).__name__}: {error}); leave out of it what "
            "cannot be pickled, or create that inside forward() when it is first needed."
        ) from error
    predictor = Predictor(copied, columns, precision, "cpu", kinds=kinds)
    row_shape, kind = shape_of_one(predictor, rows)
    make = _Make(frame.sparkSession.sparkContext.broadcast(pickled), columns, precision, device, row_shape, kinds)
    shapes: dict[str, Shape] = {name: () if name in kinds else tuple(rows[name].shape[1:]) for name in names}
    inputs = [
        packed(_column(name), frame.schema[name].dataType, name, transforms[name], kinds[name])
        if name in kinds
        else _guarded(frame, name, shapes[name], dtypes[name])
        for name in names
    ]
    returned = ArrayType(kind) if row_shape else kind
    value = _applied(make, inputs, list(shapes.values()), returned, batch_size)
    found = frame.withColumn(output_col, value)
    return found.withColumn(output_col, _nested(_column(output_col), row_shape)) if len(row_shape) > 1 else found


class Predictor:
    """A model in eval mode, called with one array [rows, …] for every feature column, in their order."""

    def __init__(
        self,
        model: torch.nn.Module,
        columns: Columns,
        precision: str,
        device: torch.device | str,
        row_shape: Shape | None = None,
        kinds: Mapping[str, Kind] | None = None,  # of the columns that come packed
    ):
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.columns, self.precision, self.row_shape = columns, precision, row_shape
        self.kinds = dict(kinds or {})
        # predict_batch_udf counts the arguments
        self.__signature__ = inspect.Signature(
            [inspect.Parameter(f"x{i}", inspect.Parameter.POSITIONAL_ONLY) for i in range(len(columns.feature_names))]
        )

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """The output of the rows as an array: [rows], or flat, [rows, values]."""
        rows: dict[str, Stored] = dict(zip(self.columns.feature_names, arrays, strict=True))
        for name, values in rows.items():
            if name in self.kinds:
                rows[name] = unpacked(values, self.kinds[name])  # type: ignore[arg-type]  # an array of bytes
            elif values.dtype not in (np.float32, np.int64):  # what pandas makes of nulls among whole numbers
                raise ValueError(f"column {name!r} holds a null inside an array; fill such nulls before predict.")
        output = self.output(rows)
        num_rows = len(arrays[0])
        assert self.row_shape is not None
        # One row may come squeezed; it is the same values. Spark's arrays of arrays are put together by Spark.
        wanted = (num_rows, *self.row_shape)
        if tuple(output.shape) != wanted and not (num_rows == 1 and output.numel() == math.prod(wanted)):
            raise ValueError(
                f"the model's output has shape {tuple(output.shape)} for {num_rows} rows, but {self.row_shape} for the "
                "first row; every row of a column of arrays needs the same shape."
            )
        found: np.ndarray = output.reshape((num_rows, -1) if self.row_shape else (num_rows,)).numpy()
        return found

    def output(self, rows: Mapping[str, Stored]) -> torch.Tensor:
        """The model's output on the CPU, float32 or int64. Raises ConfigError: it is no tensor."""
        positional, keyword = self.columns.inputs(rows)
        inputs = [x.to(self.device) for x in positional]
        named = {name: x.to(self.device) for name, x in keyword.items()}
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            output = self.model(*inputs, **named)
        if not isinstance(output, torch.Tensor) or output.is_complex():
            kind = str(output.dtype) if isinstance(output, torch.Tensor) else type(output).__name__
            raise ConfigError(
                f"forward() returned a {kind}; predict makes a column of one real tensor. Wrap the model in one whose "
                "forward() returns that tensor alone."
            )
        return output.to("cpu", torch.float32 if output.is_floating_point() else torch.int64)


class _Make:
    """Builds the predictor once in a Python worker, where Spark keeps it."""

    def __init__(
        self,
        model: Broadcast[bytes],
        columns: Columns,
        precision: str,
        device: str,
        row_shape: Shape,
        kinds: Mapping[str, Kind],
    ):
        self.model, self.columns, self.precision, self.device = model, columns, precision, device
        self.row_shape, self.kinds = row_shape, kinds

    def __call__(self) -> Predictor:
        context = TaskContext.get()
        # the threads of an operation can show in the last bit of a sum, so they follow the setting
        torch.set_num_threads(max(1, context.cpus() if context else 1))
        device = replica_cache.task_device(self.device)
        model = cloudpickle.loads(self.model.value)
        return Predictor(model, self.columns, self.precision, device, self.row_shape, self.kinds)


def _applied(make: _Make, inputs: list[Column], shapes: list[Shape], returned: DataType, batch_size: int) -> Column:
    """The UDF over its inputs. Spark 4.1's Arrow UDFs, tried in its place, save 4 % for arrays of 784 numbers."""
    tensor_shapes: Any = None  # Spark wants none for a single column of numbers
    if any(shapes):
        tensor_shapes = [list(shape) or None for shape in shapes]
    udf: Callable[..., Column] = predict_batch_udf(
        make, return_type=returned, batch_size=batch_size, input_tensor_shapes=tensor_shapes
    )
    value = udf(*inputs)
    if returned == FloatType():
        value = F.coalesce(value, F.lit(math.nan).cast("float"))  # on its way through pandas NaN becomes null
    return value


def shape_of_one(predictor: Predictor, rows: Mapping[str, Any]) -> tuple[Shape, DataType]:
    """What the model gives for one row: its shape, and Spark's type of its numbers. rows: column -> [1, …].

    Raises ConfigError: it cannot take the row, or gives something of which no column can be made.
    """
    twice = {name: np.concatenate([values, values]) for name, values in rows.items()}  # so that rows are an axis
    try:
        with kept_generators():
            output = predictor.output(twice)
    except ConfigError:
        raise
    except Exception as error:
        given = ", ".join(f"{name!r} {values.dtype} {values.shape}" for name, values in twice.items())
        message = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(
            f"forward() failed on two copies of a row: {type(error).__name__}: {message}. Its columns: {given}. Name "
            "in feature_cols what the model was trained with."
        ) from error
    if output.ndim == 0 or len(output) != 2:
        raise ConfigError(
            f"forward() returned shape {tuple(output.shape)} for 2 rows; the first axis must be the rows. Check what "
            "the model flattens, squeezes or sums over."
        )
    return tuple(output.shape[1:]), FloatType() if output.is_floating_point() else LongType()


def _dtype(kind: DataType, name: str) -> np.dtype[Any]:
    """The storage type of a column, judged by its Spark type alone."""
    if _is_vector(kind):
        return np.dtype(np.float32)
    try:
        return np.dtype(from_arrow(pa.array([], to_arrow_type(kind)), name).dtype)
    except TypeError as error:
        raise ConfigError(str(error)) from error


def _is_vector(kind: DataType) -> bool:
    return type(kind).__name__ == "VectorUDT"  # of pyspark.ml, or of the older pyspark.mllib


def _depth(kind: DataType) -> int:
    if isinstance(kind, ArrayType):
        return 1 + _depth(kind.elementType)
    return int(_is_vector(kind))


def _column(name: str) -> Column:
    quoted = name.replace("`", "``")
    return F.col(f"`{quoted}`")


def _plain(frame: DataFrame, name: str) -> Column:
    """Numbers, or arrays of them, whatever they were."""
    return vector_to_array(_column(name), "float32") if _is_vector(frame.schema[name].dataType) else _column(name)


def _guarded(frame: DataFrame, name: str, shape: Shape, dtype: np.dtype[Any]) -> Column:
    """A column in its storage type, arrays flat; any row that does not fit fails with a sentence."""
    plain = _plain(frame, name)
    element = "float" if dtype == np.float32 else "bigint"
    if not shape:
        fits, value = plain.isNotNull(), plain.cast(element)
        expected = "a number"
    else:
        fits, value = _has_shape(plain, shape), plain
        for _ in shape[1:]:
            value = F.flatten(value)
        value = value.cast(f"array<{element}>")
        expected = f"an array of {shape[0]} numbers" if len(shape) == 1 else f"arrays of the shape {shape}"
    sentence = (
        f"column {name!r} holds a row that is null or not {expected}, as the first row is: fill, pad or drop such rows "
        "before predict"
    )
    return F.when(fits, value).otherwise(F.raise_error(F.lit(sentence)))


def _has_shape(value: Column, shape: Shape) -> Column:
    fits = F.size(value) == shape[0]
    return fits & F.forall(value, lambda part: _has_shape(part, shape[1:])) if len(shape) > 1 else fits


def _nested(flat: Column, shape: Shape) -> Column:
    """A flat array as arrays of arrays: cut from the inside out."""
    num_values = math.prod(shape)
    for size in reversed(shape[1:]):
        num_values //= size
        starts = F.sequence(F.lit(1), F.lit((num_values - 1) * size + 1), F.lit(size))
        flat = F.transform(starts, _slicer(flat, size))
    return flat


def _slicer(array: Column, size: int) -> Callable[[Column], Column]:
    return lambda start: F.slice(array, start, F.lit(size))


def _transformed_sample(frame: DataFrame, columns: Columns, sample: Mapping[str, Any] | None) -> dict[str, Stored]:
    """One row of every feature column that has a transform, stored."""
    names = [name for name, _ in columns.transforms]
    if sample is not None:
        return {name: sample[name][:1] for name in names}
    if frame.isStreaming:
        raise ConfigError(
            f"what the transform makes of column {names[0]!r} is not known: a streaming DataFrame has no row to "
            "look at. Pass sample=, a dict with a transformed row of every feature column."
        )
    return replica_data_job.sample(frame, dataclasses.replace(columns, positional=tuple(names), keyword=()), 1)


def _sample(
    frame: DataFrame, names: list[str], dtypes: Mapping[str, np.dtype[Any]], sample: Mapping[str, Any] | None
) -> dict[str, np.ndarray]:
    """One row of every feature column."""
    if not names:
        return {}
    if sample is not None:
        found: Any = from_arrays(sample, names)
        return dict(found)
    if not frame.isStreaming:
        found = frame.select([_plain(frame, name).alias(str(i)) for i, name in enumerate(names)]).head(1)
        if found:
            return {name: _row(value, name, dtypes[name]) for name, value in zip(names, found[0], strict=True)}
    return {name: _made_up(frame, name, dtypes[name]) for name in names}


def _row(value: Any, name: str, dtype: np.dtype[Any]) -> np.ndarray:
    if value is None:
        raise ConfigError(f"column {name!r} is null in the first row; a model needs a number. Fill or drop such rows.")
    try:
        return np.array([value], dtype)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"column {name!r} holds nulls, or arrays of different lengths, inside its first row. Fill or pad them."
        ) from error


def _made_up(frame: DataFrame, name: str, dtype: np.dtype[Any]) -> np.ndarray:
    """Zeros in the shape that the schema tells."""
    field = frame.schema[name]
    depth = _depth(field.dataType)
    if not depth:
        return np.zeros(1, dtype)
    size = field.metadata.get("ml_attr", {}).get("num_attrs") if depth == 1 else None
    if not size:
        what = "a streaming DataFrame has no row to look at" if frame.isStreaming else "the DataFrame has no rows"
        raise ConfigError(
            f"how many numbers column {name!r} holds in a row is not known: {what}. Pass sample=, a dict of arrays "
            "with a row of every feature column."
        )
    return np.zeros((1, size), dtype)
