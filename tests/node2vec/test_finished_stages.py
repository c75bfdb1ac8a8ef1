from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from node2vec import finished_stages
from node2vec.estimator import Node2Vec
from node2vec.finished_stages import corpus_is_done, vectors_are_done
from node2vec.workflow import Workflow
from sparkdl.errors import ConfigError
from tests.node2vec.test_workflow import write_edges

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CORPUS: dict[str, Any] = {"partitions": 2, "episodes": 3, "min_count": 1, "sample": 0.1}
TRAINING: dict[str, Any] = {
    "dimensions": 8, "window": 3, "negative": 5, "ns_exponent": 0.75, "alpha": 0.025, "min_alpha": 0.0001, "epochs": 1,
    "negatives": "pair", "seed": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def done(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with all stages, made by the stages themselves: what they write down is what is compared."""
    folder = tmp_path_factory.mktemp("finished")
    n2v = Node2Vec(**CORPUS, **TRAINING, num_walks=2, walk_length=6)
    Workflow(n2v, folder / "root", verbose=False).run(write_edges(folder))
    return folder / "root"


@pytest.fixture
def root(done: Path, tmp_path: Path) -> Path:
    shutil.copytree(done, tmp_path / "root")
    return tmp_path / "root"


@pytest.mark.spark
def test_what_was_made_is_done(done: Path) -> None:
    assert corpus_is_done(done, **CORPUS, seed=5)
    assert corpus_is_done(done, **{**CORPUS, "partitions": None, "episodes": None}, seed=5)
    assert vectors_are_done(done, TRAINING)


@pytest.mark.spark
@pytest.mark.parametrize(
    "other", [{"partitions": 3}, {"episodes": 2}, {"min_count": 2}, {"sample": 0.0}, {"seed": 6}], ids=str
)
def test_another_corpus_is_not(done: Path, other: dict[str, Any]) -> None:
    assert not corpus_is_done(done, **{**CORPUS, "seed": 5, **other})


@pytest.mark.spark
@pytest.mark.parametrize("name", list(TRAINING))
def test_other_vectors_are_not(done: Path, name: str) -> None:
    other = "shared" if name == "negatives" else TRAINING[name] * 2
    assert not vectors_are_done(done, {**TRAINING, name: other})


@pytest.mark.spark
def test_other_walks_make_another_corpus(root: Path) -> None:
    manifest = root / "walks" / "_manifest.json"
    walks = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**walks, "p": 2.0}))
    assert not corpus_is_done(root, **CORPUS, seed=5)
    manifest.write_text(json.dumps(walks))
    assert corpus_is_done(root, **CORPUS, seed=5)
    first = min((root / "walks").glob("part-*.parquet"))
    first.rename(first.with_name("part-99999.parquet"))
    assert not corpus_is_done(root, **CORPUS, seed=5)


@pytest.mark.spark
def test_more_files_than_are_read_here(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished_stages, "MOST_FOOTERS", 0)
    assert not corpus_is_done(done, **CORPUS, seed=5)


@pytest.mark.spark
def test_unfinished_stages_are_not_done(root: Path) -> None:
    (root / "vectors" / "_SUCCESS").unlink()
    assert not vectors_are_done(root, TRAINING)
    (root / "corpus" / "corpus.json").unlink()
    assert not corpus_is_done(root, **CORPUS, seed=5)
    with pytest.raises(ConfigError, match="holds no corpus"):
        vectors_are_done(root, TRAINING)
    (root / "walks" / "_SUCCESS").unlink()
    with pytest.raises(ConfigError, match="run `node2vec walk` there first"):
        corpus_is_done(root, **CORPUS, seed=5)
