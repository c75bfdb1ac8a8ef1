"""Whether thousands of steps use no more heap, block store, disk or memory than hundreds: one fit, sampled as it runs.

Prints one JSON line per sample and at the end a verdict: for each measure the first samples after --settled steps
against the last ones. A measure is flat if it grew by no more than its tolerance, which the verdict states. Exit code
1: something grew.

    python benchmarks/soak.py --steps 10000
    python benchmarks/soak.py --steps 2000 --master "local-cluster[2,1,2000]" --replicas 2
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import models
import peers
from processes import processes_below, rss

# What may be added to a measure between the two ends of a run: a share of its value, and an absolute amount below
# which differences are noise (a half-finished step's blocks, files being replaced, Java's and malloc's own slack).
TOLERANCES: dict[str, tuple[float, float]] = {
    "driver_heap_mb": (0.10, 8),
    "executor_heap_mb": (0.10, 8),  # the sum over executors, as the measures below
    "rdds_mb": (0.05, 1),
    "block_store_mb": (0.05, 2),  # with broadcasts, memory only
    "storage_rdds": (0, 3),
    "persistent_rdds": (0, 3),
    "local_files": (0, 20),
    "local_mb": (0.05, 2),
    "worker_rss_mb": (0.05, 16),
    "driver_python_rss_mb": (0.05, 16),
    "step_ms": (0.15, 2),
}
ENDS = 3  # samples at either end whose median counts


class Sampler:
    """Looks at JVMs, block store, disk and processes every `every` steps: `with peers.watching(sampler.on_step)`."""

    def __init__(self, spark: Any, local_dir: str, every: int) -> None:
        self.sc = spark.sparkContext
        self.local_dir = local_dir
        self.every = every
        self.samples: list[dict[str, float]] = []
        self._due = every
        self._recorded = time.perf_counter()
        self._last = (0, self._recorded)

    def on_step(self, record: Any) -> None:
        """A step was recorded; that happens some at a time, so a sample may come some steps late."""
        steps = record.step + 1
        # Steps recorded at a time share one moment: only the first of them may stand for it.
        first = time.perf_counter() - self._recorded > 0.001
        self._recorded = time.perf_counter()
        if not first or steps < self._due:
            return
        self._due = (steps // self.every + 1) * self.every
        before, begun = self._last
        # The time that sampling itself takes, garbage collections above all, is left out.
        step_ms = 1000 * (time.perf_counter() - begun) / (steps - before)
        self.samples.append({"step": steps, "step_ms": round(step_ms, 2), **self.measure()})
        print(json.dumps(self.samples[-1]), flush=True)
        self._recorded = time.perf_counter()
        self._last = (steps, self._recorded)

    def measure(self) -> dict[str, float]:
        """The machine as it is now; megabytes are 2**20 bytes."""
        driver = self.sc._gateway.proc.pid
        children = processes_below(driver)
        executors = [pid for pid, words in children.items() if "CoarseGrainedExecutorBackend" in words]
        workers = [pid for pid, words in children.items() if "pyspark.daemon" in words or "pyspark/daemon" in words]
        # An executor of a cluster keeps its files in its own working directory, beside its share of `local_dir`.
        disk = [disk_usage(folder) for folder in {self.local_dir, *(os.readlink(f"/proc/{e}/cwd") for e in executors)}]
        storage = list(self.sc._jsc.sc().getRDDStorageInfo())
        found = {
            "driver_heap_mb": heap_mb(driver),
            "rdds_mb": mb(sum(rdd.memSize() + rdd.diskSize() for rdd in storage)),
            "block_store_mb": mb(block_store_bytes(self.sc)),
            "storage_rdds": len(storage),
            "persistent_rdds": self.sc._jsc.getPersistentRDDs().size(),
            "local_files": sum(files for files, _ in disk),
            "local_mb": mb(sum(size for _, size in disk)),
            "num_workers": len(workers),
            "worker_rss_mb": mb(sum(rss(pid) for pid in workers)),
            "driver_python_rss_mb": mb(rss(os.getpid())),
        }
        if executors:
            found["executor_heap_mb"] = round(sum(heap_mb(pid) for pid in executors), 1)
        return found


def heap_mb(pid: int) -> float:
    """Megabytes of live objects in a JVM: after a full collection, by the JDK's own tools."""
    subprocess.run(["jcmd", str(pid), "GC.run"], check=True, capture_output=True)
    table = subprocess.run(["jstat", "-gc", str(pid)], check=True, capture_output=True, text=True).stdout.splitlines()
    used = dict(zip(table[0].split(), table[1].split(), strict=True))
    kilobytes = sum(float(used[column]) for column in ("S0U", "S1U", "EU", "OU"))
    return round(kilobytes / 1024, 1)


