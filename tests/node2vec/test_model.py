from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pyspark.sql import DataFrame, SparkSession

from node2vec import word2vec_files
from node2vec.model import Node2VecModel
from sparkdl.errors import ConfigError

pytestmark = pytest.mark.spark

WORDS = ["Valjean", "Å", "日本", "Javert", "7", "😀", "a,b"]
MATRIX = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
KINDS: dict[str, list[Any]] = {
    "string": WORDS,
    "bigint": [5, -3, 1 << 60, 7, 0, 11, 12],
    "int": [5, -3, 1 << 30, 7, 0, 11, 12],
    "tinyint": [5, -3, 100, 7, 0, 11, 12],
}


def frame(spark: SparkSession, ids: list[Any], matrix: npt.NDArray[np.float32], kind: str = "string") -> DataFrame:
    rows = list(zip(ids, matrix.tolist(), strict=True))
    return spark.createDataFrame(rows, f"id {kind}, vector array<float>").repartition(3)


@pytest.fixture
def model(spark: SparkSession) -> Node2VecModel:
    return Node2VecModel(frame(spark, WORDS, MATRIX), {"p": 0.5}, (7, 5))


def cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    return float(a.astype(float) @ b / np.linalg.norm(a.astype(float)) / np.linalg.norm(b.astype(float)))


def nearest(query: npt.NDArray[np.float32], left_out: list[str], top: int) -> list[str]:
    others = [(-cosine(query, row), word) for word, row in zip(WORDS, MATRIX, strict=True) if word not in left_out]
    return [word for _, word in sorted(others)[:top]]


