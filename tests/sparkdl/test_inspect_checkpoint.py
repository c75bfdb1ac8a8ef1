"""`sparkdl inspect` knows a checkpoint from its files alone."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sparkdl import cli, saved_model, saved_state
from sparkdl.checkpoint_files import describe
from sparkdl.errors import ConfigError
from sparkdl.inspect_checkpoint import contents, report
from sparkdl.payload import read_buffers
from sparkdl.step_settings import Plan, StepSettings
from sparkdl.versioned_state import VersionedState
from tests.sparkdl.payloads import payload_of

ROOT = Path(__file__).resolve().parents[2]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 8)
        self.head = nn.Linear(8, 100, bias=False)
        self.head.weight = self.embedding.weight
        self.norm = nn.BatchNorm1d(8)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """As `checkpoint_job.save` writes it, without Spark."""
    payload = payload_of(Tied(), make=torch.optim.Adam)
    plan = Plan("run", 0, 8, (20, 11), ((0, 1),))
    path = tmp_path / "root" / "step-00000000"
    (path / "state").mkdir(parents=True)
    state = VersionedState(str(tmp_path / "state"), payload.plan)
    state.begin(range(payload.plan.num_lots), payload.initial_weights(), read_buffers(payload.model))
    saved_state.write_parquet(saved_state.state_parts(state, 0), str(path / "state" / "part-00000.parquet"))
    state.close()
    saved_model.write_model(payload.model, str(path))
    saved_model.write_arrays({"loss": np.zeros(3)}, str(path / "history.safetensors"))
    (path / "state" / ".part-00000.parquet.crc").touch()
    sizes = {f.relative_to(path).as_posix(): f.stat().st_size for f in path.rglob("*") if f.is_file()}
    sizes.pop("state/.part-00000.parquet.crc")
    described = describe(
        payload, plan, 9, StepSettings(8, 2, 0, [{}]), [{"type": "Mine", "state": {"best": 0.5}}], True
    )
    (path / "trainer_state.json").write_text(replace(described, files=sizes).dumps())
    (path / "_SUCCESS").touch()
    return path


def test_everything_that_the_files_tell(checkpoint: Path) -> None:
    found = contents(str(checkpoint))
    assert found.problem is None
    assert found.state is not None
    assert [(t.name, t.dtype, t.shape, t.size) for t in found.tensors][:2] == [
        ("norm.num_batches_tracked", "I64", (), 8),
        ("embedding.weight", "F32", (100, 8), 3200),
    ]
    assert found.same_as == {"head.weight": "embedding.weight"}
    text = "\n".join(report(found))
    for line in (
        "complete    5 files",
        "step        9: 2 epochs and 1 of 4 steps, the training had ended",
        "settings    seed=0, replicas=2, batch_size=8, 31 rows",
        "optimizer   Adam, keeps step float32, exp_avg float32, exp_avg_sq float32",
        "trained     3 parameters, 816 elements, format 1",
        'callback    Mine {"best": 0.5}',
        "100 x 8",
        "scalar",
        "is embedding.weight",
        "6 tensors, 833 elements",
        "state/ (1 Parquet files)",
        "trainer_state.json",
    ):
        assert line in text, text


def test_a_uri_is_read_as_well(checkpoint: Path) -> None:
    assert contents(f"file://{checkpoint}")[1:] == contents(f"{checkpoint}/")[1:]


@pytest.mark.parametrize(
    "name", ["_SUCCESS", "trainer_state.json", "model.safetensors", "history.safetensors", "state/part-00000.parquet"]
)
@pytest.mark.parametrize("how", ["missing", "cut", "longer"])
def test_any_damage_is_a_problem(name: str, how: str, checkpoint: Path) -> None:
    file = checkpoint / name
    if how == "missing":
        file.unlink()
    elif name == "_SUCCESS":
        return  # it has nothing in it
    else:
        file.write_bytes(file.read_bytes()[:-5] if how == "cut" else file.read_bytes() + b"\0")
    found = contents(str(checkpoint))
    assert found.problem is not None
    assert name in found.problem
    assert f"unusable    {found.problem}" in report(found)


def test_noise_in_the_model_is_a_problem(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    size = file.stat().st_size
    for noise in (bytes(size), b"\xff" * size, b"\x02" + bytes(7) + b"[]" + bytes(size - 10), bytes(range(256)) * 20):
        file.write_bytes(noise[:size])
        problem = contents(str(checkpoint)).problem
        assert problem is not None
        assert "model.safetensors" in problem


def test_the_command(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(checkpoint)]) == 0
    assert capsys.readouterr().out.splitlines() == report(contents(str(checkpoint)))
    (checkpoint / "_SUCCESS").unlink()
    assert cli.main(["inspect", str(checkpoint)]) == 1
    assert "unusable    it is incomplete: its writer was stopped before the end" in capsys.readouterr().out
    assert cli.main(["inspect", str(checkpoint / "nowhere")]) == 1
    assert "sparkdl: there is no checkpoint" in capsys.readouterr().err
    assert cli.main(["inspect", "nowhere://x/y"]) == 1
    assert "cannot be reached without Spark" in capsys.readouterr().err
    assert cli.main(["inspect", str(checkpoint / "trainer_state.json")]) == 1
    with pytest.raises(SystemExit) as caught:
        cli.main(["inspect"])
    assert caught.value.code == 2


def test_neither_spark_nor_the_models_class_is_needed(checkpoint: Path) -> None:
    program = f"""
import sys
sys.modules["pyspark"] = None
from sparkdl import cli
sys.exit(cli.main(["inspect", {str(checkpoint)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "embedding.weight" in done.stdout


def test_a_later_format_is_told(checkpoint: Path) -> None:
    file = checkpoint / "trainer_state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 2}))
    assert "has format 2" in str(contents(str(checkpoint)).problem)


def test_what_is_no_directory_of_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        contents(str(tmp_path))
