"""Training rows to their replicas: once, before the first step.

Each replica's rows become one file a column in its executor's local directory, memory-mapped by the tasks; the steps
only pick row numbers, so training data stay out of the per-step plan. What remains in Spark is an RDD of one small
token a replica: it knows where the rows are, and its lineage writes them again when that executor is lost.

Rows of a DataFrame are dealt out and ordered by a hash of their content: the same rows get the same places however
the DataFrame is partitioned, so neither the cluster nor a recomputed shuffle shows in the result. Row i of arrays
belongs to replica ``i % replicas``.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import RDD, SparkContext, TaskContext
from pyspark.broadcast import Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkdl import columns as columns_module
from sparkdl import dry_run
from sparkdl.columns import Columns
from sparkdl.errors import ConfigError
from sparkdl.replica_cache import run_directory


class ReplicaRows(NamedTuple):
    """What a replica's rows look like, as its token tells."""

    replica: int
    num_rows: int
    label_min: float | None
    label_max: float | None
    label_nan: bool
    host: str
    error: str | None = None
    label_fraction: float | None = None  # a label that is no whole number


def deal(frame: DataFrame, names: list[str], num_replicas: int) -> DataFrame:
    """The columns ``names`` in ``num_replicas`` partitions, dealt out and ordered by a hash of each row's content."""
    keys = [F.xxhash64(*names), F.hash(*names)]
    return frame.select(*names).repartition(num_replicas, *keys).sortWithinPartitions(*keys)


def frame_tokens(
    frame: DataFrame, columns: Columns, num_replicas: int, run: str, payload: Broadcast[bytes]
) -> RDD[Any]:
    """Tokens of a DataFrame's rows. Nothing runs yet."""
    dealt = deal(frame, columns.names, num_replicas)
    return dealt.mapInArrow(_FrameWriter(run, columns, payload), "token string").rdd


def array_tokens(
    sc: SparkContext,
    arrays: Broadcast[dict[str, np.ndarray]],
    columns: Columns,
    num_replicas: int,
    run: str,
    payload: Broadcast[bytes],
) -> RDD[Any]:
    """Tokens of arrays that the driver hands out as a broadcast. Nothing runs yet."""
    numbers = sc.parallelize(list(range(num_replicas)), num_replicas)
    return numbers.mapPartitionsWithIndex(_ArrayWriter(run, columns, payload, arrays, num_replicas))


class _FrameWriter:
    def __init__(self, run: str, columns: Columns, payload: Broadcast[bytes]):
        self.run, self.columns, self.payload = run, columns, payload

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context is not None

        def parts() -> Iterator[dict[str, np.ndarray]]:
            first = 0
            shapes: dict[str, tuple[int, ...]] = {}
            for batch in batches:
                part = {
                    n: columns_module.from_arrow(batch.column(i), n, first, shapes.get(n))
                    for i, n in enumerate(batch.schema.names)
                }
                shapes = {n: array.shape[1:] for n, array in part.items()}
                first += batch.num_rows
                yield part

        rows = write_replica(self.run, context.partitionId(), parts(), self.columns, self.payload)
        for _ in batches:  # after an error: Spark wants its input read to the end
            pass
        yield pa.record_batch({"token": [json.dumps(rows)]})


class _ArrayWriter:
    def __init__(
        self,
        run: str,
        columns: Columns,
        payload: Broadcast[bytes],
        arrays: Broadcast[dict[str, np.ndarray]],
        num_replicas: int,
    ):
        self.run, self.columns, self.payload, self.arrays = run, columns, payload, arrays
        self.num_replicas = num_replicas

    def __call__(self, replica: int, numbers: Iterable[int]) -> Iterator[tuple[str]]:
        (number,) = numbers
        part = {name: self.arrays.value[name][number :: self.num_replicas] for name in self.columns.names}
        yield (json.dumps(write_replica(self.run, number, iter([part]), self.columns, self.payload)),)


