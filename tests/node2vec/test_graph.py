from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node2vec.edge_cleaning import clean
from node2vec.graph import Graph
from sparkdl.errors import ConfigError
from tests.node2vec.small_edges import EdgeList, edge_lists

GRAPH = Graph(np.array([0, 2, 3, 3, 4]), np.array([1, 3, 0, 0], np.int32), np.array([1, 2, 3, 4], np.float32), True)


def test_views() -> None:
    assert (GRAPH.num_nodes, GRAPH.num_arcs) == (4, 4)
    assert GRAPH.degrees.tolist() == [2, 1, 0, 1]
    assert GRAPH.neighbors(0).tolist() == [1, 3]
    assert GRAPH.weights_of(3).tolist() == [4]
    assert Graph(GRAPH.indptr, GRAPH.indices).weights_of(0).tolist() == [1, 1]
    assert np.shares_memory(GRAPH.rows(1, 4).neighbors, GRAPH.indices)
    assert GRAPH.rows(1, 4).offsets.tolist() == [0, 1, 1, 2]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edges=edge_lists(bad=False), cuts=st.sets(st.integers(1, 9)), directed=st.booleans())
def test_comes_back_however_it_was_cut(tmp_path: Path, edges: EdgeList, cuts: set[int], directed: bool) -> None:
    _, graph, report = clean(*edges.arrays(), directed=directed)
    borders = [0, *sorted(c for c in cuts if c < graph.num_nodes)]
    graph.save(tmp_path, report.to_dict(), borders)
    found = Graph.open(tmp_path)
    assert np.array_equal(found.indptr, graph.indptr)
    assert np.array_equal(found.indices, graph.indices)
    assert (found.weights is None) == (graph.weights is None)
    if graph.weights is not None:
        assert np.array_equal(found.weights, graph.weights)  # type: ignore[arg-type]
    assert found.directed == directed
    assert found.fingerprint() == graph.fingerprint()


def test_one_part_is_the_file_itself(tmp_path: Path) -> None:
    GRAPH.save(tmp_path)
    found = Graph.open(tmp_path.as_uri())
    assert not any(a.flags.writeable or a.flags.owndata for a in (found.indptr, found.indices, found.weights))  # type: ignore[union-attr]


def test_a_save_that_breaks_off_leaves_no_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    GRAPH.save(tmp_path)

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("node2vec.graph.write_rows", full)
    with pytest.raises(OSError, match="disk full"):
        GRAPH.save(tmp_path)
    with pytest.raises(ConfigError, match="holds no graph"):
        Graph.open(tmp_path)
