"""The gather form of a step: one Spark stage.

Every replica reads all gradients of the step before from the block store, sums them in replica order, brings its
executor's state forward, and goes straight on to its own forward-backward. Half the stages of the other forms, R
times the traffic: for few replicas or small models.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from sparkdl import replica_cache, state_job, sync, wire
from sparkdl.forward_backward_job import forward_backward
from sparkdl.replica_cache import RunCache, job_settings
from sparkdl.shared_gradient import sum_range
from sparkdl.spark_internals import JVM, Blocks, RawRDD
from sparkdl.step_settings import JobSettings, Plan, StepSettings, Submit
from sparkdl.versioned_state import StatePlan, num_shares
from sparkdl.wire import Source


class GatherTask:
    """The task of a gather job; which of the job's steps it runs is ``position`` (``steps_per_job``)."""

    def __init__(self, plan: Plan, position: int = 0):
        self.plan, self.position = plan, position

    def __call__(self, replica: int, source: Source) -> Iterator[wire.Parts]:
        """See :data:`sparkdl.spark_internals.TaskFunction`."""
        job, plan = job_settings(), self.plan
        cache = replica_cache.get(plan.run)
        lots = range(cache.payload.plan.num_lots)
        if job.mode == "restore":
            state_job.restore(cache, job, lots, source)
            yield [wire.header(wire.START, job.version, replica)]
        elif job.mode == "records":
            source.drain()
            yield from state_job.read_records(cache, plan, job)
        elif job.mode == "digest":
            source.drain()
            yield from state_job.fingerprint(cache.state(job.generation), job.version, lots)
        else:
            previous = job.steps[self.position - 1] if self.position else job.previous
            timings = [0.0, 0.0]
            version = _bring_forward(cache, plan, job.generation, previous, replica, source, timings)
            if job.mode == "snapshot":
                yield from state_job.snapshot(cache.state(job.generation), version, lots)
            elif job.mode == "step":
                state, settings = cache.state(job.generation), job.steps[self.position]
                state.require(settings.step, lots)
                tables = state if cache.payload.plan.layout.table_lots else None
                weights, buffers = state.weights(settings.step), state.buffers(settings.step)
                for _, parts in forward_backward(
                    cache, plan, job.generation, settings, replica, weights, buffers, timings, tables
                ):
                    yield parts


def _bring_forward(
    cache: RunCache,
    plan: Plan,
    generation: int,
    previous: StepSettings | None,
    replica: int,
    source: Source,
    timings: list[float],
) -> int:
    """Reads the gradients of the previous step and updates this executor's state; returns the version it is now at."""
    payload, state = cache.payload, cache.state(generation)
    layout = payload.plan.layout
    if previous is not None and state.has(previous.step + 1, range(payload.plan.num_lots)):
        source.drain()  # other tasks of this executor have done it all
        return previous.step + 1
    total = cache.sum(0, layout.dense_size, plan.num_replicas, layout.table_lots)
    began = time.perf_counter()
    contributors = plan.contributors(previous.index) if previous else ()
    started = total.read(source, previous.step if previous else -1, contributors)
    timings[0] = (time.perf_counter() - began) * 1e3
    if started is not None:
        state.require(started, range(payload.plan.num_lots))
        return started
    assert previous is not None
    began = time.perf_counter()
    step, num_lots = previous.step, len(layout.lots)
    scale = total.scale()
    shared = [cache.shared_gradient(total.shared[r]).read(step) for r in contributors if r in total.shared]

    finished = False

    def gradient(start: int, stop: int) -> torch.Tensor:
        found = total.gradient(payload, start, stop)
        if finished or found.is_sparse:
            return found
        return sync.finish(payload, sum_range(shared, start, stop, found) if shared else found, scale)

    clip = 1.0
    if payload.clip_norm is not None:
        clip = sync.clip_factor(payload, sync.square_norm(payload, range(num_lots), gradient))
        finished = True  # the norm went over all of it: nothing is to be finished twice
    # before the update: who finds it done must find the records as well
    state_job.keep_records(cache, plan, generation, step, total.records)
    # tasks of one executor share the work: each begins at another lot, and skips what is done
    first = replica * num_lots // plan.num_replicas
    order = [*range(first, num_lots), *range(first)]
    sync.update_lots(payload, state, cache.optimizer, order, step, gradient, clip, previous.hyper)
    if (buffers := total.buffers()) is not None:
        state.set_buffers(step + 1, *buffers)
    state.require(step + 1, range(payload.plan.num_lots))
    timings[1] = (time.perf_counter() - began) * 1e3
    return step + 1


