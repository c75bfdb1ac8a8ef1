"""Law 6 for the replicated home: the job's walks are those of the twin, however the work is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from node2vec import replicated_walk_job, walk_files
from node2vec.graph import Graph
from node2vec.replicated_walk_job import Part, num_tasks, write_walks
from node2vec.walk_request import WalkRequest, cut, walks_between
from node2vec.walks import prepare, walk
from tests.node2vec.indexed_graphs import random_edges, save_indexed


def twin(graph: Graph, request: WalkRequest, starts: Any = None) -> Any:
    """One walk at a time, on the whole graph in memory, without the filter."""
    num_starts = graph.num_nodes if starts is None else len(starts)
    tables = prepare(graph, extend=request.extend, gamma=request.gamma, bits_per_edge=None)
    made = walk(
        graph,
        *walks_between(0, num_starts * request.num_walks, starts, graph.num_nodes),
        request.walk_length,
        request.p,
        request.q,
        request.seed,
        tables=tables,
        lanes=False,
    )
    return walk_files.batch_of(*made).column(0)


def run(
    spark: SparkSession,
    root: Path,
    graph: Graph,
    request: WalkRequest,
    parts: int,
    starts: Any = None,
    out: str = "out",
) -> list[Part]:
    (root / out).mkdir(exist_ok=True)
    total = request.num_walks * (graph.num_nodes if starts is None else len(starts))
    return write_walks(
        spark.sparkContext,
        f"{root}/graph",
        graph.fingerprint(),
        graph.num_nodes,
        f"{root}/{out}",
        request.fields(),
        starts,
        cut(total, parts),
    )


CASES: dict[str, dict[str, Any]] = {
    "undirected": {},
    "directed": {"directed": True},
    "weighted": {"weighted": True},
    "weighted, directed": {"weighted": True, "directed": True},
    "node2vec+": {"weighted": True, "extend": True},
}


@pytest.mark.spark
@pytest.mark.parametrize("case", CASES)
def test_the_job_equals_its_twin(spark: SparkSession, tmp_path: Path, case: str) -> None:
    options = {"weighted": False, "directed": False, "extend": False} | CASES[case]
    edges = random_edges(200, 900, seed=7, weighted=options["weighted"])
    request = WalkRequest(p=0.5, q=2.0, num_walks=3, walk_length=17, seed=5, extend=options["extend"], gamma=0.1)
    for parts, files in ((1, 1), (2, 1), (7, 3)):
        root = tmp_path / f"{parts}"
        _, graph = save_indexed(root, edges, files, options["directed"])
        expected = twin(graph, request)
        made = run(spark, root, graph, request, parts)
        assert [part.name for part in made] == [walk_files.part_name(number) for number in range(parts)]
        assert sum(part.num_walks for part in made) == len(expected) == 3 * graph.num_nodes
        assert sum(part.num_nodes for part in made) == len(expected.flatten())
        found = [walk for batch in walk_files.read(root / "out") for walk in batch.to_pylist()]
        assert found == expected.to_pylist()  # parts are in order of the walk ids
        assert walk_files.walks_hash(walk_files.read(root / "out")) == walk_files.walks_hash([expected])
    if options["directed"]:
        assert min(map(len, found)) == 1 < max(map(len, found)) == 17  # sinks end walks, which are kept


@pytest.mark.spark
def test_some_start_nodes(spark: SparkSession, tmp_path: Path) -> None:
    _, graph = save_indexed(tmp_path, random_edges(200, 900, seed=7))
    starts = np.array([3, 40, 41], np.int32)
    request = WalkRequest(num_walks=4, walk_length=9)
    run(spark, tmp_path, graph, request, 5, starts)
    expected = twin(graph, request, starts)
    assert [walk for batch in walk_files.read(tmp_path / "out") for walk in batch.to_pylist()] == expected.to_pylist()


@pytest.mark.spark
def test_parts_that_run_again_replace_themselves(spark: SparkSession, tmp_path: Path) -> None:
    _, graph = save_indexed(tmp_path, random_edges(200, 900, seed=7))
    request = WalkRequest(num_walks=2, walk_length=9)
    contents = []
    for _ in range(2):
        run(spark, tmp_path, graph, request, 3)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 3


@pytest.mark.spark
def test_files_of_a_host_can_be_kept(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, graph = save_indexed(tmp_path, random_edges(200, 900, seed=7), parts=2)
    conf = spark.sparkContext._conf
    monkeypatch.setattr(conf, "get", lambda key, default=None: str(tmp_path / "host") if "hostDir" in key else default)
    monkeypatch.setattr(spark.sparkContext, "getConf", lambda: conf)
    run(spark, tmp_path, graph, WalkRequest(num_walks=1, walk_length=3), 2)
    (home,) = (tmp_path / "host").iterdir()
    assert graph.fingerprint() in home.name


def test_a_large_task_writes_several_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, graph = save_indexed(tmp_path, random_edges(200, 900, seed=7))
    request = WalkRequest(num_walks=1, walk_length=10)
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(replicated_walk_job, "MOST_NODES", 300)
    task = replicated_walk_job._Task(
        f"{tmp_path}/graph", graph.fingerprint(), graph.num_nodes, f"{tmp_path}/out", request.fields(), None, 12.0, None
    )
    part = replicated_walk_job._write_part(task, str(tmp_path / "local"), 0, 0, 100)
    assert part.num_walks == 100
    batches = list(walk_files.read(tmp_path / "out"))
    assert [len(batch) for batch in batches] == [30, 30, 30, 10]
    assert [walk for batch in batches for walk in batch.to_pylist()] == twin(graph, request).to_pylist()[:100]


def test_how_many_tasks() -> None:
    assert num_tasks(1, slots=8) == 1
    assert num_tasks(10 * 2**18, slots=8) == 10  # a task that is too small costs more than its walks
    assert num_tasks(10**9, slots=8) == 60  # none holds more than a row group
    assert num_tasks(10**8, slots=8) == 32
