from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node2vec import host_graph
from node2vec.graph import Graph
from node2vec.walks import Tables, prepare
from sparkdl.errors import ClusterError
from tests.node2vec.indexed_graphs import random_edges, save_indexed


def opened(root: Path, local: Path, graph: Graph, **options: Any) -> tuple[Graph, Tables]:
    return host_graph.open_graph(f"{root}/graph", str(local), graph.fingerprint(), **options)


def assert_same(found: tuple[Graph, Tables], graph: Graph, tables: Tables) -> None:
    for ours, theirs in zip((found[0].indptr, found[0].indices, found[0].weights, *found[1]),
                            (graph.indptr, graph.indices, graph.weights, *tables), strict=True):  # fmt: skip
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.dtype == theirs.dtype
            assert type(ours) is np.ndarray
            np.testing.assert_array_equal(ours, theirs)
            assert not ours.flags.writeable


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("directed", [False, True])
def test_the_same_as_in_memory(tmp_path: Path, parts: int, weighted: bool, directed: bool) -> None:
    edges = random_edges(60, 300, seed=parts, weighted=weighted)
    _, graph = save_indexed(tmp_path / "root", edges, parts, directed)
    options: dict[str, Any] = {"extend": weighted, "gamma": 0.5, "bits_per_edge": 7.0}
    first = opened(tmp_path / "root", tmp_path / "local", graph, **options)
    assert_same(first, graph, prepare(graph, **options))
    assert first[0].directed == directed
    (home,) = (tmp_path / "local").iterdir()
    assert (home / "arrays").exists() == (parts > 1)  # one local part is mapped where it is


def test_files_are_made_once_and_again_for_other_settings(tmp_path: Path) -> None:
    _, graph = save_indexed(tmp_path / "root", random_edges(60, 300, seed=0, weighted=True), parts=2)
    opened(tmp_path / "root", tmp_path / "local", graph)
    (home,) = (tmp_path / "local").iterdir()
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*.npy")}
    opened(tmp_path / "root", tmp_path / "local", graph)
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*.npy")} == before
    opened(tmp_path / "root", tmp_path / "local", graph, bits_per_edge=3.0, extend=True, gamma=1.5)
    added = {path.relative_to(home).as_posix() for path in home.rglob("*.npy")}
    added -= {path.relative_to(home).as_posix() for path in before}
    assert added == {"filter-3/words.npy", "floors-1.5/floors.npy"}


def test_another_graph_gets_other_files(tmp_path: Path) -> None:
    graphs = [save_indexed(tmp_path / f"{n}", random_edges(60, 300, seed=n), parts=2)[1] for n in range(2)]
    for number, graph in enumerate(graphs):
        found = opened(tmp_path / f"{number}", tmp_path / "local", graph)
        assert_same(found, graph, prepare(graph))
    assert len(list((tmp_path / "local").iterdir())) == 2
    with pytest.raises(ClusterError, match="it was indexed anew meanwhile, or the path is not shared"):
        opened(tmp_path / "0", tmp_path / "local", graphs[1])


def test_a_copy_that_breaks_off_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, graph = save_indexed(tmp_path / "root", random_edges(60, 300, seed=0), parts=3)
    read = host_graph.read_rows

    def third_is_lost(files: Any, path: str) -> Any:
        if path.endswith("part-00002.arrow"):
            raise OSError("lost")
        return read(files, path)

    monkeypatch.setattr(host_graph, "read_rows", third_is_lost)
    with pytest.raises(OSError, match="lost"):
        opened(tmp_path / "root", tmp_path / "local", graph)
    assert not list((tmp_path / "local").rglob("*.npy"))
    monkeypatch.setattr(host_graph, "read_rows", read)
    assert_same(opened(tmp_path / "root", tmp_path / "local", graph), graph, prepare(graph))


def make_slowly(home: str, log: str) -> None:
    def make(aside: str) -> None:
        with open(log, "a") as file:
            file.write("made\n")
        time.sleep(0.5)
        np.save(os.path.join(aside, "x.npy"), np.arange(3))

    assert host_graph._once(home, "x", make)["x"].tolist() == [0, 1, 2]


def test_one_process_makes_what_the_others_wait_for(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    processes = [context.Process(target=make_slowly, args=(str(tmp_path), str(log))) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert log.read_text() == "made\n"
    assert not [path for path in tmp_path.iterdir() if path.name not in ("log", "x", "x.lock")]


def test_a_graph_without_arcs(tmp_path: Path) -> None:
    graph = Graph(np.zeros(4, np.int64), np.empty(0, np.int32))
    graph.save(tmp_path / "root" / "graph", borders=[0, 2])
    assert_same(opened(tmp_path / "root", tmp_path / "local", graph), graph, prepare(graph))
