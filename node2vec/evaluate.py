"""How good vectors are: labels predicted from them, and edges told from pairs that are none.

Node classification is the protocol of DeepWalk (Perozzi et al. 2014, section 5) and node2vec (Grover and Leskovec 2016,
section 4.3); link prediction that of node2vec, section 4.4. scikit-learn is needed, and imported only here.

    held = hold_out_edges(src, dst, share=0.5)             # train vectors on the edges that are not held
    none = sample_non_edges(src, dst, num_nodes, 2 * held.sum())
    test, fit = none[: held.sum()], none[held.sum() :]
    link_prediction(vectors, pairs[held], test, pairs[~held], fit)
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from sparkdl.errors import ConfigError

Matrix = npt.NDArray[np.float32]
Pairs = npt.NDArray[np.int64]

OPERATORS = ("hadamard", "average", "l1", "l2")


def node_classification(
    vectors: npt.ArrayLike,
    labels: Any,
    train_share: float = 0.5,
    splits: int = 5,
    seed: int = 0,
    c: float = 1.0,
    max_iter: int = 1000,
) -> dict[str, float]:
    """Macro-F1 and micro-F1 of labels predicted by one logistic regression a label (L2, C = `c`, vectors as they are).

    vectors: float [n, d]; labels: a scipy sparse or dense matrix of 0 and 1 [n, l], or a set of labels for each node.
    Nodes without a label do not take part. `splits` times, a random `train_share` of the nodes is learned from; of each
    other node as many labels are predicted as it has, the most probable ones. A label that no training node has is
    never predicted. Macro-F1 is the mean over all l labels, where one that is neither there nor predicted counts as 0.

    Returns macro_f1, micro_f1 (means over the splits), macro_f1_std and micro_f1_std. The same seed, the same splits.
    Raises ConfigError: vectors and labels do not fit together; a share that leaves no node to train or to test.
    """
    logistic = _sklearn("linear_model").LogisticRegression
    matrix = _finite(vectors)
    truth = _indicators(labels)
    if len(truth) != len(matrix):
        raise ConfigError(
            f"there are {len(matrix)} vectors and labels of {len(truth)} nodes: row i of one is of row i."
        )
    labelled = truth.any(axis=1)
    matrix, truth = matrix[labelled], truth[labelled]
    num_train = round(train_share * len(matrix))
    if splits < 1 or not 0 < num_train < len(matrix):
        raise ConfigError(
            f"train_share={train_share} of {len(matrix)} nodes with labels, splits={splits}: at least one split, one "
            "node to train and one to test are needed."
        )
    scores = []
    for split in range(splits):
        order = np.random.default_rng((seed, split)).permutation(len(matrix))
        train, test = order[:num_train], order[num_train:]
        margins = np.full((len(test), truth.shape[1]), -np.inf)
        for label in range(truth.shape[1]):
            has = truth[train, label]
            if has.all():
                margins[:, label] = np.inf
            elif has.any():
                with _one_thread():
                    model = logistic(C=c, max_iter=max_iter).fit(matrix[train], has)
                margins[:, label] = model.decision_function(matrix[test])
        scores.append(f1_scores(truth[test], most_probable(margins, truth[test].sum(axis=1))))
    macro, micro = np.array(scores).T
    return {
        "macro_f1": float(macro.mean()),
        "micro_f1": float(micro.mean()),
        "macro_f1_std": float(macro.std()),
        "micro_f1_std": float(micro.std()),
    }


def most_probable(margins: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """The counts[i] highest of row i, the first of equal ones: float [n, l], int [n] to bool [n, l]."""
    ranks = np.argsort(np.argsort(-margins, axis=1, kind="stable"), axis=1)
    chosen: npt.NDArray[np.bool_] = ranks < counts[:, None]
    return chosen


def f1_scores(truth: npt.NDArray[np.bool_], predicted: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Macro-F1 (mean over the columns; 0 where a column is empty in both) and micro-F1: bool [n, l] each."""
    hits = (truth & predicted).sum(axis=0)
    sizes = truth.sum(axis=0) + predicted.sum(axis=0)
    macro = float(np.mean(2 * hits / np.maximum(sizes, 1)))
    return macro, float(2 * hits.sum() / max(1, sizes.sum()))


