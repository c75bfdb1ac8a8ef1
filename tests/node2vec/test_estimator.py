from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest
from pyspark.sql import SparkSession

from node2vec.estimator import ROOT, Node2Vec, working_root
from sparkdl.errors import ConfigError

SMALL: dict[str, Any] = {
    "dimensions": 8,
    "num_walks": 4,
    "walk_length": 10,
    "window": 3,
    "partitions": 2,
    "episodes": 2,
}


def vectors(model: Any) -> dict[Any, list[float]]:
    return {row["id"]: list(row["vector"]) for row in model.vectors.collect()}


@pytest.mark.spark
def test_edges_to_a_model_and_on_from_it(spark: SparkSession, tmp_path: Path) -> None:
    graph = networkx.les_miserables_graph()
    first = Node2Vec(**SMALL, p=0.5, q=2.0, seed=1).fit(graph, root=tmp_path / "first")
    found = vectors(first)
    assert set(found) == set(graph)
    assert all(len(vector) == 8 for vector in found.values())
    again = Node2Vec(**SMALL, p=0.5, q=2.0, seed=1).fit(graph, root=tmp_path / "again")
    assert vectors(again) == found
    graph.add_edge("Valjean", "somebody new")
    later = Node2Vec(**SMALL, p=0.5, q=2.0, seed=1, alpha=1e-9, min_alpha=0.0).fit(graph, first, tmp_path / "later")
    moved = vectors(later)
    assert set(moved) == {*found, "somebody new"}
    assert all(np.allclose(moved[name], vector, atol=1e-5) for name, vector in found.items())


@pytest.mark.spark
def test_walks_alone_and_own_walks(spark: SparkSession, tmp_path: Path) -> None:
    edges = spark.createDataFrame([("x", "y"), ("y", "z"), ("z", "x"), ("z", "w")], ["src", "dst"])
    walks = Node2Vec(**SMALL).walks(edges, root=tmp_path / "walks")
    assert walks.dtypes == [("walk", "array<string>")]
    assert walks.count() == 4 * 4
    model = Node2Vec(**SMALL).fit_walks(walks, root=tmp_path / "own")
    assert set(vectors(model)) == {"w", "x", "y", "z"}
    numbers = spark.createDataFrame([([10**12, 5],), ([5, 7],), ([7, 5],)], "path array<bigint>")
    model = Node2Vec(**SMALL, min_count=2).fit_walks(numbers, column="path", root=tmp_path / "rare")
    assert set(vectors(model)) == {5, 7}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"p": 0.0}, r"p=0\.0 is no bias"),
        ({"walk_length": 0}, "walk_length=0 makes no walk"),
        ({"num_walks": 0}, "num_walks=0 makes no walk"),
        ({"dimensions": 0}, "dimensions=0 is less than 1"),
        ({"dimensions": -3}, "dimensions=-3 is less than 1"),
        ({"window": 0}, "window=0 is less than 1"),
        ({"partitions": 0}, "partitions=0 is less than 1"),
        ({"min_count": -1}, "min_count=-1 is negative"),
        ({"negatives": "all"}, "negatives='all' is unknown"),
        ({"seed": -1}, "seed=-1 does not fit 64 bits"),
        ({"multi_edges": "mean"}, "multi_edges"),
        ({"max_degree": 0}, "max_degree"),
    ],
)
def test_settings_are_checked_at_once(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Node2Vec(**settings)


@pytest.mark.spark
def test_where_the_stages_lie(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert working_root(spark, tmp_path) == str(tmp_path)
    assert Path(working_root(spark, None)).is_dir()
    monkeypatch.setattr(spark.sparkContext, "master", "yarn")
    with pytest.raises(ConfigError, match=f"executors of yarn share no temporary directory.*{ROOT}"):
        working_root(spark, None)
