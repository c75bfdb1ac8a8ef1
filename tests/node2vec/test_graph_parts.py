from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node2vec import alias, edge_filter, graph_parts
from node2vec.graph_files import read_header
from node2vec.transition import noise_floors
from sparkdl.errors import ConfigError
from tests.node2vec import part_graphs


@settings(max_examples=25, deadline=None)
@given(
    num_nodes=st.integers(1, 40),
    num_edges=st.integers(0, 200),
    directed=st.booleans(),
    weighted=st.booleans(),
    num_parts=st.integers(1, 9),
    num_blocks=st.integers(1, 5),
    hub_bytes=st.integers(0, 3000),
    seed=st.integers(0, 99),
)
def test_every_row_is_in_its_part_and_in_all_if_a_hub(
    num_nodes: int,
    num_edges: int,
    directed: bool,
    weighted: bool,
    num_parts: int,
    num_blocks: int,
    hub_bytes: int,
    seed: int,
) -> None:
    graph = part_graphs.skewed(num_nodes, num_edges, directed, weighted, seed)
    tables = None if graph.weights is None else alias.build(graph.indptr, graph.weights)
    header = part_graphs.header(graph)
    cut = graph_parts.layout(header, graph_parts.blocks_of(graph, num_blocks), num_parts, hub_bytes=hub_bytes)
    own = 0
    for number in range(num_parts):
        part = graph_parts.cut_part(graph_parts.blocks_of(graph, num_blocks), cut, number)
        own += part.num_own
        assert len(part.indptr) == part.num_own + cut.num_hubs + 1
        for vertex in range(num_nodes):
            row = graph_parts.row_of(part, vertex)
            assert (row >= 0) == (vertex % num_parts == number or vertex < cut.num_hubs)
            if row >= 0:
                start, stop = part.indptr[row], part.indptr[row + 1]
                there = slice(graph.indptr[vertex], graph.indptr[vertex + 1])
                assert part.indices[start:stop].tolist() == graph.indices[there].tolist()
                if tables is not None:
                    assert part.weights is not None
                    assert part.cuts is not None
                    assert part.others is not None
                    assert part.totals is not None
                    assert part.weights[start:stop].tolist() == graph.weights_of(vertex).tolist()
                    assert part.cuts[start:stop].tolist() == tables.cuts[there].tolist()
                    assert part.others[start:stop].tolist() == tables.others[there].tolist()
                    assert part.totals[row] == tables.totals[vertex]
    assert own == num_nodes


@pytest.mark.parametrize(("weighted", "bytes_per_row", "bytes_per_arc"), [(False, 8, 4), (True, 16, 16)])
def test_as_many_hubs_as_the_budget_holds(weighted: bool, bytes_per_row: int, bytes_per_arc: int) -> None:
    graph = part_graphs.skewed(weighted=weighted)
    header = part_graphs.header(graph)
    for wanted in (0, 1, 50, 70, graph.num_nodes):
        budget = wanted * bytes_per_row + int(graph.indptr[wanted]) * bytes_per_arc
        for hub_bytes, expected in ((budget, wanted), (budget - 1, max(0, wanted - 1))):
            cut = graph_parts.layout(header, graph_parts.blocks_of(graph, 4), 2, hub_bytes=hub_bytes)
            assert cut.num_hubs == expected


@pytest.mark.parametrize("directed", [False, True])
def test_filters_of_the_parts_unite_to_the_filter_of_the_graph(directed: bool) -> None:
    graph = part_graphs.skewed(directed=directed)
    cut = graph_parts.layout(part_graphs.header(graph), [], 3, bits_per_edge=10.0)
    partial = []
    for number in range(3):
        partial.append(np.zeros(cut.num_words, np.uint64))
        graph_parts.add_edges(partial[-1], graph_parts.cut_part(graph_parts.blocks_of(graph), cut, number))
    whole = edge_filter.build(graph.indptr, graph.indices, directed, 10.0)
    assert (partial[0] != whole).any()
    assert np.bitwise_or.reduce(partial).tolist() == whole.tolist()
    found = graph_parts.filter_of(graph_parts.blocks_of(graph, 5), cut)
    assert found is not None
    assert found.tolist() == whole.tolist()


