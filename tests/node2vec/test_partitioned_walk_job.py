from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from node2vec import partitioned_walk_job, spark_shuffles, walk_files
from node2vec.graph import Graph
from node2vec.walk_request import WalkRequest
from sparkdl.errors import ClusterError, ConfigError
from tests.node2vec import part_graphs

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parent.parent.parent


def lists(graph: Graph, request: WalkRequest, starts: Any = None) -> list[list[int]]:
    walks, lengths = part_graphs.twin(graph, request, starts)
    return [walk[:length].tolist() for walk, length in zip(walks, lengths, strict=True)]


def saved(graph: Graph, folder: Path, num_files: int = 3) -> tuple[str, str]:
    graph.save(folder, borders=[graph.num_nodes * i // num_files for i in range(num_files)])
    return str(folder), graph.fingerprint()


def written(folder: Path) -> list[list[int]]:
    return [walk for chunk in walk_files.read(folder) for walk in chunk.to_pylist()]


@pytest.mark.spark
@pytest.mark.parametrize(
    ("directed", "weighted", "parts", "plus"),
    [(False, False, 1, {}), (False, True, 3, {"extend": True, "gamma": 0.5}), (True, False, 2, {})],
)
def test_the_walks_are_the_twins(
    spark: SparkSession, tmp_path: Path, directed: bool, weighted: bool, parts: int, plus: dict[str, Any]
) -> None:
    graph = part_graphs.skewed(directed=directed, weighted=weighted)
    request = {"p": 0.5, "q": 2.0, "num_walks": 3, "walk_length": 8, "seed": 11, **plus}
    path, fingerprint = saved(graph, tmp_path / "graph")
    files = partitioned_walk_job.write_walks(
        spark.sparkContext, path, fingerprint, str(tmp_path / "walks"), request,
        parts=parts, hub_bytes=2000, bits_per_edge=2.0, walkers=400 // parts,
    )  # fmt: skip
    expected = lists(graph, WalkRequest(**request))
    assert written(tmp_path / "walks") == expected
    assert sum(file.num_walks for file in files) == len(expected)
    assert sum(file.num_nodes for file in files) == sum(map(len, expected))
    assert [file.name for file in files] == [walk_files.part_name(i) for i in range(len(files))]


@pytest.mark.spark
def test_chosen_starts_with_the_public_calls(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark_shuffles, "works", lambda sc: False)
    graph = part_graphs.skewed()
    starts = np.array([7, 3, 150, 8, 0], np.int32)
    request = {"p": 4.0, "q": 0.5, "num_walks": 2, "walk_length": 5}
    path, fingerprint = saved(graph, tmp_path / "graph", 1)
    partitioned_walk_job.write_walks(
        spark.sparkContext, path, fingerprint, str(tmp_path / "walks"), request, starts, parts=2, hub_bytes=0
    )
    assert written(tmp_path / "walks") == lists(graph, WalkRequest(**request), starts)


@pytest.mark.spark
def test_refusals(spark: SparkSession, tmp_path: Path) -> None:
    path, fingerprint = saved(part_graphs.skewed(weighted=True), tmp_path / "graph")
    arguments = (spark.sparkContext, path)
    with pytest.raises(ConfigError, match="parts=0"):
        partitioned_walk_job.write_walks(*arguments, fingerprint, str(tmp_path / "walks"), {}, parts=0)
    with pytest.raises(ClusterError, match="index it again"):
        partitioned_walk_job.write_walks(*arguments, "0" * 16, str(tmp_path / "walks"), {})


@pytest.mark.spark
@pytest.mark.parametrize("kill_at", [4])
def test_a_killed_executor_changes_nothing(tmp_path: Path, kill_at: int) -> None:
    graph = part_graphs.skewed()
    request = {"p": 0.25, "q": 4.0, "num_walks": 3, "walk_length": 10, "seed": 3}
    path, _ = saved(graph, tmp_path / "graph")
    options = {"parts": 2, "hub_bytes": 0, "bits_per_edge": 12.0}
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.node2vec.walk_cluster_run", "--graph", path, "--folder", str(tmp_path),
            "--request", json.dumps(request), "--options", json.dumps(options), "--kill-at", str(kill_at),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["killed"] == 1
    assert report["supersteps"] > kill_at
    assert json.loads((tmp_path / "walks.json").read_text()) == lists(graph, WalkRequest(**request))
