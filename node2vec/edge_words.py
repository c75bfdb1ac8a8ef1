"""Ids and weights in text: integers or words, numbers or not, and sentences about those that cannot be meant.

Ids are integers if every single one is written as an integer (no leading zeros), else all of them are strings. Spark's
form of this rule is in ``edge_source``; :func:`ids_of` is the same on Arrow's strings, for edges that one task reads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sparkdl.errors import ConfigError

INTEGER = r"^(0|-?[1-9]\d{0,17})\z"  # the same to Java and to RE2


class WordCounts(NamedTuple):
    """rows; not_integers: rows where an id is not written as an integer; wrong_weights: weights that are not numbers,
    and the smallest of them.
    """

    rows: int
    not_integers: int
    wrong_weights: int = 0
    wrong_weight: str | None = None


def id_type(counts: WordCounts, first: Sequence[str]) -> str:
    """Spark's name of the type of the ids: bigint or string. first: the ids on the first line, if it may be a header.

    Raises ConfigError: weights are not numbers; only the first line has ids that are no integers.
    """
    if counts.wrong_weights:
        raise ConfigError(
            f"{counts.wrong_weights} of {counts.rows} weights are not numbers, for example {counts.wrong_weight!r}: "
            "correct them, or pass weight=None to use none."
        )
    header = first and counts.not_integers == 1 and counts.rows > 1
    if header and not any(re.match(INTEGER.replace(r"\z", r"\Z"), field) for field in first):
        raise ConfigError(
            f"ids are integers on all lines but the first, {','.join(first)}: say what its columns are: pass "
            "src=... and dst=..."
        )
    return "string" if counts.not_integers else "bigint"


def ids_of(src: Any, dst: Any, wrong: Any, first: Sequence[str]) -> tuple[Any, Any]:
    """Both columns as int64 or as they are. src, dst: pa.string(); wrong: pa.string(), weights that are not numbers,
    null elsewhere; None without weights; first: see :func:`id_type`, which also says what is raised.
    """
    integers = pc.and_kleene(*(pc.match_substring_regex(column, INTEGER) for column in (src, dst)))
    not_integers = pc.sum(pc.invert(integers)).as_py() or 0
    faults = [] if wrong is None else wrong.drop_null().to_pylist()
    counts = WordCounts(len(src), not_integers, len(faults), min(faults, default=None))
    if id_type(counts, first) == "string":
        return src, dst
    return src.cast(pa.int64()), dst.cast(pa.int64())
