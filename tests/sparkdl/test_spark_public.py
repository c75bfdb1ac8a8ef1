"""The public operations train to the same bits as the private ones."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from pyspark import SparkFiles
from torch import nn

from sparkdl import Trainer, spark_engine, wire
from sparkdl.spark_internals import JVM, _Echo
from sparkdl.spark_public import Public
from tests.sparkdl.runs import arrays, norm_net

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def test_the_same_operations(spark: SparkSession) -> None:
    sc = spark.sparkContext
    before = set(sc._jsc.getPersistentRDDs())
    public = Public(sc)
    tokens = sc.parallelize([0, 1, 2], 3)
    kept = public.keep(tokens)
    made = public.apply(public.block_rdd(kept), public.function(_Echo(), "tokens")).persist()
    made.start().get()
    assert [wire.unpack(found).replica for found in made.collect()] == [0, 1, 2]
    assert [wire.unpack(found).replica for found in public.items(made.blocks([0, 2]))] == [0, 2]
    parent = public.beside(public.block_rdd(kept.only([0, 1])), made.blocks([1, 2]))
    found = [wire.unpack(data) for data in public.apply(parent, public.function(_Echo(), "pairs")).collect()]
    assert [(head.version, head.replica) for head in found] == [(1, 0), (2, 0), (2, 0), (1, 1), (2, 1), (2, 1)]
    made.unpersist()
    tokens.unpersist()
    assert set(sc._jsc.getPersistentRDDs()) <= before


class Emit:
    """Items whose numbers have all their bytes."""

    def __call__(self, split: int, source: wire.Source) -> Iterator[wire.Parts]:
        source.drain()
        for number in range(2):
            data = b"\xff\0" * number
            yield [wire.header(wire.STATE, 3, 0x01020304 + split, 0x0102030405060708 + number, len(data)), data]


@pytest.mark.parametrize("connect", [JVM, Public])
def test_items_become_rows(spark: SparkSession, connect: Any) -> None:
    jvm = connect(spark.sparkContext)
    tokens = spark.sparkContext.parallelize([0, 1, 2], 3)
    kept = jvm.keep(tokens)
    tokens.count()
    made = jvm.apply(jvm.block_rdd(kept), jvm.function(Emit(), "tokens")).persist()
    made.start().get()
    frame = jvm.frame(made.blocks([0, 2]))
    assert frame.dtypes == [("lot", "int"), ("offset", "bigint"), ("bytes", "binary")]
    assert [(row.lot, row.offset, bytes(row.bytes)) for row in frame.collect()] == [
        (0x01020304 + split, 0x0102030405060708 + number, b"\xff\0" * number) for split in (0, 2) for number in (0, 1)
    ]
    made.unpersist()
    tokens.unpersist()


def test_the_public_calls_have_the_bits_of_the_private_ones(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = arrays(rows=60)
    before = set(spark.sparkContext._jsc.getPersistentRDDs())

    def trained(**more: Any) -> str | None:
        trainer = Trainer(
            norm_net(), nn.CrossEntropyLoss(), partial(torch.optim.Adam, lr=1e-2), batch_size=16, replicas=3, **more
        )
        history = trainer.fit(data, verbose=0)
        assert history.steps["rows"].tolist() == [16, 16, 16, 12]
        assert history.events == []
        return history.fingerprint

    private = trained(form="gather")
    assert "public calls" not in caplog.text
    monkeypatch.setattr(spark_engine, "works", lambda sc: False)
    assert trained(form="fused", steps_per_job=2) == private  # it has the gather form alone, of the same bits
    assert "sparkdl does not know the inside of Spark" in caplog.text
    assert set(spark.sparkContext._jsc.getPersistentRDDs()) <= before
    assert glob.glob(os.path.join(SparkFiles.getRootDirectory(), "sparkdl-*")) == []
