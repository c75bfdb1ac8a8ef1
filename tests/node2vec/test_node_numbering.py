from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from node2vec.node_numbering import arcs_before, join_empty, partition_keys


@settings(deadline=None)
@given(arcs=st.lists(st.integers(0, 9), max_size=20), cuts=st.lists(st.integers(0, 20), max_size=4))
def test_arcs_before_runs_on_from_batch_to_batch(arcs: list[int], cuts: list[int]) -> None:
    borders = [0, *sorted(min(cut, len(arcs)) for cut in cuts), len(arcs)]
    whole = pa.RecordBatch.from_pydict({"id": pa.array(arcs, pa.int64()), "arcs": pa.array(arcs, pa.int64())})
    batches = [whole.slice(a, b - a) for a, b in itertools.pairwise(borders)]
    before = [value for batch in arcs_before(batches) for value in batch.column(2).to_pylist()]
    assert before == [sum(arcs[:place]) for place in range(len(arcs))]


@settings(deadline=None)
@given(arcs=st.lists(st.sampled_from([None, 0, 0, 3]), min_size=1, max_size=12).filter(lambda a: 3 in a))
def test_parts_without_arcs_or_vertices_are_joined(arcs: list[int | None]) -> None:
    """Wanted part p starts at vertex 10 p; None: no vertex falls into it."""
    cuts = [(part, 10 * part, count) for part, count in enumerate(arcs) if count is not None]
    borders, number_of = join_empty(len(arcs), cuts)
    assert borders[0] == 0
    assert len(borders) == arcs.count(3)
    for part, _, count in cuts:
        inside = int(np.searchsorted(borders, 10 * part, "right")) - 1
        if count:
            assert number_of[part] == inside
    assert sorted({number_of[part] for part, _, count in cuts if count}) == list(range(len(borders)))


@pytest.mark.spark
def test_keys_reach_the_partition_of_their_number(spark: SparkSession) -> None:
    keys = partition_keys(spark, 11)
    frame = spark.createDataFrame([(key,) for key in keys], "key int").repartition(11, "key")
    found = {row[0]: row[1] for row in frame.select("key", F.spark_partition_id()).collect()}
    assert [found[key] for key in keys] == list(range(11))
