"""A trained model as a file for others: its tensors alone, or with its computation, which needs no class of it."""

from __future__ import annotations

import copy
import importlib.util
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import save_model

from sparkdl.errors import ConfigError

SUFFIXES = {
    ".pt": "state_dict",
    ".pth": "state_dict",
    ".safetensors": "safetensors",
    ".pt2": "torch.export",
    ".ts": "torchscript",
    ".onnx": "onnx",
}
FORMATS = tuple(dict.fromkeys(SUFFIXES.values()))
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime")}
CLOSE = 1e-4  # of the largest output: what another order of the same sums may change
ROWS_FIXED = "forward() fixes the number of rows; write -1 where it reshapes, and no len() of an input"

Inputs = Sequence[torch.Tensor] | Mapping[str, torch.Tensor]


def export(
    model: torch.nn.Module,
    path: str | os.PathLike[str],
    inputs: Inputs | None = None,
    file_format: str | None = None,
) -> None:
    """Writes ``model`` in eval mode, on the CPU, to a local file; the model itself stays as it is.

    file_format: by default what the file's suffix says.

    - "state_dict" (.pt, .pth): for ``torch.load(path, weights_only=True)``
    - "safetensors": the same names, without pickle
    - "torch.export" (.pt2): for ``torch.export.load(path).module()``
    - "torchscript" (.ts): traced, for ``torch.jit.load`` and C++. Branches that depend on the data are not kept.
    - "onnx": for ONNX Runtime and others; needs the extra ``sparkdl[onnx]``

    inputs: for the last three, rows for ``forward``: tensors [rows, …] by position, or by name; at least two rows, so
        that the rows are seen as an axis. The file takes any number of rows.

    The file appears whole or not at all. A file with the computation is loaded again and compared with the model, on
    another number of rows. Raises ConfigError: the format or the inputs cannot be used, the model cannot be written in
    this format, or the file does not compute what the model does.
    """
    path = os.fspath(path)
    file_format = file_format or _format_of(path)
    if file_format not in FORMATS:
        raise ConfigError(f"file_format is {file_format!r}; pass one of {', '.join(map(repr, FORMATS))}")
    missing = [name for name in NEEDED.get(file_format, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"file_format={file_format!r} needs {' and '.join(missing)}: pip install 'sparkdl[{file_format}]'"
        )
    kept = copy.deepcopy(model).cpu().eval()
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise ConfigError(f"{folder} is no directory; make it, or choose another path")
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as aside:
        local = os.path.join(aside, f"model{os.path.splitext(path)[1]}")
        if file_format == "state_dict":
            torch.save(kept.state_dict(), local)
        elif file_format == "safetensors":
            save_model(kept, local)
        else:
            _write_computation(kept, local, file_format, _checked(inputs, file_format))
        os.replace(local, path)


def _format_of(path: str) -> str:
    suffix = os.path.splitext(path)[1]
    if suffix not in SUFFIXES:
        raise ConfigError(f"{path}: the suffix names no format; pass file_format=, or one of {', '.join(SUFFIXES)}")
    return SUFFIXES[suffix]


def _checked(inputs: Inputs | None, file_format: str) -> Inputs:
    if not inputs:
        raise ConfigError(f"file_format={file_format!r} follows the computation; pass inputs=, some rows for forward()")
    tensors = inputs.values() if isinstance(inputs, Mapping) else inputs
    for name, tensor in zip(inputs if isinstance(inputs, Mapping) else range(len(inputs)), tensors, strict=True):
        if not isinstance(tensor, torch.Tensor):
            raise ConfigError(f"input {name!r} is a {type(tensor).__name__}; pass tensors, for example torch.as_tensor")
    rows = {tuple(tensor.shape[:1]) for tensor in tensors}
    if len(rows) != 1 or next(iter(rows)) < (2,):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise ConfigError(f"the inputs have the shapes {shapes}; each needs the same number of rows, at least 2")
    return dict(inputs) if isinstance(inputs, Mapping) else tuple(inputs)


def _write_computation(model: torch.nn.Module, local: str, file_format: str, inputs: Inputs) -> None:
    write = {"torch.export": _write_exported, "torchscript": _write_script, "onnx": _write_onnx}[file_format]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own: TorchScript is deprecated, the exporter calls what is
        try:
            run = write(model, local, inputs)
        except Exception as error:
            raise ConfigError(
                f"the model cannot be written as {file_format!r} ({_line(error)}); look at what "
                "forward() does besides tensor operations, or take another format"
            ) from error
        more = _thrice(inputs)
        wanted = _flat(_call(model, more))
        try:
            found = _flat(run(more))
        except Exception as error:
            raise ConfigError(f"the file fails on another number of rows: {_line(error)}; {ROWS_FIXED}") from error
    if len(wanted) != len(found) or any(a.shape != b.shape for a, b in zip(wanted, found, strict=False)):
        shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (wanted, found)]
        raise ConfigError(
            f"for another number of rows the model gives the shapes {shapes[0]} and the file {shapes[1]}: {ROWS_FIXED}"
        )
    for ours, theirs in zip(wanted, found, strict=True):
        far = float((ours.double() - theirs.double()).abs().max()) if ours.numel() else 0.0
        if not far <= CLOSE * max(1.0, float(ours.double().abs().max()) if ours.numel() else 0.0):
            raise ConfigError(
                f"the file computes something else than the model: outputs differ by up to {far:.3g}. A branch that "
                f"depends on the data, or randomness in eval mode, cannot be written as {file_format!r}"
            )


