"""Trainer: a model, a loss and an optimizer, and the verbs fit, evaluate and predict."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyspark import RDD
from pyspark.sql import DataFrame, SparkSession
from torch.optim import Optimizer

from sparkdl import (
    dry_run,
    evaluate_job,
    label_checks,
    optim,
    predict_job,
    preflight_job,
    replica_data_job,
    slices,
    spark_conf,
    training_data,
)
from sparkdl import payload as payload_module
from sparkdl.columns import Columns
from sparkdl.errors import ConfigError
from sparkdl.gather_job import GatherForm
from sparkdl.history import History, StepRecord
from sparkdl.payload import Metric, Payload
from sparkdl.progress import Progress
from sparkdl.slices_form import SlicesForm
from sparkdl.spark_engine import Form, SparkEngine
from sparkdl.spark_internals import concurrent_tasks
from sparkdl.step_settings import Plan
from sparkdl.stored_arrays import Stored, Transform, kinds_of
from sparkdl.training_data import Data
from sparkdl.training_loop import Schedule, load_state
from sparkdl.training_loop import train as run_epochs
from sparkdl.versioned_state import state_plan

logger = logging.getLogger("sparkdl")

SAME_HOST = "spark.sparkdl.sameHost"
GATHER_BYTES = 18 << 20  # what one task slot may receive in a step beyond the slices form's traffic: 15 ms at 10 Gb/s
SAMPLE_ROWS = 8
MOST_STEPS_PER_JOB = 256


class Trainer:
    """Trains a PyTorch model synchronously and data-parallel, by short Spark jobs.

    model: an nn.Module with fp32 parameters, or a function that builds one (called once, seeded with ``seed``).
    loss: nn.Module or f(output, target) -> scalar mean over the rows.
    optimizer: f(params) -> torch.optim.Optimizer, for example ``partial(torch.optim.Adam, lr=1e-3)``; it may make
        parameter groups. A function whose first argument is called ``named_parameters`` gets (name, tensor) pairs.
    scheduler: f(optimizer) -> torch.optim.lr_scheduler.LRScheduler, stepped once a step.
    metrics: name -> f(output, target) -> scalar mean over rows; a torchmetrics Metric is used by ``evaluate`` only.
    step_fn: f(model, batch) -> loss, or a mapping with "loss" and the names in ``metrics``; replaces ``loss``. See
        :class:`sparkdl.replica.Batch`.
    feature_cols: "x" is one input; a list is positional inputs; a nested list stacks columns into one input; a dict is
        keyword inputs.
    label_col, weight_col: columns; the loss of a row is multiplied by its weight and the sum divided by all weights.
    transform: column -> f(value of one row: bytes, a string, a number, an array) -> number or array, called where
        rows are written, evaluated or predicted; or "sparse", for vectors that the model takes as a sparse tensor.
    batch_size: rows of one step over all replicas; any positive integer.
    replicas: logical replicas, which fix the result; None: the task slots there are when ``fit`` starts.
    device: "auto" (the GPU that Spark gives the task, else the CPU), "cpu" or "cuda".
    precision: "fp32", or "bf16" for autocast. wire: "fp32" or "bf16", how gradients travel; sums stay fp32.
    clip_norm, clip_value: as torch.nn.utils.clip_grad_norm_ and clip_grad_value_, on the summed gradient.
    accumulate: parts into which a replica cuts its rows of a step, one after the other, to need less memory.
    form: "jobs" (a forward-backward job and a parameter-sync job a step), "fused" (one job, two stages), "gather" (one
        stage) or "auto" (gather unless the model's bytes times replicas make that traffic too much). Same bits.
    steps_per_job: steps chained in one Spark job; same bits.
    seed: of the order of rows, dropout and the model function.

    Raises ConfigError (a ValueError): an argument that cannot be used, before anything runs.
    """

    def __init__(
        self,
        model: torch.nn.Module | Callable[[], torch.nn.Module],
        loss: Callable[..., torch.Tensor] | None = None,
        optimizer: optim.MakeOptimizer | Optimizer | None = None,
        scheduler: Callable[[Optimizer], Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        step_fn: Callable[..., Any] | None = None,
        feature_cols: str | Sequence[Any] | Mapping[str, Any] = "features",
        label_col: str | Sequence[str] | None = "label",
        weight_col: str | None = None,
        transform: Mapping[str, Transform] | None = None,
        batch_size: int = 512,
        replicas: int | None = None,
        device: str = "auto",
        precision: str = "fp32",
        wire: str = "fp32",
        clip_norm: float | None = None,
        clip_value: float | None = None,
        accumulate: int = 1,
        form: str = "auto",
        steps_per_job: int = 1,
        seed: int = 0,
    ):
        self.columns = Columns.parse(feature_cols, label_col, weight_col, transform)
        _positive("batch_size", batch_size)
        _positive("accumulate", accumulate)
        _positive("steps_per_job", steps_per_job)
        if steps_per_job > MOST_STEPS_PER_JOB:
            raise ConfigError(f"steps_per_job is {steps_per_job}; pass at most {MOST_STEPS_PER_JOB}")
        if replicas is not None:
            _positive("replicas", replicas)
        for name, value in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if value is not None and not (isinstance(value, int | float) and value > 0):
                raise ConfigError(f"{name} is {value!r}; pass a positive number, or None not to clip")
        _one_of("precision", precision, ("fp32", "bf16"))
        _one_of("wire", wire, ("fp32", "bf16"))
        _one_of("form", form, ("auto", "jobs", "fused", "gather"))
        if device != "auto":
            try:
                torch.device(device)
            except (RuntimeError, TypeError):
                raise ConfigError(f"device is {device!r}; pass 'auto', 'cpu' or 'cuda'") from None
        if loss is None and step_fn is None:
            raise ConfigError("neither loss nor step_fn is given; pass for example loss=torch.nn.CrossEntropyLoss()")
        for name, function in (
            ("loss", loss),
            ("step_fn", step_fn),
            ("scheduler", scheduler),
            *(metrics or {}).items(),
        ):
            if function is not None and not callable(function):
                raise ConfigError(f"{name} is {function!r}, which cannot be called; pass a function")
        if steps_per_job > 1 and clip_norm is not None and form in ("jobs", "fused"):
            raise ConfigError(
                f"steps_per_job={steps_per_job} with clip_norm and form={form!r}: the norm of all slices must be known "
                "before any is updated, which ends the job; use form='gather' or steps_per_job=1"
            )
        if steps_per_job > 1 and form == "jobs":
            raise ConfigError(
                f"steps_per_job={steps_per_job} puts steps into one job, form='jobs' splits them; use 'fused'"
            )
        self._loss, self._optimizer, self._scheduler = loss or _no_loss, optimizer or torch.optim.SGD, scheduler
        self._metrics = dict(metrics or {})
        self._step_fn, self._seed = step_fn, seed
        self._batch_size, self._replicas, self._form = batch_size, replicas, form
        self._steps_per_job = steps_per_job
        self._options = {
            "device": device,
            "precision": precision,
            "wire": wire,
            "clip_norm": clip_norm,
            "clip_value": clip_value,
            "accumulate": accumulate,
        }
        self._model = _build(model, seed)
        self._seen: dict[str, Stored] | None = None  # some rows of the last fit

    @property
    def model(self) -> torch.nn.Module:
        """The model with its latest weights: an ordinary nn.Module on the CPU."""
        return self._model

    def fit(
        self,
        train: Data,
        epochs: int = 1,
        validation: Data | None = None,
        verbose: int = 1,
    ) -> History:
        """Trains for ``epochs`` epochs, starting from ``trainer.model``; returns the history.

        train: a DataFrame, one or more Parquet paths, an RDD of dicts (column name -> value), or a dict of arrays
            (column name -> [rows, …]).
        validation: the same kinds; evaluated at the end of each epoch, its values named ``val_…`` in the history.
        verbose: 0 for silence.

        Raises ConfigError: bad data or arguments, before any step runs. TrainingError: the model, loss or a metric
        failed in a task. ClusterError: the cluster cannot run this, or lost executors again and again.
        """
        _positive("epochs", epochs)
        spark = spark_conf.session()
        spark_conf.refuse_connect(spark)
        data = self._data(spark, train)
        held_out = None if validation is None else self._data(spark, validation)
        payload, stand_in = self._payload()
        schedule = Schedule(stand_in, self._scheduler, payload.template.hyper)
        pickled = payload_module.pickle(payload)
        self._seen = self._sample(data)
        used = dry_run.check(payload, self._seen)
        spark_conf.warn_once(spark, logger)
        sc = spark.sparkContext
        replicas = self._replicas or max(1, min(task_slots(spark), self._batch_size))
        preflight_job.preflight(sc, max(replicas, task_slots(spark)))

        run = uuid.uuid4().hex[:12]
        shared = sc.broadcast(pickled)
        arrays = None if isinstance(data, DataFrame) else sc.broadcast(data)
        kinds = kinds_of(self._seen)

        def tokens() -> RDD[Any]:
            if isinstance(data, DataFrame):
                return replica_data_job.frame_tokens(data, self.columns, replicas, run, shared, kinds)
            assert arrays is not None
            return replica_data_job.array_tokens(sc, arrays, self.columns, replicas, run, shared)

        history = History()
        engine = SparkEngine(sc, run, payload, tokens)
        progress: Progress | None = None
        try:
            rows = engine.place()
            label_checks.check_rows(self.columns.label_names, payload.loss, used, [r.ranges for r in rows])
            plan, form, steps_per_job = self._plan(spark, engine, payload, run, tuple(r.num_rows for r in rows))
            progress = Progress(
                epochs * plan.steps_per_epoch,
                epochs,
                verbose,
                rows_per_epoch=plan.num_rows,
                batch_size=self._batch_size,
            )
            engine.begin(plan, form, progress.note)

            def on_epoch(epoch: int) -> Mapping[str, float]:
                if held_out is None:
                    return {}
                lots, _ = engine.state()
                load_state(payload, lots, self._model)
                return self._evaluate(held_out)

            shown: Callable[[StepRecord], None] = progress.update
            run_epochs(engine, plan, schedule, epochs, steps_per_job, list(payload.metrics), history, shown, on_epoch)
            lots, fingerprints = engine.state()
            load_state(payload, lots, self._model)
            history.fingerprint = hashlib.sha256(b"".join(fingerprints)).hexdigest()
        except BaseException:
            engine.cancel()
            raise
        finally:
            history.events.extend(engine.events)
            engine.close()
            shared.destroy()
            if arrays is not None:
                arrays.destroy()
            if progress is not None:
                progress.close()
        return history

    def evaluate(self, data: Data) -> dict[str, float]:
        """Loss and metrics of ``trainer.model`` over all rows of ``data``: sums and counts, divided once."""
        return self._evaluate(self._data(spark_conf.session(), data))

    def predict(self, frame: DataFrame, output_col: str = "prediction", batch_size: int = 1024) -> DataFrame:
        """``frame`` with the model's output as another column: a float, or an array of floats, per row. Lazy."""
        spark_conf.refuse_connect(frame.sparkSession)
        training_data.require_columns(frame.columns, self.columns.feature_names)
        options: dict[str, Any] = {name: self._options[name] for name in ("precision", "device")}
        sample = self._seen if frame.isStreaming else None  # a stream has no first row to look at
        return predict_job.predict(frame, self._model, self.columns, output_col, batch_size, **options, sample=sample)

    # --- inside

    def _evaluate(self, data: DataFrame | dict[str, Stored]) -> dict[str, float]:
        payload, _ = self._payload(all_metrics=True)
        return evaluate_job.evaluate(data, self._model, payload, self._batch_size)

    def _data(self, spark: SparkSession, data: Data) -> DataFrame | dict[str, Stored]:
        return training_data.read(spark, data, self.columns)

    def _sample(self, data: DataFrame | dict[str, Stored]) -> dict[str, Stored]:
        if not isinstance(data, DataFrame):
            return {name: array[:SAMPLE_ROWS] for name, array in data.items()}
        try:
            return replica_data_job.sample(data, self.columns, SAMPLE_ROWS)
        except TypeError as error:
            raise ConfigError(str(error)) from error

    def _payload(self, all_metrics: bool = False) -> tuple[Payload, Optimizer]:
        template, stand_in = optim.template(self._optimizer, self._model)
        named = [
            (n, tuple(p.shape), template.group_of[n])
            for n, p in self._model.named_parameters()
            if n in template.group_of
        ]
        layout = slices.layout(named, template.elementwise)
        metrics: dict[str, Metric] = {
            n: m for n, m in self._metrics.items() if all_metrics or not hasattr(m, "compute")
        }
        return (
            Payload(
                model=self._model,
                loss=self._loss,
                template=template,
                plan=state_plan(template, layout, *payload_module.buffer_sizes(self._model)),
                columns=self.columns,
                seed=self._seed,
                batch_size=self._batch_size,
                metrics=metrics,
                step_fn=self._step_fn,
                **self._options,  # type: ignore[arg-type]
            ),
            stand_in,
        )

    def _plan(
        self, spark: SparkSession, engine: SparkEngine, payload: Payload, run: str, rows: tuple[int, ...]
    ) -> tuple[Plan, Form, int]:
        layout = payload.plan.layout
        form = self._form
        if engine.jvm.gather_only:
            form = "gather"
        elif form == "auto":
            wire_bytes = layout.size * (2 if payload.wire == "bf16" else 4)
            form = choose_form(wire_bytes, len(rows), task_slots(spark))
        count = 1 if form == "gather" else slices.num_slices(layout.size, len(layout.lots), len(rows))
        same_host = form == "gather" and spark.conf.get(SAME_HOST, "false") == "true"
        plan = Plan(run, self._seed, self._batch_size, rows, tuple(slices.cut(layout, count)), same_host)
        if form == "gather":
            steps_per_job = 1 if engine.jvm.gather_only else self._steps_per_job
            return plan, GatherForm(engine.jvm, plan, engine.submit, steps_per_job), steps_per_job
        steps_per_job = 1 if payload.clip_norm is not None else self._steps_per_job  # the norm ends the job
        form_of_slices = SlicesForm(engine.jvm, plan, payload, form == "fused", engine.submit, steps_per_job)
        return plan, form_of_slices, steps_per_job


def choose_form(wire_bytes: int, replicas: int, slots: int) -> str:
    """The rule of ``form="auto"``.

    A replica receives (R - 1) B bytes a step in the gather form and about 2 B (R - 1) / R in the others; they are
    equal at two replicas. Gather saves a stage, about 15 ms: worth it while what a slot receives beyond the others'
    traffic, B (R - 1) (R - 2) / R for each of its replicas, stays below 18 MB.
    """
    surplus = wire_bytes * (replicas - 1) * (replicas - 2) / replicas
    return "gather" if surplus * max(1.0, replicas / slots) <= GATHER_BYTES else "fused"


def task_slots(spark: SparkSession) -> int:
    """Tasks that can run at the same time on the executors there are now."""
    sc = spark.sparkContext
    return max(1, concurrent_tasks(sc) or sc.defaultParallelism)


def _build(model: torch.nn.Module | Callable[[], torch.nn.Module], seed: int) -> torch.nn.Module:
    if isinstance(model, torch.nn.Module):
        found: Any = model
    elif callable(model):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found = model()
    else:
        raise ConfigError(f"model is {model!r}; pass an nn.Module or a function that builds one")
    if not isinstance(found, torch.nn.Module):
        raise ConfigError(f"model={model!r} built a {type(found).__name__}, not an nn.Module")
    return found.to("cpu")


def _no_loss(output: Any, target: Any) -> torch.Tensor:
    raise ConfigError("no loss was given, only step_fn")


def _positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is {value!r}; pass a positive integer")


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; pass one of {', '.join(map(repr, choices))}")
