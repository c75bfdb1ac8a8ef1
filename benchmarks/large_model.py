"""Does a model of more than 2**31 bytes train, save and resume, and what does each process need?

One large embedding and a stack of large linear layers, 600 million parameters (2.4 GB of fp32), plain SGD, one replica
on local[1]. Three steps and a checkpoint in one process; a second one resumes from it and must hold the same bits, then
runs one more step. Prints one JSON line: sizes, seconds of each part, and the largest resident memory of each process,
mapped files included and (anonymous) without them.

    python benchmarks/large_model.py                  about 40 GB of disk, 14 GB of memory
    python benchmarks/large_model.py --quick          a hundredth of the size, a minute
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from processes import Watch, rss
from torch import nn

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))
MB = 1 << 20
STEPS, ROWS, BATCH, TOKENS = 3, 64, 16, 8
WIDTH, LAYERS = 6000, 8


class Network(nn.Module):
    """Embedding -> mean -> linear layers; about `parameters` elements, a half of them in the embedding."""

    def __init__(self, parameters: int):
        super().__init__()
        width = max(16, int(WIDTH * (parameters / 600e6) ** 0.5) // 16 * 16)
        torch.manual_seed(0)
        self.embedding = nn.Embedding((parameters - LAYERS * width * width) // width, width)
        self.layers = nn.Sequential(*[nn.Linear(width, width) for _ in range(LAYERS)], nn.Linear(width, 10))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """int64 [B, T] -> logits [B, 10]."""
        found: torch.Tensor = self.layers(self.embedding(tokens).mean(1))
        return found


class Peaks(Watch):
    """The highest resident memory of each kind of process: all of it, and what is in no file."""

    def __init__(self) -> None:
        super().__init__(seconds=0.2)
        self.peaks: dict[str, int] = {}

    def see(self, kind: str, pid: int) -> None:
        """Keep the highest."""
        name = "jvm" if kind.endswith("JVM") else kind.lower().replace(" ", "_")
        self.peaks[f"{name}_mb"] = max(self.peaks.get(f"{name}_mb", 0), rss(pid) // MB)
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return
        anonymous = next((int(line.split()[1]) >> 10 for line in lines if line.startswith("RssAnon:")), 0)
        self.peaks[f"{name}_anonymous_mb"] = max(self.peaks.get(f"{name}_anonymous_mb", 0), anonymous)


class Clock:
    """Seconds between calls, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """The time since the last call was spent on `name`."""
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 1)
        print(f"{name}: {self.seconds[name]} s", file=sys.stderr, flush=True)
        self._last = now


