"""Supersteps as Spark jobs: every partition takes what was sent to it, and sends blobs under keys.

Keys 0 .. P-1 are the partitions of the next superstep; the keys behind them are kept for the end; the last key is a
flag: somebody used it, or nobody. One shuffle carries all three. `PublicShuffles` does it with the public RDD calls:
a superstep is a persisted RDD. `PrivateShuffles` lets Spark write each blob once, to its shuffle files, and asks these
files' statistics for the flag: a superstep is the map stage of one shuffle, without a job on top, and nothing is
pickled. `shuffles` takes the private form if its self-test passes.

Recovery is Spark's own: all shuffles of a round form one lineage, so a lost executor costs the tasks whose output it
held. Partition p of every superstep runs where token p is kept (if it can), and making the token is `prepare`'s work.
"""

from __future__ import annotations

import functools
import logging
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from pyspark import RDD, SparkContext, StorageLevel
from pyspark.serializers import SpecialLengths, read_int

from node2vec import task_cores
from sparkdl.spark_internals import JVM, RawItems, _wrap_function, described  # type: ignore[attr-defined]  # see there

logger = logging.getLogger("node2vec")

Blob = list[Any]  # buffers that are sent as one item
Send = Callable[[int, Iterable[bytes]], Iterator[tuple[int, Blob]]]  # (partition, its blobs) -> keys and blobs
Finish = Callable[[int, Iterable[bytes]], Iterator[bytes]]  # (number of the key, its blobs) -> results

_KIND = 3  # tells this partitioner from those of sparkdl.spark_internals


class Shuffles(Protocol):
    """Either form. P partitions, `num_keys` keys in all."""

    num_partitions: int
    num_keys: int

    def born(self, function: Send) -> Any:
        """A superstep without input. Lazy, as the next one."""

    def moved(self, sent: Any, function: Send) -> Any:
        """The superstep that follows `sent`. In the private form each partition must receive `received` blobs."""

    def run(self, sent: Any) -> bool:
        """Run a superstep: did any partition use the last key?"""

    def finish(self, supersteps: Sequence[Any], function: Finish) -> list[bytes]:
        """Run `function` over all blobs of each key P .. num_keys-2, one task a key; the results."""

    def drop(self, supersteps: Sequence[Any]) -> None:
        """Remove what the supersteps of a round left on disk."""

    def close(self) -> None:
        """Remove the tokens."""


def shuffles(
    sc: SparkContext,
    num_partitions: int,
    num_keys: int,
    prepare: Callable[[int], None],
    received: int | None = None,
    cores: int = 1,
) -> Shuffles:
    """The faster form that works on this Spark.

    `prepare`: called in the task that makes a partition's token. `received`: how many blobs each partition is sent in
    a superstep; None: one from each partition. `cores`: of a task, which Spark is asked for where it can be.
    """
    profile = task_cores.profile(sc, cores)
    if works(sc):
        return PrivateShuffles(sc, num_partitions, num_keys, prepare, received, profile)
    return PublicShuffles(sc, num_partitions, num_keys, prepare, profile)


class PublicShuffles:
    """Every superstep a persisted RDD of (key, bytes)."""

    def __init__(
        self,
        sc: SparkContext,
        num_partitions: int,
        num_keys: int,
        prepare: Callable[[int], None],
        profile: Any = None,
    ):
        self._sc, self.num_partitions, self.num_keys, self._profile = sc, num_partitions, num_keys, profile
        tokens = sc.parallelize(range(num_partitions), num_partitions)
        self._tokens = self._kept(tokens.mapPartitionsWithIndex(_Prepared(prepare)), StorageLevel.MEMORY_AND_DISK)

    def born(self, function: Send) -> RDD[Any]:
        """See :class:`Shuffles`."""
        return self._kept(self._tokens.mapPartitionsWithIndex(_Pickled(function, False)))

    def _kept(self, rdd: RDD[Any], level: StorageLevel = StorageLevel.DISK_ONLY) -> RDD[Any]:
        if self._profile is not None:  # of the tokens, too: where these are made, the supersteps run
            rdd._jrdd.withResources(self._profile)
        return rdd.persist(level)

    def moved(self, sent: RDD[Any], function: Send) -> RDD[Any]:
        """See :class:`Shuffles`."""
        received = sent.filter(_Between(0, self.num_partitions)).partitionBy(self.num_partitions, int)
        pinned: RDD[Any] = self._tokens.zip(received.values().glom())
        return self._kept(pinned.mapPartitionsWithIndex(_Pickled(function, True)))

    def run(self, sent: RDD[Any]) -> bool:
        """See :class:`Shuffles`."""
        return sent.filter(_Between(self.num_keys - 1, self.num_keys)).count() > 0

    def finish(self, supersteps: Sequence[RDD[Any]], function: Finish) -> list[bytes]:
        """See :class:`Shuffles`."""
        kept = [sent.filter(_Between(self.num_partitions, self.num_keys - 1)) for sent in supersteps]
        num_kept = self.num_keys - 1 - self.num_partitions
        by_key = self._sc.union(kept).partitionBy(num_kept, _Minus(self.num_partitions))
        return by_key.values().mapPartitionsWithIndex(function).collect()

    def drop(self, supersteps: Sequence[RDD[Any]]) -> None:
        """See :class:`Shuffles`."""
        for sent in supersteps:
            sent.unpersist()

    def close(self) -> None:
        """See :class:`Shuffles`."""
        self._tokens.unpersist()


