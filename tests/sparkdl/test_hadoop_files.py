"""Files on a local path and behind another scheme, which Hadoop's viewfs gives without a cluster."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from sparkdl.hadoop_files import HadoopFiles
from tests.sparkdl.engines import other_scheme

pytestmark = pytest.mark.spark


@pytest.fixture(params=["plain", "file:", "viewfs:"])
def root(request: pytest.FixtureRequest, spark: SparkSession, tmp_path: Path) -> str:
    if request.param == "viewfs:":
        return other_scheme(spark, tmp_path)
    return f"file://{tmp_path}" if request.param == "file:" else str(tmp_path)


def test_what_is_written_can_be_listed_read_and_deleted(
    root: str, spark: SparkSession, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = HadoopFiles(spark.sparkContext)
    aside = tmp_path_factory.mktemp("aside")
    (aside / "some").write_bytes(b"x" * 100)
    assert files.list(f"{root}/a") == {}
    assert not files.exists(f"{root}/a")
    files.make_directory(f"{root}/a/b")
    files.make_directory(f"{root}/a/b")
    files.upload(str(aside / "some"), f"{root}/a/b/data")
    files.write_text(f"{root}/a/text", "first")
    files.write_text(f"{root}/a/text", "second, ünï")
    files.write_text(f"{root}/a/empty", "")
    assert files.list(f"{root}/a") == {"b": None, "empty": 0, "text": 13}
    assert files.tree(f"{root}/a") == {"b/data": 100, "empty": 0, "text": 13}
    assert files.read_text(f"{root}/a/text") == "second, ünï"
    assert files.exists(f"{root}/a/b/data")
    files.upload(str(aside / "some"), f"{root}/a/empty")  # over what is there
    assert files.tree(f"{root}/a")["empty"] == 100
    with files.local_copy(f"{root}/a/b/data") as local:
        assert Path(local).read_bytes() == b"x" * 100
        assert (local == f"{tmp_path}/a/b/data") == (not root.startswith("viewfs:"))
    assert Path(local).exists() == (not root.startswith("viewfs:"))
    files.download(f"{root}/a/b/data", str(aside / "back"))
    assert sorted(path.name for path in aside.iterdir()) == ["back", "some"]  # and no checksum file
    files.delete(f"{root}/a/b/data")
    files.delete(f"{root}/a/b/data")
    assert files.tree(f"{root}/a") == {"empty": 100, "text": 13}
    files.delete(f"{root}/a")
    assert not (tmp_path / "a").exists()


def test_paths_are_names_not_patterns(spark: SparkSession, tmp_path: Path) -> None:
    files = HadoopFiles(spark.sparkContext)
    strange = f"{tmp_path}/a b [c] {{d}} %20 é"
    files.write_text(f"{strange}/text", "t")
    assert files.list(strange) == {"text": 1}
    assert files.read_text(f"{strange}/text") == "t"
    with files.local_copy(f"{strange}/text") as local:
        assert local == f"{strange}/text"


def test_the_file_systems_own_words(spark: SparkSession, tmp_path: Path) -> None:
    files = HadoopFiles(spark.sparkContext)
    with pytest.raises(OSError, match=r'nowhere://x/y: .*No FileSystem for scheme "nowhere"'):
        files.list("nowhere://x/y")
    with pytest.raises(OSError, match="not/there"):
        files.read_text(f"file://{tmp_path}/not/there")
    (tmp_path / "file").touch(stat.S_IRUSR)
    with pytest.raises(OSError, match="/file"):
        files.write_text(f"{tmp_path}/file/below", "text")
    with pytest.raises(OSError, match="/file"):
        files.make_directory(f"{tmp_path}/file/below")
