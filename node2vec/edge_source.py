"""Edges from wherever they are to one DataFrame with src, dst and perhaps weight.

Ids are integers in both columns or strings in both. Text has no types, so for text files: ids are integers if every
single one is written as an integer (no leading zeros), else all of them are strings; a weight must be a number, and an
empty one is missing. A DataFrame's or a Parquet file's own types are believed: a weight that is a string is refused.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from node2vec.edge_words import INTEGER, WordCounts, id_type
from sparkdl.errors import ConfigError

_INTEGERS = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^(?i)([+-]?inf(inity)?|nan)$"
_WORDS = re.compile(r"[\s,;]+")  # the same to Java
_SEPARATORS = {"csv": ",", "tsv": "\t"}
_FORMATS = {"parquet": "parquet", "csv": "csv", "tsv": "tsv"} | dict.fromkeys(
    ("txt", "edgelist", "edges", "edg", "el", "ncol"), "edgelist"
)


class Text(NamedTuple):
    """Lines cut into words, before any type is known. table: _c0, _c1 and perhaps _c2, strings; first: the ids on the
    first line if it may be a header, else nothing.
    """

    table: DataFrame
    first: list[str]

    @property
    def wrong(self) -> Column:
        """Whether a weight is not a number; an empty one is missing, which is another fault."""
        return (F.col("_c2") != "") & ~F.col("_c2").rlike(_NUMBER)

    def typed(self) -> DataFrame:
        """src, dst and perhaps weight, by the rule of this module. Reads everything to find the types of ids."""
        words = ~(F.col("_c0").rlike(INTEGER) & F.col("_c1").rlike(INTEGER))
        columns: list[Column] = [F.count("*"), F.coalesce(F.sum(words.cast("long")), F.lit(0))]
        if self._weighted:
            columns += [F.sum(self.wrong.cast("long")), F.min(F.when(self.wrong, F.col("_c2")))]
        kind = id_type(WordCounts(*self.table.agg(*columns).head()), self.first)  # type: ignore[misc]
        return self._columns(kind, [])

    def untyped(self) -> DataFrame:
        """The same in one pass, with ids as strings and, if there are weights, those that are not numbers as wrong."""
        return self._columns("string", [F.when(self.wrong, F.col("_c2")).alias("wrong")])

    @property
    def _weighted(self) -> bool:
        return len(self.table.columns) > 2

    def _columns(self, kind: str, others: list[Column]) -> DataFrame:
        ids = [F.col(f"_c{n}").cast(kind).alias(name) for n, name in enumerate(("src", "dst"))]
        if not self._weighted:
            return self.table.select(*ids)
        number = F.when(F.col("_c2").rlike(_NUMBER), F.col("_c2").cast("double")).cast("float")
        return self.table.select(*ids, number.alias("weight"), *others)


class Edges:
    """load: gives a frame with src, dst (bigint, int, ... or string, both the same) and perhaps weight (float, may hold
    anything), or lines of text; inputs: a fingerprint of where they come from, None if only their content can tell;
    directed: what the source says of itself, None if it does not say; text_bytes: of the lines, about; None if reading
    the edges does not mean to parse lines.
    """

    def __init__(
        self,
        load: Callable[[], DataFrame | Text],
        inputs: str | None = None,
        directed: bool | None = None,
        text_bytes: int | None = None,
    ):
        self._load, self.inputs, self.directed, self.text_bytes = load, inputs, directed, text_bytes

    @property
    def is_text(self) -> bool:
        """Whether reading the edges means to parse lines."""
        return self.text_bytes is not None

    @cached_property
    def _loaded(self) -> DataFrame | Text:
        return self._load()

    @property
    def text(self) -> Text:
        """The words of edges in text; one line is read. Raises ConfigError: it is no edge, or there is none."""
        assert isinstance(self._loaded, Text)
        return self._loaded

    @cached_property
    def frame(self) -> DataFrame:
        """The edges. Text files are read once here, to find their types. Raises ConfigError: see :func:`edges_of`."""
        return self._loaded.typed() if isinstance(self._loaded, Text) else self._loaded


def edges_of(
    spark: SparkSession,
    source: Any,
    src: str = "src",
    dst: str = "dst",
    weight: str | None = "weight",
    file_format: str | None = None,
) -> Edges:
    """The edges of a DataFrame, a GraphFrame, a networkx graph, a path or several paths.

    src, dst, weight: names of columns (of networkx's edge attribute); ``weight`` is used if it is there, None ignores
    it. file_format: "parquet", "csv", "tsv" or "edgelist", if the names of the files do not say.
    Raises ConfigError: no such column or file, types that are no ids or weights, text that is no number.
    """
    if isinstance(source, Edges):
        return source
    if isinstance(source, DataFrame):
        return _of_frame(source, src, dst, weight)
    if isinstance(source, (str, os.PathLike)):
        return from_paths(spark, [source], src, dst, weight, file_format)
    if isinstance(source, Sequence) and source and all(isinstance(path, (str, os.PathLike)) for path in source):
        return from_paths(spark, source, src, dst, weight, file_format)
    if isinstance(getattr(source, "edges", None), DataFrame):  # a GraphFrame
        return _of_frame(source.edges, src, dst, weight)
    if hasattr(source, "is_directed") and hasattr(source, "edges"):
        return from_networkx(spark, source, weight)
    raise ConfigError(
        f"edges are given as {type(source).__name__}; give a DataFrame with {src} and {dst}, paths of CSV, TSV, "
        "edge-list or Parquet files, or a networkx graph."
    )


def _of_frame(frame: DataFrame, src: str, dst: str, weight: str | None) -> Edges:
    checked = from_frame(frame, src, dst, weight)
    return Edges(lambda: checked)


def from_frame(frame: DataFrame, src: str = "src", dst: str = "dst", weight: str | None = "weight") -> DataFrame:
    """The columns src, dst and, if there is one, weight (as float), types checked. Nothing runs."""
    optional = weight is None or (weight == "weight" and weight not in frame.columns)
    names = [src, dst] if optional else [src, dst, str(weight)]
    for name in names:
        if name not in frame.columns:
            raise ConfigError(
                f"the edges have no column {name!r}, only {', '.join(frame.columns)}. Rename one: "
                f'edges.withColumnRenamed("...", "{name}").'
            )
    kinds = {name: frame.schema[name].dataType for name in names}
    integers = [isinstance(kinds[name], _INTEGERS) for name in (src, dst)]
    strings = [isinstance(kinds[name], T.StringType) for name in (src, dst)]
    if not all(integers) and not all(strings):
        given = f"{src} is {kinds[src].simpleString()} and {dst} is {kinds[dst].simpleString()}"
        raise ConfigError(f"ids are integers in both columns or strings in both, but {given}: cast one of them.")
    ids = [F.col(f"`{name}`") for name in (src, dst)]
    if kinds[src] != kinds[dst]:
        ids = [column.cast("bigint") for column in ids]
    columns = [ids[0].alias("src"), ids[1].alias("dst")]
    if not optional:
        kind = kinds[str(weight)]
        if not isinstance(kind, T.NumericType):
            raise ConfigError(
                f"the column {weight} is {kind.simpleString()}, not a number: cast it, for example "
                f'edges.withColumn("{weight}", edges["{weight}"].cast("double")), or pass weight=None.'
            )
        columns.append(F.col(f"`{weight}`").cast("float").alias("weight"))
    return frame.select(*columns)


def from_paths(
    spark: SparkSession,
    paths: Sequence[str | os.PathLike[str]],
    src: str = "src",
    dst: str = "dst",
    weight: str | None = "weight",
    file_format: str | None = None,
) -> Edges:
    """The edges of files, directories or globs, all of one format; their names, sizes and times are the fingerprint.

    Nothing but the listing is read before ``frame`` is asked for.
    """
    names = [os.fspath(path) for path in paths]
    names = [name if "://" in name else "file://" + os.path.abspath(name) for name in names]
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", "true")  # lists them; contents stay unread
    try:
        found = reader.load(names).select("path", "length", F.unix_micros("modificationTime")).collect()
    except AnalysisException as error:
        raise ConfigError(f"there are no edges at {', '.join(names)}: {str(error).splitlines()[0]}") from error
    listing = sorted((str(path), int(length), int(time)) for path, length, time in found)
    if not listing:
        raise ConfigError(f"there are no files at {', '.join(names)}.")
    kind = file_format or _format([path for path, _, _ in listing])
    if kind not in _FORMATS.values():
        raise ConfigError(
            f"file_format={kind!r} is unknown; choose one of {', '.join(sorted(set(_FORMATS.values())))}."
        )

    def load() -> DataFrame | Text:
        if kind == "parquet":
            return from_frame(spark.read.parquet(*names), src, dst, weight)
        return _from_text(spark, names, listing[0][0], kind, src, dst, weight)

    settings = (listing, kind, src, dst, weight)
    inputs = hashlib.sha256(repr(settings).encode()).hexdigest()[:32]
    return Edges(load, inputs, text_bytes=None if kind == "parquet" else _text_bytes(listing))


def _text_bytes(listing: list[tuple[str, int, int]]) -> int:
    """Compressed lines of edges are some three to eight times as long."""
    return sum((8 if path.endswith((".gz", ".bz2", ".zst", ".xz")) else 1) * length for path, length, _ in listing)


def _format(paths: list[str]) -> str:
    """The one format that the files' names say."""
    suffixes = {path.removesuffix(".gz").removesuffix(".bz2").rpartition(".")[2] for path in paths}
    kinds = {_FORMATS.get(suffix.lower(), "?") for suffix in suffixes}
    if len(kinds) > 1 or kinds == {"?"}:
        raise ConfigError(
            f"the names of the files, as {paths[0]}, do not say one format: pass file_format="
            + " or ".join(f'"{kind}"' for kind in sorted(set(_FORMATS.values())))
            + "."
        )
    return kinds.pop()


def _from_text(
    spark: SparkSession, names: list[str], first_path: str, kind: str, src: str, dst: str, weight: str | None
) -> Text:
    """Strings by columns: how the lines are cut, and which columns are meant, is told by the first."""
    comment = F.col("value").rlike(r"^\s*[#%]") | (F.trim("value") == "")
    lines = spark.read.text(first_path).where(~comment).head(1)
    if not lines:
        raise ConfigError(f"there are no edges: {first_path} has no line that is not a comment.")
    line = lines[0][0]
    if kind == "edgelist":
        fields = _WORDS.split(line.strip())
    else:
        fields = [field.strip() for field in next(csv.reader([line], delimiter=_SEPARATORS[kind]))]
    if len(fields) < 2:
        raise ConfigError(f"the first line of {first_path}, {line!r}, has one column; edges need two.")
    header = src in fields and dst in fields
    if header and weight not in (None, "weight", *fields):
        raise ConfigError(f"the edges have no column {weight!r}, only {', '.join(fields)}.")
    if kind == "edgelist":
        words = F.split(F.trim("value"), _WORDS.pattern)
        read = spark.read.text(names).where(~comment)
        read = read.where(F.col("value") != line) if header else read
        table = read.select(*(F.get(words, F.lit(place)).alias(f"_c{place}") for place in range(len(fields))))
    else:
        options = {"sep": _SEPARATORS[kind], "comment": "#", "header": str(header).lower()}
        table = spark.read.options(**options).schema(", ".join(f"_c{n} string" for n in range(len(fields)))).csv(names)
    places = [fields.index(src), fields.index(dst)] if header else [0, 1]
    if header and weight in fields:
        places.append(fields.index(str(weight)))
    elif not header and weight is not None and len(fields) > 2:
        places.append(2)
    first = [] if header else fields[:2]
    return Text(table.select(*(F.trim(f"_c{place}").alias(f"_c{n}") for n, place in enumerate(places))), first)


def from_networkx(spark: SparkSession, graph: Any, weight: str | None = "weight") -> Edges:
    """The edges of a networkx graph that fits the driver. Nodes without edges are left out.

    If any edge has the attribute ``weight``, one without it weighs 1, as in networkx itself.
    """
    rows = list(graph.edges(data=weight)) if weight is not None else [(*edge, None) for edge in graph.edges()]
    if not rows:
        raise ConfigError("there are no edges: the networkx graph has none.")
    nodes = {type(node) for edge in rows for node in edge[:2]}
    if nodes not in ({int}, {str}):
        kinds = ", ".join(sorted(kind.__name__ for kind in nodes))
        raise ConfigError(f"the graph's nodes are {kinds}; they must be all integers or all strings: relabel them.")
    kind = "bigint" if nodes == {int} else "string"
    weighted = any(value is not None for *_, value in rows)
    if not weighted:
        bare = spark.createDataFrame([(a, b) for a, b, _ in rows], f"src {kind}, dst {kind}")
        return Edges(lambda: bare, directed=graph.is_directed())
    wrong = next((w for *_, w in rows if isinstance(w, bool) or not isinstance(w, (int, float, type(None)))), None)
    if wrong is not None:
        raise ConfigError(f"the attribute {weight!r} of an edge is {wrong!r}, not a number; correct it, or ignore it.")
    values = [(a, b, 1.0 if w is None else float(w)) for a, b, w in rows]
    frame = from_frame(spark.createDataFrame(values, f"src {kind}, dst {kind}, weight double"))
    return Edges(lambda: frame, directed=graph.is_directed())
