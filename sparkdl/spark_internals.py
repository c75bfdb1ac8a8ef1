"""Everything of PySpark that is not public, in one place.

The steps need four things that the public RDD interface gives only at several times the cost: tasks that read and
write their socket themselves (no pickling, no copies), functions prepared once instead of every step, references to
persisted blocks without lineage, and jobs that run while the next one is being built.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from pyspark import RDD, SparkContext
from pyspark.serializers import NoOpSerializer, Serializer, SpecialLengths, read_int, write_int
from pyspark.sql import DataFrame, SparkSession

from sparkdl import wire
from sparkdl.wire import Header

logger = logging.getLogger("sparkdl")

# What runs in a task: (partition, its items) -> items to leave in the block store, each as a list of parts.
TaskFunction = Callable[[int, wire.Source], Iterator[wire.Parts]]

DRAIN_BYTES = 1 << 16

try:
    from pyspark.core.rdd import _local_iterator_from_socket, _wrap_function  # type: ignore[attr-defined]
except ImportError:  # Spark 3.5
    from pyspark.rdd import _local_iterator_from_socket, _wrap_function  # type: ignore[no-redef]


class SocketSource:
    """Items straight from the socket of a Python worker; see :class:`sparkdl.wire.Source`.

    carries: "items"; "pairs", where each item is preceded by a token (the left side of a cartesian product or a zip),
    which is skipped; or "tokens", which are all skipped.
    """

    def __init__(self, stream: Any, carries: str):
        self._stream = stream
        self._carries = carries

    def __iter__(self) -> Iterator[Header]:
        stream = self._stream
        while True:
            length = read_int(stream)
            if length == SpecialLengths.END_OF_DATA_SECTION:
                return
            if self._carries != "items":
                stream.read(length)
                if self._carries == "tokens":
                    continue
                length = read_int(stream)
            yield wire.unpack(stream.read(wire.HEADER_BYTES))

    def readinto(self, target: memoryview) -> None:
        """See :class:`sparkdl.wire.Source`."""
        done = 0
        while done < len(target):
            count = self._stream.readinto(target[done:])
            if not count:
                raise EOFError("Spark closed the task's input before its end")
            done += count

    def drain(self) -> None:
        """See :class:`sparkdl.wire.Source`."""
        stream = self._stream
        while (length := read_int(stream)) != SpecialLengths.END_OF_DATA_SECTION:
            while length > 0:  # in parts: memory for a large item would be fetched anew each time
                length -= len(stream.read(min(length, DRAIN_BYTES)))


class RawItems(Serializer):
    """Hands the socket to the task, and writes what the task yields without putting it together."""

    def load_stream(self, stream: Any) -> Any:
        """The stream itself."""
        return stream

    def dump_stream(self, iterator: Iterator[wire.Parts], stream: Any) -> None:
        """Every list of parts becomes one item (a ``byte[]`` in the JVM)."""
        for parts in iterator:
            write_int(sum(len(p) for p in parts), stream)
            for part in parts:
                stream.write(part)


class _Task:
    """A task function as PySpark calls it. Importable, so that workers keep their modules' caches."""

    def __init__(self, function: TaskFunction, carries: str):
        self.function, self.carries = function, carries

    def __call__(self, split: int, stream: Any) -> Iterator[wire.Parts]:
        return self.function(split, SocketSource(stream, self.carries))


class Blocks:
    """Persisted partitions of an RDD, by number: what is left of it when its lineage is cut."""

    def __init__(self, rdd_id: int, partitions: list[int]):
        self.rdd_id, self.partitions = rdd_id, partitions

    def only(self, partitions: list[int]) -> Blocks:
        """Some of them."""
        return Blocks(self.rdd_id, partitions)


class Parent(NamedTuple):
    """What a task function is applied to: a Scala RDD, and the shuffles that were made for it alone."""

    rdd: Any
    shuffles: tuple[Any, ...] = ()


class Pins(NamedTuple):
    """An RDD whose partitions are where others are to be, and how Spark zips two partitions.

    Spark analyses that function's byte code in every call of ``zip``, for milliseconds: one call is enough.
    """

    rdd: Any
    num_partitions: int
    zip_function: Any


