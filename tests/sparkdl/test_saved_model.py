"""A model comes back from its safetensors files, which are what safetensors itself writes and Hugging Face reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_model
from torch import nn

from sparkdl import saved_model
from sparkdl.errors import ConfigError
from sparkdl.saved_model import Loader, file_names, write_model


class Net(nn.Module):
    """Tied weights, a tied part of a tensor, types of many kinds, things that are no tensors."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(10, 6)
        self.head = nn.Linear(6, 10, bias=False)
        self.head.weight = self.embedding.weight
        self.norm = nn.BatchNorm1d(6)
        self.turned = nn.Parameter(torch.randn(5, 9).t())
        self.empty = nn.Parameter(torch.empty(0, 3))
        self.scale = nn.Parameter(torch.randn(()))
        self.small = nn.Parameter(torch.randn(3).to(torch.bfloat16))
        self.register_buffer("mask", torch.rand(4) > 0.5)
        self.register_buffer("part", self.turned.detach()[2:4])
        self.register_buffer("passing", torch.randn(2), persistent=False)

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t for name, t in model.state_dict().items() if isinstance(t, torch.Tensor)}


def load(model: nn.Module, directory: Path) -> None:
    with Loader(model, "there") as loader:
        for name in file_names(path.name for path in directory.iterdir()):
            loader.take(str(directory / name))


@pytest.mark.parametrize("limit", [1, 100, 300, 1 << 30])
def test_a_model_comes_back(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_model, "SHARD_BYTES", limit)
    model, other = Net(0), Net(1)
    names = write_model(model, str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    load(other, tmp_path)
    for name, tensor in tensors(model).items():
        assert torch.equal(tensors(other)[name], tensor), name
    assert other.head.weight is other.embedding.weight
    assert not torch.equal(other.passing, model.passing)  # not persistent, so it is not part of a saved model


def test_one_file_is_what_safetensors_writes(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 10, bias=False), nn.BatchNorm1d(10))
    model[1].weight = model[0].weight
    assert write_model(model, str(tmp_path)) == ["model.safetensors"]
    save_model(model, str(tmp_path / "theirs"))
    mine, theirs = load_file(tmp_path / "model.safetensors"), load_file(tmp_path / "theirs")
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    with safe_open(tmp_path / "model.safetensors", "pt") as a, safe_open(tmp_path / "theirs", "pt") as b:
        assert a.metadata() == b.metadata() | {"format": "pt"}
        assert a.metadata()["1.weight"] == "0.weight"


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(1, 400))
def test_shards_hold_every_tensor_once_and_are_small(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("model")
    model = nn.ParameterList([torch.randn(n) for n in sizes])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_model, "SHARD_BYTES", limit)
        names = write_model(model, str(folder))
    held = {name: load_file(folder / name) for name in file_names(names)}
    assert sorted(name for shard in held.values() for name in shard) == sorted(model.state_dict())
    for shard in held.values():
        assert len(shard) == 1 or sum(4 * t.numel() for t in shard.values()) <= limit
    if len(held) > 1:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        assert index["metadata"] == {"total_size": 4 * sum(sizes)}
        assert index["weight_map"] == {name: file for file, shard in held.items() for name in shard}
        assert list(held) == [f"model-{i + 1:05d}-of-{len(held):05d}.safetensors" for i in range(len(held))]


def test_another_model_is_told(tmp_path: Path) -> None:
    write_model(nn.Linear(3, 2), str(tmp_path))
    with pytest.raises(ConfigError, match=r"'weight' has shape \(2, 3\) in there and \(2, 4\) in the model; pass"):
        load(nn.Linear(4, 2), tmp_path)
    with pytest.raises(ConfigError, match="there has a tensor 'bias', the model has not; pass the model"):
        load(nn.Linear(3, 2, bias=False), tmp_path)
    with pytest.raises(ConfigError, match="there has a tensor 'bias', the model has not; pass the model"):
        load(nn.MultiheadAttention(2, 1), tmp_path)
    bigger = nn.Linear(3, 2)
    bigger.register_buffer("more", torch.ones(1))
    with pytest.raises(ConfigError, match="the model has a tensor 'more', there has not; pass the model"):
        load(bigger, tmp_path)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "nowhere"])
def test_a_damaged_file_is_told(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    saved_model.write_tensors({"a": torch.ones(50)}, str(path))
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-9], "noise": bytes(range(200)), "empty": b"", "nowhere": b""}[damage])
    if damage == "nowhere":
        path.unlink()
    sentence = "a checkpoint is damaged: .*model.safetensors cannot be read .*; use another checkpoint"
    with pytest.raises(ConfigError, match=sentence):
        load(nn.Linear(3, 2), tmp_path) if damage != "nowhere" else saved_model.read_tensors(str(path))
    with pytest.raises(ConfigError, match=sentence):
        saved_model.read_arrays(str(path))


def test_tensors_of_callbacks_may_share_memory(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    found = {"all": base, "row": base[1], "turned": base.t(), "again": base, "none": torch.empty(0), "one": base[0, 1]}
    saved_model.write_tensors(found, str(tmp_path / "t"))
    again = saved_model.read_tensors(str(tmp_path / "t"))
    assert sorted(again) == sorted(found)
    assert all(torch.equal(again[name], t) for name, t in found.items())


def test_arrays_keep_their_shapes_and_types(tmp_path: Path) -> None:
    found = {
        "loss": np.linspace(0, 1, 7),
        "step": np.arange(7),
        "text": np.frombuffer(b"abc", np.uint8),
        "one": np.array(3.5),
        "none": np.empty((0, 2), np.float32),
        "turned": np.arange(6).reshape(2, 3).T,
        "nan": np.array([np.nan, np.inf]),
    }
    saved_model.write_arrays(found, str(tmp_path / "a"))
    again = saved_model.read_arrays(str(tmp_path / "a"))
    assert sorted(again) == sorted(found)
    for name, array in found.items():
        assert again[name].dtype == array.dtype
        np.testing.assert_array_equal(again[name], array)
        assert again[name].shape == array.shape
    saved_model.write_arrays({}, str(tmp_path / "a"))
    assert saved_model.read_arrays(str(tmp_path / "a")) == {}
