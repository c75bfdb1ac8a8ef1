"""What a checkpoint holds, told without Spark and without the model's class: from names, sizes and headers alone.

Local paths are read as they are, URIs (hdfs://, s3://, gs://, …) by `pyarrow.fs`.
"""

from __future__ import annotations

import json
import math
import os
import struct
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import fs

from sparkdl.checkpoint_files import STATE, SUCCESS, TRAINER_STATE, TrainerState, check_files
from sparkdl.errors import ConfigError
from sparkdl.saved_model import file_names

HEADER_LIMIT = 100 << 20  # bytes that the header of a safetensors file may have, by its specification


class Tensor(NamedTuple):
    """One saved tensor: name, type as safetensors writes it, shape, bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


class Contents(NamedTuple):
    """What was found at ``path``. state: None, if there is none that can be read. problem: why it cannot be resumed."""

    path: str
    state: TrainerState | None
    files: dict[str, int]
    tensors: list[Tensor]
    same_as: dict[str, str]  # a tied name -> the name it was saved under
    problem: str | None


def contents(path: str) -> Contents:
    """Looks at a checkpoint. Raises ConfigError: there is none, or nothing that can be read."""
    system, place = _open(path)
    files = _list(system, place)
    if not files:
        raise ConfigError(f"there is no checkpoint {path}; pass a directory step-XXXXXXXX that a training wrote")
    state, problem = None, None
    try:
        if SUCCESS not in files:
            raise ConfigError(f"it is incomplete: its writer was stopped before the end (it has no {SUCCESS})")
        if TRAINER_STATE not in files:
            raise ConfigError(f"{TRAINER_STATE} is missing")
        state = TrainerState.loads(_read(system, f"{place}/{TRAINER_STATE}").decode())
        check_files(state, files, path)
    except (ConfigError, UnicodeDecodeError) as error:
        problem = str(error)
    tensors: list[Tensor] = []
    same_as: dict[str, str] = {}
    for name in file_names(files):
        try:
            header = _header(system, f"{place}/{name}", files[name])
            same_as |= {k: v for k, v in header.pop("__metadata__", {}).items() if k != "format"}
            tensors += [
                Tensor(key, v["dtype"], tuple(v["shape"]), v["data_offsets"][1] - v["data_offsets"][0])
                for key, v in header.items()
            ]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error) as error:
            problem = problem or f"{name} is damaged ({error})"
    return Contents(path, state, files, tensors, same_as, problem)


def report(found: Contents) -> list[str]:
    """The lines that `sparkdl inspect` prints."""
    lines = [f"checkpoint  {found.path}"]
    if found.problem:
        lines.append(f"unusable    {found.problem}")
    else:
        lines.append(f"complete    {len(found.files)} files, {_bytes(sum(found.files.values()))}")
    if found.state is not None:
        lines += _settings(found.state)
    lines += ["", f"{'tensor':40} {'type':6} {'shape':20} {'size':>10}"]
    for t in found.tensors:
        shape = " x ".join(map(str, t.shape)) or "scalar"
        lines.append(f"{t.name:40} {t.dtype:6} {shape:20} {_bytes(t.size):>10}")
    lines += [f"{name:40} is {kept}" for name, kept in sorted(found.same_as.items())]
    elements = sum(math.prod(t.shape) for t in found.tensors)
    lines.append(f"{len(found.tensors)} tensors, {elements:,} elements, {_bytes(sum(t.size for t in found.tensors))}")
    lines += ["", f"{'file':60} {'size':>10}"]
    plain = {name: size for name, size in found.files.items() if not name.startswith(f"{STATE}/")}
    lines += [f"{name:60} {_bytes(size):>10}" for name, size in sorted(plain.items())]
    parts = [size for name, size in found.files.items() if name.startswith(f"{STATE}/") and name.endswith(".parquet")]
    lines.append(f"{f'{STATE}/ ({len(parts)} Parquet files)':60} {_bytes(sum(parts)):>10}")
    return lines


def _settings(state: TrainerState) -> list[str]:
    trained = sum(math.prod(shape) for _, shape, _ in state.layout)
    kept = "; ".join(dict.fromkeys(", ".join(names) or "nothing" for names in state.optimizer_state))
    lines = [
        f"step        {state.step}: {state.epoch} epochs and {state.index} of {state.steps_per_epoch} steps"
        + (", the training had ended" if state.stopped else ""),
        f"settings    seed={state.seed}, replicas={state.replicas}, batch_size={state.batch_size}, "
        f"{sum(state.rows_per_replica):,} rows",
        f"optimizer   {state.optimizer}, keeps {kept}",
        f"trained     {len(state.layout)} parameters, {trained:,} elements, format {state.format}",
    ]
    return lines + [f"callback    {c['type']} {json.dumps(c['state'])}" for c in state.callbacks]


def _open(path: str) -> tuple[fs.FileSystem, str]:
    if "://" not in path:
        return fs.LocalFileSystem(), os.path.abspath(path)
    uri = path.replace("s3a://", "s3://", 1)  # Hadoop's name for it
    try:
        system, place = fs.FileSystem.from_uri(uri)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be reached without Spark ({error}); copy it to a local directory") from error
    return system, place.rstrip("/")


def _list(system: fs.FileSystem, place: str) -> dict[str, int]:
    try:
        found = system.get_file_info(fs.FileSelector(place, recursive=True, allow_not_found=True))
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{place} cannot be listed ({error}); pass the directory of a checkpoint") from error
    names = {info.path[len(place) :].lstrip("/"): info for info in found}
    # Hadoop leaves checksums beside local files, under hidden names
    return {n: i.size for n, i in sorted(names.items()) if i.is_file and not n.rpartition("/")[2].startswith(".")}


def _read(system: fs.FileSystem, place: str, limit: int | None = None) -> bytes:
    try:
        with system.open_input_file(place) as file:
            data: bytes = file.read(limit)
            return data
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{place} cannot be read: {error}") from error


def _header(system: fs.FileSystem, place: str, size: int) -> dict[str, Any]:
    """The header of a safetensors file, which says all but the numbers."""
    (length,) = struct.unpack("<Q", _read(system, place, 8))
    if length > min(HEADER_LIMIT, size - 8):
        raise ValueError(f"its header claims {length} bytes")
    header = json.loads(_read(system, place, 8 + length)[8:])
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
    if max(ends, default=0) != size - 8 - length:
        raise ValueError("it has another size than its header says")
    return header


def _bytes(size: int) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.3g} {unit}" if unit != "B" else f"{size} B"
        size /= 1000  # type: ignore[assignment]
    raise AssertionError
