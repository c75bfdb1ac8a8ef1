from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from node2vec import table_files


def test_tables_come_back_and_only_complete_rounds_count(tmp_path: Path) -> None:
    output = str(tmp_path)
    assert table_files.complete_rounds(output) == 0
    rng = np.random.default_rng(0)
    tables = {part: rng.standard_normal((4 + part, 3)).astype(np.float32) for part in range(3)}
    for number in (4, 8, 12):
        for part in range(3):
            other = (part + 1) % 3
            table_files.write_tables(output, number, {part: tables[part]}, {other: tables[other] + number})
        if number < 12:
            table_files.complete(output, number)
    assert table_files.complete_rounds(output) == 8
    assert sorted(path.name for path in (tmp_path / "_rounds").iterdir()) == ["00008", "00012"]
    inputs, outputs = table_files.read_tables(output, 8, (1, 2), (0,))
    assert (list(inputs), list(outputs)) == ([1, 2], [0])
    assert np.array_equal(inputs[2], tables[2])
    assert np.array_equal(outputs[0], tables[0] + 8)
    table_files.clear(output)
    assert list(tmp_path.iterdir()) == []
    table_files.clear(output)


def test_old_rows_replace_those_of_their_part_only(tmp_path: Path) -> None:
    inputs = np.zeros((5, 2), np.float32)
    table_files.put_old_rows(str(tmp_path), 1, inputs)
    folder = tmp_path / "_init" / "part=1"
    folder.mkdir(parents=True)
    for number, rows in enumerate(([3, 0], [4])):
        vectors = pa.array([[row + 0.5, row + 1.0] for row in rows], pa.list_(pa.float32()))
        pq.write_table(pa.table({"row": pa.array(rows, pa.int32()), "vector": vectors}), folder / f"{number}.parquet")
    table_files.put_old_rows(str(tmp_path), 0, inputs)
    assert not inputs.any()
    table_files.put_old_rows(str(tmp_path), 1, inputs)
    assert inputs.tolist() == [[0.5, 1.0], [0, 0], [0, 0], [3.5, 4.0], [4.5, 5.0]]


@pytest.mark.parametrize("most", [7, 1 << 24])
def test_vectors_are_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(table_files, "_MOST_NUMBERS", most)
    vectors = np.arange(30, dtype=np.float32).reshape(10, 3)
    table_files.write_vectors(str(tmp_path), 4, np.arange(10, 20, dtype=np.int32), vectors[::1])
    (path,) = tmp_path.iterdir()
    assert path.name == "part-00004.parquet"
    assert pq.ParquetFile(path).metadata.num_row_groups == (5 if most == 7 else 1)
    table = pq.read_table(path)
    assert table["index"].to_pylist() == list(range(10, 20))
    assert table["vector"].to_pylist() == vectors.tolist()


def test_no_vectors_are_a_file_all_the_same(tmp_path: Path) -> None:
    table_files.write_vectors(str(tmp_path), 0, np.empty(0, np.int32), np.empty((0, 3), np.float32))
    assert pq.read_table(tmp_path / "part-00000.parquet").num_rows == 0


@pytest.mark.parametrize("most", [7, 1 << 24])
def test_vectors_that_are_not_finite_are_told_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(table_files, "_MOST_NUMBERS", most)
    output = str(tmp_path)
    vectors = np.full((10, 3), np.finfo(np.float32).max)  # whose sum is not finite, but they are
    for part in range(3):
        table_files.write_vectors(output, part, np.arange(10, dtype=np.int32) * 3 + part, vectors)
    assert table_files.not_finite(output) is None
    for path in tmp_path.iterdir():
        path.unlink()
    for part, wrong in enumerate(({6: np.nan, 9: np.inf}, {}, {2: -np.inf})):
        some = vectors.copy()
        for row, value in wrong.items():
            some[row, row % 3] = value
        table_files.write_vectors(output, part, np.arange(10, dtype=np.int32)[::-1] * 3 + part, some)
    assert table_files.not_finite(output) == (0, 3)
    assert {path.name for path in tmp_path.glob("part-*")} == {"part-00001.parquet"}
    table_files.clear(output)
    assert table_files.not_finite(output) is None
