"""What a step's tasks must know beyond their data: plain numbers, in a Spark local property of the step's job.

So the functions that Spark ships stay the same for the whole run, and a task that is retried sees the same numbers.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sparkdl import batches

PROPERTY = "sparkdl.step"


# description, settings, action -> what the action returns: how a form submits a Spark job
Submit = Callable[[str, "JobSettings", Callable[[], Any]], Any]


@dataclass(frozen=True)
class StepSettings:
    """One step. ``step`` counts from 0 over the whole run, ``index`` from 0 inside ``epoch``.

    ``hyper``: for every parameter group what differs from the optimizer's template (learning rate, …).
    """

    step: int
    epoch: int
    index: int
    hyper: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class JobSettings:
    """One Spark job: its steps (one, or ``steps_per_job``), the step before them, and which file of state they use."""

    mode: str  # step, snapshot, records, restore, digest, remove
    generation: int
    steps: list[StepSettings]
    previous: StepSettings | None = None
    version: int = 0  # restore: the version to put in place; records, digest: up to which step
    first: int = 0  # records: from which step on
    clip: float = 1.0  # slices with clip_norm: the factor, known once all norms are
    file: str = ""  # restore: a snapshot that the driver hands out with SparkContext.addFile, or a whole path

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def loads(text: str) -> JobSettings:
        """The inverse of :meth:`dumps`."""
        return _loads(text)


@functools.lru_cache(maxsize=4)
def _loads(text: str) -> JobSettings:
    values = json.loads(text)
    values["steps"] = [StepSettings(**s) for s in values["steps"]]
    values["previous"] = StepSettings(**values["previous"]) if values["previous"] else None
    return JobSettings(**values)


@dataclass(frozen=True)
class Plan:
    """What stays the same in every step of a run, for the functions that are shipped once.

    rows_per_replica: rows that each replica holds. slices: first and end lot of each slice.
    """

    run: str
    seed: int
    batch_size: int
    rows_per_replica: tuple[int, ...]
    slices: tuple[tuple[int, int], ...]
    same_host: bool = False

    @property
    def num_replicas(self) -> int:
        """Replicas of the run."""
        return len(self.rows_per_replica)

    @property
    def num_rows(self) -> int:
        """Rows of an epoch."""
        return sum(self.rows_per_replica)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, a last partial one included."""
        return batches.num_steps(self.num_rows, self.batch_size)

    def rows_in_step(self, index: int) -> int:
        """Rows of step ``index`` of an epoch."""
        return min(self.batch_size, self.num_rows - index * self.batch_size)

    def contributors(self, index: int) -> tuple[int, ...]:
        """The replicas that have rows in step ``index`` of an epoch, ascending."""
        return _contributors(self.rows_per_replica, self.batch_size, index)

    def rows(self, settings: StepSettings, replica: int) -> np.ndarray:
        """Row numbers of a replica in a step."""
        return batches.rows(self.seed, settings.epoch, settings.index, replica, self.rows_per_replica, self.batch_size)


@functools.lru_cache(maxsize=64)
def _contributors(rows_per_replica: Sequence[int], batch_size: int, index: int) -> tuple[int, ...]:
    total = sum(rows_per_replica)
    before = batches.shares(rows_per_replica, index * batch_size)
    after = batches.shares(rows_per_replica, min((index + 1) * batch_size, total))
    return tuple(r for r, (a, b) in enumerate(zip(before, after, strict=True)) if b > a)
