"""Engines and twins on small data, without a Trainer."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyspark.sql import SparkSession
from torch import nn

from sparkdl import payload as payload_module
from sparkdl import replica_data_job, saved_state, slices
from sparkdl.checkpoint_files import Checkpoint
from sparkdl.columns import Columns
from sparkdl.gather_job import GatherForm
from sparkdl.payload import Payload
from sparkdl.slices_form import SlicesForm
from sparkdl.spark_engine import SparkEngine
from sparkdl.step_settings import Plan, StepSettings
from sparkdl.training_loop import Twin
from tests.sparkdl.payloads import payload_of
from tests.sparkdl.runs import arrays, norm_net, replica_rows

BATCH, ROWS = 32, 200  # seven steps an epoch, the last one partial
COLUMNS = Columns.parse("features", "label")


def payload_for(model: nn.Module | None = None, make: Any = None, **options: Any) -> Payload:
    """BatchNorm, Dropout and Adam, unless others are given; layouts are cut as `sparkdl.slices` says now."""
    make = make or partial(torch.optim.Adam, lr=1e-3)
    options = {"seed": 5, "batch_size": BATCH} | options
    return payload_of(model or norm_net(), nn.functional.cross_entropy, COLUMNS, make, **options)


def steps(first: int, stop: int, plan: Plan) -> list[StepSettings]:
    """Steps whose learning rate changes in each of them."""
    n = plan.steps_per_epoch
    return [StepSettings(s, s // n, s % n, [{"lr": 1e-3 / (1 + s)}]) for s in range(first, stop)]


@contextmanager
def engine_of(
    spark: SparkSession,
    payload: Payload,
    form: str = "gather",
    steps_per_job: int = 1,
    replicas: int = 3,
    data: Mapping[str, np.ndarray] | None = None,
    resume: Checkpoint | None = None,
) -> Iterator[SparkEngine]:
    """An engine that has begun."""
    sc, run = spark.sparkContext, uuid.uuid4().hex[:12]
    pickled = sc.broadcast(payload_module.pickle(payload))
    shared = sc.broadcast(dict(data or arrays(ROWS)))  # of stored types already
    engine = SparkEngine(
        sc,
        run,
        payload,
        lambda: replica_data_job.array_tokens(sc, shared, payload.columns, replicas, run, pickled),
    )
    try:
        counts = tuple(r.num_rows for r in engine.place())
        layout = payload.plan.layout
        parts = 1 if form == "gather" else min(replicas, len(layout.lots))
        plan = Plan(run, payload.seed, payload.batch_size, counts, tuple(slices.cut(layout, parts)))
        made: Any = (
            GatherForm(engine.jvm, plan, engine.submit, steps_per_job)
            if form == "gather"
            else SlicesForm(engine.jvm, plan, payload, form == "fused", engine.submit, steps_per_job)
        )
        engine.begin(plan, made, lambda text: None, resume)
        yield engine
    finally:
        engine.close()
        pickled.destroy()
        shared.destroy()


def run(engine: SparkEngine | Twin, first: int, stop: int, steps_per_job: int = 1) -> list[int]:
    """Runs steps to a snapshot; which steps were reported."""
    reports = []
    todo = steps(first, stop, engine.plan)
    for start in range(0, len(todo), steps_per_job):
        reports += engine.run(todo[start : start + steps_per_job])
    reports += engine.mark()
    return [r.settings.step for r in reports]


def twin_of(payload: Payload, directory: Path, replicas: int = 3, data: Mapping[str, np.ndarray] | None = None) -> Twin:
    """The single-process twin of `engine_of`."""
    parts = replica_rows(data or arrays(ROWS), replicas)
    counts = tuple(len(part["label"]) for part in parts)
    plan = Plan("twin", payload.seed, payload.batch_size, counts, tuple(slices.cut(payload.plan.layout, 1)))
    return Twin(payload, plan, parts, str(directory))


def fingerprints(twin: Twin) -> list[bytes]:
    """Of the version that the twin is at."""
    return [saved_state.lot_fingerprint(twin.state, twin.version, lot) for lot in range(twin.payload.plan.num_lots)]


def part_list(parts: Sequence[saved_state.Part] | Iterator[saved_state.Part]) -> list[tuple[int, int, bytes]]:
    """Parts that can be compared."""
    return sorted((lot, offset, bytes(memory)) for lot, offset, memory in parts)


def other_scheme(spark: SparkSession, folder: Path) -> str:
    """A path to a local folder that is not a local path to Hadoop."""
    configuration = spark.sparkContext._jsc.hadoopConfiguration()
    name = uuid.uuid4().hex
    configuration.set(f"fs.viewfs.mounttable.{name}.link./data", f"file://{folder}")
    return f"viewfs://{name}/data"
