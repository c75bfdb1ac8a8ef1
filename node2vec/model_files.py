"""A model on disk: a directory with the vectors as Parquet, and a manifest that is written last.

    vectors/part-*.parquet   id, vector (array<float>), by Spark's own writer
    model.json               settings, number and dimensions of the vectors, names and bytes of their files

A directory without ``model.json`` is no model. One that is overwritten keeps its old vectors until the new manifest
names the new ones (``vectors-2``), so that it is a whole model at any moment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs
from pyspark.sql import DataFrame, SparkSession

from node2vec import graph_files
from node2vec.graph_files import replaced
from node2vec.graph_job import spark_path
from node2vec.vector_survey import Shape, described
from sparkdl.errors import ClusterError, ConfigError

MANIFEST = "model.json"
KIND = "node2vec model"
FORMAT = 1
MOST_FOOTERS = 256  # files whose footers are read here
_VECTORS = ("vectors", "vectors-2")
_ID_TYPES = ("tinyint", "smallint", "int", "bigint", "string")


class Target:
    """Where a model is to be saved, checked before anything runs.

    path: a directory, path or URI, that driver and executors share; settings: what JSON can hold. Raises ConfigError:
    the directory is there (and not empty) and `overwrite` is False, or it holds what no model wrote, or the vectors are
    read from there; settings that JSON cannot hold.
    """

    def __init__(self, vectors: DataFrame, settings: dict[str, Any], path: str | os.PathLike[str], overwrite: bool):
        self.name, self.vectors = os.fspath(path), vectors
        try:
            self.settings = json.loads(json.dumps(settings, default=_number, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the model's settings cannot be saved as JSON ({error}).") from error
        self.files, self.folder = file_system(self.name)
        self.there = _names(self.files, self.folder)
        self._refuse(overwrite)

    def _refuse(self, overwrite: bool) -> None:
        name, there = self.name, self.there
        foreign = [one for one in there if one not in (MANIFEST, *_VECTORS) and not one.startswith(f".{MANIFEST}.")]
        if foreign:
            raise ConfigError(f"{name} holds {foreign[0]}, which no model wrote: save to another directory.")
        if there and not overwrite:
            what = "a model" if MANIFEST in there else "what is left of a save that broke off"
            raise ConfigError(f"{name} holds {what} already: pass overwrite=True to replace it.")
        if there and any(f"{self.folder}/" in unquote(file) for file in self.vectors.inputFiles()):
            raise ConfigError(
                f"the vectors are read from {name}, which overwriting deletes: save to another directory, then move it."
            )

    def write(self, shape: Shape) -> None:
        """Write the vectors, of this shape, and then the manifest; then remove the vectors of the model before.

        Raises ClusterError: executors write where the driver cannot see it.
        """
        files, folder = self.files, self.folder
        old = _named_vectors(files, folder) if MANIFEST in self.there else None
        part = next(one for one in _VECTORS if one != old)
        if part in self.there:
            files.delete_dir(f"{folder}/{part}")  # of a save that broke off
        sizes = self._write_vectors(shape, part)
        manifest = {
            "kind": KIND,
            "format": FORMAT,
            "num_vectors": shape.num_vectors,
            "dimensions": shape.dimensions,
            "id": self.vectors.schema["id"].dataType.simpleString(),
            "vectors": part,
            "files": sizes,
            "settings": self.settings,
        }
        with replaced(files, f"{folder}/{MANIFEST}") as stream:
            stream.write(json.dumps(manifest, indent=1).encode())
        for other in _VECTORS:
            if other != part and other in self.there:
                files.delete_dir(f"{folder}/{other}")

    def _write_vectors(self, shape: Shape, part: str) -> dict[str, int]:
        target = f"{self.folder}/{part}"
        try:
            with described(self.vectors.sparkSession.sparkContext, f"saving {shape.num_vectors} vectors"):
                self.vectors.write.parquet(f"{spark_path(self.name)}/{part}")
            sizes = _sizes(self.files, target)
            if not sizes:
                raise ClusterError(
                    f"executors wrote {self.name}/{part}, but the driver does not see it: path must be a directory "
                    "that all of them share, such as hdfs:// or s3a://."
                )
        except BaseException:
            if self.files.get_file_info(target).type != fs.FileType.NotFound:
                self.files.delete_dir(target)
            raise
        return sizes


def load(spark: SparkSession, path: str | os.PathLike[str]) -> tuple[DataFrame, dict[str, Any], Shape]:
    """The vectors, settings and shape of the model in a directory. No job runs.

    Raises ConfigError: there is no complete model, or its files are missing or of another size than they were.
    """
    name = os.fspath(path)
    files, folder = file_system(name)
    manifest = read_manifest(files, folder, name)
    part = manifest["vectors"]
    sizes = _sizes(files, f"{folder}/{part}")
    for file, size in manifest["files"].items():
        if sizes.get(file) != size:
            have = "is missing" if file not in sizes else f"has {sizes[file]} bytes instead of {size}"
            raise ConfigError(f"the model in {name} is damaged: {part}/{file} {have}. Save or copy it again.")
    # The names of the manifest, not the directory: a copy may have brought other files with it.
    frame = spark.read.schema(f"id {manifest['id']}, vector array<float>").parquet(
        *(f"{spark_path(name)}/{part}/{file}" for file in manifest["files"])
    )
    return frame, manifest["settings"], Shape(manifest["num_vectors"], manifest["dimensions"])


def written_shape(directory: str, dimensions: int) -> tuple[int, int] | None:
    """The shape of a training's vectors, from the footers of ``part-*.parquet``; None if the files are too many."""
    files, folder = file_system(directory)
    names = list(_sizes(files, folder))
    if len(names) > MOST_FOOTERS:
        return None

    def rows(name: str) -> int:
        with files.open_input_file(f"{folder}/{name}") as stream:
            return int(pq.ParquetFile(stream).metadata.num_rows)

    with ThreadPoolExecutor(16) as threads:
        return sum(threads.map(rows, names)), dimensions