def link_prediction(
    vectors: npt.ArrayLike,
    test_positive: npt.ArrayLike,
    test_negative: npt.ArrayLike,
    train_positive: npt.ArrayLike | None = None,
    train_negative: npt.ArrayLike | None = None,
    operator: str = "hadamard",
    splits: int = 5,
    seed: int = 0,
) -> dict[str, float]:
    """How well vectors tell edges that they were not trained on from pairs that are no edges.

    vectors: float [n, d]; the others: int [m, 2], pairs of rows of `vectors`. A pair (u, v) becomes d features: u * v
    (hadamard), (u + v) / 2 (average), |u - v| (l1), (u - v)^2 (l2); standardised, then a logistic regression. It learns
    from the training pairs; without them, from a random half of the test pairs and is tested on the other half, both
    ways, `splits` times (`seed`).

    Returns auc (area under the ROC curve) and ap (average precision), and cosine_auc and cosine_ap, for which the
    cosine of u and v is the score and nothing is learned.
    Raises ConfigError: pairs that are none of rows of `vectors`, none at all, or an unknown operator.
    """
    if operator not in OPERATORS:
        raise ConfigError(f"operator={operator!r} is unknown; choose one of {', '.join(OPERATORS)}.")
    if (train_positive is None) != (train_negative is None):
        raise ConfigError("give train_positive and train_negative both, or neither.")
    if splits < 1:
        raise ConfigError(f"splits={splits} is less than 1.")
    matrix = _finite(vectors)
    metrics = _sklearn("metrics")
    pairs, truth = _together(test_positive, test_negative, len(matrix), "test")
    features = _features(matrix, pairs, operator)
    results: list[tuple[float, float]] = []
    if train_positive is not None and train_negative is not None:
        known, answers = _together(train_positive, train_negative, len(matrix), "train")
        scores = _learned(_features(matrix, known, operator), answers, features)
        results.append((metrics.roc_auc_score(truth, scores), metrics.average_precision_score(truth, scores)))
    else:
        for split in range(splits):
            order = np.random.default_rng((seed, split)).permutation(len(pairs))
            halves = (order[: len(order) // 2], order[len(order) // 2 :])
            if any(len(np.unique(truth[half])) < 2 for half in halves):
                raise ConfigError(f"{len(pairs)} test pairs are too few to be halved; give more, or training pairs.")
            for one, other in (halves, halves[::-1]):
                scores = _learned(features[one], truth[one], features[other])
                results.append(
                    (
                        metrics.roc_auc_score(truth[other], scores),
                        metrics.average_precision_score(truth[other], scores),
                    )
                )
    cosine = _cosines(matrix, pairs)
    return {
        "auc": float(np.mean([auc for auc, _ in results])),
        "ap": float(np.mean([ap for _, ap in results])),
        "cosine_auc": float(metrics.roc_auc_score(truth, cosine)),
        "cosine_ap": float(metrics.average_precision_score(truth, cosine)),
    }


def hold_out_edges(src: npt.ArrayLike, dst: npt.ArrayLike, share: float = 0.5, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Which edges of an undirected graph to hold out for link prediction: bool [m].

    src, dst: int [m], nodes from 0. A random spanning forest is never held out, so that what stays connects the same
    nodes; then a random `share` of the edges is, or fewer if the forest leaves fewer. All rows of one pair of nodes, in
    whichever direction, are one edge and share its fate. Self-loops stay.
    Raises ConfigError: no edge can be held out (a forest, or too small a share).
    """
    tails, heads = _ends(src, dst)
    num_nodes = int(max(tails.max(initial=-1), heads.max(initial=-1))) + 1
    low, high = np.minimum(tails, heads), np.maximum(tails, heads)
    codes, edge_of = np.unique(low * max(1, num_nodes) + high, return_inverse=True)
    first, second = np.divmod(codes, max(1, num_nodes))
    proper = np.flatnonzero(first != second)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(proper))
    sparse = _imported("scipy.sparse")
    graph = sparse.coo_array((order + 1.0, (first[proper], second[proper])), shape=(num_nodes, num_nodes)).tocsr()
    forest = _imported("scipy.sparse.csgraph").minimum_spanning_tree(graph)
    ranks = np.sort(forest.data.astype(np.int64) - 1)  # of those in the forest
    free = np.setdiff1d(np.arange(len(proper)), ranks)
    wanted = min(int(share * len(proper)), len(free))
    if not 0 <= share <= 1 or wanted < 1:
        raise ConfigError(
            f"share={share} of {len(proper)} edges, of which {len(ranks)} must stay to keep nodes connected, leaves "
            "none to hold out."
        )
    edge_at = np.empty(len(proper), np.int64)
    edge_at[order] = proper
    held = np.zeros(len(codes), np.bool_)
    held[edge_at[rng.permutation(free)[:wanted]]] = True
    mask: npt.NDArray[np.bool_] = held[edge_of.reshape(-1)]
    return mask


def sample_non_edges(src: npt.ArrayLike, dst: npt.ArrayLike, num_nodes: int, count: int, seed: int = 0) -> Pairs:
    """`count` different pairs of nodes u < v that are no edge in either direction, drawn uniformly: int64 [count, 2].

    src, dst: int [m], 0 .. num_nodes-1: all edges, held out or not. In random order, so that any cut of it is random.
    Raises ConfigError: there are not so many such pairs.
    """
    tails, heads = _ends(src, dst)
    if len(tails) and max(tails.max(), heads.max()) >= num_nodes:
        raise ConfigError(f"an edge names node {max(tails.max(), heads.max())}, but num_nodes={num_nodes}.")
    low, high = np.minimum(tails, heads), np.maximum(tails, heads)
    taken = np.unique(low * num_nodes + high)
    edges = int((taken // max(1, num_nodes) != taken % max(1, num_nodes)).sum())
    free = num_nodes * (num_nodes - 1) // 2 - edges
    if count > free or count < 0:
        raise ConfigError(f"count={count} pairs without an edge are wanted, and {num_nodes} nodes have {free} of them.")
    rng = np.random.default_rng(seed)
    found = np.empty(0, np.int64)
    while len(found) < count:
        ends = np.sort(rng.integers(0, num_nodes, (2 * (count - len(found)) + 64, 2)), axis=1)
        codes = ends[:, 0] * num_nodes + ends[:, 1]
        codes = np.concatenate([found, codes[(ends[:, 0] != ends[:, 1]) & ~np.isin(codes, taken)]])
        found = codes[np.sort(np.unique(codes, return_index=True)[1])]  # each once, in the order in which they came
    return np.stack(np.divmod(found[:count], max(1, num_nodes)), axis=1)


def _learned(known: Matrix, answers: npt.NDArray[np.bool_], features: Matrix) -> npt.NDArray[np.float64]:
    scaler = _sklearn("preprocessing").StandardScaler().fit(known)
    with _one_thread():
        model = _sklearn("linear_model").LogisticRegression(max_iter=1000).fit(scaler.transform(known), answers)
    scores: npt.NDArray[np.float64] = model.decision_function(scaler.transform(features))
    return scores


def _features(matrix: Matrix, pairs: Pairs, operator: str) -> Matrix:
    u, v = matrix[pairs[:, 0]], matrix[pairs[:, 1]]
    if operator == "hadamard":
        return u * v
    if operator == "average":
        return (u + v) * np.float32(0.5)
    apart = u - v
    return np.abs(apart) if operator == "l1" else apart * apart


def _cosines(matrix: Matrix, pairs: Pairs) -> npt.NDArray[np.float64]:
    exact = matrix.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1)
    exact /= np.where(norms > 0, norms, 1)[:, None]
    cosine: npt.NDArray[np.float64] = np.einsum("ij,ij->i", exact[pairs[:, 0]], exact[pairs[:, 1]])
    return cosine


def _together(
    positive: npt.ArrayLike, negative: npt.ArrayLike, num_nodes: int, name: str
) -> tuple[Pairs, npt.NDArray[np.bool_]]:
    parts = [_pairs(positive, num_nodes, f"{name}_positive"), _pairs(negative, num_nodes, f"{name}_negative")]
    return np.concatenate(parts), np.repeat([True, False], [len(part) for part in parts])


def _pairs(values: npt.ArrayLike, num_nodes: int, name: str) -> Pairs:
    pairs = np.asarray(values)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs) or not np.issubdtype(pairs.dtype, np.integer):
        raise ConfigError(f"{name} has shape {pairs.shape} and type {pairs.dtype}; it must be integers [m, 2], m > 0.")
    if pairs.min() < 0 or pairs.max() >= num_nodes:
        row = int(np.argmax(((pairs < 0) | (pairs >= num_nodes)).any(axis=1)))
        raise ConfigError(f"{name}: row {row} is {pairs[row].tolist()}, but there are {num_nodes} vectors, from 0.")
    return pairs.astype(np.int64)


def _ends(src: npt.ArrayLike, dst: npt.ArrayLike) -> tuple[Pairs, Pairs]:
    tails, heads = np.asarray(src), np.asarray(dst)
    for name, ends in (("src", tails), ("dst", heads)):
        if ends.shape != (len(tails),) or (len(ends) and not np.issubdtype(ends.dtype, np.integer)):
            raise ConfigError(f"{name} has shape {ends.shape} and type {ends.dtype}; both must be integers [m].")
        if len(ends) and ends.min() < 0:
            raise ConfigError(f"{name}: row {int(ends.argmin())} is {ends.min()}; nodes are numbered from 0.")
    return tails.astype(np.int64), heads.astype(np.int64)


def _finite(vectors: npt.ArrayLike) -> Matrix:
    matrix = np.asarray(vectors, np.float32)
    if matrix.ndim != 2:
        raise ConfigError(f"vectors have shape {matrix.shape}; a matrix [n, d] is wanted.")
    if not np.isfinite(matrix).all():
        row = int(np.argmax(~np.isfinite(matrix).all(axis=1)))
        raise ConfigError(f"the vector in row {row} holds NaN or infinity.")
    return matrix


def _indicators(labels: Any) -> npt.NDArray[np.bool_]:
    """Bool [n, l]. Labels of sets are sorted where they can be, else in the order in which they come."""
    if hasattr(labels, "toarray"):
        labels = labels.toarray()
    if isinstance(labels, np.ndarray) and labels.ndim == 2:
        return labels.astype(np.bool_)
    sets: list[Iterable[Hashable]] = list(labels)
    for row, one in enumerate(sets):
        if isinstance(one, str) or not isinstance(one, Iterable):
            raise ConfigError(f"labels: row {row} is {one!r}, not a set of labels; write {{{one!r}}}.")
    names: Iterable[Any] = dict.fromkeys(label for one in sets for label in one)
    try:
        names = sorted(names)
    except TypeError:
        names = list(names)
    column = {name: place for place, name in enumerate(names)}
    truth = np.zeros((len(sets), len(column)), np.bool_)
    for row, one in enumerate(sets):
        truth[row, [column[label] for label in one]] = True
    return truth


def _one_thread() -> contextlib.AbstractContextManager[Any]:
    """L-BFGS multiplies a small matrix hundreds of times: BLAS's threads would wait for each other most of the time."""
    limits: contextlib.AbstractContextManager[Any] = _imported("threadpoolctl").threadpool_limits(1)
    return limits


def _sklearn(name: str) -> Any:
    return _imported(f"sklearn.{name}")


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"evaluating vectors needs scikit-learn ({error}): pip install scikit-learn.") from error
