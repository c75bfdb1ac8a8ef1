"""Scores of the vectors at a root, from files of labels or of held-out edges; what is scored, and how: ``evaluate``.

Vectors, and for links the graph, come to the driver.
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from node2vec import edge_source, evaluate
from node2vec.edge_source import Edges
from node2vec.graph import Graph
from node2vec.graph_files import absolute, file_system
from node2vec.graph_job import spark_path
from node2vec.model import Node2VecModel
from node2vec.workflow import model_at
from sparkdl.errors import ConfigError


class Scores(NamedTuple):
    """values: by name, as ``evaluate`` returns them; used, given: how many labelled nodes or edges took part."""

    values: dict[str, float]
    used: int
    given: int


def classify(
    spark: SparkSession,
    root: str | os.PathLike[str],
    path: str | os.PathLike[str],
    train_share: float = 0.5,
    splits: int = 5,
    seed: int = 0,
) -> Scores:
    """Node classification with the labels in a file; those of nodes without a vector do not count.

    Raises ConfigError: no vectors at root, a file that is none of labels, none of its nodes has a vector; and what
    `evaluate.node_classification` raises.
    """
    labels = read_labels(path)
    ids, matrix = model_at(spark, root).to_numpy()
    rows = {str(value): row for row, value in enumerate(ids.tolist())}
    known = [name for name in labels if name in rows]
    if not known:
        raise ConfigError(f"none of the {len(labels)} ids in {os.fspath(path)} has a vector, as {min(labels)!r}.")
    vectors = matrix[[rows[name] for name in known]]
    values = evaluate.node_classification(
        vectors, [labels[name] for name in known], train_share=train_share, splits=splits, seed=seed
    )
    return Scores(values, len(known), len(labels))


def read_labels(path: str | os.PathLike[str]) -> dict[str, set[str]]:
    """The labels of each id: of lines of an id and its labels, between blanks, tabs, commas or semicolons.

    An id may be on several lines. Lines that are empty or begin with # do not count.
    Raises ConfigError: no such file, a line without a label, or no lines.
    """
    files, place = file_system(path)
    try:
        with files.open_input_stream(place) as stream:
            text = stream.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the labels cannot be read: {error}.") from error
    found: dict[str, set[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = [word for word in re.split(r"[\s,;]+", line) if word]
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 2:
            raise ConfigError(
                f"line {number} of {os.fspath(path)}, {line!r}, has no label; write an id and its labels."
            )
        found.setdefault(words[0], set()).update(words[1:])
    if not found:
        raise ConfigError(f"there are no labels in {os.fspath(path)}.")
    return found


def predict_links(
    spark: SparkSession, root: str | os.PathLike[str], edges: Any, operator: str = "hadamard", seed: int = 0
) -> Scores:
    """Link prediction with edges that were held out of the graph at root; as many pairs that are no edges are drawn.

    The classifier learns from as many edges of the graph, and other pairs. edges: as `edge_source.edges_of` takes them;
    those with a node that has no vector do not count, and self-loops neither.
    Raises ConfigError: no vectors or no graph at root, edges that are in the graph, or none that count.
    """
    location = absolute(root)
    graph = Graph.open(f"{location}/graph")
    model = model_at(spark, root)
    places, matrix = _by_number(spark, location, model, graph.num_nodes)
    given, held = _numbered(spark, location, edge_source.edges_of(spark, edges))
    pairs = held[(held[:, 0] < held[:, 1]) & (places[held] >= 0).all(axis=1)]
    if not len(pairs):
        raise ConfigError(f"none of the {given} edges joins two nodes that have vectors.")
    tails = np.repeat(np.arange(graph.num_nodes, dtype=np.int64), graph.degrees)
    known = np.unique(np.sort(np.stack([tails, graph.indices], axis=1), axis=1), axis=0)
    trained = np.isin(_codes(pairs, graph), _codes(known, graph))
    if trained.any():
        raise ConfigError(
            f"{trained.sum()} of the {len(pairs)} edges are in the graph at {os.fspath(root)}, so the vectors were "
            "trained on them: hold edges out first, index the others, and give those that were held out."
        )
    known = known[(known[:, 0] < known[:, 1]) & (places[known] >= 0).all(axis=1)]
    learned = known[np.random.default_rng(seed).permutation(len(known))[: len(pairs)]]
    # of the nodes that have vectors, by their rows
    src, dst = places[np.concatenate([known, pairs])].T
    none = evaluate.sample_non_edges(src, dst, len(matrix), len(pairs) + len(learned), seed)
    values = evaluate.link_prediction(
        matrix, places[pairs], none[: len(pairs)], places[learned], none[len(pairs) :], operator, seed=seed
    )
    return Scores(values, len(pairs), given)


def _by_number(
    spark: SparkSession, location: str, model: Node2VecModel, num_nodes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Row of each node's vector, -1 if it has none: int64 [V]; the vectors float32 [n, d]."""
    ids, matrix = model.to_numpy()
    row_of = {value: row for row, value in enumerate(ids.tolist())}
    places = np.full(num_nodes, -1, np.int64)
    for index, value in spark.read.parquet(spark_path(f"{location}/ids")).select("index", "id").toLocalIterator():
        places[index] = row_of.get(value, -1)
    return places, matrix


def _numbered(spark: SparkSession, location: str, edges: Edges) -> tuple[int, npt.NDArray[np.int64]]:
    """How many edges there are, and those between known nodes, each once: int64 [m, 2], the smaller number first."""
    ids = spark.read.parquet(spark_path(f"{location}/ids")).select("index", F.col("id").cast("string").alias("id"))
    frame = edges.frame.select(F.col("src").cast("string").alias("src"), F.col("dst").cast("string").alias("dst"))
    tails, heads = (ids.select(F.col("id").alias(name), F.col("index").alias(f"{name}_n")) for name in ("src", "dst"))
    found = frame.join(tails, "src").join(heads, "dst").select("src_n", "dst_n").collect()
    pairs = np.array([tuple(row) for row in found], np.int64).reshape(-1, 2)
    return frame.count(), np.unique(np.sort(pairs, axis=1), axis=0)


def _codes(pairs: npt.NDArray[np.int64], graph: Graph) -> npt.NDArray[np.int64]:
    codes: npt.NDArray[np.int64] = pairs[:, 0] * graph.num_nodes + pairs[:, 1]
    return codes
