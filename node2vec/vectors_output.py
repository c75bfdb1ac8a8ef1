"""Vectors as the file or directory that a user asked for: whole or not at all, and never over another by accident.

What can be wrong with the place is found out before the work begins, by `output_at`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pyarrow.parquet as pq
from pyarrow import fs
from pyspark.sql import functions as F

from node2vec.graph_files import absolute, file_system
from node2vec.graph_job import spark_path
from node2vec.word2vec_files import word_of
from sparkdl.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from node2vec.model import Node2VecModel

FORMS = {"parquet": "parquet", "txt": "text", "emb": "text", "w2v": "text", "bin": "binary", "npy": "npy"}
COMPRESSED = ("gz", "bz2", "zst")
_WORD2VEC = ("text", "binary")
_NO_RENAME = ("s3", "gcs", "abfs")  # object stores have no directories that could be renamed


class Output(NamedTuple):
    """A place for vectors and their form: "parquet", a directory of (id, vector); "text" or "binary", word2vec's files;
    "npy", a matrix and its ids.
    """

    path: str
    form: str

    def refuse_ids(self, ids: DataFrame) -> None:
        """Raises ConfigError: a column id holds one that the form has no place for. Better known before the work."""
        if self.form in _WORD2VEC:
            wrong = ids.where(F.col("id").cast("string").rlike(r"(?U)\s|^$")).select("id").head()
            if wrong is not None:
                word_of(wrong["id"])

    def write(self, model: Node2VecModel) -> None:
        """Write the vectors in place of what is there.

        Raises ConfigError: ids that the form cannot hold. ClusterError: the driver does not see what executors wrote.
        """
        files, path = file_system(self.path)
        if self.form == "parquet" and files.type_name in _NO_RENAME:
            _write_parquet(model, self.path, files, path)
            return
        with _aside(files, path) as folder:
            name = path.rpartition("/")[2]
            made = f"{folder}/{name}"
            given = f"{self.path.rpartition('/')[0]}/{folder.rpartition('/')[2]}/{name}"
            if self.form == "parquet":
                _write_parquet(model, given, files, made)
            elif self.form == "npy":
                model.save_npy(given)
            else:
                model.save_word2vec_format(given, binary=self.form == "binary")
            found = [info.base_name for info in files.get_file_info(fs.FileSelector(folder))]
            for other in sorted(found, key=lambda other: other == name):  # what was asked for comes last
                _replace(files, f"{folder}/{other}", f"{path.rpartition('/')[0]}/{other}", f"{folder}/.old")


def output_at(path: str | os.PathLike[str], overwrite: bool = False) -> Output:
    """The output that a path asks for by its ending; makes the folder that it is to be in.

    Raises ConfigError: an ending that says no form, something is there and is not to be replaced, or no file can be
    made there.
    """
    location = absolute(path)
    stem, _, ending = location.rpartition("/")[2].rpartition(".")
    if ending in COMPRESSED:
        stem, _, ending = stem.rpartition(".")
        ending = ending if FORMS.get(ending) in _WORD2VEC else ""
    if not stem or ending not in FORMS:
        raise ConfigError(
            f"the ending of {os.fspath(path)} does not say how vectors are to be written: end it with "
            f"{', '.join(f'.{known}' for known in FORMS)}; word2vec's files may end with .gz after that."
        )
    files, place = file_system(location)
    folder = place.rpartition("/")[0]
    places = [place, f"{place.removesuffix('.npy')}.ids.npy"] if FORMS[ending] == "npy" else [place]
    there = [info.path for info in files.get_file_info(places) if info.type != fs.FileType.NotFound]
    if there and not overwrite:
        raise ConfigError(f"{there[0]} exists and would be replaced: pass --overwrite, or name another output.")
    try:
        with _aside(files, place):
            pass
    except OSError as error:
        raise ConfigError(f"nothing can be written to {folder}: {error}.") from error
    return Output(location, FORMS[ending])


@contextmanager
def _aside(files: fs.FileSystem, path: str) -> Iterator[str]:
    """An empty folder beside `path`, which is gone afterwards."""
    parent, _, name = path.rpartition("/")
    folder = f"{parent}/.{name}.{uuid.uuid4().hex}"
    files.create_dir(folder, recursive=True)
    try:
        yield folder
    finally:
        files.delete_dir(folder)


def _replace(files: fs.FileSystem, new: str, path: str, old: str) -> None:
    """`new` becomes `path`; what is there is moved to `old` first, for no directory can be moved onto another."""
    if files.get_file_info(path).type == fs.FileType.NotFound:
        files.move(new, path)
        return
    files.move(path, old)
    try:
        files.move(new, path)
    except OSError:
        files.move(old, path)
        raise


def _write_parquet(model: Node2VecModel, given: str, files: fs.FileSystem, made: str) -> None:
    """`given`: the path as Spark takes it; `made`: the same on the file system."""
    vectors = model.vectors.select("id", "vector")
    vectors.write.mode("overwrite").parquet(spark_path(given))
    rows, expected = 0, vectors.count()
    for info in files.get_file_info(fs.FileSelector(made)):
        if info.base_name.endswith(".parquet"):
            with files.open_input_file(info.path) as stream:
                rows += pq.ParquetFile(stream).metadata.num_rows
    if rows != expected:
        raise ClusterError(
            f"executors wrote {expected} vectors, but the driver sees {rows} of them: the output must be in a "
            "directory that all of them share, such as hdfs:// or s3a://."
        )
