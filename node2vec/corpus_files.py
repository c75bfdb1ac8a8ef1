"""How a corpus lies on disk: a file of tokens for each episode and part, and ``corpus.json``, which is written last.

    stream-<episode>-<part>.bin   tokens of the part in the walks of the episode, as ``token_streams.to_bytes`` has them
    counts-<part>.bin             tokens of each row of the part, int64, little-endian, nothing else
    corpus.json                   what the corpus was made of, and with which settings

A stream's arrays begin at multiples of 8 bytes, so that a local file is memory-mapped and *is* the arrays. A directory
without ``corpus.json`` holds no corpus. Directories are local paths or URIs, as in ``graph_files``.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import fs

from node2vec import token_streams
from node2vec.graph_files import file_system, replaced
from node2vec.token_streams import Stream
from sparkdl.errors import ConfigError

FORMAT = 1
HEADER = "corpus.json"


@dataclass(frozen=True)
class Header:
    """``corpus.json``. num_tokens: after `min_count` and `sample`; longest: nodes of the longest walk before them."""

    num_nodes: int
    num_walks: int
    num_tokens: int
    longest: int
    num_parts: int
    num_episodes: int
    min_count: int
    sample: float
    seed: int
    fingerprint: str
    format: int = FORMAT


def stream_name(episode: int, part: int) -> str:
    """The file of a stream."""
    return f"stream-{episode:05d}-{part:05d}.bin"


def counts_name(part: int) -> str:
    """The file of a part's counts."""
    return f"counts-{part:05d}.bin"


def write_stream(files: fs.FileSystem, path: str, stream: Stream) -> None:
    """A stream as one file, which appears at once or not at all."""
    with replaced(files, path) as target:
        for buffer in token_streams.to_bytes(stream):
            target.write(pa.py_buffer(buffer))


def read_stream(files: fs.FileSystem, path: str) -> Stream:
    """A file's stream, read-only. A local file is memory-mapped: nothing is read before it is used.

    Raises ConfigError: the file is missing, cut short, or no stream.
    """
    if isinstance(files, fs.LocalFileSystem) and os.path.isfile(path) and os.path.getsize(path):
        return token_streams.from_bytes(pa.memory_map(path, "r").read_buffer(), path)
    return token_streams.from_bytes(_content(files, path), path)


def write_counts(files: fs.FileSystem, path: str, counts: npt.NDArray[np.int64]) -> None:
    """Counts, int64 [n_A], as one file, which appears at once or not at all."""
    with replaced(files, path) as target:
        target.write(np.ascontiguousarray(counts, "<i8").tobytes())


def read_counts(files: fs.FileSystem, path: str) -> npt.NDArray[np.int64]:
    """A file's counts, int64 [n_A], read-only. Raises ConfigError: the file is missing, or cut short."""
    content = _content(files, path)
    if content.size % 8:
        raise ConfigError(f"{path} has {content.size} bytes, which is no number of int64. Prepare the corpus again.")
    return np.frombuffer(content, "<i8")


def write_header(directory: str | os.PathLike[str], header: Header) -> None:
    """``corpus.json``, the last file: from here on the directory holds a corpus."""
    files, folder = file_system(directory)
    with replaced(files, f"{folder}/{HEADER}") as target:
        target.write(json.dumps(asdict(header), indent=1).encode())


def read_header(directory: str | os.PathLike[str]) -> Header:
    """``corpus.json``. Raises ConfigError: there is none, or another version wrote it."""
    files, folder = file_system(directory)
    path = f"{folder}/{HEADER}"
    if files.get_file_info(path).type != fs.FileType.File:
        raise ConfigError(
            f"{os.fspath(directory)} holds no corpus: it has no {HEADER}, which is written last. Prepare the walks "
            "first."
        )
    with files.open_input_stream(path) as source:
        values = json.loads(source.read())
    if values.get("format") != FORMAT:
        raise ConfigError(
            f"the corpus in {os.fspath(directory)} has format {values.get('format')}, this version reads {FORMAT}. "
            "Prepare the walks again in another directory."
        )
    return Header(**values)


def _content(files: fs.FileSystem, path: str) -> pa.Buffer:
    if files.get_file_info(path).type != fs.FileType.File:
        raise ConfigError(
            f"{path} is missing; the corpus was complete once. Remove its directory and prepare it again."
        )
    with files.open_input_file(path) as source:
        return source.read_buffer()
