"""Trainings in a session of their own, for tests that need other masters or kill processes; prints a JSON line each."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sparkdl import Trainer, spark_conf, spark_engine
from sparkdl.step_settings import StepSettings
from tests.sparkdl.runs import arrays, norm_net
from tests.sparkdl.sparse_runs import PAIR, Scores, data


def processes(word: str) -> list[int]:
    """Descendants of this process whose command line holds ``word``."""
    parents, commands = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                commands[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = []
    for pid, command in commands.items():
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above]
        if above == os.getpid() and word in command:
            found.append(pid)
    return sorted(found)


def until(condition: Callable[[], bool]) -> None:
    """Waits for something that must happen within a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class FailsOnce(nn.Module):
    """Raises in the first forward of training that any process runs after ``flag``'s file was made."""

    def __init__(self, net: nn.Module, flag: str):
        super().__init__()
        self.net, self.flag = net, flag

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        try:
            os.unlink(self.flag)
        except FileNotFoundError:
            return self.net(*inputs)
        raise OSError("a failure that does not come again")


def trainer_and_rows(form: str, sparse: bool, flag: str) -> tuple[Trainer, dict[str, np.ndarray]]:
    """What is trained, and on what. sparse: embeddings of which only rows travel. flag: of :class:`FailsOnce`."""
    options: dict[str, Any] = {"batch_size": 48, "replicas": 2, "form": form}
    if sparse:
        columns = ["user", "item", "words"]
        return Trainer(FailsOnce(Scores(), flag), nn.MSELoss(), PAIR, feature_cols=columns, **options), data(480)
    make = partial(torch.optim.Adam, lr=1e-3)
    return Trainer(FailsOnce(norm_net(), flag), nn.CrossEntropyLoss(), make, **options), arrays(rows=480)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--master", default="local[2,4]")
    parser.add_argument("--forms", nargs="+", default=["gather"], help="a training each; sparse-FORM: of embeddings")
    parser.add_argument("--epochs", type=int, default=4)
    kinds = ["executor", "all-executors", "worker", "task"]
    parser.add_argument("--kill", nargs="+", choices=kinds, help="for each training what is killed")
    parser.add_argument("--at", type=int, nargs="*", default=[])
    parser.add_argument("--join", type=int, help="begin with one executor less; it comes at this step")
    parser.add_argument("--same-host", action="store_true")
    parser.add_argument("--conf", nargs="*", default=[])
    parser.add_argument("--folder", required=True)
    arguments = parser.parse_args()
    settings = dict(pair.split("=", 1) for pair in arguments.conf)
    settings |= {"spark.master": arguments.master, "spark.driver.memory": "1g", "spark.local.dir": arguments.folder}
    if arguments.same_host:
        settings["spark.sparkdl.sameHost"] = "true"
    if arguments.join is not None:  # a heartbeat of an executor that is being killed would register it anew
        settings["spark.executor.heartbeatInterval"] = "60s"
    spark = spark_conf.start_embedded(settings=settings)

    flag = os.path.join(arguments.folder, "fail-once")
    killed: list[int] = []
    kill: str | None = None  # in this training
    run = spark_engine.SparkEngine.run
    context: Any = spark.sparkContext._jsc.sc()
    if arguments.join is not None:
        spark_engine.SPREAD_SHARE = math.inf
        spark_engine.SNAPSHOT_STEPS = (10, 10)  # after one of them it looks, however slow the machine is
        until(lambda: context.getExecutorMemoryStatus().size() == 3)
        # Spark forgets the blocks of a lost executor only where the scheduler had offered its cores before.
        until(lambda: context.taskScheduler().isExecutorAlive("0"))
        until(lambda: context.killExecutor("0"))
        until(lambda: len(processes("CoarseGrainedExecutorBackend")) == 1)
        until(lambda: context.getExecutorMemoryStatus().size() == 2)

    def run_and_kill(self: Any, steps: Sequence[StepSettings]) -> Any:
        if steps[0].step == arguments.join:
            assert context.requestExecutors(2)  # there is room for one
            until(lambda: context.getExecutorMemoryStatus().size() == 3)
        if steps[0].step in arguments.at:
            if kill == "task":
                Path(flag).touch()
            elif kill == "worker":
                victims = processes("pyspark.daemon")
                victims = [p for p in victims if p not in killed][-1:]
                killed.extend(victims)
            else:
                victims = processes("CoarseGrainedExecutorBackend")
                killed.extend(victims if kill == "all-executors" else victims[:1])
            if kill != "task":
                for pid in killed:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
        return run(self, steps)

    spark_engine.SparkEngine.run = run_and_kill  # type: ignore[method-assign]
    for number, form in enumerate(arguments.forms):
        killed.clear()
        kill = arguments.kill[number] if arguments.kill else None
        if kill in ("executor", "all-executors"):  # those that replace the killed ones take a while
            until(lambda: context.getExecutorMemoryStatus().size() == 3)
        trainer, rows = trainer_and_rows(form.removeprefix("sparse-"), form.startswith("sparse-"), flag)
        history = trainer.fit(rows, epochs=arguments.epochs, verbose=0)
        steps = history.steps["step"].tolist()
        assert steps == list(range(10 * arguments.epochs)), steps
        print(json.dumps({"fingerprint": history.fingerprint, "events": history.events, "killed": len(killed)}))
    spark.stop()


if __name__ == "__main__":
    main()
