"""How many rows a second does a model's output as a column cost, against the same model without Spark?

Cases, one JSON line each, for a small net (mlp) and one that computes (conv); rows are arrays of float32:

  ours    `Trainer.predict` over Parquet files in a warm session, every row written to Spark's "noop"
  arrow   the same rows through an Arrow function that gives its first number: what Spark takes for itself
  peer    plain torch over the same rows as Arrow batches of 10,000, one process with one thread for each task slot; it
          reads them from memory-mapped files and makes an Arrow column of the outputs

The session has Java's best compiler, as sessions have that sparkdl did not start. One more line has
`ours_over_peer`. The medians of --repeats runs, ours and the peer's in turn.

    python benchmarks/predict.py
    python benchmarks/predict.py --quick        a minute: fewer rows, once
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))
ROWS = {"mlp": 100_000, "conv": 6_000}
BATCH, ARROW_ROWS = 1024, 10_000


def made(model: str, rows: int, slots: int, folder: Path) -> tuple[Path, list[Path]]:
    """Parquet files for Spark and Arrow files for the peer, as many of each as there are slots."""
    width = models.SPECS[model].num_features
    values = np.random.default_rng(0).random((rows, width), np.float32)
    parquet, batches = folder / f"{model}.parquet", []
    parquet.mkdir()
    for slot in range(slots):
        mine = values[slot * rows // slots : (slot + 1) * rows // slots]
        borders = pa.array(np.arange(len(mine) + 1, dtype=np.int32) * width)
        table = pa.table({"features": pa.ListArray.from_arrays(borders, pa.array(mine.reshape(-1)))})
        pq.write_table(table, parquet / f"part-{slot}.parquet", row_group_size=8192)
        batches.append(folder / f"{model}-{slot}.arrow")
        with pa.OSFile(str(batches[-1]), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=ARROW_ROWS)
    return parquet, batches


def peer(model: str, path: Path, start: Any, seconds: Any) -> None:
    """One process of the peer; puts its seconds into the queue."""
    torch.set_num_threads(1)
    net, width = getattr(models, model)().eval(), models.SPECS[model].num_features
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        with torch.no_grad():
            net(torch.zeros(BATCH, width))  # as ours, it is warm
        start.wait()
        began = time.perf_counter()
        for number in range(reader.num_record_batches):
            array = reader.get_batch(number).column("features").flatten().to_numpy().reshape(-1, width)
            pieces = (torch.from_numpy(array[row : row + BATCH].copy()) for row in range(0, len(array), BATCH))
            with torch.no_grad():
                outputs = [net(piece).numpy() for piece in pieces]
            flat = np.concatenate(outputs)
            pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])
        seconds.put(time.perf_counter() - began)


def peers(model: str, batches: list[Path]) -> float:
    """Seconds from the common start to the end of the last process."""
    context = multiprocessing.get_context("spawn")
    start, seconds = context.Barrier(len(batches)), context.Queue()
    started = [context.Process(target=peer, args=(model, path, start, seconds)) for path in batches]
    for one in started:
        one.start()
    found = [seconds.get() for _ in started]
    for one in started:
        one.join()
    return float(max(found))


def first_numbers(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """As little as an Arrow function can do."""
    for batch in batches:
        lists = batch.column(0)
        yield pa.record_batch({"first": lists.flatten().take(lists.offsets[:-1])})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="mlp,conv", help="%(default)s")
    parser.add_argument("--slots", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    from sparkdl import Trainer, spark_conf

    with tempfile.TemporaryDirectory() as scratch:
        settings = {"spark.local.dir": scratch, "spark.driver.extraJavaOptions": "-XX:+UseParallelGC"}
        spark = spark_conf.start_embedded(options.slots, settings)
        for model in options.models.split(","):
            rows = ROWS[model] // (5 if options.quick else 1)
            parquet, batches = made(model, rows, options.slots, Path(scratch))
            frame = spark.read.parquet(str(parquet))
            trainer = Trainer(getattr(models, model), torch.nn.CrossEntropyLoss(), precision=options.precision)
            scored = trainer.predict(frame, batch_size=BATCH).select("prediction")
            plain = frame.mapInArrow(first_numbers, "first float")
            seconds: dict[str, list[float]] = {"ours": [], "arrow": [], "peer": []}
            for turn in range(1 + (1 if options.quick else options.repeats)):  # the first one warms up
                for who, query in (("ours", scored), ("arrow", plain)):
                    began = time.perf_counter()
                    query.write.format("noop").mode("overwrite").save()
                    seconds[who].append(time.perf_counter() - began)
                seconds["peer"].append(peers(model, batches) if turn else 0.0)
            median = {who: statistics.median(found[1:]) for who, found in seconds.items()}
            about = {"model": model, "rows": rows, "slots": options.slots, "precision": options.precision}
            for who, found in median.items():
                print(json.dumps({**about, "who": who, "seconds": round(found, 3), "rows_s": round(rows / found)}))
            ratio = round(median["peer"] / median["ours"], 3)
            load = round(os.getloadavg()[0], 1)
            print(json.dumps({**about, "ours_over_peer": ratio, "load": load}), flush=True)
        spark.stop()


if __name__ == "__main__":
    main()