def _write_exported(model: torch.nn.Module, local: str, inputs: Inputs) -> Callable[[Inputs], Any]:
    args, kwargs, shapes = _arguments(inputs)
    torch.export.save(torch.export.export(model, args, kwargs, dynamic_shapes=shapes), local)
    loaded = torch.export.load(local).module()
    return lambda given: _call(loaded, given)


def _write_script(model: torch.nn.Module, local: str, inputs: Inputs) -> Callable[[Inputs], Any]:
    given = {"example_kwarg_inputs": inputs} if isinstance(inputs, Mapping) else {"example_inputs": inputs}
    torch.jit.trace(model, **given).save(local)
    loaded = torch.jit.load(local)
    return lambda given: _call(loaded, given)


def _write_onnx(model: torch.nn.Module, local: str, inputs: Inputs) -> Callable[[Inputs], Any]:
    args, kwargs, shapes = _arguments(inputs)
    names = list(kwargs or ()) or [f"input_{number}" for number in range(len(args))]
    program = torch.onnx.export(
        model, args, kwargs=kwargs, dynamic_shapes=shapes, input_names=names, dynamo=True, verbose=False
    )
    assert program is not None
    program.save(local)
    import onnxruntime  # type: ignore[import-not-found]  # an extra

    session = onnxruntime.InferenceSession(local, providers=["CPUExecutionProvider"])

    def run(given: Inputs) -> Any:
        arrays = list(given.values() if isinstance(given, Mapping) else given)
        feeds = {name: array.numpy() for name, array in zip(names, arrays, strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, feeds)]

    return run


def _arguments(inputs: Inputs) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor] | None, Any]:
    """Positional and keyword arguments, and that their first axis is one of any length."""
    rows = torch.export.Dim("rows")
    if isinstance(inputs, Mapping):
        return (), dict(inputs), {name: {0: rows} for name in inputs}
    return tuple(inputs), None, tuple({0: rows} for _ in inputs)


def _call(model: Callable[..., Any], inputs: Inputs) -> Any:
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def _thrice(inputs: Inputs) -> Inputs:
    if isinstance(inputs, Mapping):
        return {name: torch.cat([tensor] * 3) for name, tensor in inputs.items()}
    return [torch.cat([tensor] * 3) for tensor in inputs]


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def _flat(output: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = torch.utils._pytree.tree_leaves(output)
    return found
