"""The steps and epochs of a run, written once: on an engine of Spark jobs it is the product, on :class:`Twin` the
single process that every run must equal bit for bit.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.optim import Optimizer

from sparkdl import sync, table_rows, wire
from sparkdl.errors import ConfigError
from sparkdl.history import History, StepRecord
from sparkdl.optim import Hyper, SliceOptimizer, changed, hyper_of
from sparkdl.payload import Payload, read_buffers
from sparkdl.replica import Replica
from sparkdl.replica_items import gradient_items, report_items
from sparkdl.slices import pieces
from sparkdl.step_settings import Plan, StepSettings
from sparkdl.table_rows import TableSums
from sparkdl.triggers import Moment, moment_at
from sparkdl.versioned_tables import VersionedTables


class StepReport(NamedTuple):
    """What an engine tells of a step: float64 [replicas, fields] as :attr:`Payload.record_names`, and its seconds."""

    settings: StepSettings
    values: np.ndarray
    seconds: float


class Engine(Protocol):
    """Where steps run."""

    def run(self, steps: Sequence[StepSettings]) -> list[StepReport]:
        """Runs steps; returns reports of them and of earlier ones, at its own convenience."""

    def mark(self) -> list[StepReport]:
        """Returns all reports that are still out."""


class Schedule:
    """Learning rates and other hyperparameters of every step: the scheduler, driven on a stand-in optimizer."""

    def __init__(self, optimizer: Optimizer, scheduler: Callable[[Optimizer], Any] | None, start: Hyper):
        self._optimizer, self._start = optimizer, start
        self._scheduler = None if scheduler is None else scheduler(optimizer)
        if isinstance(self._scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise ConfigError(
                "ReduceLROnPlateau waits for a metric, but schedulers here step once a step; use OneCycleLR, "
                "CosineAnnealingLR, LambdaLR or another that counts steps"
            )
        if self._scheduler is not None and not callable(getattr(self._scheduler, "step", None)):
            raise ConfigError(
                f"scheduler={scheduler!r} returned {type(self._scheduler).__name__}, which has no step(); pass "
                "f(optimizer) -> torch.optim.lr_scheduler.LRScheduler"
            )

    def next(self) -> tuple[Hyper, float]:
        """What differs from the optimizer's template in the next step, and the first group's learning rate."""
        now = hyper_of(self._optimizer)
        if self._scheduler is not None:
            with warnings.catch_warnings():
                # the stand-in never steps on real gradients: the slices do
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
                self._scheduler.step()
        return changed(now, self._start), float(now[0].get("lr", float("nan")))


class Course(Protocol):
    """What happens between the steps of a run."""

    def record(self, record: StepRecord) -> None:
        """Is told of every step once, in order, a little late."""

    def pauses_at(self, moment: Moment) -> bool:
        """Whether the run pauses at this moment, its values unknown."""

    def pause(self, moment: Moment) -> bool:
        """At such a moment, all steps before it recorded: whether the run ends here."""


def train(
    engine: Engine,
    plan: Plan,
    schedule: Schedule,
    course: Course,
    steps_per_job: int,
    metrics: Sequence[str],
    history: History,
    start: int = 0,
) -> None:
    """Runs steps from number ``start`` on, until ``course`` ends them. A pause also ends a job of several steps."""
    rates: dict[int, float] = {}

    def report(reports: Sequence[StepReport]) -> None:
        for r in reports:
            course.record(history.add_step(**record(r, plan, rates.pop(r.settings.step), metrics)))

    for _ in range(start):
        schedule.next()
    step, ended = start, False
    while not ended:
        steps: list[StepSettings] = []
        pauses = False
        while len(steps) < steps_per_job and not pauses:
            hyper, rates[step] = schedule.next()
            steps.append(StepSettings(step, *divmod(step, plan.steps_per_epoch), hyper))
            step += 1
            moment = moment_at(step, plan.steps_per_epoch)
            pauses = course.pauses_at(moment)
        report(engine.run(steps))
        if pauses:
            report(engine.mark())
            ended = course.pause(moment)


def record(report: StepReport, plan: Plan, rate: float, metrics: Sequence[str]) -> dict[str, Any]:
    """A step's values as :meth:`History.add_step` takes them: sums and counts over replicas, divided once."""
    sums = report.values.sum(axis=0)
    rows, denominator, loss_sum = sums[:3]
    read, update, compute, write = report.values[:, 3 + len(metrics) :].T
    compute_ms = float(compute.max())
    sync_ms = float((read + update + write).max())
    return {
        "step": report.settings.step,
        "epoch": report.settings.epoch,
        "rows": int(rows),
        "seconds": report.seconds,
        "loss": float(loss_sum / denominator) if denominator else 0.0,
        "lr": rate,
        "compute_ms": compute_ms,
        "sync_ms": sync_ms,
        "scheduling_ms": max(0.0, report.seconds * 1e3 - compute_ms - sync_ms),
        "metrics": {name: float(sums[3 + i] / rows) for i, name in enumerate(metrics)},
    }


