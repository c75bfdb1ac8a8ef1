"""The stage *corpus*: walks become token streams, one file for each episode and part, ready for the kernels to pair.

    root/corpus/stream-<episode>-<part>.bin   see token_streams
    root/corpus/counts-<part>-<group>.bin     how often each row of the part occurs in some of them
    root/corpus/corpus.json                   written last

Walk files are read once (twice with `min_count` or `sample`, which need counts first). A task reads a file and sends
its piece of each stream, and its counts, to the task that writes them; pieces are joined in the order of the files, so
neither the number of tasks nor their order changes a byte. Nobody holds the vocabulary but as arrays of numbers.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from pyarrow import fs
from pyspark import SparkContext
from pyspark.sql import SparkSession

from node2vec import block_schedule, corpus_files, stage, walk_source
from node2vec.graph_files import absolute, file_system
from node2vec.walk_source import Source
from sparkdl import spark_conf, spark_internals
from sparkdl.errors import ConfigError
from sparkdl.spark_internals import concurrent_tasks

if TYPE_CHECKING:
    from node2vec.token_streams import Stream

STAGE = "corpus"
GROUP_BYTES = 256 << 20  # of the streams that one task joins and writes


def prepare(
    spark: SparkSession,
    root: str | os.PathLike[str],
    partitions: int | None = None,
    episodes: int | None = None,
    min_count: int = 0,
    sample: float = 0.0,
    seed: int = 0,
) -> corpus_files.Header:
    """Cut the walks in ``root/walks`` into streams for `partitions` parts of the nodes and `episodes` an epoch.

    partitions, episodes: they are part of the vectors' identity; None: from the number of nodes, of tokens and of task
    slots, see ``block_schedule``. min_count: nodes with fewer occurrences are left out of all walks. sample: word2vec's
    subsampling of frequent nodes (0: none; Mikolov et al., NIPS 2013, section 2.3). seed: of the subsampling.

    A corpus that is there already, of the same settings and walks, is not made again.
    Raises ConfigError: settings that cannot be used, no walks at root, nothing is left of them, or ``root/corpus`` is
    one of other settings.
    """
    spark_conf.refuse_connect(spark)
    check(partitions, episodes, min_count, sample)
    sc = spark.sparkContext
    location = absolute(root)
    walks = walks_settings(location)
    with described(sc, "counting walks"):
        sources = walk_sources(sc, f"{location}/walks")
    num_nodes = count_nodes(location)
    num_tokens = sum(source.num_tokens for source in sources)
    kept_cut = stage.settings_of(location, STAGE, corpus_files.HEADER) or {}
    if partitions is None and episodes in (None, kept_cut.get("episodes")):  # the slots may be others than they were
        partitions, episodes = kept_cut.get("parts"), kept_cut.get("episodes", episodes)
    parts = partitions or block_schedule.default_parts(
        num_nodes, num_tokens, concurrent_tasks(sc) or sc.defaultParallelism
    )
    if parts > num_nodes:
        raise ConfigError(f"partitions={parts}, but there are {num_nodes} nodes; give at most one part a node.")
    if num_nodes < 2:
        raise ConfigError("the walks know one node only: there is nothing to predict. Give a graph with edges.")
    cut = Cut(
        num_nodes,
        sum(source.num_walks for source in sources),
        parts,
        episodes or block_schedule.default_episodes(parts),
        min_count,
        sample,
        seed,
    )
    settings = {**cut.settings(), "inputs": fingerprint(walks, sources)}
    if stage.done(location, STAGE, settings, corpus_files.HEADER):
        return corpus_files.read_header(f"{location}/{STAGE}")
    stage.begin(location, STAGE, settings, corpus_files.HEADER)
    output = f"{location}/{STAGE}"
    if min_count > 1 or sample > 0:
        with described(sc, "counting nodes"):
            _run(sc, sources, _Counting(cut, settings["inputs"], output))
    with described(sc, f"cutting {num_tokens} tokens into {cut.episodes} x {parts} streams"):
        kept = _run(sc, sources, _Cutting(cut, settings["inputs"], output, num_tokens))
    num_kept = sum(kept)
    if num_kept == 0:
        raise ConfigError(
            f"no node occurs {min_count} times in the walks, so min_count={min_count} leaves nothing to train on: "
            "lower it."
        )
    header = corpus_files.Header(
        num_nodes=num_nodes,
        num_walks=cut.num_walks,
        num_tokens=num_kept,
        longest=int(walks["walk_length"]),
        num_parts=parts,
        num_episodes=cut.episodes,
        min_count=min_count,
        sample=sample,
        seed=seed,
        fingerprint=fingerprint(settings, sources),
    )
    corpus_files.write_header(output, header)
    return header


def check(partitions: int | None, episodes: int | None, min_count: int, sample: float) -> None:
    """Raises ConfigError: settings of `prepare` that cannot be used."""
    for name, value in (("partitions", partitions), ("episodes", episodes)):
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value} is less than 1; give a number, or None.")
    if min_count < 0:
        raise ConfigError(f"min_count={min_count} is negative; 0 keeps every node.")
    if not 0 <= sample < 1:
        raise ConfigError(f"sample={sample} is no share of the tokens; give 0 (no subsampling) or about 1e-3 to 1e-5.")


class Cut(NamedTuple):
    """How walks are cut: what all tasks need to know."""

    num_nodes: int
    num_walks: int
    parts: int
    episodes: int
    min_count: int
    sample: float
    seed: int

    def settings(self) -> dict[str, Any]:
        """For the stage's manifest."""
        return self._asdict()


