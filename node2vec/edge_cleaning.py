"""From edges as people have them to a :class:`node2vec.graph.Graph`: the policies, and the whole of it on one machine.

:func:`clean` is the twin of the indexing job, which shares :func:`build_rows` with it. What is done, in this order:

1. A weight is rounded to float32. A row whose weight is zero, negative, infinite, NaN or missing is an error, or is
   dropped (``bad_weights``).
2. Self-loops are kept or dropped (``self_loops``).
3. Nodes are numbered: those that most of the rows left mention come first (a self-loop mentions its node twice), ties
   by ascending id. Nodes that only dropped rows mention are numbered too.
4. Undirected: every row gives an arc each way, a self-loop one arc.
5. Arcs from one node to the same other are merged (``multi_edges``). Without weights a repeated edge counts once.
6. Of a node with more than ``max_degree`` arcs that many are kept.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from node2vec.arc_hash import arc_hash
from node2vec.graph import Graph
from node2vec.graph_files import Rows
from node2vec.graph_report import GraphReport
from sparkdl.errors import ConfigError

MOST_NODES = 2**31 - 1
_LOW = np.int64(0xFFFFFFFF)
_CHOICES = {"multi_edges": ("sum", "max", "first"), "self_loops": ("keep", "drop"), "bad_weights": ("raise", "drop")}


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What to do with what edges may contain.

    directed: whether (a, b) says nothing about (b, a).
    multi_edges: the weight of an edge that is given several times: the sum (added in float64 in ascending order), the
    largest, or the first in the order (src, dst, weight), which is the smallest: an order of rows that would change
    with the number of partitions is never used. In an undirected graph (a, b) and (b, a) are the same edge.
    self_loops: keep or drop edges from a node to itself.
    bad_weights: raise on weights that are no positive numbers, or drop these edges.
    max_degree: keep at most so many arcs of a node, chosen by a hash of (node, neighbour), so uniformly and always the
    same ones. Walks then see hubs' neighbours as a sample. Nodes are cut one by one: an undirected graph may keep the
    arc from a to b and lose the one from b to a. None keeps all.
    """

    directed: bool = False
    multi_edges: str = "sum"
    self_loops: str = "keep"
    bad_weights: str = "raise"
    max_degree: int | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(choices)}.")
        if self.max_degree is not None and self.max_degree < 1:
            raise ConfigError(f"max_degree={self.max_degree} would leave no arcs; give at least 1, or None for all.")

    def to_dict(self) -> dict[str, Any]:
        """The settings by name, for JSON."""
        return asdict(self)


class RowCounts(NamedTuple):
    """What :func:`build_rows` counted: different edges, rows merged into others, rows without arcs, the largest degree
    before and the rows cut by max_degree. An undirected edge counts where its smaller node's row is.
    """

    edges: int
    duplicates: int
    empty: int
    largest_degree: int
    capped: int


def build_rows(
    arcs: NDArray[np.int64], weights: NDArray[np.float32] | None, first: int, num_rows: int, policy: Policy
) -> tuple[Rows, RowCounts]:
    """Sort, merge and cut the arcs of consecutive vertices.

    arcs: int64 [N], tail << 32 | head, in any order, tails in first .. first+num_rows-1; sorted in place;
    weights: float32 [N] or None, positive and finite.
    """
    if weights is None:
        arcs.sort()
    else:
        order = np.argsort(arcs)
        arcs, weights = arcs[order], weights[order]
    new = np.ones(len(arcs), bool)
    np.not_equal(arcs[1:], arcs[:-1], out=new[1:])
    merged = int(len(arcs) - np.count_nonzero(new))
    if weights is not None and merged:
        weights = _merged_weights(arcs, weights, new, policy.multi_edges)
    duplicates = merged
    if not policy.directed:
        repeats = arcs[~new]
        duplicates = int(np.count_nonzero(repeats >> 32 <= repeats & _LOW))
    if merged:
        arcs = arcs[new]
    heads = (arcs & _LOW).astype(np.int32)
    tails = (arcs >> 32) - first
    edges = len(arcs) if policy.directed else int(np.count_nonzero(tails + first <= heads))
    degrees = np.bincount(tails, minlength=num_rows)
    largest = int(degrees.max(initial=0))
    capped = 0
    if policy.max_degree is not None and largest > policy.max_degree:
        keep = _kept(tails, heads, first, degrees, policy.max_degree)
        heads, weights = heads[keep], None if weights is None else weights[keep]
        capped = int(np.count_nonzero(degrees > policy.max_degree))
        degrees = np.minimum(degrees, policy.max_degree)
    offsets = np.zeros(num_rows + 1, np.int64)
    np.cumsum(degrees, out=offsets[1:])
    empty = int(np.count_nonzero(degrees == 0))
    return Rows(offsets, heads, weights), RowCounts(edges, duplicates, empty, largest, capped)


