from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from node2vec import word2vec_files
from sparkdl.errors import ConfigError

WORDS = ["Valjean", "7", "-12", "Å", "日本", "a,b", '"quoted"', "😀", "</s>", "x\u0000y"]
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: text.split() == [text])


def matrix(rows: int, columns: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def in_batches(ids: list[Any], values: npt.NDArray[np.float32], size: int) -> list[word2vec_files.Batch]:
    return [(ids[first : first + size], values[first : first + size]) for first in range(0, len(ids), size)]


def all_of(path: Path, binary: bool, rows: int = 3) -> tuple[list[str], npt.NDArray[np.float32]]:
    ids: list[str] = []
    parts = []
    for some, part in word2vec_files.read(path, binary, rows):
        assert len(some) == len(part) <= rows
        assert part.dtype == np.float32
        ids += some
        parts.append(part)
    return ids, np.concatenate(parts)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("ending", ["txt", "vec.gz", "vec.bz2", "vec.zst"])
def test_what_is_written_is_read_to_the_bit(tmp_path: Path, binary: bool, ending: str) -> None:
    path = tmp_path / "new folder" / f"vectors.{ending}"
    values = matrix(len(WORDS), 5)
    values[0] = [0, -0.0, 1e-45, 3.4028235e38, 1 / 3]
    word2vec_files.write(path, in_batches(WORDS, values, 4), len(WORDS), 5, binary)
    assert word2vec_files.shape(path) == (len(WORDS), 5)
    ids, found = all_of(path, binary)
    assert ids == WORDS
    assert found.tobytes() == values.tobytes()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == ending.endswith("gz")


@given(
    values=hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(width=32)),
    binary=st.booleans(),
    data=st.data(),
)
def test_any_finite_or_other_numbers_and_any_words(
    tmp_path_factory: pytest.TempPathFactory, values: npt.NDArray[np.float32], binary: bool, data: st.DataObject
) -> None:
    words = data.draw(st.lists(TEXTS, min_size=len(values), max_size=len(values)))
    path = tmp_path_factory.mktemp("any") / "vectors"
    word2vec_files.write(path, [(words, values)], *values.shape, binary)
    ids, found = all_of(path, binary)
    assert ids == words
    assert np.array_equal(found, values, equal_nan=True)


def test_the_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    values = np.array([[0.5, -1.25], [3, 1e-7]], np.float32)
    word2vec_files.write(tmp_path / "text", [(np.array([10, 2]), values)], 2, 2)
    assert (tmp_path / "text").read_text() == "2 2\n10 0.5 -1.25\n2 3 1e-7\n"
    word2vec_files.write(tmp_path / "binary", [(["a", "b"], values)], 2, 2, binary=True)
    first, second = values.astype("<f4")
    assert (tmp_path / "binary").read_bytes() == b"2 2\na " + first.tobytes() + b"\nb " + second.tobytes() + b"\n"


@pytest.mark.parametrize("binary", [False, True])
def test_gensim_reads_it_and_is_read(tmp_path: Path, binary: bool) -> None:
    models = pytest.importorskip("gensim.models")
    values = matrix(len(WORDS), 5)
    word2vec_files.write(tmp_path / "ours", [(WORDS, values)], len(WORDS), 5, binary)
    loaded = models.KeyedVectors.load_word2vec_format(str(tmp_path / "ours"), binary=binary)
    assert loaded.index_to_key == WORDS
    np.testing.assert_array_equal(loaded.vectors, values)
    loaded.save_word2vec_format(str(tmp_path / "theirs"), binary=binary)
    ids, found = all_of(tmp_path / "theirs", binary)
    assert ids == WORDS
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("word", ["two words", "tab\tbed", "line\n", "", "no\u00a0break", "\u3000"])
def test_whitespace_is_refused_and_nothing_is_left(tmp_path: Path, word: str) -> None:
    with pytest.raises(ConfigError, match=r"(whitespace in it|is empty): in the word2vec format"):
        word2vec_files.write(tmp_path / "vectors", [(["a", word], matrix(2, 3))], 2, 3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "announced", "width", "words"),
    [(2, 3, 4, "3 vectors were announced and 2 came"), (3, 2, 4, "2 vectors were announced and 3"), (2, 2, 5, "shape")],
)
def test_what_was_announced_must_come(tmp_path: Path, rows: int, announced: int, width: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        word2vec_files.write(tmp_path / "vectors", [(list("abc")[:rows], matrix(rows, 4))], announced, width)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    word2vec_files.write(path, [(["a"], matrix(1, 2))], 1, 2)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="whitespace"):
        word2vec_files.write(path, [(["b c"], matrix(1, 2))], 1, 2)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "binary", "words"),
    [
        (b"", False, "no word2vec file"),
        (b"Valjean 0.5 0.5\n", False, "no word2vec file: its first line is 'Valjean"),
        (b"2 0\n", False, "no word2vec file"),
        (b"2 2\na 1 2\n", False, "ends before vector 2"),
        (b"2 2\na 1 2\nb 1\n", False, r"vector 2 .*'b 1.* is 1 numbers instead of 2"),
        (b"1 2\na 1 two\n", False, "two"),
        (b"1 2\na 1 2\nb 1 2\n", False, "goes on after the 1 vectors"),
        (b"2 1\na \0\0\0\0\nb \0", True, "vector 2 .*4 bytes"),
        (b"2 1\na \0\0\0\0", True, "ends before vector 2"),
        (b"1 1\n" + b"x" * 100_000, True, "vector 1 .*Is binary= right"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, binary: bool, words: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        list(word2vec_files.read(tmp_path / "file", binary))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        list(word2vec_files.read(tmp_path / "none"))


@pytest.mark.parametrize("ending", ["gz", "bz2", "zst"])
def test_damaged_compression_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"vectors.{ending}"
    word2vec_files.write(path, [(WORDS, matrix(len(WORDS), 500))], len(WORDS), 500)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ConfigError, match=rf"vectors\.{ending} cannot be read: Truncated"):
        list(word2vec_files.read(path))
    path.write_bytes(b"1 2\na 1 2\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        word2vec_files.shape(path)
