"""What a Python worker keeps between tasks of a run: the model, the open files, the mapped data.

Only a cache: under the run's own key, checked, and rebuilt from the files in the executor's local directory. Those
are made by the job that prepares the data; a task that does not find them raises StateLost.
"""

from __future__ import annotations

import mmap
import os
import pickle
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pyspark import SparkFiles, TaskContext

from sparkdl import worker_heap
from sparkdl.errors import StateLost
from sparkdl.optim import SliceOptimizer
from sparkdl.payload import Payload, forget_weights
from sparkdl.replica import Replica
from sparkdl.row_files import RowFiles
from sparkdl.shared_gradient import SharedGradient
from sparkdl.slices import Piece, pieces
from sparkdl.step_settings import PROPERTY, JobSettings, Plan
from sparkdl.sync import GradientSum
from sparkdl.table_rows import TableSums
from sparkdl.versioned_tables import VersionedTables, weights_plan

RECORDED_STEPS = 1024  # how many steps of records an executor remembers


def run_directory(run: str) -> str:
    """The run's directory on this executor; Spark removes it with the executor."""
    # executors answer ".", which means nothing to others on the same host
    return os.path.join(os.path.abspath(SparkFiles.getRootDirectory()), f"sparkdl-{run}")


class RunCache:
    """One run in one Python worker."""

    def __init__(self, run: str):
        self.run, self.directory = run, run_directory(run)
        self.payload = self.first_payload()
        self.optimizer = SliceOptimizer(self.payload.template.blank)
        self.replica = Replica(self.payload, task_device(self.payload.device), copy_weights=False)
        forget_weights(self.payload)  # they are in the file of state, and still in the payload's own
        self.write_ms = 0.0  # how long the task before needed to hand its gradient over
        plan = self.payload.plan
        # the slices form's copies of weights and buffers; untouched memory costs nothing in the gather form
        self.weights = torch.empty(plan.layout.dense_size)
        self.buffers = (torch.empty(plan.num_buffer_floats), torch.empty(plan.num_buffer_bytes, dtype=torch.uint8))
        self._pieces: list[Piece] | None = None
        self._generation = -1
        self._state: VersionedTables | None = None
        self._tables: VersionedTables | None = None
        self._records: np.ndarray | None = None
        self._data: dict[int, RowFiles] = {}
        self._shared: dict[str, SharedGradient] = {}
        self._sums: dict[tuple[int, ...], GradientSum] = {}

    def first_payload(self) -> Payload:
        """The payload as it was shipped, with the weights that the model came with."""
        try:
            with open(os.path.join(self.directory, "payload"), "rb") as file:
                found: Payload = pickle.load(file)
        except FileNotFoundError:
            raise StateLost(f"this executor has no files of run {self.run} in {self.directory}") from None
        return found

    def state(self, generation: int) -> VersionedTables:
        """The executor's state file. A restore begins a new generation: late tasks of the old one then do no harm."""
        if self._generation != generation or self._state is None:
            for file in filter(None, (self._state, self._tables)):
                file.close()
            self._state = VersionedTables(os.path.join(self.directory, f"state-{generation}"), self.payload.plan)
            self.replica.forget_views()
            self._tables = self._records = None
            self._generation = generation
            for old in range(generation):
                for name in (f"state-{old}", f"tables-{old}", f"records-{old}"):
                    if os.path.exists(path := os.path.join(self.directory, name)):
                        os.unlink(path)
        return self._state

    def tables(self, generation: int) -> VersionedTables:
        """The executor's copy of all tables' weights, for the slices forms: their owners update them in their state."""
        self.state(generation)
        if self._tables is None:
            path = os.path.join(self.directory, f"tables-{generation}")
            self._tables = VersionedTables(path, weights_plan(self.payload.plan))
        return self._tables

    def pieces(self, plan: Plan) -> list[Piece]:
        """The pieces of the flat vector, cut once."""
        if self._pieces is None:
            self._pieces = pieces(self.payload.plan.layout, plan.slices)
        return self._pieces

    def records(self, generation: int, num_replicas: int) -> np.ndarray:
        """float64 [RECORDED_STEPS, num_replicas, fields + 1]: a ring of records, the step + 1 in the last field."""
        if self._records is None or self._generation != generation:
            shape = (RECORDED_STEPS, num_replicas, len(self.payload.record_names) + 1)
            size = int(np.prod(shape)) * 8
            file = os.open(os.path.join(self.directory, f"records-{generation}"), os.O_RDWR | os.O_CREAT, 0o600)
            os.ftruncate(file, size)
            self._records = np.frombuffer(mmap.mmap(file, size), np.float64).reshape(shape)
            os.close(file)
        return self._records

    def shared_gradient(self, path: str, create: bool = False) -> SharedGradient:
        """A replica's file of gradients on this host."""
        if path not in self._shared:
            for old in [p for p in self._shared if not os.path.exists(p)]:
                self._shared.pop(old).close()
            self._shared[path] = SharedGradient(
                path, self.payload.plan.layout.dense_size, self.payload.wire == "bf16", create
            )
        return self._shared[path]

    def data(self, replica: int) -> RowFiles:
        """The replica's rows."""
        if replica not in self._data:
            directory = os.path.join(self.directory, f"data-{replica}")
            try:
                self._data[replica] = RowFiles(directory)
            except FileNotFoundError:
                raise StateLost(f"this executor has no rows of replica {replica} in {directory}") from None
        return self._data[replica]

    def sum(self, start: int, stop: int, num_replicas: int, tables: Sequence[int]) -> GradientSum:
        """Room for a sum of these elements and of these lots of tables, used again in every step."""
        key = (start, stop, *tables)
        if key not in self._sums:
            of_tables = TableSums(self.payload.plan.layout, tables) if tables else None
            self._sums[key] = GradientSum(start, stop, num_replicas, self.payload.plan.num_buffer_floats, of_tables)
        return self._sums[key]


def job_settings() -> JobSettings:
    """What the driver said about this job."""
    text: Any = TaskContext.get().getLocalProperty(PROPERTY)  # type: ignore[union-attr]
    return JobSettings.loads(text)


_runs: dict[str, RunCache] = {}


def get(run: str) -> RunCache:
    """The run's cache, built on first use."""
    found = _runs.get(run)
    if found is None:
        for old in [name for name, cache in _runs.items() if not os.path.exists(cache.directory)]:
            del _runs[old]
        context = TaskContext.get()
        # the threads of an operation can show in the last bit of a sum, so they follow the setting, not the machine
        torch.set_num_threads(max(1, context.cpus() if context else 1))
        found = _runs[run] = RunCache(run)
    worker_heap.set_apart()  # the run, and what the task before imported: the first step brings in much of torch
    return found


def task_device(wanted: str) -> torch.device:
    """``auto``: the GPU that Spark gave the task, else the CPU."""
    if wanted != "auto":
        return torch.device(wanted)
    context = TaskContext.get()
    gpus: Any = context.resources().get("gpu") if context else None
    if gpus is not None and torch.cuda.is_available():
        return torch.device(f"cuda:{gpus.addresses[0]}")
    return torch.device("cpu")


def remove(run: str) -> None:
    """Deletes the run's files on this executor and forgets it."""
    _runs.pop(run, None)
    shutil.rmtree(run_directory(run), ignore_errors=True)