class RawRDD:
    """A JVM RDD of items (``byte[]``). Everything is lazy until :meth:`start` or :meth:`collect`."""

    def __init__(self, jvm: JVM, rdd: Any, shuffles: tuple[Any, ...] = ()):
        self._jvm, self.rdd, self._shuffles = jvm, rdd, shuffles
        self._persisted = False

    def persist(self, copies: int = 1) -> RawRDD:
        """Keeps the items in the block store as they are (deserialized: nothing is pickled), on disk if need be."""
        self.rdd.persist(self._jvm.level(copies))
        self._persisted = True
        self.id, self._jrdd  # noqa: B018 - asked for now, while nobody waits
        return self

    def unpersist(self) -> None:
        """Drops the blocks and the shuffle files behind them, without waiting for it."""
        if self._persisted:
            self.rdd.unpersist(False)
        for shuffle in self._shuffles:
            shuffle.cleanShuffleDependencies(False)

    @functools.cached_property
    def _jrdd(self) -> Any:
        return self.rdd.asJavaRDD()

    @functools.cached_property
    def id(self) -> int:
        """Spark's number of this RDD."""
        return int(self.rdd.id())

    def blocks(self, partitions: list[int]) -> Blocks:
        """A reference to these partitions' blocks."""
        return Blocks(self.id, partitions)

    def start(self) -> Any:
        """Submits a job that computes every partition; returns Spark's future, whose ``get()`` waits for it."""
        return self._jrdd.countAsync()

    def run_or_drop(self) -> None:
        """Computes every partition; what a failed job leaves behind is dropped."""
        try:
            self.start().get()
        except BaseException:
            self.unpersist()
            raise

    def collect(self) -> list[bytes]:
        """All items. For records and other small things only: they pass through py4j."""
        return [bytes(item) for item in self._jrdd.collect()]


