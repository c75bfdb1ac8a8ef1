"""Small edge lists with every fault, and what cleaning makes of them said once more, slowly, with dictionaries."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from node2vec.arc_hash import arc_hash

WEIGHTS = st.one_of(
    st.sampled_from([1.0, 2.0, 0.5, 0.1, 1e30]),
    st.floats(min_value=2.0**-10, max_value=2.0**10, width=32),
)
BAD_WEIGHTS = st.sampled_from([0.0, -0.0, -1.0, 1e-60, 1e300, float("nan"), float("inf"), -float("inf"), None])


class EdgeList(NamedTuple):
    """src, dst: ids; weight: floats and None, or None."""

    src: list[Any]
    dst: list[Any]
    weight: list[float | None] | None

    def arrays(self) -> tuple[Any, Any, Any]:
        """As :func:`node2vec.edge_cleaning.clean` takes them."""
        dtype = object if isinstance(self.src[0], str) else np.int64
        weight = None
        if self.weight is not None:
            data = np.array([0.0 if w is None else w for w in self.weight])
            weight = np.ma.array(data, mask=[w is None for w in self.weight])
        return np.array(self.src, dtype), np.array(self.dst, dtype), weight


@st.composite
def edge_lists(draw: st.DrawFn, bad: bool = True) -> EdgeList:
    """Up to 40 rows over few ids, so that repeats, loops and hubs are common."""
    ids = draw(
        st.sampled_from(
            [
                [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
                [-5, 10**15, 7, 3, 2**40, -(2**60), 12, 13],
                ["a", "b", "B", "ä", "aa", "", "\U0001f600", "\uffee", "0", "10"],
            ]
        )
    )
    pairs = draw(st.lists(st.tuples(st.sampled_from(ids), st.sampled_from(ids)), min_size=1, max_size=40))
    weight = None
    if draw(st.booleans()):
        one = st.one_of(WEIGHTS, WEIGHTS, BAD_WEIGHTS) if bad else WEIGHTS
        weight = draw(st.lists(one, min_size=len(pairs), max_size=len(pairs)))
    return EdgeList([a for a, _ in pairs], [b for _, b in pairs], weight)


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Any]:
    """Settings that drop bad weights; raising is tested by itself."""
    return {
        "directed": draw(st.booleans()),
        "multi_edges": draw(st.sampled_from(["sum", "max", "first"])),
        "self_loops": draw(st.sampled_from(["keep", "drop"])),
        "bad_weights": "drop",
        "max_degree": draw(st.sampled_from([None, None, 1, 2, 4])),
    }


def fault(weight: float | None) -> str | None:
    """The report's name for what is wrong with a weight."""
    if weight is None:
        return "null_weights"
    with np.errstate(over="ignore"):
        w = np.float32(weight)
    if np.isnan(w):
        return "nan_weights"
    if w < 0:
        return "negative_weights"
    if w == 0:
        return "zero_weights"
    return "infinite_weights" if np.isinf(w) else None


def slow_clean(
    edges: EdgeList, directed: bool, multi_edges: str, self_loops: str, bad_weights: str, max_degree: int | None
) -> tuple[list[Any], list[dict[int, float]], Counter[str]]:
    """The ids by number, each node's neighbours with their weights, and the report's counts."""
    counts: Counter[str] = Counter(rows=len(edges.src))
    mentions: Counter[Any] = Counter()
    parallel: dict[tuple[Any, Any], list[float]] = defaultdict(list)
    weights = edges.weight or [1.0] * len(edges.src)
    for a, b, w in zip(edges.src, edges.dst, weights, strict=True):
        mentions.update({a: 0, b: 0})
        if (name := fault(w)) is not None:
            counts[name] += 1
            continue
        counts["self_loops"] += a == b
        if a == b and self_loops == "drop":
            continue
        mentions[a] += 1
        mentions[b] += 1
        assert w is not None
        parallel[(a, b) if directed else (min(a, b), max(a, b))].append(float(np.float32(w)))
    ids = sorted(mentions, key=lambda node: (-mentions[node], node))
    number = {node: i for i, node in enumerate(ids)}
    rows: list[dict[int, float]] = [{} for _ in ids]
    for (a, b), values in parallel.items():
        counts["duplicate_edges"] += len(values) - 1
        merged = {"sum": sum(sorted(values)), "max": max(values), "first": min(values)}[multi_edges]
        rows[number[a]][number[b]] = merged
        if not directed:
            rows[number[b]][number[a]] = merged
    counts["nodes"], counts["edges"] = len(ids), len(parallel)
    counts["isolated_nodes"] = sum(count == 0 for count in mentions.values())
    counts["sinks"] = sum(not row for row in rows) - counts["isolated_nodes"]
    counts["largest_degree"] = max(len(row) for row in rows)
    for tail, row in enumerate(rows):
        if max_degree is not None and len(row) > max_degree:
            counts["capped_nodes"] += 1
            hashes = {h: int(arc_hash(np.array([tail]), np.array([h]))[0]) for h in row}
            rows[tail] = {h: row[h] for h in sorted(row, key=hashes.__getitem__)[:max_degree]}
    counts["arcs"] = sum(map(len, rows))
    return ids, rows, counts
