from __future__ import annotations

import pyarrow as pa
import pytest

from node2vec.edge_words import WordCounts, id_type, ids_of
from sparkdl.errors import ConfigError


def words(*values: str | None) -> pa.Array:
    return pa.array(values, pa.string())


def test_ids_are_integers_if_every_one_is_written_so() -> None:
    src, dst = ids_of(words("1", "-20", "0"), words("3", "999999999999999999", None), None, [])
    assert (src.type, src.to_pylist(), dst.to_pylist()) == (pa.int64(), [1, -20, 0], [3, 999999999999999999, None])
    for other in ("007", "-0", "1000000000000000000", "1.0", "a", "", "1\u2028", "\t2"):
        src, dst = ids_of(words("1", "2"), words("3", other), None, [])
        assert (src.to_pylist(), dst.to_pylist()) == (["1", "2"], ["3", other])


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 of 3 weights are not numbers, for example 'a'"):
        ids_of(words("1", "2", "3"), words("1", "2", "3"), words(None, "b", "a"), [])
    with pytest.raises(ConfigError, match="integers on all lines but the first, from,to: say what"):
        id_type(WordCounts(5, 1), ["from", "to"])
    assert id_type(WordCounts(5, 1), ["1", "to"]) == "string"
    assert id_type(WordCounts(5, 2), ["from", "to"]) == "string"
    assert id_type(WordCounts(5, 1), []) == "string"