class JVM:
    """Class handles and static methods, looked up once: a py4j call is 0.1 ms, a look-up another one or several."""

    gather_only = False

    def __init__(self, sc: SparkContext):
        self._sc = sc
        jvm: Any = sc._jvm
        self._jsc = sc._jsc.sc()
        self._python_rdd = jvm.org.apache.spark.api.python.PythonRDD
        self._pairwise = jvm.org.apache.spark.api.python.PairwiseRDD
        self._partitioner = functools.cache(jvm.org.apache.spark.api.python.PythonPartitioner)
        self._block_rdd = jvm.org.apache.spark.rdd.BlockRDD
        self._block_id = jvm.org.apache.spark.storage.RDDBlockId
        self._block_id_class = jvm.java.lang.Class.forName("org.apache.spark.storage.BlockId")
        self._new_array = jvm.java.lang.reflect.Array.newInstance
        self._set_array = jvm.java.lang.reflect.Array.set
        self._level = jvm.org.apache.spark.storage.StorageLevel
        self._levels: dict[int, Any] = {}
        self._tag = jvm.scala.reflect.ClassTag.apply(jvm.java.lang.Class.forName("[B"))
        # their constructors: RDD's methods walk the stack for the name of an operation scope
        self._coalesced = jvm.org.apache.spark.rdd.CoalescedRDD
        self._cartesian = jvm.org.apache.spark.rdd.CartesianRDD
        self._no_option = jvm.scala.Option.empty()
        self._shuffled_rdd = jvm.org.apache.spark.rdd.ShuffledRDD
        self._zipped = jvm.org.apache.spark.rdd.ZippedPartitionsRDD2
        self._map_partitions = jvm.org.apache.spark.rdd.MapPartitionsRDD
        self._serializer = jvm.org.apache.spark.serializer.JavaSerializer(self._jsc.conf())
        self._any = jvm.scala.reflect.ClassTag.apply(jvm.java.lang.Class.forName("java.lang.Object"))
        self._values = self._function_of_values()

    def keep(self, tokens: RDD[Any]) -> Blocks:
        """Persists an RDD of one token a partition."""
        jrdd = tokens._jrdd
        jrdd.persist(self.level(1))
        return Blocks(int(jrdd.id()), list(range(int(jrdd.getNumPartitions()))))

    def level(self, copies: int) -> Any:
        """Memory and disk, deserialized, so many copies."""
        if copies not in self._levels:
            self._levels[copies] = self._level.apply(True, True, False, True, copies)
        return self._levels[copies]

    def function(self, function: TaskFunction, carries: str) -> Any:
        """Prepares a task function for any number of jobs; ``carries`` as in :class:`SocketSource`."""
        raw = RawItems()
        return _wrap_function(self._sc, _Task(function, carries), raw, raw)

    def apply(self, parent: Parent, function: Any) -> RawRDD:
        """``function`` over every partition of ``parent``."""
        return RawRDD(self, self._python_rdd(parent.rdd, function, False, False), parent.shuffles)

    def block_rdd(self, blocks: Blocks) -> Parent:
        """An RDD that reads persisted blocks and has no parents."""
        ids = self._new_array(self._block_id_class, len(blocks.partitions))
        for i, partition in enumerate(blocks.partitions):
            self._set_array(ids, i, self._block_id(blocks.rdd_id, partition))
        return Parent(self._block_rdd(self._jsc, ids, self._tag))

    def beside(self, anchor: Parent, blocks: Blocks, after: RawRDD | None = None) -> Parent:
        """One partition for each of the anchor's, where the anchor is: each gets every item of all ``blocks``.

        The anchor is a block RDD of one token a partition. Call this before the blocks exist, so that their places do
        not weigh in on where the tasks go. ``after``: the blocks are those of this RDD and are made in the same job;
        an empty shuffle puts a stage's border between them and their readers.
        """
        found = self.block_rdd(blocks).rdd
        shuffles: tuple[Any, ...] = ()
        if after is not None:
            shuffle, nothing = self._by_key(after.rdd.sample(False, 0.0, 1), 1, 2)
            found = found.union(nothing)
            shuffles = (shuffle,)
        one = self._coalesced(found, 1, self._no_option, self._tag)
        one.getNumPartitions()  # settles the partitions, and so the tasks' places, now
        return Parent(self._cartesian(self._jsc, anchor.rdd, one, self._tag, self._tag), shuffles)

    def pins(self, blocks: Blocks) -> Pins:
        """Blocks that say where partitions are to be, for any number of :meth:`shuffled`."""
        rdd = self.block_rdd(blocks).rdd
        return Pins(rdd, len(blocks.partitions), rdd.zip(rdd, self._tag).f())

    def shuffled(self, keyed: RawRDD, pins: Pins) -> Parent:
        """Items of ``keyed`` (a key item before each) in one partition a key, each where the pins of that key are.

        ``pins`` must hold as many items for each key as come out of the shuffle: zip asks for that.
        """
        shuffle, items = self._by_key(keyed.rdd, pins.num_partitions, 1)
        pinned = self._zipped(self._jsc, pins.zip_function, pins.rdd, items, False, self._tag, self._tag, self._any)
        pinned.getNumPartitions()
        return Parent(pinned, (shuffle,))

    def _function_of_values(self) -> list[Any]:
        """Spark's own function from pairs to their values, taken out of an RDD, and the flags that go with it.

        For every RDD that is made with a function, Spark analyses that function's byte code, for milliseconds: once is
        enough here as well.
        """
        nothing = self._pairwise(self.block_rdd(Blocks(0, [])).rdd)
        values = self._python_rdd.valueOfPair(nothing.asJavaPairRDD()).rdd()
        field = values.getClass().getDeclaredField("f")
        field.setAccessible(True)
        num_parameters = values.getClass().getConstructors()[0].getParameterCount()  # another one from Spark 4 on
        return [field.get(values), *[False] * (num_parameters - len(("prev", "f", "tag", "tag")))]

    def _by_key(self, rdd: Any, num_partitions: int, kind: int) -> tuple[Any, Any]:
        """The shuffle of (key, item) pairs, and its items without the keys; ``kind`` tells partitioners apart."""
        pairs = self._shuffled_rdd(
            self._pairwise(rdd), self._partitioner(num_partitions, kind), self._any, self._any, self._any
        )
        # Spark itself would choose Kryo, and make a new one in every task
        pairs.setSerializer(self._serializer)
        return pairs, self._map_partitions(pairs, *self._values, self._tag, self._any)

    def frame(self, blocks: Blocks) -> DataFrame:
        """The items of some blocks as rows ``lot int, offset long, bytes binary``, a partition a block: for writers.

        The header is taken apart by Spark's own expressions, so no item passes through Python.
        """
        spark = SparkSession.builder.getOrCreate()
        jvm: Any = self._sc._jvm
        items = spark._jsparkSession.createDataset(
            self.block_rdd(blocks).rdd, jvm.org.apache.spark.sql.Encoders.BINARY()
        )
        return DataFrame(items.toDF(), spark).selectExpr(
            f"cast({_number('value', wire.REPLICA_BYTES)} as int) as lot",
            f"{_number('value', wire.START_BYTES)} as offset",
            f"substring(value, {wire.HEADER_BYTES + 1}) as bytes",
        )

    def items(self, blocks: Blocks) -> Iterator[bytes]:
        """All items of some blocks, one partition at a time, through a local socket: for state on its way to disk."""
        served = self._python_rdd.toLocalIteratorAndServe(self.block_rdd(blocks).rdd, False)
        yield from _local_iterator_from_socket(served, NoOpSerializer())


def hadoop(sc: SparkContext) -> tuple[Any, Any]:
    """Hadoop's packages as py4j names them, and the configuration that Spark uses."""
    jvm: Any = sc._jvm
    return jvm.org.apache.hadoop, sc._jsc.hadoopConfiguration()


