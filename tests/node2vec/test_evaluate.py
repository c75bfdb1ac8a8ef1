from __future__ import annotations

import sys
from typing import Any

import networkx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import make_multilabel_classification
from sklearn.metrics import f1_score, roc_auc_score

from node2vec.evaluate import (
    OPERATORS,
    f1_scores,
    hold_out_edges,
    link_prediction,
    most_probable,
    node_classification,
    sample_non_edges,
)
from sparkdl.errors import ConfigError


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_f1_scores_are_those_of_sklearn(rows: int, columns: int, seed: int) -> None:
    truth, predicted = np.random.default_rng(seed).random((2, rows, columns)) < 0.4
    macro, micro = f1_scores(truth, predicted)
    each = [f1_score(truth[:, i], predicted[:, i], zero_division=0) for i in range(columns)]
    assert macro == pytest.approx(np.mean(each))
    assert micro == pytest.approx(f1_score(truth.ravel(), predicted.ravel(), zero_division=0))


def test_the_most_probable_labels_as_many_as_there_are() -> None:
    margins = np.array([[0.1, 0.9, 0.5], [0.5, 0.5, -np.inf], [1, 2, 3]])
    expected = [[False, True, True], [True, False, False], [False, False, False]]
    assert most_probable(margins, np.array([2, 1, 0])).tolist() == expected


def separable(seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """120 nodes of three labels that lie apart."""
    labels = np.random.default_rng(seed).integers(0, 3, 120)
    noise = np.random.default_rng(seed + 1).normal(size=(120, 4)) * 0.1
    return (np.eye(3, 4)[labels] + noise).astype(np.float32), labels


def test_what_is_separable_is_predicted_and_what_is_random_is_not() -> None:
    vectors, labels = separable()
    scores = node_classification(vectors, [{label} for label in labels.tolist()])
    assert scores["macro_f1"] == scores["micro_f1"] == 1
    assert scores["macro_f1_std"] == scores["micro_f1_std"] == 0
    mixed = node_classification(np.random.default_rng(5).permutation(vectors), [{label} for label in labels.tolist()])
    assert 0.15 < mixed["micro_f1"] < 0.5
    assert mixed["micro_f1_std"] > 0


def test_labels_in_any_form_and_unlabelled_nodes() -> None:
    import scipy.sparse

    features, truth = make_multilabel_classification(80, 6, n_classes=4, random_state=0)
    truth = truth.astype(bool)
    assert (~truth.any(axis=1)).any()
    sets = [{f"label {label}" for label in np.flatnonzero(row)} for row in truth]
    scores = node_classification(features / 10, truth, splits=2)
    assert scores == node_classification(features / 10, scipy.sparse.csr_matrix(truth), splits=2)
    assert scores == node_classification(features / 10, sets, splits=2)
    labelled = truth.any(axis=1)
    assert scores == node_classification(features[labelled] / 10, truth[labelled], splits=2)
    assert scores != node_classification(features / 10, truth, splits=2, seed=1)


def test_a_label_that_no_training_node_has_counts_as_zero() -> None:
    vectors, labels = separable()
    truth = np.eye(4, dtype=bool)[labels]  # nobody has the fourth
    assert node_classification(vectors, truth)["macro_f1"] == pytest.approx(0.75)
    assert node_classification(vectors, truth)["micro_f1"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"vectors": np.ones((2, 3))}, "2 vectors and labels of 3 nodes"),
        ({"vectors": np.ones(3)}, "a matrix"),
        ({"vectors": np.array([[1.0], [np.nan], [1]])}, "row 1 holds NaN"),
        ({"train_share": 1.0}, "train_share=1.0 of 3"),
        ({"train_share": 0.0}, "one node to train"),
        ({"splits": 0}, "splits=0"),
        ({"labels": ["a", "b", "a"]}, "row 0 is 'a', not a set"),
        ({"labels": [1, 2, 3]}, "row 0 is 1, not a set"),
        ({"labels": [set(), set(), set()]}, "of 0 nodes with labels"),
    ],
)
def test_bad_labels_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        node_classification(**{"vectors": np.ones((3, 3)), "labels": [{"a"}, {"b"}, {"a"}], **arguments})


def test_without_sklearn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ConfigError, match="needs scikit-learn"):
        node_classification(*separable())


