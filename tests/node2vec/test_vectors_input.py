from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from node2vec import vectors_input, word2vec_files
from sparkdl.errors import ConfigError

MATRIX = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
NUMBERS = [str(number) for number in (0, -7, 1 << 62, -(1 << 63), 4, 5, 6, 7, 8, 9, 10)]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("integer_ids", [False, True])
def test_it_is_the_same_in_many_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, binary: bool, integer_ids: bool
) -> None:
    monkeypatch.setattr(vectors_input, "BATCH_NUMBERS", 6)
    monkeypatch.setattr(vectors_input, "FILE_NUMBERS", 12)
    word2vec_files.write(tmp_path / "v.gz", [(NUMBERS, MATRIX)], 11, 3, binary)
    vectors_input.to_parquet(tmp_path / "v.gz", str(tmp_path / "out"), binary, integer_ids)
    assert len(list((tmp_path / "out").iterdir())) == 3
    table = pq.read_table(tmp_path / "out")
    assert table["id"].type == (pa.int64() if integer_ids else pa.string())
    assert [str(value) for value in table["id"].to_pylist()] == NUMBERS
    assert table["vector"].to_pylist() == MATRIX.tolist()


@pytest.mark.parametrize(
    ("content", "integer_ids", "sentence"),
    [
        (b"0 3\n", False, "holds no vectors"),
        (b"3 1\n1 1\n2 2\n", False, "ends before vector 3"),
        (b"2 1\n1 1\n02 2\n", True, "id '02' is no integer"),
        (b"2 1\n1 1\n9223372036854775808 2\n", True, "id '9223372036854775808' is no integer"),
        (b"2 1\n1 1\na 2\n", True, "id 'a' is no integer"),
        ("2 1\n1 1\n\u0663 2\n".encode(), True, "is no integer"),
    ],
)
def test_nothing_is_left_of_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, integer_ids: bool, sentence: str
) -> None:
    monkeypatch.setattr(vectors_input, "BATCH_NUMBERS", 1)
    (tmp_path / "v").write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        vectors_input.to_parquet(tmp_path / "v", str(tmp_path / "out"), integer_ids=integer_ids)
    assert [path.name for path in tmp_path.iterdir()] == ["v"]
