from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from node2vec.vectors_output import FORMS, output_at
from sparkdl.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class FakeModel:
    """Writes what it is asked to write as text, perhaps half of it."""

    def __init__(self, text: str, fails: bool = False, vectors: DataFrame | None = None):
        self.text, self.fails, self.vectors = text, fails, vectors

    def save_npy(self, path: str) -> None:
        self._write(path)
        self._write(path.removesuffix(".npy") + ".ids.npy")

    def save_word2vec_format(self, path: str, binary: bool = False) -> None:
        self._write(path, " binary" if binary else " text")

    def _write(self, path: str, form: str = "") -> None:
        Path(path).write_text(self.text + form)
        if self.fails:
            raise ConfigError("an id holds a blank")


def model(*arguments: Any, **options: Any) -> Any:
    return FakeModel(*arguments, **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("ending", "form"), sorted(FORMS.items()))
def test_the_ending_says_the_form(tmp_path: Path, ending: str, form: str) -> None:
    assert output_at(tmp_path / f"v.1.{ending}").form == form
    assert names(tmp_path) == []  # what was made to try the place is gone


@pytest.mark.parametrize(("name", "form"), [("v.txt.gz", "text"), ("v.bin.zst", "binary")])
def test_word2vec_files_may_be_compressed(tmp_path: Path, name: str, form: str) -> None:
    assert output_at(tmp_path / name).form == form


@pytest.mark.parametrize(
    "name", ["vectors", "vectors.csv", "parquet", "a.txt/vectors", ".gz", "v.gz", "v.npy.gz", "v.TXT"]
)
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"the ending of .* does not say how .*\.parquet, \.txt"):
        output_at(tmp_path / name)


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    place = tmp_path / "v.txt"
    place.write_text("mine")
    with pytest.raises(ConfigError, match=r"v\.txt exists and would be replaced: pass --overwrite"):
        output_at(place)
    output_at(place, overwrite=True).write(model("new"))
    assert place.read_text() == "new text"
    assert names(tmp_path) == ["v.txt"]


def test_a_place_that_cannot_be_written_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"nothing can be written to .*/file: "):
        output_at(tmp_path / "file" / "v.txt")


def test_all_files_or_none(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    output = output_at(folder / "v.npy")
    with pytest.raises(ConfigError, match="an id holds a blank"):
        output.write(model("half", fails=True))
    assert names(folder) == []
    output.write(model("whole"))
    assert names(folder) == ["v.ids.npy", "v.npy"]
    with pytest.raises(ConfigError, match="blank"):
        output.write(model("half", fails=True))
    assert (folder / "v.npy").read_text() == "whole"
    (folder / "v.npy").unlink()
    with pytest.raises(ConfigError, match=r"v\.ids\.npy exists and would be replaced"):
        output_at(folder / "v.npy")
    output_at(folder / "v.bin").write(model("new"))
    assert (folder / "v.bin").read_text() == "new binary"


def test_the_file_that_was_asked_for_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    monkeypatch.setattr(
        "node2vec.vectors_output._replace", lambda files, new, path, old: moved.append(path.rpartition("/")[2])
    )
    monkeypatch.setattr(
        FakeModel, "save_npy", lambda self, path: [Path(path + end).touch() for end in ("", ".0", ".1")]
    )
    output_at(tmp_path / "v.npy").write(model(""))
    assert moved == ["v.npy.0", "v.npy.1", "v.npy"]


def test_what_was_there_comes_back_if_it_cannot_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from node2vec import vectors_output

    files, _ = vectors_output.file_system(tmp_path)

    class Stubborn:
        """Moves nothing that is named new."""

        def get_file_info(self, path: str) -> Any:
            return files.get_file_info(path)

        def move(self, source: str, target: str) -> None:
            if source.endswith("new"):
                raise OSError("the disk is full")
            files.move(source, target)

    (tmp_path / "v").write_text("mine")
    with pytest.raises(OSError, match="full"):
        vectors_output._replace(Stubborn(), str(tmp_path / "new"), str(tmp_path / "v"), str(tmp_path / "old"))
    assert (tmp_path / "v").read_text() == "mine"
    assert names(tmp_path) == ["v"]


@pytest.mark.spark
@pytest.mark.parametrize("wrong", ["new york", "", "a\u00a0b"])
def test_ids_that_are_no_words(spark: SparkSession, tmp_path: Path, wrong: str) -> None:
    ids = spark.createDataFrame([("fine",), (wrong,)], "id string")
    with pytest.raises(ConfigError, match="in the word2vec format a word ends"):
        output_at(tmp_path / "v.bin").refuse_ids(ids)
    output_at(tmp_path / "v.npy").refuse_ids(ids)
    output_at(tmp_path / "v.txt").refuse_ids(ids.limit(1))
    output_at(tmp_path / "v.txt").refuse_ids(spark.range(3).select("id"))


@pytest.mark.spark
def test_a_directory_of_parquet(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = spark.createDataFrame([("a", [1.0, 2.0]), ("b", [3.0, 4.0])], "id string, vector array<float>")
    place = tmp_path / "v.parquet"
    output_at(place).write(model("", vectors=vectors.withColumnRenamed("id", "id")))
    table = pq.read_table(place)
    assert sorted(table.to_pylist(), key=lambda row: row["id"]) == [
        {"id": "a", "vector": [1.0, 2.0]},
        {"id": "b", "vector": [3.0, 4.0]},
    ]
    assert (place / "_SUCCESS").is_file()
    output_at(place, overwrite=True).write(model("", vectors=vectors.limit(1)))
    assert pq.read_table(place).num_rows == 1
    assert names(tmp_path) == ["v.parquet"]

    def nothing(path: str) -> str:
        return f"file://{tmp_path}/on-another-host{path}"

    monkeypatch.setattr("node2vec.vectors_output.spark_path", nothing)
    with pytest.raises((ClusterError, OSError)):
        output_at(tmp_path / "other.parquet").write(model("", vectors=vectors))
    assert not (tmp_path / "other.parquet").exists()
