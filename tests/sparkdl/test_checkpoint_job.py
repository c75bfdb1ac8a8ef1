"""A checkpoint brings back everything: law 2 over a stop and a resume, in every form of a step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession

from sparkdl import checkpoint_files, checkpoint_job, saved_state, slices
from sparkdl.payload import Payload
from sparkdl.spark_engine import SparkEngine
from tests.sparkdl.engines import engine_of, fingerprints, part_list, payload_for, run, twin_of
from tests.sparkdl.runs import norm_net

pytestmark = pytest.mark.spark


@pytest.fixture(autouse=True)
def _cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several lots, so that there are several slices. Executors take the layout from the payload."""
    monkeypatch.setattr(slices, "SEGMENT_SIZE", 64)
    monkeypatch.setattr(slices, "LOT_SIZE", 100)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As Spark's workers with one CPU a task."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def save(spark: SparkSession, root: Path, engine: SparkEngine, payload: Payload, **values: Any) -> str:
    model = norm_net()
    engine.load_model(model)
    state = checkpoint_files.describe(payload, engine.plan, engine.version, **values)
    history = {"loss": np.arange(engine.version, dtype=np.float64)}
    tensors = [{"best": torch.ones(3)} if i else {} for i in range(len(state.callbacks))]
    return checkpoint_job.save(spark.sparkContext, str(root), engine, model, state, history, tensors)


CALLBACKS: list[dict[str, Any]] = [
    {"type": "Nothing", "state": {}},
    {"type": "EarlyStopping", "state": {"best": 0.25, "kept": ["a"]}},
]


@pytest.mark.parametrize(("form", "steps_per_job"), [("gather", 1), ("gather", 10), ("fused", 10), ("jobs", 1)])
@pytest.mark.parametrize("at", [5, 8])  # versions lie in halves; in the middle of an epoch, and in the next one
def test_a_resumed_run_has_the_bits_of_one_that_never_stopped(
    spark: SparkSession, tmp_path: Path, form: str, steps_per_job: int, at: int
) -> None:
    payload = payload_for()
    twin = twin_of(payload, tmp_path)
    run(twin, 0, at)
    with engine_of(spark, payload, form, steps_per_job) as engine:
        assert run(engine, 0, at, steps_per_job) == list(range(at))
        path = save(spark, tmp_path / "root", engine, payload, callbacks=CALLBACKS)
        assert engine.fingerprints() == fingerprints(twin)
    assert path == f"{tmp_path}/root/step-{at:08d}"
    assert checkpoint_job.latest(spark.sparkContext, str(tmp_path / "root")) == path
    found = checkpoint_job.read(spark.sparkContext, path)
    assert (found.state.step, found.state.epoch, found.state.index) == (at, at // 7, at % 7)
    assert (found.state.stopped, found.state.callbacks) == (False, CALLBACKS)
    assert found.state.before is not None
    assert found.state.before.hyper == [{"lr": 1e-3 / at}]
    assert found.history["loss"].tolist() == list(range(at))
    assert [sorted(t) for t in found.tensors] == [[], ["best"]]
    parts = part_list(checkpoint_job.state_parts(spark.sparkContext, path, found.state))
    assert parts == part_list(saved_state.state_parts(twin.state, at))

    run(twin, at, 16)
    with engine_of(spark, payload, form, steps_per_job, resume=found) as engine:
        assert engine.version == at
        assert run(engine, at, 16, steps_per_job) == list(range(at, 16))
        assert engine.fingerprints() == fingerprints(twin)
    twin.state.close()
