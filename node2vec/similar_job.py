"""The nearest of every node by cosine, exactly: blocked products in Spark tasks. Its twin is ``nearest.Search``.

V^2 d multiplications, whatever the number of executors. No place holds all vectors: no task, and not the driver.

    blocks   vectors by a hash of their id into B partitions, one block (ids and unit vectors, about 8 MiB) each,
             persisted by the executors
    search   task b holds block b; all B blocks pass by, one at a time, from the executors that hold them
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark import RDD, StorageLevel
from pyspark.sql import DataFrame, Row
from pyspark.sql import types as T

from node2vec import vector_blocks
from node2vec.nearest import Search
from node2vec.vector_survey import Shape, blocks, described
from sparkdl import spark_conf, spark_internals

TASKS_PER_SLOT = 3  # so that a slow one does not hold up the stage
FEWEST_ROWS = 1024  # of a block: below that a task costs more than its products


def num_blocks(shape: Shape, slots: int) -> int:
    """How many blocks: at most about 8 MiB each, a few a task slot, but none too small."""
    fewest = -(-shape.num_vectors // vector_blocks.rows_of(shape.dimensions))
    return max(1, fewest, min(TASKS_PER_SLOT * slots, shape.num_vectors // FEWEST_ROWS))


def similar_pairs(vectors: DataFrame, shape: Shape, top: int, number: int | None = None) -> DataFrame:
    """The `top` nearest of each vector: id, similar_id (of the ids' type), similarity (float), a row a pair.

    vectors: id, vector (array<float>), as many and of the length that `shape` says, each id once. number: of blocks.
    The vectors are cut into blocks at once, and persisted (memory and disk) until the result is forgotten; the search
    runs when the result is used, and again each time it is. The pairs of an id lie together, nearest first, equal ones
    by similar_id; they depend on the vectors alone, not on how they are cut.
    """
    spark = vectors.sparkSession
    spark_conf.refuse_connect(spark)
    sc = spark.sparkContext
    count = number or num_blocks(shape, spark_internals.concurrent_tasks(sc) or sc.defaultParallelism)
    cut = blocks(vectors.repartition(count, "id"), shape.num_vectors, as_units=True)
    stored: RDD[bytes] = cut.rdd.map(_content).persist(StorageLevel.MEMORY_AND_DISK)
    with described(sc, f"{count} blocks of vectors"):
        stored.foreach(_nothing)  # else the first tasks to search would all make all blocks
    found = stored.cartesian(stored.coalesce(1)).mapPartitions(_Nearest(top)).map(_row)
    kind = vectors.schema["id"].dataType
    schema = T.StructType(
        [T.StructField("id", kind), T.StructField("similar_id", kind), T.StructField("similarity", T.FloatType())]
    )
    return spark.createDataFrame(found, "found binary").mapInArrow(_tables, schema)


def _content(row: Row) -> bytes:
    return bytes(row["block"])


def _row(found: bytes) -> tuple[bytes]:
    return (found,)


def _nothing(_: bytes) -> None:
    pass


class _Nearest:
    """What a task runs: pairs (its own block, another block), all others in turn. Gives one Arrow stream."""

    def __init__(self, top: int):
        self.top = top

    def __call__(self, pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
        search: Search | None = None
        for own, other in pairs:
            if search is None:
                search = Search(*vector_blocks.from_bytes(own), self.top)
            search.add(*vector_blocks.from_bytes(other))
        if search is not None:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, next(search.result()).schema) as writer:
                for table in search.result():
                    writer.write_table(table)
            yield sink.getvalue().to_pybytes()


def _tables(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for found in batch.column(0):
            yield from pa.ipc.open_stream(found.as_buffer())