def test_only_whole_undirected_graphs_are_symmetric() -> None:
    header = part_graphs.header(part_graphs.skewed())
    for found, symmetric in (
        (header, True),
        (replace(header, directed=True), False),
        (replace(header, settings={"max_degree": 10}), False),
        (replace(header, settings={"max_degree": None}), True),
    ):
        assert graph_parts.layout(found, [], 2).symmetric is symmetric


@pytest.mark.parametrize("weighted", [False, True])
def test_a_saved_part_is_the_part(tmp_path: Path, weighted: bool) -> None:
    graph = part_graphs.skewed(weighted=weighted)
    graph.save(tmp_path / "graph", borders=[0, 40, 41])
    header = read_header(tmp_path / "graph")
    blocks = list(graph_parts.saved_blocks(tmp_path / "graph", header))
    assert [block.first for block in blocks] == [0, 40, 41]
    cut = graph_parts.layout(header, blocks, 3, hub_bytes=4000)
    words = graph_parts.filter_of(blocks, cut)
    folder, path = tmp_path / "parts" / "part", tmp_path / "parts" / "filter"
    assert graph_parts.open_part(folder, path, cut, 1) is None
    graph_parts.save_part(folder, blocks, cut, 1)
    assert graph_parts.open_part(folder, path, cut, 1) is None
    graph_parts.save_filter(path, blocks, cut)
    graph_parts.save_part(folder, blocks, cut, 1)  # twice, as two tasks on one host may
    assert sorted(entry.name for entry in folder.parent.iterdir()) == ["filter", "part"]
    floors, floors_path = None, None
    if weighted:
        floors_path = folder.parent / "floors"
        assert graph_parts.open_part(folder, path, cut, 1, floors_path) is None
        graph_parts.save_floors(floors_path, blocks, 0.5)
        assert graph.weights is not None
        floors = noise_floors(graph.indptr, graph.weights, 0.5)
    found = graph_parts.open_part(folder, path, cut, 1, floors_path)
    assert found is not None
    expected = graph_parts.cut_part(blocks, cut, 1, words, floors)
    for name, value, other in zip(found._fields, found, expected, strict=True):
        assert np.array_equal(value, other), name
        if isinstance(value, np.ndarray):
            assert value.dtype == other.dtype
            assert not value.flags.writeable
            assert not other.flags.writeable
    for other_cut, number in ((cut, 2), (cut._replace(num_hubs=0), 1)):
        assert graph_parts.open_part(folder, path, other_cut, number) is None


def test_a_part_without_arcs_can_be_saved(tmp_path: Path) -> None:
    graph = part_graphs.skewed(3, 0)
    cut = graph_parts.layout(part_graphs.header(graph), [], 5)
    for number in (1, 4):
        graph_parts.save_part(tmp_path / str(number), graph_parts.blocks_of(graph), cut, number)
        graph_parts.save_filter(tmp_path / "filter", graph_parts.blocks_of(graph), cut)
        part = graph_parts.open_part(tmp_path / str(number), tmp_path / "filter", cut, number)
        assert part is not None
        assert part.indptr.tolist() == [0] * (part.num_own + 1)


def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    graph = part_graphs.skewed()
    cut = graph_parts.layout(part_graphs.header(graph), [], 2)

    def broken() -> object:
        yield from graph_parts.blocks_of(graph)
        raise OSError("the store is gone")

    with pytest.raises(OSError, match="gone"):
        graph_parts.save_part(tmp_path / "part", broken(), cut, 0)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="gone"):
        graph_parts.save_filter(tmp_path / "filter", broken(), cut)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_stamps_differ_and_are_file_names() -> None:
    cut = graph_parts.layout(part_graphs.header(part_graphs.skewed()), [], 2)
    stamps = {
        graph_parts.stamp("0a", cut),
        graph_parts.stamp("0b", cut),
        graph_parts.stamp("0a", cut._replace(num_parts=3)),
        graph_parts.stamp("0a", cut._replace(num_hubs=3)),
        graph_parts.stamp("0a", cut._replace(num_words=3)),
    }
    assert len(stamps) == 5
    assert all(name.replace("-", "").isalnum() for name in stamps)
    with pytest.raises(ConfigError, match="one part at least"):
        graph_parts.layout(part_graphs.header(part_graphs.skewed()), [], 0)
