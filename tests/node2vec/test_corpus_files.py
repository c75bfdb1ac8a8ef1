from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from node2vec import corpus_files
from node2vec.corpus_files import Header
from node2vec.graph_files import file_system
from node2vec.token_streams import Stream
from sparkdl.errors import ConfigError

HEADER = Header(10, 20, 300, 80, 2, 16, 5, 1e-3, 7, "00ff")


def stream(num_walks: int) -> Stream:
    return Stream(
        np.full(num_walks, 2, np.uint8),
        np.tile(np.array([3, 9], np.uint8), num_walks),
        np.arange(2 * num_walks, dtype=np.int32),
    )


@pytest.mark.parametrize("num_walks", [0, 1, 5])
def test_streams_survive(tmp_path: Path, num_walks: int) -> None:
    files, folder = file_system(tmp_path)
    path = f"{folder}/{corpus_files.stream_name(3, 14)}"
    corpus_files.write_stream(files, path, stream(num_walks))
    assert [found.name for found in tmp_path.iterdir()] == ["stream-00003-00014.bin"]
    for a, b in zip(corpus_files.read_stream(files, path), stream(num_walks), strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
        assert not a.flags.writeable


def test_a_local_stream_is_mapped_not_read(tmp_path: Path) -> None:
    files, folder = file_system(tmp_path)
    corpus_files.write_stream(files, f"{folder}/a", stream(500_000))
    assert (tmp_path / "a").stat().st_size == 32 + 500_000 + 1_000_000 + 4_000_000
    before = pa.total_allocated_bytes()
    found = corpus_files.read_stream(files, f"{folder}/a")
    assert pa.total_allocated_bytes() - before < 100_000
    assert all(array.ctypes.data % 8 == 0 for array in found)
    assert found.rows[-1] == 999_999


def test_files_that_are_missing_or_cut_short(tmp_path: Path) -> None:
    files, folder = file_system(tmp_path)
    for read in (corpus_files.read_stream, corpus_files.read_counts):
        with pytest.raises(ConfigError, match=r"/a is missing; the corpus was complete once"):
            read(files, f"{folder}/a")
    corpus_files.write_stream(files, f"{folder}/b", stream(9))
    content = (tmp_path / "b").read_bytes()
    (tmp_path / "b").write_bytes(content[:-4])
    with pytest.raises(ConfigError, match=rf"/b should have {len(content)} bytes and has {len(content) - 4}"):
        corpus_files.read_stream(files, f"{folder}/b")
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(ConfigError, match="/b holds no stream of tokens"):
        corpus_files.read_stream(files, f"{folder}/b")
    (tmp_path / "b").write_bytes(bytes(12))
    with pytest.raises(ConfigError, match="/b has 12 bytes, which is no number of int64"):
        corpus_files.read_counts(files, f"{folder}/b")


@pytest.mark.parametrize("counts", [[], [5, 0, 2**40]])
def test_counts_survive(tmp_path: Path, counts: list[int]) -> None:
    files, folder = file_system(tmp_path)
    path = f"{folder}/{corpus_files.counts_name(2)}"
    corpus_files.write_counts(files, path, np.array(counts, np.int64))
    assert [found.name for found in tmp_path.iterdir()] == ["counts-00002.bin"]
    assert (tmp_path / "counts-00002.bin").stat().st_size == 8 * len(counts)
    found = corpus_files.read_counts(files, path)
    assert found.dtype == np.int64
    assert found.tolist() == counts


def test_a_header_survives(tmp_path: Path) -> None:
    corpus_files.write_header(tmp_path, HEADER)
    assert corpus_files.read_header(str(tmp_path)) == HEADER
    assert corpus_files.read_header(tmp_path.as_uri()) == HEADER
    assert [found.name for found in tmp_path.iterdir()] == ["corpus.json"]


def test_no_header_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no corpus: it has no corpus.json"):
        corpus_files.read_header(tmp_path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus.json").write_text(json.dumps({"format": 7}))
    with pytest.raises(ConfigError, match="has format 7, this version reads 1"):
        corpus_files.read_header(tmp_path)
