"""What users of other Spark trainers complain about, tried here; docs/features.md lists the rest."""

from __future__ import annotations

import glob
import os
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pyspark import SparkFiles
from pyspark.sql import SparkSession
from torch import nn

from sparkdl import Trainer, slices, wire
from sparkdl.history import History
from sparkdl.spark_internals import running_job
from tests.sparkdl.runs import arrays, mlp

SCHEMA = "features array<float>, label int"


def rows(count: int) -> list[tuple[list[float], int]]:
    data = arrays(rows=count)
    return [(x.tolist(), int(y)) for x, y in zip(data["features"], data["label"], strict=True)]


def trainer(**options: Any) -> Trainer:
    made = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    return Trainer(mlp, nn.CrossEntropyLoss(), made, **({"batch_size": 16, "replicas": 2} | options))


@pytest.mark.spark
def test_batch_rows_partitions_and_replicas_need_not_fit_each_other(spark: SparkSession) -> None:
    parts = rows(33)
    sc = spark.sparkContext
    lengths = [0, 1, 0, 1, 31]  # partitions without rows, and with a single one
    borders = np.cumsum([0, *lengths])
    uneven = sc.parallelize(range(5), 5).flatMap(lambda i: parts[borders[i] : borders[i + 1]])
    frame = spark.createDataFrame(uneven, SCHEMA)
    assert [len(part) for part in frame.rdd.glom().collect()] == lengths
    odd = trainer(batch_size=7, replicas=5)  # more replicas than the two task slots, fewer rows a step than some have
    history = odd.fit(frame, epochs=1, verbose=0)
    assert history.steps["rows"].tolist() == [7, 7, 7, 7, 5]
    again = trainer(batch_size=7, replicas=5)
    assert again.fit(spark.createDataFrame(parts, SCHEMA), epochs=1, verbose=0).fingerprint == history.fingerprint


@pytest.mark.spark
def test_two_trainings_on_two_slots_do_not_wait_for_each_other(spark: SparkSession) -> None:
    data = arrays(rows=64)
    alone = trainer(replicas=3).fit(data, epochs=2, verbose=0)
    found: dict[int, History] = {}

    def fit(number: int) -> None:
        found[number] = trainer(replicas=3).fit(data, epochs=2, verbose=0)

    threads = [threading.Thread(target=fit, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert {number: history.fingerprint for number, history in found.items()} == dict.fromkeys(
        range(2), alone.fingerprint
    )


@pytest.mark.spark
def test_the_spark_ui_says_which_step_a_job_is(spark: SparkSession) -> None:
    sc = spark.sparkContext

    def newest() -> int:
        sc.setLocalProperty("spark.jobGroup.id", "test")
        sc.parallelize([0], 1).count()
        sc.setLocalProperty("spark.jobGroup.id", None)  # type: ignore[arg-type]
        return max(sc.statusTracker().getJobIdsForGroup("test"))

    before = newest()
    trainer(form="fused").fit(arrays(rows=32), epochs=2, validation=arrays(rows=8), verbose=0)
    jobs = [running_job(sc, number) for number in range(before + 1, newest())]
    told = " / ".join(job[0] for job in jobs if job)
    for step in ("epoch 1 step 1", "epoch 1 step 2", "epoch 2 step 3", "epoch 2 step 4"):
        assert step in told
    assert all(job and job[0] for job in jobs), told


@pytest.mark.spark
def test_a_training_leaves_nothing_behind(spark: SparkSession) -> None:
    sc: Any = spark.sparkContext
    before = set(sc._jsc.getPersistentRDDs())
    trainer().fit(spark.createDataFrame(rows(64), SCHEMA), epochs=2, verbose=0)
    assert set(sc._jsc.getPersistentRDDs()) <= before
    assert glob.glob(os.path.join(SparkFiles.getRootDirectory(), "sparkdl-*")) == []


def test_four_billion_parameters_travel_in_pieces_of_a_megabyte() -> None:
    layout = slices.layout([("table.weight", (32_000_000, 128), 0)], elementwise=True)
    assert layout.size == 32_000_000 * 128  # 16 GB: more than an array of Java or an item of Spark holds
    pieces = slices.pieces(layout, slices.cut(layout, 64))
    assert max(piece.stop - piece.start for piece in pieces) * 4 <= 1 << 20
    assert pieces[-1].stop == layout.size
    last = pieces[-1]
    head = wire.unpack(wire.header(wire.STATE, 7, 3, last.start, 4 * (last.stop - last.start)))
    assert head.start == last.start
