"""Submits the jobs of a step whose gradients are shuffled by slice: as two jobs, or fused into one of two stages."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from sparkdl import wire
from sparkdl.forward_backward_job import ForwardBackwardTask
from sparkdl.parameter_sync_job import PinTask, SyncTask, items_per_step
from sparkdl.payload import Payload
from sparkdl.slices import lots_of, pieces
from sparkdl.spark_internals import JVM, Blocks, Parent, RawRDD
from sparkdl.state_job import SnapshotTask, owned_lots
from sparkdl.step_settings import JobSettings, Plan, Submit
from sparkdl.sync import clip_factor
from sparkdl.versioned_state import StatePlan, num_shares


class _Step(NamedTuple):
    gradients: RawRDD
    shuffled: Parent  # the same by slice, on the slices' owners
    weights: RawRDD


class SlicesForm:
    """See :class:`sparkdl.spark_engine.Form`.

    fused: one job a step (or ``steps_per_job``) with a shuffle inside; else a forward-backward job that persists the
    gradients and a parameter-sync job. submit: sets the description and settings of the next job.
    """

    def __init__(
        self,
        jvm: JVM,
        plan: Plan,
        payload: Payload,
        fused: bool,
        submit: Submit,
        steps_per_job: int = 1,
    ):
        self._jvm, self._plan, self._payload, self._fused, self._submit = jvm, plan, payload, fused, submit
        self._clip = payload.clip_norm is not None
        positions = range(steps_per_job)
        self._forward = [jvm.function(ForwardBackwardTask(plan, i), "pairs") for i in positions]
        self._sync = [jvm.function(SyncTask(plan, i), "pairs") for i in positions]
        self._from_tokens = jvm.function(SyncTask(plan), "tokens")
        tables = len(payload.plan.layout.table_lots)
        counts = Counter(p.slice for p in pieces(payload.plan.layout, plan.slices))
        self._pin = jvm.function(
            PinTask(plan, items_per_step(plan, counts, payload.plan.has_buffers, tables)), "tokens"
        )
        self._owners = list(range(len(plan.slices)))
        self._emit: dict[tuple[tuple[int, int], ...], Any] = {}  # a snapshot's places -> its function
        self._anchor: Any = None
        self._owner_anchor: Any = None
        self._pins: RawRDD | None = None
        self._pinned_to: Any = None
        self._last: RawRDD | None = None  # the weights that the next step reads
        self._ready: list[_Step] = []
        self._done: list[RawRDD] = []

    def anchor(self, tokens: Blocks) -> None:
        """Pins replica r to where token r is, and slice n to where token n is."""
        self.close()
        self._tokens = tokens
        self._anchor = self._jvm.block_rdd(tokens)
        self._owner_anchor = self._jvm.block_rdd(tokens.only(self._owners))
        self._pins = self._jvm.apply(self._owner_anchor, self._pin)
        self._pins.persist().run_or_drop()
        self._pinned_to = self._jvm.pins(self._pins.blocks(self._owners))

    def restore(self, snapshot: Blocks | None) -> None:
        """Every owner of a slice takes its lots and gives out its weights."""
        if snapshot is None:
            restored = self._jvm.apply(self._owner_anchor, self._from_tokens)
        else:
            restored = self._jvm.apply(self._jvm.beside(self._owner_anchor, snapshot), self._sync[0])
        restored.persist().run_or_drop()
        self._last = restored

    def steps(self, text: str, job: JobSettings) -> None:
        """One job of several steps, or the jobs of one step."""
        assert self._last is not None
        num_steps = len(job.steps)
        chain = self._ready if len(self._ready) == num_steps else self._build(self._last, num_steps)
        last = self._last
        made = [rdd for step in chain for rdd in (step.gradients, step.weights)]
        try:
            if self._clip:
                self._clipped(text, job, chain[0])
            else:
                if not self._fused:
                    self._submit(f"{text}: forward-backward", job, lambda: chain[0].gradients.start().get())
                name = f"{text}: forward-backward and parameter sync" if self._fused else f"{text}: parameter sync"
                future = self._submit(name, job, chain[-1].weights.start)
                self._ready = self._build(chain[-1].weights, num_steps)
                self._drop()
                future.get()
        except BaseException:
            self._done += made  # for close()
            raise
        self._done = [last, *made[:-1]]
        self._last = chain[-1].weights

    def _clipped(self, text: str, job: JobSettings, step: _Step) -> None:
        """With ``clip_norm``: sums wait on the owners until the norms of all are known."""
        if not self._fused:
            self._submit(f"{text}: forward-backward", job, lambda: step.gradients.start().get())
        name = f"{text}: forward-backward and sums" if self._fused else f"{text}: sums"
        items = self._submit(name, replace(job, mode="sum"), self._jvm.apply(step.shuffled, self._sync[0]).collect)
        layout, norms = self._payload.plan.layout, dict[int, float]()
        for item in items:
            lots = lots_of(layout, self._plan.slices, wire.unpack(item).replica)
            norms.update(zip(lots, np.frombuffer(item[wire.HEADER_BYTES :], np.float64).tolist(), strict=True))
        clip = clip_factor(self._payload, [norms[lot] for lot in sorted(norms)])
        self._submit(
            f"{text}: parameter sync", replace(job, mode="update", clip=clip), lambda: step.weights.start().get()
        )
        self._drop()

    def _build(self, last: RawRDD, num_steps: int) -> list[_Step]:
        chain: list[_Step] = []
        for i in range(num_steps):
            before = chain[-1].weights if chain else last
            parent = self._jvm.beside(self._anchor, before.blocks(self._owners), after=before if chain else None)
            gradients = self._jvm.apply(parent, self._forward[i])
            if not self._fused:
                gradients.persist()
            shuffled = self._jvm.shuffled(gradients, self._pinned_to)
            if self._clip:
                weights = self._jvm.apply(Parent(self._owner_anchor.rdd, shuffled.shuffles), self._from_tokens)
            else:
                weights = self._jvm.apply(shuffled, self._sync[i])
            chain.append(_Step(gradients, shuffled, weights.persist()))
        return chain

    def snapshot(self, text: str, job: JobSettings, copies: int, state: StatePlan) -> tuple[RawRDD, Blocks]:
        """Every owner emits its lots, many of them in several tasks."""
        places = tuple(
            (owner, share)
            for owner in self._owners
            for share in range(num_shares(state, owned_lots(state, self._plan, owner), job.version))
        )
        if places not in self._emit:
            self._emit = {places: self._jvm.function(SnapshotTask(self._plan, places), "tokens")}
        anchor = self._jvm.block_rdd(self._tokens.only([owner for owner, _ in places]))
        found = self._jvm.apply(anchor, self._emit[places])
        self._submit(text, job, found.persist(copies).run_or_drop)
        return found, found.blocks(list(range(len(places))))

    def read(self) -> list[bytes]:
        """Records or fingerprints, from the owners of the slices."""
        return self._jvm.apply(self._owner_anchor, self._from_tokens).collect()

    def close(self) -> None:
        """Drops all blocks of steps."""
        self._drop()
        for rdd in [*(r for step in self._ready for r in (step.gradients, step.weights)), self._last, self._pins]:
            if rdd is not None:
                rdd.unpersist()
        self._ready, self._last, self._pins = [], None, None

    def _drop(self) -> None:
        for rdd in self._done:
            rdd.unpersist()
        self._done = []
