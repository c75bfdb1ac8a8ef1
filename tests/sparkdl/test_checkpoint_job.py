"""A checkpoint brings back everything: law 2 over a stop and a resume, in every form of a step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession
from safetensors.torch import load_file

from sparkdl import checkpoint_files, checkpoint_job, saved_state, slices, versioned_state
from sparkdl.errors import ClusterError, ConfigError
from sparkdl.payload import Payload
from sparkdl.replica_cache import run_directory
from sparkdl.spark_engine import SparkEngine
from tests.sparkdl.engines import (
    engine_of,
    fingerprints,
    other_scheme,
    part_list,
    payload_for,
    run,
    twin_of,
)
from tests.sparkdl.runs import arrays, mlp, norm_net

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


def save(spark: SparkSession, root: Path | str, engine: SparkEngine, payload: Payload, **values: Any) -> str:
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


@pytest.mark.parametrize(
    ("form", "steps_per_job", "at"),
    [("gather", 1, 5), ("gather", 10, 8), ("fused", 1, 8), ("fused", 10, 5), ("jobs", 1, 5)],
)  # a version lies in half version % 2; step 5 is in the middle of an epoch, step 8 in the next one
@pytest.mark.parametrize("share_bytes", [1 << 26, 2000])  # a snapshot in one block a slice, and in several
def test_a_resumed_run_has_the_bits_of_one_that_never_stopped(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    form: str, steps_per_job: int, at: int, share_bytes: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(versioned_state, "SHARE_BYTES", share_bytes)
    root = f"{other_scheme(spark, tmp_path)}/root" if form == "gather" else f"{tmp_path}/root"
    payload = payload_for()
    twin = twin_of(payload, tmp_path)
    run(twin, 0, at)
    with engine_of(spark, payload, form, steps_per_job) as engine:
        assert run(engine, 0, at, steps_per_job) == list(range(at))
        path = save(spark, root, engine, payload, callbacks=CALLBACKS)
        assert engine.fingerprints() == fingerprints(twin)
    assert path == f"{root}/step-{at:08d}"
    assert checkpoint_job.latest(spark.sparkContext, root) == path
    found = checkpoint_job.read(spark.sparkContext, path)
    assert (found.state.step, found.state.epoch, found.state.index) == (at, at // 7, at % 7)
    assert (found.state.stopped, found.state.callbacks) == (False, CALLBACKS)
    assert found.state.before is not None
    assert found.state.before.hyper == [{"lr": 1e-3 / at}]
    assert found.history["loss"].tolist() == list(range(at))
    assert [sorted(t) for t in found.tensors] == [[], ["best"]]
    parts = part_list(checkpoint_job.state_parts(spark.sparkContext, path, found.state))
    assert parts == part_list(saved_state.state_parts(twin.state, at))
    files = sum(name.startswith("state/") for name in found.state.files)
    assert files == (1 if form == "gather" else 3) if share_bytes > 2000 else files > 4
    model, expected = norm_net(), norm_net()
    checkpoint_job.load_model(spark.sparkContext, path, model)
    saved_state.load_model(payload.plan, saved_state.state_parts(twin.state, at), expected)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name

    run(twin, at, 16)
    with engine_of(spark, payload, form, steps_per_job, resume=found) as engine:
        assert engine.version == at
        assert engine.before == found.state.before
        assert run(engine, at, 16, steps_per_job) == list(range(at, 16))
        assert engine.fingerprints() == fingerprints(twin)
    twin.state.close()


@pytest.mark.parametrize("form", ["gather", "fused"])
def test_a_resumed_run_can_save_and_go_back_before_its_first_snapshot(
    spark: SparkSession, tmp_path: Path, form: str
) -> None:
    payload = payload_for()
    with engine_of(spark, payload, form) as engine:
        run(engine, 0, 3)
        path = save(spark, tmp_path / "root", engine, payload)
        run(engine, 3, 9)
        expected = engine.fingerprints()
    found = checkpoint_job.read(spark.sparkContext, path)
    with engine_of(spark, payload, form, resume=found) as engine:
        again = save(spark, tmp_path / "again", engine, payload)  # at once, with no step in between
        first, second = (load_file(f"{p}/model.safetensors") for p in (path, again))
        assert all(torch.equal(first[name], second[name]) for name in first)
        resaved = checkpoint_job.read(spark.sparkContext, again).state
        assert (resaved.fingerprints, resaved.before) == (found.state.fingerprints, found.state.before)
    with engine_of(spark, payload, form, resume=found) as engine:
        forget_state(engine)
        assert run(engine, 3, 9) == list(range(3, 9))
        assert [(step, text.partition(":")[0]) for step, text in engine.events] == [
            (3, "went back from step 3 to step 3")
        ]
        assert engine.fingerprints() == expected


def forget_state(engine: SparkEngine) -> None:
    """As if the executor had lost its file: no lot of it has a stamp any more."""
    stamps = 2 * engine.payload.plan.num_lots * 8
    with open(os.path.join(run_directory(engine.run_id), "state-0"), "r+b") as file:
        file.write(bytes(stamps))


@pytest.fixture(scope="module")
def saved(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint to copy and damage; of whole lots, since it is made once."""
    folder = tmp_path_factory.mktemp("saved")
    payload = payload_for()
    with engine_of(spark, payload) as engine:
        run(engine, 0, 2)
        return Path(save(spark, folder, engine, payload, callbacks=CALLBACKS))