def two_groups() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Vectors of two groups, pairs inside a group, pairs across."""
    rng = np.random.default_rng(0)
    group = np.arange(60) % 2
    vectors = np.where(group[:, None] == 1, 1, -1) * np.array([1.0, -1.0, 1.0]) + rng.normal(size=(60, 3)) * 0.1
    pairs = rng.integers(0, 60, (400, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    same = group[pairs[:, 0]] == group[pairs[:, 1]]
    return vectors.astype(np.float32), pairs[same], pairs[~same]


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("given_train", [False, True])
def test_links_inside_groups(operator: str, given_train: bool) -> None:
    vectors, near, far = two_groups()
    train = (near[100:], far[100:]) if given_train else (None, None)
    scores = link_prediction(vectors, near[:100], far[:100], *train, operator=operator)
    # the mean of a pair across the groups is always about 0; of a pair inside one it is far off in either direction
    assert scores["auc"] == pytest.approx(1) if operator != "average" else 0.2 < scores["auc"] < 0.8
    assert scores["ap"] <= 1
    assert (scores["cosine_auc"], scores["cosine_ap"]) == (1, 1)


def test_the_features_are_those_of_the_paper() -> None:
    """Node2vec, table 1: with one feature, a logistic regression ranks as the feature itself does."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(50, 1)).astype(np.float32)
    pairs = rng.integers(0, 50, (200, 2))
    near, far = pairs[:100], pairs[100:]
    u, v = vectors[pairs[:, 0], 0], vectors[pairs[:, 1], 0]
    features = {"hadamard": u * v, "average": (u + v) / 2, "l1": abs(u - v), "l2": (u - v) ** 2}
    for operator in OPERATORS:
        auc = roc_auc_score(np.arange(200) < 100, features[operator])
        found = link_prediction(vectors, near, far, near, far, operator)["auc"]
        assert min(found, 1 - found) == pytest.approx(min(auc, 1 - auc))  # a negative weight turns the order round


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"operator": "dot"}, "operator='dot' is unknown; choose one of hadamard"),
        ({"test_positive": np.array([[0, 60]])}, r"test_positive: row 0 is \[0, 60\]"),
        ({"test_negative": np.array([[0, 1], [-1, 2]])}, r"test_negative: row 1 is \[-1, 2\]"),
        ({"test_negative": np.array([[0.5, 1]])}, "must be integers"),
        ({"test_negative": np.empty((0, 2), int)}, "m > 0"),
        ({"train_positive": np.array([[0, 1]])}, "both, or neither"),
        ({"test_positive": np.array([[0, 1]]), "test_negative": np.array([[0, 2]])}, "too few to be halved"),
        ({"splits": 0}, "splits=0"),
    ],
)
def test_bad_pairs_are_refused(arguments: dict[str, Any], words: str) -> None:
    vectors, near, far = two_groups()
    with pytest.raises(ConfigError, match=words):
        link_prediction(**{"vectors": vectors, "test_positive": near, "test_negative": far, **arguments})


@given(st.integers(2, 30), st.integers(1, 120), st.floats(0, 1), st.integers(0, 1000))
def test_held_out_edges(nodes: int, edges: int, share: float, seed: int) -> None:
    """What stays connects the same nodes; copies and reversed copies of an edge are held out together."""
    rng = np.random.default_rng(seed)
    src, dst = rng.integers(0, nodes, (2, edges))
    graph = networkx.Graph(zip(src.tolist(), dst.tolist(), strict=True))
    proper = {(min(u, v), max(u, v)) for u, v in graph.edges if u != v}
    free = len(proper) - (len(graph) - networkx.number_connected_components(graph))
    wanted = min(int(share * len(proper)), free)
    if wanted < 1:
        with pytest.raises(ConfigError, match="none to hold out"):
            hold_out_edges(src, dst, share, seed)
        return
    held = hold_out_edges(src, dst, share, seed)
    out = {(min(u, v), max(u, v)) for u, v in zip(src[held].tolist(), dst[held].tolist(), strict=True)}
    rest = networkx.Graph(zip(src[~held].tolist(), dst[~held].tolist(), strict=True))
    assert len(out) == wanted
    assert not any(rest.has_edge(u, v) for u, v in out)
    assert all(u != v for u, v in out)
    assert {frozenset(part) for part in networkx.connected_components(rest)} == {
        frozenset(part) for part in networkx.connected_components(graph)
    }
    assert np.array_equal(held, hold_out_edges(src, dst, share, seed))


def test_every_edge_of_a_cycle_may_be_held_out() -> None:
    counts = sum(hold_out_edges([0, 1, 2, 3], [1, 2, 3, 0], 0.25, seed).astype(int) for seed in range(400))
    assert np.array(counts).sum() == 400
    assert np.array(counts).min() > 60  # 100 each on average, standard deviation 8.7


@given(st.integers(2, 12), st.integers(0, 60), st.integers(0, 1000), st.data())
def test_non_edges(nodes: int, edges: int, seed: int, data: st.DataObject) -> None:
    src, dst = np.random.default_rng(seed).integers(0, nodes, (2, edges))
    taken = {(min(u, v), max(u, v)) for u, v in zip(src.tolist(), dst.tolist(), strict=True)}
    free = {(u, v) for u in range(nodes) for v in range(u + 1, nodes)} - taken
    count = data.draw(st.integers(0, len(free)))
    pairs = sample_non_edges(src, dst, nodes, count, seed)
    assert pairs.shape == (count, 2)
    found = set(map(tuple, pairs.tolist()))
    assert len(found) == count
    assert found <= free
    with pytest.raises(ConfigError, match=f"have {len(free)} of them"):
        sample_non_edges(src, dst, nodes, len(free) + 1, seed)


def test_non_edges_are_drawn_uniformly() -> None:
    """Of the 5 pairs of 4 nodes without 0-1, each is first in about a fifth of the draws."""
    first = [tuple(sample_non_edges([0], [1], 4, 2, seed)[0].tolist()) for seed in range(1000)]
    counts = [first.count(pair) for pair in {*first}]
    assert len(counts) == 5
    assert min(counts) > 140  # 200 each on average, standard deviation 12.6
    assert max(counts) < 260


@pytest.mark.parametrize(
    ("src", "dst", "words"),
    [
        ([0.5], [1], "both must be integers"),
        ([0, 1], [1], "both must be"),
        ([0], [-2], "row 0 is -2"),
        ([9], [0], "node 9"),
    ],
)
def test_bad_ends_are_refused(src: Any, dst: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        sample_non_edges(src, dst, 4, 1)
