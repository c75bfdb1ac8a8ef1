"""One call of ``Trainer.fit``: rows to their replicas, steps and their pauses, and everything gone again at the end."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pyspark import RDD
from pyspark.sql import DataFrame, SparkSession

from sparkdl import checkpoint_job, dry_run, label_checks, preflight_job, replica_data_job, spark_conf
from sparkdl.callbacks import Callback, FitState
from sparkdl.checkpoint_files import Checkpoint, describe
from sparkdl.course import Course
from sparkdl.heartbeat import Heartbeat
from sparkdl.heartbeat_job import jobs_of_group
from sparkdl.history import History
from sparkdl.label_checks import Numbers
from sparkdl.payload import Payload
from sparkdl.progress import Progress
from sparkdl.run_plan import RunPlan, remark, run_plan, task_slots
from sparkdl.shipped_payload import ShippedPayload
from sparkdl.spark_engine import SparkEngine
from sparkdl.stored_arrays import Stored, kinds_of
from sparkdl.training_data import Rows
from sparkdl.training_loop import Schedule, train
from sparkdl.triggers import MaxEpoch, Trigger

logger = logging.getLogger("sparkdl")


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """What ``fit`` and ``Trainer`` were called with, as far as the run itself asks.

    replicas: None for as many as there are task slots. validate: measures the model; None where there are no validation
    rows. resume: where to go on from.
    """

    until: Trigger
    form: str = "auto"
    steps_per_job: int = 1
    replicas: int | None = None
    validate: Callable[[], Mapping[str, float]] | None = None
    validate_every: Trigger
    callbacks: Sequence[Callback] = ()
    resume: Checkpoint | None = None
    verbose: int = 1


class FitRun:
    """Trains ``model`` in place. sample: some of the rows of ``data``."""

    def __init__(
        self,
        spark: SparkSession,
        data: Rows,
        sample: dict[str, Stored],
        model: torch.nn.Module,
        payload: Payload,
        schedule: Schedule,
        settings: FitSettings,
    ):
        self._spark, self._sc = spark, spark.sparkContext
        self._data, self._sample = data, sample
        self._model, self._payload, self._schedule = model, payload, schedule
        self._settings = settings
        self._history = History() if settings.resume is None else History.from_arrays(settings.resume.history)
        self._at = -1  # the step whose weights the model has

    def run(self) -> History:
        """Everything; raises as :meth:`sparkdl.Trainer.fit` does."""
        shared = ShippedPayload(self._sc, self._payload)  # before all else: it names what cannot be pickled
        try:
            return self._run(shared)
        finally:
            shared.destroy()

    def _run(self, shared: Any) -> History:
        """shared: the payload, as a broadcast is."""
        payload, settings, sc = self._payload, self._settings, self._sc
        used = dry_run.check(payload, self._sample)
        spark_conf.warn_once(self._spark, logger)
        slots = task_slots(self._spark)
        replicas = settings.replicas or max(1, min(slots, payload.batch_size))
        preflight_job.preflight(sc, max(replicas, slots))

        run = uuid.uuid4().hex[:12]
        arrays = None if isinstance(self._data, DataFrame) else sc.broadcast(self._data)
        kinds = kinds_of(self._sample)
        dealt: list[RDD[Any]] = []  # each has a shuffle, whose files Spark would keep until a collection finds them

        def tokens() -> RDD[Any]:
            if isinstance(self._data, DataFrame):
                dealt.append(replica_data_job.frame_tokens(self._data, payload.columns, replicas, run, shared, kinds))
                return dealt[-1]
            assert arrays is not None
            return replica_data_job.array_tokens(sc, arrays, payload.columns, replicas, run, shared)

        self._engine = SparkEngine(sc, run, payload, tokens)
        self._heartbeat = Heartbeat(partial(jobs_of_group, sc, f"sparkdl-{run}"), settings.verbose)
        try:
            with self._heartbeat:
                self._place_and_train(used)
        except BaseException:
            self._engine.cancel()
            raise
        finally:
            self._history.events.extend(self._engine.events)
            self._engine.close()
            replica_data_job.forget(dealt)
            if arrays is not None:
                arrays.destroy()
        return self._history

    def _place_and_train(self, used: Mapping[str, Numbers]) -> None:
        """used: which columns the model looked numbers up in, and how many there may be."""
        payload, settings = self._payload, self._settings
        rows = self._engine.place()
        label_checks.check_rows(payload.columns.label_names, payload.loss, used, [r.ranges for r in rows])
        counts = tuple(r.num_rows for r in rows)
        self._steps(run_plan(self._spark, self._engine, payload, counts, settings.form, settings.steps_per_job))

    def _steps(self, laid_out: RunPlan) -> None:
        """From the first step of this run to the last."""
        settings, history, engine = self._settings, self._history, self._engine
        self._plan = plan = laid_out.plan
        until = settings.until
        epochs = until.epochs if isinstance(until, MaxEpoch) else None
        progress = Progress(
            None if epochs is None else epochs * plan.steps_per_epoch,
            epochs,
            settings.verbose,
            rows_per_epoch=plan.num_rows,
            batch_size=plan.batch_size,
        )
        self._heartbeat.progress = progress
        if text := remark(plan, task_slots(self._spark)):
            progress.note(text)
        history.settings = {
            "replicas": plan.num_replicas,
            "batch_size": plan.batch_size,
            "rows": plan.num_rows,
            "form": type(laid_out.form).__name__,
            "steps_per_job": laid_out.steps_per_job,
            "seed": plan.seed,
            "until": repr(until),
            "parameters": self._payload.plan.layout.size,
            "Spark": self._sc.version,
            "master": str(self._sc.master),
        }
        try:
            state = FitState(history, plan.steps_per_epoch, self._model_now, self._save, self._remove, progress.note)
            self._state = state
            start = 0
            if settings.resume is not None:
                start, state.stopped = settings.resume.state.step, settings.resume.state.stopped
                restore_callbacks(settings.callbacks, settings.resume)
            engine.begin(plan, laid_out.form, progress.note, settings.resume)
            validate = None if settings.validate is None else self._validate
            course = Course(state, until, validate, settings.validate_every, settings.callbacks, progress.update)
            try:
                if not course.begin(start):
                    names = list(self._payload.metrics)
                    train(engine, plan, self._schedule, course, laid_out.steps_per_job, names, history, start)
                self._model_now()
                history.fingerprint = hashlib.sha256(b"".join(engine.fingerprints())).hexdigest()
                course.end()
            except BaseException as error:
                course.fail(error)
                raise
        finally:
            progress.close()

    def _validate(self) -> Mapping[str, float]:
        assert self._settings.validate is not None
        self._model_now()
        return self._settings.validate()

    def _model_now(self) -> torch.nn.Module:
        """The model with the weights of the last pause."""
        step = self._state.moment.step
        if self._at != step and self._engine.version == step:  # else steps have run since
            self._engine.load_model(self._model)
            self._at = step
        return self._model

    def _save(self, root: str) -> str:
        state, callbacks = self._state, self._settings.callbacks
        kept = [{"type": type(c).__name__, "state": c.state_dict()} for c in callbacks]
        described = describe(self._payload, self._plan, state.moment.step, callbacks=kept, stopped=state.stopped)
        tensors = [callback.tensors() for callback in callbacks]
        path = checkpoint_job.save(
            self._sc, root, self._engine, self._model_now(), described, self._history.to_arrays(), tensors
        )
        for callback in callbacks:
            callback.on_checkpoint(state, path)
        return path

    def _remove(self, path: str) -> None:
        checkpoint_job.remove(self._sc, path)


def restore_callbacks(callbacks: Sequence[Callback], checkpoint: Checkpoint) -> None:
    """Gives callbacks back what the checkpoint remembers of them: the first of a type to the first of that type, ….

    One that the checkpoint does not know starts afresh.
    """
    waiting = list(zip(checkpoint.state.callbacks, checkpoint.tensors, strict=True))
    for callback in callbacks:
        for number, (saved, tensors) in enumerate(waiting):
            if saved["type"] == type(callback).__name__:
                callback.load_state_dict(saved["state"])
                callback.load_tensors(tensors)
                del waiting[number]
                break
