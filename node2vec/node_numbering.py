"""Ids to vertex numbers without a place where all of them meet: sort, count each sorted partition, add offsets.

The sorted nodes are written down before they are numbered. A range partitioning is drawn from samples, and one that is
computed a second time may have other borders; what is in files stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from node2vec.edge_cleaning import MOST_NODES, Policy
from node2vec.edge_survey import kept
from sparkdl.errors import ConfigError

PART_BYTES = 256_000_000
_LOCAL_BITS = 33  # of monotonically_increasing_id: partition << 33 | row


class Nodes(NamedTuple):
    """frame: id, index (int), key (int): what to shuffle an arc by so that it meets the others of its tail's part;
    borders: the first vertex of every part; num_nodes; isolated: nodes that only dropped rows mention.
    """

    frame: DataFrame
    borders: list[int]
    num_nodes: int
    isolated: int


def sort_nodes(frame: DataFrame, policy: Policy, target: str) -> None:
    """Write every node as Parquet: id, mentions, arcs, place (partition << 33 | row), before (arcs of rows before it).

    arcs: how many leave it before repeats are merged (an undirected self-loop counts twice; the cut needs no more).
    """
    mentions = kept(frame, policy).cast("int")
    ends = F.array(
        F.struct(F.col("src").alias("id"), mentions.alias("mentions"), mentions.alias("arcs")),
        F.struct(
            F.col("dst").alias("id"),
            mentions.alias("mentions"),
            (F.lit(0) if policy.directed else mentions).alias("arcs"),
        ),
    )
    nodes = frame.select(F.inline(ends)).groupBy("id")
    counted = nodes.agg(F.sum("mentions").alias("mentions"), F.sum("arcs").alias("arcs"))
    placed = counted.orderBy(F.desc("mentions"), "id").withColumn("place", F.monotonically_increasing_id())
    schema = f"id {frame.schema['src'].dataType.simpleString()}, mentions long, arcs long, place long, before long"
    placed.mapInArrow(arcs_before, schema).write.mode("overwrite").parquet(target)


def arcs_before(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Append ``before``: the arcs of all rows before each one in this partition."""
    total = 0
    for batch in batches:
        arcs = batch.column(batch.schema.names.index("arcs")).to_numpy()
        ends = np.cumsum(arcs) + total
        columns = [*batch.columns, pa.array(ends - arcs, pa.int64())]
        yield pa.RecordBatch.from_arrays(columns, names=[*batch.schema.names, "before"])
        total = int(ends[-1]) if len(ends) else total


def number_nodes(spark: SparkSession, path: str, weighted: bool, parts: int | None) -> Nodes:
    """Numbers from places, and a cut into parts of about equal bytes, each with at least one arc."""
    placed = spark.read.parquet(path)
    cell = F.shiftright("place", _LOCAL_BITS)
    sizes = placed.groupBy(cell.alias("cell")).agg(
        F.count("*").alias("rows"),
        F.sum("arcs").alias("arcs"),
        F.count(F.when(F.col("mentions") == 0, True)).alias("isolated"),
    )
    rows = sorted(sizes.collect())
    first_row, first_arc = [0] * (rows[-1]["cell"] + 1), [0] * (rows[-1]["cell"] + 1)
    num_nodes = arcs = 0
    for row in rows:
        first_row[row["cell"]], first_arc[row["cell"]] = num_nodes, arcs
        num_nodes, arcs = num_nodes + row["rows"], arcs + row["arcs"]
    if num_nodes > MOST_NODES:
        raise ConfigError(f"the edges mention {num_nodes} nodes; vertex numbers are int32, so at most {MOST_NODES}.")
    isolated = sum(row["isolated"] for row in rows)
    index = _at(first_row, cell) + F.col("place").bitwiseAND(F.lit((1 << _LOCAL_BITS) - 1))
    per_arc, per_node = (8, 16) if weighted else (4, 8)
    total = arcs * per_arc + num_nodes * per_node
    wanted = min(parts or math.ceil(total / PART_BYTES), num_nodes)
    if wanted == 1:
        return Nodes(
            placed.select("id", index.cast("int").alias("index"), F.lit(0).alias("key")), [0], num_nodes, isolated
        )
    before = (_at(first_arc, cell) + F.col("before")) * per_arc + index * per_node
    part = F.least(F.floor(before / F.lit(total / wanted)).cast("int"), F.lit(wanted - 1))
    frame = placed.select("id", index.cast("int").alias("index"), part.alias("part"), "arcs")
    cuts = sorted(frame.groupBy("part").agg(F.min("index"), F.sum("arcs")).collect())
    borders, number_of = join_empty(wanted, [(cut[0], cut[1], cut[2]) for cut in cuts])
    keys = partition_keys(spark, len(borders))
    key = _at([keys[number] for number in number_of], F.col("part"))
    return Nodes(frame.select("id", "index", key.cast("int").alias("key")), borders, num_nodes, isolated)


def join_empty(wanted: int, cuts: Sequence[tuple[int, int, int]]) -> tuple[list[int], list[int]]:
    """Join parts without arcs to a neighbour, for no arc would bring their task to life.

    wanted: parts; cuts: (part, first vertex, arcs), ascending, of parts that have vertices; at least one has arcs.
    Returns the first vertex of each part that stays, and the number of the part that each wanted part became.
    """
    borders = [first for _, first, arcs in cuts if arcs]
    borders[0] = 0
    filled = {part for part, _, arcs in cuts if arcs}
    numbers = np.cumsum([part in filled for part in range(wanted)]) - 1
    return borders, np.maximum(numbers, 0).tolist()


def partition_keys(spark: SparkSession, count: int) -> list[int]:
    """Integers that Spark's hash partitioning sends to partitions 0, 1, ... count-1.

    Where none is found among 64 x count candidates, two parts share a partition, which is only slower.
    """
    spread = spark.range(64 * count).select(F.col("id").cast("int").alias("key"))
    found: dict[int, int] = {}
    for key, partition in spread.select("key", F.pmod(F.hash("key"), F.lit(count))).collect():
        found.setdefault(partition, key)
    return [found.get(number, number) for number in range(count)]


def _at(values: Sequence[int], place: Column) -> Column:
    """values[place], as a bigint."""
    return F.element_at(F.array(*(F.lit(value).cast("long") for value in values)), (place + 1).cast("int"))
