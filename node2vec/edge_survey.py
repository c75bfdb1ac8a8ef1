"""One pass over the edges: how many there are, what is wrong with them, which are kept, and their fingerprint."""

from __future__ import annotations

from typing import NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from node2vec.edge_cleaning import Policy, refuse_bad_weights
from node2vec.graph_report import GraphReport
from sparkdl.errors import ConfigError


class Survey(NamedTuple):
    """report: its fields about rows; kept: rows kept; arcs: what these give before repeats are merged; inputs: a
    fingerprint of all rows, whatever their order.
    """

    report: GraphReport
    kept: int
    arcs: int
    inputs: str


def survey_edges(frame: DataFrame, policy: Policy) -> Survey:
    """Count in one pass. frame: src, dst and perhaps weight (float).

    Raises ConfigError: ids are missing; weights are faulty and the policy is to raise.
    """
    loop = F.col("src") == F.col("dst")
    faults = _faults(frame)
    good = _good(frame)
    word = F.xxhash64(*frame.columns)
    counted = {
        "null_ids": F.col("src").isNull() | F.col("dst").isNull(),
        "self_loops": good & loop,
        "kept": kept(frame, policy),
        **{f"{name}_weights": fault for name, fault in faults.items()},
    }
    row = frame.agg(
        F.count("*").alias("rows"),
        # Two sums of 31 bits each, so that no number of rows overflows 63 bits.
        F.sum(F.shiftrightunsigned(word, 33)).alias("high"),
        F.sum(word.bitwiseAND(F.lit(0x7FFFFFFF))).alias("low"),
        *(F.count(F.when(condition, True)).alias(name) for name, condition in counted.items()),
    ).head()
    assert row is not None
    found = row.asDict()
    if found["null_ids"]:
        raise ConfigError(f"{found['null_ids']} of {found['rows']} edges have no src or no dst; leave them out.")
    report = GraphReport.from_dict(found)
    if policy.bad_weights == "raise":
        refuse_bad_weights(report)
    loops = report.self_loops if policy.self_loops == "keep" else 0
    arcs = found["kept"] if policy.directed else 2 * found["kept"] - loops
    inputs = f"{report.rows}-{found['high'] or 0:x}-{found['low'] or 0:x}-{','.join(t for _, t in frame.dtypes)}"
    return Survey(report, found["kept"], arcs, inputs)


def _faults(frame: DataFrame) -> dict[str, Column]:
    """What may be wrong with a weight, the first that fits; empty without weights."""
    if "weight" not in frame.columns:
        return {}
    weight = F.col("weight")
    here = weight.isNotNull() & ~F.isnan(weight)
    return {
        "null": weight.isNull(),
        "nan": F.isnan(weight),
        "negative": here & (weight < 0),
        "zero": here & (weight == 0),
        "infinite": here & (weight == F.lit(float("inf"))),
    }


def _good(frame: DataFrame) -> Column:
    if "weight" not in frame.columns:
        return F.lit(True)
    weight = F.col("weight")
    good = (weight > 0) & (weight < F.lit(float("inf")))  # NaN is larger than infinity
    return F.coalesce(good, F.lit(False))


def kept(frame: DataFrame, policy: Policy) -> Column:
    """Whether a row becomes an edge."""
    good = _good(frame)
    return good if policy.self_loops == "keep" else good & (F.col("src") != F.col("dst"))
