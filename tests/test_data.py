"""Data from end to end: kinds of columns and sources through fit, evaluate and predict; what a fit leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyspark import SparkFiles
from pyspark.ml.linalg import SparseVector
from pyspark.sql import SparkSession
from torch import nn

from sparkdl import Trainer
from sparkdl.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
SGD = partial(torch.optim.SGD, lr=0.1)

pytestmark = pytest.mark.spark


class Pictures(nn.Module):
    """uint8 pictures of 2x3 to two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> Any:
        assert x.dtype == torch.uint8
        return self.layer(x.flatten(1).float() / 255)


def decode(content: bytes) -> np.ndarray:
    """uint8 [2, 3]; as short bytes as a picture can be."""
    return np.frombuffer(content, np.uint8).reshape(2, 3)


def seeded(make: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return make()


def test_bytes_through_a_transform(spark: SparkSession) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6), np.uint8)
    labels = (pixels[:, 0] > 127).astype(int).tolist()
    frame = spark.createDataFrame(
        [(row.tobytes(), str(label)) for row, label in zip(pixels, labels, strict=True)], "picture binary, label string"
    )
    transform = {"picture": decode, "label": int}
    model = seeded(Pictures)
    options: dict[str, Any] = {"feature_cols": "picture", "transform": transform, "batch_size": 16, "replicas": 2}
    trainer = Trainer(model, nn.CrossEntropyLoss(), SGD, **options)
    first = trainer.evaluate(frame)["loss"]
    history = trainer.fit(frame.repartition(3), epochs=4, validation=frame, verbose=0)
    assert history.epochs["val_loss"].iloc[-1] < first
    # the same from arrays, decoded before; and as plain torch has it
    arrays = {"picture": pixels.reshape(-1, 2, 3), "label": labels}
    plain = Trainer(model, nn.CrossEntropyLoss(), SGD, feature_cols="picture")
    assert trainer.evaluate(frame)["loss"] == pytest.approx(plain.evaluate(arrays)["loss"], rel=1e-6)
    assert (
        trainer.evaluate({"picture": [row.tobytes() for row in pixels], "label": map_to_text(labels)})["loss"]
        == (plain.evaluate(arrays)["loss"])
    )
    found = {bytes(r.picture): r.prediction for r in trainer.predict(frame).collect()}
    with torch.no_grad():
        wanted = model(torch.from_numpy(pixels.reshape(-1, 2, 3)))
    for row, output in zip(pixels, wanted, strict=True):
        assert found[row.tobytes()] == pytest.approx(output.tolist(), rel=1e-5, abs=1e-6)


def map_to_text(labels: list[int]) -> list[str]:
    return [str(label) for label in labels]


def test_a_transform_that_fails_names_column_and_row(spark: SparkSession) -> None:
    rows = [(bytes(6), 0)] * 20 + [(bytes(7), 1)]
    frame = spark.createDataFrame(rows, "picture binary, label int").coalesce(1)
    trainer = Trainer(
        seeded(Pictures), nn.CrossEntropyLoss(), SGD, feature_cols="picture", transform={"picture": decode}
    )
    sentence = r"^transform of column 'picture' failed in row \d+: ValueError: cannot reshape .* The value was 7 bytes"
    with pytest.raises(ConfigError, match=sentence):
        trainer.fit(frame, verbose=0)
    with pytest.raises(ConfigError, match=sentence):
        trainer.evaluate(frame)


def test_wide_sparse_vectors(spark: SparkSession) -> None:
    width = 20_000  # wider than what is written out in full
    rng = np.random.default_rng(1)
    vectors = [SparseVector(width, {int(i): 1.0 for i in rng.choice(width, 3, replace=False)}) for _ in range(30)]
    labels = [int(vector.indices[0] < width / 4) for vector in vectors]
    frame = spark.createDataFrame(list(zip(vectors, labels, range(30), strict=True)), ["v", "label", "id"])
    options: dict[str, Any] = {"feature_cols": "v", "batch_size": 8, "replicas": 2}
    with pytest.raises(ConfigError, match=r"sparse vectors of 20,000 places: .* Pass transform=\{'v': 'sparse'\}"):
        Trainer(nn.Linear(width, 2), nn.CrossEntropyLoss(), SGD, **options).fit(frame, verbose=0)
    model = seeded(partial(nn.Linear, width, 2))
    trainer = Trainer(model, nn.CrossEntropyLoss(), partial(SGD, lr=1.0), transform={"v": "sparse"}, **options)
    before = trainer.evaluate(frame)["loss"]
    trainer.fit(frame, epochs=3, verbose=0)
    assert trainer.evaluate(frame)["loss"] < before
    found = {row.id: row.prediction for row in trainer.predict(frame).collect()}
    with torch.no_grad():
        wanted = model(torch.from_numpy(np.stack([vector.toArray() for vector in vectors])).float())
    for number, output in enumerate(wanted):
        assert found[number] == pytest.approx(output.tolist(), rel=1e-4, abs=1e-6)


