"""Anybody's walks, or sentences, to walks of numbers: ``root/ids`` and ``root/walks`` as the other stages leave them.

Tokens are numbered by falling frequency, then by id. Walks come in the order of a hash of what they hold, so that
neither the partitions of the DataFrame nor their order count. No step collects the vocabulary.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from node2vec import stage
from node2vec.corpus_job import described
from node2vec.graph_files import absolute, file_system
from node2vec.graph_job import spark_path
from node2vec.node_numbering import number_nodes
from sparkdl import spark_conf
from sparkdl.errors import ConfigError

STAGE = "walks"
IDS = "ids"
LONGEST = 65_535  # tokens of a walk; see token_streams
_SORTED = "ids.sorted"
_IDS = (T.StringType, T.IntegerType, T.LongType, T.ShortType, T.ByteType)


def number_walks(
    spark: SparkSession, walks: DataFrame, root: str | os.PathLike[str], column: str = "walk", min_count: int = 0
) -> None:
    """Number the tokens of `walks` and write both to `root`.

    walks: a column `column`, array of strings or integers; empty arrays are left out. min_count: tokens that occur less
    often are left out, and walks that have nothing left.
    Raises ConfigError: no such column or of another type, nulls, walks of more than 65,535 tokens, nothing left, or
    root holds other walks.
    """
    spark_conf.refuse_connect(spark)
    frame = _checked(walks, column)
    sc = spark.sparkContext
    location = absolute(root)
    with described(sc, "reading walks"):
        settings = _survey(frame, column, min_count)
    if stage.done(location, STAGE, settings):
        return
    files, folder = file_system(location)
    stage.begin(location, STAGE, settings)
    tokens = frame.select(F.explode("walk").alias("id")).groupBy("id").agg(F.count("*").alias("mentions"))
    kept = tokens.where(F.col("mentions") >= min_count).withColumn("arcs", F.col("mentions"))
    placed = kept.orderBy(F.desc("mentions"), "id").withColumn("place", F.monotonically_increasing_id())
    with described(sc, "sorting tokens by frequency"):
        placed.write.mode("overwrite").parquet(spark_path(f"{location}/{_SORTED}"))
    if spark.read.parquet(spark_path(f"{location}/{_SORTED}")).isEmpty():
        raise ConfigError(f"no token occurs {min_count} times, so min_count={min_count} leaves nothing: lower it.")
    with described(sc, "numbering tokens"):
        nodes = number_nodes(spark, spark_path(f"{location}/{_SORTED}"), False, 1)
        nodes.frame.select("index", "id").write.mode("overwrite").parquet(spark_path(f"{location}/{IDS}"))
    with described(sc, "numbering walks"):
        ids = spark.read.parquet(spark_path(f"{location}/{IDS}"))
        _numbered(frame, ids).write.mode("append").parquet(spark_path(f"{location}/{STAGE}"))
    files.delete_dir(f"{folder}/{_SORTED}")
    stage.finish(location, STAGE)


class FirstLook(NamedTuple):
    """What one pass tells of a corpus; distinct_tokens is an estimate, off by about 5 %."""

    walks: int
    tokens: int
    longest: int
    distinct_tokens: int


def first_look(walks: DataFrame, column: str = "walk") -> FirstLook:
    """How large a corpus is, in one pass and little memory: before `min_count` and `dimensions` are chosen.

    Tokens are told apart by HyperLogLog++ (Heule, Nunkesser and Hall, EDBT 2013), as Spark has it. Raises ConfigError:
    no such column, or of another type.
    """
    frame = _checked(walks, column)
    with described(frame.sparkSession.sparkContext, "a first look at the walks"):
        row = (
            frame.select(F.size("walk").alias("size"), F.explode_outer("walk").alias("id"))
            .agg(F.count("id"), F.max("size"), F.approx_count_distinct("id"))
            .head()
        )
        rows = frame.count()
    assert row is not None
    return FirstLook(rows, int(row[0]), max(0, int(row[1] or 0)), int(row[2]))


def _checked(walks: DataFrame, column: str) -> DataFrame:
    """One column, walk."""
    if column not in walks.columns:
        raise ConfigError(f"the walks have no column {column!r}, only {', '.join(walks.columns)}: name theirs.")
    kind = walks.schema[column].dataType
    if not isinstance(kind, T.ArrayType) or not isinstance(kind.elementType, _IDS):
        raise ConfigError(
            f"column {column!r} is {kind.simpleString()}; walks are arrays of strings or integers, so split or cast it."
        )
    return walks.select(F.col(column).alias("walk"))


def _survey(frame: DataFrame, column: str, min_count: int) -> dict[str, object]:
    """What tells these walks from others; refuses what cannot be used."""
    word = F.xxhash64("walk")
    nulls = F.col("walk").isNull() | F.exists("walk", lambda token: token.isNull())
    row = frame.agg(
        F.count("*").alias("rows"),
        F.sum(F.shiftrightunsigned(word, 33)).alias("high"),
        F.sum(word.bitwiseAND(F.lit(0x7FFFFFFF))).alias("low"),
        F.count(F.when(nulls, True)).alias("nulls"),
        F.max(F.size("walk")).alias("longest"),
    ).head()
    assert row is not None
    if row["nulls"]:
        raise ConfigError(
            f"{row['nulls']} of {row['rows']} walks in {column!r} are null or hold nulls; leave them out."
        )
    if not row["longest"] or row["longest"] < 1:
        raise ConfigError(f"there is no token in column {column!r}: nothing can be learned from {row['rows']} walks.")
    if row["longest"] > LONGEST:
        raise ConfigError(
            f"a walk in column {column!r} has {row['longest']} tokens; at most {LONGEST} are possible: cut it."
        )
    inputs = f"{row['rows']}-{row['high'] or 0:x}-{row['low'] or 0:x}-{frame.dtypes[0][1]}"
    return {"walk_length": int(row["longest"]), "min_count": min_count, "inputs": inputs}


def _numbered(frame: DataFrame, ids: DataFrame) -> DataFrame:
    """Walks of numbers, in the order of their hashes. The row number only holds a walk's tokens together."""
    rows = frame.select(F.monotonically_increasing_id().alias("row"), "walk")
    tokens = rows.select("row", F.posexplode("walk").alias("place", "id")).join(ids, "id")
    found = tokens.groupBy("row").agg(F.array_sort(F.collect_list(F.struct("place", "index"))).alias("tokens"))
    walks = found.select(F.col("tokens.index").alias("walk"))
    return walks.orderBy(F.xxhash64("walk"), "walk")
