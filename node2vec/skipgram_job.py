"""The stage *vectors*: skip-gram with negative sampling on Spark by parameter rotation. Its twin: ``block_training``.

A round is one Spark stage of P tasks. Task i holds input part i and one output part, trains the pairs of that block on
the token streams of the episode, and sends both tables on: the input part to itself, the output part to the task that
needs it next. No two tasks touch the same row, so there are no locks and no parameter server, and the bits depend on
the seed, the parts, the episodes and the corpus alone. (GraphVite, Zhu et al., WWW 2019; PyTorch-BigGraph, Lerer et
al., MLSys 2019.)

Every 4 to 16 rounds, by size, the tables are also written down, and the next round begins from the files
(``table_files``).
In between, Spark itself recovers lost tasks and shuffle files along the lineage, which never gets longer than that.
A run that broke off goes on from the last complete folder. What comes out is ``part-<part>.parquet``: index, vector.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark import SparkContext
from pyspark.sql import DataFrame, SparkSession
from tqdm import tqdm

from node2vec import block_schedule, corpus_files, spark_shuffles, stage, table_files, table_pieces
from node2vec.corpus_job import counts_of
from node2vec.graph_files import absolute, file_system
from node2vec.graph_job import spark_path
from node2vec.table_pieces import Blob, Table
from sparkdl import spark_conf, spark_internals, worker_heap
from sparkdl.errors import ConfigError

if TYPE_CHECKING:
    from node2vec.block_training import Training

STAGE = "vectors"
ROUNDS_KEPT = 16
BYTES_KEPT = 1 << 30  # of a task's tables in the shuffle files of the rounds kept
LEAST_KEPT = 4
PIECE_BYTES = 2 << 20


def train(
    spark: SparkSession,
    root: str | os.PathLike[str],
    dimensions: int = 128,
    window: int = 10,
    negative: int = 5,
    ns_exponent: float = 0.75,
    alpha: float = 0.025,
    min_alpha: float = 0.0001,
    epochs: int = 1,
    negatives: str = "shared",
    init: DataFrame | None = None,
    seed: int = 0,
    verbose: bool = True,
) -> DataFrame:
    """Vectors of all nodes in the corpus at ``root/corpus``: ``root/vectors``, index int and vector array<float>.

    dimensions: of a vector. window: the largest distance of a pair's tokens in a walk. negative: noise nodes a pair.
    ns_exponent: noise is drawn in proportion to counts to this power. alpha, min_alpha: the learning rate falls from
    one to the other, linearly over all pairs. negatives: "shared", noise nodes serve 8 pairs, or "pair", each pair has
    its own, at a third of the speed. init: index, vector of an earlier training; other nodes begin at random. verbose:
    show progress.

    Vectors that are there already, of the same settings and corpus, are not made again; a training that broke off goes
    on from its last complete round that was written down.
    Raises ConfigError: settings that cannot be used, no corpus at root, or vectors of other settings there.
    """
    spark_conf.refuse_connect(spark)
    sc = spark.sparkContext
    location = absolute(root)
    check(dimensions, window, negative, ns_exponent, alpha, min_alpha, epochs, negatives, seed)
    header = corpus_files.read_header(f"{location}/corpus")
    from node2vec.block_training import Training

    training = Training(
        dimensions=dimensions,
        window=window,
        negative=negative,
        keep=8 if negatives == "shared" else 1,
        ns_exponent=ns_exponent,
        alpha=alpha,
        min_alpha=min_alpha,
        epochs=epochs,
        seed=seed,
        num_parts=header.num_parts,
        num_episodes=header.num_episodes,
        num_nodes=header.num_nodes,
        num_walks=header.num_walks,
    )
    settings = {**training._asdict(), "init": _init_hash(init), "inputs": header.fingerprint}
    if not stage.done(location, STAGE, settings):
        stage.begin(location, STAGE, settings, cut=f"{header.num_parts} files")
        if init is not None:
            _write_init(init, f"{location}/{STAGE}/{table_files.OLD}", training)
        _run(sc, training, location, header.fingerprint, verbose)
        stage.finish(location, STAGE)
    return spark.read.schema("index int, vector array<float>").parquet(
        spark_path(f"{location}/{STAGE}"), pathGlobFilter="part-*.parquet"
    )


def check(
    dimensions: int,
    window: int,
    negative: int,
    ns_exponent: float,
    alpha: float,
    min_alpha: float,
    epochs: int,
    negatives: str,
    seed: int = 0,
) -> None:
    """Raises ConfigError: settings of `train` that cannot be used."""
    for name, value in (("dimensions", dimensions), ("window", window), ("epochs", epochs)):
        if value < 1:
            raise ConfigError(f"{name}={value} is less than 1; give 1 or more.")
    if negative < 0:
        raise ConfigError(f"negative={negative} is negative; give the number of noise nodes a pair, about 5.")
    if not (alpha > 0 and 0 <= min_alpha <= alpha):
        raise ConfigError(
            f"alpha={alpha} and min_alpha={min_alpha}: the learning rate falls from alpha, above 0, to min_alpha, "
            "which is between 0 and alpha."
        )
    if not math.isfinite(ns_exponent):
        raise ConfigError(f"ns_exponent={ns_exponent} is no power; word2vec uses 0.75.")
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed={seed} does not fit 64 bits: give 0 to 2^64 - 1.")
    if negatives not in ("shared", "pair"):
        raise ConfigError(f'negatives={negatives!r} is unknown; choose "shared" or "pair".')


def described(sc: SparkContext, text: str) -> Any:
    """Jobs inside are shown as ``node2vec train: <text>``; the former description comes back."""
    return spark_internals.described(sc, f"node2vec train: {text}")


def _run(sc: SparkContext, training: Training, location: str, fingerprint: str, verbose: bool) -> None:
    """All rounds from the last folder that is complete on."""
    parts = training.num_parts
    total = training.epochs * training.num_episodes * parts
    output = f"{location}/{STAGE}"
    begun = table_files.complete_rounds(output)
    later = _Rotation(training, f"{location}/corpus", fingerprint, output)
    form = spark_shuffles.shuffles(
        sc, parts, parts + 1, _nothing, received=2 * table_pieces.pieces_of(training, PIECE_BYTES).number
    )
    bar = tqdm(total=total, initial=begun, desc="training", unit="round", disable=not (verbose and sys.stderr.isatty()))
    try:
        while begun < total:
            stop = min(total, (begun // later.every + 1) * later.every)
            sent: list[Any] = []
            try:
                for number in range(begun, stop):
                    sent.append(form.moved(sent[-1], later) if sent else form.born(later.beginning(begun)))
                    with described(sc, story(number, training)):
                        form.run(sent[-1])
                    bar.update()
            finally:
                form.drop(sent)
            if stop < total:
                table_files.complete(output, stop)
            begun = stop
    finally:
        bar.close()
        form.close()
    table_files.clear(output)


def story(number: int, training: Training) -> str:
    """What the Spark UI shows of a round."""
    this = block_schedule.round_at(number, training.num_parts, training.num_episodes)
    epoch = f"epoch {this.epoch + 1} of {training.epochs}, " if training.epochs > 1 else ""
    return (
        f"{epoch}episode {this.episode + 1} of {training.num_episodes}, round {this.turn + 1} of {training.num_parts}"
    )


def rounds_kept(training: Training) -> int:
    """Rounds whose tables stay in shuffle files, until they are written down."""
    num_bytes = 8 * training.dimensions * -(-training.num_nodes // training.num_parts)
    return max(min(LEAST_KEPT, ROUNDS_KEPT), min(ROUNDS_KEPT, BYTES_KEPT // num_bytes))


def _nothing(part: int) -> None:
    """A token needs nothing on its executor."""


class _Rotation:
    """What a task of a round runs; its number comes with the tables, so all rounds but the first share one object."""

    def __init__(
        self,
        training: Training,
        corpus: str,
        fingerprint: str,
        output: str,
        begin: int | None = None,
    ):
        self.training, self.corpus, self.fingerprint, self.output = training, corpus, fingerprint, output
        self.begin, self.every = begin, rounds_kept(training)
        self.pieces = table_pieces.pieces_of(training, PIECE_BYTES)

    def beginning(self, number: int) -> _Rotation:
        """The round that begins from files, or, at 0, from the seed."""
        return _Rotation(self.training, self.corpus, self.fingerprint, self.output, number)

    def __call__(self, split: int, blobs: Iterable[bytes]) -> Iterator[tuple[int, Blob]]:
        from node2vec import block_training

        training = self.training
        parts = training.num_parts
        if self.begin is None:
            number, inputs, outputs = table_pieces.received(training, self.pieces, split, blobs)
        else:
            number = self.begin
            inputs, outputs = self._begun(split)
        this = block_schedule.round_at(number, parts, training.num_episodes)
        other = block_schedule.output_part(split, this, parts)
        files, folder = file_system(self.corpus)
        centres = corpus_files.read_stream(files, f"{folder}/{corpus_files.stream_name(this.episode, split)}")
        contexts = corpus_files.read_stream(files, f"{folder}/{corpus_files.stream_name(this.episode, other)}")
        counts = counts_of(self.corpus, self.fingerprint, other)
        block_training.train_round(training, this, split, inputs, outputs, centres, contexts, counts)
        worker_heap.set_apart()
        if number + 1 == training.epochs * training.num_episodes * parts:
            own = counts_of(self.corpus, self.fingerprint, split)
            rows = np.flatnonzero(own)  # a node that no walk holds has no vector
            index = np.asarray(block_schedule.id_of(split, rows, parts), np.int32)
            table_files.write_vectors(self.output, split, index, inputs[rows])
        elif (number + 1) % self.every == 0:
            table_files.write_tables(self.output, number + 1, (split, inputs), (other, outputs))
        else:
            yield from table_pieces.cut(self.pieces, split, (table_pieces.IN, number + 1, split), inputs)
            to = block_schedule.next_holder(other, this, parts, training.num_episodes)
            yield from table_pieces.cut(self.pieces, to, (table_pieces.OUT, number + 1, other), outputs)

    def _begun(self, split: int) -> tuple[Table, Table]:
        """Tables from files, or from the seed."""
        from node2vec import skipgram

        training, number = self.training, self.begin or 0
        parts = training.num_parts
        other = block_schedule.output_part(split, block_schedule.round_at(number, parts, training.num_episodes), parts)
        if number:
            return table_files.read_tables(self.output, number, split, other)
        inputs = skipgram.initial_inputs(training.num_nodes, training.dimensions, training.seed, split, parts)
        table_files.put_old_rows(self.output, split, inputs)
        size = block_schedule.part_size(training.num_nodes, other, parts)
        return inputs, np.zeros((size, training.dimensions), np.float32)


def _init_hash(init: DataFrame | None) -> str | None:
    if init is None:
        return None
    from pyspark.sql import functions as F

    word = F.xxhash64("index", "vector")
    row = init.agg(
        F.count("*").alias("rows"),
        F.sum(F.shiftrightunsigned(word, 33)).alias("high"),
        F.sum(word.bitwiseAND(F.lit(0x7FFFFFFF))).alias("low"),
    ).head()
    assert row is not None
    return f"{row['rows']}-{row['high'] or 0:x}-{row['low'] or 0:x}"


def _write_init(init: DataFrame, path: str, training: Training) -> None:
    """Old vectors by part and row."""
    from pyspark.sql import functions as F

    parts = training.num_parts
    wrong = init.filter(F.size("vector") != training.dimensions).head()
    if wrong is not None:
        raise ConfigError(
            f"init holds vectors of {len(wrong['vector'])} numbers, but dimensions={training.dimensions}: train with "
            "the dimensions of the old model."
        )
    row = F.expr(f"index div {parts}")
    place = F.expr(f"index % {parts}")
    part = F.when(row % 2 == 0, place).otherwise(parts - 1 - place)
    init.select(row.cast("int").alias("row"), "vector", part.cast("int").alias("part")).write.partitionBy("part").mode(
        "overwrite"
    ).parquet(spark_path(path))
