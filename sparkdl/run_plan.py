"""How a run is laid out on the cluster: the form of its steps, its slices, and the steps of a job."""

from __future__ import annotations

import math
from typing import NamedTuple

from pyspark.sql import SparkSession

from sparkdl import slices
from sparkdl.gather_job import GatherForm
from sparkdl.payload import Payload
from sparkdl.slices_form import SlicesForm
from sparkdl.spark_engine import Form, SparkEngine
from sparkdl.spark_internals import concurrent_tasks
from sparkdl.step_settings import Plan

SAME_HOST = "spark.sparkdl.sameHost"
GATHER_BYTES = 18 << 20  # what one task slot may receive in a step beyond the slices form's traffic: 15 ms at 10 Gb/s

FEW_ROWS = 8  # of a replica in a step: below, nearly all of the step is scheduling


class RunPlan(NamedTuple):
    """What a run does in every step, how, and how many steps at a time."""

    plan: Plan
    form: Form
    steps_per_job: int


def run_plan(
    spark: SparkSession,
    engine: SparkEngine,
    payload: Payload,
    rows: tuple[int, ...],
    form: str = "auto",
    steps_per_job: int = 1,
) -> RunPlan:
    """The plan for replicas with so many ``rows``; ``form`` and ``steps_per_job`` as in :class:`sparkdl.Trainer`."""
    layout = payload.plan.layout
    if engine.jvm.gather_only:
        form = "gather"
    elif form == "auto":
        wire_bytes = layout.dense_size * (2 if payload.wire == "bf16" else 4)
        form = choose_form(wire_bytes, len(rows), task_slots(spark))
    count = (
        1
        if form == "gather"
        else slices.num_slices(layout.dense_size, layout.dense_lots, len(rows), len(layout.table_lots))
    )
    same_host = form == "gather" and spark.conf.get(SAME_HOST, "false") == "true"
    cut = tuple(slices.cut(layout, count))
    plan = Plan(engine.run_id, payload.seed, payload.batch_size, rows, cut, same_host)
    if form == "gather":
        steps_per_job = 1 if engine.jvm.gather_only else steps_per_job
        return RunPlan(plan, GatherForm(engine.jvm, plan, engine.submit, steps_per_job), steps_per_job)
    steps_per_job = 1 if payload.clip_norm is not None else steps_per_job  # the norm ends the job
    of_slices = SlicesForm(engine.jvm, plan, payload, form == "fused", engine.submit, steps_per_job)
    return RunPlan(plan, of_slices, steps_per_job)


def choose_form(wire_bytes: int, replicas: int, slots: int) -> str:
    """The rule of ``form="auto"``.

    A replica receives (R - 1) B bytes a step in the gather form and about 2 B (R - 1) / R in the others; they are
    equal at two replicas. Gather saves a stage, about 15 ms: worth it while what a slot receives beyond the others'
    traffic, B (R - 1) (R - 2) / R for each of its replicas, stays below 18 MB.
    """
    surplus = wire_bytes * (replicas - 1) * (replicas - 2) / replicas
    return "gather" if surplus * max(1.0, replicas / slots) <= GATHER_BYTES else "fused"


def remark(plan: Plan, slots: int) -> str | None:
    """What a user should know of this plan before the first step; None: nothing."""
    replicas, rows = plan.num_replicas, plan.batch_size / plan.num_replicas
    if replicas > 1 and rows < FEW_ROWS:
        return (
            f"a step of {plan.batch_size} rows gives each of {replicas} replicas {rows:.3g}: "
            "a larger batch_size, or fewer replicas, would do more work for the same scheduling"
        )
    if replicas > slots:
        return (
            f"{replicas} replicas on {slots} task slots: each step takes {math.ceil(replicas / slots)} waves of tasks"
        )
    return None


def task_slots(spark: SparkSession) -> int:
    """Tasks that can run at the same time on the executors there are now."""
    sc = spark.sparkContext
    return max(1, concurrent_tasks(sc) or sc.defaultParallelism)
