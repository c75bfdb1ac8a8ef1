"""Curves for TensorBoard, written on the driver by tensorboardX (``pip install 'sparkdl-torch[tensorboard]'``)."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Mapping
from typing import Any

from sparkdl.callbacks import Callback, FitState
from sparkdl.errors import ConfigError
from sparkdl.history import StepRecord

__all__ = ["TensorBoard"]

FLUSH_SECONDS = 10
TRAIN, VALIDATION = "train", "validation"


class TensorBoard(Callback):
    """Writes every step's loss, metrics, learning rate, speed and times, and every validation.

    path: a directory on the driver, or a URI of a file system that Spark reaches (``s3a://…``, ``hdfs://…``); there the
    files are copied at the end of each epoch and of the training. Each run gets files of its own; one run a directory
    keeps curves apart. every: a step is written if its number, counted from 1, is a multiple of it.

    Training and validation are two runs in TensorBoard, ``train`` and ``validation``, with the same names, so that
    their curves are in one picture. A resumed training hides what was written after its checkpoint.

    Raises ConfigError: no path, or tensorboardX is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], every: int = 1):
        if not isinstance(path, str | os.PathLike) or not str(path):
            raise ConfigError(f"TensorBoard's path is {path!r}; pass a directory, for example 'runs/first'")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ConfigError(f"TensorBoard's every is {every!r}; pass a positive number of steps")
        _tensorboardx()
        self.path, self.every = os.fspath(path).removeprefix("file://"), every
        self._last = 0  # steps up to here are written
        self._remote = "://" in self.path
        self._files: dict[str, _EventFile] = {}
        self._aside: tempfile.TemporaryDirectory[str] | None = None

    def on_fit_start(self, state: FitState) -> bool | None:
        """Opens the files; a resumed run hides what an earlier one wrote for the steps that come now."""
        self._close()
        begun = state.moment.step
        self._last = begun
        if self._remote:
            self._aside = tempfile.TemporaryDirectory(prefix="sparkdl-tensorboard-")
        folder = self._aside.name if self._aside else self.path
        for run in (TRAIN, VALIDATION):
            self._files[run] = _EventFile(os.path.join(folder, run), begun)
        return None

    def on_step_end(self, state: FitState, record: StepRecord) -> bool | None:
        """See :class:`Callback`."""
        step = record.step + 1
        if step <= self._last:
            return None
        self._last = step
        if step % self.every == 0:
            values = {"loss": record.loss, **record.metrics, "lr": record.lr}
            values |= {"rows_per_second": record.rows_per_second}
            values |= {f"ms/{part}": getattr(record, f"{part}_ms") for part in ("compute", "sync", "scheduling")}
            self._files[TRAIN].add(step, values)
        return None

    def on_validation_end(self, state: FitState) -> bool | None:
        """See :class:`Callback`."""
        values = {name[4:]: value for name, value in state.moment.values.items() if name.startswith("val_")}
        self._files[VALIDATION].add(state.moment.step, values)
        return None

    def on_epoch_end(self, state: FitState) -> bool | None:
        """Everything so far becomes visible."""
        self._publish(state)
        return None

    def on_fit_end(self, state: FitState) -> None:
        """See :class:`Callback`."""
        self._publish(state)
        self._close()

    def on_exception(self, state: FitState, error: BaseException) -> None:
        """As at the end."""
        self.on_fit_end(state)

    def _publish(self, state: FitState) -> None:
        for file in self._files.values():
            file.flush()
        if self._aside is None:
            return
        from pyspark import SparkContext

        from sparkdl.hadoop_files import HadoopFiles

        try:
            files = HadoopFiles(SparkContext.getOrCreate())
            for run in self._files:
                folder = f"{self.path.rstrip('/')}/{run}"
                files.make_directory(folder)
                for name in os.listdir(os.path.join(self._aside.name, run)):
                    files.upload(os.path.join(self._aside.name, run, name), f"{folder}/{name}")
        except OSError as error:  # the curves are not worth the training
            state.note(f"TensorBoard's files could not be copied, the next epoch tries again: {error}")

    def _close(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.close()
        self._files = {}
        if self._aside is not None:
            self._aside.cleanup()
            self._aside = None


class _EventFile:
    """A file of events: one for each step, written at once. tensorboardX's own writer has a thread and a queue, whose
    ``flush`` does not wait for them; this is the part below it.
    """

    def __init__(self, folder: str, begun: int):
        writer, self._event, self._summary, session_log = _tensorboardx()
        os.makedirs(folder, exist_ok=True)
        # the name has whole seconds in it; two runs may begin in one
        self._writer = writer(os.path.join(folder, "events"), f".{uuid.uuid4().hex[:8]}")
        if begun:  # what an earlier run wrote from this step on does not count
            start = session_log(status=session_log.START)
            self._writer.write_event(self._event(wall_time=time.time(), step=begun + 1, session_log=start))
        self.flush()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        found = [self._summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        summary = self._summary(value=found)
        self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=summary))
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        self._writer.flush()
        self._due = time.monotonic() + FLUSH_SECONDS

    def close(self) -> None:
        self._writer.close()


def _tensorboardx() -> tuple[Any, Any, Any, Any]:
    try:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary
    except ImportError as error:
        raise ConfigError(
            "TensorBoard's curves are written by tensorboardX, which is not installed here; it is needed on the driver "
            "only: pip install 'sparkdl-torch[tensorboard]' (or pip install tensorboardX)"
        ) from error
    return EventsWriter, Event, Summary, SessionLog