class GatherForm:
    """Submits the jobs; the driver's half of this module. See :class:`sparkdl.spark_engine.Form`."""

    def __init__(self, jvm: JVM, plan: Plan, submit: Submit, steps_per_job: int = 1):
        self._jvm, self._plan, self._submit = jvm, plan, submit
        self._everybody = list(range(plan.num_replicas))
        self._functions = [jvm.function(GatherTask(plan, i), "pairs") for i in range(steps_per_job)]
        self._from_tokens = jvm.function(GatherTask(plan), "tokens")
        self._anchor: Any = None
        self._first: Any = None
        self._last: RawRDD | None = None  # gradients (or start tokens) that wait for the next step
        self._ready: list[RawRDD] = []  # the next job's RDDs, built while the one before ran
        self._done: list[RawRDD] = []  # gradients that nobody needs any more

    def anchor(self, tokens: Blocks) -> None:
        """Pins replica r to where token r is; state is kept by whoever holds a replica."""
        self.close()
        self._tokens = tokens
        self._anchor = self._jvm.block_rdd(tokens)
        self._first = self._jvm.block_rdd(tokens.only([0]))

    def restore(self, snapshot: Blocks | None) -> None:
        """Every executor takes the snapshot (or, without one, the payload's model or the job's file)."""
        if snapshot is None:
            started = self._jvm.apply(self._anchor, self._from_tokens)
        else:
            started = self._jvm.apply(self._jvm.beside(self._anchor, snapshot), self._functions[0])
        started.persist().run_or_drop()
        self._last = started

    def steps(self, text: str, job: JobSettings) -> None:
        """One job; it first syncs the parameters with the gradients of the step before."""
        assert self._last is not None
        num_steps = len(job.steps)
        chain = self._ready if len(self._ready) == num_steps else self._build(self._last, num_steps)
        future = self._submit(f"{text}: forward-backward", job, chain[-1].start)
        # while the job runs: build the next one, drop what the last one read
        self._ready = self._build(chain[-1], num_steps)
        self._drop()
        self._done = list(chain)  # for close(), if the job fails
        future.get()
        self._done = [self._last, *chain[:-1]]
        self._last = chain[-1]

    def _build(self, last: RawRDD, num_steps: int) -> list[RawRDD]:
        chain: list[RawRDD] = []
        for function in self._functions[:num_steps]:
            before = chain[-1] if chain else last
            parent = self._jvm.beside(self._anchor, before.blocks(self._everybody), after=before if chain else None)
            chain.append(self._jvm.apply(parent, function).persist())
        return chain

    def snapshot(self, text: str, job: JobSettings, copies: int, state: StatePlan) -> tuple[RawRDD, Blocks]:
        """Replica 0 applies the gradients that wait and emits its state, a large one in several tasks."""
        assert self._last is not None
        shares = num_shares(state, range(state.num_lots), job.version)
        applied = self._jvm.apply(self._jvm.beside(self._first, self._last.blocks(self._everybody)), self._functions[0])
        if shares == 1 or self._jvm.gather_only:
            self._submit(text, job, applied.persist(copies).run_or_drop)
            return applied, applied.blocks([0])
        self._submit(f"{text}, parameter sync", replace(job, mode="sync"), lambda: applied.start().get())
        anchor = self._jvm.block_rdd(self._tokens.only([0] * shares))
        task = state_job.SnapshotTask(self._plan, [(None, share) for share in range(shares)])
        found = self._jvm.apply(anchor, self._jvm.function(task, "tokens"))
        self._submit(text, job, found.persist(copies).run_or_drop)
        return found, found.blocks(list(range(shares)))

    def read(self) -> list[bytes]:
        """Records or fingerprints, from replica 0's executor."""
        return self._jvm.apply(self._first, self._from_tokens).collect()

    def close(self) -> None:
        """Drops all blocks of steps."""
        self._drop()
        for rdd in [*self._ready, *filter(None, [self._last])]:
            rdd.unpersist()
        self._ready, self._last = [], None

    def _drop(self) -> None:
        for rdd in self._done:
            rdd.unpersist()
        self._done = []
