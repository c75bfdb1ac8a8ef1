"""The same RDD operations as :mod:`sparkdl.spark_internals`, by PySpark's public interface alone.

Several times slower (items are pickled, copied and planned anew every step), used when the self-test of the private
calls fails on a Spark version that nobody has tried yet. It carries the gather form, whose bits are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pyspark import RDD, SparkContext, StorageLevel
from pyspark.sql import DataFrame, SparkSession

from sparkdl import wire
from sparkdl.spark_internals import TaskFunction
from sparkdl.wire import BytesSource


class PublicBlocks(NamedTuple):
    """Partitions of a persisted RDD whose lineage is cut."""

    rdd: RDD[Any]
    partitions: list[int]

    def only(self, partitions: list[int]) -> PublicBlocks:
        """Some of them."""
        return PublicBlocks(self.rdd, partitions)


class PublicParent(NamedTuple):
    """What a task function is applied to; ``partitions``: the only ones where it runs."""

    rdd: RDD[Any]
    partitions: list[int]
    carries_items: bool


class _Apply:
    """A task function as ``mapPartitionsWithIndex`` calls it."""

    def __init__(self, function: TaskFunction, partitions: list[int], carries_items: bool):
        self.function, self.partitions, self.carries_items = function, partitions, carries_items

    def __call__(self, split: int, items: Iterable[Any]) -> Iterator[bytes]:
        if split in self.partitions:
            source = BytesSource(item[1] for item in items) if self.carries_items else BytesSource(())
            for parts in self.function(split, source):
                yield b"".join(bytes(p) for p in parts)


class _Only:
    def __init__(self, partitions: list[int]):
        self.partitions = partitions

    def __call__(self, split: int, items: Iterable[Any]) -> Iterable[Any]:
        return items if split in self.partitions else ()


class _Job:
    """A job that runs when somebody waits for it."""

    def __init__(self, rdd: RDD[Any]):
        self._rdd = rdd

    def get(self) -> None:
        """Runs the job."""
        self._rdd.count()


def _row(item: bytes) -> tuple[int, int, bytearray]:
    head = wire.unpack(item)
    return head.replica, head.start, bytearray(memoryview(item)[wire.HEADER_BYTES :])


class PublicRDD:
    """As :class:`sparkdl.spark_internals.RawRDD`."""

    def __init__(self, rdd: RDD[Any]):
        self.rdd = rdd

    def persist(self, copies: int = 1) -> PublicRDD:
        """Keeps the items and cuts the lineage as soon as they are computed."""
        self.rdd.persist(StorageLevel(True, True, False, False, copies))
        self.rdd.localCheckpoint()
        return self

    def unpersist(self) -> None:
        """Drops the blocks."""
        self.rdd.unpersist()

    def blocks(self, partitions: list[int]) -> PublicBlocks:
        """A reference to these partitions."""
        return PublicBlocks(self.rdd, partitions)

    def start(self) -> _Job:
        """A job; it runs in ``get()``."""
        return _Job(self.rdd)

    def run_or_drop(self) -> None:
        """Computes every partition; what a failed job leaves behind is dropped."""
        try:
            self.start().get()
        except BaseException:
            self.unpersist()
            raise

    def collect(self) -> list[bytes]:
        """All items."""
        return list(self.rdd.collect())


class Public:
    """As :class:`sparkdl.spark_internals.JVM`."""

    gather_only = True

    def __init__(self, sc: SparkContext):
        self._sc = sc

    def keep(self, tokens: RDD[Any]) -> PublicBlocks:
        """Persists one token a partition."""
        tokens.persist(StorageLevel.MEMORY_AND_DISK)
        return PublicBlocks(tokens, list(range(tokens.getNumPartitions())))

    def function(self, function: TaskFunction, carries: str) -> TaskFunction:
        """Nothing to prepare."""
        return function

    def apply(self, parent: PublicParent, function: TaskFunction) -> PublicRDD:
        """``function`` over the partitions of ``parent``."""
        task = _Apply(function, parent.partitions, parent.carries_items)
        return PublicRDD(parent.rdd.mapPartitionsWithIndex(task, preservesPartitioning=True))

    def block_rdd(self, blocks: PublicBlocks) -> PublicParent:
        """The blocks as tokens."""
        return PublicParent(blocks.rdd, blocks.partitions, False)

    def beside(self, anchor: PublicParent, blocks: PublicBlocks, after: PublicRDD | None = None) -> PublicParent:
        """As :meth:`sparkdl.spark_internals.JVM.beside`; ``after`` is not supported."""
        assert after is None
        items = blocks.rdd.mapPartitionsWithIndex(_Only(blocks.partitions)).coalesce(1)
        return PublicParent(anchor.rdd.cartesian(items), anchor.partitions, True)

    def frame(self, blocks: PublicBlocks) -> DataFrame:
        """As :meth:`sparkdl.spark_internals.JVM.frame`."""
        rows = blocks.rdd.mapPartitionsWithIndex(_Only(blocks.partitions)).map(_row)
        return SparkSession.builder.getOrCreate().createDataFrame(rows, "lot int, offset long, bytes binary")

    def items(self, blocks: PublicBlocks) -> Iterator[bytes]:
        """All items, one partition at a time."""
        yield from blocks.rdd.mapPartitionsWithIndex(_Only(blocks.partitions)).toLocalIterator()
