"""Callbacks: what users add to a training. The names are Lightning's.

A callback is called on the driver, between steps. A hook that returns True ends the training there.

Steps are reported a little late, since nothing waits for a report: `on_step_end` is for looking on. `on_epoch_end`,
`on_validation_end` and `on_pause` are called at their exact step, with the weights of that step at hand; what they
decide is the same in every run. A callback that remembers something keeps it in `state_dict` (plain values, which are
saved as JSON) and `tensors`, so that a resumed training goes on as if it had never stopped.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from sparkdl.checkpoint_files import checkpoint_name
from sparkdl.errors import ConfigError
from sparkdl.history import History, StepRecord
from sparkdl.triggers import EveryEpoch, Moment, Trigger

logger = logging.getLogger("sparkdl")

__all__ = ["Callback", "EarlyStopping", "FitState", "LearningRateMonitor", "ModelCheckpoint", "Monitor"]


class FitState:
    """A training in progress, as callbacks see it.

    moment: how far it is, and the values measured there. history: everything so far. steps_per_epoch: as it says.
    stopped: whether the training ends at this moment.
    """

    def __init__(
        self,
        history: History,
        steps_per_epoch: int,
        model: Callable[[], torch.nn.Module],
        save: Callable[[str], str],
        remove: Callable[[str], None],
        note: Callable[[str], None],
    ):
        self.history, self.steps_per_epoch = history, steps_per_epoch
        self.moment = Moment(0, 0, False)
        self.stopped = False
        self._model, self._save, self._remove, self._note = model, save, remove, note

    @property
    def model(self) -> torch.nn.Module:
        """The model with the weights of this moment, on the CPU. In `on_step_end` those of the last pause."""
        return self._model()

    def save_checkpoint(self, root: str) -> str:
        """Writes ``root/step-XXXXXXXX``, whole or not at all; returns its path. Not in `on_step_end`."""
        return self._save(root)

    def remove_checkpoint(self, path: str) -> None:
        """Removes a checkpoint, its mark of completeness first; one that is not there is no error."""
        self._remove(path)

    def note(self, text: str) -> None:
        """Shows a line, and keeps it among the history's events."""
        self.history.add_event(self.moment.step, text)
        self._note(text)


class Callback:
    """All hooks do nothing. Return True from one to end the training."""

    def on_fit_start(self, state: FitState) -> bool | None:
        """Before the first step, after a resume."""

    def on_step_end(self, state: FitState, record: StepRecord) -> bool | None:
        """A step's values have arrived, in order; a few steps may have run since."""

    def on_validation_end(self, state: FitState) -> bool | None:
        """The validation's values are in ``state.moment.values``, named "val_…"."""

    def on_epoch_end(self, state: FitState) -> bool | None:
        """The epoch's means are in ``state.moment.values``."""

    def pauses_at(self, moment: Moment) -> bool:
        """Whether `on_pause` is to be called at this moment. A function of the moment alone."""
        return False

    def on_pause(self, state: FitState) -> bool | None:
        """At a moment that was asked for, after the other hooks of this moment."""

    def on_checkpoint(self, state: FitState, path: str) -> bool | None:
        """A checkpoint has been written."""

    def on_fit_end(self, state: FitState) -> None:
        """After the last step; ``state.model`` has the final weights, and changes of them stay. Not after an error."""

    def on_exception(self, state: FitState, error: BaseException) -> None:
        """The training ends with an error, an interruption too; `on_fit_end` is not called then."""

    def state_dict(self) -> dict[str, Any]:
        """What to remember: plain values that JSON knows."""
        return {}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """What to remember beyond plain values."""
        return {}

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Takes back what `tensors` gave."""


class Monitor:
    """Compares a value with the best so far. mode: "min" or "max". min_delta: by how much better counts as better."""

    def __init__(self, name: str, mode: str, min_delta: float = 0.0):
        if mode not in ("min", "max"):
            raise ConfigError(f"mode is {mode!r}; pass 'min' if small values of {name!r} are good, else 'max'")
        if min_delta < 0:
            raise ConfigError(f"min_delta is {min_delta}; pass 0 or more")
        self.name, self.mode, self.min_delta = name, mode, min_delta
        self.best: float | None = None

    def value(self, moment: Moment) -> float | None:
        """The value measured at this moment, if it was. Raises ConfigError: others were, but never this one."""
        if self.name not in moment.values and not (moment.epoch_ended and not self.name.startswith("val_")):
            return None
        return self.measured(moment)

    def measured(self, moment: Moment) -> float:
        """The value, where it must have been measured. Raises ConfigError: it was not."""
        if self.name not in moment.values:
            raise ConfigError(
                f"monitor={self.name!r} was not measured; there are {', '.join(map(repr, sorted(moment.values)))}"
            )
        return float(moment.values[self.name])

    def improved(self, value: float) -> bool:
        """Whether the value is the best so far; it is remembered then. A NaN never is."""
        if math.isnan(value):
            return False
        sign = 1.0 if self.mode == "min" else -1.0
        if self.best is not None and not sign * value < sign * self.best - self.min_delta:
            return False
        self.best = value
        return True


class EarlyStopping(Callback):
    """Ends the training when a value has not improved for `patience` measurements.

    monitor: "val_loss", "val_accuracy", …, or "loss". patience: measurements without improvement that are borne.
    mode, min_delta: what counts as an improvement. restore_best: at the end the model gets the best weights (which a
    copy in the driver's memory and each checkpoint keep).
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 3,
        mode: str = "min",
        min_delta: float = 0.0,
        restore_best: bool = False,
    ):
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 0:
            raise ConfigError(f"patience is {patience!r}; pass how many measurements without improvement are borne")
        self.monitor, self.patience, self.restore_best = Monitor(monitor, mode, min_delta), patience, restore_best
        self.waited, self.best_step = 0, 0
        self._best: dict[str, torch.Tensor] = {}

    def on_validation_end(self, state: FitState) -> bool | None:
        """A validation's value is looked at."""
        return self._look(state) if self.monitor.name.startswith("val_") else None

    def on_epoch_end(self, state: FitState) -> bool | None:
        """An epoch's value is looked at."""
        return None if self.monitor.name.startswith("val_") else self._look(state)

    def _look(self, state: FitState) -> bool:
        if self.monitor.improved(self.monitor.measured(state.moment)):
            self.waited, self.best_step = 0, state.moment.step
            if self.restore_best:
                self._best = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
            return False
        self.waited += 1
        if self.waited <= self.patience:
            return False
        state.note(
            f"stopped at step {state.moment.step}: {self.monitor.name} has not been better than {self.monitor.best} "
            f"(step {self.best_step}) for {self.waited} measurements"
        )
        return True

    def on_fit_end(self, state: FitState) -> None:
        """The best weights, if they are wanted."""
        if self._best:
            state.model.load_state_dict(self._best)
            state.note(f"the weights of step {self.best_step}, the best, were restored")

    def state_dict(self) -> dict[str, Any]:
        """See :class:`Callback`."""
        return {"best": self.monitor.best, "best_step": self.best_step, "waited": self.waited}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """See :class:`Callback`."""
        self.monitor.best, self.best_step, self.waited = values["best"], values["best_step"], values["waited"]

    def tensors(self) -> dict[str, torch.Tensor]:
        """See :class:`Callback`."""
        return self._best

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """See :class:`Callback`."""
        self._best = dict(tensors)