class Twin:
    """An engine in this process: what the Spark jobs compute, one replica after the other, without Spark.

    data: for every replica its columns. directory: for the file of state.
    """

    def __init__(self, payload: Payload, plan: Plan, data: Sequence[Mapping[str, np.ndarray]], directory: str):
        self.payload, self.plan, self._data = payload, plan, data
        self._replica = Replica(payload)
        self._optimizer = SliceOptimizer(payload.template.blank)
        self.state = VersionedTables(os.path.join(directory, "state"), payload.plan)
        self.state.begin(range(payload.plan.num_lots), payload.initial_weights(), read_buffers(payload.model))
        self._pieces = pieces(payload.plan.layout, plan.slices)
        self.version = 0

    def run(self, steps: Sequence[StepSettings]) -> list[StepReport]:
        """Every step at once reported."""
        return [self._step(settings) for settings in steps]

    def mark(self) -> list[StepReport]:
        """Nothing is ever out."""
        return []

    def _step(self, settings: StepSettings) -> StepReport:
        payload, plan, layout = self.payload, self.plan, self.payload.plan.layout
        began = time.perf_counter()
        items: list[bytes] = []
        for replica, data in enumerate(self._data):
            rows = plan.rows(settings, replica)
            self._replica.bind(self.state.weights(settings.step))
            arrays = {name: column[rows] for name, column in data.items()}
            sums = self._replica.forward_backward(
                arrays, plan.rows_in_step(settings.index), settings.step, replica, self.state.buffers(settings.step)
            )
            for made in (
                report_items(payload, 1, settings.step, replica, sums),
                gradient_items(payload, self._pieces, settings.step, replica, sums),
                table_rows.gradient_items(payload, 1, settings.step, replica, sums),
            ):
                items += [b"".join(parts) for _, parts in made]
        tables = TableSums(layout, layout.table_lots)
        total = sync.GradientSum(0, layout.dense_size, plan.num_replicas, payload.plan.num_buffer_floats, tables)
        total.read(wire.BytesSource(items), settings.step, plan.contributors(settings.index))
        sync.finish(payload, total.total, total.scale())

        def gradient(start: int, stop: int) -> torch.Tensor:
            return total.gradient(payload, start, stop)

        lots = range(len(layout.lots))
        clip = sync.clip_factor(payload, sync.square_norm(payload, lots, gradient) if payload.clip_norm else [])
        sync.update_lots(payload, self.state, self._optimizer, lots, settings.step, gradient, clip, settings.hyper)
        if (buffers := total.buffers()) is not None:
            self.state.set_buffers(settings.step + 1, *buffers)
        self.version = settings.step + 1
        values = np.stack([total.records[r] for r in range(plan.num_replicas)])
        return StepReport(settings, values, time.perf_counter() - began)
