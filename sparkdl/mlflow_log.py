"""A training as a run in MLflow: parameters, every step's and validation's values, and the model at the end.

MLflow is imported when a callback is made, and is no dependency: whoever uses it has it.
"""

from __future__ import annotations

import importlib
import inspect
import time
from collections.abc import Mapping
from typing import Any

from sparkdl.callbacks import Callback, FitState
from sparkdl.errors import ConfigError
from sparkdl.history import StepRecord

__all__ = ["MLflowLogger"]

BATCH = 1000  # values of a request: MLflow takes no more
WAITING = 100_000  # values that are kept while the server does not answer
LONGEST = 500  # characters of a parameter's value


class MLflowLogger(Callback):
    """Logs to the run that is active, or to one of its own, which ends with the training.

    experiment, run_name: of the run of its own; None: MLflow's own choice. log_model: ``state.model`` is logged by
    ``mlflow.pytorch`` at the end as "model", pickled. every: a step is logged if its number, counted from 1, is a
    multiple of it. params: what to log as parameters beside the training's settings.

    A resumed training goes on in the same run. Values are sent in batches, at the end of an epoch and after each
    validation at the latest. A server that does not answer is noted and asked again later; it never ends a training
    that has begun. Raises ConfigError: mlflow is not installed.
    """

    def __init__(
        self,
        experiment: str | None = None,
        run_name: str | None = None,
        log_model: bool = True,
        every: int = 1,
        params: Mapping[str, Any] | None = None,
    ):
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ConfigError(f"MLflowLogger's every is {every!r}; pass a positive number of steps")
        _mlflow()
        self.experiment, self.run_name, self.log_model, self.every = experiment, run_name, log_model, every
        self.params = dict(params or {})
        self.run_id: str | None = None
        self._resumed: str | None = None
        self._ours = False
        self._waiting: list[tuple[str, float, int, int]] = []  # name, value, milliseconds since 1970, step
        self._noted = False

    def on_fit_start(self, state: FitState) -> bool | None:
        """Finds or starts the run; a server that cannot be reached ends the training here, before it has begun."""
        mlflow = _mlflow()
        self._end("FAILED")  # of a training before this one that did not come to its end
        self._waiting, self._noted = [], False
        active = mlflow.active_run()
        if active is None:
            if self.experiment is not None:
                mlflow.set_experiment(self.experiment)
            if self._resumed is not None:
                active = mlflow.start_run(run_id=self._resumed)
            else:
                active = mlflow.start_run(run_name=self.run_name)
            self._ours = True
        self.run_id, self._resumed = active.info.run_id, None
        if state.moment.step == 0:
            settings = getattr(state.history, "settings", None) or {}
            values = {"steps_per_epoch": state.steps_per_epoch, **settings, **self.params}
            mlflow.log_params({name: str(value)[:LONGEST] for name, value in values.items()})
        return None

    def on_step_end(self, state: FitState, record: StepRecord) -> bool | None:
        """See :class:`Callback`."""
        if (record.step + 1) % self.every == 0:
            values = {"loss": record.loss, **record.metrics, "lr": record.lr}
            values["rows_per_second"] = record.rows_per_second
            self._add(values, record.step + 1)
        if len(self._waiting) >= BATCH:
            self._send(state)
        return None

    def on_validation_end(self, state: FitState) -> bool | None:
        """See :class:`Callback`."""
        found = {name: value for name, value in state.moment.values.items() if name.startswith("val_")}
        self._add(found, state.moment.step)
        self._send(state)
        return None

    def on_epoch_end(self, state: FitState) -> bool | None:
        """See :class:`Callback`."""
        self._send(state)
        return None

    def on_fit_end(self, state: FitState) -> None:
        """Sends the rest, logs the model, ends the run if it was started here."""
        self._send(state)
        if self.log_model:
            self._log_model(state)
        self._end("FINISHED")

    def on_exception(self, state: FitState, error: BaseException) -> None:
        """Sends the rest, ends the run as failed if it was started here."""
        self._send(state)
        self._end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")

    def state_dict(self) -> dict[str, Any]:
        """See :class:`Callback`."""
        return {"run_id": self.run_id}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """See :class:`Callback`."""
        self._resumed = values["run_id"]

    def _add(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1e3)
        self._waiting += [(name, float(value), now, step) for name, value in values.items()]
        del self._waiting[:-WAITING]

    def _send(self, state: FitState) -> None:
        mlflow = _mlflow()
        try:
            client = mlflow.MlflowClient()
            while self._waiting:
                batch = self._waiting[:BATCH]
                client.log_batch(self.run_id, metrics=[mlflow.entities.Metric(*value) for value in batch])
                del self._waiting[:BATCH]
        except Exception as error:  # the curves are not worth the training
            if not self._noted:
                self._noted = True
                state.note(f"MLflow did not take the values up to step {state.moment.step}, more tries follow: {error}")

    def _log_model(self, state: FitState) -> None:
        try:
            log = importlib.import_module("mlflow.pytorch").log_model
            known = inspect.signature(log).parameters
            options = {"name" if "name" in known else "artifact_path": "model"}  # the latter before MLflow 3
            if "serialization_format" in known:
                options["serialization_format"] = "pickle"  # the other one traces the model, with inputs as an example
            log(state.model, **options)
        except Exception as error:  # no place for artifacts, for example; the trainer has the model all the same
            state.note(f"MLflow did not take the model: {type(error).__name__}: {error}")

    def _end(self, status: str) -> None:
        if self._ours:
            self._ours = False
            mlflow = _mlflow()
            active = mlflow.active_run()
            if active is not None and active.info.run_id == self.run_id:
                mlflow.end_run(status)


def _mlflow() -> Any:
    try:
        import mlflow
    except ImportError as error:
        raise ConfigError(
            "MLflowLogger needs mlflow, which is not installed here; it is needed on the driver only: "
            "pip install mlflow (or mlflow-skinny)"
        ) from error
    return mlflow
