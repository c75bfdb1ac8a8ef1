from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node2vec.edge_cleaning import clean
from sparkdl.errors import ConfigError
from tests.node2vec.small_edges import EdgeList, edge_lists, policies, slow_clean


@settings(deadline=None)
@given(edges=edge_lists(), policy=policies())
def test_equals_the_slow_reference(edges: EdgeList, policy: dict[str, Any]) -> None:
    ids, rows, counts = slow_clean(edges, **policy)
    if not counts["edges"]:
        with pytest.raises(ConfigError, match="no edge is left of"):
            clean(*edges.arrays(), **policy)
        return
    found_ids, graph, report = clean(*edges.arrays(), **policy)
    assert found_ids.tolist() == ids
    assert graph.indptr.dtype == np.int64
    assert graph.indices.dtype == np.int32
    assert graph.directed == policy["directed"]
    assert (graph.weights is None) == (edges.weight is None)
    for vertex, row in enumerate(rows):
        heads = sorted(row)
        assert graph.neighbors(vertex).tolist() == heads
        if edges.weight is not None:
            np.testing.assert_allclose(graph.weights_of(vertex), [row[h] for h in heads], rtol=1e-6)
    assert report.to_dict() == {name: counts[name] for name in report.to_dict()}


@settings(deadline=None)
@given(edges=edge_lists(), policy=policies(), seed=st.integers(0, 10**6))
def test_the_order_of_rows_changes_no_bit(edges: EdgeList, policy: dict[str, Any], seed: int) -> None:
    src, dst, weight = edges.arrays()
    order = np.random.default_rng(seed).permutation(len(src))
    try:
        ids, graph, report = clean(src, dst, weight, **policy)
    except ConfigError:
        return
    other_ids, other, other_report = clean(src[order], dst[order], None if weight is None else weight[order], **policy)
    assert ids.tolist() == other_ids.tolist()
    assert graph.fingerprint() == other.fingerprint()
    assert report == other_report


def test_ids_keep_their_type() -> None:
    ids, *_ = clean(np.array([3, 1], np.int32), np.array([4, 3], np.int32))
    assert ids.dtype == np.int32
    assert ids.tolist() == [3, 1, 4]
    ids, *_ = clean(np.array(["c", "a"]), np.array(["ddd", "c"]))
    assert ids.dtype == np.dtype("<U3")
    assert ids.tolist() == ["c", "a", "ddd"]


def test_sums_of_many_weights_do_not_depend_on_their_order() -> None:
    weights = np.random.default_rng(0).lognormal(0, 8, 1000)
    prints = set()
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(1000)
        _, graph, _ = clean(np.zeros(1000, int), np.ones(1000, int), weights[order])
        prints.add(graph.fingerprint())
    assert len(prints) == 1
    assert graph.weights is not None
    np.testing.assert_allclose(graph.weights, weights.sum(), rtol=1e-6)


def test_max_degree_takes_any_neighbour_alike() -> None:
    """Of a star's 1000 leaves half are kept, in both halves of their numbers about as many."""
    _, graph, report = clean(np.zeros(1000, int), np.arange(1, 1001), directed=True, max_degree=500)
    kept = graph.neighbors(0)
    assert len(kept) == 500
    assert 200 < np.count_nonzero(kept <= 500) < 300
    assert (report.largest_degree, report.capped_nodes) == (1000, 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"multi_edges": "mean"}, "multi_edges='mean' is unknown; choose one of sum, max, first"),
        ({"self_loops": "no"}, "self_loops='no' is unknown"),
        ({"bad_weights": "keep"}, "bad_weights='keep' is unknown"),
        ({"max_degree": 0}, "max_degree=0 would leave no arcs"),
        ({"weight": np.array([1.0])}, "differ in length"),
        ({"weight": np.array(["1", "2"])}, "weights are <U1, not numbers"),
        ({"weight": np.array([1.0, -2.0])}, r"1 of 2 edges .* \(1 negative\)"),
        ({"weight": np.ma.array([0.0, 2.0], mask=[False, True])}, r"2 of 2 edges .* \(1 zero, 1 null\)"),
        ({"src": np.array([]), "dst": np.array([])}, "there are no edges"),
        ({"src": np.array(["a", "b"])}, "ids are <U1 and int64"),
        ({"src": np.array([0.5, 1.0])}, "ids are float64 and int64"),
        ({"src": np.array(["a", 1], object), "dst": np.array(["a", "b"])}, "neither all integers nor all strings"),
        ({"src": np.array(["a", None], object), "dst": np.array(["a", "b"], object)}, "1 ends of edges have no id"),
    ],
)
def test_refusals_are_sentences(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        clean(**({"src": np.array([1, 2]), "dst": np.array([2, 3])} | arguments))
