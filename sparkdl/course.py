"""The course of a run between its steps: validation, callbacks, history, and the end.

Everything here happens at moments that follow from the settings alone, so a run that was stopped and resumed, or that
lost executors, validates and ends at the same steps.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from sparkdl.callbacks import Callback, FitState
from sparkdl.history import StepRecord
from sparkdl.triggers import Moment, Trigger, moment_at

__all__ = ["Course"]

logger = logging.getLogger("sparkdl")


class Course:
    """What `training_loop.train` asks between steps.

    until: when to end. validate: measures the model on the validation rows; None: there are none. validate_every: when.
    show: is told of every step's record.
    """

    def __init__(
        self,
        state: FitState,
        until: Trigger,
        validate: Callable[[], Mapping[str, float]] | None,
        validate_every: Trigger,
        callbacks: Sequence[Callback],
        show: Callable[[StepRecord], None],
    ):
        self._state, self._until = state, until
        self._validate, self._validate_every = validate, validate_every
        self._callbacks, self._show = callbacks, show
        self._stopping = False
        self._epoch_began = time.perf_counter()

    def begin(self, step: int) -> bool:
        """At the start, `step` steps done by an earlier run: whether there is nothing left to do."""
        self._state.moment = moment_at(step, self._state.steps_per_epoch)
        self._epoch_began = time.perf_counter()
        self._stopping = self._ask(lambda callback: callback.on_fit_start(self._state))
        return self._state.stopped or self._stopping or self._until(self._state.moment)

    def record(self, record: StepRecord) -> None:
        """See :class:`sparkdl.training_loop.Course`."""
        self._show(record)
        for callback in self._callbacks:
            self._stopping |= callback.on_step_end(self._state, record) is True

    def pauses_at(self, moment: Moment) -> bool:
        """See :class:`sparkdl.training_loop.Course`."""
        return (
            moment.epoch_ended
            or self._stopping
            or self._until(moment)
            or self._validates_at(moment)
            or any(callback.pauses_at(moment) for callback in self._callbacks)
        )

    def _validates_at(self, moment: Moment) -> bool:
        return self._validate is not None and self._validate_every(moment)

    def pause(self, moment: Moment) -> bool:
        """See :class:`sparkdl.training_loop.Course`."""
        state, history = self._state, self._state.history
        state.moment = moment
        epoch = (moment.step - 1) // state.steps_per_epoch  # of the last step
        values: dict[str, float] = history.epoch_means(epoch) if moment.epoch_ended else {}
        measured: Mapping[str, float] = {}
        if self._validate is not None and self._validate_every(moment):
            measured = self._validate()
            values |= history.add_validation(epoch, moment.step, measured)
        if moment.epoch_ended:
            now = time.perf_counter()
            history.add_epoch(epoch, now - self._epoch_began, measured)
            self._epoch_began = now
        state.moment = dataclasses.replace(moment, values=values)
        if measured:
            self._stopping |= self._ask(lambda callback: callback.on_validation_end(state))
        if moment.epoch_ended:
            self._stopping |= self._ask(lambda callback: callback.on_epoch_end(state))
        until = self._until(state.moment)
        # for a checkpoint of this moment; where the trigger fires by the step alone, a later fit may go further
        state.stopped = self._stopping or (until and not self._until(moment))
        for callback in self._callbacks:
            if callback.pauses_at(moment):
                self._stopping |= callback.on_pause(state) is True
        state.stopped |= self._stopping
        return self._stopping or until

    def end(self) -> None:
        """After the last step, the final weights at hand."""
        for callback in self._callbacks:
            callback.on_fit_end(self._state)

    def fail(self, error: BaseException) -> None:
        """The run ends with an error; what callbacks raise of their own then is only noted."""
        for callback in self._callbacks:
            try:
                callback.on_exception(self._state, error)
            except Exception:
                logger.warning("%s.on_exception failed", type(callback).__name__, exc_info=True)

    def _ask(self, hook: Callable[[Callback], bool | None]) -> bool:
        """Every callback is asked, also behind one that has said stop."""
        answers = [hook(callback) for callback in self._callbacks]
        return any(answer is True for answer in answers)