def own_local_properties(sc: SparkContext) -> None:
    """Gives this thread local properties of its own: a copy of those it has.

    Spark 4's ``inheritable_thread_target(session)``, and with it CrossValidator, gives all its threads the same object,
    through which the settings of one training's steps would reach the tasks of another one.
    """
    inner: Any = sc._jsc.sc()
    inner.setLocalProperties(inner.getLocalProperties().clone())


def concurrent_tasks(sc: SparkContext) -> int | None:
    """How many tasks the executors that are there can run at once, or None if this Spark does not say."""
    try:
        inner: Any = sc._jsc.sc()
        return int(inner.maxNumConcurrentTasks(inner.resourceProfileManager().defaultResourceProfile()))
    except Exception:
        return None


def running_job(sc: SparkContext, number: int) -> tuple[str, float, int, int, int] | None:
    """A job's description, when it was submitted (seconds since 1970), its tasks, and how many are done and running.

    None: Spark does not know the job any more, or does not say.
    """
    try:
        inner: Any = sc._jsc.sc()
        job = inner.statusStore().job(number)
        description, began = job.description(), job.submissionTime()
        return (
            str(description.get()) if description.isDefined() else "",
            began.get().getTime() / 1e3 if began.isDefined() else time.time(),
            int(job.numTasks()),
            int(job.numCompletedTasks()) + int(job.numSkippedTasks()),
            int(job.numActiveTasks()),
        )
    except Exception:
        return None


def _number(column: str, place: range) -> str:
    """SQL: the little-endian number at these bytes of a binary column, which is not negative."""
    digits = ", ".join(f"hex(substring({column}, {i + 1}, 1))" for i in reversed(place))
    return f"cast(conv(concat({digits}), 16, 10) as bigint)"


@contextmanager
def described(sc: SparkContext, text: str) -> Iterator[None]:
    """Jobs inside are shown as ``text``; the former description comes back."""
    before = sc.getLocalProperty("spark.job.description")
    sc.setJobDescription(text)
    try:
        yield
    finally:
        sc.setLocalProperty("spark.job.description", before)  # type: ignore[arg-type]  # None removes it


class _Echo:
    """The self-test's task: an item of its own, then what it gets, a byte longer; keyed: each behind key 0."""

    def __init__(self, keyed: bool = False):
        self.keyed = keyed

    def __call__(self, split: int, source: wire.Source) -> Iterator[wire.Parts]:
        items: list[wire.Parts] = [[wire.header(wire.STATE, 1, split, 0, 1), b"x"]]
        for head in source:
            data = bytes(wire.read(source, head)) + b"y"
            items.append([wire.header(wire.STATE, head.version + 1, split, 0, len(data)), data])
        for item in items:
            if self.keyed:
                yield [bytes(8)]
            yield item


_tested: dict[str, bool] = {}  # application id -> whether the private calls work there


def works(sc: SparkContext) -> bool:
    """Runs every private operation once on a few bytes: False if this Spark is not as this module thinks."""
    application = sc.applicationId
    if application not in _tested:
        with described(sc, "sparkdl: self-test"):
            try:
                _tested[application] = _try(JVM(sc))
            except Exception:
                logger.debug("the self-test of the private calls failed", exc_info=True)
                _tested[application] = False
    return _tested[application]


def _try(jvm: JVM) -> bool:
    sc = jvm._sc
    tokens = sc.parallelize([0, 1], 2)
    kept = jvm.keep(tokens)
    tokens.count()
    everywhere, pairs = jvm.block_rdd(kept), jvm.function(_Echo(), "pairs")
    first = jvm.apply(everywhere, jvm.function(_Echo(), "tokens")).persist()
    two = jvm.apply(jvm.beside(jvm.block_rdd(kept.only([0])), first.blocks([0])), pairs).persist()
    keyed = jvm.apply(everywhere, jvm.function(_Echo(keyed=True), "tokens"))
    gathered = jvm.apply(jvm.beside(everywhere, first.blocks([0, 1])), pairs)
    shuffled = None
    try:
        first.start().get()
        two.start().get()
        shuffled = jvm.apply(jvm.shuffled(keyed, jvm.pins(two.blocks([0]))), pairs)
        found = [gathered.collect(), list(jvm.items(two.blocks([0]))), shuffled.collect()]
    finally:
        for rdd in filter(None, (first, two, shuffled)):
            rdd.unpersist()
        tokens._jrdd.unpersist(False)
    expected = [[b"x", b"xy", b"xy"] * 2, [b"x", b"xy"], [b"x", b"xy", b"xy"]]
    return [sorted(item[wire.HEADER_BYTES :] for item in items) for items in found] == list(map(sorted, expected))