class _Prepared:
    def __init__(self, prepare: Callable[[int], None]):
        self.prepare = prepare

    def __call__(self, split: int, items: Iterable[int]) -> Iterable[int]:
        self.prepare(split)
        return items


class _Pickled:
    """A superstep's function on pickled items: a token, or (token, all blobs)."""

    def __init__(self, function: Send, receives: bool):
        self.function, self.receives = function, receives

    def __call__(self, split: int, items: Iterable[Any]) -> Iterable[tuple[int, bytes]]:
        for item in items:
            for key, blob in self.function(split, item[1] if self.receives else []):
                yield key, b"".join(map(_flat, blob))


class _Between:
    def __init__(self, start: int, stop: int):
        self.start, self.stop = start, stop

    def __call__(self, pair: tuple[int, bytes]) -> bool:
        return self.start <= pair[0] < self.stop


class _Minus:
    def __init__(self, base: int):
        self.base = base

    def __call__(self, key: int) -> int:
        return key - self.base


def _flat(buffer: Any) -> Any:
    """A buffer as bytes in a row; memoryview refuses to see an empty array so."""
    view = memoryview(buffer)
    return view.cast("B") if view.nbytes else b""


class _Sent:
    """A superstep of the private form: the Scala RDD of its shuffle, and its blobs without their keys."""

    def __init__(self, pairs: Any, values: Any):
        self.pairs, self.values = pairs, values


class PrivateShuffles(JVM):
    """Every superstep the map stage of a shuffle. The methods not public in Spark are those of this class."""

    def __init__(
        self,
        sc: SparkContext,
        num_partitions: int,
        num_keys: int,
        prepare: Callable[[int], None],
        received: int | None = None,
        profile: Any = None,
    ):
        super().__init__(sc)
        self.num_partitions, self.num_keys, self._profile = num_partitions, num_keys, profile
        jvm: Any = sc._jvm
        self._to_seq = jvm.org.apache.spark.api.python.PythonUtils.toSeq
        self._prune = jvm.org.apache.spark.rdd.PartitionPruningRDD.create
        self._await = jvm.scala.concurrent.Await.result
        self._forever = jvm.scala.concurrent.duration.Duration.Inf()
        self._wrap = functools.lru_cache(maxsize=8)(self._wrapped)
        base: Any = sc.parallelize([0] * num_partitions, num_partitions)
        tokens = self._wrapped(_Tokens(prepare, received or num_partitions), "tokens")
        self._tokens = self._asking(self._python_rdd(base._jrdd.rdd(), tokens, False, False))
        self._tokens.persist(self.level(1))
        self._zip = self._tokens.zip(self._tokens, self._tag).f()  # Spark analyses this function in every call of zip
        self._travelling = self._keys(0, num_partitions)

    def _wrapped(self, function: Any, carries: str) -> Any:
        raw = RawItems()
        return _wrap_function(self._sc, _Raw(function, carries), raw, raw)

    def _asking(self, rdd: Any) -> Any:
        """The RDD, with tasks of `profile`: of the tokens, too, for where these are made, the supersteps run."""
        return rdd if self._profile is None else rdd.withResources(self._profile)

    def _keys(self, start: int, stop: int) -> Any:
        """A Scala set of numbers, which is a function from numbers to whether they are in it."""
        return self._to_seq(list(range(start, stop))).toSet()

    def born(self, function: Send) -> _Sent:
        """See :class:`Shuffles`."""
        return self._sent(self._tokens, function, "tokens")

    def moved(self, sent: _Sent, function: Send) -> _Sent:
        """See :class:`Shuffles`."""
        received = self._prune(sent.values, self._travelling)
        # neither side names places of its own, so that Spark asks the first one's cache: the token's
        pinned = self._zipped(
            self._jsc, self._zip, self._tokens, received, False, self._tag, self._tag, self._any
        )  # fmt: skip
        return self._sent(pinned, function, "pairs")

    def _sent(self, rdd: Any, function: Send, carries: str) -> _Sent:
        keyed = self._asking(self._python_rdd(rdd, self._wrap(function, carries), False, False))
        return _Sent(*self._by_key(keyed, self.num_keys, _KIND))

    def run(self, sent: _Sent) -> bool:
        """See :class:`Shuffles`. Sizes in the statistics are rough, but nothing is exactly 0."""
        future = self._jsc.submitMapStage(sent.pairs.dependencies().head())
        try:
            statistics = self._await(future, self._forever)
        except BaseException:
            future.cancel()
            raise
        return int(statistics.bytesByPartitionId()[self.num_keys - 1]) > 0

    def finish(self, supersteps: Sequence[_Sent], function: Finish) -> list[bytes]:
        """See :class:`Shuffles`. One partitioner for all, so that the union has its partitions and shuffles nothing."""
        union = self._jsc.union(self._to_seq([sent.pairs for sent in supersteps]), self._any)
        values = self._map_partitions(union, *self._values, self._tag, self._any)
        kept = self._prune(values, self._keys(self.num_partitions, self.num_keys - 1))  # numbers its partitions from 0
        done = self._python_rdd(kept, self._wrapped(_Unkeyed(function), "items"), False, False)
        return [bytes(item) for item in done.asJavaRDD().collect()]

    def drop(self, supersteps: Sequence[_Sent]) -> None:
        """See :class:`Shuffles`. The last one's removal removes all those before it."""
        if supersteps:
            supersteps[-1].pairs.cleanShuffleDependencies(False)

    def close(self) -> None:
        """See :class:`Shuffles`."""
        self._tokens.unpersist(False)


