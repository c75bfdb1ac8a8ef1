from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import SparkSession

from node2vec.edge_cleaning import Policy
from node2vec.edge_survey import kept, survey_edges

pytestmark = pytest.mark.spark

NAN, INFINITY = float("nan"), float("inf")
ROWS: list[tuple[Any, ...]] = [
    (1, 2, 1.0), (1, 1, 2.0), (2, 2, -1.0), (3, 4, 0.0), (3, 4, -0.0), (3, 4, NAN), (3, 4, None), (3, 4, INFINITY),
    (3, 4, -INFINITY), (5, 6, 3.0), (6, 5, 3.0),
]  # fmt: skip


def test_every_row_is_in_one_class(spark: SparkSession) -> None:
    frame = spark.createDataFrame(ROWS, "src int, dst int, weight float")
    survey = survey_edges(frame, Policy(bad_weights="drop"))
    report = survey.report
    assert report.weight_faults == {"zero": 2, "negative": 2, "infinite": 1, "nan": 1, "null": 1}
    assert (report.rows, report.self_loops, survey.kept, survey.arcs) == (11, 1, 4, 7)
    dropping = survey_edges(frame, Policy(bad_weights="drop", self_loops="drop"))
    assert (dropping.report, dropping.kept, dropping.arcs) == (report, 3, 6)
    assert survey_edges(frame, Policy(bad_weights="drop", directed=True)).arcs == 4
    assert frame.where(kept(frame, Policy(bad_weights="drop"))).count() == 4


def test_the_fingerprint_is_of_rows_not_of_their_order(spark: SparkSession) -> None:
    policy = Policy(bad_weights="drop")

    def inputs(rows: list[tuple[Any, ...]], schema: str = "src int, dst int, weight float") -> str:
        return survey_edges(spark.createDataFrame(rows, schema).repartition(3), policy).inputs

    assert inputs(ROWS) == inputs(ROWS[::-1])
    others = [
        inputs(ROWS),
        inputs(ROWS[1:]),
        inputs([(2, 1, 1.0), *ROWS[1:]]),
        inputs([*ROWS, ROWS[0]]),
        inputs(ROWS, "src long, dst int, weight float"),
    ]
    assert len(set(others)) == 5