def child(arguments: argparse.Namespace) -> dict[str, Any]:
    """One process: trains and saves, or resumes and trains on."""
    from sparkdl import checkpoint_files, checkpoint_job, replica_data_job, slices, spark_conf
    from sparkdl.columns import Columns
    from sparkdl.gather_job import GatherForm
    from sparkdl.optim import template
    from sparkdl.payload import Payload, buffer_sizes
    from sparkdl.shipped_payload import ShippedPayload
    from sparkdl.spark_engine import SparkEngine
    from sparkdl.step_settings import Plan, StepSettings
    from sparkdl.versioned_state import state_plan

    watch, clock = Peaks(), Clock()
    watch.start()
    settings = {
        "spark.driver.memory": arguments.driver_memory,
        "spark.local.dir": f"{arguments.folder}/spark",
        "spark.app.name": "large model",
    }
    spark = spark_conf.start_embedded(cores=1, settings=settings)
    sc = spark.sparkContext
    clock.lap("spark")
    model = Network(arguments.parameters)
    size = sum(p.numel() for p in model.parameters())
    clock.lap("model")
    found, _ = template(partial(torch.optim.SGD, lr=0.1), model)
    places = [(name, tuple(p.shape), found.group_of[name]) for name, p in model.named_parameters()]
    plan_of_state = state_plan(found, slices.layout(places, found.elementwise), *buffer_sizes(model))
    columns = Columns.parse("tokens", "label")
    payload = Payload(
        model=model, loss=nn.functional.cross_entropy, template=found, plan=plan_of_state, columns=columns, seed=0,
        batch_size=BATCH,
    )  # fmt: skip
    run, rng = uuid.uuid4().hex[:12], np.random.default_rng(0)
    data = {
        "tokens": rng.integers(0, model.embedding.num_embeddings, (ROWS, TOKENS)),
        "label": rng.integers(0, 10, ROWS),
    }
    shared: Any = ShippedPayload(sc, payload)
    arrays = sc.broadcast(data)
    clock.lap("payload")
    engine = SparkEngine(sc, run, payload, lambda: replica_data_job.array_tokens(sc, arrays, columns, 1, run, shared))
    counts = tuple(row.num_rows for row in engine.place())
    plan = Plan(run, 0, BATCH, counts, tuple(slices.cut(plan_of_state.layout, 1)))
    clock.lap("rows and payload to the executor")
    resume = None if arguments.resume is None else checkpoint_job.read(sc, arguments.resume)
    engine.begin(plan, GatherForm(engine.jvm, plan, engine.submit), lambda text: print(text, file=sys.stderr), resume)
    clock.lap("begin" if resume is None else "resume, verified")
    result: dict[str, Any] = {}
    if resume is not None:
        result["fingerprint_at_start"] = whole(engine.fingerprints())
        clock.lap("fingerprint at the start")
    first = engine.version
    for step in range(first, first + (1 if resume else STEPS)):
        engine.run([StepSettings(step, step // plan.steps_per_epoch, step % plan.steps_per_epoch, [{}])])
        clock.lap(f"step {step + 1}")
    engine.mark()
    clock.lap("snapshot")
    result["fingerprint"] = whole(engine.fingerprints())
    clock.lap("fingerprint")
    if resume is None:
        engine.load_model(model)
        clock.lap("model to the driver")
        state = checkpoint_files.describe(payload, plan, engine.version)
        path = checkpoint_job.save(sc, f"{arguments.folder}/root", engine, model, state, {"step": np.arange(STEPS)}, [])
        clock.lap("checkpoint")
        sizes = checkpoint_job.read(sc, path).state.files
        result |= {
            "path": path,
            "state_mb": sum(s for name, s in sizes.items() if name.startswith("state/")) // MB,
            "state_files": sum(name.startswith("state/") for name in sizes),
            "model_mb": sum(s for name, s in sizes.items() if name.startswith("model")) // MB,
        }
    assert engine.events == [], engine.events
    engine.close()
    spark.stop()
    return result | {"parameters": size, "seconds": clock.seconds, "peaks": watch.peaks}


def whole(prints: list[bytes]) -> str:
    """One number for all lots."""
    return hashlib.sha256(b"".join(prints)).hexdigest()


def start(arguments: argparse.Namespace, *more: str) -> dict[str, Any]:
    """Runs `child` in a process of its own."""
    command = [sys.executable, str(HERE), "--child", "--folder", arguments.folder]
    command += ["--parameters", str(arguments.parameters), "--driver-memory", arguments.driver_memory, *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=600_000_000)
    parser.add_argument("--driver-memory", default="2g", help="the JVM's heap (default: 2g)")
    parser.add_argument("--folder", help="where everything is written (default: a temporary directory)")
    parser.add_argument("--quick", action="store_true", help="6 million parameters")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--resume", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments)))
        return
    if arguments.quick:
        arguments.parameters //= 100
    made = arguments.folder is None
    arguments.folder = arguments.folder or tempfile.mkdtemp(prefix="large-model-")
    try:
        began = time.perf_counter()
        trained = start(arguments)
        shutil.rmtree(f"{arguments.folder}/spark", ignore_errors=True)
        resumed = start(arguments, "--resume", trained.pop("path"))
        same = trained["fingerprint"] == resumed["fingerprint_at_start"]
        seconds = round(time.perf_counter() - began, 1)
        print(json.dumps({"same_bits": same, "total_seconds": seconds, "trained": trained, "resumed": resumed}))
        sys.exit(0 if same else 1)
    finally:
        if made:
            shutil.rmtree(arguments.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