def write_replica(
    run: str, replica: int, parts: Iterator[Mapping[str, np.ndarray]], columns: Columns, payload: Broadcast[bytes]
) -> ReplicaRows:
    """Writes a replica's rows, given in parts, to this executor's directory of the run; whole or not at all.

    Bad data become a sentence in the token instead of an exception: Spark would try it three times more.
    """
    directory = run_directory(run)
    os.makedirs(directory, exist_ok=True)
    _write_once(os.path.join(directory, "payload"), payload)
    final = os.path.join(directory, f"data-{replica}")
    if os.path.exists(final):  # placed anew after another executor was lost: the rows are here already
        with open(os.path.join(final, "rows.json")) as file:
            return ReplicaRows(*json.load(file))
    aside = os.path.join(directory, f"data-{replica}-{uuid.uuid4().hex}")
    os.makedirs(aside)
    try:
        rows = _write_columns(aside, replica, parts, columns)
        with open(os.path.join(aside, "rows.json"), "w") as file:
            json.dump(rows, file)
    except (ValueError, TypeError) as error:
        shutil.rmtree(aside)
        return ReplicaRows(replica, 0, None, None, False, "", str(error))
    try:
        os.rename(aside, final)
    except OSError:  # another attempt was first, with the same rows
        shutil.rmtree(aside)
    return rows


def _write_columns(
    directory: str, replica: int, parts: Iterator[Mapping[str, np.ndarray]], columns: Columns
) -> ReplicaRows:
    files: dict[str, BinaryIO] = {}
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    label = columns.label_names[0] if columns.label_names else None
    low: float | None = None
    high: float | None = None
    nan = False
    fraction: float | None = None
    num_rows = 0
    try:
        for part in parts:
            size = len(next(iter(part.values())))
            for name, array in part.items():
                if name not in files:
                    files[name] = open(os.path.join(directory, f"{len(files)}.bin"), "wb")  # noqa: SIM115 - closed below
                    shapes[name] = (array.dtype.str, array.shape[1:])
                np.ascontiguousarray(array).tofile(files[name])
            if label and size:
                values = part[label]
                nan = nan or bool(np.isnan(values).any())
                fraction = dry_run.fraction_in(values) if fraction is None else fraction
                low = float(np.min(values)) if low is None else min(low, float(np.min(values)))
                high = float(np.max(values)) if high is None else max(high, float(np.max(values)))
            num_rows += size
    finally:
        for file in files.values():
            file.close()
    if not files:  # a partition without rows, not even an empty batch
        shapes = dict.fromkeys(columns.names, ("<f4", ()))
    with open(os.path.join(directory, "columns.json"), "w") as listing:
        json.dump({name: (dtype, (num_rows, *shape)) for name, (dtype, shape) in shapes.items()}, listing)
    return ReplicaRows(replica, num_rows, low, high, nan, os.uname().nodename, label_fraction=fraction)


def _write_once(path: str, payload: Broadcast[bytes]) -> None:
    if not os.path.exists(path):
        aside = f"{path}-{uuid.uuid4().hex}"
        with open(aside, "wb") as file:
            file.write(payload.value)
        os.rename(aside, path)


def read_tokens(tokens: RDD[Any]) -> list[ReplicaRows]:
    """Runs the job, if its tokens are not there yet, and returns what they say, by replica.

    Raises ConfigError: the data hold something that no replica can train on.
    """
    rows = sorted(ReplicaRows(*json.loads(token[0])) for token in tokens.collect())
    for row in rows:
        if row.error:
            raise ConfigError(row.error)
    if not any(row.num_rows for row in rows):
        raise ConfigError("the training data have no rows")
    return rows


def sample(frame: DataFrame, columns: Columns, num_rows: int) -> dict[str, np.ndarray]:
    """The first rows of a DataFrame as arrays on the driver, for a try before anything else runs."""
    found = frame.select(*columns.names).limit(num_rows).mapInArrow(_as_bytes, "batch binary").collect()
    tables = [pa.ipc.open_stream(row[0]).read_all() for row in found]
    if not sum(t.num_rows for t in tables):
        raise ConfigError("the training data have no rows")
    table = pa.concat_tables(t for t in tables if t.num_rows)
    return {name: columns_module.from_arrow(table.column(name), name) for name in columns.names}


def _as_bytes(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        yield pa.record_batch({"batch": [sink.getvalue().to_pybytes()]})
