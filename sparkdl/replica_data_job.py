"""Training rows to their replicas: once, before the first step.

Each replica's rows become files (`row_files`) in its executor's local directory; the steps only pick row numbers, so
training data stay out of the per-step plan, and out of memory: rows come from Spark's sort, which spills, in batches of
some megabytes, and go to the files as they come. What remains in Spark is an RDD of one small token a replica: it knows
where the rows are, and its lineage writes them again when that executor is lost.

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
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark import RDD, SparkContext, TaskContext
from pyspark.broadcast import Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkdl.arrow_columns import PART_BYTES, ColumnReader
from sparkdl.columns import Columns
from sparkdl.errors import ConfigError
from sparkdl.label_checks import ValueRange
from sparkdl.replica_cache import run_directory
from sparkdl.row_files import RowWriter
from sparkdl.spark_failures import as_config_error
from sparkdl.stored_arrays import Kind, Stored, kinds_of

ARROW_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"


class ReplicaRows(NamedTuple):
    """What a replica's rows look like, as its token tells."""

    replica: int
    num_rows: int
    host: str
    ranges: dict[str, ValueRange]  # of the labels and of columns of whole numbers
    error: str | None = None

    def dumps(self) -> str:
        """As the text of a token."""
        return json.dumps(self)

    @staticmethod
    def loads(text: str) -> ReplicaRows:
        """The inverse of :meth:`dumps`."""
        replica, num_rows, host, ranges, error = json.loads(text)
        return ReplicaRows(replica, num_rows, host, {n: ValueRange(*r) for n, r in ranges.items()}, error)


def deal(frame: DataFrame, names: list[str], num_replicas: int) -> DataFrame:
    """The columns ``names`` in ``num_replicas`` partitions, dealt out and ordered by a hash of each row's content."""
    # as columns, so that each is computed once a row: a sixth of the CPU time of rows of 3 KB
    hashes = {"sparkdl: hash 1": F.xxhash64(*names), "sparkdl: hash 2": F.hash(*names)}
    keys = [F.col(f"`{name}`") for name in hashes]
    with_keys = frame.select(*names, *(value.alias(name) for name, value in hashes.items()))
    return with_keys.repartition(num_replicas, *keys).sortWithinPartitions(*keys).select(*names)


