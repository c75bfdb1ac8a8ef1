"""Small models, data and reference runs that several tests train with."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sparkdl import Trainer, batches, slices
from sparkdl.callbacks import Callback, FitState
from sparkdl.course import Course
from sparkdl.history import History, StepRecord
from sparkdl.step_settings import Plan
from sparkdl.stored_arrays import from_arrays
from sparkdl.training_loop import Schedule, Twin, train
from sparkdl.triggers import EveryEpoch, MaxEpoch, Trigger


def arrays(rows: int, classes: int = 5, width: int = 12) -> dict[str, np.ndarray]:
    """Rows of noise around class centres."""
    rng = np.random.default_rng(7)
    labels = rng.integers(0, classes, rows)
    centres = rng.normal(size=(classes, width))
    return {
        "features": (centres[labels] + rng.normal(size=(rows, width))).astype(np.float32),
        "label": labels.astype(np.int64),
    }


def mlp() -> nn.Module:
    """The same weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 5))


def norm_net() -> nn.Module:
    """With BatchNorm's buffers and Dropout's randomness."""
    with torch.random.fork_rng():
        torch.manual_seed(12)
        return nn.Sequential(nn.Linear(12, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 5))


def replica_rows(data: Mapping[str, np.ndarray], replicas: int) -> list[dict[str, np.ndarray]]:
    """How arrays are dealt to replicas."""
    stored = from_arrays(dict(data))
    return [{name: np.ascontiguousarray(a[r::replicas]) for name, a in stored.items()} for r in range(replicas)]


def trained_by_torch(
    model: nn.Module,
    make_optimizer: Callable[[Any], torch.optim.Optimizer],
    data: Mapping[str, np.ndarray],
    replicas: int,
    batch_size: int,
    epochs: int,
    seed: int,
) -> nn.Module:
    """One plain PyTorch process on the same global batches; nothing of sparkdl but the batches' row numbers."""
    optimizer = make_optimizer(model.parameters())
    parts = replica_rows(data, replicas)
    counts = [len(p["label"]) for p in parts]
    for epoch in range(epochs):
        for step in range(batches.num_steps(sum(counts), batch_size)):
            picked = [batches.rows(seed, epoch, step, r, counts, batch_size) for r in range(replicas)]
            x = torch.from_numpy(np.concatenate([p["features"][i] for p, i in zip(parts, picked, strict=True)]))
            y = torch.from_numpy(np.concatenate([p["label"][i] for p, i in zip(parts, picked, strict=True)]))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model


def course(
    history: History,
    plan: Plan,
    until: Trigger,
    validate: Callable[[], Mapping[str, float]] | None = None,
    validate_every: Trigger | None = None,
    callbacks: Sequence[Callback] = (),
    show: Callable[[StepRecord], None] = lambda record: None,
    model: nn.Module | None = None,
) -> Course:
    """A course without Spark: no checkpoints, and a model that does not change."""

    def refuse(path: str) -> str:
        raise AssertionError(f"a checkpoint was written or removed: {path}")

    state = FitState(history, plan.steps_per_epoch, lambda: model or nn.Identity(), refuse, refuse, lambda text: None)
    return Course(state, until, validate, validate_every or EveryEpoch(), callbacks, show)


def fingerprint_of_twin(trainer: Trainer, model: nn.Module, data: Mapping[str, np.ndarray], epochs: int) -> str:
    """Runs the single-process twin with the trainer's settings from ``model``'s weights on; a history's fingerprint."""
    trained, trainer._model = trainer._model, model
    try:
        payload, stand_in = trainer._payload()
    finally:
        trainer._model = trained
    parts = replica_rows(data, trainer._replicas or 1)
    counts = tuple(len(p["label"]) for p in parts)
    layout = payload.plan.layout
    plan = Plan("twin", payload.seed, payload.batch_size, counts, tuple(slices.cut(layout, 1)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as Spark's workers with one CPU a task
    with tempfile.TemporaryDirectory() as directory:
        try:
            twin = Twin(payload, plan, parts, directory)
            schedule = Schedule(stand_in, trainer._scheduler, payload.template.hyper)
            names = list(payload.metrics)
            history = History()
            train(twin, plan, schedule, course(history, plan, MaxEpoch(epochs)), 1, names, history)
        finally:
            torch.set_num_threads(threads)
        whole = hashlib.sha256()
        for lot in range(payload.plan.num_lots):
            digest = hashlib.blake2b(digest_size=32)
            for _, _, memory in twin.state.parts(lot, twin.version):
                digest.update(memory)
            whole.update(digest.digest())
        twin.state.close()
    return whole.hexdigest()
