"""A training whose driver is killed again and again, and resumed each time.

`python -m tests.sparkdl.resume_run` compares it with the training that nobody touched: weights, optimizer state, best
weights and history must be the same. The tests do so with a few kills, this command with 20 of 600 steps.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim import lr_scheduler

from sparkdl import Callback, EarlyStopping, ModelCheckpoint, SeveralIteration, Trainer, spark_conf
from sparkdl.callbacks import FitState
from sparkdl.history import StepRecord
from tests.sparkdl.runs import arrays, norm_net

ROWS, BATCH, STEPS = 1875, 25, 60  # a fifth of the rows is held out; steps an epoch


class Steps(Callback):
    """Writes the last step down, for whoever wants to kill."""

    def __init__(self, path: Path):
        self.path = path

    def on_step_end(self, state: FitState, record: StepRecord) -> None:
        self.path.write_text(str(record.step + 1))


def train(directory: Path, steps: int, steps_per_job: int, form: str) -> dict[str, Any]:
    """The training in the active session, from wherever its checkpoints are; what came out."""
    trainer = Trainer(
        norm_net(),
        torch.nn.CrossEntropyLoss(),
        partial(torch.optim.Adam, lr=3e-3),
        scheduler=partial(lr_scheduler.CosineAnnealingLR, T_max=steps),
        batch_size=BATCH,
        replicas=2,
        form=form,
        steps_per_job=steps_per_job,
        seed=3,
    )
    history = trainer.fit(
        arrays(ROWS),
        epochs=steps // STEPS,
        validation=0.2,
        validate_every=SeveralIteration(40),
        resume="auto",
        callbacks=[
            EarlyStopping("val_loss", patience=3, restore_best=True),
            Steps(directory / "step"),
            ModelCheckpoint(
                str(directory / "checkpoints"), every=SeveralIteration(15), keep_last=2, monitor="val_loss"
            ),
        ],
        verbose=0,
    )
    best = hashlib.sha256()
    for tensor in trainer.model.state_dict().values():
        best.update(tensor.numpy().tobytes())
    return {
        "steps": len(history.steps),
        "fingerprint": history.fingerprint,
        "best": best.hexdigest(),
        "losses": hashlib.sha256(history.steps["loss"].to_numpy().tobytes()).hexdigest(),
        "validations": history.validations.to_dict("list"),
        "stopped": [text for _, text in history.events if "stopped" in text],
        "checkpoints": sorted(path.name for path in (directory / "checkpoints").iterdir()),
    }


def killed(directory: Path, steps: int, kills: int, seed: int, options: list[str]) -> dict[str, Any]:
    """The same training in processes that are killed so often, at random moments, and one that is not."""
    rng = random.Random(seed)
    at: list[int] = []
    step = directory / "step"

    def reached() -> int:
        return int(step.read_text() or 0) if step.exists() else 0

    while True:
        step.unlink(missing_ok=True)
        child = subprocess.Popen([sys.executable, "-m", __spec__.name, "--child", str(directory), *options])
        if len(at) == kills:
            assert child.wait() == 0
            return {**json.loads((directory / "result.json").read_text()), "killed_at": at}
        if rng.random() < 0.8:  # somewhere further on than before
            goal = min(max(at, default=0) + rng.randint(1, 2 * steps // (kills + 1)), steps - 20)
            while child.poll() is None and reached() < goal:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 0.5))
        else:  # while it starts, or goes back to its checkpoint
            time.sleep(rng.uniform(0.0, 10.0))
        child.send_signal(signal.SIGKILL)
        child.wait()
        if (directory / "result.json").exists():
            raise AssertionError(f"the training ended after {len(at)} kills; it must be longer")
        at.append(reached())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps-per-job", type=int, default=1)
    parser.add_argument("--form", default="gather")
    parser.add_argument("--child", type=Path)
    parsed = parser.parse_args()
    if parsed.child:
        spark = spark_conf.start_embedded(cores=2)
        result = train(parsed.child, parsed.steps, parsed.steps_per_job, parsed.form)
        spark.stop()
        aside = parsed.child / "result"
        aside.write_text(json.dumps(result))
        os.rename(aside, parsed.child / "result.json")
        return
    options = ["--steps", str(parsed.steps), "--steps-per-job", str(parsed.steps_per_job), "--form", parsed.form]
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        whole = killed(Path(first), parsed.steps, 0, 0, options)
        began = time.monotonic()
        cut = killed(Path(second), parsed.steps, parsed.kills, parsed.seed, options)
    at, _ = cut.pop("killed_at"), whole.pop("killed_at")
    print(
        json.dumps(
            {
                "steps": whole["steps"],
                "kills": parsed.kills,
                "killed_at": at,
                "steps_per_job": parsed.steps_per_job,
                "form": parsed.form,
                "seconds": round(time.monotonic() - began, 1),
                "stopped": whole["stopped"],
                "fingerprint": whole["fingerprint"],
                "same": cut == whole,
            }
        )
    )
    if cut != whole:
        sys.exit(f"not the same: {cut} and {whole}")


if __name__ == "__main__":
    main()
