"""Indexing on Spark: edges to vertex numbers and a graph in files. Its twin is :func:`node2vec.edge_cleaning.clean`.

survey   count rows, faults and self-loops, in one pass
sort     nodes by (mentions descending, id), written down; numbers from that; see node2vec.node_numbering
arcs     edges joined with the numbers of both ends, one 64-bit word an arc, shuffled to the part of its tail
parts    a task builds a part with :func:`node2vec.edge_cleaning.build_rows` and writes it

A small graph, of which one part is made anyway, is left to one task: see node2vec.small_graph_job.

root/graph/   the parts and, as the last file, graph.json; see node2vec.graph_files
root/ids/     Parquet: index int, id (of the type it was given in)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import SparkContext, StorageLevel
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from node2vec import edge_source, small_graph_job, stage
from node2vec.edge_cleaning import Policy, build_rows, refuse_no_edges
from node2vec.edge_survey import Survey, kept, survey_edges
from node2vec.graph_files import (
    HEADER,
    Header,
    Part,
    absolute,
    file_system,
    fingerprint,
    part_name,
    read_header,
    rows_sum,
    write_header,
    write_rows,
)
from node2vec.graph_report import GraphReport
from node2vec.node_numbering import Nodes, number_nodes, sort_nodes
from sparkdl import spark_conf, spark_internals
from sparkdl.errors import ClusterError, ConfigError

STAGE = "graph"
IDS = "ids"
_SORTED = "ids.sorted"


def index(
    spark: SparkSession,
    edges: Any,
    root: str | os.PathLike[str],
    directed: bool = False,
    multi_edges: str = "sum",
    self_loops: str = "keep",
    bad_weights: str = "raise",
    max_degree: int | None = None,
    parts: int | None = None,
) -> GraphReport:
    """Index edges into ``root/graph`` and ``root/ids`` and say what was found.

    edges: whatever :func:`node2vec.edge_source.edges_of` takes. root: a directory that driver and executors share, a
    path or URI. The policies are those of :class:`node2vec.edge_cleaning.Policy`. parts: number of files; None makes
    the fewest of at most about 256 MB (one row is never cut). A task holds its part's arcs some four times over.

    A graph that is there already, of the same settings and edges, is not made again; edges in files are compared by the
    files' names, sizes and times, any others by reading them once.
    Raises ConfigError: edges or settings that cannot be used, or root holds a graph of others. ClusterError: the edges
    were not the same each time they were read, or executors write where the driver cannot see it.
    """
    spark_conf.refuse_connect(spark)
    policy = Policy(
        directed=directed,
        multi_edges=multi_edges,
        self_loops=self_loops,
        bad_weights=bad_weights,
        max_degree=max_degree,
    )
    if parts is not None and parts < 1:
        raise ConfigError(f"parts={parts} is less than 1; give a number of files, or None.")
    sc = spark.sparkContext
    with described(sc, "listing the edges' files"):
        source = edge_source.edges_of(spark, edges)
    if source.directed not in (None, directed):
        raise ConfigError(
            f"the graph given is {'directed' if source.directed else 'undirected'}, but directed={directed}: pass "
            f"directed={source.directed}, or convert it with to_{'un' if source.directed else ''}directed()."
        )
    settings = {**policy.to_dict(), "parts": parts, "inputs": source.inputs}
    if source.inputs is not None and stage.done(root, STAGE, settings, HEADER):
        return read_report(root)
    if source.text_bytes is not None and parts in (None, 1) and source.text_bytes <= small_graph_job.MOST_TEXT:
        with described(sc, "reading the first line"):
            text = source.text
        return _index_small(sc, text.untyped(), root, policy, settings, first=text.first)
    with described(sc, "finding the types of ids and weights"):
        frame = source.frame
    with parsed_once(frame) if source.is_text else nullcontext():
        return _index(spark, frame, source, root, policy, parts, settings)


@contextmanager
def parsed_once(frame: DataFrame) -> Iterator[None]:
    """The three passes over the edges parse the lines of text files once; what they say is kept as columns."""
    frame.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        yield
    finally:
        frame.unpersist()


def _index(
    spark: SparkSession,
    frame: DataFrame,
    source: edge_source.Edges,
    root: str | os.PathLike[str],
    policy: Policy,
    parts: int | None,
    settings: dict[str, Any],
) -> GraphReport:
    sc = spark.sparkContext
    with described(sc, "counting rows and faults"):
        survey = survey_edges(frame, policy)
    if source.inputs is None:
        settings["inputs"] = survey.inputs
        if stage.done(root, STAGE, settings, HEADER):
            return read_report(root)
    refuse_no_edges(survey.report, survey.kept)
    if parts in (None, 1) and survey.report.rows <= small_graph_job.MOST_ROWS:
        return _index_small(sc, frame, root, policy, settings, survey)
    location = spark_path(root)
    files, folder = file_system(root)
    _refuse_foreign_ids(files, folder)
    stage.begin(root, STAGE, settings, HEADER)
    weighted = "weight" in frame.columns
    with described(sc, "sorting ids by degree"):
        sort_nodes(frame, policy, f"{location}/{_SORTED}")
    with described(sc, "numbering ids"):
        nodes = number_nodes(spark, f"{location}/{_SORTED}", weighted, parts)
    with described(sc, "writing ids"):
        nodes.frame.select("index", "id").write.mode("overwrite").parquet(f"{location}/{IDS}")
    with described(sc, f"building {len(nodes.borders)} parts of the graph"):
        writer = PartWriter(f"{absolute(root)}/{STAGE}", nodes.borders, nodes.num_nodes, policy)
        built = numbered_arcs(frame, nodes, policy).mapInArrow(writer, PartWriter.SCHEMA).collect()
    built = sorted(built, key=lambda row: int(row["number"]))
    _check(built, survey, nodes, files.get_file_info([f"{folder}/{STAGE}/{part_name(row['number'])}" for row in built]))
    report = _report(built, survey, nodes)
    files.delete_dir(f"{folder}/{_SORTED}")
    write_header(f"{absolute(root)}/{STAGE}", _header(built, report, nodes, policy, weighted))
    return report


def _index_small(
    sc: SparkContext,
    frame: DataFrame,
    root: str | os.PathLike[str],
    policy: Policy,
    settings: dict[str, Any],
    survey: Survey | None = None,
    first: Sequence[str] | None = None,
) -> GraphReport:
    """In one task. survey: of a typed frame; first: of one of text, see ``small_graph_job.build``."""
    files, folder = file_system(root)
    _refuse_foreign_ids(files, folder)
    there = files.get_file_info(folder).type.name != "NotFound"
    stage.begin(root, STAGE, settings, HEADER)
    for name in (IDS, _SORTED):  # of an index that broke off
        if files.get_file_info(f"{folder}/{name}").type.name != "NotFound":
            files.delete_dir(f"{folder}/{name}")
    location = absolute(root)
    try:
        with described(sc, "reading the edges and building the graph"):
            header, report = small_graph_job.build(frame, f"{location}/{STAGE}", f"{location}/{IDS}", policy, first)
    except ConfigError:
        files.delete_dir(f"{folder}/{STAGE}" if there else folder)
        raise
    if survey is not None and survey.report != replace(GraphReport(), **_about_rows(report)):
        raise ClusterError(
            f"the edges gave {survey.report.rows} rows when they were counted and {report.rows} when the graph was "
            "built, or others: they differ each time they are computed. Write them to files first, and index these."
        )
    write_header(f"{location}/{STAGE}", header)
    return report


def _about_rows(report: GraphReport) -> dict[str, int]:
    """What a survey counts too."""
    names = ("rows", "self_loops", *(name for name in report.to_dict() if name.endswith("_weights")))
    return {name: getattr(report, name) for name in names}


def read_report(root: str | os.PathLike[str]) -> GraphReport:
    """The report of the graph that was indexed into ``root``. Raises ConfigError: there is none."""
    return GraphReport.from_dict(read_header(f"{os.fspath(root)}/{STAGE}").report or {})


def spark_path(root: str | os.PathLike[str]) -> str:
    """A path for Spark, which would look for a plain one on the cluster's default file system.

    Not an encoded URI: Hadoop takes ``%20`` for three characters.
    """
    name = absolute(root)
    return name if "://" in name else f"file://{name}"


def described(sc: SparkContext, text: str) -> AbstractContextManager[None]:
    """Jobs inside are shown as ``node2vec index: <text>``; the former description comes back."""
    return spark_internals.described(sc, f"node2vec index: {text}")


def numbered_arcs(frame: DataFrame, nodes: Nodes, policy: Policy) -> DataFrame:
    """Every arc before merging, in the partition of its part: arc (bigint: tail << 32 | head) and perhaps weight."""
    tails = nodes.frame.select(F.col("id").alias("src"), F.col("index").alias("tail"), F.col("key").alias("tail_key"))
    heads = nodes.frame.select(F.col("id").alias("dst"), F.col("index").alias("head"), F.col("key").alias("head_key"))
    edges = frame.where(kept(frame, policy)).join(tails, "src").join(heads, "dst")
    weight = [F.col("weight")] if "weight" in frame.columns else []
    one_way, other_way = (
        F.struct(
            F.shiftleft(F.col(tail).cast("long"), 32).bitwiseOR(F.col(head).cast("long")).alias("arc"),
            F.col(f"{tail}_key").alias("key"),
            *weight,
        )
        for tail, head in (("tail", "head"), ("head", "tail"))
    )
    both = F.when(F.col("tail") == F.col("head"), F.array(one_way)).otherwise(F.array(one_way, other_way))
    arcs = edges.select(F.inline(F.array(one_way) if policy.directed else both))
    return arcs.repartition(len(nodes.borders), "key").drop("key")


class PartWriter:
    """Builds and writes the parts whose arcs are in a partition; yields one row about each."""

    SCHEMA = T.StructType(
        [
            T.StructField(name, T.LongType(), False)
            for name in (
                *("number", "received", "arcs", "sum"),
                *("edges", "duplicates", "empty", "largest_degree", "capped"),
            )
        ]
    )

    def __init__(self, directory: str, borders: Sequence[int], num_nodes: int, policy: Policy):
        self.directory, self.policy = directory, policy
        self.borders = np.array([*borders, num_nodes], np.int64)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """batches: arc int64 and perhaps weight float32."""
        table = [batch for batch in batches if batch.num_rows]
        if not table:
            return
        arcs = np.concatenate([batch.column(0).to_numpy() for batch in table])
        weighted = table[0].num_columns > 1
        weights = np.concatenate([batch.column(1).to_numpy() for batch in table]) if weighted else None
        del table
        first, last = (int(np.searchsorted(self.borders, arc >> 32, "right")) - 1 for arc in (arcs.min(), arcs.max()))
        if first == last:
            yield self._write(first, arcs, weights)
            return
        numbers = np.searchsorted(self.borders, arcs >> 32, "right") - 1
        for number in np.unique(numbers).tolist():
            here = numbers == number
            yield self._write(number, arcs[here], None if weights is None else weights[here])

    def _write(self, number: int, arcs: Any, weights: Any) -> pa.RecordBatch:
        first, stop = (int(border) for border in self.borders[number : number + 2])
        received = len(arcs)
        rows, counts = build_rows(arcs, weights, first, stop - first, self.policy)
        files, folder = file_system(self.directory)
        files.create_dir(folder, recursive=True)
        write_rows(files, f"{folder}/{part_name(number)}", rows)
        signed = int(np.array([rows_sum(rows, first)], np.uint64).view(np.int64)[0])
        values = (number, received, len(rows.neighbors), signed, *counts)
        return pa.RecordBatch.from_arrays([pa.array([v], pa.int64()) for v in values], names=self.SCHEMA.names)


def _refuse_foreign_ids(files: Any, folder: str) -> None:
    if files.get_file_info(f"{folder}/{STAGE}/{stage.MANIFEST}").is_file:
        return  # of an index that broke off: its ids are ours too
    for name in (IDS, _SORTED):
        if files.get_file_info(f"{folder}/{name}").type.name != "NotFound":
            raise ConfigError(
                f"{folder}/{name} exists and would be overwritten, but no graph was indexed there. Use another "
                "root, or remove it."
            )


def _check(built: list[Row], survey: Survey, nodes: Nodes, infos: list[Any]) -> None:
    received = sum(row["received"] for row in built)
    if received != survey.arcs or [row["number"] for row in built] != list(range(len(nodes.borders))):
        raise ClusterError(
            f"the edges gave {survey.arcs} arcs when they were counted and {received} when the graph was built: they "
            "differ each time they are computed. Write them to files first, and index these."
        )
    missing = [info.path for info in infos if not info.is_file]
    if missing:
        raise ClusterError(
            f"executors wrote {missing[0]}, but the driver does not see it: root must be a directory that all of them "
            "share, such as hdfs:// or s3a://."
        )


def _report(built: list[Row], survey: Survey, nodes: Nodes) -> GraphReport:
    return replace(
        survey.report,
        duplicate_edges=sum(row["duplicates"] for row in built),
        nodes=nodes.num_nodes,
        edges=sum(row["edges"] for row in built),
        arcs=sum(row["arcs"] for row in built),
        sinks=sum(row["empty"] for row in built) - nodes.isolated,
        isolated_nodes=nodes.isolated,
        largest_degree=max(row["largest_degree"] for row in built),
        capped_nodes=sum(row["capped"] for row in built),
    )


def _header(built: list[Row], report: GraphReport, nodes: Nodes, policy: Policy, weighted: bool) -> Header:
    stops = [*nodes.borders[1:], nodes.num_nodes]
    parts = tuple(
        Part(part_name(number), first, stop - first, row["arcs"])
        for number, (first, stop, row) in enumerate(zip(nodes.borders, stops, built, strict=True))
    )
    total = sum(row["sum"] for row in built) % 2**64
    return Header(
        report.nodes,
        report.arcs,
        policy.directed,
        weighted,
        parts,
        fingerprint(report.nodes, policy.directed, weighted, total),
        report.to_dict(),
        policy.to_dict(),
    )
