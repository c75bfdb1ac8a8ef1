"""What happened during training: one record per step and per epoch, as pandas DataFrames on demand."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["History", "StepRecord"]

_STEP_COLUMNS = ("step", "epoch", "loss", "lr", "rows", "rows_per_second", "compute_ms", "sync_ms", "scheduling_ms")
_EPOCH_COLUMNS = ("epoch", "step", "loss", "rows", "seconds", "rows_per_second")
_VALIDATION_COLUMNS = ("epoch", "step")
_INTEGERS = frozenset({"step", "epoch", "rows"})
_PARTS = ("compute", "sync", "scheduling")
_WARM_UP = 0.1  # of the steps: the first ones start workers and build models


@dataclass(frozen=True)
class StepRecord:
    """One step: `step` counts from 0 over the whole run, `loss` and `metrics` are means over its rows."""

    step: int
    epoch: int
    rows: int
    seconds: float
    loss: float
    lr: float
    compute_ms: float
    sync_ms: float
    scheduling_ms: float
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def rows_per_second(self) -> float:
        """Throughput of this step over all replicas."""
        return self.rows / self.seconds if self.seconds > 0 else math.nan


class _Table:
    """Growing columns of numbers, 8 bytes each; a column that comes later, or is left out, holds NaN in the gaps."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.fixed = columns
        self.columns: dict[str, array[int] | array[float]] = {
            name: array("q" if name in _INTEGERS else "d") for name in columns
        }

    def __len__(self) -> int:
        return len(self.columns[self.fixed[0]])

    def append(self, values: Mapping[str, float]) -> None:
        rows = len(self)
        for name, value in values.items():
            if name not in self.columns:
                self.columns[name] = array("d", [math.nan]) * rows
            self.columns[name].append(value)  # type: ignore[arg-type]
        for column in self.columns.values():
            if len(column) == rows:
                column.append(math.nan)  # type: ignore[arg-type]

    def cut(self, rows: int) -> None:
        for column in self.columns.values():
            del column[rows:]

    def restore(self, columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
        for name, values in columns.items():
            self.columns[name] = array("q" if name in _INTEGERS else "d", values.tolist())

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        return np.array(self.columns[name], dtype=np.float64)

    def frame(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame({name: np.array(column) for name, column in self.columns.items()})


class History:
    """The course of a training run.

    `steps`, `epochs` and `validations` are DataFrames, `history["loss"]` is one column as a list, `events` holds (step,
    text) of what was out of the ordinary, such as a recovery, and `fingerprint` is a hash of the final weights and
    optimizer state: two runs with equal fingerprints ended with the same bits.
    """

    def __init__(self) -> None:
        self._steps = _Table(_STEP_COLUMNS)
        self._epochs = _Table(_EPOCH_COLUMNS)
        self._validations = _Table(_VALIDATION_COLUMNS)
        self.events: list[tuple[int, str]] = []
        self.settings: dict[str, object] = {}  # what the run was made with, for reports
        self.fingerprint: str | None = None

    def __repr__(self) -> str:
        loss = f", last loss {self._steps.columns['loss'][-1]:.4g}" if len(self._steps) else ""
        return f"History({len(self._steps)} steps, {len(self._epochs)} epochs{loss})"

    def add_step(
        self,
        step: int,
        epoch: int,
        rows: int,
        seconds: float,
        loss: float,
        lr: float,
        compute_ms: float,
        sync_ms: float,
        scheduling_ms: float,
        metrics: Mapping[str, float] | None = None,
    ) -> StepRecord:
        """Record a step; steps come in order.  `seconds`: from the end of the step before to the end of this one."""
        steps = self._steps.columns["step"]
        assert not steps or step > steps[-1], f"step {step} after step {steps[-1]}"
        record = StepRecord(
            step, epoch, rows, seconds, loss, lr, compute_ms, sync_ms, scheduling_ms, dict(metrics or {})
        )
        self._steps.append({**{name: getattr(record, name) for name in _STEP_COLUMNS}, **record.metrics})
        return record

    def epoch_means(self, epoch: int) -> dict[str, float]:
        """Means over the rows of an epoch's recorded steps: loss and metrics;  {} if no step is recorded.

        A step counts by its rows, so the smaller last one does not weigh too much.  A metric that only some steps have
        is the mean over those.
        """
        chosen = self._steps.numbers("epoch") == epoch
        rows = self._steps.numbers("rows")[chosen]
        means: dict[str, float] = {}
        for name in ("loss", *self._metrics()):
            values = self._steps.numbers(name)[chosen]
            present = np.ones_like(values, dtype=bool) if name == "loss" else ~np.isnan(values)
            if present.any():
                means[name] = float(np.average(values[present], weights=rows[present]))
        return means

    def add_epoch(
        self,
        epoch: int,
        seconds: float,
        validation: Mapping[str, float] | None = None,
        *,
        loss: float | None = None,
        rows: int | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        """Record the end of an epoch and return the record.

        Loss, rows and metrics are those of the epoch's recorded steps unless given.  `validation`: means over the
        validation rows, recorded as "val_" + name.
        """
        means = self.epoch_means(epoch)
        own_loss = means.pop("loss", math.nan)
        if rows is None:
            rows = int(self._steps.numbers("rows")[self._steps.numbers("epoch") == epoch].sum())
        steps = self._steps.columns["step"]
        record: dict[str, float] = {
            "epoch": epoch,
            "step": steps[-1] if steps else -1,
            "loss": own_loss if loss is None else loss,
            "rows": rows,
            "seconds": seconds,
            "rows_per_second": rows / seconds if seconds > 0 else math.nan,
            **(means if metrics is None else metrics),
            **{f"val_{name}": value for name, value in (validation or {}).items()},
        }
        self._epochs.append(record)
        return record

    def add_validation(self, epoch: int, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Record a validation after `step` steps, in `epoch` (both from 0); returns its values, named "val_" + name."""
        named = {f"val_{name}": float(value) for name, value in values.items()}
        self._validations.append({"epoch": epoch, "step": step, **named})
        return named

    def add_event(self, step: int, text: str) -> None:
        """Record something out of the ordinary."""
        self.events.append((step, text))

    def truncate(self, step: int) -> None:
        """Forget the steps from `step` on, and the epochs that ended with one of them: they are run again."""
        self._steps.cut(sum(recorded < step for recorded in self._steps.columns["step"]))
        self._epochs.cut(sum(recorded < step for recorded in self._epochs.columns["step"]))
        self._validations.cut(sum(recorded <= step for recorded in self._validations.columns["step"]))

    @property
    def steps(self) -> pd.DataFrame:
        """One line per step: step, epoch, loss, lr, rows, rows_per_second, compute, sync, scheduling ms, metrics."""
        return self._steps.frame()

    @property
    def epochs(self) -> pd.DataFrame:
        """One line per epoch: epoch, its last step, loss, rows, seconds, rows_per_second, metrics, val_..."""
        return self._epochs.frame()

    @property
    def validations(self) -> pd.DataFrame:
        """One line per validation: epoch, steps done, val_..."""
        return self._validations.frame()

    def report(self, path: str) -> None:
        """Writes the run as one HTML page: loss, learning rate, rows/s, time split, events. Needs no network to read.

        Raises OSError: path cannot be written.
        """
        from sparkdl.run_report import write_report

        write_report(self, path)

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything but the fingerprint, as arrays that a checkpoint keeps; the inverse of `from_arrays`."""
        found: dict[str, npt.NDArray[np.generic]] = {
            f"{name}.{number:03d}.{column}": np.array(values)  # files do not keep an order
            for name, table in self._tables().items()
            for number, (column, values) in enumerate(table.columns.items())
        }
        found["events"] = np.frombuffer(json.dumps(self.events).encode(), np.uint8)
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> History:
        """A history as `to_arrays` gave it."""
        history = cls()
        for name, table in history._tables().items():
            own = [key for key in sorted(arrays) if key.startswith(f"{name}.")]
            table.restore({key.split(".", 2)[2]: arrays[key] for key in own})
        history.events = [(step, text) for step, text in json.loads(arrays["events"].tobytes())]
        return history

    def __getitem__(self, name: str) -> list[float]:
        """A column of the epochs; of the steps, if the epochs have none of that name or no epoch has ended; of the
        validations, if neither has it.


        Raises KeyError: none has it.
        """
        first = (self._epochs, self._steps) if len(self._epochs) else (self._steps, self._epochs)
        for table in (*first, self._validations):
            if name in table.columns:
                return list(table.columns[name])
        raise KeyError(f"there is no column {name!r} in this history; it has {', '.join(map(repr, self))}")

    def __contains__(self, name: object) -> bool:
        return any(name in table.columns for table in (self._epochs, self._steps, self._validations))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._epochs.columns, *self._steps.columns, *self._validations.columns)))

    def time_split(self) -> dict[str, float]:
        """Where the time of a step goes: medians ("compute_ms", ...) and their shares of the three ("compute", ...).

        Over all steps but the first tenth, which warms up.  NaN if no step is recorded.
        """
        skipped = int(len(self._steps) * _WARM_UP)
        medians = {}
        for part in _PARTS:
            values = self._steps.numbers(f"{part}_ms")[skipped:]
            medians[part] = float(np.median(values)) if values.size else math.nan
        total = sum(medians.values())
        shares = {part: median / total if total > 0 else math.nan for part, median in medians.items()}
        return {**{f"{part}_ms": median for part, median in medians.items()}, **shares}

    def _tables(self) -> dict[str, _Table]:
        return {"steps": self._steps, "epochs": self._epochs, "validations": self._validations}

    def _metrics(self) -> list[str]:
        return [name for name in self._steps.columns if name not in _STEP_COLUMNS]