def read_manifest(files: fs.FileSystem, folder: str, name: str) -> dict[str, Any]:
    """``model.json``, all of its fields checked. Raises ConfigError: there is none, or it is damaged or foreign."""
    if MANIFEST not in _names(files, folder):
        raise ConfigError(f"{name} holds no model: it has no {MANIFEST}, which save() writes last.")
    with files.open_input_stream(f"{folder}/{MANIFEST}") as stream:
        content = stream.read()
    try:
        values = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"{name}/{MANIFEST} is damaged: it is no JSON ({error}). Save or copy it again.") from error
    if not isinstance(values, dict) or values.get("kind") != KIND:
        raise ConfigError(f"{name}/{MANIFEST} is of something else than a model: no save() of node2vec wrote it.")
    if values.get("format") != FORMAT:
        raise ConfigError(f"the model in {name} has format {values.get('format')!r}, this version reads {FORMAT}.")
    for field, is_right in _FIELDS.items():
        if not is_right(values.get(field)):
            raise ConfigError(f"{name}/{MANIFEST} is damaged: {field} is {values.get(field)!r}. Save or copy it again.")
    return values


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "num_vectors": lambda value: isinstance(value, int) and value > 0,
    "dimensions": lambda value: isinstance(value, int) and value > 0,
    "id": lambda value: value in _ID_TYPES,
    "vectors": lambda value: value in _VECTORS,
    "files": lambda value: isinstance(value, dict) and bool(value) and all("/" not in name for name in value),
    "settings": lambda value: isinstance(value, dict),
}


def file_system(name: str) -> tuple[fs.FileSystem, str]:
    """As ``graph_files.file_system``. Raises ConfigError: pyarrow knows no such file system, or cannot reach it."""
    try:
        return graph_files.file_system(name)
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        raise ConfigError(f"{name} is on no file system that pyarrow can open here: {error}.") from error


def _named_vectors(files: fs.FileSystem, folder: str) -> Any:
    """Which vectors the manifest that is there names; None if it is damaged, for it is to be replaced."""
    try:
        return read_manifest(files, folder, folder)["vectors"]
    except ConfigError:
        return None


def _names(files: fs.FileSystem, folder: str) -> list[str]:
    """What a directory holds, sorted; nothing if it is not there."""
    info = files.get_file_info(folder)
    if info.type == fs.FileType.File:
        raise ConfigError(f"{folder} is a file; a model is a directory.")
    if info.type == fs.FileType.NotFound:
        return []
    return sorted(str(one.base_name) for one in files.get_file_info(fs.FileSelector(folder)))


def _sizes(files: fs.FileSystem, folder: str) -> dict[str, int]:
    """Bytes of the vectors' files."""
    found = files.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    parts = [info for info in found if info.type == fs.FileType.File and info.base_name.startswith("part-")]
    return {info.base_name: info.size for info in sorted(parts, key=lambda one: str(one.path))}


def _number(value: Any) -> Any:
    """A numpy number for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} {value!r}")