def _merged_weights(
    arcs: NDArray[np.int64], weights: NDArray[np.float32], new: NDArray[np.bool_], how: str
) -> NDArray[np.float32]:
    """One weight for each run of equal arcs (new: where a run starts), whatever the order inside the run was."""
    runs = np.flatnonzero(new)
    repeated = ~new
    repeated[:-1] |= ~new[1:]  # all members of runs of two and more: only they need an order
    places = np.flatnonzero(repeated)
    order = np.lexsort((weights[places], arcs[places]))
    weights[places] = weights[places][order]
    if how == "first":
        return weights[runs]
    if how == "max":
        return weights[np.append(runs[1:], np.int64(len(arcs))).astype(np.int64) - 1]
    sums = np.add.reduceat(weights.astype(np.float64), runs)
    largest = np.float64(np.finfo(np.float32).max)
    rounded: NDArray[np.float32] = np.minimum(sums, largest).astype(np.float32)
    return rounded


def _kept(
    tails: NDArray[np.int64], heads: NDArray[np.int32], first: int, degrees: NDArray[np.int64], most: int
) -> NDArray[np.bool_]:
    """Which arcs (sorted by row) stay: of a row with more than ``most`` those with the smallest hashes."""
    long = np.flatnonzero((degrees > most)[tails])
    order = np.lexsort((arc_hash(tails[long] + first, heads[long]), tails[long]))
    rows = tails[long]  # ordered by row already, so it is what rows[order] is
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    rank = np.arange(len(long)) - np.repeat(starts, np.diff(np.append(starts, len(long))))
    keep = np.ones(len(tails), bool)
    keep[long[order[rank >= most]]] = False
    return keep


def refuse_bad_weights(report: GraphReport) -> None:
    """Raise ConfigError if rows have faulty weights: what ``bad_weights="raise"`` means."""
    faults = report.weight_faults
    if faults:
        listed = ", ".join(f"{count} {name}" for name, count in faults.items())
        raise ConfigError(
            f"{sum(faults.values())} of {report.rows} edges have a weight that is not a positive number ({listed}), "
            'and a walk cannot choose by it. Correct them, or pass bad_weights="drop" to leave these edges out.'
        )


def refuse_no_edges(report: GraphReport, kept: int) -> None:
    """Raise ConfigError if there are no edges at all, or none is left."""
    if not report.rows:
        raise ConfigError("there are no edges: the input has no rows.")
    if not kept:
        faulty = sum(report.weight_faults.values())
        raise ConfigError(
            f"no edge is left of {report.rows}: {report.self_loops} self-loops and {faulty} edges with faulty weights "
            "were dropped."
        )


