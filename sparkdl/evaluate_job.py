"""Loss and metrics of a model over all rows: sums and counts of every partition, merged in their order, divided once.

The job's twin is ``measure_rows``, which is all that a task does, and what happens on the driver with arrays.
Function metrics are means over rows, weighted by rows. Objects that look like torchmetrics' Metric (update, compute,
merge_state, reset) are updated batch by batch on a fresh copy in each partition, merged, and computed once.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import random
import traceback
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import pyarrow as pa
import torch
from pyspark import TaskContext
from pyspark.broadcast import Broadcast
from pyspark.sql import DataFrame

from sparkdl import payload as payload_module
from sparkdl import replica_cache
from sparkdl.arrow_columns import ColumnReader
from sparkdl.dry_run import kept_generators
from sparkdl.errors import ConfigError, TrainingError
from sparkdl.label_checks import ValueRange, check_labels
from sparkdl.payload import Payload
from sparkdl.replica import Batch, Replica, step_seed
from sparkdl.spark_failures import as_config_error
from sparkdl.stored_arrays import Stored, Transform

Arrays = Mapping[str, Stored]


class Measured(NamedTuple):
    """What some rows add up to; merges with what other rows add up to."""

    num_rows: int
    denominator: float
    loss_sum: float
    metric_sums: dict[str, float]  # of function metrics, over rows
    objects: dict[str, Any]  # metric objects, updated


def evaluate(data: DataFrame | Arrays, model: torch.nn.Module, payload: Payload, batch_size: int) -> dict[str, float]:
    """The loss and every metric of ``payload`` for ``model``'s weights over all rows of ``data``.

    data: a DataFrame (one Spark job), or arrays of storage types, [rows, …] each (no job).
    batch_size: rows of one forward.

    Raises ConfigError: no rows, or rows and metrics that cannot be used. TrainingError: user code failed in a task.
    """
    # without the places of parameters: nothing is trained, so any model will do
    nothing = payload.plan._replace(layout=payload.plan.layout._replace(tensors=()))
    payload = dataclasses.replace(payload, model=model, plan=nothing)
    if payload.step_fn is not None and (objects := [n for n, m in payload.metrics.items() if is_object(m)]):
        raise ConfigError(
            f"{', '.join(map(repr, objects))} need outputs and labels, but with step_fn only step_fn does. "
            "Return that number from step_fn, or evaluate without step_fn."
        )
    if isinstance(data, Mapping):
        with kept_generators():
            parts = [measure_rows(payload, "cpu", iter([data]), batch_size, 0)]
    else:
        parts = _job(data, payload, batch_size)
    return finish(payload, parts)


def is_object(metric: Any) -> bool:
    """Whether a metric gathers state by itself, as torchmetrics' do."""
    return all(callable(getattr(metric, name, None)) for name in ("update", "compute", "merge_state", "reset"))


def measure_rows(
    payload: Payload, device: torch.device | str, parts: Iterator[Arrays], batch_size: int, partition: int
) -> Measured:
    """What the rows of one partition add up to, in their order. Seeds the global generators by the partition."""
    return _measure(_Meter(payload, device), parts, batch_size, partition)


class _Meter:
    """A replica that feeds metric objects too."""

    def __init__(self, payload: Payload, device: torch.device | str):
        self.payload = payload
        self.fed: dict[str, Any] = {}
        metrics = {n: self._feeder(n) if is_object(m) else m for n, m in payload.metrics.items()}
        self.replica = Replica(dataclasses.replace(payload, metrics=metrics), device)
        self.replica.model.eval()

    def _feeder(self, name: str) -> Any:
        def feed(output: Any, target: Any) -> float:
            self.fed[name].update(output, target)
            return 0.0

        return feed

    def start(self) -> None:
        """Fresh copies of the metric objects."""
        self.fed = {}
        for name, metric in self.payload.metrics.items():
            if is_object(metric):
                own: Any = copy.deepcopy(metric)
                own.reset()
                self.fed[name] = own.to(self.replica.device) if hasattr(own, "to") else own


def _measure(meter: _Meter, parts: Iterator[Arrays], batch_size: int, partition: int) -> Measured:
    payload, replica = meter.payload, meter.replica
    meter.start()
    functions = [name for name, metric in payload.metrics.items() if not is_object(metric)]
    num_rows, denominators, loss_sum = 0, 0.0, 0.0
    sums = dict.fromkeys(functions, 0.0)
    seed = step_seed(payload.seed, -1, partition)  # no step has this key; a model may draw even in eval mode
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    for rows in _rebatched(parts, batch_size):
        _check_rows(payload, rows)
        batch = Batch(payload, rows, replica.device)
        with torch.no_grad(), torch.autocast(replica.device.type, torch.bfloat16, enabled=payload.precision == "bf16"):
            loss, denominator, values = replica.measure(batch)
        num_rows += len(batch)
        denominators += denominator
        loss_sum += float(loss) * denominator
        for name, value in zip(payload.metrics, values, strict=True):
            if name in sums:
                sums[name] += value * len(batch)
    objects = {name: metric.to("cpu") if hasattr(metric, "to") else metric for name, metric in meter.fed.items()}
    return Measured(num_rows, denominators, loss_sum, sums, objects)


def _check_rows(payload: Payload, rows: Arrays) -> None:
    names = payload.columns.label_names
    if payload.step_fn is None and len(names) == 1 and isinstance(labels := rows[names[0]], np.ndarray):
        check_labels(names[0], payload.loss, None, ValueRange.of(labels))


