"""What does the way of the rows cost: once, from Parquet to the replicas' files; in each step, from those to tensors?

Cases, one JSON line each:

  step    a batch of rows at random from a replica's files to tensors, and its share of reading and computing a step
  scan    the peer: pyarrow's dataset scanner over the Parquet files, in file order, to the same tensors
  deal    Spark: Parquet to the replicas' files (shuffle, sort, write), once warm (`first_s`: before)
  start   from the call of fit to the end of the first step, in a warm session

`rows_s_core` is rows a second of CPU time: of the process in step and scan, of Spark's JVM and workers in deal.
A scan reads in every epoch what deal reads once: `epochs_even` says after how many epochs deal and steps together are
ahead of it.

    python benchmarks/data.py
    python benchmarks/data.py --quick        a minute: one table, fewer rows
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import models
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch
from processes import cpu_seconds

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))
BATCH = 256  # rows of a replica in a step: 512 over two of them
REPLICAS = 2
MODELS = {"pixels": "mlp", "images": "conv"}  # whose steps a table's reading is compared with


def scalars(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A click log: 13 quantities, 26 numbers of categories, a label."""
    columns = {f"q{k}": rng.random(count, np.float32) for k in range(13)}
    return columns | {f"c{k}": rng.integers(0, 100_000, count) for k in range(26)} | {"y": rng.integers(0, 2, count)}


