from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import fs

from node2vec import corpus_files, stream_copies
from node2vec.token_streams import Stream
from sparkdl.errors import ConfigError


def stream(value: int) -> Stream:
    return Stream(np.full(2, 3, np.uint8), np.tile(np.arange(3, dtype=np.uint8), 2), np.full(6, value, np.int32))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for episode in range(2):
        for part in range(3):
            path = f"{folder}/{corpus_files.stream_name(episode, part)}"
            corpus_files.write_stream(fs.LocalFileSystem(), path, stream(10 * episode + part))
    return folder


def remote(corpus: Path) -> fs.FileSystem:
    """A file system that is not this host's, for all that can be told."""
    return fs.SubTreeFileSystem(str(corpus.parent), fs.LocalFileSystem())


def read(corpus: Path, local: Path, episode: int, part: int, mark: str = "ab") -> int:
    found = stream_copies.read_stream(remote(corpus), "corpus", episode, part, mark, str(local))
    assert not found.rows.flags.writeable
    assert set(found.rows.tolist()) == {found.rows[0]}
    return int(found.rows[0])


def copies(local: Path) -> list[str]:
    return sorted(str(path.relative_to(local)) for path in local.rglob("*") if path.is_file())


def test_a_stream_is_fetched_once_an_episode(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local, fetched = tmp_path / "local", []
    fetch = stream_copies._fetch

    def counted(files: Any, source: str, copy: str) -> None:
        fetched.append(source[-15:-4])
        fetch(files, source, copy)

    monkeypatch.setattr(stream_copies, "_fetch", counted)
    for _ in range(3):
        assert [read(corpus, local, 0, part) for part in (0, 1, 2, 1)] == [0, 1, 2, 1]
    assert fetched == ["00000-00000", "00000-00001", "00000-00002"]
    assert copies(local) == [f"corpus-1-ab/00000/stream-00000-{part:05d}.bin" for part in range(3)]
    assert read(corpus, local, 1, 2) == 12
    assert copies(local) == ["corpus-1-ab/00001/stream-00001-00002.bin"]  # no more than one episode
    assert read(corpus, local, 0, 2, "cd") == 2
    assert len(copies(local)) == 2  # another corpus is none of ours


def test_a_local_corpus_is_read_in_place(corpus: Path, tmp_path: Path) -> None:
    local = tmp_path / "local"
    found = stream_copies.read_stream(fs.LocalFileSystem(), str(corpus), 1, 1, "ab", str(local))
    assert found.rows[0] == 11
    assert not local.exists()


def test_a_fetch_that_breaks_off_leaves_nothing(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: the stream is read where it is."""

    def full(source: Any, target: Any, size: int) -> None:
        target.write(source.read(10))
        raise OSError(28, "No space left on device")

    local = tmp_path / "local"
    monkeypatch.setattr("node2vec.stream_copies.shutil.copyfileobj", full)
    assert read(corpus, local, 1, 0) == 10
    assert copies(local) == []


def test_a_copy_that_is_cut_short_does_not_count(corpus: Path, tmp_path: Path) -> None:
    local = tmp_path / "local"
    read(corpus, local, 0, 1)
    copy = local / copies(local)[0]
    os.truncate(copy, 40)
    assert read(corpus, local, 0, 1) == 1


def test_a_missing_stream_is_a_sentence(corpus: Path, tmp_path: Path) -> None:
    (corpus / corpus_files.stream_name(1, 1)).unlink()
    with pytest.raises(ConfigError, match=r"corpus/stream-00001-00001\.bin is missing; the corpus was complete once"):
        read(corpus, tmp_path / "local", 1, 1)
    assert copies(tmp_path / "local") == []
