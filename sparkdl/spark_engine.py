"""A run on Spark: places the replicas, submits the jobs of each step, takes snapshots, and goes back to one when an
executor is lost.

A form of the step (:mod:`sparkdl.gather_job`, :mod:`sparkdl.slices_form`) only says which jobs a step has. What the
jobs compute is on floor 0.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Protocol

import numpy as np
import torch
from pyspark import RDD, SparkContext

from sparkdl import checkpoint_job, saved_state, wire
from sparkdl.checkpoint_files import Checkpoint, check_fits
from sparkdl.durable_state import DurableState
from sparkdl.errors import ClusterError, TrainingError
from sparkdl.payload import Payload
from sparkdl.replica_data_job import ReplicaRows, read_tokens
from sparkdl.spark_failures import FAILURES, SIGNS_OF_LOSS, failure_text, first_line, is_cluster_failure, memory_hint
from sparkdl.spark_internals import JVM, Blocks, RawRDD, works
from sparkdl.spark_public import Public
from sparkdl.state_job import RemoveTask, read_fingerprints
from sparkdl.step_settings import PROPERTY, JobSettings, Plan, StepSettings
from sparkdl.training_loop import StepReport
from sparkdl.versioned_state import StatePlan

logger = logging.getLogger("sparkdl")

DESCRIPTION, GROUP = "spark.job.description", "spark.jobGroup.id"
# what the Spark UI calls our RDDs and stages; with both set, Spark need not walk the stack for every RDD and job
CALL_SITE = ("callSite.short", "callSite.long")
SNAPSHOT_SHARE = 0.03  # of the run's time that snapshots may cost
SNAPSHOT_STEPS = (10, 100)  # fewest and most steps between two snapshots: at most so many are computed again
TABLE_SNAPSHOT_STEPS = 700  # most with embedding tables: a snapshot costs by their size, a step by the rows it touches
SPREAD_SHARE = 0.05  # of the run's time that dealing rows out anew, to executors that joined, may cost
MAX_ROLLBACKS = 4  # without a new snapshot in between
# no dictionary and no compression: weights are noise; sizes are looked at after each row, since one may be 16 MB
PARQUET = {
    "compression": "none",
    "parquet.enable.dictionary": "false",
    "parquet.block.size": str(1 << 26),
    "parquet.block.size.row.check.min": "1",
    "parquet.block.size.row.check.max": "1",
    "parquet.page.size.row.check.min": "1",
    "parquet.page.size.row.check.max": "1",
}
EXECUTOR_WAIT = 20.0  # seconds to wait for the replacement of a lost executor


class Form(Protocol):
    """A way to run a step. What a job is for stands in its settings, which the engine has set before each call."""

    def anchor(self, tokens: Blocks) -> None:
        """Pins replicas (and slices) to where these tokens are."""

    def restore(self, snapshot: Blocks | None) -> None:
        """Puts a version in place on all executors."""

    def steps(self, text: str, job: JobSettings) -> None:
        """Runs the steps of ``job``, as one or more Spark jobs whose descriptions begin with ``text``."""

    def snapshot(self, text: str, job: JobSettings, copies: int, state: StatePlan) -> tuple[RawRDD, Blocks]:
        """All state of ``job.version``, the one after the last step, persisted in blocks of at most about 64 MB."""

    def read(self) -> list[bytes]:
        """Small items of all owners of state: records or fingerprints."""

    def close(self) -> None:
        """Drops all blocks of steps."""


class SparkEngine:
    """One run on a cluster. ``make_tokens`` gives a fresh RDD of data tokens, as often as they must be placed anew."""

    def __init__(self, sc: SparkContext, run: str, payload: Payload, make_tokens: Callable[[], RDD[Any]]):
        self.sc, self.run_id, self.payload = sc, run, payload
        # the user's own, put back at the end
        self._properties = {key: sc.getLocalProperty(key) for key in (PROPERTY, DESCRIPTION, GROUP, *CALL_SITE)}
        self.jvm: Any = connect(sc)
        self.events: list[tuple[int, str]] = []
        self.version = 0  # what the next step starts from
        self._form: Form | None = None
        self._show: Callable[[str], None] = logger.warning
        self._make_tokens = make_tokens
        self._tokens: RDD[Any] | None = None
        self._generation = 0
        self._log: list[StepSettings] = []  # steps since the last snapshot, asked for
        self._seconds: dict[int, float] = {}
        self._before: StepSettings | None = None  # the step that led to the last snapshot
        self._snapshot: tuple[RawRDD, Blocks] | None = None
        self._snapshot_version = 0
        self._durable = DurableState(run)
        self._reported = 0  # steps below have been reported
        self._interval = SNAPSHOT_STEPS[0]
        self._rollbacks = 0

    # --- start and end

    def place(self) -> list[ReplicaRows]:
        """Writes the replicas' rows to the executors; returns what their tokens say.

        Raises ClusterError: they could not be read; ConfigError: nothing can be trained on them.
        """
        try:
            return self._place()
        except FAILURES as error:
            raise ClusterError(f"the training data could not be read: {failure_text(error)}") from error

    def _place(self) -> list[ReplicaRows]:
        """One token a replica, persisted where its rows are."""
        began = time.monotonic()
        self.describe("sparkdl: rows to their replicas")
        self.sc.setLocalProperty(GROUP, f"sparkdl-{self.run_id}")
        if self._tokens is not None:
            self._tokens.unpersist()
        self._tokens = self._make_tokens()
        self._token_blocks = self.jvm.keep(self._tokens)
        self._num_executors = self._count_executors()
        rows = read_tokens(self._tokens)
        self._spread_due = time.monotonic() + (time.monotonic() - began) / SPREAD_SHARE
        return rows

    def begin(self, plan: Plan, form: Form, show: Callable[[str], None], resume: Checkpoint | None = None) -> None:
        """Puts the payload's model in place as version 0, or a checkpoint's state as the version of its step.

        ``show`` is told of what is out of the ordinary. Raises ConfigError: the checkpoint is damaged, or of another
        model or training.
        """
        self.plan, self._form, self._show = plan, form, show
        if resume is not None:
            self._take_over(resume)
        try:
            self._anchor()
            self._restore()
        except FAILURES as error:
            self._recover(error)
        if resume is not None and [f.hex() for f in self.fingerprints()] != resume.state.fingerprints:
            raise ClusterError(f"the state of {resume.path} changed on its way to the executors; start the run again")

    def cancel(self) -> None:
        """Stops whatever still runs for this run."""
        self.sc.cancelJobGroup(f"sparkdl-{self.run_id}")

    def close(self) -> None:
        """Removes everything that the run keeps on the cluster."""
        if self._form is not None:
            self._form.close()
        if self._snapshot is not None:
            self._snapshot[0].unpersist()
        if self._tokens is not None:
            self.describe("sparkdl: clean up")
            try:
                remove = self.jvm.function(RemoveTask(self.run_id), "tokens")
                self.jvm.apply(self.jvm.block_rdd(self._token_blocks), remove).start().get()
            except FAILURES:
                logger.debug("cleaning up failed", exc_info=True)  # the files go with the executors
            self._tokens.unpersist()
        self._durable.close()
        for key, value in self._properties.items():
            self.sc.setLocalProperty(key, value)  # type: ignore[arg-type]  # None removes it

    # --- steps

    def run(self, steps: Sequence[StepSettings]) -> list[StepReport]:
        """Runs steps (more than one: as one Spark job). Returns the records of all steps since the last snapshot when
        one has become due, else nothing.
        """
        self._log += steps
        self._guarded(lambda: None, len(steps))
        return self.mark() if self.version - self._snapshot_version >= self._interval else []

    def mark(self) -> list[StepReport]:
        """Takes a snapshot now; returns the records of the steps since the last one."""
        if self.version == self._snapshot_version:
            return []
        began = time.perf_counter()
        records: list[StepReport] = self._guarded(self._mark)
        cost = time.perf_counter() - began
        per_step = sum(r.seconds for r in records) / max(1, len(records)) or 1.0
        fewest, most = SNAPSHOT_STEPS
        most = TABLE_SNAPSHOT_STEPS if self.payload.plan.layout.table_lots else most
        self._interval = int(min(max(cost / (SNAPSHOT_SHARE * per_step), fewest), most))
        self._rollbacks = 0
        self._spread()
        return records

    @property
    def before(self) -> StepSettings | None:
        """After :meth:`mark`: the step that led to this version."""
        return self._before

    def load_model(self, model: torch.nn.Module) -> None:
        """After :meth:`mark`: puts weights and buffers into ``model``, piece by piece."""

        def load() -> None:
            self._have_snapshot()
            saved_state.load_model(self.payload.plan, map(_part, self._snapshot_items()), model)

        self._guarded(load)

    def fingerprints(self) -> list[bytes]:
        """After :meth:`mark`: a hash of each lot's weights, optimizer state or buffers."""

        def read() -> list[bytes]:
            self._have_snapshot()
            job = self._job("digest", version=self.version)
            return read_fingerprints(self.submit(f"step {self.version}: fingerprint", job, self.form.read))

        found: list[bytes] = self._guarded(read)
        return found

    def write_state(self, directory: str) -> None:
        """After :meth:`mark`: the executors write the snapshot's parts, each where it lies, as Parquet files.

        Rows: lot int, offset long, bytes binary; see :mod:`sparkdl.saved_state`. Raises OSError: they cannot.
        """

        def write() -> None:
            _, blocks = self._have_snapshot()
            self.describe(f"step {self.version}: checkpoint")
            try:
                self.jvm.frame(blocks).write.mode("overwrite").options(**PARQUET).parquet(directory)
            except FAILURES as error:
                if any(sign in str(error) for sign in SIGNS_OF_LOSS):
                    raise
                raise OSError(f"{directory}: {first_line(failure_text(error))}") from error

        self._guarded(write)

    # --- inside

    @property
    def form(self) -> Form:
        """How steps are run, once :meth:`begin` has said so."""
        assert self._form is not None
        return self._form

    def describe(self, text: str) -> None:
        """What the Spark UI shows for the next jobs."""
        self.sc.setJobDescription(text)

    def submit(self, text: str, job: JobSettings, run: Callable[[], Any]) -> Any:
        """Runs an action under a description for the Spark UI, its tasks seeing ``job``."""
        self.describe(text)
        self.sc.setLocalProperty(PROPERTY, job.dumps())
        return run()

    def _job(self, mode: str, **values: Any) -> JobSettings:
        done = self.version - self._snapshot_version
        previous = self._log[done - 1] if done else self._before
        return JobSettings(mode, self._generation, values.pop("steps", []), previous, **values)

    def _guarded(self, then: Callable[[], Any], chunk: int = 1) -> Any:
        """Catches up with the log, then calls ``then``; goes back and tries again when the cluster lost something."""
        while True:
            try:
                while (done := self.version - self._snapshot_version) < len(self._log):
                    self._run_steps(self._log[done : done + chunk])
                return then()
            except FAILURES as error:
                self._recover(error)

    def _run_steps(self, steps: list[StepSettings]) -> None:
        began = time.perf_counter()
        first = steps[0]
        name = f"epoch {first.epoch + 1} step {first.step + 1}" + (
            f" to {steps[-1].step + 1}" if len(steps) > 1 else ""
        )
        self.form.steps(name, self._job("step", steps=steps))
        seconds = time.perf_counter() - began
        for step in steps:
            self._seconds[step.step] = seconds / len(steps)
        self.version += len(steps)

    def _mark(self) -> list[StepReport]:
        copies = 2 if self._num_executors > 1 else 1
        name = f"step {self.version}: snapshot"
        new = self.form.snapshot(name, self._job("snapshot", version=self.version), copies, self.payload.plan)
        records: list[StepReport] = []
        if self._log:
            job = self._job("records", first=self._snapshot_version, version=self.version)
            records = self._records(self.submit(f"step {self.version}: records", job, self.form.read))
        if self._snapshot is not None:
            self._snapshot[0].unpersist()
        self._snapshot, self._snapshot_version = new, self.version
        if not self._is_local():
            self._durable.since += self._log
        self._before, self._log, self._seconds = (self._log[-1] if self._log else self._before), [], {}
        self._reported = self.version
        try:
            self._keep_durable()
        except FAILURES as error:  # the older copy stays; whatever was lost shows in the next step
            logger.debug("no copy on the driver: %s", failure_text(error))
        return records

    def _records(self, items: list[bytes]) -> list[StepReport]:
        values: dict[int, np.ndarray] = {}
        for item in items:
            head = wire.unpack(item)
            values[head.version] = np.frombuffer(item[wire.HEADER_BYTES :], np.float64).reshape(
                self.plan.num_replicas, -1
            )
        # after going back further than the last snapshot, steps come by that were reported before
        fresh = [s for s in self._log if s.step in values and s.step >= self._reported]
        return [StepReport(s, values[s.step], self._seconds[s.step]) for s in fresh]

    def _have_snapshot(self) -> tuple[RawRDD, Blocks]:
        """The snapshot of this version; it is taken if the run has just begun from a checkpoint, or has lost it."""
        if self._snapshot is None or self._snapshot_version != self.version:
            assert self._reported == self.version, "mark() returns the records, so it comes first"
            self._mark()
        assert self._snapshot is not None
        return self._snapshot

    def _snapshot_items(self) -> Iterator[bytes]:
        assert self._snapshot is not None
        self.describe("sparkdl: state to the driver")
        items: Iterator[bytes] = self.jvm.items(self._snapshot[1])
        return items

    # --- going back

    def _keep_durable(self) -> None:
        """A copy of the snapshot on the driver's disk, now and then; always where only one executor holds any."""
        if not self._is_local() and (self._num_executors == 1 or self._durable.is_due):
            self._durable.write(self.version, self._before, self._snapshot_items())

    def _take_over(self, checkpoint: Checkpoint) -> None:
        """The checkpoint becomes the copy on the driver's disk."""
        state, path = checkpoint.state, checkpoint.path
        check_fits(state, self.payload, self.plan, path)
        parts = saved_state.verified(
            checkpoint_job.state_parts(self.sc, path, state), self.payload.plan, state.step, state.fingerprints, path
        )
        self._durable.write(state.step, state.before, chain.from_iterable(saved_state.items(parts, state.step)))
        self.version = self._snapshot_version = self._reported = state.step
        self._before = state.before

    def _recover(self, error: Exception) -> None:
        """Goes back to the last snapshot on whatever executors there are now. User errors are raised as they are."""
        text = failure_text(error)
        if not is_cluster_failure(text):
            raise TrainingError(text) from None
        while True:
            self._rollbacks += 1
            if self._rollbacks > MAX_ROLLBACKS:
                raise ClusterError(
                    f"step {self.version + 1} failed {self._rollbacks} times in a row on executors that were lost or "
                    f"lost their state; the last failure was: {text}{memory_hint(text)}"
                )
            where = f"from step {self.version} to step {self._snapshot_version}"
            self._note(f"went back {where}: {first_line(text)}{memory_hint(text)}")
            try:
                self._await_executors()
                self._anchor_again()
                self._restore()
                return
            except FAILURES as again:
                text = failure_text(again)
                if not is_cluster_failure(text):
                    raise TrainingError(text) from None

    def _spread(self) -> None:
        """After a snapshot: takes replicas to executors that have joined since the rows were dealt out."""
        joined = self._count_executors() - self._num_executors
        crowded = self._num_executors < self.plan.num_replicas
        if self._is_local() or joined <= 0 or not crowded or time.monotonic() < self._spread_due:
            return
        self._note(f"{joined} executors joined at step {self.version}: the replicas spread to them")
        try:
            self._anchor_again()
            self._restore()
        except FAILURES as error:
            self._recover(error)

    def _anchor_again(self) -> None:
        rows = tuple(r.num_rows for r in self._place())
        if rows != self.plan.rows_per_replica:
            raise ClusterError(
                f"the training data changed while they were read again on other executors: replicas have {rows} "
                f"rows now, they had {self.plan.rows_per_replica}; write the data to Parquet first, and train on that"
            )
        self._generation += 1
        self._anchor()

    def _anchor(self) -> None:
        for key in CALL_SITE:  # after placing: PySpark's own actions clear them
            self.sc.setLocalProperty(key, "sparkdl")
        self.form.anchor(self._token_blocks)

    def _restore(self) -> None:
        if self._snapshot is not None:
            self.version = self._snapshot_version
            try:
                job = self._job("restore", version=self.version)
                blocks = self._snapshot[1]
                self.submit(f"step {self.version}: restore", job, lambda: self.form.restore(blocks))
                return
            except FAILURES as error:
                if self._is_local() or not is_cluster_failure(text := failure_text(error)):
                    raise
                self._note(f"the snapshot of step {self.version} is lost as well: {first_line(text)}")
                self._snapshot[0].unpersist()
                self._snapshot = None
        durable = self._durable
        self.version = self._snapshot_version = durable.version
        self._before, self._log, durable.since = durable.before, durable.since + self._log, []
        file = durable.path
        if durable.path and not self._is_local():  # in local mode the executor reads the file itself
            self.sc.addFile(durable.path)
            file = os.path.basename(durable.path)
        job = self._job("restore", version=durable.version, file=file)
        text = f"step {durable.version}: restore" if durable.path else "sparkdl: first weights"
        self.submit(text, job, lambda: self.form.restore(None))

    def _note(self, text: str) -> None:
        self.events.append((self.version, text))
        self._show(text)

    def _is_local(self) -> bool:
        return is_local(self.sc)

    def _count_executors(self) -> int:
        return max(1, int(self.sc._jsc.sc().getExecutorMemoryStatus().size()) - 1)

    def _await_executors(self) -> None:
        """Until as many executors are there as before, or EXECUTOR_WAIT is over: then those that are there must do."""
        deadline = time.monotonic() + EXECUTOR_WAIT
        time.sleep(0.2)
        while not self._is_local() and self._count_executors() < self._num_executors and time.monotonic() < deadline:
            time.sleep(0.2)


def _part(item: bytes) -> saved_state.Part:
    head = wire.unpack(item)
    return head.replica, head.start, memoryview(item)[wire.HEADER_BYTES :]


def is_local(sc: SparkContext) -> bool:
    """Whether driver and executor are one process."""
    master = str(sc.master)
    return master == "local" or master.startswith("local[")


def connect(sc: SparkContext) -> JVM | Public:
    """The fast private operations, or, where their self-test fails, the public ones."""
    if works(sc):
        return JVM(sc)
    logger.warning(
        "sparkdl does not know the inside of Spark %s; it trains by public calls alone, more slowly", sc.version
    )
    return Public(sc)