@pytest.fixture
def checkpoint(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.undo()
    return Path(shutil.copytree(saved, tmp_path / saved.name))


def resume(spark: SparkSession, path: Path, payload: Payload | None = None, **options: Any) -> None:
    found = checkpoint_job.read(spark.sparkContext, str(path))
    with engine_of(spark, payload or payload_for(), resume=found, **options):
        pass


NAMES = ["trainer_state.json", "model.safetensors", "history.safetensors", "callbacks-1.safetensors", "state/part"]


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_a_sentence(spark: SparkSession, checkpoint: Path, name: str) -> None:
    (file,) = [p for p in checkpoint.rglob("*") if p.relative_to(checkpoint).as_posix().startswith(name)]
    data = file.read_bytes()
    for crc in checkpoint.rglob(".*.crc"):
        crc.unlink()
    file.write_bytes(data[:-7])
    with pytest.raises(ConfigError, match=rf"damaged: .*{name}.* has|trainer_state.json is damaged"):
        checkpoint_job.read(spark.sparkContext, str(checkpoint))
    file.unlink()
    with pytest.raises(ConfigError, match=rf"the checkpoint {checkpoint} is damaged: {name}.* is missing"):
        checkpoint_job.read(spark.sparkContext, str(checkpoint))


def test_changed_bytes_of_the_state_are_damage(spark: SparkSession, checkpoint: Path) -> None:
    (file,) = checkpoint.glob("state/*.parquet")
    for crc in checkpoint.rglob(".*.crc"):
        crc.unlink()
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1  # in the weights
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=f"the checkpoint {checkpoint} is damaged: the bytes of lot 0 are not those"):
        resume(spark, checkpoint)


def test_another_training_is_a_sentence(spark: SparkSession, checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="was written with seed=5, now it is 6; pass the same settings, or"):
        resume(spark, checkpoint, payload_for(seed=6))
    with pytest.raises(ConfigError, match="was written with replicas=3, now it is 2"):
        resume(spark, checkpoint, replicas=2)
    with pytest.raises(ConfigError, match="on 200 rows, dealt to the replicas as 67, 67, 66; now there are 203"):
        resume(spark, checkpoint, data=arrays(203))
    with pytest.raises(ConfigError, match=r"parameter '0.weight' of shape \(32, 12\) .* the model has .* \(40, 12\)"):
        resume(spark, checkpoint, payload_for(mlp()))
    with pytest.raises(ConfigError, match=r"'0.\w+' has shape"):
        checkpoint_job.load_model(spark.sparkContext, str(checkpoint), mlp())


def test_only_complete_checkpoints_count(spark: SparkSession, checkpoint: Path, tmp_path: Path) -> None:
    sc = spark.sparkContext
    assert checkpoint_job.latest(sc, str(tmp_path / "nowhere")) is None
    assert checkpoint_job.latest(sc, str(tmp_path)) == str(checkpoint)
    for name in ("step-00000009", "step-100000000", "step-0000000x", "other"):
        shutil.copytree(checkpoint, tmp_path / name)
    assert checkpoint_job.latest(sc, f"{tmp_path}/") == f"{tmp_path}/step-100000000"
    (tmp_path / "step-100000000" / "_SUCCESS").unlink()
    assert checkpoint_job.latest(sc, str(tmp_path)) == f"{tmp_path}/step-00000009"
    with pytest.raises(ConfigError, match=r"step-100000000 is incomplete, its writer .* \(it has no _SUCCESS\)"):
        checkpoint_job.read(sc, f"{tmp_path}/step-100000000")
    with pytest.raises(ConfigError, match=r"there is no checkpoint .*nowhere"):
        checkpoint_job.read(sc, str(tmp_path / "nowhere"))
    checkpoint_job.remove(sc, f"{tmp_path}/step-00000009")
    checkpoint_job.remove(sc, f"{tmp_path}/step-00000009")
    assert not (tmp_path / "step-00000009").exists()
    with pytest.raises(ConfigError, match="other is no checkpoint's directory"):
        checkpoint_job.remove(sc, str(tmp_path / "other"))
    with pytest.raises(ConfigError, match="checkpoints cannot be looked for: nowhere://x"):
        checkpoint_job.latest(sc, "nowhere://x")


def test_what_is_left_of_another_attempt_is_removed(spark: SparkSession, tmp_path: Path) -> None:
    payload = payload_for()
    left = tmp_path / "root" / "step-00000002"
    (left / "state").mkdir(parents=True)
    (left / "state" / "part-99999.parquet").write_text("left")
    (left / "model-00001-of-00002.safetensors").write_text("left")
    blocked = tmp_path / "file"
    blocked.touch()
    with engine_of(spark, payload) as engine:
        run(engine, 0, 2)
        path = save(spark, tmp_path / "root", engine, payload)
        assert path == str(left)
        names = [p.relative_to(left).as_posix() for p in left.rglob("*") if p.is_file() and not p.name.startswith(".")]
        assert sorted(n for n in names if not n.startswith("state/")) == [
            "_SUCCESS", "history.safetensors", "model.safetensors", "trainer_state.json",
        ]  # fmt: skip
        assert not (left / "state" / "part-99999.parquet").exists()
        with pytest.raises(ClusterError, match=r"the checkpoint could not be written: .*file"):
            save(spark, blocked, engine, payload)
        with pytest.raises(ConfigError, match=r"state_dict\(\) of the callback Mine cannot be saved as JSON"):
            save(spark, tmp_path / "root", engine, payload, callbacks=[{"type": "Mine", "state": {"t": payload}}])
        assert checkpoint_job.latest(spark.sparkContext, str(tmp_path / "root")) == path  # nothing was touched for that