def frame_tokens(
    frame: DataFrame,
    columns: Columns,
    num_replicas: int,
    run: str,
    payload: Broadcast[bytes],
    kinds: Mapping[str, Kind] | None = None,
) -> RDD[Any]:
    """Tokens of a DataFrame's rows. Spark may run the shuffle already; the tokens it makes later.

    kinds: what the first rows look like; rows unlike them are refused. None: each replica's own first rows.
    """
    dealt = deal(frame, columns.names, num_replicas)
    row_bytes = sum(kind.num_bytes for kind in (kinds or {}).values())
    with as_config_error(), _arrow_rows(frame.sparkSession, PART_BYTES // max(row_bytes, 1)):
        return dealt.mapInArrow(_FrameWriter(run, columns, payload, kinds), "token string").rdd


def forget(tokens: Iterable[RDD[Any]]) -> None:
    """Removes what the shuffles of :func:`frame_tokens` left on disk."""
    for rdd in tokens:
        rdd.cleanShuffleDependencies(blocking=True)


@contextmanager
def _arrow_rows(spark: SparkSession, most: int) -> Iterator[None]:
    """While Spark plans a query: at most so many rows in a batch, or ten thousand large rows would be one."""
    before: Any = spark.conf.get(ARROW_ROWS)
    if 0 < int(before) <= max(most, 1):
        yield
        return
    spark.conf.set(ARROW_ROWS, str(max(most, 1)))
    try:
        yield
    finally:
        spark.conf.set(ARROW_ROWS, before)


def array_tokens(
    sc: SparkContext,
    arrays: Broadcast[dict[str, Stored]],
    columns: Columns,
    num_replicas: int,
    run: str,
    payload: Broadcast[bytes],
) -> RDD[Any]:
    """Tokens of arrays that the driver hands out as a broadcast. Nothing runs yet."""
    numbers = sc.parallelize(list(range(num_replicas)), num_replicas)
    return numbers.mapPartitionsWithIndex(_ArrayWriter(run, columns, payload, arrays, num_replicas))


class _FrameWriter:
    def __init__(self, run: str, columns: Columns, payload: Broadcast[bytes], kinds: Mapping[str, Kind] | None):
        self.run, self.columns, self.payload, self.kinds = run, columns, payload, kinds

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context is not None
        batches = iter(batches)
        parts = ColumnReader(dict(self.columns.transforms), self.kinds).parts(batches)
        rows = write_replica(self.run, context.partitionId(), parts, self.columns, self.payload, self.kinds)
        for _ in batches:  # after an error: Spark wants its input read to the end
            pass
        yield pa.record_batch({"token": [rows.dumps()]})


class _ArrayWriter:
    def __init__(
        self,
        run: str,
        columns: Columns,
        payload: Broadcast[bytes],
        arrays: Broadcast[dict[str, Stored]],
        num_replicas: int,
    ):
        self.run, self.columns, self.payload, self.arrays = run, columns, payload, arrays
        self.num_replicas = num_replicas

    def __call__(self, replica: int, numbers: Iterable[int]) -> Iterator[tuple[str]]:
        (number,) = numbers
        arrays = {name: self.arrays.value[name] for name in self.columns.names}
        kinds = kinds_of(arrays)
        rows_in_part = max(1, PART_BYTES // max(1, sum(kind.num_bytes for kind in kinds.values())))
        num_rows = len(next(iter(arrays.values())))
        starts = range(number, num_rows, self.num_replicas * rows_in_part)
        parts = (
            {n: a[start : start + self.num_replicas * rows_in_part : self.num_replicas] for n, a in arrays.items()}
            for start in starts
        )
        yield (write_replica(self.run, number, parts, self.columns, self.payload, kinds).dumps(),)


def write_replica(
    run: str,
    replica: int,
    parts: Iterator[Mapping[str, Stored]],
    columns: Columns,
    payload: Broadcast[bytes],
    kinds: Mapping[str, Kind] | None = None,
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
            return ReplicaRows.loads(file.read())
    aside = os.path.join(directory, f"data-{replica}-{uuid.uuid4().hex}")
    os.makedirs(aside)
    try:
        rows = _write_columns(aside, replica, parts, columns, kinds)
        with open(os.path.join(aside, "rows.json"), "w") as file:
            file.write(rows.dumps())
    except (ValueError, TypeError) as error:
        shutil.rmtree(aside)
        return ReplicaRows(replica, 0, "", {}, str(error))
    except BaseException:  # the disk is full, or the task was cancelled
        shutil.rmtree(aside, ignore_errors=True)
        raise
    try:
        os.rename(aside, final)
    except OSError:  # another attempt was first, with the same rows
        shutil.rmtree(aside)
    return rows


def _write_columns(
    directory: str,
    replica: int,
    parts: Iterator[Mapping[str, Stored]],
    columns: Columns,
    kinds: Mapping[str, Kind] | None,
) -> ReplicaRows:
    first = next(parts, None)
    if first is not None:
        kinds = kinds or kinds_of(first)
    else:  # a replica without rows
        kinds = kinds or dict.fromkeys(columns.names, Kind("<f4", ()))
    watched = [name for name, kind in kinds.items() if kind.dtype == "<i8" or name in columns.label_names]
    ranges = {name: ValueRange() for name in watched if not kinds[name].sparse}
    writer = RowWriter(directory, kinds)
    try:
        while first is not None:
            writer.append(first)
            for name, seen in ranges.items():
                ranges[name] = ValueRange.joined([seen, ValueRange.of(first[name])])  # type: ignore[arg-type]  # dense
            first = next(parts, None)
    finally:
        writer.close()
    return ReplicaRows(replica, writer.num_rows, os.uname().nodename, ranges)


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
    with as_config_error():
        rows = sorted((ReplicaRows.loads(token[0]) for token in tokens.collect()), key=lambda row: row.replica)
    for row in rows:
        if row.error:
            raise ConfigError(row.error)
    if not any(row.num_rows for row in rows):
        raise ConfigError("the training data have no rows")
    return rows


def sample(frame: DataFrame, columns: Columns, num_rows: int) -> dict[str, Stored]:
    """The first rows of a DataFrame as stored columns on the driver, for a try before anything else runs."""
    chosen = frame.select(*columns.names)
    with as_config_error():
        # Spark looks for them in one partition, then in a few more; a job on top of limit() would open all partitions
        rows = chosen.take(num_rows)
        if not rows:
            raise ConfigError("the training data have no rows")
        again = frame.sparkSession.createDataFrame(rows, chosen.schema, verifySchema=False)
        found = again.coalesce(1).mapInArrow(_as_bytes, "batch binary").collect()
    tables = [pa.ipc.open_stream(row[0]).read_all() for row in found]
    return ColumnReader(dict(columns.transforms))(pa.concat_tables(t for t in tables if t.num_rows))


def _as_bytes(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        yield pa.record_batch({"batch": [sink.getvalue().to_pybytes()]})