def pixels(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """An array of 784 numbers, a label."""
    return {"x": rng.random((count, 784), np.float32), "y": rng.integers(0, 10, count)}


def images(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Bytes that a transform makes 3x32x32 of, a label."""
    return {"x": rng.integers(0, 256, (count, 3, 32, 32), np.uint8), "y": rng.integers(0, 10, count)}


def decode(value: bytes) -> np.ndarray:
    """uint8 [3, 32, 32]."""
    return np.frombuffer(value, np.uint8).reshape(3, 32, 32)


TABLES: dict[str, tuple[Callable[..., dict[str, np.ndarray]], int]] = {
    "scalars": (scalars, 400_000), "pixels": (pixels, 60_000), "images": (images, 60_000),
}  # fmt: skip


def columns_of(table: str) -> Any:
    """How the trainer is told."""
    from sparkdl.columns import Columns

    if table == "scalars":
        return Columns.parse([[f"q{k}" for k in range(13)], [f"c{k}" for k in range(26)]], "y")
    return Columns.parse("x", "y", transform={"x": decode} if table == "images" else None)


def write_parquet(folder: Path, columns: dict[str, np.ndarray]) -> None:
    """Four files."""

    def arrow(values: np.ndarray) -> pa.Array:
        if values.dtype == np.uint8:
            return pa.array([row.tobytes() for row in values], pa.binary())
        if values.ndim == 2:
            borders = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
            return pa.ListArray.from_arrays(borders, pa.array(values.reshape(-1)))
        return pa.array(values)

    table = pa.table({name: arrow(values) for name, values in columns.items()})
    folder.mkdir()
    for number, start in enumerate(range(0, len(table), -(-len(table) // 4))):
        part = table.slice(start, -(-len(table) // 4))
        pq.write_table(part, folder / f"part-{number}.parquet", row_group_size=8192)


def scanned(folder: Path, table: str) -> Iterator[list[torch.Tensor]]:
    """The peer's batches."""
    scanner = ds.dataset(folder).scanner(batch_size=BATCH, use_threads=False)
    for batch in scanner.to_batches():
        label = torch.from_numpy(batch.column("y").to_numpy(zero_copy_only=False).copy())
        if table == "scalars":
            for kind in "qc":
                names = [name for name in batch.schema.names if name[0] == kind]
                yield [torch.from_numpy(np.stack([batch.column(name).to_numpy() for name in names], axis=1)), label]
        elif table == "pixels":
            yield [torch.from_numpy(batch.column("x").flatten().to_numpy().copy()).view(-1, 784), label]
        else:
            whole = b"".join(batch.column("x").to_pylist())
            yield [torch.frombuffer(bytearray(whole), dtype=torch.uint8).view(-1, 3, 32, 32), label]


def say(**line: Any) -> None:
    """One JSON line."""
    print(json.dumps(line | {"load": round(os.getloadavg()[0], 1)}), flush=True)


def median_ms(function: Callable[[], Any], repeats: int) -> float:
    """Of the CPU time of one call: others on the machine do not show in it."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return statistics.median(times[repeats // 10 :]) * 1e3


def step_case(folder: Path, table: str, data: dict[str, np.ndarray], repeats: int) -> float:
    """Rows a second of reading steps."""
    from sparkdl import row_files
    from sparkdl.row_files import RowFiles, RowWriter
    from sparkdl.stored_arrays import from_arrays, kinds_of

    columns, stored = columns_of(table), from_arrays(data)
    folder.mkdir()
    writer = RowWriter(str(folder), kinds_of(stored))
    writer.append(stored)
    writer.close()
    rng = np.random.default_rng(1)
    found = {}
    usual = row_files.KEPT_BYTES, row_files._mapping
    for form, kept, mapping in (("kept", 1 << 40, usual[1]), ("let go", 0, usual[1]), ("read", 0, no_mapping)):
        row_files.KEPT_BYTES, row_files._mapping = kept, mapping
        files = RowFiles(str(folder))

        def step(files: RowFiles = files) -> None:
            batch = files.take(rng.integers(0, files.num_rows, BATCH))
            columns.inputs(batch)
            columns.target(batch)

        found[form] = median_ms(step, repeats)
        line = {"case": "step", "table": table, "form": form, "rows": BATCH, "ms": round(found[form], 3)}
        line["rows_s_core"] = round(BATCH / found[form] * 1e3)
        if table in MODELS:
            compute = compute_ms(MODELS[table], files, max(4, repeats // 40))
            line |= {"model": MODELS[table], "compute_ms": round(compute, 2)}
            line["share"] = round(found[form] / (found[form] + compute), 4)
        say(**line)
    row_files.KEPT_BYTES, row_files._mapping = usual
    return BATCH / found["let go"] * 1e3


def no_mapping(file: int, size: int) -> None:
    """As under a limit of the address space."""


def compute_ms(name: str, files: Any, repeats: int) -> float:
    """CPU milliseconds of forward and backward of a replica."""
    from sparkdl import optim, payload, slices
    from sparkdl.columns import Columns
    from sparkdl.replica import Replica
    from sparkdl.versioned_state import state_plan

    model: torch.nn.Module = models.make_model(name)
    if name == "conv":
        model = torch.nn.Sequential(ToFloat(), model)
    template, _ = optim.template(torch.optim.SGD, model)
    named = [(n, tuple(p.shape), template.group_of[n]) for n, p in model.named_parameters()]
    layout = slices.layout(named, template.elementwise)
    built = payload.Payload(
        model=model, loss=torch.nn.CrossEntropyLoss(), template=template, columns=Columns.parse("x", "y"), seed=0,
        plan=state_plan(template, layout, *payload.buffer_sizes(model)), batch_size=BATCH,
    )  # fmt: skip
    replica = Replica(built)
    replica.bind(built.initial_weights())
    times, rng = [], np.random.default_rng(2)
    for step in range(repeats):
        batch = files.take(rng.integers(0, files.num_rows, BATCH))
        buffers = payload.read_buffers(model)
        raw = torch.frombuffer(bytearray(buffers[1] or b"\0"), dtype=torch.uint8)[: len(buffers[1])]
        began = time.process_time()
        replica.forward_backward(batch, BATCH, step, 0, (buffers[0], raw))
        times.append((time.process_time() - began) * 1e3)
    return statistics.median(times[1:])


class ToFloat(torch.nn.Module):
    """Images to numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32."""
        return x.flatten(1).float() / 255


def deal_case(folder: Path, table: str, num_rows: int, spark: Any) -> float:
    """Rows a second and core of dealing."""
    from sparkdl import replica_cache, replica_data_job
    from sparkdl.stored_arrays import kinds_of

    columns = columns_of(table)
    payload = spark.sparkContext.broadcast(b"")
    times, cpu = [], []
    for number in range(3):
        run, began, used = f"bench-{table}-{number}", time.perf_counter(), cpu_seconds()
        frame = spark.read.parquet(str(folder))
        kinds = kinds_of(replica_data_job.sample(frame, columns, 8))
        tokens = replica_data_job.frame_tokens(frame, columns, REPLICAS, run, payload, kinds)
        rows = replica_data_job.read_tokens(tokens)
        times.append(time.perf_counter() - began)
        cpu.append(cpu_seconds() - used)
        assert sum(row.num_rows for row in rows) == num_rows
        replica_cache.remove(run)
        replica_data_job.forget([tokens])
    began = time.perf_counter()
    spark.read.parquet(str(folder)).write.format("noop").mode("overwrite").save()
    alone = time.perf_counter() - began
    rate = num_rows / min(cpu[1:])
    say(
        case="deal", table=table, rows=num_rows, s=round(min(times[1:]), 2), cpu_s=round(min(cpu[1:]), 2),
        first_s=round(times[0], 2), rows_s_core=round(rate), spark_reads_parquet_s=round(alone, 2),
    )  # fmt: skip
    return rate


def start_case(folder: Path, table: str, spark: Any) -> None:
    """Seconds to the first step."""
    from sparkdl import Trainer, spark_engine

    model = models.make_model(MODELS[table])
    ended: list[float] = []
    run = spark_engine.SparkEngine.run

    def timed(engine: Any, steps: Any) -> Any:
        found = run(engine, steps)
        ended.append(time.perf_counter())
        return found

    spark_engine.SparkEngine.run = timed  # type: ignore[method-assign]
    for _ in range(2):
        ended.clear()
        trainer = Trainer(
            torch.nn.Sequential(ToFloat(), model) if table == "images" else model, torch.nn.CrossEntropyLoss(),
            partial(torch.optim.SGD, lr=0.01), feature_cols="x", label_col="y", batch_size=BATCH * REPLICAS,
            transform={"x": decode} if table == "images" else None, replicas=REPLICAS,
        )  # fmt: skip
        began = time.perf_counter()
        trainer.fit(str(folder), epochs=1, verbose=0)
    spark_engine.SparkEngine.run = run  # type: ignore[method-assign]
    say(case="start", table=table, model=MODELS[table], s=round(ended[0] - began, 2))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default=",".join(TABLES), help="%(default)s")
    parser.add_argument("--no-spark", action="store_true", help="step and scan alone")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with tempfile.TemporaryDirectory() as folder:
        spark = None
        for table in ["pixels"] if options.quick else options.tables.split(","):
            make, count = TABLES[table]
            count = count // 10 if options.quick else count
            data = make(count, np.random.default_rng(0))
            parquet = Path(folder) / table
            write_parquet(parquet, data)
            step_rate = step_case(Path(folder) / f"{table}-files", table, data, 100 if options.quick else 400)
            del data
            scan = []
            for _ in range(3):
                began = time.process_time()
                for _ in scanned(parquet, table):
                    pass
                scan.append(time.process_time() - began)
            scan_rate = count / min(scan)
            say(case="scan", table=table, rows=count, s=round(min(scan), 3), rows_s_core=round(scan_rate),
                step_over_scan=round(step_rate / scan_rate, 2))  # fmt: skip
            if options.no_spark:
                continue
            if spark is None:
                from sparkdl import spark_conf

                local = {"spark.local.dir": f"{folder}/local", "spark.driver.memory": "2g"}
                spark = spark_conf.start_embedded(cores=REPLICAS, settings=local)
            deal_rate = deal_case(parquet, table, count, spark)
            gain = 1 / scan_rate - 1 / step_rate
            say(case="total", table=table, deal_over_scan=round(deal_rate / scan_rate, 3),
                epochs_even=round((1 / deal_rate) / gain, 1) if gain > 0 else None)  # fmt: skip
            if table in MODELS:
                start_case(parquet, table, spark)
        if spark is not None:
            spark.stop()


if __name__ == "__main__":
    main()