@pytest.mark.parametrize("kind", ["string", "bigint", "tinyint"])
def test_ids_come_back_in_their_own_type(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    ids = KINDS[kind]
    model = Node2VecModel(frame(spark, ids, MATRIX, kind))
    assert (len(model), model.dimensions) == (7, 5)
    model.save(tmp_path / "model")
    loaded = Node2VecModel.load(tmp_path / "model", spark)
    for one in (model, loaded):
        assert one.vectors.dtypes == [("id", kind), ("vector", "array<float>")]
        assert {row["id"]: row["vector"] for row in one.vectors.collect()} == dict(
            zip(ids, MATRIX.tolist(), strict=True)
        )
    np.testing.assert_array_equal(loaded.vector(ids[2]), MATRIX[2])
    assert loaded.most_similar(ids[2], 2).dtypes == [("id", kind), ("similarity", "float")]
    found = loaded.most_similar(ids[2]).collect()
    assert {row["id"] for row in found} == {*ids} - {ids[2]}
    names, matrix = loaded.to_numpy()
    assert dict(zip(names.tolist(), matrix.tolist(), strict=True)) == dict(zip(ids, MATRIX.tolist(), strict=True))


def test_load_finds_the_session_and_the_settings(model: Node2VecModel, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    loaded = Node2VecModel.load(tmp_path / "model")
    assert (loaded.settings, loaded.shape) == ({"p": 0.5}, (7, 5))
    with pytest.raises(ConfigError, match="holds a model already"):
        model.save(tmp_path / "model")
    model.save(tmp_path / "model", overwrite=True)


def test_vector_and_similarity(model: Node2VecModel) -> None:
    vector = model.vector("日本")
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(vector, MATRIX[2])
    assert model.similarity("Å", "日本") == pytest.approx(cosine(MATRIX[1], MATRIX[2]), abs=1e-6)
    assert model.similarity("7", "7") == pytest.approx(1, abs=1e-6)


def test_most_similar_of_an_id_and_of_a_vector(model: Node2VecModel) -> None:
    found = model.most_similar("Javert", 3).collect()
    assert [row["id"] for row in found] == nearest(MATRIX[3], ["Javert"], 3)
    assert [row["similarity"] for row in found] == pytest.approx(
        [model.similarity("Javert", row["id"]) for row in found], abs=0
    )
    for vector in (MATRIX[3], MATRIX[3].tolist(), MATRIX[3].astype(np.float64)):
        assert [row["id"] for row in model.most_similar(vector, 3).collect()] == nearest(MATRIX[3], [], 3)
    assert [row["id"] for row in model.most_similar("Javert", 100).collect()] == nearest(MATRIX[3], ["Javert"], 100)


def test_most_similar_of_several(model: Node2VecModel) -> None:
    unit = MATRIX / np.linalg.norm(MATRIX, axis=1, keepdims=True)
    both = model.most_similar(["Valjean", "7"], 4).collect()
    assert [row["id"] for row in both] == nearest(unit[0] + unit[4], ["Valjean", "7"], 4)
    apart = model.most_similar((["Valjean", MATRIX[4]], ["Å"]), 4).collect()
    assert [row["id"] for row in apart] == nearest(unit[0] + unit[4] - unit[1], ["Valjean", "Å"], 4)
    assert [row["id"] for row in model.most_similar(([], ["Å"]), 2).collect()] == nearest(-unit[1], ["Å"], 2)


def test_equal_vectors_are_in_the_order_of_their_ids(spark: SparkSession) -> None:
    ids = list(range(40, 0, -1))
    model = Node2VecModel(frame(spark, ids, np.tile(MATRIX[0], (40, 1)), "int"))
    assert [row["id"] for row in model.most_similar(3, 5).collect()] == [1, 2, 4, 5, 6]
    pairs = model.similar_pairs(2).where("id = 2").collect()
    assert [(row["similar_id"]) for row in pairs] == [1, 3]


def test_similar_pairs_are_those_of_most_similar(model: Node2VecModel) -> None:
    pairs = model.similar_pairs(3)
    assert pairs.dtypes == [("id", "string"), ("similar_id", "string"), ("similarity", "float")]
    found = pairs.collect()
    assert len(found) == 21
    for word in WORDS[:2]:
        expected = [(row["id"], row["similarity"]) for row in model.most_similar(word, 3).collect()]
        assert [(row["similar_id"], row["similarity"]) for row in found if row["id"] == word] == expected


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("Cosette", "id 'Cosette' not in the model"),
        (["Valjean", "x", "y"], "2 ids 'x', 'y' not in the model"),
        (7, "7 is no id of this model: its ids are strings"),
        (True, "True is no id"),
        (MATRIX[0, :4], r"shape \(4,\) is given; the model's have 5"),
        (np.full(5, np.nan), "5 finite numbers"),
        (np.zeros(5), "zero"),
        ((["Å"], ["Å"]), "cancel each other"),
        (None, "None can not be looked for"),
        ([], "can not be looked for"),
        (([], []), "points nowhere"),
        (0.5, "can not be looked for"),
    ],
)
def test_what_cannot_be_looked_for(model: Node2VecModel, query: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        model.most_similar(query)


def test_integers_of_any_size_are_looked_up(spark: SparkSession) -> None:
    model = Node2VecModel(frame(spark, KINDS["int"], MATRIX, "int"))
    np.testing.assert_array_equal(model.vector(np.int64(-3)), MATRIX[1])
    for unknown in (1 << 40, 1 << 70, -4):
        with pytest.raises(ConfigError, match=f"id {unknown} not in the model"):
            model.vector(unknown)
    for wrong in ("5", 5.0, True):
        with pytest.raises(ConfigError, match="its ids are integers"):
            model.vector(wrong)


@pytest.mark.parametrize("top", [0, -1, 1.5, True, None])
def test_top_must_be_a_number(model: Node2VecModel, top: Any) -> None:
    for call in (lambda: model.most_similar("Å", top), lambda: model.similar_pairs(top)):
        with pytest.raises(ConfigError, match="at least 1"):
            call()


def test_transform(spark: SparkSession, model: Node2VecModel) -> None:
    rows = [("Å", 1), ("Cosette", 2), (None, 3), ("Å", 4), ("7", 5)]
    given = spark.createDataFrame(rows, "`my.name` string, __node2vec_id int")
    found = model.transform(given, "my.name", "v")
    assert found.columns == ["my.name", "__node2vec_id", "v"]
    vectors = {"Å": MATRIX[1].tolist(), "7": MATRIX[4].tolist()}
    assert sorted((row[1], row[0], row[2]) for row in found.collect()) == [
        (number, name, vectors.get(str(name))) for name, number in rows
    ]


def test_transform_of_the_models_own_ids(model: Node2VecModel) -> None:
    found = model.transform(model.vectors.select("id"))
    assert sorted(map(tuple, found.collect())) == sorted(map(tuple, model.vectors.collect()))


def test_transform_refuses(spark: SparkSession, model: Node2VecModel) -> None:
    given = spark.createDataFrame([("a", 1, 0.5)], "id string, number int, vector float")
    for arguments, words in (
        (("node", "v"), "no column 'node'; its columns are id, number, vector"),
        (("id", "vector"), "a column 'vector'"),
        (("number", "v"), "the column number is int, the model's ids are string: cast it"),
        (("vector", "v"), "the column vector is float"),
    ):
        with pytest.raises(ConfigError, match=words):
            model.transform(given, *arguments)


@pytest.mark.parametrize("binary", [False, True])
def test_the_word2vec_format(model: Node2VecModel, tmp_path: Path, binary: bool) -> None:
    path = tmp_path / "vectors.txt"
    model.save_word2vec_format(path, binary)
    found = {
        word: row.tolist()
        for ids, rows in word2vec_files.read(path, binary)
        for word, row in zip(ids, rows, strict=True)
    }
    assert found == dict(zip(WORDS, MATRIX.tolist(), strict=True))


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("kind", ["string", "bigint"])
def test_the_word2vec_format_and_back(spark: SparkSession, tmp_path: Path, kind: str, binary: bool) -> None:
    path, integers = tmp_path / "vectors.gz", kind == "bigint"
    Node2VecModel(frame(spark, KINDS[kind], MATRIX, kind), shape=(7, 5)).save_word2vec_format(path, binary)
    root = tmp_path / "root" if binary else None
    loaded = Node2VecModel.load_word2vec_format(path, binary, integers, spark, root)
    assert loaded.vectors.dtypes == [("id", kind), ("vector", "array<float>")]
    assert tuple(loaded.shape) == (7, 5)
    assert {row["id"]: row["vector"] for row in loaded.vectors.collect()} == dict(
        zip(KINDS[kind], MATRIX.tolist(), strict=True)
    )
    assert loaded.most_similar(KINDS[kind][0], 3).count() == 3


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"2 2\na 1 2\na 3 4\n", "id 'a' is there 2 times"),
        (b"2 2\na 1 2\nb nan 4\n", "b"),
        (b"2 2\na 1 2\n", "ends before vector 2"),
        (b"\x89PNG\r\n", "no word2vec file: its first line"),
    ],
)
def test_files_that_hold_no_model(spark: SparkSession, tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "vectors").write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        Node2VecModel.load_word2vec_format(tmp_path / "vectors", spark=spark, root=tmp_path / "root")
    assert list(tmp_path.glob("root/*")) == []


