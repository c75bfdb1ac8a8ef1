from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from node2vec import evaluate, graph_job, stage
from node2vec.root_evaluation import classify, predict_links, read_labels
from node2vec.workflow import model_at
from sparkdl.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HELD = [(side * 100 + a, side * 100 + a + 1) for side in (0, 1) for a in range(0, 10, 2)]
LONELY = 999  # its only edge leads to 0; it has no vector


def cliques() -> list[tuple[int, int]]:
    """Nodes 0..9 and 100..109, each ten all joined."""
    return [(side * 100 + a, side * 100 + b) for side in (0, 1) for a, b in itertools.combinations(range(10), 2)]


@pytest.fixture(scope="module")
def root(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cliques without the held edges, and vectors that say little more than which clique a node is in."""
    folder = tmp_path_factory.mktemp("evaluated")
    kept = [edge for edge in cliques() if edge not in HELD]
    graph_job.index(spark, spark.createDataFrame([*kept, (0, LONELY)], "src int, dst int"), folder)
    ids = {row["index"]: row["id"] for row in spark.read.parquet(str(folder / "ids")).collect()}
    stage.begin(folder, "vectors", {"dimensions": 2})
    numbers = [index for index, name in sorted(ids.items()) if name != LONELY]
    numbers = numbers[::3] + numbers[1::3] + numbers[2::3]  # rows of vectors come in any order
    vectors = [[0.01 * (ids[index] % 7), 1.0] if ids[index] < 100 else [1.0, 0.01] for index in numbers]
    table = {"index": pa.array(numbers, pa.int32()), "vector": pa.array(vectors, pa.list_(pa.float32()))}
    pq.write_table(pa.table(table), folder / "vectors" / "part-00000.parquet")
    stage.finish(folder, "vectors")
    return folder


def write(folder: Path, text: str) -> Path:
    (folder / "labels").write_text(text)
    return folder / "labels"


def test_lines_of_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "# id label\n7 red\n\n8\tred,blue\n7;green\r\n")
    assert read_labels(path) == {"7": {"red", "green"}, "8": {"red", "blue"}}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("7 red\n8\n", "line 2 of .*, '8', has no label"), ("# nothing\n", "there are no labels in")],
)
def test_lines_that_are_none_of_labels(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_labels(write(tmp_path, text))


def test_labels_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the labels cannot be read"):
        read_labels(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="the labels cannot be read"):
        read_labels(tmp_path / "binary")


@pytest.mark.spark
def test_cliques_are_classified(spark: SparkSession, root: Path, tmp_path: Path) -> None:
    nodes = [*range(10), *range(100, 110)]
    path = write(tmp_path, "".join(f"{n} {'left' if n < 100 else 'right'}\n" for n in [*nodes, LONELY, 555]))
    scores = classify(spark, root, path, train_share=0.6, splits=3)
    assert (scores.used, scores.given) == (20, 22)
    assert scores.values["micro_f1"] == scores.values["macro_f1"] == 1.0
    crossed = write(tmp_path, "".join(f"{n} {'even' if n % 2 else 'odd'}\n" for n in nodes))
    assert classify(spark, root, crossed).values["micro_f1"] < 0.8
    with pytest.raises(ConfigError, match=r"none of the 1 ids in .* has a vector, as '999'"):
        classify(spark, root, write(tmp_path, f"{LONELY} left\n"))


@pytest.mark.spark
def test_held_edges_are_told_from_none(spark: SparkSession, root: Path) -> None:
    extra = [(5, 5), (0, 555), (1, 0), (LONELY, 1)]  # a self-loop, an unknown node, one again, one without a vector
    scores = predict_links(spark, root, spark.createDataFrame(HELD + extra, "src int, dst int"))
    assert (scores.used, scores.given) == (10, 14)
    assert scores.values["cosine_auc"] == 1.0
    assert scores.values["auc"] > 0.9


@pytest.mark.spark
def test_the_pairs_are_rows_of_the_vectors(spark: SparkSession, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def remember(*arguments: Any, **options: Any) -> dict[str, float]:
        seen.extend(arguments)
        return {}

    monkeypatch.setattr(evaluate, "link_prediction", remember)
    predict_links(spark, root, spark.createDataFrame(HELD, "src int, dst int"))
    ids, vectors = model_at(spark, root).to_numpy()
    matrix, *pairs, _ = seen
    assert np.array_equal(matrix, vectors)
    held, no_edges, learned, other_no_edges = ({tuple(sorted(pair)) for pair in ids[rows].tolist()} for rows in pairs)
    assert held == set(HELD)
    assert len(learned) == 10
    assert learned < set(cliques()) - held
    assert len(no_edges | other_no_edges) == 20
    assert all(a < 100 <= b for a, b in no_edges | other_no_edges)


@pytest.mark.spark
def test_edges_of_the_graph_are_refused(spark: SparkSession, root: Path) -> None:
    known = [*HELD, (2, 1), (100, 109)]
    with pytest.raises(ConfigError, match=r"2 of the 12 edges are in the graph .* trained on them: hold edges out"):
        predict_links(spark, root, spark.createDataFrame(known, "src int, dst int"))
    with pytest.raises(ConfigError, match="none of the 1 edges joins two nodes that have vectors"):
        predict_links(spark, root, spark.createDataFrame([(0, LONELY)], "src int, dst int"))