def _rebatched(parts: Iterator[Arrays], batch_size: int) -> Iterator[dict[str, Stored]]:
    """The same rows in batches of ``batch_size``, the last one smaller; always copies, which the model may change."""
    waiting: list[Arrays] = []
    num_waiting = 0

    def joined(pieces: Sequence[Arrays]) -> dict[str, Stored]:
        named: dict[str, Any] = {name: [piece[name] for piece in pieces] for name in pieces[0]}
        return {name: np.concatenate(values) for name, values in named.items()}

    for part in parts:
        num_rows = len(next(iter(part.values())))
        start = 0
        while start < num_rows:
            stop = min(num_rows, start + batch_size - num_waiting)
            waiting.append({name: values[start:stop] for name, values in part.items()})
            num_waiting += stop - start
            start = stop
            if num_waiting == batch_size:
                yield joined(waiting)
                waiting, num_waiting = [], 0
    if waiting:
        yield joined(waiting)


def finish(payload: Payload, parts: Sequence[Measured]) -> dict[str, float]:
    """The values, from what every partition added up to, merged in the given order.

    Raises ConfigError: no rows, or a metric object that cannot be merged or computes no single number.
    """
    parts = [part for part in parts if part.num_rows]
    num_rows = sum(part.num_rows for part in parts)
    if not num_rows:
        raise ConfigError("the data to evaluate have no rows: there is nothing to average over.")
    denominator = sum(part.denominator for part in parts)
    loss_sum = sum(part.loss_sum for part in parts)
    values = {"loss": loss_sum / denominator if denominator else math.nan}  # all labels ignored, or all weights 0
    for name in payload.metrics:
        if name in parts[0].objects:
            values[name] = _computed(name, [part.objects[name] for part in parts])
        else:
            values[name] = sum(part.metric_sums[name] for part in parts) / num_rows
    return values


def _computed(name: str, metrics: Sequence[Any]) -> float:
    first, *others = metrics  # into the first one that saw rows: torchmetrics warns about one that never did
    try:
        for other in others:
            first.merge_state(other)
        value = first.compute()
    except Exception as error:
        raise ConfigError(
            f"metric {name!r} ({type(first).__name__}) cannot be merged or computed: {type(error).__name__}: {error}. "
            "Its state must be one that merges (torchmetrics: full_state_update=False)."
        ) from error
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
        raise ConfigError(
            f"metric {name!r} ({type(first).__name__}) computes {shape}; it must be one number, for example with "
            "average='macro'."
        ) from error


def _job(frame: DataFrame, payload: Payload, batch_size: int) -> list[Measured]:
    sc = frame.sparkSession.sparkContext
    shared = sc.broadcast(payload_module.pickle(payload))
    before = sc.getLocalProperty("spark.job.description")
    sc.setJobDescription("evaluate")
    try:
        task = _Task(shared, uuid.uuid4().hex, batch_size, dict(payload.columns.transforms))
        found = frame.select(*payload.columns.names).mapInArrow(task, "partition int, kind string, value binary")
        with as_config_error():
            tokens = sorted(found.collect(), key=lambda token: token["partition"])
    finally:
        sc.setLocalProperty("spark.job.description", before)  # type: ignore[arg-type]  # None removes it
        shared.destroy()
    for token in tokens:
        if token["kind"] != "measured":
            kind = ConfigError if token["kind"] == "data" else TrainingError
            raise kind(bytes(token["value"]).decode())
    return [cloudpickle.loads(token["value"]) for token in tokens]  # written by this job's own tasks


_kept: dict[str, _Meter] = {}  # the last evaluation's, for the next partition in the same Python worker


class _Task:
    """One partition. What fails becomes a sentence: Spark would try the same rows three times more."""

    def __init__(self, payload: Broadcast[bytes], key: str, batch_size: int, transforms: Mapping[str, Transform]):
        self.payload, self.key, self.batch_size, self.transforms = payload, key, batch_size, transforms

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context is not None
        batches = (batch for batch in batches if batch.num_rows)
        first = next(batches, None)
        if first is None:  # no model is built for an empty partition
            return
        rows = _stored(self.transforms, itertools.chain([first], batches))
        try:
            measured = _measure(self._meter(context), rows, self.batch_size, context.partitionId())
            kind, value = "measured", cloudpickle.dumps(measured)
        except ConfigError as error:
            kind, value = "data", str(error).encode()
        except Exception:
            kind, value = "user", f"evaluate failed in a task: {traceback.format_exc()}".encode()
        for _ in batches:  # after an error: Spark wants its input read to the end
            pass
        yield pa.record_batch(
            {
                "partition": pa.array([context.partitionId()], pa.int32()),
                "kind": [kind],
                "value": pa.array([value], pa.binary()),
            }
        )

    def _meter(self, context: TaskContext) -> _Meter:
        if self.key not in _kept:
            _kept.clear()
            # the threads of an operation can show in the last bit of a sum, so they follow the setting
            torch.set_num_threads(max(1, context.cpus()))
            payload: Payload = cloudpickle.loads(self.payload.value)
            _kept[self.key] = _Meter(payload, replica_cache.task_device(payload.device))
        return _kept[self.key]


def _stored(transforms: Mapping[str, Transform], batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Stored]]:
    try:
        yield from ColumnReader(transforms).parts(batches)
    except TypeError as error:
        raise ConfigError(str(error)) from error
