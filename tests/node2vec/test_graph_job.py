from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from node2vec import graph_job, small_graph_job
from node2vec.edge_cleaning import clean
from node2vec.graph import Graph
from node2vec.graph_files import read_header
from sparkdl.errors import ClusterError, ConfigError
from tests.node2vec.small_edges import EdgeList, edge_lists, policies

pytestmark = pytest.mark.spark


def frame_of(spark: SparkSession, edges: EdgeList, partitions: int = 2) -> DataFrame:
    kind = "string" if isinstance(edges.src[0], str) else "bigint"
    if edges.weight is None:
        frame = spark.createDataFrame(list(zip(edges.src, edges.dst, strict=True)), f"src {kind}, dst {kind}")
    else:
        rows = list(zip(edges.src, edges.dst, edges.weight, strict=True))
        frame = spark.createDataFrame(rows, f"src {kind}, dst {kind}, weight double")
    return frame.repartition(partitions)


def ids_of(root: Path) -> list[Any]:
    table = pq.read_table(root / "ids").sort_by("index")
    assert table["index"].to_pylist() == list(range(len(table)))
    ids: list[Any] = table["id"].to_pylist()
    return ids


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edges=edge_lists(),
    policy=policies(),
    partitions=st.integers(1, 4),
    parts=st.sampled_from([None, 1, 2, 3, 7]),
    one_task=st.booleans(),
)
def test_equals_its_twin(
    spark: SparkSession,
    tmp_path_factory: pytest.TempPathFactory,
    edges: EdgeList,
    policy: dict[str, Any],
    partitions: int,
    parts: int | None,
    one_task: bool,
) -> None:
    root = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patched:
        if not one_task:
            patched.setattr(small_graph_job, "MOST_ROWS", 0)
        _equals_its_twin(spark, root, edges, policy, partitions, parts)


def _equals_its_twin(
    spark: SparkSession, root: Path, edges: EdgeList, policy: dict[str, Any], partitions: int, parts: int | None
) -> None:
    frame = frame_of(spark, edges, partitions)
    refused = ""
    try:
        ids, graph, report = clean(*edges.arrays(), **policy)
    except ConfigError as error:
        refused = str(error)
    if refused:
        with pytest.raises(ConfigError, match=f"^{re.escape(refused)}$"):
            graph_job.index(spark, frame, root, parts=parts, **policy)
        assert list(root.iterdir()) == []
        return
    assert graph_job.index(spark, frame, root, parts=parts, **policy) == report
    assert ids_of(root) == ids.tolist()
    header = read_header(root / "graph")
    assert header.report == report.to_dict()
    assert len(header.parts) <= (parts or 1)
    assert all(part.arcs for part in header.parts)
    assert header.fingerprint == graph.fingerprint()
    found = Graph.open(root / "graph")
    assert np.array_equal(found.indptr, graph.indptr)
    assert np.array_equal(found.indices, graph.indices)
    assert (found.weights is None) == (graph.weights is None)
    if graph.weights is not None:
        assert np.array_equal(found.weights, graph.weights)  # type: ignore[arg-type]
    assert found.directed == graph.directed


@pytest.mark.parametrize(("directed", "parts"), [(False, 1), (True, 2), (False, 7)])
def test_a_larger_graph_equals_its_twin(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directed: bool, parts: int
) -> None:
    """Large enough for several sorted partitions and for a cut that matters; strings, weights, repeats, hubs."""
    monkeypatch.setattr(small_graph_job, "MOST_ROWS", 0)
    rng = np.random.default_rng(parts)
    src, dst = (rng.zipf(1.6, 4000) % 700 for _ in range(2))
    weight = rng.choice([0.1, 0.2, 0.3, 1e-3], 4000)
    names = np.array([f"node {n}" for n in range(700)], object)
    frame = frame_of(spark, EdgeList(names[src].tolist(), names[dst].tolist(), weight.tolist()), 5)
    arguments: dict[str, Any] = {"directed": directed, "max_degree": 40}
    spark.conf.set("spark.sql.adaptive.coalescePartitions.enabled", "false")
    spark.conf.set("spark.sql.shuffle.partitions", "6")
    try:
        report = graph_job.index(spark, frame, tmp_path, parts=parts, **arguments)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", "2")
        spark.conf.unset("spark.sql.adaptive.coalescePartitions.enabled")
    ids, graph, twin = clean(names[src], names[dst], weight, **arguments)
    assert report == twin
    assert report.capped_nodes > 0
    assert ids_of(tmp_path) == ids.tolist()
    header = read_header(tmp_path / "graph")
    assert len(header.parts) > parts // 2  # a hub's row may fill several parts, and is never cut
    assert header.fingerprint == graph.fingerprint() == Graph.open(tmp_path / "graph").fingerprint()


