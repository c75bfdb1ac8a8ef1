from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import networkx as nx
import pytest
from pyspark.sql import SparkSession

from node2vec.edge_source import edges_of
from sparkdl.errors import ConfigError

pytestmark = pytest.mark.spark


def rows(spark: SparkSession, source: Any, **options: Any) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in edges_of(spark, source, **options).frame.collect())


def types(spark: SparkSession, source: Any, **options: Any) -> dict[str, str]:
    return dict(edges_of(spark, source, **options).frame.dtypes)


def test_frames(spark: SparkSession) -> None:
    frame = spark.createDataFrame(
        [(1, "x", 2, Decimal("0.5"))], "`from.id` int, name string, `to` bigint, weight decimal(5,2)"
    )
    named = {"src": "from.id", "dst": "to"}
    assert types(spark, frame, **named) == {"src": "bigint", "dst": "bigint", "weight": "float"}
    assert rows(spark, frame, **named) == [(1, 2, 0.5)]
    assert types(spark, frame, **named, weight=None) == {"src": "bigint", "dst": "bigint"}
    assert types(spark, spark.createDataFrame([(1, 2)], "src short, dst short")) == {
        "src": "smallint",
        "dst": "smallint",
    }
    graph_frame = SimpleNamespace(vertices=None, edges=spark.createDataFrame([("a", "b")], "src string, dst string"))
    assert rows(spark, graph_frame) == [("a", "b")]


@pytest.mark.parametrize(
    ("schema", "options", "sentence"),
    [
        ("a int, dst int", {}, r"no column 'src', only a, dst\. Rename one"),
        ("src int, dst int", {"weight": "w"}, "no column 'w', only src, dst"),
        ("src int, dst string", {}, "src is int and dst is string: cast one"),
        ("src double, dst double", {}, "src is double and dst is double"),
        (
            "src int, dst int, weight string",
            {},
            r'the column weight is string, not a number: cast it.*cast\("double"\)',
        ),
        ("src int, dst int, weight boolean", {}, "the column weight is boolean"),
    ],
)
def test_frames_that_are_refused(spark: SparkSession, schema: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        edges_of(spark, spark.createDataFrame([], schema), **options)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "src,dst,weight\n1,2,0.5\n2,3,\n", [(1, 2, 0.5), (2, 3, None)]),
        ("a.csv", "weight,dst,src\n2e0,2,1\nNaN,3,2\n", [(1, 2, 2.0), (2, 3, "nan")]),
        ("a.csv", '"src","dst"\n"a, b","c"\n', [("a, b", "c")]),
        ("a.csv", '"a, b",c\nd,e\n', [("a, b", "c"), ("d", "e")]),
        ("a.csv", "1,2,4,1289241911\n", [(1, 2, 4.0)]),
        ("a.tsv", "# SNAP\n10\t2\n2\t3\n", [(2, 3), (10, 2)]),
        ("a.tsv", "007\t2\n2\t3\n", [("007", "2"), ("2", "3")]),
        ("a.txt", "# Nodes: 3\n% more\n1 2\n\n 2\t3\n", [(1, 2), (2, 3)]),
        ("a.edgelist", "a b 1.5\nb c 2\n", [("a", "b", 1.5), ("b", "c", 2.0)]),
        ("a.edg", "src dst\n5 6\n6 7\n", [(5, 6), (6, 7)]),
        ("a.csv", "src,dst\n9999999999999999999,2\n", [("9999999999999999999", "2")]),
    ],
)
def test_text(spark: SparkSession, tmp_path: Path, name: str, text: str, expected: list[Any]) -> None:
    (tmp_path / name).write_text(text)
    found = rows(spark, tmp_path / name)
    assert [tuple("nan" if x != x else x for x in row) for row in found] == expected


@pytest.mark.parametrize(
    ("name", "text", "options", "sentence"),
    [
        ("a.csv", "src,dst,weight\n1,2,much\n2,3,4\n", {}, "1 of 2 weights are not numbers, for example 'much'"),
        ("a.csv", "from,to\n1,2\n2,3\n", {}, "integers on all lines but the first, from,to: say what"),
        ("a.csv", "src,dst\n1,2\n", {"weight": "w"}, "no column 'w', only src, dst"),
        ("a.csv", "# nothing\n", {}, "has no line that is not a comment"),
        ("a.csv", "1;2\n", {}, "'1;2', has one column"),
        ("a.dat", "1 2\n", {}, 'do not say one format: pass file_format="csv" or "edgelist"'),
        ("a.csv", "1,2\n", {"file_format": "xml"}, "file_format='xml' is unknown; choose one of csv, edgelist"),
    ],
)
def test_text_that_is_refused(
    spark: SparkSession, tmp_path: Path, name: str, text: str, options: dict[str, Any], sentence: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        rows(spark, tmp_path / name, **options)


def test_many_files_and_their_fingerprint(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "edges"
    folder.mkdir()
    (folder / "1.csv").write_text("src,dst\n1,2\n")
    with gzip.open(folder / "2.csv.gz", "wt") as file:
        file.write("src,dst\n3,4\n")
    first = edges_of(spark, folder)
    assert sorted(map(tuple, first.frame.collect())) == [(1, 2), (3, 4)]
    assert rows(spark, f"{folder}/*.csv*") == [(1, 2), (3, 4)]
    assert rows(spark, [folder / "1.csv", folder / "2.csv.gz"]) == [(1, 2), (3, 4)]
    assert edges_of(spark, folder).inputs == first.inputs
    assert edges_of(spark, folder, weight=None).inputs != first.inputs
    (folder / "3.csv").write_text("src,dst\n5,6\n")
    assert edges_of(spark, folder).inputs != first.inputs
    with pytest.raises(ConfigError, match=r"there are no edges at .*nowhere"):
        edges_of(spark, tmp_path / "nowhere.csv")


def test_parquet(spark: SparkSession, tmp_path: Path) -> None:
    spark.createDataFrame([("a", "b", 2)], "src string, dst string, weight int").write.parquet(str(tmp_path / "p"))
    source = edges_of(spark, tmp_path / "p")
    assert source.frame.dtypes == [("src", "string"), ("dst", "string"), ("weight", "float")]
    assert source.inputs is not None


def test_networkx(spark: SparkSession) -> None:
    graph = nx.Graph([("a", "b", {"weight": 2}), ("b", "c", {})])
    graph.add_node("alone")
    assert rows(spark, graph) == [("a", "b", 2.0), ("b", "c", 1.0)]
    assert rows(spark, graph, weight=None) == [("a", "b"), ("b", "c")]
    assert edges_of(spark, graph).directed is False
    multi = nx.MultiDiGraph([(1, 2), (1, 2)])
    assert rows(spark, multi) == [(1, 2), (1, 2)]
    assert edges_of(spark, multi).directed is True
    with pytest.raises(ConfigError, match="the networkx graph has none"):
        edges_of(spark, nx.empty_graph(3))
    with pytest.raises(ConfigError, match="nodes are int, str"):
        edges_of(spark, nx.Graph([(1, "a")]))
    with pytest.raises(ConfigError, match="'weight' of an edge is '3', not a number"):
        edges_of(spark, nx.Graph([(1, 2, {"weight": "3"})]))


def test_anything_else_is_refused(spark: SparkSession) -> None:
    source = edges_of(spark, nx.path_graph(3))
    assert edges_of(spark, source) is source
    for wrong in (None, [], [1, 2], 7):
        with pytest.raises(ConfigError, match=r"edges are given as .*; give a DataFrame"):
            edges_of(spark, wrong)
