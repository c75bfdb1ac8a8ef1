from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from node2vec.model_files import MANIFEST, Target, file_system, load, read_manifest
from node2vec.vector_survey import Shape
from sparkdl.errors import ClusterError, ConfigError

pytestmark = pytest.mark.spark

SHAPE = Shape(3, 2)


def vectors(spark: SparkSession, shift: float = 0) -> DataFrame:
    rows = [(name, [float(number + shift), -0.5]) for number, name in enumerate(["a", "b c", "日本"])]
    return spark.createDataFrame(rows, "id string, vector array<float>").repartition(2)


def save(spark: SparkSession, path: Path, shift: float = 0, overwrite: bool = False) -> None:
    Target(vectors(spark, shift), {"p": 0.5}, path, overwrite).write(SHAPE)


def rows(frame: DataFrame) -> list[tuple[Any, ...]]:
    return sorted(map(tuple, frame.collect()))


def test_what_is_saved_is_loaded(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "a model" / "100%25"
    save(spark, path)
    frame, settings, shape = load(spark, path)
    assert frame.dtypes == [("id", "string"), ("vector", "array<float>")]
    assert rows(frame) == rows(vectors(spark))
    assert (settings, shape) == ({"p": 0.5}, SHAPE)
    assert sorted(file.name for file in path.iterdir()) == [MANIFEST, "vectors"]


def test_a_directory_that_exists_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    save(spark, tmp_path)  # an empty one is as good as none
    with pytest.raises(ConfigError, match="holds a model already: pass overwrite=True"):
        save(spark, tmp_path)


def test_overwriting(spark: SparkSession, tmp_path: Path) -> None:
    for shift in range(4):
        save(spark, tmp_path, shift, overwrite=True)
        assert rows(load(spark, tmp_path)[0]) == rows(vectors(spark, shift))
        assert len(list(tmp_path.iterdir())) == 2


def test_what_is_overwritten_counts_until_the_new_one_is_whole(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(spark, tmp_path)

    def broken(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("node2vec.model_files.replaced", broken)
        with pytest.raises(OSError, match="no space"):
            save(spark, tmp_path, shift=1, overwrite=True)
    assert rows(load(spark, tmp_path)[0]) == rows(vectors(spark))
    save(spark, tmp_path, shift=2, overwrite=True)  # what the broken one left is no hindrance
    assert rows(load(spark, tmp_path)[0]) == rows(vectors(spark, 2))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_save_that_broke_off_is_no_model(spark: SparkSession, tmp_path: Path) -> None:
    save(spark, tmp_path)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(ConfigError, match=r"holds no model: it has no model\.json, which save"):
        load(spark, tmp_path)
    with pytest.raises(ConfigError, match="what is left of a save that broke off already: pass overwrite=True"):
        save(spark, tmp_path)
    save(spark, tmp_path, overwrite=True)
    assert rows(load(spark, tmp_path)[0]) == rows(vectors(spark))


def test_vectors_that_cannot_be_computed_leave_nothing(spark: SparkSession, tmp_path: Path) -> None:
    wrong = vectors(spark).selectExpr("id", "transform(vector, x -> cast(raise_error('gone') as float)) as vector")
    with pytest.raises(Exception, match="gone"):
        Target(wrong, {}, tmp_path / "model", False).write(SHAPE)
    assert not (tmp_path / "model" / "vectors").exists()
    assert not (tmp_path / "model" / MANIFEST).exists()


def test_foreign_directories_are_left_alone(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"holds thesis\.tex, which no model wrote: save to another"):
        save(spark, tmp_path, overwrite=True)
    with pytest.raises(ConfigError, match=r"thesis\.tex is a file"):
        save(spark, tmp_path / "thesis.tex", overwrite=True)
    with pytest.raises(ConfigError, match="holds no model"):
        load(spark, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_model_is_not_overwritten_by_what_is_read_from_it(spark: SparkSession, tmp_path: Path) -> None:
    save(spark, tmp_path / "my model")
    frame, _, _ = load(spark, tmp_path / "my model")
    with pytest.raises(ConfigError, match=r"the vectors are read from .*my model, which overwriting deletes"):
        Target(frame.where("id != 'a'"), {}, tmp_path / "my model", True)
    Target(frame, {}, tmp_path / "my model 2", True).write(SHAPE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "damaged: it is no JSON"),
        ('{"kind": "node2vec', "damaged: it is no JSON"),
        ("[]", "something else than a model"),
        ('{"num_nodes": 3}', "something else than a model"),
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"dimensions": "2"}, "dimensions is '2'"),
        ({"num_vectors": None}, "num_vectors is None"),
        ({"id": "double"}, "id is 'double'"),
        ({"vectors": "../other"}, "vectors is '../other'"),
        ({"files": {"../x": 3}}, "files is"),
        ({"settings": 5}, "settings is 5"),
    ],
)
def test_damaged_manifests(spark: SparkSession, tmp_path: Path, content: Any, words: str) -> None:
    manifest = {
        "kind": "node2vec model", "format": 1, "num_vectors": 1, "dimensions": 1, "id": "int", "vectors": "vectors",
        "files": {"part-0.parquet": 5}, "settings": {},
    }  # fmt: skip
    (tmp_path / MANIFEST).write_text(content if isinstance(content, str) else json.dumps({**manifest, **content}))
    with pytest.raises(ConfigError, match=words):
        read_manifest(*file_system(str(tmp_path)), str(tmp_path))


def test_damaged_files(spark: SparkSession, tmp_path: Path) -> None:
    save(spark, tmp_path / "whole")
    for words, harm in (
        (r"vectors/part-\S+ is missing", Path.unlink),
        (r"has 3 bytes instead of \d+", lambda file: file.write_text("PAR")),
    ):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", copy)
        harm(next((copy / "vectors").glob("part-*")))
        with pytest.raises(ConfigError, match=words):
            load(spark, copy)


def test_settings_must_be_json(spark: SparkSession, tmp_path: Path) -> None:
    Target(vectors(spark), {"p": np.float64(0.5), "n": np.int32(3), "deep": [{"a": None}]}, tmp_path, False).write(
        SHAPE
    )
    assert load(spark, tmp_path)[1] == {"p": 0.5, "n": 3, "deep": [{"a": None}]}
    for wrong in (object(), float("nan"), {1, 2}):
        with pytest.raises(ConfigError, match="settings cannot be saved as JSON"):
            Target(vectors(spark), {"wrong": wrong}, tmp_path / "other", False)


def test_executors_that_write_elsewhere(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node2vec.model_files.spark_path", lambda name: f"file://{tmp_path}/elsewhere")
    with pytest.raises(ClusterError, match="the driver does not see it"):
        save(spark, tmp_path / "model")


def test_unknown_file_systems() -> None:
    with pytest.raises(ConfigError, match="on no file system that pyarrow can open"):
        file_system("nowhere://bucket/model")
