"""`Node2VecModel`: a vector for each node, as a DataFrame, and what people do with it."""

from __future__ import annotations

import importlib
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from node2vec import model_files, similar_job, vector_survey, vectors_input, word2vec_files
from node2vec.graph_files import replaced
from node2vec.graph_job import spark_path
from node2vec.model_files import file_system
from node2vec.nearest import best, cosines, direction, nearest_to, units
from node2vec.vector_blocks import Block, block_of
from node2vec.vector_survey import Shape, described
from sparkdl import spark_conf
from sparkdl.errors import ConfigError

Vector = npt.NDArray[np.float32]


class Node2VecModel:
    """Vectors of nodes. Immutable.

    vectors: a DataFrame with the columns id (integers or strings, each once) and vector (array<float>, finite, all of
    one length); other columns are left out. It is read anew by each method: cache or save it if it is not a table on
    disk. settings: whatever JSON can hold; it is saved with the model. shape: (number of vectors, dimensions) if the
    caller knows them and that the vectors are as they must be; None: one pass over the vectors looks, when a method
    first needs it.

    Ids keep their type in all results. Methods raise ConfigError, with an id for which it is so, if the vectors are not
    as they must be, and if asked for ids that are not there.
    """

    def __init__(
        self, vectors: DataFrame, settings: dict[str, Any] | None = None, shape: tuple[int, int] | None = None
    ):
        if not hasattr(vectors, "sparkSession"):
            raise ConfigError(f"vectors are given as {type(vectors).__name__}; give a DataFrame with id and vector.")
        spark_conf.refuse_connect(vectors.sparkSession)
        self._vectors = vector_survey.columns_of(vectors)
        self._spark = vectors.sparkSession
        self._shape = None if shape is None else Shape(*shape)
        self.settings: dict[str, Any] = dict(settings or {})

    @property
    def vectors(self) -> DataFrame:
        """A row a node: id (of the type that it was given in), vector (array<float>)."""
        return self._vectors

    @property
    def shape(self) -> Shape:
        """(num_vectors, dimensions). The first call may run a job."""
        if self._shape is None:
            self._shape = vector_survey.survey(self._vectors)
        return self._shape

    @property
    def dimensions(self) -> int:
        """Numbers in each vector. The first call may run a job."""
        return self.shape.dimensions

    def __len__(self) -> int:
        return self.shape.num_vectors

    def vector(self, id: Any) -> Vector:  # noqa: A002  # the name of the column
        """The vector of one id: float32 [d]."""
        one: Vector = self._looked_up([id])[0]
        return one

    def similarity(self, a: Any, b: Any) -> float:
        """The cosine of the vectors of two ids, -1 to 1."""
        left, right = units(self._looked_up([a, b]))
        return float(cosines(left[None], right[None])[0])

    def most_similar(self, query: Any, top: int = 10) -> DataFrame:
        """The `top` ids whose vectors have the largest cosine with what is asked for: id, similarity (float).

        query: an id; or a vector (a numpy array of floats, or a list of d floats); or a list of ids and vectors, of
        which the mean direction counts; or a pair (positive, negative) of such lists, the negative turned round, as in
        gensim. The ids asked for are left out. The largest first, equal ones by id. Looking up ids runs a job; the
        search, one pass over the vectors, runs when the result is used.
        Raises ConfigError: top < 1, unknown ids, a vector of another length, or one that is zero.
        """
        _refuse_top(top)
        positive, negative = _two_lists(query)
        ids = [value for value in (*positive, *negative) if not _is_vector(value)]
        found = iter(self._looked_up(ids))
        sides = [
            np.array([self._given(one) if _is_vector(one) else next(found) for one in side], np.float32).reshape(
                len(side), self.dimensions
            )
            for side in (positive, negative)
        ]
        asked = direction(*sides)
        if not asked.any():
            raise ConfigError("the vector asked for is zero, or those given cancel each other: it points nowhere.")
        kind = self._vectors.schema["id"].dataType
        schema = T.StructType([T.StructField("id", kind), T.StructField("similarity", T.FloatType())])
        task = partial(_nearest, asked, [_plain(value) for value in ids], top)
        near = self._vectors.mapInArrow(task, schema)
        return near.orderBy(F.desc("similarity"), "id").limit(top)

    def similar_pairs(self, top: int = 10) -> DataFrame:
        """For every node its `top` nearest others: id, similar_id, similarity (float), a row a pair.

        Exact; see ``similar_job`` for how it runs and what it costs (V^2 d multiplications). The pairs of an id lie
        together in the result's partitions, nearest first. Equal cosines are in the order of similar_id.
        """
        _refuse_top(top)
        return similar_job.similar_pairs(self._vectors, self.shape, top)

    def transform(self, df: DataFrame, input_col: str = "id", output_col: str = "vector") -> DataFrame:
        """`df` with the vector of the id in `input_col` as another column; null where the id is not known, or null.

        Rows and other columns stay as they are. Lazy. Raises ConfigError: no such column, one of another type than the
        model's ids, or `output_col` is there already.
        """
        for name, wanted in ((input_col, True), (output_col, False)):
            if (name in df.columns) != wanted:
                have = "no column" if wanted else "a column"
                raise ConfigError(f"the DataFrame has {have} {name!r}; its columns are {', '.join(df.columns)}.")
        given, kind = df.schema[input_col].dataType, self._vectors.schema["id"].dataType
        if isinstance(given, T.StringType) != self._is_text or not isinstance(
            given, (T.StringType, *vector_survey.INTEGERS)
        ):
            raise ConfigError(
                f"the column {input_col} is {given.simpleString()}, the model's ids are {kind.simpleString()}: cast it."
            )
        key = "__node2vec_id"
        while key in df.columns:
            key += "_"
        right = self._vectors.select(F.col("id").alias(key), F.col("vector").alias(output_col))
        return df.join(right, F.col(f"`{input_col}`") == F.col(key), "left").drop(key)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the model into a directory, a path or URI that driver and executors share; see ``model_files``.

        overwrite: replace the model that is there. Raises ConfigError: the directory is there (and not empty) and
        overwrite is False, or it holds what no model wrote, or the vectors are read from there; settings that JSON
        cannot hold. ClusterError: executors write where the driver cannot see it.
        """
        target = model_files.Target(self._vectors, self.settings, path, overwrite)
        target.write(self.shape)

    @classmethod
    def load(cls, path: str | os.PathLike[str], spark: SparkSession | None = None) -> Node2VecModel:
        """The model that `save` wrote. spark: None for the active session, or an embedded one.

        No job runs. Raises ConfigError: there is no complete model, or files are missing or of another size.
        """
        session = spark_conf.session() if spark is None else spark
        spark_conf.refuse_connect(session)
        return cls(*model_files.load(session, path))

    def save_word2vec_format(self, path: str | os.PathLike[str], binary: bool = False) -> None:
        """Write one file in the word2vec format, text or binary, which gensim and many others read; see
        ``word2vec_files``. The driver holds the vectors of one partition at a time.

        Raises ConfigError: ids that are empty or have whitespace in them, which the format cannot hold.
        """
        batches = ((block.ids.to_pylist(), block.matrix) for block in self._blocks("writing word2vec's format"))
        word2vec_files.write(path, batches, *self.shape, binary)

    @classmethod
    def load_word2vec_format(
        cls,
        path: str | os.PathLike[str],
        binary: bool = False,
        integer_ids: bool = False,
        spark: SparkSession | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> Node2VecModel:
        """The vectors of a file in the word2vec format, by whomever: text or binary, also .gz, .bz2 and .zst.

        The format cannot tell integers from words: ids are strings, or integers (bigint) if you say so. The driver
        reads the file once, a batch at a time, and keeps it as Parquet under `root`, a directory that driver and
        executors share; None: a temporary one, gone with this process, which only a session on this machine can share,
        or the setting ``spark.node2vec.root``. Jobs check the vectors. spark: as in `load`.
        Raises ConfigError: there is no such file, it is not of this format or damaged, an id is there twice or is no
        integer, numbers are not finite. Then nothing is kept.
        """
        from node2vec.estimator import working_root

        session = spark_conf.session() if spark is None else spark
        spark_conf.refuse_connect(session)
        word2vec_files.shape(path)  # so that no folder is made for a file of another kind
        folder = f"{working_root(session, root)}/word2vec-{uuid.uuid4().hex}"
        vectors_input.to_parquet(path, folder, binary, integer_ids)
        schema = f"id {'bigint' if integer_ids else 'string'}, vector array<float>"
        vectors = session.read.schema(schema).parquet(spark_path(folder))
        try:
            return cls(vectors, shape=vector_survey.survey(vectors))
        except BaseException:
            files, place = file_system(folder)
            files.delete_dir(place)
            raise

    def save_npy(self, path: str | os.PathLike[str]) -> tuple[str, str]:
        """Write ``X.npy`` (float32 [V, d]) and ``X.ids.npy`` (int64 or unicode [V]): row i is the vector of id i.

        path: ``X.npy`` or ``X``. Returns both names. The driver holds all ids, and the vectors of one partition at a
        time. Neither file holds pickles.
        """
        stem = os.fspath(path).removesuffix(".npy")
        names = f"{stem}.npy", f"{stem}.ids.npy"
        files, place = file_system(stem)
        files.create_dir(place.rpartition("/")[0] or "/", recursive=True)
        shape, ids = self.shape, []
        header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
        with replaced(files, f"{place}.npy") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for block in self._blocks("writing npy"):
                stream.write(np.ascontiguousarray(block.matrix, "<f4").tobytes())
                ids.append(block.ids)
            _refuse_other_count(sum(map(len, ids)), shape)
            with replaced(files, f"{place}.ids.npy") as beside:
                np.lib.format.write_array(beside, _id_array(ids, self._is_text), allow_pickle=False)
        return names

    def to_numpy(self) -> tuple[npt.NDArray[Any], Vector]:
        """All of it on the driver: ids (int64 or unicode [V]) and their vectors (float32 [V, d])."""
        ids, matrix = self._collected()
        return _id_array(ids, self._is_text), matrix

    def to_keyed_vectors(self) -> Any:
        """A gensim ``KeyedVectors`` on the driver; ids are its keys, in their own type."""
        models = _optional("gensim.models", "gensim", "to_keyed_vectors")
        ids, matrix = self._collected()
        keyed = models.KeyedVectors(self.dimensions)
        keyed.add_vectors([value for part in ids for value in part.to_pylist()], matrix)
        return keyed

    def to_faiss(self) -> tuple[Any, npt.NDArray[Any]]:
        """A faiss ``IndexFlatIP`` of the vectors scaled to length 1, on the driver, and the ids (int64 or unicode [V]).

        ``index.search(units, k)`` gives cosines and places; ``ids[place]`` is the id. Queries must have length 1 too.
        """
        faiss = _optional("faiss", "faiss-cpu", "to_faiss")
        index, ids = faiss.IndexFlatIP(self.dimensions), []
        for block in self._blocks("filling a faiss index"):
            index.add(units(block.matrix))
            ids.append(block.ids)
        return index, _id_array(ids, self._is_text)

    @property
    def _is_text(self) -> bool:
        return isinstance(self._vectors.schema["id"].dataType, T.StringType)

    def _blocks(self, text: str) -> Iterator[Block]:
        return vector_survey.local_blocks(self._vectors, self.dimensions, text)

    def _collected(self) -> tuple[list[pa.Array], Vector]:
        ids, matrix, count = [], np.empty(self.shape, np.float32), 0
        for block in self._blocks("collecting vectors"):
            _refuse_other_count(count + len(block.ids), self.shape, at_most=True)
            matrix[count : count + len(block.ids)] = block.matrix
            count += len(block.ids)
            ids.append(block.ids)
        _refuse_other_count(count, self.shape)
        return ids, matrix

    def _given(self, value: Any) -> Vector:
        """A vector that the user gave, checked."""
        vector = np.asarray(value, np.float32)
        if vector.shape != (self.dimensions,) or not np.isfinite(vector).all():
            raise ConfigError(
                f"a vector of shape {vector.shape} is given; the model's have {self.dimensions} finite numbers."
            )
        return vector

    def _looked_up(self, ids: Sequence[Any]) -> Vector:
        """The vectors of ids, in their order: float32 [n, d]."""
        wanted = [_plain(value) for value in ids]
        for value in wanted:
            if isinstance(value, bool) or not isinstance(value, str if self._is_text else int):
                kind = "strings" if self._is_text else "integers"
                raise ConfigError(f"{value!r} is no id of this model: its ids are {kind}.")
        dimensions = self.dimensions
        if not wanted:
            return np.empty((0, dimensions), np.float32)
        storable = [value for value in set(wanted) if isinstance(value, str) or -(1 << 63) <= value < 1 << 63]
        with described(self._spark.sparkContext, f"looking up {len(set(wanted))} ids"):
            rows = self._vectors.where(F.col("id").isin(storable)).collect()
        found = {row["id"]: row["vector"] for row in rows}
        missing = [value for value in wanted if value not in found]
        if missing:
            named = ", ".join(repr(value) for value in missing[:5])
            raise ConfigError(
                f"{'id' if len(missing) == 1 else f'{len(missing)} ids'} {named}{', ...' if len(missing) > 5 else ''} "
                "not in the model: it has a vector for each node that it was trained on, and no others."
            )
        return np.array([found[value] for value in wanted], np.float32)


def _nearest(
    asked: Vector, left_out: list[Any], top: int, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """What a task of `most_similar` runs: the nearest of its partition."""
    found: pa.Table | None = None
    for batch in batches:
        if batch.num_rows:
            ids, matrix = block_of(batch)
            near = nearest_to(asked, ids, matrix, pa.array(left_out, ids.type), top)
            found = near if found is None else best(pa.concat_tables([found, near]), top)
    if found is not None:
        yield from found.select(["id", "similarity"]).to_batches()


def _two_lists(query: Any) -> tuple[list[Any], list[Any]]:
    """What is asked for, as positive and negative ids and vectors."""
    if _is_vector(query) or isinstance(query, (str, int, np.integer)):
        return [query], []
    if isinstance(query, tuple) and len(query) == 2 and all(_is_list(side) for side in query):
        return list(query[0]), list(query[1])
    if _is_list(query) and len(query):
        return list(query), []
    raise ConfigError(
        f"{query!r} can not be looked for: give an id, a vector of floats, a list of them, or two lists (positive, "
        "negative)."
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _is_vector(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and bool(np.issubdtype(value.dtype, np.floating))
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(x, (float, np.floating)) for x in value)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _refuse_top(top: int) -> None:
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 1:
        raise ConfigError(f"top={top!r} finds nothing; give a number of nodes, at least 1.")


def _refuse_other_count(count: int, shape: Shape, at_most: bool = False) -> None:
    if count > shape.num_vectors or (count != shape.num_vectors and not at_most):
        raise ConfigError(
            f"the vectors were {shape.num_vectors} when they were first counted, and now {count}: the DataFrame gives "
            "other rows each time. Save the model, or write the DataFrame down first."
        )


def _id_array(ids: list[pa.Array], is_text: bool) -> npt.NDArray[Any]:
    """int64 [V], or unicode [V] as wide as the longest."""
    if not is_text:
        return np.concatenate([part.to_numpy(zero_copy_only=False) for part in ids]).astype(np.int64)
    values = [value for part in ids for value in part.to_pylist()]
    ending = [value for value in values if value.endswith("\0")]
    if ending:
        raise ConfigError(f"id {ending[0]!r} ends in a zero character, which numpy's strings lose: replace it.")
    return np.array(values, np.str_)


def _optional(module: str, package: str, method: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{method} needs {package}, which cannot be imported ({error}): pip install {package}."
        ) from error
