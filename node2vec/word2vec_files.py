"""Vectors in the word2vec format, text and binary, written and read a batch at a time.

The first line is ``<number of vectors> <dimensions>``. Then, a vector after the other:

    text     the id, a space, the numbers with spaces between them, a line feed
    binary   the id, a space, the numbers as little-endian float32, a line feed

as Mikolov's word2vec.c (2013) writes them; gensim, fastText, spaCy and many others read them. Ids are UTF-8 words.
The format cannot tell an integer from its digits, so ids that are read are strings. A path may be a URI that
``pyarrow.fs`` knows; a name that ends in .gz, .bz2 or .zst is compressed.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from node2vec.graph_files import file_system, replaced
from sparkdl.errors import ConfigError

Batch = tuple[Sequence[Any] | npt.NDArray[Any], npt.NDArray[np.float32]]

CHUNK_NUMBERS = 1 << 20  # that are turned into text at once: some 12 MB
MOST_ID_BYTES = 1 << 16  # an id that is longer than this is no id, but the sign of a file of another format
_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_HEADER = re.compile(rb"^(\d+)[ \t]+(\d+)\s*$")


def write(
    path: str | os.PathLike[str], batches: Iterable[Batch], num_vectors: int, dimensions: int, binary: bool = False
) -> None:
    """Write vectors as one file, which appears at once when all of it is written; a file that is there is replaced.

    batches: (ids [n], float32 [n, dimensions]) each, `num_vectors` rows in all; ids are strings or integers.
    Raises ConfigError: an id that is empty or has whitespace in it, for which the format has no place; a matrix of
    another width; more or fewer rows than announced. Then there is no new file.
    """
    files, place = file_system(path)
    codec = _compression(place)
    files.create_dir(place.rpartition("/")[0] or "/", recursive=True)
    count = 0
    with ExitStack() as stack:
        stream = stack.enter_context(replaced(files, place))
        if codec is not None:
            stream = stack.enter_context(pa.CompressedOutputStream(stream, codec))
        stream.write(f"{num_vectors} {dimensions}\n".encode())
        for ids, matrix in batches:
            if matrix.shape != (len(ids), dimensions):
                raise ConfigError(
                    f"{len(ids)} ids came with a matrix of shape {matrix.shape}; it must be ({len(ids)}, {dimensions})."
                )
            count += len(ids)
            words = [word_of(value) for value in ids]
            numbers = np.ascontiguousarray(matrix, "<f4")
            step = max(1, CHUNK_NUMBERS // dimensions)
            for first in range(0, len(words), step):
                chunk = (words[first : first + step], numbers[first : first + step])
                stream.write(_binary(*chunk) if binary else _text(*chunk))
        if count != num_vectors:
            raise ConfigError(f"{num_vectors} vectors were announced and {count} came: nothing was written to {path}.")


def word_of(value: Any) -> str:
    """An id as the format holds it. Raises ConfigError: it is empty or has whitespace in it."""
    word = str(value)
    if word.split() != [word]:
        raise ConfigError(
            f"id {word!r} {'has whitespace in it' if word else 'is empty'}: in the word2vec format a word ends at the "
            "first space. Replace it in the column id first (for example regexp_replace(id, '\\\\s', '_')), or save "
            "the vectors as Parquet or npy."
        )
    return word


def _text(words: list[str], numbers: npt.NDArray[np.float32]) -> bytes:
    """Each number has as many digits as tell it from the next float32."""
    digits = pc.cast(pa.array(numbers.reshape(-1)), pa.string())
    ends = np.arange(len(words) + 1, dtype=np.int32) * numbers.shape[1]
    rows = pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), digits), " ")
    lines = pc.binary_join_element_wise(pa.array(words, pa.string()), rows, " ")
    whole = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(words)], pa.int32()), lines), "\n")
    return f"{whole[0].as_py()}\n".encode()


def _binary(words: list[str], numbers: npt.NDArray[np.float32]) -> bytes:
    return b"".join(
        part for word, row in zip(words, numbers, strict=True) for part in (word.encode(), b" ", row.tobytes(), b"\n")
    )


def shape(path: str | os.PathLike[str]) -> tuple[int, int]:
    """The number of vectors and their dimensions, from the first line. Raises ConfigError: it does not say."""
    with ExitStack() as stack, _sentences(path):
        return _shape(_opened(path, stack), path)


def read(path: str | os.PathLike[str], binary: bool = False, rows: int = 8192) -> Iterator[tuple[list[str], Any]]:
    """The vectors of a file in batches of at most `rows`: (ids, float32 [n, d]); ids are strings.

    Raises ConfigError: there is no such file, or it is not of this format, or ends too early; it says at which vector.
    """
    with ExitStack() as stack, _sentences(path):
        source = _opened(path, stack)
        num_vectors, dimensions = _shape(source, path)
        for first in range(0, num_vectors, rows):
            count = min(rows, num_vectors - first)
            read_rows = _read_binary if binary else _read_text
            yield read_rows(source, path, first, count, dimensions)
        if source.read(1024).strip():
            raise ConfigError(
                f"{os.fspath(path)} goes on after the {num_vectors} vectors that its first line announces. Is binary= "
                "right?"
            )


def _read_text(
    source: Any, path: str | os.PathLike[str], first: int, count: int, dimensions: int
) -> tuple[list[str], npt.NDArray[np.float32]]:
    ids, digits = [], []
    for number in range(first, first + count):
        line = source.readline()
        word, *values = line.decode(errors="replace").strip("\r\n ").split(" ")
        if len(values) != dimensions or not word:
            raise ConfigError(_broken(path, number, f"{len(values)} numbers instead of {dimensions}", line))
        ids.append(word)
        digits += values
    try:
        values = pa.array(digits, pa.string()).cast(pa.float32()).to_numpy()
    except pa.ArrowInvalid as error:
        raise ConfigError(
            f"{os.fspath(path)} is no word2vec text file: among vectors {first + 1} to {first + count}, {error}."
        ) from error
    return ids, values.reshape(count, dimensions)


def _read_binary(
    source: Any, path: str | os.PathLike[str], first: int, count: int, dimensions: int
) -> tuple[list[str], npt.NDArray[np.float32]]:
    ids = []
    matrix = np.empty((count, dimensions), "<f4")
    for place in range(count):
        word = bytearray()
        while (letter := source.read(1)) != b" " and letter and len(word) < MOST_ID_BYTES:
            word += letter
        data = source.read(4 * dimensions) if letter == b" " else b""
        if len(data) < 4 * dimensions:
            raise ConfigError(_broken(path, first + place, f"not an id and {4 * dimensions} bytes", bytes(word)))
        ids.append(word.lstrip(b"\n").decode(errors="replace"))
        matrix[place] = np.frombuffer(data, "<f4")
    return ids, matrix.astype(np.float32, copy=False)


def _broken(path: str | os.PathLike[str], number: int, found: str, line: bytes) -> str:
    if not line:
        return f"{os.fspath(path)} ends before vector {number + 1}: the rest is missing."
    start = line[:40].decode(errors="replace")
    return f"{os.fspath(path)}: vector {number + 1} (it starts with {start!r}) is {found}. Is binary= right?"


def _opened(path: str | os.PathLike[str], stack: ExitStack) -> Any:
    files, place = file_system(path)
    codec = _compression(place)
    raw = stack.enter_context(files.open_input_stream(place, compression=None))
    return stack.enter_context(io.BufferedReader(pa.CompressedInputStream(raw, codec) if codec else raw))


@contextmanager
def _sentences(path: str | os.PathLike[str]) -> Iterator[None]:
    """A file that is not there, or whose compressed bytes are damaged, as a sentence."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)} cannot be read: {error}.") from error


def _shape(source: Any, path: str | os.PathLike[str]) -> tuple[int, int]:
    line = source.readline(64)
    found = _HEADER.match(line)
    if found is None or not int(found[2]):
        raise ConfigError(
            f"{os.fspath(path)} is no word2vec file: its first line is {line[:40].decode(errors='replace')!r}, "
            "not the number of vectors and their dimensions."
        )
    return int(found[1]), int(found[2])


def _compression(place: str) -> str | None:
    """What the name's end says, as gensim reads it too."""
    return next((codec for ending, codec in _CODECS.items() if place.endswith(ending)), None)
