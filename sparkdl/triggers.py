"""Triggers: when to validate, to save, or to end. The names are BigDL's; `&` and `|` combine them.

A trigger is a function of a `Moment` alone: how far the training is, and what has been measured there. Values are
known only where the training pauses anyway, at the end of an epoch or after a validation. So a trigger fires at the
same step in every run, however late Spark reports a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sparkdl.errors import ConfigError

__all__ = ["EveryEpoch", "MaxEpoch", "MaxIteration", "MaxScore", "MinLoss", "Moment", "SeveralIteration", "Trigger"]


@dataclass(frozen=True)
class Moment:
    """Between two steps.

    step, epoch: how many are done. epoch_ended: whether the last step was the last of its epoch. values: the epoch's
    means ("loss" and metrics) and the validation's ("val_loss", …), as far as they were measured at this moment.
    """

    step: int
    epoch: int
    epoch_ended: bool
    values: Mapping[str, float] = field(default_factory=dict)


def moment_at(step: int, steps_per_epoch: int) -> Moment:
    """The moment after `step` steps, nothing measured."""
    return Moment(step, step // steps_per_epoch, step > 0 and step % steps_per_epoch == 0)


class Trigger:
    """Says at which moments something happens. Own ones override `__call__`; they must depend on the moment alone."""

    def __call__(self, moment: Moment) -> bool:
        """Whether it fires at this moment."""
        raise NotImplementedError

    def __and__(self, other: Trigger) -> Trigger:
        return _And(self, _trigger(other))

    def __or__(self, other: Trigger) -> Trigger:
        return _Or(self, _trigger(other))


class _And(Trigger):
    def __init__(self, first: Trigger, second: Trigger):
        self.first, self.second = first, second

    def __call__(self, moment: Moment) -> bool:
        return self.first(moment) and self.second(moment)

    def __repr__(self) -> str:
        return f"({self.first} & {self.second})"


class _Or(Trigger):
    def __init__(self, first: Trigger, second: Trigger):
        self.first, self.second = first, second

    def __call__(self, moment: Moment) -> bool:
        return self.first(moment) or self.second(moment)

    def __repr__(self) -> str:
        return f"({self.first} | {self.second})"


class EveryEpoch(Trigger):
    """At the end of each epoch."""

    def __call__(self, moment: Moment) -> bool:
        """After an epoch's last step."""
        return moment.epoch_ended

    def __repr__(self) -> str:
        return "EveryEpoch()"


class SeveralIteration(Trigger):
    """After each `interval` steps, counted over the whole training. Raises ConfigError: interval below 1."""

    def __init__(self, interval: int):
        self.interval = _count("SeveralIteration", interval)

    def __call__(self, moment: Moment) -> bool:
        """After every `interval`-th step."""
        return moment.step > 0 and moment.step % self.interval == 0

    def __repr__(self) -> str:
        return f"SeveralIteration({self.interval})"


class MaxEpoch(Trigger):
    """Once so many epochs are done. Raises ConfigError: fewer than 1."""

    def __init__(self, epochs: int):
        self.epochs = _count("MaxEpoch", epochs)

    def __call__(self, moment: Moment) -> bool:
        """From that epoch's end on."""
        return moment.epoch >= self.epochs

    def __repr__(self) -> str:
        return f"MaxEpoch({self.epochs})"


class MaxIteration(Trigger):
    """Once so many steps are done. Raises ConfigError: fewer than 1."""

    def __init__(self, steps: int):
        self.steps = _count("MaxIteration", steps)

    def __call__(self, moment: Moment) -> bool:
        """From that step on."""
        return moment.step >= self.steps

    def __repr__(self) -> str:
        return f"MaxIteration({self.steps})"


class MinLoss(Trigger):
    """Once the loss is below `loss`: the mean over an epoch, or, with ``monitor="val_loss"``, a validation's."""

    def __init__(self, loss: float, monitor: str = "loss"):
        self.loss, self.monitor = float(loss), monitor

    def __call__(self, moment: Moment) -> bool:
        """Where the value was measured and is below."""
        return moment.values.get(self.monitor, float("inf")) < self.loss

    def __repr__(self) -> str:
        return f"MinLoss({self.loss}, {self.monitor!r})"


class MaxScore(Trigger):
    """Once a value is above `score`, by default the accuracy of the validation."""

    def __init__(self, score: float, monitor: str = "val_accuracy"):
        self.score, self.monitor = float(score), monitor

    def __call__(self, moment: Moment) -> bool:
        """Where the value was measured and is above."""
        return moment.values.get(self.monitor, float("-inf")) > self.score

    def __repr__(self) -> str:
        return f"MaxScore({self.score}, {self.monitor!r})"


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name}({value!r}): pass a positive integer")
    return value


def _trigger(value: object) -> Trigger:
    if not isinstance(value, Trigger):
        raise ConfigError(
            f"{value!r} is no trigger; combine triggers, for example SeveralIteration(200) | EveryEpoch()"
        )
    return value
