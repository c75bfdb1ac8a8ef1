from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node2vec.walk_request import WalkRequest, cut, walks_between
from sparkdl.errors import ConfigError


@given(st.integers(1, 1000), st.integers(1, 40))
def test_ranges_cover_every_walk_once_and_evenly(num_walks: int, parts: int) -> None:
    ranges = cut(num_walks, parts)
    assert [i for first, last in ranges for i in range(first, last)] == list(range(num_walks))
    sizes = [last - first for first, last in ranges]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert len(ranges) == min(parts, num_walks)


@given(st.integers(1, 9), st.integers(1, 4), st.booleans(), st.integers(1, 7))
def test_the_walks_do_not_depend_on_the_cut(num_nodes: int, num_walks: int, some: bool, parts: int) -> None:
    starts = np.arange(num_nodes, dtype=np.int32)[::2] if some else None
    chosen = range(num_nodes)[::2] if some else range(num_nodes)
    ids = [walks_between(*share, starts, num_nodes) for share in cut(num_walks * len(chosen), parts)]
    found = [(int(s), int(n)) for nodes, numbers in ids for s, n in zip(nodes, numbers, strict=True)]
    assert found == [(s, n) for n in range(num_walks) for s in chosen]
    assert {(nodes.dtype, numbers.dtype) for nodes, numbers in ids} == {(np.dtype("i4"), np.dtype("i8"))}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"p": 0}, "p=0 is no bias"),
        ({"q": -1.0}, r"q=-1\.0 is no bias"),
        ({"p": float("nan")}, "p=nan is no bias"),
        ({"walk_length": 0}, "walk_length=0 makes no walk: a walk has one node at least"),
        ({"num_walks": 0}, "num_walks=0 makes no walk: each start node has one walk at least"),
        ({"num_walks": 2.5}, r"num_walks=2\.5 makes no walk"),
        ({"seed": -1}, "seed=-1 does not fit 64 bits"),
    ],
)
def test_what_makes_no_walk(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        WalkRequest(**values)


def test_settings_are_json_and_tell_start_nodes_apart() -> None:
    request = WalkRequest(num_walks=np.int64(3), p=0.5)  # type: ignore[arg-type]
    assert WalkRequest(**json.loads(json.dumps(request.fields()))) == request
    all_settings = [request.settings(starts) for starts in (None, np.array([1], "i4"), np.array([2], "i4"))]
    assert len({json.dumps(settings) for settings in all_settings}) == 3
