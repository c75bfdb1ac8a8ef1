"""Rows come out of the files as they went in: whatever their columns, in any order, mapped or not."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkdl import row_files
from sparkdl.row_files import WIDE_BYTES, RowFiles, RowWriter
from sparkdl.sparse_rows import SparseRows
from sparkdl.stored_arrays import Kind, Stored, kinds_of

DTYPES = ("<f4", "<i8", "|u1")


def same(found: Stored, wanted: Stored) -> None:
    assert found.dtype == wanted.dtype
    if isinstance(wanted, SparseRows):
        assert isinstance(found, SparseRows)
        found, wanted = found.dense(), wanted.dense()
    else:
        assert isinstance(found, np.ndarray)
        assert found.flags.c_contiguous
        assert found.flags.writeable
    np.testing.assert_array_equal(found, wanted)


def written(folder: Path, columns: dict[str, Any], cuts: list[int]) -> RowFiles:
    folder.mkdir()
    writer = RowWriter(str(folder), kinds_of(columns))
    num_rows = len(next(iter(columns.values())))
    borders = [0, *sorted(cuts), num_rows]
    for start, stop in itertools.pairwise(borders):
        writer.append({name: values[start:stop] for name, values in columns.items()})
    writer.close()
    return RowFiles(str(folder))


@st.composite
def column(draw: st.DrawFn, num_rows: int) -> Stored:
    random = np.random.default_rng(draw(st.integers(0, 99)))
    kind = draw(st.sampled_from(["number", "array", "wide", "sparse"]))
    dtype = draw(st.sampled_from(DTYPES))
    shape = {"number": (), "array": (draw(st.integers(0, 3)), 2), "wide": (WIDE_BYTES + 1,), "sparse": (9,)}[kind]
    values = random.integers(0, 3, (num_rows, *shape)).astype(dtype)
    return SparseRows.of_dense(values.astype(np.float32)) if kind == "sparse" else values


@pytest.mark.parametrize("form", ["kept", "let go", "read"])
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_come_back(
    form: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form != "kept":
        monkeypatch.setattr(row_files, "KEPT_BYTES", 0)
    if form == "read":
        monkeypatch.setattr(row_files, "_mapping", lambda file, size: None)
    num_rows = data.draw(st.integers(0, 8))
    columns: dict[str, Any] = {
        f"{k}": data.draw(column(num_rows)) for k in range(data.draw(st.integers(1, 4), label="columns"))
    }
    cuts = data.draw(st.lists(st.integers(0, num_rows), max_size=3), label="cuts")
    files = written(tmp_path_factory.mktemp("rows") / "replica", columns, cuts)
    assert files.num_rows == num_rows
    assert files.kinds == kinds_of(columns)
    wanted = np.array(data.draw(st.lists(st.integers(0, num_rows - 1), max_size=12)) if num_rows else [], np.int64)
    files.expect(wanted)
    found = files.take(wanted)
    assert list(found) == list(columns)
    for name, values in columns.items():
        same(found[name], values[wanted])


def test_narrow_columns_share_a_file(tmp_path: Path) -> None:
    columns: dict[str, Any] = {f"c{k}": np.arange(5) + k for k in range(40)}
    columns["image"] = np.zeros((5, 32, 32), np.uint8)
    written(tmp_path / "replica", columns, [])
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "replica").iterdir() if path.suffix == ".bin"}
    assert sizes == {"records.bin": 5 * 40 * 8, "column-40.bin": 5 * 1024}


def test_no_rows_at_all(tmp_path: Path) -> None:
    writer = RowWriter(str(tmp_path), {"x": Kind("<f4", (3,)), "v": Kind("<f4", (7,), True)})
    writer.close()
    found = RowFiles(str(tmp_path)).take(np.arange(0))
    assert {name: values.shape for name, values in found.items()} == {"x": (0, 3), "v": (0, 7)}


def test_a_directory_without_rows(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RowFiles(str(tmp_path))


def test_a_file_that_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "_mapping", lambda file, size: None)
    files = written(tmp_path / "replica", {"k": np.arange(10)}, [])
    (tmp_path / "replica" / "records.bin").write_bytes(b"short")
    with pytest.raises(EOFError, match="shorter than its listing says"):
        files.take(np.array([7]))


def test_a_limit_of_the_address_space(tmp_path: Path) -> None:
    """As with spark.executor.pyspark.memory: what cannot be mapped is read."""
    num_rows, folder = 60_000, tmp_path / "replica"
    columns: dict[str, Any] = {"k": np.arange(num_rows), "x": np.zeros((num_rows, 300), np.float32)}  # 72 MB
    written(folder, columns, [])
    program = f"""
import resource, numpy as np
from sparkdl.row_files import RowFiles
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (48 << 20), used + (48 << 20)))
rows = np.array([5, {num_rows - 1}, 7])
found = RowFiles({str(folder)!r}).take(rows)
assert found["k"].tolist() == rows.tolist() and found["x"].shape == (3, 300)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_large_files_do_not_stay_in_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num_rows = 50_000
    columns: dict[str, Any] = {"k": np.arange(num_rows), "x": np.zeros((num_rows, 300), np.float32)}  # 60 MB
    resident = {}
    for kept in (1 << 40, 0):
        monkeypatch.setattr(row_files, "KEPT_BYTES", kept)
        files = written(tmp_path / str(kept), columns, [])
        assert files.large == (kept == 0)
        files.take(np.arange(num_rows))
        lines = Path("/proc/self/smaps").read_text().split(str(tmp_path / str(kept)))[1:]
        assert len(lines) == 2  # the records and the wide column
        resident[kept] = sum(int(line.split("Rss:")[1].split()[0]) for line in lines)
    assert resident[0] < 1000 < 50_000 < resident[1 << 40]
