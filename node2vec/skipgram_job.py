"""The stage *vectors*: skip-gram with negative sampling on Spark by parameter rotation. Its twin: ``block_training``.

A round is one Spark stage of N tasks, each of c cores (``block_schedule``). Task i holds a group of c input parts and
one of c output parts, trains the pairs of these blocks on the token streams of the episode, and passes both on: the
inputs to itself, the outputs to the task that needs them next. No two threads touch the same row, so there are no locks
and no parameter server, and the bits depend on the seed, the parts, the episodes, the cores and the corpus alone.
(GraphVite, Zhu et al., WWW 2019; PyTorch-BigGraph, Lerer et al., MLSys 2019.)

Outputs travel through Spark's shuffle. Large inputs stay on the executor (``resident_tables``), others go the same way.
Every 4 to 16 rounds, by size, the tables are also written down, and the next round begins from the files
(``table_files``). In between, Spark itself recovers lost tasks and shuffle files along the lineage, which never gets
longer than that; where resident tables are lost, the driver goes back to the files. A run that broke off goes on from
the last complete folder. What comes out is ``part-<part>.parquet``: index, vector.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import uuid
from typing import TYPE_CHECKING, Any

from pyspark import SparkContext
from pyspark.sql import DataFrame, SparkSession
from tqdm import tqdm

from node2vec import (
    block_schedule,
    corpus_files,
    resident_tables,
    spark_shuffles,
    stage,
    table_files,
    task_cores,
    training_device,
)
from node2vec.graph_files import absolute
from node2vec.graph_job import IDS, spark_path
from node2vec.rotation import Removal, Rotation
from node2vec.training_device import DEVICES
from sparkdl import spark_conf, spark_internals
from sparkdl.errors import ClusterError, ConfigError, TrainingError
from sparkdl.spark_failures import FAILURES, failure_text, first_line

if TYPE_CHECKING:
    from node2vec.block_training import Training

logger = logging.getLogger("node2vec")

STAGE = "vectors"
ROUNDS_KEPT = 16
BYTES_KEPT = 1 << 30  # of a task's tables in the shuffle files of the rounds kept
LEAST_KEPT = 4
LOST, NO_DEVICE = "sparkdl.errors.StateLost", "sparkdl.errors.ClusterError: "  # what tasks raise
MOST_LOSSES = 3  # of resident tables; after these they are sent, which needs no executor to stay


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
    cores: int | None = None,
    device: str = "auto",
) -> DataFrame:
    """Vectors of all nodes in the corpus at ``root/corpus``: ``root/vectors``, index int and vector array<float>.

    dimensions: of a vector. window: the largest distance of a pair's tokens in a walk. negative: noise nodes a pair.
    ns_exponent: noise is drawn in proportion to counts to this power. alpha, min_alpha: the learning rate falls from
    one to the other, linearly over all pairs. negatives: "shared", noise nodes serve 8 pairs, or "pair", each pair has
    its own, at a third of the speed. init: index, vector of an earlier training; other nodes begin at random. verbose:
    show progress. cores: of a task, a divisor of the corpus' parts; they belong to the vectors' identity. None: those
    of vectors that are there, else ``block_schedule.default_cores``. device: "cpu"; "cuda", for executors with GPUs; or
    "auto", that of vectors that are there, else "cuda" where the session gives GPUs to tasks; part of the identity too.

    Vectors that are there already, of the same settings and corpus, are not made again; a training that broke off goes
    on from its last complete round that was written down.
    Raises ConfigError: settings that cannot be used, no corpus at root, or vectors of other settings there;
    ClusterError: an executor has no GPU; and TrainingError: vectors became infinite or NaN.
    """
    spark_conf.refuse_connect(spark)
    sc = spark.sparkContext
    location = absolute(root)
    check(dimensions, window, negative, ns_exponent, alpha, min_alpha, epochs, negatives, seed, cores, device)
    header = corpus_files.read_header(f"{location}/corpus")
    from node2vec.block_training import Training

    kept = stage.settings_of(location, STAGE) or {}
    if device == "auto":
        gpus = float(sc.getConf().get("spark.task.resource.gpu.amount", "0"))
        device = kept.get("device") or training_device.chosen(device, gpus)
    cores = cores or kept.get("cores") or block_schedule.default_cores(
        header.num_nodes, dimensions, header.num_parts, task_cores.executor_cores(sc)
    )  # fmt: skip
    if header.num_parts % cores:
        raise ConfigError(
            f"cores={cores}, but the corpus has {header.num_parts} parts: a task holds as many parts as it has cores, "
            "so give a divisor of the parts, or prepare the corpus with other partitions."
        )
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
        cores=cores,
        device=device,
    )
    settings = {**training._asdict(), "init": _init_hash(init), "inputs": header.fingerprint}
    if not stage.done(location, STAGE, settings):
        stage.begin(location, STAGE, settings, cut=f"{header.num_parts} files")
        if init is not None:
            _write_init(init, f"{location}/{STAGE}/{table_files.OLD}", training)
        _run(sc, training, location, header.fingerprint, verbose)
        _refuse_not_finite(spark, location)
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
    cores: int | None = None,
    device: str = "auto",
) -> None:
    """Raises ConfigError: settings of `train` that cannot be used."""
    counts = {"dimensions": dimensions, "window": window, "epochs": epochs, "cores": 1 if cores is None else cores}
    for name, value in counts.items():
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
    if device not in DEVICES:
        raise ConfigError(f'device={device!r} is unknown; choose "auto", "cpu" or "cuda".')


def described(sc: SparkContext, text: str) -> Any:
    """Jobs inside are shown as ``node2vec train: <text>``; the former description comes back."""
    return spark_internals.described(sc, f"node2vec train: {text}")


def _run(sc: SparkContext, training: Training, location: str, fingerprint: str, verbose: bool) -> None:
    """All rounds from the last folder that is complete on."""
    output = f"{location}/{STAGE}"
    largest = 4 * training.dimensions * -(-training.num_nodes // training.num_groups)
    stay = task_cores.all_at_once(sc, training.num_groups, training.cores)
    resident = stay and largest >= resident_tables.LARGE
    total = training.num_group_rounds
    bar = tqdm(total=total, desc="training", unit="round", disable=not (verbose and sys.stderr.isatty()))
    run, losses = uuid.uuid4().hex[:12], 0
    try:
        while True:
            name = f"{run}-{losses}" if resident and losses < MOST_LOSSES else None
            every = rounds_kept(training, name is not None)
            try:
                _rounds(sc, Rotation(training, f"{location}/corpus", fingerprint, output, every, name), total, bar)
                break
            except FAILURES as error:
                text = failure_text(error)
                if NO_DEVICE in text:
                    raise ClusterError(first_line(text).removeprefix(NO_DEVICE)) from error
                if name is None or LOST not in text:
                    raise
                losses += 1
                logger.warning(
                    "tables on an executor were lost (%d of %d times, then they are sent through the shuffle): going "
                    "back to round %d of %d", losses, MOST_LOSSES, table_files.complete_rounds(output), total
                )  # fmt: skip
    finally:
        bar.close()


def _refuse_not_finite(spark: SparkSession, location: str) -> None:
    """Remove what only the training needed. Raises TrainingError: some vectors cannot be used."""
    output = f"{location}/{STAGE}"
    found = table_files.not_finite(output)
    table_files.clear(output)
    if found is None:
        return
    first, count = found
    row = spark.read.parquet(spark_path(f"{location}/{IDS}")).filter(f"index = {first}").head()
    others = {1: "", 2: " and one other"}.get(count, f" and {count - 1:,} others")
    raise TrainingError(
        f"the vector of node {row['id'] if row else first}{others} became infinite or NaN in training: use a smaller "
        "alpha."
    )


def _rounds(sc: SparkContext, later: Rotation, total: int, bar: Any) -> None:
    """The rounds that are left. Raises what Spark raises, also if resident tables are lost."""
    training, output = later.training, later.output
    groups = training.num_groups
    form = spark_shuffles.shuffles(sc, groups, groups + 1, _nothing, received=later.received, cores=training.cores)
    begun = table_files.complete_rounds(output)
    bar.update(begun - bar.n)
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
        if later.resident is not None:
            _remove_resident(sc, form, later.resident)
        form.close()


def _remove_resident(sc: SparkContext, form: spark_shuffles.Shuffles, name: str) -> None:
    """On every executor that has tables of this name; one that is gone has lost them anyway."""
    try:
        with described(sc, "removing tables"):
            removing = form.born(Removal(name))
            form.run(removing)
            form.drop([removing])
    except Exception:
        logger.debug("resident tables were not removed; Spark does it with the application", exc_info=True)


def story(number: int, training: Training) -> str:
    """What the Spark UI shows of a round."""
    this = training.group_round(number)
    epoch = f"epoch {this.epoch + 1} of {training.epochs}, " if training.epochs > 1 else ""
    turn = f"round {this.turn + 1} of {training.num_groups}"
    return f"{epoch}episode {this.episode + 1} of {training.num_episodes}, {turn}"


def rounds_kept(training: Training, resident: bool = False) -> int:
    """Rounds whose tables stay in shuffle files, until they are written down."""
    num_bytes = (4 if resident else 8) * training.dimensions * -(-training.num_nodes // training.num_groups)
    return max(min(LEAST_KEPT, ROUNDS_KEPT), min(ROUNDS_KEPT, BYTES_KEPT // num_bytes))


def _nothing(part: int) -> None:
    """A token needs nothing on its executor."""


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
