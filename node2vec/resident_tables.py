"""Input tables that stay where they are: files on a disk of the executor, one for each part and version.

A task's inputs come back to the same task in every round. To send them through a shuffle costs as much as the outputs,
which must travel. So the task leaves them in a file instead, and its successor, which Spark runs on the same executor,
reads it. Version r of a table is what round r (of groups) starts from; writing version r+1 removes r-1, so that a task
that runs again, or twice at once, still finds what it starts from. A file appears whole or not at all.

The files are a cache: where one is missing, since the executor was lost or the task runs elsewhere, the task raises
``StateLost`` and the driver goes back to tables that were written down. Each time it goes back the files get another
folder, so that late tasks disturb nobody. The folder lies in the directories that Spark gave the executor for shuffle
files, and which it removes with the application.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
import uuid

import numpy as np

from node2vec.block_schedule import LARGE_TABLE
from node2vec.table_pieces import Table, Tables
from sparkdl.errors import StateLost

LARGE = LARGE_TABLE  # bytes of a task's inputs, from which on they stay: below, a round's fixed cost is all there is
LOCAL_DIRS = "SPARK_LOCAL_DIRS"  # Spark tells its Python workers so where the executor's shuffle files are


def write(run: str, version: int, tables: Tables) -> None:
    """Leave a version of some parts' tables on this executor. run: a name of the run and of how often it went back."""
    for part, table in tables.items():
        folder = _folder(run, part)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, _name(part, version))
        aside = f"{path}.{uuid.uuid4().hex}"
        try:
            np.ascontiguousarray(table, np.float32).tofile(aside)
            os.replace(aside, path)
        except BaseException:
            _remove(aside)
            raise
        for old in (version - 2, version - 3):  # the latter stays where a round began from other files
            _remove(os.path.join(folder, _name(part, old)))


def read(run: str, version: int, part: int, shape: tuple[int, int]) -> Table:
    """A version of a part's table, float32 of this shape, which the caller may change.

    Raises StateLost: this executor does not hold it.
    """
    path = os.path.join(_folder(run, part), _name(part, version))
    try:
        found = np.fromfile(path, np.float32)
    except FileNotFoundError:
        raise StateLost(
            f"{platform.node()} holds no version {version} of the inputs of part {part} in {os.path.dirname(path)}"
        ) from None
    assert found.size == shape[0] * shape[1], f"{path} holds {found.size} numbers, not {shape}"
    return found.reshape(shape)


def remove(run: str) -> None:
    """Delete all tables of a run on this executor."""
    for directory in _directories():
        shutil.rmtree(os.path.join(directory, f"node2vec-{run}"), ignore_errors=True)


def _directories() -> list[str]:
    return os.environ.get(LOCAL_DIRS, tempfile.gettempdir()).split(",")


def _folder(run: str, part: int) -> str:
    directories = _directories()
    return os.path.join(directories[part % len(directories)], f"node2vec-{run}")


def _name(part: int, version: int) -> str:
    return f"in-{part:05d}-{version:05d}.f32"


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