def block_store_bytes(sc: Any) -> int:
    """Bytes that all block managers, the driver's too, hold in memory: persisted RDDs and broadcasts."""
    managers = sc._jsc.sc().getExecutorMemoryStatus().values().iterator()
    used = 0
    while managers.hasNext():
        most_and_left = managers.next()
        used += most_and_left._1() - most_and_left._2()
    return used


def disk_usage(folder: str) -> tuple[int, int]:
    """Files and bytes below a folder, without the executors' logs: how much they say is for log4j to decide."""
    count = size = 0
    for path, _, names in os.walk(folder):
        for name in names:
            if name in ("stdout", "stderr"):
                continue
            try:
                size += os.stat(os.path.join(path, name)).st_blocks * 512
            except FileNotFoundError:
                continue
            count += 1
    return count, size


def mb(size: float) -> float:
    """Bytes as megabytes of 2**20."""
    return round(size / 2**20, 2)


def verdict(samples: list[dict[str, float]], settled: int) -> dict[str, Any]:
    """For each measure: its median right after `settled` steps and at the end, what it may have grown, and whether."""
    later = [s for s in samples if s["step"] > settled]
    if len(later) < 2 * ENDS:
        raise ValueError(
            f"{len(later)} samples after step {settled} are too few to compare their ends: take at least {2 * ENDS}, "
            "with more --steps, a smaller --every or a smaller --settled."
        )
    measures: dict[str, Any] = {}
    for name, (share, amount) in TOLERANCES.items():
        values = [s[name] for s in later if name in s]
        if len(values) < 2 * ENDS:
            continue
        start, end = statistics.median(values[:ENDS]), statistics.median(values[-ENDS:])
        allowed = max(share * start, amount)
        measures[name] = {
            "start": round(start, 2),
            "end": round(end, 2),
            "highest": max(values),
            "may_grow": round(allowed, 2),
            "flat": end - start <= allowed,
        }
    grew = [name for name, m in measures.items() if not m["flat"]]
    return {"verdict": "grew: " + ", ".join(grew) if grew else "flat", "from_step": later[0]["step"], **measures}


def main() -> int:
    """The command line; returns 1 when something grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="steps of the run (10000; with --quick 400)")
    parser.add_argument("--model", default="mlp", choices=list(models.SPECS), help="mlp")
    parser.add_argument("--replicas", type=int, default=2, help="2")
    parser.add_argument("--master", default="local[2]", help="local[2]")
    parser.add_argument("--form", default="auto", help="auto, jobs, fused or gather (auto)")
    parser.add_argument("--batch", type=int, default=512, help="rows of one step (512)")
    parser.add_argument("--rows", type=int, default=16384, help="rows of an epoch (16384)")
    parser.add_argument("--every", type=int, help="steps between samples (a fortieth of the steps)")
    parser.add_argument(
        "--settled", type=int, help="steps after which growth counts (500, or a quarter of a short run)"
    )
    parser.add_argument("--same-host", action="store_true", help="gradients through the host's memory")
    parser.add_argument("--conf", action="append", default=[], metavar="KEY=VALUE", help="a further Spark setting")
    parser.add_argument("--quick", action="store_true", help="a short run: shows that it works, and proves nothing")
    args = parser.parse_args()
    args.steps = args.steps or (400 if args.quick else 10000)

    import torch

    from sparkdl import Trainer

    every = args.every or max(1, args.steps // 40)
    settled = args.settled if args.settled is not None else min(500, args.steps // 4)
    conf = dict(pair.split("=", 1) for pair in args.conf)
    conf["spark.sparkdl.sameHost"] = str(args.same_host).lower()
    features, labels = models.make_rows(args.model, args.rows)
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder  # what the driver writes aside counts too
        spark = peers.start_session(args.master, {"spark.local.dir": folder, **conf})
        sampler = Sampler(spark, folder, every)
        trainer = Trainer(
            models.make_model(args.model),
            loss=torch.nn.CrossEntropyLoss(),
            optimizer=models.make_optimizer,
            feature_cols="features",
            label_col="label",
            batch_size=args.batch,
            replicas=args.replicas,
            form=args.form,
        )
        epochs = math.ceil(args.steps / math.ceil(args.rows / args.batch))
        with peers.watching(sampler.on_step):
            trainer.fit({"features": features, "label": labels}, epochs=epochs, verbose=0)
        # After the run nothing of it may be left.
        print(json.dumps({"after_fit": True, **sampler.measure()}), flush=True)
        spark.stop()
    result = verdict(sampler.samples, settled)
    print(json.dumps(result))
    return int(result["verdict"] != "flat")


if __name__ == "__main__":
    sys.exit(main())