def test_the_word2vec_format_holds_no_whitespace(spark: SparkSession, tmp_path: Path) -> None:
    model = Node2VecModel(frame(spark, ["a", "b c"], MATRIX[:2]))
    with pytest.raises(ConfigError, match="id 'b c' has whitespace in it"):
        model.save_word2vec_format(tmp_path / "vectors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["string", "int"])
def test_npy(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    model = Node2VecModel(frame(spark, KINDS[kind], MATRIX, kind))
    for name in ("x", "y.npy"):
        matrix_path, ids_path = model.save_npy(tmp_path / "new" / name)
        assert (matrix_path, ids_path) == tuple(f"{tmp_path}/new/{name[0]}{end}" for end in (".npy", ".ids.npy"))
        ids, matrix = np.load(ids_path), np.load(matrix_path)
        assert matrix.dtype == np.float32
        assert dict(zip(ids.tolist(), matrix.tolist(), strict=True)) == dict(
            zip(KINDS[kind], MATRIX.tolist(), strict=True)
        )


def test_npy_refuses_what_numpy_would_change(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ends in a zero character"):
        Node2VecModel(frame(spark, ["a\0"], MATRIX[:1])).save_npy(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_frame_that_gives_other_rows_each_time_is_told(spark: SparkSession, tmp_path: Path) -> None:
    for shape in ((6, 5), (8, 5)):
        model = Node2VecModel(frame(spark, WORDS, MATRIX), shape=shape)
        for call in (model.to_numpy, lambda model=model: model.save_npy(tmp_path / "x")):
            with pytest.raises(ConfigError, match=f"were {shape[0]} when they were first counted, and now 7"):
                call()
    assert list(tmp_path.iterdir()) == []


def test_gensim(spark: SparkSession, model: Node2VecModel) -> None:
    pytest.importorskip("gensim")
    keyed = model.to_keyed_vectors()
    np.testing.assert_array_equal(keyed["Å"], MATRIX[1])
    for query in ({"positive": ["Javert"]}, {"positive": ["Javert", "7"], "negative": ["Å"]}):
        sides = (query["positive"], query.get("negative", []))
        found = [(row["id"], row["similarity"]) for row in model.most_similar(sides, 4).collect()]
        expected = keyed.most_similar(**query, topn=4)
        assert [name for name, _ in found] == [name for name, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], abs=1e-6)
    numbers = Node2VecModel(frame(spark, KINDS["int"], MATRIX, "int")).to_keyed_vectors()
    np.testing.assert_array_equal(numbers[-3], MATRIX[1])


def test_faiss(model: Node2VecModel) -> None:
    pytest.importorskip("faiss")
    index, ids = model.to_faiss()
    query = model.vector("Javert")
    cosines, places = index.search((query / np.linalg.norm(query))[None], 4)
    assert [str(name) for name in ids[places[0]]] == nearest(MATRIX[3], [], 4)
    assert cosines[0, 0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("module", "method", "words"),
    [
        ("gensim.models", "to_keyed_vectors", "to_keyed_vectors needs gensim, .* pip install gensim"),
        ("faiss", "to_faiss", "to_faiss needs faiss-cpu, .* pip install faiss-cpu"),
    ],
)
def test_what_is_not_installed(
    model: Node2VecModel, monkeypatch: pytest.MonkeyPatch, module: str, method: str, words: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)
    with pytest.raises(ConfigError, match=words):
        getattr(model, method)()


def test_bad_vectors_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="given as list"):
        Node2VecModel([("a", [1.0])])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no column 'id'"):
        Node2VecModel(spark.createDataFrame([(1, [1.0])], "node int, vector array<float>"))
    rows = spark.createDataFrame([("a", [1.0, 2.0]), ("b", [float("nan"), 2.0])], "id string, vector array<float>")
    model = Node2VecModel(rows)  # nothing has been read yet
    for call in (
        lambda: model.dimensions,
        lambda: model.save(tmp_path / "model"),
        lambda: model.similar_pairs(),
        lambda: model.most_similar("a"),
        lambda: model.save_word2vec_format(tmp_path / "vectors"),
    ):
        with pytest.raises(ConfigError, match="the vector of id 'b' holds NaN"):
            call()
    assert list(tmp_path.iterdir()) == []
