from __future__ import annotations

import io
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from sparkdl import spark_internals, wire
from sparkdl.spark_internals import JVM, Blocks, RawItems, SocketSource, concurrent_tasks, own_local_properties, works

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

END_OF_DATA_SECTION = -1


def framed(*items: bytes) -> io.BytesIO:
    """As the JVM writes them."""
    data = b"".join(struct.pack("!i", len(item)) + item for item in items)
    return io.BytesIO(data + struct.pack("!i", END_OF_DATA_SECTION) + b"what follows is not the task's")


def item(replica: int, payload: bytes) -> bytes:
    return wire.header(wire.STATE, 3, replica, 0, len(payload)) + payload


ITEMS = (item(0, b"zero"), item(1, b""), item(2, b"the second"))
FOUND = [(0, b"zero"), (1, b""), (2, b"the second")]


@pytest.mark.parametrize(
    ("carries", "sent", "found"),
    [
        ("items", ITEMS, FOUND),
        ("pairs", (b"token", ITEMS[0], b"", ITEMS[1], b"another token", ITEMS[2]), FOUND),
        ("tokens", (b"token", b"", b"another token"), []),
        ("items", (), []),
        ("pairs", (), []),
    ],
)
def test_what_comes_through_the_socket(carries: str, sent: tuple[bytes, ...], found: list[tuple[int, bytes]]) -> None:
    stream = framed(*sent)
    source = SocketSource(stream, carries)
    assert [(head.replica, bytes(wire.read(source, head))) for head in source] == found
    assert stream.read() == b"what follows is not the task's"


def test_a_payload_is_read_in_parts() -> None:
    class Dribble(io.BytesIO):
        def readinto(self, target: memoryview) -> int:  # type: ignore[override]  # a socket gives what it has
            data = self.read(min(3, len(target)))
            target[: len(data)] = data
            return len(data)

    source = SocketSource(Dribble(framed(ITEMS[2]).getvalue()), "items")
    (found,) = (bytes(wire.read(source, head)) for head in source)
    assert found == b"the second"


def test_a_stream_that_ends_early_is_an_error() -> None:
    source = SocketSource(io.BytesIO(framed(ITEMS[2]).getvalue()[: 4 + wire.HEADER_BYTES + 3]), "items")
    head = next(iter(source))
    with pytest.raises(EOFError, match="Spark closed the task's input before its end"):
        wire.read(source, head)


def test_parts_are_written_as_one_item() -> None:
    stream = io.BytesIO()
    RawItems().dump_stream(iter([[ITEMS[0][:20], memoryview(ITEMS[0])[20:]], [ITEMS[1]]]), stream)
    written = io.BytesIO(stream.getvalue() + struct.pack("!i", END_OF_DATA_SECTION))
    source = SocketSource(written, "items")
    assert [(head.replica, bytes(wire.read(source, head))) for head in source] == FOUND[:2]
    assert RawItems().load_stream(stream) is stream


def test_some_blocks() -> None:
    blocks = Blocks(7, [0, 1, 2]).only([2])
    assert (blocks.rdd_id, blocks.partitions) == (7, [2])


@pytest.mark.spark
def test_the_private_calls_work(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    sc = spark.sparkContext
    before = set(sc._jsc.getPersistentRDDs())
    monkeypatch.setattr(spark_internals, "_tested", {})
    assert works(sc) is True
    assert set(sc._jsc.getPersistentRDDs()) <= before


@pytest.mark.spark
@pytest.mark.parametrize("call", ["block_rdd", "beside", "function", "items"])
def test_a_private_call_that_is_gone_is_noticed(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def gone(*arguments: object) -> None:
        raise AttributeError(call)

    monkeypatch.setattr(spark_internals, "_tested", {})
    monkeypatch.setattr(JVM, call, gone)
    assert works(spark.sparkContext) is False


@pytest.mark.spark
def test_items_stay_where_they_are_and_are_read_by_everybody(spark: SparkSession) -> None:
    sc = spark.sparkContext
    jvm = JVM(sc)
    tokens = sc.parallelize([0, 1, 2], 3)
    kept = jvm.keep(tokens)
    tokens.count()
    echo = spark_internals._Echo()
    made = jvm.apply(jvm.block_rdd(kept), jvm.function(echo, "tokens")).persist()
    made.start().get()
    assert [wire.unpack(found).replica for found in made.collect()] == [0, 1, 2]
    assert [wire.unpack(found).replica for found in jvm.items(made.blocks([2, 0]))] == [2, 0]
    # two readers, each of which gets the items of two of the three blocks
    readers = jvm.apply(jvm.beside(jvm.block_rdd(kept.only([0, 1])), made.blocks([2, 1])), jvm.function(echo, "pairs"))
    found = [wire.unpack(data) for data in readers.collect()]
    assert [(head.version, head.replica) for head in found] == [(1, 0), (2, 0), (2, 0), (1, 1), (2, 1), (2, 1)]
    made.unpersist()
    tokens._jrdd.unpersist(False)


@pytest.mark.spark
def test_task_slots(spark: SparkSession) -> None:
    assert concurrent_tasks(spark.sparkContext) == 2


@pytest.mark.spark
def test_threads_that_were_given_the_same_properties_do_not_hear_each_other(spark: SparkSession) -> None:
    sc: Any = spark.sparkContext
    shared = sc._jsc.sc().getLocalProperties().clone()
    shared.setProperty("kept", "yes")
    meet = threading.Barrier(2, timeout=60)

    def body(word: str) -> list[str | None]:
        sc._jsc.sc().setLocalProperties(shared)  # as inheritable_thread_target(session) does in all its threads
        own_local_properties(sc)
        sc.setLocalProperty("word", word)
        meet.wait()
        return [sc.getLocalProperty(key) for key in ("word", "kept")]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(body, ["a", "b"])) == [["a", "yes"], ["b", "yes"]]
