from __future__ import annotations

import json
from dataclasses import fields

from node2vec.graph_report import _MEANING, GraphReport


def test_every_count_has_its_meaning() -> None:
    assert set(_MEANING) == {f.name for f in fields(GraphReport)}


def test_survives_json() -> None:
    report = GraphReport(rows=12, nodes=3, nan_weights=2)
    values = json.loads(json.dumps(report.to_dict()))
    assert GraphReport.from_dict({**values, "of a later version": 1}) == report


def test_the_table_shows_counts_with_separators_and_no_faults_that_are_absent() -> None:
    text = str(GraphReport(rows=1_234_567, nodes=3, nan_weights=2))
    assert text.splitlines()[0] == "1,234,567  rows              edges as given"
    assert "nan_weights" in text
    assert "zero_weights" not in text
    assert "        0  sinks" in text
