from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from node2vec import corpus_job, skipgram_job, small_graph_job, walk_job
from node2vec.estimator import Node2Vec
from node2vec.workflow import STAGES, Workflow, model_at
from sparkdl.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from node2vec.model import Node2VecModel

pytestmark = pytest.mark.spark

N2V = Node2Vec(dimensions=8, num_walks=3, walk_length=8, window=3, partitions=2, episodes=2, seed=4)
WORK = {
    "index": (small_graph_job, "build"),
    "walk": (walk_job, "_plan"),
    "prepare": (corpus_job, "_run"),
    "train": (skipgram_job, "_run"),
}  # what each stage calls only if it has something to do


def write_edges(folder: Path) -> str:
    """Two rings of six nodes and an edge between them."""
    rings = [(f"{side}{n}", f"{side}{(n + 1) % 6}") for side in "ab" for n in range(6)]
    path = folder / "edges.csv"
    path.write_text("src,dst\n" + "".join(f"{a},{b}\n" for a, b in [*rings, ("a0", "b0")]))
    return str(path)


def vectors_of(model: Node2VecModel) -> dict[str, list[float]]:
    return {row["id"]: row["vector"] for row in model.vectors.collect()}


def breaking(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        raise ClusterError(f"{name} is broken")

    monkeypatch.setattr(*WORK[name], broken)


@pytest.fixture
def edges(tmp_path: Path) -> str:
    return write_edges(tmp_path)


@pytest.fixture(scope="module")
def done(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the edges, and in `root` all stages."""
    folder = tmp_path_factory.mktemp("done")
    Workflow(N2V, folder / "root", verbose=False).run(write_edges(folder))
    return folder


def test_steps_are_the_stages_and_what_they_return(done: Path) -> None:
    results = dict(Workflow(N2V, done / "root", verbose=False).steps(str(done / "edges.csv")))
    assert tuple(results) == STAGES
    assert results["index"].nodes == 12
    assert results["walk"].count() == 36
    assert (results["prepare"].num_parts, results["prepare"].num_episodes) == (2, 2)
    assert results["train"]._shape == (12, 8)  # no pass over vectors that have just been written
    vectors = vectors_of(results["train"])
    assert sorted(vectors) == sorted(f"{side}{n}" for side in "ab" for n in range(6))
    assert {len(vector) for vector in vectors.values()} == {8}
    assert np.isfinite(list(vectors.values())).all()


def test_fit_is_the_workflow(done: Path, tmp_path: Path) -> None:
    model = N2V.fit(str(done / "edges.csv"), root=tmp_path)
    assert vectors_of(model) == vectors_of(model_at(model.vectors.sparkSession, done / "root"))


def test_what_is_done_is_not_done_again(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in STAGES:
        breaking(monkeypatch, name)
    model = Workflow(N2V, done / "root", verbose=False).run(str(done / "edges.csv"))
    assert len(vectors_of(model)) == 12


@pytest.mark.parametrize("broken", STAGES)
def test_a_run_that_broke_off_goes_on(
    done: Path, edges: str, tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = Workflow(N2V, tmp_path / "root", verbose=False)
    names: list[str] = []
    with monkeypatch.context() as patch:
        breaking(patch, broken)
        with pytest.raises(ClusterError, match=f"{broken} is broken"):
            names.extend(name for name, _ in workflow.steps(edges))
    assert names == list(STAGES[: STAGES.index(broken)])
    for name in names:
        breaking(monkeypatch, name)
    model = workflow.run(edges)
    assert vectors_of(model) == vectors_of(model_at(model.vectors.sparkSession, done / "root"))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda workflow: workflow.walk(), "holds no graph"),
        (lambda workflow: workflow.prepare(), "holds no complete walks: run `node2vec walk` there first"),
        (lambda workflow: workflow.train(), "holds no corpus"),
    ],
)
def test_a_missing_stage_is_named(
    spark: SparkSession, tmp_path: Path, call: Callable[[Workflow], object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        call(Workflow(N2V, tmp_path, verbose=False))


def test_other_settings_of_a_later_stage_share_the_earlier_ones(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(done / "root", tmp_path / "root")
    other = Workflow(Node2Vec(**{**vars(N2V), "dimensions": 4}), tmp_path / "root", verbose=False)
    with pytest.raises(ConfigError, match="vectors was made with dimensions=8, this run has dimensions=4"):
        other.run(str(done / "edges.csv"))
    shutil.rmtree(tmp_path / "root" / "vectors")
    for name in ("index", "walk", "prepare"):
        breaking(monkeypatch, name)
    assert {len(vector) for vector in vectors_of(other.run(str(done / "edges.csv"))).values()} == {4}


def test_an_earlier_model_is_where_the_vectors_begin(done: Path, tmp_path: Path, spark: SparkSession) -> None:
    old = model_at(spark, done / "root")
    far = type(old)(old.vectors.selectExpr("id", "transform(vector, x -> float(100)) as vector"), {})
    shutil.copytree(done / "root", tmp_path / "root", ignore=shutil.ignore_patterns("vectors"))
    new = Workflow(N2V, tmp_path / "root", verbose=False).train(init=far)
    assert np.min(list(vectors_of(new).values())) > 50


def test_the_model_at_a_root(done: Path, tmp_path: Path, spark: SparkSession) -> None:
    assert model_at(spark, done / "root").settings["dimensions"] == 8
    assert model_at(spark, done / "root", {"mine": 1}).settings == {"mine": 1}
    with pytest.raises(ConfigError, match="vectors holds no complete vectors: run `node2vec train` there first"):
        model_at(spark, tmp_path)
