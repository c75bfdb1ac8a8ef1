"""Indexing where one task can hold all edges: it reads them, cleans them as the twin does, and writes graph and ids.

One Spark job of one task instead of sorts, joins and shuffles, which for a small graph are mostly waiting. The files
are, byte for byte in ``root/graph``, those that ``graph_job`` makes in many tasks. Faults that the task finds in the
edges come back as a sentence, and nothing stays of the stage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from node2vec import edge_words
from node2vec.edge_cleaning import Policy, clean
from node2vec.graph_files import Header, Part, Rows, file_system, fingerprint, part_name, replaced, rows_sum, write_rows
from node2vec.graph_report import GraphReport
from sparkdl.errors import ClusterError, ConfigError

MOST_ROWS = 4 << 20  # of a frame; the task holds some hundred bytes for each
MOST_TEXT = 32 << 20  # bytes of lines


def build(
    frame: DataFrame, graph: str, ids: str, policy: Policy, first: Sequence[str] | None = None
) -> tuple[Header, GraphReport]:
    """Write the only part of the graph and the ids; the header is left to the caller, as it makes the graph count.

    frame: src, dst and perhaps weight (float). In a frame of text, `first` is what :func:`edge_words.id_type` wants,
    src and dst are strings, and with weights there is a column wrong. graph, ids: directories that all hosts share.
    Raises ConfigError: whatever ``edge_words`` or ``edge_cleaning`` refuse. ClusterError: the driver does not see what
    the task wrote.
    """
    task = _Task(graph, ids, policy, None if first is None else list(first))
    (row,) = frame.coalesce(1).mapInArrow(task, _Task.SCHEMA).collect()
    if row["refused"] is not None:
        raise ConfigError(row["refused"])
    report = GraphReport.from_dict(json.loads(row["report"]))
    files, folder = file_system(graph)
    if not files.get_file_info(f"{folder}/{part_name(0)}").is_file:
        raise ClusterError(
            f"an executor wrote {folder}/{part_name(0)}, but the driver does not see it: root must be a directory that "
            "all of them share, such as hdfs:// or s3a://."
        )
    weighted = "weight" in frame.columns
    mark = fingerprint(report.nodes, policy.directed, weighted, int(row["sum"]))
    parts = (Part(part_name(0), 0, report.nodes, report.arcs),)
    told = report.to_dict(), policy.to_dict()
    return Header(report.nodes, report.arcs, policy.directed, weighted, parts, mark, *told), report


class _Task:
    """What the task runs. Importable, so that workers keep their modules."""

    SCHEMA = "refused string, report string, sum string"

    def __init__(self, graph: str, ids: str, policy: Policy, first: list[str] | None):
        self.graph, self.ids, self.policy, self.first = graph, ids, policy, first

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """batches: all edges. One row: what is wrong with them, or the report and the rows' sum."""
        table = list(batches)
        found: tuple[str | None, ...]
        try:
            found = (None, *self._written(table))
        except ConfigError as error:
            found = (str(error), None, None)
        columns = [pa.array([value], pa.string()) for value in found]
        yield pa.RecordBatch.from_arrays(columns, names=["refused", "report", "sum"])

    def _written(self, batches: list[pa.RecordBatch]) -> tuple[str, str]:
        if not batches:
            raise ConfigError("there are no edges: the input has no rows.")
        table = pa.Table.from_batches(batches).combine_chunks()
        src, dst = table["src"], table["dst"]
        if self.first is not None:
            wrong = table["wrong"] if "wrong" in table.column_names else None
            src, dst = edge_words.ids_of(src, dst, wrong, self.first)
        missing = pc.sum(pc.or_(pc.is_null(src), pc.is_null(dst))).as_py()
        if missing:
            raise ConfigError(f"{missing} of {len(src)} edges have no src or no dst; leave them out.")
        weight = None
        if "weight" in table.column_names:
            given = table["weight"]
            weight = np.ma.array(given.fill_null(0).to_numpy(), mask=given.is_null().to_numpy())
        names, graph, report = clean(src.to_numpy(), dst.to_numpy(), weight, **self.policy.to_dict())
        rows = Rows(graph.indptr, graph.indices, graph.weights)
        files, folder = file_system(self.graph)
        files.create_dir(folder, recursive=True)
        write_rows(files, f"{folder}/{part_name(0)}", rows)
        self._write_ids(pa.array(names, src.type))
        return json.dumps(report.to_dict()), str(rows_sum(rows, 0))

    def _write_ids(self, names: Any) -> None:
        """One Parquet file, which appears at once: index int, id."""
        files, folder = file_system(self.ids)
        files.create_dir(folder, recursive=True)
        index = pa.array(np.arange(len(names), dtype=np.int32))
        with replaced(files, f"{folder}/part-00000.parquet") as stream:
            pq.write_table(pa.table({"index": index, "id": names}), stream)