def clean(
    src: NDArray[Any],
    dst: NDArray[Any],
    weight: NDArray[Any] | None = None,
    directed: bool = False,
    multi_edges: str = "sum",
    self_loops: str = "keep",
    bad_weights: str = "raise",
    max_degree: int | None = None,
) -> tuple[NDArray[Any], Graph, GraphReport]:
    """Edges to ids, graph and report; see :class:`Policy` for the settings.

    src, dst: [E], integers or strings (numpy strings or objects), both the same; weight: numbers [E], a masked array
    where some are missing, or None. Returns the ids [V] by vertex number, of src's type, the graph and the report.
    Raises ConfigError: unknown policies, ids or weights of other types, missing ids, faulty weights, no edges.
    """
    policy = Policy(
        directed=directed,
        multi_edges=multi_edges,
        self_loops=self_loops,
        bad_weights=bad_weights,
        max_degree=max_degree,
    )
    if not len(src) == len(dst) == (len(src) if weight is None else len(weight)):
        raise ConfigError("src, dst and weight differ in length.")
    ids, tails, heads = _encoded(np.asarray(src), np.asarray(dst))
    counts, good, weights = _judged(weight, len(tails))
    refuse = GraphReport(**counts)
    if policy.bad_weights == "raise":
        refuse_bad_weights(refuse)
    loops = tails == heads
    counts["self_loops"] = int(np.count_nonzero(loops & good))
    kept = good & ~loops if policy.self_loops == "drop" else good
    refuse_no_edges(GraphReport(**counts), int(np.count_nonzero(kept)))
    tails, heads = tails[kept], heads[kept]
    weights = None if weights is None else weights[kept]
    mentions = np.bincount(tails, minlength=len(ids)) + np.bincount(heads, minlength=len(ids))
    order = np.argsort(-mentions, kind="stable")
    number = np.empty(len(ids), np.int64)
    number[order] = np.arange(len(ids))
    tails, heads = number[tails], number[heads]
    if not directed:
        both = np.flatnonzero(tails != heads)
        tails, heads = np.append(tails, heads[both]), np.append(heads, tails[both])
        weights = None if weights is None else np.append(weights, weights[both])
    rows, found = build_rows(tails << 32 | heads, weights, 0, len(ids), policy)
    isolated = int(np.count_nonzero(mentions == 0))
    report = GraphReport(
        **counts,
        duplicate_edges=found.duplicates,
        nodes=len(ids),
        edges=found.edges,
        arcs=len(rows.neighbors),
        sinks=found.empty - isolated,
        isolated_nodes=isolated,
        largest_degree=found.largest_degree,
        capped_nodes=found.capped,
    )
    return ids[order], Graph(rows.offsets, rows.neighbors, rows.weights, directed), report


def _encoded(src: NDArray[Any], dst: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """The different ids, ascending (strings by code points), and src and dst as places in them, int64 [E] each."""
    both = np.concatenate([src, dst]) if len(src) else np.empty(0, np.int64)
    if all(a.dtype.kind in "iu" for a in (src, dst)) or not len(src):
        ids, codes = np.unique(both, return_inverse=True)
    else:
        if any(a.dtype.kind not in "UO" for a in (src, dst)):
            raise ConfigError(f"ids are {src.dtype} and {dst.dtype}; give integers in both or strings in both.")
        try:
            strings = pa.array(both, pa.large_string())
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ConfigError(f"ids are neither all integers nor all strings: {error}") from error
        if strings.null_count:
            raise ConfigError(f"{strings.null_count} ends of edges have no id; leave these edges out.")
        coded = strings.dictionary_encode()
        order = pc.sort_indices(coded.dictionary).to_numpy()
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        ids, codes = coded.dictionary.to_numpy(zero_copy_only=False)[order], place[coded.indices.to_numpy()]
        ids = ids.astype(both.dtype)
    if len(ids) > MOST_NODES:
        raise ConfigError(f"the edges mention {len(ids)} nodes; vertex numbers are int32, so at most {MOST_NODES}.")
    codes = codes.astype(np.int64)
    return ids, codes[: len(src)], codes[len(src) :]


def _judged(
    weight: NDArray[Any] | None, num_rows: int
) -> tuple[dict[str, int], NDArray[np.bool_], NDArray[np.float32] | None]:
    """Counts of faults by the report's names, which rows are good, and the weights as float32."""
    if weight is None:
        return {"rows": num_rows}, np.ones(num_rows, bool), None
    if np.ma.getdata(weight).dtype.kind not in "iuf":
        raise ConfigError(f"weights are {np.ma.getdata(weight).dtype}, not numbers; convert them first.")
    null = np.ma.getmaskarray(weight)
    with np.errstate(over="ignore", invalid="ignore"):
        weights = np.ma.getdata(weight).astype(np.float32)
    faults = {
        "null_weights": null,
        "nan_weights": ~null & np.isnan(weights),
        "negative_weights": ~null & (weights < 0),
        "zero_weights": ~null & (weights == 0),
        "infinite_weights": ~null & (weights == np.inf),
    }
    counts = {"rows": num_rows, **{name: int(np.count_nonzero(rows)) for name, rows in faults.items()}}
    return counts, ~np.any(list(faults.values()), axis=0), weights