class _Raw:
    """A function on the socket of a Python worker; `carries` as in ``sparkdl.spark_internals.SocketSource``."""

    def __init__(self, function: Any, carries: str):
        self.function, self.carries = function, carries

    def __call__(self, split: int, stream: Any) -> Iterator[Blob]:
        items = _items(stream, self.carries == "pairs")
        if self.carries == "tokens":
            for _ in items:  # a task that leaves its input unread hangs
                pass
        for key, blob in self.function(split, items):
            if key is not None:
                yield [struct.pack(">q", key)]
            yield [_flat(buffer) for buffer in blob]


def _items(stream: Any, pairs: bool) -> Iterator[bytes]:
    while (length := read_int(stream)) != SpecialLengths.END_OF_DATA_SECTION:
        if pairs:
            stream.read(length)
            length = read_int(stream)
        yield stream.read(length)


class _Tokens:
    """As many tokens as a partition receives blobs: zip wants equal numbers."""

    def __init__(self, prepare: Callable[[int], None], count: int):
        self.prepare, self.count = prepare, count

    def __call__(self, split: int, items: Iterator[bytes]) -> Iterator[tuple[None, Blob]]:
        self.prepare(split)
        for _ in range(self.count):
            yield None, [b"t"]


class _Unkeyed:
    def __init__(self, function: Finish):
        self.function = function

    def __call__(self, split: int, items: Iterator[bytes]) -> Iterator[tuple[None, Blob]]:
        for result in self.function(split, items):
            yield None, [result]


class _Relay:
    """The self-test's superstep: each partition sends a byte more than it received to the other, three times."""

    def __call__(self, split: int, blobs: Iterable[bytes]) -> Iterator[tuple[int, Blob]]:
        longest = max([*map(len, blobs), 0])
        for to in range(2):
            yield to, [b"x" * longest, b"x"]
        if split == 1:
            yield 2 + longest % 2, [bytes([longest])]
        if longest < 2:
            yield 4, [b"more"]


def _joined(split: int, blobs: Iterable[bytes]) -> Iterator[bytes]:
    yield bytes([split]) + b"".join(sorted(blobs))


def _nothing(split: int) -> None:
    pass


def relay(form: Shuffles) -> list[Any]:
    """What the self-test does: three supersteps of two partitions, and their blobs under the two kept keys."""
    function = _Relay()
    supersteps = [form.born(function)]
    while form.run(supersteps[-1]):
        supersteps.append(form.moved(supersteps[-1], function))
    found = [len(supersteps), *sorted(form.finish(supersteps, _joined))]
    form.drop(supersteps)
    form.close()
    return found


RELAYED = [3, b"\x00\x00\x02", b"\x01\x01"]

_tested: dict[str, bool] = {}  # application id -> whether the private calls work there


def works(sc: SparkContext) -> bool:
    """Runs every private operation once on a few bytes: False if this Spark is not as this module thinks."""
    application = sc.applicationId
    if application not in _tested:
        with described(sc, "node2vec: self-test"):
            try:
                _tested[application] = relay(PrivateShuffles(sc, 2, 5, _nothing)) == RELAYED
            except Exception:
                logger.debug("the self-test of the private calls failed", exc_info=True)
                _tested[application] = False
    return _tested[application]
