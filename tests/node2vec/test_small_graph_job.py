"""What one task makes of text, beside what many tasks make of it; typed frames are in ``test_graph_job``."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from node2vec import graph_job, small_graph_job
from sparkdl.errors import ConfigError

pytestmark = pytest.mark.spark

IDS = st.sampled_from(["1", "2", "30", "-4", "0", "7"])
WORDS = st.sampled_from(["1", "2", "30", "007", "-0", "a", "\xe4", "9999999999999999999", '"b, c"', ""])
WEIGHTS = st.sampled_from(["1", "0.5", "2e0", ".5", "+3.", "", "NaN", "-inf", "-1", "0", "much", "1e400"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A CSV file, with or without a header, in which anything may be wrong."""
    columns = [draw(st.sampled_from([IDS, IDS, WORDS]))] * 2
    columns += [draw(st.sampled_from([WEIGHTS, st.sampled_from(["1", "2.5"])]))] * draw(st.integers(0, 1))
    rows = draw(st.lists(st.tuples(*columns), max_size=12))
    head = draw(st.sampled_from(["", "src,dst,weight\n", "from,to,w\n"]))
    return (head if len(columns) > 2 else head.replace(",weight", "").replace(",w", "")) + "".join(
        f"{','.join(row)}\n" for row in rows
    )


@settings(max_examples=6, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts(), bad_weights=st.sampled_from(["raise", "drop"]), directed=st.booleans())
@example(text='"b, c",a,1\n,\u00e4,2\n', bad_weights="drop", directed=True)
@example(text='"b, c",a,1e400\n007,\u00e4,2\n1,1,\n', bad_weights="drop", directed=False)
def test_one_task_makes_what_many_make(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, text: str, bad_weights: str, directed: bool
) -> None:
    folder = tmp_path_factory.mktemp("run")
    (folder / "edges.csv").write_text(text)
    found = []
    for name, most in (("one", small_graph_job.MOST_TEXT), ("many", -1)):
        root = folder / name
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(small_graph_job, "MOST_TEXT", most)
            if most < 0:
                patched.setattr(small_graph_job, "MOST_ROWS", -1)
            try:
                graph_job.index(spark, folder / "edges.csv", root, bad_weights=bad_weights, directed=directed)
            except ConfigError as error:
                assert not root.exists()
                found.append(str(error))
                continue
        ids = pq.read_table(root / "ids").sort_by("index")
        files = {path.name: path.read_bytes() for path in (root / "graph").iterdir()}
        found.append(str((ids.schema.types, ids.to_pydict(), sorted(files.items()))))
    assert found[0] == found[1]


def test_it_is_one_task(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("src,dst\n1,2\n2,3\n")
    spark.sparkContext.setJobGroup("small", "small")
    try:
        graph_job.index(spark, tmp_path / "edges.csv", tmp_path / "run")
        jobs = spark.sparkContext.statusTracker().getJobIdsForGroup("small")
    finally:
        spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)  # type: ignore[arg-type]
        spark.sparkContext.setLocalProperty("spark.job.description", None)  # type: ignore[arg-type]
    assert len(jobs) == 3  # the listing, the first line, the graph


def test_a_refusal_leaves_what_was_at_the_root(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("1,2,x\n")
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ConfigError, match="1 of 1 weights are not numbers, for example 'x'"):
        graph_job.index(spark, tmp_path / "edges.csv", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edges.csv", "notes"]