def test_a_part_is_at_most_as_large_as_told(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node2vec.node_numbering.PART_BYTES", 2000)
    monkeypatch.setattr(small_graph_job, "MOST_ROWS", 0)
    rng = np.random.default_rng(0)
    src, dst = rng.integers(0, 300, (2, 1000))
    graph_job.index(spark, frame_of(spark, EdgeList(src.tolist(), dst.tolist(), None)), tmp_path)
    header = read_header(tmp_path / "graph")
    assert len(header.parts) == math.ceil((2000 * 4 + 300 * 8) / 2000)
    assert max(4 * part.arcs + 8 * part.rows for part in header.parts) < 2000 + 100


def test_the_second_run_returns_at_once_and_other_settings_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    frame = frame_of(spark, EdgeList([1, 2, 3], [2, 3, 1], None))
    report = graph_job.index(spark, frame, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert graph_job.index(spark, frame.repartition(3), tmp_path) == report
    with pytest.raises(ConfigError, match=r"graph was made with max_degree=None, this run has max_degree=7\. Use"):
        graph_job.index(spark, frame, tmp_path, max_degree=7)
    with pytest.raises(ConfigError, match=r"graph was made from other inputs \(fingerprint"):
        graph_job.index(spark, frame_of(spark, EdgeList([1, 2, 3], [2, 3, 2], None)), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph", "ids"]
    assert json.loads((tmp_path / "graph" / "_manifest.json").read_text())["multi_edges"] == "sum"


def test_files_are_known_again_without_reading_them(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "edges.csv"
    path.write_text("src,dst\n1,2\n2,3\n")
    report = graph_job.index(spark, path, tmp_path / "run")
    tracker = spark.sparkContext.statusTracker()
    spark.sparkContext.setJobGroup("again", "again")
    try:
        assert graph_job.index(spark, str(path), tmp_path / "run") == report
        assert len(tracker.getJobIdsForGroup("again")) <= 1  # the listing
    finally:
        spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)  # type: ignore[arg-type]
        spark.sparkContext.setLocalProperty("spark.job.description", None)  # type: ignore[arg-type]
    path.write_text("src,dst\n1,2\n2,33\n")
    with pytest.raises(ConfigError, match="from other inputs"):
        graph_job.index(spark, path, tmp_path / "run")


def test_what_broke_off_is_made_anew(spark: SparkSession, tmp_path: Path) -> None:
    frame = frame_of(spark, EdgeList([1, 2, 3], [2, 3, 1], None))
    report = graph_job.index(spark, frame, tmp_path)
    (tmp_path / "graph" / "graph.json").unlink()
    (tmp_path / "graph" / "part-00009.arrow").write_bytes(b"left over")
    with pytest.raises(ConfigError, match="holds no graph"):
        graph_job.read_report(tmp_path)
    assert graph_job.index(spark, frame, tmp_path, max_degree=1) != report
    assert not (tmp_path / "graph" / "part-00009.arrow").exists()
    assert len(ids_of(tmp_path)) == 3


@pytest.mark.parametrize("most_rows", [0, small_graph_job.MOST_ROWS])
def test_edges_that_change_are_noticed(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_rows: int
) -> None:
    monkeypatch.setattr(small_graph_job, "MOST_ROWS", most_rows)
    ids = spark.range(2000).select(F.col("id").alias("src"), F.lit(-1).cast("bigint").alias("dst"))
    clock = F.udf(lambda: __import__("time").time_ns(), "long").asNondeterministic()
    frame = ids.where(F.xxhash64("src", clock()) % 2 == 0)
    with pytest.raises(ClusterError, match="differ each time they are computed"):
        graph_job.index(spark, frame, tmp_path)
    assert not (tmp_path / "graph" / "graph.json").exists()


def test_bad_input_is_refused_before_anything_is_written(spark: SparkSession, tmp_path: Path) -> None:
    root = tmp_path / "run"
    weighted = frame_of(spark, EdgeList([1, 2, 3], [2, 3, 1], [1.0, -1.0, None]))
    with pytest.raises(ConfigError, match=r"2 of 3 edges have a weight .* \(1 negative, 1 null\)"):
        graph_job.index(spark, weighted, root)
    nulls = spark.createDataFrame([(1, None), (2, 3)], "src int, dst int")
    with pytest.raises(ConfigError, match="1 of 2 edges have no src or no dst"):
        graph_job.index(spark, nulls, root)
    with pytest.raises(ConfigError, match="the input has no rows"):
        graph_job.index(spark, nulls.where("src > 5"), root)
    with pytest.raises(ConfigError, match="parts=0 is less than 1"):
        graph_job.index(spark, nulls, root, parts=0)
    assert not root.exists()


def test_job_descriptions(spark: SparkSession) -> None:
    sc = spark.sparkContext
    sc.setJobDescription("mine")
    try:
        with graph_job.described(sc, "sorting"):
            assert sc.getLocalProperty("spark.job.description") == "node2vec index: sorting"
        assert sc.getLocalProperty("spark.job.description") == "mine"
    finally:
        sc.setLocalProperty("spark.job.description", None)  # type: ignore[arg-type]


def test_plain_paths_are_local() -> None:
    assert graph_job.spark_path("/a b/c/") == "file:///a b/c"
    assert graph_job.spark_path("s3a://bucket/run/") == "s3a://bucket/run"


def test_a_root_with_a_space_and_a_percent_sign(spark: SparkSession, tmp_path: Path) -> None:
    root = tmp_path / "my graphs 100%25"
    graph_job.index(spark, frame_of(spark, EdgeList([1, 2, 3], [2, 3, 1], None)), root)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my graphs 100%25"]
    assert sorted(path.name for path in root.iterdir()) == ["graph", "ids"]


def test_ids_of_others_are_not_overwritten(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "ids").mkdir()
    with pytest.raises(ConfigError, match="ids exists and would be overwritten"):
        graph_job.index(spark, frame_of(spark, EdgeList([1], [2], None)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ids"]


def test_a_networkx_graph_says_whether_it_is_directed(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is directed, but directed=False: pass directed=True, or .* to_undirected"):
        graph_job.index(spark, nx.DiGraph([(1, 2)]), tmp_path)
    report = graph_job.index(spark, nx.les_miserables_graph(), tmp_path)
    assert (report.nodes, report.edges, report.arcs) == (77, 254, 508)
    assert ids_of(tmp_path)[0] == "Valjean"
