from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from node2vec import graph_files
from node2vec.graph_files import Header, Part, Rows
from sparkdl.errors import ConfigError

HEADER = Header(3, 4, True, True, (Part("part-00000.arrow", 0, 3, 4),), "00", {"nodes": 3}, {"max_degree": None})


def test_a_header_survives(tmp_path: Path) -> None:
    graph_files.write_header(tmp_path, HEADER)
    assert graph_files.read_header(str(tmp_path)) == HEADER
    assert graph_files.read_header(tmp_path.as_uri()) == HEADER
    assert [p.name for p in tmp_path.iterdir()] == ["graph.json"]
    assert HEADER.num_bytes == 8 * 4 + 8 * 4


def test_no_header_no_graph(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no graph: it has no graph.json"):
        graph_files.read_header(tmp_path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(json.dumps({"format": 7}))
    with pytest.raises(ConfigError, match="has format 7, this version reads 1"):
        graph_files.read_header(tmp_path)


def test_a_file_appears_at_once_or_not_at_all(tmp_path: Path) -> None:
    files, folder = graph_files.file_system(tmp_path)

    def break_off() -> None:
        with graph_files.replaced(files, f"{folder}/a") as stream:
            stream.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert list(tmp_path.iterdir()) == []
    for text in (b"one", b"two"):
        with graph_files.replaced(files, f"{folder}/a") as stream:
            stream.write(text)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"two"


def test_a_local_file_is_mapped_not_read(tmp_path: Path) -> None:
    files, folder = graph_files.file_system(tmp_path)
    rows = Rows(np.array([0, 500_000, 1_000_000]), np.arange(1_000_000, dtype=np.int32), np.ones(1_000_000, np.float32))
    graph_files.write_rows(files, f"{folder}/a", rows)
    assert (tmp_path / "a").stat().st_size < 8_000_000 + 2 * 3 * 8 + 2000
    before = pa.total_allocated_bytes()
    found = graph_files.read_rows(files, f"{folder}/a")
    assert pa.total_allocated_bytes() - before < 100_000
    for a, b in zip(found, rows, strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
        assert not a.flags.writeable


def test_the_fingerprint_is_a_sum_over_parts() -> None:
    rows = Rows(np.array([0, 2, 3]), np.array([5, 6, 7], np.int32), np.array([1, 2, 3], np.float32))
    whole = graph_files.rows_sum(rows, 10)
    parts = [
        Rows(np.array([0, 2]), rows.neighbors[:2], rows.weights[:2]),  # type: ignore[index]
        Rows(np.array([0, 1]), rows.neighbors[2:], rows.weights[2:]),  # type: ignore[index]
    ]
    assert (graph_files.rows_sum(parts[0], 10) + graph_files.rows_sum(parts[1], 11)) % 2**64 == whole
    other = Rows(rows.offsets, rows.neighbors, np.array([1, 3, 2], np.float32))
    prints = {
        graph_files.fingerprint(20, True, True, whole),
        graph_files.fingerprint(20, True, True, graph_files.rows_sum(other, 10)),
        graph_files.fingerprint(21, True, True, whole),
        graph_files.fingerprint(20, False, True, whole),
    }
    assert len(prints) == 4
