"""What sparse embeddings cost: NeuMF's records a second and core, and a step on a large table, sparse against dense.

`neumf` is the network of examples/neumf.py on ratings of MovieLens-1M's shape; its records are pairs of a user and an
item, five a rating. `table` is one Embedding of --rows x 64 and a linear layer; each row of a step looks two up.
Beside each stands one process of plain torch with the same optimizers (SparseAdam for the tables, Adam for the rest),
the best of one thread and of as many as cores, spinning and sleeping; `dense` is ours with sparse=False and Adam. One
JSON line a case; medians of the last 60 % of the steps, and the one-minute load before and after.

    python benchmarks/embeddings.py
    python benchmarks/embeddings.py --quick           a minute: few steps, a table of 100,000 rows, sparse alone
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
for folder in (HERE.parent.parent, HERE.parent.parent / "examples"):
    sys.path.insert(0, str(folder))
WIDTH = 64
FACTORS = 16
WIDTHS = (128, 64, 32, 16)
LR = 1e-3
CASES = ("neumf sparse", "neumf torch", "table sparse", "table torch", "table dense")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4096, help="rows of a step (%(default)s)")
    parser.add_argument("--rows", type=int, help="of the table (1,000,000; quick: 100,000)")
    parser.add_argument("--steps", type=int, help="(150; quick: 20; dense a tenth)")
    parser.add_argument("--form", default="auto")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--case", choices=CASES, help="this one alone, in this process")
    options = parser.parse_args()
    options.rows = options.rows or (100_000 if options.quick else 1_000_000)
    options.steps = options.steps or (20 if options.quick else 150)
    if options.case is not None:
        print(json.dumps(run(options)))
        return
    found: dict[str, float] = {}
    for case in CASES[:-1] if options.quick else CASES:
        # threads that wait for each other may spin or sleep; spinning loses where another process wants the cores
        ways: list[dict[str, str]] = [{"OMP_NUM_THREADS": "1"}]
        if case.endswith("torch"):
            threads = {"OMP_NUM_THREADS": str(options.cores)}
            ways = [threads] if options.quick else [*ways, threads, {**threads, "OMP_WAIT_POLICY": "PASSIVE"}]
        best = min((in_process(case, way) for way in ways), key=lambda line: float(line["step_ms"]))
        found[case] = best["step_ms"]
        print(json.dumps(best), flush=True)
    ratios = {
        "case": "ratios",
        "neumf torch / sparse": round(found["neumf torch"] / found["neumf sparse"], 2),
        "table torch / sparse": round(found["table torch"] / found["table sparse"], 2),
    }
    if "table dense" in found:
        ratios["table dense / sparse"] = round(found["table dense"] / found["table sparse"], 1)
    print(json.dumps(ratios))


def in_process(case: str, environment: dict[str, str]) -> dict[str, Any]:
    """One case in a process of its own."""
    command = [sys.executable, str(HERE), *sys.argv[1:], "--case", case]
    own = {**os.environ, **environment}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=own)
    line: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return line | {"environment": environment}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """One case: milliseconds of a step."""
    import torch

    kind, how = options.case.split()
    batch, steps = options.batch_size, options.steps if how != "dense" else max(5, options.steps // 10)
    load = os.getloadavg()[0]
    torch.manual_seed(0)
    columns, model, loss = (
        neumf_parts(batch * steps, options.quick) if kind == "neumf" else table_parts(options.rows, batch * steps)
    )
    made = model(sparse=how != "dense")
    times = (
        torch_steps(made, loss, columns, batch) if how == "torch" else spark_steps(made, loss, columns, options, how)
    )
    settled = times[-max(1, round(0.6 * len(times))) :]
    found = statistics.median(settled)
    records = batch * (columns["items"].shape[1] if kind == "neumf" else 1)
    return {
        "case": options.case, "cores": options.cores, "batch_size": batch, "steps": len(times),
        **({"table_rows": options.rows, "width": WIDTH} if kind == "table" else {"factors": FACTORS, "widths": WIDTHS}),
        "step_ms": round(found, 2), "mean_ms": round(statistics.fmean(settled), 2), "min_ms": round(min(settled), 2),
        "records_per_s_and_core": round(1e3 * records / found / options.cores),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
    }  # fmt: skip


def neumf_parts(rows: int, quick: bool) -> tuple[dict[str, np.ndarray], Any, Any]:
    """Columns of so many rows, the model and its loss; ``quick``: as the example's --small."""
    import cloudpickle
    import neumf

    cloudpickle.register_pickle_by_value(neumf)  # workers have no examples on their path
    share, of_ratings = (10, 30) if quick else (1, 1)
    users, items = neumf.USERS // share, neumf.ITEMS // share
    train, _ = neumf.dealt(neumf.made_ratings(users, items, neumf.RATINGS // of_ratings), items)
    chosen = np.random.default_rng(0).integers(0, len(train["user"]), rows)
    columns = {name: values[chosen] for name, values in train.items()}
    return columns, partial(neumf.NeuMF, users, items, FACTORS, WIDTHS), neumf.first_is_liked


def table_parts(table_rows: int, rows: int) -> tuple[dict[str, np.ndarray], Any, Any]:
    """Two numbers a row, evenly drawn, so that hardly any comes twice in a step."""
    import torch
    from torch import nn

    class Table(nn.Module):
        def __init__(self, sparse: bool):
            super().__init__()
            self.table = nn.Embedding(table_rows, WIDTH, sparse=sparse)
            self.layer = nn.Linear(2 * WIDTH, 1)

        def forward(self, numbers: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.layer(self.table(numbers).flatten(1))
            return result

    def loss(output: torch.Tensor, target: Any) -> torch.Tensor:
        return (output - 1.0).square().mean()

    return {"numbers": np.random.default_rng(0).integers(0, table_rows, (rows, 2))}, Table, loss


def optimizer_of(sparse: bool) -> Any:
    """What `Trainer` takes."""
    import torch

    dense = partial(torch.optim.Adam, lr=LR)
    return {"dense": dense, "sparse": partial(torch.optim.SparseAdam, lr=LR)} if sparse else dense


def torch_steps(model: Any, loss: Any, columns: dict[str, np.ndarray], batch: int) -> list[float]:
    """Milliseconds of each step of one process that picks its rows from the arrays."""
    import torch

    from sparkdl.sparse_optim import sparse_tables

    names = sparse_tables(model)
    makers = optimizer_of(sparse=True)
    optimizers = [
        makers["sparse"]([p for n, p in model.named_parameters() if n in names]),
        makers["dense"]([p for n, p in model.named_parameters() if n not in names]),
    ]
    count = len(next(iter(columns.values())))
    order, times = np.random.default_rng(1).permutation(count), []
    for start in range(0, count, batch):
        began = time.perf_counter()
        rows = order[start : start + batch]
        for optimizer in optimizers:
            optimizer.zero_grad()
        value = loss(model(*(torch.from_numpy(values[rows]) for values in columns.values())), None)
        value.backward()
        for optimizer in optimizers:
            optimizer.step()
        float(value.detach())  # as ours and everybody else's
        times.append((time.perf_counter() - began) * 1e3)
    return times


def spark_steps(
    model: Any, loss: Any, columns: dict[str, np.ndarray], options: argparse.Namespace, how: str
) -> list[float]:
    """Milliseconds of each step of ours, from its history."""
    from sparkdl import Trainer, spark_conf

    spark = spark_conf.start_embedded(cores=options.cores, settings={"spark.driver.memory": "4g"})
    trainer = Trainer(
        model, loss, optimizer_of(how == "sparse"), feature_cols=list(columns), label_col=None,
        batch_size=options.batch_size, replicas=options.cores, form=options.form,
    )  # fmt: skip
    steps = trainer.fit(columns, epochs=1, verbose=0).steps
    spark.stop()
    return [1e3 / rate * rows for rate, rows in zip(steps["rows_per_second"], steps["rows"], strict=True)]


if __name__ == "__main__":
    main()
