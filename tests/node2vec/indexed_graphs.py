"""Indexed graphs without Spark: root/graph and root/ids as the indexing job leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from node2vec.edge_cleaning import clean
from node2vec.graph import Graph


def random_edges(
    num_nodes: int, num_edges: int, seed: int, text: bool = False, weighted: bool = False
) -> tuple[Any, Any, Any]:
    """src, dst and weight (or None): hubs, repeats and loops; not all numbers occur."""
    rng = np.random.default_rng(seed)
    ends = (num_nodes * rng.random((2, num_edges)) ** 2).astype(np.int64)
    weight = rng.choice([0.5, 1.0, 3.0, 20.0], num_edges) if weighted else None
    src, dst = 1000 + 3 * ends
    if text:
        src, dst = (np.array([f"node {value}" for value in column], object) for column in (src, dst))
    return src, dst, weight


def save_indexed(root: Path, edges: tuple[Any, Any, Any], parts: int = 1, directed: bool = False) -> tuple[Any, Graph]:
    """Write root/graph in so many parts, and root/ids; returns the ids by vertex number, and the graph."""
    ids, graph, report = clean(*edges, directed=directed)
    borders = [graph.num_nodes * part // parts for part in range(parts)]
    graph.save(root / "graph", report.to_dict(), borders)
    (root / "ids").mkdir()
    table = pa.table({"index": pa.array(np.arange(len(ids)), pa.int32()), "id": pa.array(ids.tolist())})
    pq.write_table(table, root / "ids" / "part-0.parquet")
    return ids, graph
