"""Training data several times as large as all executors' memory: do they train, each row once an epoch?

Rows of 4 KB with an id are made as the job runs, dealt, written to the executors' disks and trained on
local-cluster[2,1,MEMORY]: two executors of one core. The model has a weight for each id; its gradient moves the weight
by exactly 1 each time a row is seen, so after E epochs every weight is -E or a row was left out or came twice. A row's
content is a function of its id, which the loss checks.

Prints one JSON line: seconds to place the rows, rows a second of the epochs, whether they were exact, and the largest
memory of each kind of process: its own (anonymous pages: heap and the like), and pages of files beside it, which the
kernel takes back when it needs them.

    python benchmarks/larger_than_memory.py                4 GB, four times 2 x 512 MB; on disk 12 GB
    python benchmarks/larger_than_memory.py --quick        a minute: a quarter of their memory
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from processes import Watch

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))
MB = 1 << 20
WIDTH = 1022  # float32 numbers of a row, beside the id: 4,096 bytes
LARGE_PRIME = 65521


class Peaks(Watch):
    """The most memory of each kind of process: {"executor JVM": {"own_mb", "files_mb"}, ...}."""

    def __init__(self) -> None:
        super().__init__()
        self.peaks: dict[str, dict[str, int]] = {}

    def see(self, kind: str, pid: int) -> None:
        """Keep the highest."""
        try:
            lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        except (FileNotFoundError, ProcessLookupError):
            return
        peak = self.peaks.setdefault(kind, {"own_mb": 0, "files_mb": 0})
        for key, field in (("own_mb", "RssAnon"), ("files_mb", "RssFile")):
            if field in lines:
                peak[key] = max(peak[key], int(lines[field].split()[0]) // 1024)


class Ids(torch.nn.Module):
    """One weight for each id, and a look at the row's content."""

    def __init__(self, num_rows: int):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(num_rows))

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """float32 [rows]; raises ValueError: a row's content is another row's."""
        if not torch.equal(x[:, 0], (ids % LARGE_PRIME).float()) or not torch.equal(x[:, -1], x[:, 0] + 1):
            raise ValueError("a row's content does not belong to its id")
        return self.weight[ids]


def mean(output: torch.Tensor, target: Any) -> torch.Tensor:
    """A gradient of 1 / rows for each row's weight."""
    return output.mean()


def make_rows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Incompressible rows, the same whenever they are made."""
    for batch in batches:
        for start in range(0, batch.num_rows, 1024):
            ids = batch.column(0).to_numpy()[start : start + 1024]
            x = np.stack([np.random.default_rng(i).integers(0, 256, WIDTH * 2, np.uint8).view("<u2") for i in ids])
            x = x.astype(np.float32)
            x[:, 0] = ids % LARGE_PRIME
            x[:, -1] = x[:, 0] + 1
            borders = pa.array(np.arange(len(ids) + 1, dtype=np.int32) * WIDTH)
            column = pa.ListArray.from_arrays(borders, pa.array(x.reshape(-1)))
            yield pa.record_batch({"id": pa.array(ids), "x": column})


def spilled_bytes(spark: Any) -> int:
    """Of all stages, on disk."""
    store = spark.sparkContext._jsc.sc().statusStore()
    none = spark.sparkContext._jvm.java.util.ArrayList()
    quantiles = spark.sparkContext._gateway.new_array(spark.sparkContext._jvm.double, 0)
    stages = store.stageList(none, False, False, quantiles, none)
    return sum(int(stages.apply(number).diskBytesSpilled()) for number in range(stages.size()))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=int, default=512, help="of an executor, in MB (%(default)s)")
    parser.add_argument("--times", type=float, default=4.0, help="the data's size over both executors' (%(default)s)")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--conf", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--folder", help="for Spark's files: three times the data (a temporary directory)")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    times = 0.25 if options.quick else options.times
    steps = max(1, round(times * 2 * options.memory * MB / (4 * (WIDTH + 2)) / options.batch_size))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(json.dumps(run(Path(folder), steps * options.batch_size, options)))


def run(folder: Path, num_rows: int, options: argparse.Namespace) -> dict[str, Any]:
    """One fit, watched."""
    from sparkdl import Trainer, spark_conf, spark_engine

    settings = {
        "spark.master": f"local-cluster[2,1,{options.memory}]",
        "spark.executor.memory": f"{options.memory}m",
        "spark.driver.memory": "1g",
        "spark.locality.wait": "10s",
        "spark.local.dir": str(folder),
    }
    spark = spark_conf.start_embedded(settings=settings | dict(pair.split("=", 1) for pair in options.conf))
    watch = Peaks()
    watch.start()
    frame = spark.range(num_rows, numPartitions=max(4, num_rows // 8192)).mapInArrow(
        make_rows, "id long, x array<float>"
    )
    placed: list[float] = []
    place = spark_engine.SparkEngine.place

    def timed(engine: spark_engine.SparkEngine) -> Any:
        began = time.perf_counter()
        rows = place(engine)
        placed.append(time.perf_counter() - began)
        return rows

    spark_engine.SparkEngine.place = timed  # type: ignore[method-assign]
    model = Ids(num_rows)
    trainer = Trainer(
        model, mean, partial(torch.optim.SGD, lr=float(options.batch_size)), feature_cols=["id", "x"], label_col=None,
        batch_size=options.batch_size, replicas=2, form="gather",
    )  # fmt: skip
    free = shutil.disk_usage(folder).free
    began = time.perf_counter()
    history = trainer.fit(frame, epochs=options.epochs, verbose=0)
    seconds = float(history.epochs["seconds"].sum())
    around = time.perf_counter() - began - placed[0] - seconds
    seen = trainer.model.get_parameter("weight").detach()
    spilled = spilled_bytes(spark)
    spark.stop()
    return {
        "rows": num_rows, "data_mb": num_rows * 4 * (WIDTH + 2) // MB, "executors_memory_mb": 2 * options.memory,
        "steps": len(history.steps), "epochs": options.epochs, "exact": bool((seen == -options.epochs).all()),
        "place_s": round(placed[0], 1), "place_rows_s": round(num_rows / placed[0]),
        "train_s": round(seconds, 1), "train_rows_s": round(num_rows * options.epochs / seconds),
        "other_s": round(around, 1), "spilled_mb": spilled // MB,
        **{name: round(value, 1) for name, value in history.time_split().items() if name.endswith("_ms")},
        "peaks": watch.peaks, "disk_free_mb": free // MB, "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


if __name__ == "__main__":
    main()
