from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from node2vec import resident_tables
from sparkdl.errors import StateLost


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two, as Spark names them to a worker."""
    found = [tmp_path / "a", tmp_path / "b"]
    for disk in found:
        disk.mkdir()
    monkeypatch.setenv(resident_tables.LOCAL_DIRS, ",".join(map(str, found)))
    return found


def tables(version: int) -> dict[int, np.ndarray]:
    return {part: np.arange(6, dtype=np.float32).reshape(3, 2) + 10 * part + 100 * version for part in range(3)}


def test_the_version_before_is_there_still_and_the_one_before_that_is_not(disks: list[Path]) -> None:
    for version in (1, 2, 3):
        resident_tables.write("run-0", version, tables(version))
    for version in (2, 3):
        for part in range(3):
            found = resident_tables.read("run-0", version, part, (3, 2))
            assert np.array_equal(found, tables(version)[part])
            found += 1  # a copy: the file stays as it is
            assert np.array_equal(resident_tables.read("run-0", version, part, (3, 2)), tables(version)[part])
    with pytest.raises(StateLost, match="holds no version 1 of the inputs of part 2"):
        resident_tables.read("run-0", 1, 2, (3, 2))
    assert [len(list((disk / "node2vec-run-0").iterdir())) for disk in disks] == [4, 2]  # parts 0 and 2, part 1
    resident_tables.write("run-0", 5, tables(5))  # version 4 was written elsewhere
    assert all("-00005" in path.name for disk in disks for path in (disk / "node2vec-run-0").iterdir())


def test_runs_do_not_see_each_other_and_leave_nothing(disks: list[Path]) -> None:
    for run in ("run-0", "run-1"):
        resident_tables.write(run, 1, tables(1))
    resident_tables.remove("run-0")
    with pytest.raises(StateLost):
        resident_tables.read("run-0", 1, 0, (3, 2))
    resident_tables.read("run-1", 1, 0, (3, 2))
    resident_tables.remove("run-1")
    resident_tables.remove("run-1")
    assert [list(disk.iterdir()) for disk in disks] == [[], []]


def test_what_broke_off_is_no_version(disks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: str) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(resident_tables.os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        resident_tables.write("run-0", 1, tables(1))
    assert list((disks[0] / "node2vec-run-0").iterdir()) == []
    with pytest.raises(StateLost):
        resident_tables.read("run-0", 1, 0, (3, 2))
