"""A written model computes what the model did, for any number of rows; what cannot be written is a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, load_model
from torch import nn

from sparkdl import export
from sparkdl.errors import ConfigError


class Two(nn.Module):
    """Two inputs, dropout, BatchNorm's buffers and tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.look_up, self.norm = nn.Embedding(10, 4), nn.BatchNorm1d(7)
        self.dropout, self.out = nn.Dropout(0.5), nn.Linear(7, 7)
        self.again = self.out

    def forward(self, item: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(torch.cat([self.look_up(item), numbers], dim=1))
        return self.again(self.dropout(self.out(hidden).relu()))


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if bool(x.sum() > 12) else x


class Fixed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.arange(len(x))[:, None]


def rows(count: int = 5) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(3)
    return {
        "item": torch.randint(0, 10, (count,), generator=made),
        "numbers": torch.randn(count, 3, generator=made),
    }


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = Two()
        made(**rows(8))  # BatchNorm's running statistics
    return made


@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("suffix", ["pt2", "ts", "onnx"])
def test_the_computation_comes_back(model: nn.Module, tmp_path: Path, suffix: str, by_name: bool) -> None:
    if suffix == "onnx":
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name, reason="an extra")
    given = rows()
    path = tmp_path / f"model.{suffix}"
    export(model, path, given if by_name else tuple(given.values()))
    assert model.training
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    more = rows(11)
    wanted = model.eval()(**more)
    if suffix == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path))
        names = [value.name for value in session.get_inputs()]
        found = torch.from_numpy(
            session.run(None, dict(zip(names, (v.numpy() for v in more.values()), strict=True)))[0]
        )
    elif suffix == "ts":
        loaded = torch.jit.load(path)
        found = loaded(**more) if by_name else loaded(*more.values())
    else:
        loaded = torch.export.load(path).module()
        found = loaded(**more) if by_name else loaded(*more.values())
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_tensors_come_back(model: nn.Module, tmp_path: Path) -> None:
    export(model, tmp_path / "model.pth")
    export(model, tmp_path / "model.safetensors")
    for name, tensor in torch.load(tmp_path / "model.pth", weights_only=True).items():
        assert torch.equal(tensor, model.state_dict()[name])
    assert len(load_file(tmp_path / "model.safetensors")) == len(model.state_dict()) - 2  # tied ones once
    other = Two()
    load_model(other, tmp_path / "model.safetensors")
    assert torch.equal(other.eval()(**rows()), model.eval()(**rows()))


X = torch.ones(4, 3)


@pytest.mark.parametrize(
    ("made", "name", "inputs", "sentence"),
    [
        (Branch(), "m.ts", [X], "the file computes something else than the model: outputs differ by up to 1"),
        (Branch(), "m.pt2", [X], "the model cannot be written as 'torch.export'"),
        (Fixed(), "m.ts", [torch.ones(5, 4)], "the file fails on another number of rows"),
        (nn.Dropout(), "m.bin", None, "the suffix names no format; pass file_format="),
        (nn.Dropout(), "m.pt2", None, "file_format='torch.export' follows the computation; pass inputs="),
        (nn.Dropout(), "m.pt2", [X[:1]], r"the inputs have the shapes \(1, 3\); each needs the same number of rows"),
        (nn.Dropout(), "m.pt2", [X, X[:2]], r"the shapes \(4, 3\), \(2, 3\)"),
        (nn.Dropout(), "m.pt2", {"input": [1.0]}, "input 'input' is a list; pass tensors"),
        (nn.Dropout(), "far/m.pt", None, "far is no directory"),
    ],
)
def test_what_cannot_be_written(made: nn.Module, name: str, inputs: object, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        export(made, tmp_path / name, inputs)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_format_that_is_none() -> None:
    with pytest.raises(ConfigError, match="file_format is 'caffe'; pass one of 'state_dict'"):
        export(nn.Dropout(), "model.pt", file_format="caffe")