def described(sc: SparkContext, text: str) -> Any:
    """Jobs inside are shown as ``node2vec prepare: <text>``; the former description comes back."""
    return spark_internals.described(sc, f"node2vec prepare: {text}")


def walks_settings(location: str) -> dict[str, Any]:
    """The manifest of the walks. Raises ConfigError: there are none, or they are not complete."""
    found = stage.settings_of(location, "walks")
    if found is None:
        raise ConfigError(f"{location}/walks holds no complete walks: run `node2vec walk` there first.")
    return found


def walk_sources(sc: SparkContext, directory: str) -> list[Source]:
    """All files of walks; tasks read their footers."""
    paths = walk_source.paths_in(directory)
    slots = concurrent_tasks(sc) or sc.defaultParallelism
    shares = sc.parallelize(paths, max(1, min(len(paths), 4 * slots)))
    return walk_source.numbered(paths, shares.map(walk_source.Footer(directory)).collect())


def count_nodes(location: str) -> int:
    """V, from the footers of ``root/ids``."""
    files, folder = file_system(f"{location}/ids")
    total = 0
    for info in files.get_file_info(fs.FileSelector(folder)):
        if info.base_name.endswith(".parquet"):
            with files.open_input_file(info.path) as source:
                total += pq.ParquetFile(source).metadata.num_rows
    return total


def fingerprint(settings: dict[str, Any], sources: list[Source]) -> str:
    """16 hexadecimal digits of settings and files (names and sizes)."""
    import hashlib
    import json

    files = [(source.path.rpartition("/")[2], source.num_walks, source.num_tokens) for source in sources]
    return hashlib.sha256(json.dumps([settings, files], sort_keys=True).encode()).hexdigest()[:16]


def _run(sc: SparkContext, sources: list[Source], task: _Counting | _Cutting) -> list[int]:
    """Map over files, shuffle pieces by group, reduce."""
    pieces = sc.parallelize(sources, max(1, len(sources))).mapPartitions(task.pieces)
    return pieces.partitionBy(task.num_groups, int).mapPartitionsWithIndex(task.write).collect()


class _FileTask:
    """What a task needs beside the walks that it reads."""

    def __init__(self, cut: Cut, inputs: str, output: str):
        self.cut, self.inputs, self.output = cut, inputs, output


class _Counting(_FileTask):
    """Counts of all nodes before any is dropped: ``all-counts-<part>.bin``, which the cutting tasks read."""

    @property
    def num_groups(self) -> int:
        return self.cut.parts

    def pieces(self, sources: Iterable[Source]) -> Iterator[tuple[int, bytes]]:
        for source in sources:
            counts = np.zeros(self.cut.num_nodes, np.int64)
            for _, nodes, _ in walk_source.walks_of(self.output, source):
                counts += np.bincount(nodes, minlength=self.cut.num_nodes)
            for part in range(self.cut.parts):
                yield part, counts[ids_of(part, self.cut)].tobytes()

    def write(self, part: int, pieces: Iterable[tuple[int, bytes]]) -> Iterator[int]:
        counts = np.zeros(block_schedule.part_size(self.cut.num_nodes, part, self.cut.parts), np.int64)
        for _, piece in pieces:
            counts += np.frombuffer(piece, np.int64)
        files, folder = file_system(self.output)
        corpus_files.write_counts(files, f"{folder}/all-{corpus_files.counts_name(part)}", counts)
        yield int(counts.sum())


