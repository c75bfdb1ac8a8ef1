"""Trainer: a model, a loss and an optimizer, and the verbs fit, evaluate and predict."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pyspark.sql import DataFrame
from torch.optim import Optimizer

from sparkdl import checkpoint_job, evaluate_job, held_out, optim, predict_job, slices, spark_conf, training_data
from sparkdl import payload as payload_module
from sparkdl.callbacks import Callback, EarlyStopping, ModelCheckpoint
from sparkdl.checkpoint_job import Checkpoint
from sparkdl.columns import Columns
from sparkdl.dry_run import kept_generators
from sparkdl.errors import ConfigError
from sparkdl.fit_run import FitRun, FitSettings
from sparkdl.history import History
from sparkdl.payload import Metric, Payload
from sparkdl.run_plan import task_slots
from sparkdl.spark_internals import own_local_properties
from sparkdl.stored_arrays import Stored, Transform
from sparkdl.training_data import Data, Rows
from sparkdl.training_loop import Schedule
from sparkdl.triggers import EveryEpoch, MaxEpoch, Trigger
from sparkdl.versioned_state import state_plan

logger = logging.getLogger("sparkdl")

MOST_STEPS_PER_JOB = 256


class Trainer:
    """Trains a PyTorch model synchronously and data-parallel, by short Spark jobs.

    model: an nn.Module with fp32 parameters, or a function that builds one (called once, seeded with ``seed``).
    loss: nn.Module or f(output, target) -> scalar mean over the rows.
    optimizer: f(params) -> torch.optim.Optimizer, for example ``partial(torch.optim.Adam, lr=1e-3)``; it may make
        parameter groups. A function whose first argument is called ``named_parameters`` gets (name, tensor) pairs.
        ``{"dense": f, "sparse": g}``: one for weights of Embeddings with ``sparse=True``, another for all else.
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
        optimizer: optim.OptimizerArgument | None = None,
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

    @property
    def seen(self) -> dict[str, Stored]:
        """Some rows of the last ``fit``, as stored columns; none before it."""
        return self._seen or {}

    def fit(
        self,
        train: Data,
        epochs: int | Trigger = 1,
        validation: Data | float | None = None,
        validate_every: Trigger | None = None,
        resume: str | None = None,
        callbacks: Sequence[Callback] = (),
        verbose: int = 1,
    ) -> History:
        """Trains ``trainer.model`` in place; returns the history.

        train: a DataFrame, one or more Parquet paths, an RDD of dicts (column name -> value), or a dict of arrays
            (column name -> [rows, …]).
        epochs: how many, or a trigger that says when to end, such as ``MaxIteration(500) | MinLoss(0.01)``.
        validation: rows of the same kinds; or a fraction of the training rows to hold out; or the name of a boolean
            column of them that is true for the rows to hold out. The values are named ``val_…`` in the history.
        validate_every: when to validate: a trigger; None: after each epoch.
        resume: "auto" to go on from the latest complete checkpoint of the ModelCheckpoint among ``callbacks``, if there
            is one; or the path of a checkpoint. The bits are those of a training that never stopped.
        callbacks: see :mod:`sparkdl.callbacks`.
        verbose: 0 for silence, 1 for progress, 2 for a line a step.

        Raises ConfigError: bad data or arguments, before any step runs. TrainingError: the model, loss or a metric
        failed in a task. ClusterError: the cluster cannot run this, or lost executors again and again.
        """
        if not isinstance(epochs, Trigger):
            _positive("epochs", epochs)
            epochs = MaxEpoch(epochs)
        if validate_every is not None and not isinstance(validate_every, Trigger):
            raise ConfigError(f"validate_every is {validate_every!r}; pass a trigger such as SeveralIteration(200)")
        check_callbacks(callbacks, validation is not None)
        spark = spark_conf.session()
        spark_conf.refuse_connect(spark)
        own_local_properties(spark.sparkContext)
        data, held = self._split(train, validation)
        checkpoint = self._checkpoint(resume, callbacks)
        if checkpoint is not None:  # for what is not trained, which the state does not hold
            checkpoint_job.load_model(spark.sparkContext, checkpoint.path, self._model)
        payload, stand_in = self._payload()
        schedule = Schedule(stand_in, self._scheduler, payload.template.hyper)
        self._seen = training_data.sample(data, self.columns)
        replicas = self._replicas if checkpoint is None else checkpoint.state.replicas
        with contextlib.ExitStack() as stack:
            if held is not None:
                parts = replicas or task_slots(spark)
                held = stack.enter_context(held_out.kept(held, self.columns, parts))
            settings = FitSettings(
                until=epochs,
                form=self._form,
                steps_per_job=self._steps_per_job,
                replicas=replicas,
                validate=None if held is None else lambda: self._evaluate(held),
                validate_every=validate_every or EveryEpoch(),
                callbacks=callbacks,
                resume=checkpoint,
                verbose=verbose,
            )
            return FitRun(spark, data, self._seen, self._model, payload, schedule, settings).run()

    def evaluate(self, data: Data) -> dict[str, float]:
        """Loss and metrics of ``trainer.model`` over all rows of ``data``: sums and counts, divided once."""
        return self._evaluate(training_data.read(spark_conf.session(), data, self.columns))

    def predict(self, frame: DataFrame, output_col: str = "prediction", batch_size: int = 1024) -> DataFrame:
        """``frame`` with the model's output as another column: a float, or an array of floats, per row. Lazy."""
        spark_conf.refuse_connect(frame.sparkSession)
        training_data.require_columns(frame.columns, self.columns.feature_names)
        options: dict[str, Any] = {name: self._options[name] for name in ("precision", "device")}
        sample = self._seen if frame.isStreaming else None  # a stream has no first row to look at
        return predict_job.predict(frame, self._model, self.columns, output_col, batch_size, **options, sample=sample)

    def load_checkpoint(self, path: str) -> None:
        """Gives ``trainer.model`` the weights of a checkpoint, or, where ``path`` holds several, of the latest one.

        Raises ConfigError: there is none, it is damaged, or it is another model's.
        """
        sc = spark_conf.session().sparkContext
        checkpoint_job.load_model(sc, checkpoint_job.latest(sc, path) or path, self._model)

    # --- inside

    def _evaluate(self, data: Rows) -> dict[str, float]:
        payload, _ = self._payload(all_metrics=True)
        return evaluate_job.evaluate(data, self._model, payload, self._batch_size)

    def _split(self, train: Data, validation: Data | float | None) -> held_out.Split:
        """Training rows and validation rows."""
        spark = spark_conf.session()
        data = training_data.read(spark, train, self.columns)
        if validation is None:
            return held_out.Split(data, None)
        if isinstance(validation, int | float):
            return held_out.by_fraction(data, self.columns, float(validation), self._seed)
        if isinstance(validation, str):
            there = data.columns if isinstance(data, DataFrame) else list(train) if isinstance(train, Mapping) else []
            if validation in there:
                flags = np.asarray(train[validation]) if isinstance(train, Mapping) else None
                return held_out.by_column(data, flags, validation)
        return held_out.Split(data, training_data.read(spark, validation, self.columns))

    def _checkpoint(self, resume: str | None, callbacks: Sequence[Callback]) -> Checkpoint | None:
        """What to go on from."""
        if resume is None:
            return None
        sc = spark_conf.session().sparkContext
        if resume != "auto":
            return checkpoint_job.read(sc, checkpoint_job.latest(sc, resume) or resume)
        roots = [callback.path for callback in callbacks if isinstance(callback, ModelCheckpoint)]
        if not roots:
            raise ConfigError(
                "resume='auto' looks where a ModelCheckpoint writes; add one to callbacks, or pass a path"
            )
        found = checkpoint_job.latest(sc, roots[0])
        return None if found is None else checkpoint_job.read(sc, found)

    def _payload(self, all_metrics: bool = False) -> tuple[Payload, Optimizer]:
        template, stand_in = optim.template(self._optimizer, self._model)
        named = [
            (n, tuple(p.shape), template.group_of[n])
            for n, p in self._model.named_parameters()
            if n in template.group_of
        ]
        layout = slices.layout(named, template.elementwise, template.tables)
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


def check_callbacks(callbacks: Sequence[Callback], validates: bool) -> None:
    """Raises ConfigError: something that is no callback, or one that waits for values that nobody measures."""
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise ConfigError(
                f"callbacks holds {callback!r}; pass objects of classes that derive from sparkdl.Callback"
            )
        monitor = callback.monitor if isinstance(callback, EarlyStopping | ModelCheckpoint) else None
        if monitor is not None and monitor.name.startswith("val_") and not validates:
            raise ConfigError(
                f"{type(callback).__name__} monitors {monitor.name!r}, but fit has no validation; pass validation=, "
                "for example a fraction such as 0.1"
            )


def _build(model: torch.nn.Module | Callable[[], torch.nn.Module], seed: int) -> torch.nn.Module:
    if isinstance(model, torch.nn.Module):
        found: Any = model
    elif callable(model):
        with kept_generators():
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
