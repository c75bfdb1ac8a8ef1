"""A model as safetensors files: all names of its `state_dict`, in one file or, above 1 GB, in Hugging Face's shards.

Tensors that share all their memory (tied weights) are saved once, as `safetensors.torch.save_model` does it: under the
first name in order; the file's metadata say which other names it stands for.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from sparkdl.errors import ConfigError

MODEL, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 1 << 30  # of one file; a larger tensor has a file of its own
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def write_model(model: torch.nn.Module, directory: str) -> list[str]:
    """Writes the files of a model into a local directory; returns their names."""
    tensors, same_as = _without_ties(model)
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + _bytes(tensor) > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += _bytes(tensor)
    names = [MODEL] if len(shards) == 1 else [_shard_name(i, len(shards)) for i in range(len(shards))]
    for file, shard in zip(names, shards, strict=True):
        ties = {name: kept for name, kept in same_as.items() if kept in shard}
        plain = {name: t.detach().cpu().contiguous() for name, t in shard.items()}
        save_file(_apart(plain), os.path.join(directory, file), metadata={"format": "pt"} | ties)
    if len(shards) > 1:
        total = sum(_bytes(t) for t in tensors.values())
        placed = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        with open(os.path.join(directory, INDEX), "w") as index:
            json.dump({"metadata": {"total_size": total}, "weight_map": placed}, index, indent=2)
        names.append(INDEX)
    return names


def file_names(names: Iterable[str]) -> list[str]:
    """Which of a checkpoint's files hold the model's tensors."""
    return sorted(name for name in names if name == MODEL or _SHARD.fullmatch(name))


class Loader:
    """Puts saved tensors into a model in place, file by file; at the end of its block the model must be complete.

    path: of the checkpoint, for the sentences. Raises ConfigError: a file is damaged, or the model has other names or
    shapes.
    """

    def __init__(self, model: torch.nn.Module, path: str):
        self._waiting = {name: t for name, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
        self._filled: set[Any] = set()
        self._path = path

    def __enter__(self) -> Loader:
        return self

    def take(self, local: str) -> None:
        """The tensors of a local file."""
        for name, tensor in _saved(local):
            if name not in self._waiting:
                raise ConfigError(
                    f"{self._path} has a tensor {name!r}, the model has not; pass the model that was trained"
                )
            target = self._waiting.pop(name)
            if target.shape != tensor.shape:
                raise ConfigError(
                    f"{name!r} has shape {tuple(tensor.shape)} in {self._path} and {tuple(target.shape)} in the model; "
                    "pass the model that was trained"
                )
            with torch.no_grad():
                target.copy_(tensor)
            self._filled.add(_place(target))

    def __exit__(self, kind: object, *rest: object) -> None:
        missing = [name for name, t in self._waiting.items() if t.numel() and _place(t) not in self._filled]
        if kind is None and missing:
            raise ConfigError(
                f"the model has a tensor {missing[0]!r}, {self._path} has not; pass the model that was trained"
            )


def write_tensors(tensors: Mapping[str, torch.Tensor], path: str) -> None:
    """Writes tensors, whatever memory they share, into a local file."""
    save_file(_apart({name: t.detach().cpu().contiguous() for name, t in tensors.items()}), path)


def read_tensors(path: str) -> dict[str, torch.Tensor]:
    """The inverse of :func:`write_tensors`. Raises ConfigError: the file is damaged."""
    return dict(_saved(path))


def write_arrays(arrays: Mapping[str, np.ndarray], path: str) -> None:
    """Writes arrays of numbers into a local file."""
    save_arrays({name: np.asarray(a, order="C") for name, a in arrays.items()}, path)


def read_arrays(path: str) -> dict[str, np.ndarray]:
    """The inverse of :func:`write_arrays`. Raises ConfigError: the file is damaged."""
    try:
        return dict(load_arrays(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _saved(path: str) -> Iterator[tuple[str, torch.Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 - it is no mapping
                yield key, file.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> ConfigError:
    return ConfigError(f"a checkpoint is damaged: {path} cannot be read ({error}); use another checkpoint")


def _without_ties(model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors to save, and for every name left out the one that stands for it."""
    found = {name: t for name, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    groups: dict[Any, list[str]] = defaultdict(list)
    for name, tensor in found.items():
        groups[_place(tensor) if tensor.numel() else name].append(name)
    same_as = {name: min(names) for names in groups.values() for name in names if name != min(names)}
    return {name: t for name, t in found.items() if name not in same_as}, same_as


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of tensors that lie in memory of another one, which the format cannot say."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        shared = storage.data_ptr() in seen or storage.nbytes() != _bytes(tensor)
        seen.add(storage.data_ptr())
        result[name] = tensor.clone() if shared and tensor.numel() else tensor
    return result


def _place(tensor: torch.Tensor) -> Any:
    return tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _shard_name(number: int, count: int) -> str:
    return f"model-{number + 1:05d}-of-{count:05d}.safetensors"
