"""Checkpoints wherever Spark can write: the executors write the state, the driver all else; see `checkpoint_files`.

A checkpoint is whole or does not count: `_SUCCESS` is written last and removed first.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from pyspark import SparkContext

from sparkdl import saved_model, saved_state
from sparkdl.checkpoint_files import (
    HISTORY,
    STATE,
    SUCCESS,
    TRAINER_STATE,
    Checkpoint,
    TrainerState,
    callback_file,
    check_files,
    checkpoint_name,
    step_of,
)
from sparkdl.errors import ClusterError, ConfigError
from sparkdl.hadoop_files import HadoopFiles

if TYPE_CHECKING:
    from sparkdl.spark_engine import SparkEngine

__all__ = ["Checkpoint", "latest", "load_model", "read", "remove", "save", "state_parts"]


def save(
    sc: SparkContext,
    root: str,
    engine: SparkEngine,
    model: torch.nn.Module,
    state: TrainerState,
    history: Mapping[str, np.ndarray],
    tensors: Sequence[Mapping[str, torch.Tensor]],
) -> str:
    """Writes ``root/step-XXXXXXXX`` over whatever is there; returns its path.

    After ``engine.mark()``. model: with the weights of that step. state: as :func:`checkpoint_files.describe` gives it;
    fingerprints, sizes and the step before are filled in. tensors: of each callback. Raises ClusterError: it cannot be
    written; ConfigError: a callback's state is no JSON.
    """
    state.dumps()  # what cannot be saved shows before anything is written
    files = HadoopFiles(sc)
    path = checkpoint_name(root, state.step)
    try:
        remove(sc, path)
        files.make_directory(path)
        engine.write_state(f"{path}/{STATE}")
        with tempfile.TemporaryDirectory(prefix="sparkdl-") as directory:
            names = saved_model.write_model(model, directory)
            saved_model.write_arrays(history, os.path.join(directory, HISTORY))
            for number, found in enumerate(tensors):
                if found:
                    saved_model.write_tensors(found, os.path.join(directory, callback_file(number)))
                    names.append(callback_file(number))
            for name in [*names, HISTORY]:
                files.upload(os.path.join(directory, name), f"{path}/{name}")
        sizes = {
            name: size
            for name, size in files.tree(path).items()
            if not name.startswith(f"{STATE}/") or name.endswith(".parquet")
        }
        prints = [digest.hex() for digest in engine.fingerprints()]
        state = replace(state, before=engine.before, fingerprints=prints, files=sizes)
        files.write_text(f"{path}/{TRAINER_STATE}", state.dumps())
        files.write_text(f"{path}/{SUCCESS}", "")
    except OSError as error:
        raise ClusterError(f"the checkpoint could not be written: {error}") from error
    return path


def latest(sc: SparkContext, root: str) -> str | None:
    """The complete checkpoint of the highest step in ``root``, or None. Raises ConfigError: it cannot be listed."""
    files = HadoopFiles(sc)
    try:
        steps = {step: name for name in files.list(root) if (step := step_of(name)) is not None}
        for step in sorted(steps, reverse=True):
            path = f"{root.rstrip('/')}/{steps[step]}"
            if files.exists(f"{path}/{SUCCESS}"):
                return path
    except OSError as error:
        raise ConfigError(f"checkpoints cannot be looked for: {error}") from error
    return None


def read(sc: SparkContext, path: str) -> Checkpoint:
    """A checkpoint, but for its weights and state.

    Raises ConfigError: it is incomplete, damaged or of another format.
    """
    files = HadoopFiles(sc)
    try:
        found = files.tree(path)
        if not found:
            raise ConfigError(f"there is no checkpoint {path}; pass a directory step-XXXXXXXX that a training wrote")
        if SUCCESS not in found:
            raise ConfigError(
                f"the checkpoint {path} is incomplete, its writer was stopped before the end (it has no {SUCCESS}); "
                "resume from another one"
            )
        if TRAINER_STATE not in found:
            raise ConfigError(f"the checkpoint {path} is damaged: {TRAINER_STATE} is missing; resume from another one")
        state = TrainerState.loads(files.read_text(f"{path}/{TRAINER_STATE}"))
        check_files(state, found, path)
        with files.local_copy(f"{path}/{HISTORY}") as local:
            history = saved_model.read_arrays(local)
        tensors: list[dict[str, torch.Tensor]] = []
        for number in range(len(state.callbacks)):
            tensors.append({})
            if callback_file(number) in state.files:
                with files.local_copy(f"{path}/{callback_file(number)}") as local:
                    tensors[-1] = saved_model.read_tensors(local)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the checkpoint {path} cannot be read: {error}") from error
    return Checkpoint(path, state, history, tensors)


def state_parts(sc: SparkContext, path: str, state: TrainerState) -> Iterator[saved_state.Part]:
    """The parts of a checkpoint's state, one file after the other. Raises ConfigError: they cannot be read."""
    files = HadoopFiles(sc)
    try:
        for name in sorted(name for name in state.files if name.startswith(f"{STATE}/")):
            with files.local_copy(f"{path}/{name}") as local:
                yield from saved_state.read_parquet([local])
    except OSError as error:
        raise ConfigError(f"the checkpoint {path} cannot be read: {error}") from error


def load_model(sc: SparkContext, path: str, model: torch.nn.Module) -> None:
    """Puts a checkpoint's weights and buffers into ``model``. Raises ConfigError: damaged, or another model's."""
    found = read(sc, path).state.files
    try:
        take_model(HadoopFiles(sc), path, found, model)
    except OSError as error:
        raise ConfigError(f"the checkpoint {path} cannot be read: {error}") from error


def take_model(files: HadoopFiles, path: str, names: Iterable[str], model: torch.nn.Module) -> None:
    """Puts the model's files, of those called ``names`` in the directory ``path``, into ``model``, one by one.

    Raises OSError: one cannot be read; ConfigError: one is damaged, or of another model.
    """
    with saved_model.Loader(model, path) as loader:
        for name in saved_model.file_names(names):
            with files.local_copy(f"{path}/{name}") as local:
                loader.take(local)


def remove(sc: SparkContext, path: str) -> None:
    """Removes a checkpoint, its mark of completeness first; one that is not there is no error.

    Raises ConfigError: the path is no checkpoint's; ClusterError: it cannot be removed.
    """
    if step_of(path) is None:
        raise ConfigError(f"{path} is no checkpoint's directory (step-XXXXXXXX), so it is not removed")
    files = HadoopFiles(sc)
    try:
        files.delete(f"{path}/{SUCCESS}")
        files.delete(path)
    except OSError as error:
        raise ClusterError(f"the checkpoint could not be removed: {error}") from error