class ModelCheckpoint(Callback):
    """Writes checkpoints, from which ``fit(resume="auto")`` goes on.

    path: a directory on any file system that Spark reaches; each checkpoint is ``path/step-XXXXXXXX``. every: when.
    keep_last: how many of the latest stay; None: all. monitor, mode: the best checkpoint by this value stays too; only
    moments at which it is measured count.
    """

    def __init__(
        self,
        path: str,
        every: Trigger | None = None,
        keep_last: int | None = None,
        monitor: str | None = None,
        mode: str = "min",
    ):
        if not isinstance(path, str) or not path:
            raise ConfigError(
                f"ModelCheckpoint's path is {path!r}; pass a directory, for example 'hdfs:///checkpoints'"
            )
        if every is not None and not isinstance(every, Trigger):
            raise ConfigError(f"every is {every!r}; pass a trigger such as SeveralIteration(200) or EveryEpoch()")
        if keep_last is not None and (isinstance(keep_last, bool) or not isinstance(keep_last, int) or keep_last < 1):
            raise ConfigError(f"keep_last is {keep_last!r}; pass a positive number of checkpoints, or None to keep all")
        self.path, self.every, self.keep_last = path, every or EveryEpoch(), keep_last
        self.monitor = None if monitor is None else Monitor(monitor, mode)
        self.best_path: str | None = None
        self.last_path: str | None = None
        self._kept: list[str] = []

    def pauses_at(self, moment: Moment) -> bool:
        """Where `every` fires."""
        return self.every(moment)

    def on_pause(self, state: FitState) -> bool | None:
        """Writes one, then removes what is not to stay."""
        value = None if self.monitor is None else self.monitor.value(state.moment)
        better = self.monitor is not None and value is not None and self.monitor.improved(value)
        name = checkpoint_name(self.path, state.moment.step)
        if better:
            self.best_path = name
        self._kept = [*(kept for kept in self._kept if kept != name), name]
        self.last_path = name
        keep = self._kept[-self.keep_last :] if self.keep_last else self._kept
        gone = [kept for kept in self._kept if kept not in keep and kept != self.best_path]
        self._kept = [kept for kept in self._kept if kept not in gone]
        state.save_checkpoint(self.path)  # with what is remembered here: a resume keeps and removes the same ones
        for path in gone:
            state.remove_checkpoint(path)
        return None

    def state_dict(self) -> dict[str, Any]:
        """See :class:`Callback`."""
        best = None if self.monitor is None else self.monitor.best
        return {"best": best, "best_path": self.best_path, "last_path": self.last_path, "kept": self._kept}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """See :class:`Callback`."""
        if self.monitor is not None:
            self.monitor.best = values["best"]
        self.best_path, self.last_path, self._kept = values["best_path"], values["last_path"], list(values["kept"])


class LearningRateMonitor(Callback):
    """Notes every change of the learning rate by at least `factor`; the history has it for each step anyway."""

    def __init__(self, factor: float = 2.0):
        if not factor > 1:
            raise ConfigError(f"factor is {factor!r}; pass a number above 1")
        self.factor = factor
        self._shown: float | None = None

    def on_step_end(self, state: FitState, record: StepRecord) -> bool | None:
        """See :class:`Callback`."""
        shown, rate = self._shown, record.lr
        if shown is None or (
            rate != shown and (min(rate, shown) <= 0 or max(rate, shown) / min(rate, shown) >= self.factor)
        ):
            self._shown = rate
            if shown is not None:
                state.note(f"learning rate {shown:.4g} -> {rate:.4g} at step {record.step + 1}")
        return None
