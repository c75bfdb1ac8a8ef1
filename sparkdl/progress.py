"""The course of training as the user sees it: a bar on a terminal, log lines elsewhere.

Steps and epochs count from 1 here, as people do: step 200 is shown when 200 steps are done.
"""

from __future__ import annotations

import logging
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from sparkdl import batches
from sparkdl.history import StepRecord

__all__ = ["Progress", "show"]

_SECONDS_BETWEEN_LINES = 5.0
_STEPS_FOR_HINT = 50
_WARM_UP_FOR_HINT = 5  # of those steps
_SCHEDULING_SHARE = 0.3


class Progress:
    """Shows each step's record as it arrives.

    total_steps: over the whole run, or None if a trigger decides;  rows_per_epoch, batch_size: for the position in the
    epoch.  The logger is "sparkdl" unless given.  verbose: 0 shows nothing, not even notes; 1 a bar on a terminal,
    elsewhere a line every 5 s and at the end of each epoch; 2 (and more) a line a step.
    """

    def __init__(
        self,
        total_steps: int | None,
        num_epochs: int | None,
        verbose: int = 1,
        logger: logging.Logger | None = None,
        *,
        rows_per_epoch: int,
        batch_size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total_steps = total_steps
        self._num_epochs = num_epochs
        self._silent, self._each_step = verbose < 1, verbose > 1
        self._logger = logging.getLogger("sparkdl") if logger is None else logger
        self._rows_per_epoch = rows_per_epoch
        self._batch_size = batch_size
        self._steps_per_epoch = batches.num_steps(rows_per_epoch, batch_size)
        self._clock = clock
        self._start = self.shown_at = clock()  # when something was shown last, by this clock
        self._last_line = -float("inf")
        self._on_terminal = sys.stderr.isatty()
        self._bar: Any = None
        self._scheduling_shares: list[float] = []
        self._hinted = False
        if not self._silent and not self._on_terminal:
            _make_visible(self._logger)

    def update(self, record: StepRecord) -> None:
        """Show a step.  Records may arrive in bunches, and from an earlier step again after a recovery."""
        if self._silent:
            return
        now = self._clock()
        epoch_ends = (record.step + 1) % self._steps_per_epoch == 0
        if self._each_step:
            self.note(self._line(record, now - self._start))
        elif not self._on_terminal and (epoch_ends or now - self._last_line >= _SECONDS_BETWEEN_LINES):
            self._last_line = now
            self.note(self._line(record, now - self._start))
        if self._on_terminal:
            self._update_bar(record)
            self.shown_at = now
        self._watch_scheduling(record)

    def note(self, text: str) -> None:
        """Show a line of its own, such as a recovery."""
        if not self._silent:
            self.shown_at = self._clock()
            _write(text, self._on_terminal, self._logger)

    def close(self) -> None:
        """End the bar; give the hint if a short run earned it."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if not self._silent and len(self._scheduling_shares) > _WARM_UP_FOR_HINT:
            self._hint()

    def _update_bar(self, record: StepRecord) -> None:
        if self._bar is None:
            from tqdm import tqdm

            # Made at the first step, so that the rate leaves out the preparation and the steps before a resume.
            self._bar = tqdm(total=self._total_steps, initial=record.step, unit="step", file=sys.stderr)
        epochs = "" if self._num_epochs is None else f"/{self._num_epochs}"
        self._bar.set_description_str(f"Epoch {record.epoch + 1}{epochs}", refresh=False)
        self._bar.set_postfix_str(
            f"loss {record.loss:.4f}, lr {record.lr:.4g}, {record.rows_per_second:.1f} rows/s", refresh=False
        )
        self._bar.update(record.step + 1 - self._bar.n)

    def _line(self, record: StepRecord, wall_clock: float) -> str:
        step_of_epoch = record.step % self._steps_per_epoch
        done = min((step_of_epoch + 1) * self._batch_size, self._rows_per_epoch)
        return (
            f"[Epoch {record.epoch + 1} {done}/{self._rows_per_epoch}][Step {record.step + 1}]"
            f"[Wall clock {wall_clock:.1f} s] {record.rows} records in {record.seconds:.3f} s. "
            f"Throughput is {record.rows_per_second:.1f} records/second. Loss is {record.loss:.4f}. "
            f"lr {record.lr:.4g}. compute {record.compute_ms:.1f} ms, sync {record.sync_ms:.1f} ms, "
            f"scheduling {record.scheduling_ms:.1f} ms"
        )

    def _watch_scheduling(self, record: StepRecord) -> None:
        if self._hinted or len(self._scheduling_shares) >= _STEPS_FOR_HINT:
            return
        total = record.compute_ms + record.sync_ms + record.scheduling_ms
        self._scheduling_shares.append(record.scheduling_ms / total if total > 0 else 0.0)
        if len(self._scheduling_shares) == _STEPS_FOR_HINT:
            self._hint()

    def _hint(self) -> None:
        share = statistics.median(self._scheduling_shares[_WARM_UP_FOR_HINT:])
        if self._hinted or share <= _SCHEDULING_SHARE:
            return
        self._hinted = True
        self.note(
            f"Scheduling takes {share:.0%} of a step: Spark spends it on starting tasks, whatever the batch. A larger "
            f"batch_size (now {self._batch_size}), fewer replicas, or steps_per_job > 1 make it count less."
        )


def show(text: str) -> None:
    """A line outside of any `Progress`, where such a one would show it."""
    logger, on_terminal = logging.getLogger("sparkdl"), sys.stderr.isatty()
    if not on_terminal:
        _make_visible(logger)
    _write(text, on_terminal, logger)


def _write(text: str, on_terminal: bool, logger: logging.Logger) -> None:
    if on_terminal:
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)  # above the bar
    else:
        logger.info(text)


class _StderrHandler(logging.Handler):
    """Writes to stderr as long as logging is not configured; steps back once it is."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            sys.stderr.write(self.format(record) + "\n")


def _make_visible(logger: logging.Logger) -> None:
    """Let the lines be seen when nobody has configured logging: Python alone shows warnings only."""
    if not logger.hasHandlers():
        handler = _StderrHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