def counts_name(part: int, group: int) -> str:
    """A file of counts: of the streams that one task wrote."""
    return f"counts-{part:05d}-{group:05d}.bin"


@functools.lru_cache(maxsize=64)
def counts_of(corpus: str, fingerprint: str, part: int) -> npt.NDArray[np.int64]:
    """How often each row of a part occurs in the streams, int64 [n]: the sum over all files of its counts.

    fingerprint: the corpus', for another one may lie there later, and this is kept in a worker.
    """
    files, folder = file_system(corpus)
    names = [info.path for info in files.get_file_info(fs.FileSelector(folder))]
    found = [corpus_files.read_counts(files, path) for path in sorted(names) if f"/counts-{part:05d}-" in path]
    return np.asarray(np.sum(found, axis=0), np.int64)


def ids_of(part: int, cut: Cut) -> npt.NDArray[np.int64]:
    """The ids of a part's rows, in their order."""
    rows = np.arange(block_schedule.part_size(cut.num_nodes, part, cut.parts), dtype=np.int64)
    return np.asarray(block_schedule.id_of(part, rows, cut.parts), np.int64)


class _Cutting(_FileTask):
    """Streams and counts. A group is some episodes of one part, so many that a task can hold them."""

    def __init__(self, cut: Cut, inputs: str, output: str, num_tokens: int):
        super().__init__(cut, inputs, output)
        per_part = 6 * num_tokens // cut.parts
        self.groups_of_part = min(cut.episodes, max(1, -(-per_part // GROUP_BYTES)))

    @property
    def num_groups(self) -> int:
        return self.cut.parts * self.groups_of_part

    def pieces(self, sources: Iterable[Source]) -> Iterator[tuple[int, bytes]]:
        from node2vec import token_streams

        cut = self.cut
        for source in sources:
            for first, nodes, offsets in walk_source.walks_of(self.output, source):
                made = token_streams.streams(
                    nodes, offsets, first, cut.parts, cut.episodes, self._keep(), cut.seed, num_nodes=cut.num_nodes
                )
                for episode, part in itertools.product(range(cut.episodes), range(cut.parts)):
                    group = part * self.groups_of_part + episode % self.groups_of_part
                    head = np.array([first, episode], np.int64)
                    yield group, b"".join([head, *token_streams.to_bytes(made[episode][part])])

    def _keep(self) -> npt.NDArray[Any] | None:
        cut = self.cut
        return None if cut.min_count <= 1 and cut.sample == 0 else _thresholds(self.output, self.inputs, cut)

    def write(self, group: int, pieces: Iterable[tuple[int, bytes]]) -> Iterator[int]:
        from node2vec import token_streams

        part = group // self.groups_of_part
        found: dict[int, list[tuple[int, Stream]]] = {}
        for _, piece in pieces:
            first, episode = np.frombuffer(piece, np.int64, 2).tolist()
            found.setdefault(episode, []).append((first, token_streams.from_bytes(memoryview(piece)[16:])))
        files, folder = file_system(self.output)
        counts = np.zeros(block_schedule.part_size(self.cut.num_nodes, part, self.cut.parts), np.int64)
        for episode, streams in sorted(found.items()):
            stream = token_streams.joined([stream for _, stream in sorted(streams, key=lambda pair: pair[0])])
            corpus_files.write_stream(files, f"{folder}/{corpus_files.stream_name(episode, part)}", stream)
            counts += np.bincount(stream.rows, minlength=len(counts))
        name = counts_name(part, group % self.groups_of_part)
        corpus_files.write_counts(files, f"{folder}/{name}", counts)
        yield int(counts.sum())


@functools.lru_cache(maxsize=1)
def _thresholds(output: str, inputs: str, cut: Cut) -> npt.NDArray[np.uint32] | None:
    """Which tokens stay, by node; see ``token_streams.keep_thresholds``."""
    from node2vec import token_streams

    files, folder = file_system(output)
    counts = np.zeros(cut.num_nodes, np.int64)
    for part in range(cut.parts):
        counts[ids_of(part, cut)] = corpus_files.read_counts(files, f"{folder}/all-{corpus_files.counts_name(part)}")
    return token_streams.keep_thresholds(counts, cut.min_count, cut.sample)