def test_an_rdd_of_dicts_gives_the_bits_of_its_frame(spark: SparkSession) -> None:
    rng = np.random.default_rng(2)
    rows = [{"features": rng.random(12, np.float32), "label": int(rng.integers(0, 5))} for _ in range(50)]
    frame = spark.createDataFrame(
        [(row["features"].tolist(), row["label"]) for row in rows], "features array<float>, label bigint"
    )
    found = [
        Trainer(seeded(partial(nn.Linear, 12, 5)), nn.CrossEntropyLoss(), SGD, batch_size=16, replicas=2)
        .fit(data, epochs=2, verbose=0)
        .fingerprint
        for data in (frame, spark.sparkContext.parallelize(rows, 4))
    ]
    assert found[0] == found[1]


def test_every_label_of_all_rows_is_in_range(spark: SparkSession) -> None:
    rows = [(float(k), k % 2, 0) for k in range(30)]
    schema = "x double, first int, second int"

    def loss(output: torch.Tensor, target: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        cross_entropy = nn.functional.cross_entropy
        return cross_entropy(output[:, :2], target[0]) + cross_entropy(output[:, 2:], target[1])

    for bad, sentence in (
        ((30.0, 2, 0), r"column 'first' holds label 2 but the model has 2 outputs \(0\.\.1\)"),
        ((30.0, 0, 3), r"column 'second' holds label 3 but the model has 3 outputs \(0\.\.2\)"),
    ):
        frame = spark.createDataFrame([*rows, bad], schema).coalesce(1)
        trainer = Trainer(nn.Linear(1, 5), loss, SGD, feature_cols=[["x"]], label_col=["first", "second"], replicas=2)
        with pytest.raises(ConfigError, match=sentence):
            trainer.fit(frame, verbose=0)


@pytest.mark.parametrize(
    ("num_rows", "replicas", "batch_size"), [(1, 3, 4), (2, 5, 512), (7, 3, 1), (5, 2, 5)], ids=str
)
def test_few_rows(spark: SparkSession, num_rows: int, replicas: int, batch_size: int) -> None:
    """Rows fewer than replicas, a batch larger than all rows, a row a step: as one plain process."""
    x = np.random.default_rng(4).random((num_rows, 3), np.float32)
    y = (np.arange(num_rows) % 2).tolist()
    frame = spark.createDataFrame(
        [(row.tolist(), label) for row, label in zip(x, y, strict=True)], "features array<float>, label bigint"
    ).repartition(4)
    model = seeded(partial(nn.Linear, 3, 2))
    plain = seeded(partial(nn.Linear, 3, 2))
    trainer = Trainer(model, nn.CrossEntropyLoss(), SGD, batch_size=batch_size, replicas=replicas)
    history = trainer.fit(frame, epochs=1, verbose=0)
    steps = history.steps["rows"].tolist()
    assert sum(steps) == num_rows
    assert len(steps) == -(-num_rows // batch_size)
    if len(steps) == 1:  # in one step the order of the rows is of no account
        optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
        nn.functional.cross_entropy(plain(torch.from_numpy(x)), torch.tensor(y)).backward()
        optimizer.step()
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_nothing_is_left_on_disk_or_in_the_block_store(spark: SparkSession) -> None:
    sc: Any = spark.sparkContext
    local = Path(spark.conf.get("spark.local.dir") or "")
    frame = spark.range(4000).selectExpr("array(id / 4000D, 1D) AS features", "id % 2 AS label")

    def blocks() -> int:
        status = sc._jsc.sc().getExecutorMemoryStatus()
        values = status.values().toSeq()
        return sum(values.apply(number)._1() - values.apply(number)._2() for number in range(values.size()))

    def files() -> set[str]:
        return {str(path) for path in local.rglob("*") if path.is_file()}

    def fit(data: Any) -> None:
        trainer = Trainer(nn.Linear(2, 2), nn.CrossEntropyLoss(), SGD, batch_size=512, replicas=2)
        trainer.fit(data, epochs=2, verbose=0)

    fit(frame)  # once: what a session makes for itself is there then
    sc._jvm.System.gc()
    memory, there, persisted = blocks(), files(), sc._jsc.getPersistentRDDs().size()
    fit(frame)
    with pytest.raises(ConfigError, match="label 7 but the model has 2 outputs"):
        fit(frame.selectExpr("features", "IF(features[0] > 0.99, 7, label) AS label"))
    assert files() - there == set()
    assert sc._jsc.getPersistentRDDs().size() == persisted
    assert blocks() <= memory + (1 << 16)  # tasks' functions go when the driver collects its garbage
    assert not [name for name in os.listdir(SparkFiles.getRootDirectory()) if name.startswith("sparkdl-")]


def test_data_larger_than_memory_train_exact_epochs(tmp_path: Path) -> None:
    """As the benchmark, smaller: data four times the memory that Spark may sort in, so the sort goes over disks."""
    command = [sys.executable, str(ROOT / "benchmarks" / "larger_than_memory.py"), "--folder", str(tmp_path)]
    command += ["--memory", "512", "--times", "0.032", "--batch-size", "1024", "--epochs", "2"]
    command += ["--conf", "spark.memory.fraction=0.02"]  # (512 - 300) MB * 0.02 = 4 MB an executor
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["data_mb"] == 32
    assert found["exact"]
    assert found["spilled_mb"] > 10
    assert found["steps"] == 16
