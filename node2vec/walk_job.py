"""The stage *walk*: from an indexed graph to ``root/walks``, in whichever home of the graph suits.

    root/graph, root/ids      what indexing made
    root/walks/part-*.parquet one column walk: array<int>, vertex numbers; see walk_files

What can be wrong with the arguments is said before any job runs, apart from start nodes, which are looked up in
``root/ids``. The marker of the stage is written last: walks that broke off do not count, but of a run with the same
settings, cut in the same way, the complete files stay.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark import SparkContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from node2vec import replicated_walk_job, stage
from node2vec.graph_files import Header, absolute, file_system, read_header
from node2vec.graph_job import spark_path
from node2vec.walk_home import HOMES, WalkHome, choose
from node2vec.walk_request import WalkRequest, cut
from sparkdl import spark_conf
from sparkdl.errors import ClusterError, ConfigError
from sparkdl.spark_internals import concurrent_tasks

logger = logging.getLogger("node2vec")

STAGE = "walks"
MOST_ASKED = 64  # tasks that look how much memory their host has


def walk(
    spark: SparkSession,
    root: str | os.PathLike[str],
    p: float = 1.0,
    q: float = 1.0,
    num_walks: int = 10,
    walk_length: int = 80,
    start_nodes: Iterable[Any] | None = None,
    extend: bool = False,
    gamma: float = 0.0,
    seed: int = 0,
    partitions: int | None = None,
    home: str = "auto",
    verbose: bool = True,
) -> DataFrame:
    """Walk the graph in ``root/graph`` into ``root/walks``: `num_walks` walks of `walk_length` nodes from each start.

    start_nodes: ids as they were given when the graph was indexed; each counts once; None: all nodes. A node without
    edges gives walks of one node. extend, gamma: node2vec+ on weighted graphs. partitions: tasks of the replicated
    home, executors' shares of the graph in the partitioned one; it changes no walk. home: "auto", "replicated" or
    "partitioned", see ``walk_home``; verbose: print the choice.

    Returns the walks, one column ``walk: array<int>``; `with_ids` turns them into ids. Walks that are there already,
    of the same settings, are not made again.
    Raises ConfigError: arguments that make no walks; no graph at root; unknown start nodes; ``root/walks`` holds walks
    of other settings. ClusterError: executors write where the driver cannot see it.
    """
    spark_conf.refuse_connect(spark)
    request = WalkRequest(p=p, q=q, num_walks=num_walks, walk_length=walk_length, extend=extend, gamma=gamma, seed=seed)
    if partitions is not None and partitions < 1:
        raise ConfigError(f"partitions={partitions} is less than 1; give a number of tasks, or None.")
    if home not in HOMES:
        raise ConfigError(f"home={home!r} is unknown; choose one of {', '.join(HOMES)}.")
    location = absolute(root)
    header = read_header(f"{location}/graph")
    starts = None if start_nodes is None else start_numbers(spark, location, start_nodes)
    settings = {**request.settings(starts), "inputs": header.fingerprint}
    if not stage.done(location, STAGE, settings):
        sc = spark.sparkContext
        chosen = choose_home(sc, location, header, request, starts, home)
        if verbose:
            sys.stdout.write(f"{chosen}\n")
        cut_into, write = _plan(sc, chosen, location, header, request, starts, partitions)
        there = stage.begin(location, STAGE, settings, cut=cut_into)
        if there:
            logger.info("%s/%s: %d files of a run that broke off are complete and stay", location, STAGE, len(there))
        parts = write(there)
        _refuse_missing(location, [part.name for part in parts])
        stage.finish(location, STAGE)
    return spark.read.schema("walk array<int>").parquet(
        spark_path(f"{location}/{STAGE}"), pathGlobFilter="part-*.parquet"
    )


def is_done(root: str | os.PathLike[str], request: WalkRequest) -> bool:
    """Whether the walks of all nodes are at root already: no Spark is needed to tell.

    Raises ConfigError: no graph at root, or walks of other settings.
    """
    location = absolute(root)
    settings = {**request.settings(None), "inputs": read_header(f"{location}/graph").fingerprint}
    return stage.done(location, STAGE, settings)


def start_numbers(spark: SparkSession, location: str, ids: Iterable[Any]) -> npt.NDArray[np.int32]:
    """The vertex numbers of these ids, ascending, each once: int32 [S].

    Raises ConfigError: no ids, ids of another type than the graph's, ids that are not in the graph.
    """
    wanted = [value.item() if isinstance(value, np.generic) else value for value in ids]
    if not wanted:
        raise ConfigError("start_nodes is empty: no walk would start. Give ids, or None for all nodes.")
    table = spark.read.parquet(spark_path(f"{location}/ids"))
    is_text = isinstance(table.schema["id"].dataType, T.StringType)
    wrong = [value for value in wanted if isinstance(value, bool) or not isinstance(value, str if is_text else int)]
    if wrong:
        kind = "strings" if is_text else "integers"
        raise ConfigError(f"start_nodes holds {wrong[0]!r}, but the ids of this graph are {kind}.")
    asked = spark.createDataFrame(
        [(value,) for value in dict.fromkeys(wanted)], f"id {'string' if is_text else 'bigint'}"
    )
    key = F.col("id") if is_text else F.col("id").cast("bigint").alias("id")
    with replicated_walk_job.described(spark.sparkContext, "looking up start nodes"):
        found = asked.join(table.select(key, "index"), "id", "left").collect()
    missing = [row["id"] for row in found if row["index"] is None]
    if missing:
        named = ", ".join(repr(value) for value in sorted(missing)[:5])
        raise ConfigError(
            f"{len(missing)} of {len(found)} start nodes are not in the graph: {named}"
            f"{', ...' if len(missing) > 5 else ''}. Leave them out."
        )
    return np.sort(np.array([row["index"] for row in found], np.int32))


def choose_home(
    sc: SparkContext,
    location: str,
    header: Header,
    request: WalkRequest,
    starts: npt.NDArray[np.int32] | None,
    home: str,
) -> WalkHome:
    """Ask the executors' hosts for their memory, unless this host is the only one, and weigh the homes."""
    slots = _slots(sc)
    is_local = re.match(r"local(\[|$)", sc.master or "") is not None
    if is_local:
        hosts = {"": spark_conf.memory_mb()}
    else:
        asked = min(slots, MOST_ASKED)
        with replicated_walk_job.described(sc, "memory of the hosts"):
            hosts = dict(sc.parallelize(range(asked), asked).map(replicated_walk_job.host_memory).collect())
    heap = _megabytes(sc.getConf().get("spark.driver.memory" if is_local else "spark.executor.memory", "1g"))
    return choose(
        header,
        request.num_walks * (header.num_nodes if starts is None else len(starts)),
        request.walk_length,
        host_memory=max(0, min(hosts.values()) - heap) << 20,
        hosts=len(hosts),
        slots=slots,
        local="://" not in location and len(header.parts) == 1,
        extend=request.extend,
        home=home,
    )


def _slots(sc: SparkContext) -> int:
    return concurrent_tasks(sc) or sc.defaultParallelism


def _megabytes(text: str) -> int:
    units = {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1024**2}
    number = text.strip().lower().removesuffix("b")
    if number[-1:] in units:
        return int(float(number[:-1]) * units[number[-1]])
    return int(number) >> 20 if int(number) > 1 << 20 else int(number)  # Spark reads a bare number as MiB


def _plan(
    sc: SparkContext,
    chosen: WalkHome,
    location: str,
    header: Header,
    request: WalkRequest,
    starts: npt.NDArray[np.int32] | None,
    partitions: int | None,
) -> tuple[str, Callable[[frozenset[str]], list[replicated_walk_job.Part]]]:
    """How the walks are cut into files, and what writes those that are not there yet."""
    graph, output, fields = f"{location}/graph", f"{location}/{STAGE}", request.fields()
    if chosen.home == "partitioned":
        from node2vec import partitioned_walk_job

        num_starts = header.num_nodes if starts is None else len(starts)
        rounds = partitioned_walk_job.rounds_of(sc, request, num_starts, partitions)
        files = sum(this.num_buckets for this in rounds)
        return f"partitioned, {len(rounds)} rounds, {files} files", lambda there: partitioned_walk_job.write_walks(
            sc, graph, header.fingerprint, output, fields, starts, parts=partitions, there=there
        )
    tasks = partitions or replicated_walk_job.num_tasks(chosen.num_walks * request.walk_length, _slots(sc))
    ranges = cut(chosen.num_walks, tasks)
    return f"replicated, {len(ranges)} files", lambda there: replicated_walk_job.write_walks(
        sc, graph, header.fingerprint, header.num_nodes, output, fields, starts, ranges, there
    )


def _refuse_missing(location: str, names: list[str]) -> None:
    files, folder = file_system(location)
    paths = [f"{folder}/{STAGE}/{name}" for name in names]
    missing = [info.path for info in files.get_file_info(paths) if not info.is_file]
    if missing:
        raise ClusterError(
            f"executors wrote {missing[0]}, but the driver does not see it: root must be a directory that all of them "
            "share, such as hdfs:// or s3a://."
        )


def with_ids(spark: SparkSession, root: str | os.PathLike[str], walks: DataFrame) -> DataFrame:
    """Walks with the ids that the edges were given with: one column ``walk: array<type of the ids>``.

    `walks`: a column ``walk`` of vertex numbers, as `walk` gives it. The order of the rows is lost.
    """
    table = spark.read.parquet(spark_path(f"{absolute(root)}/ids"))
    numbered = walks.select(F.monotonically_increasing_id().alias("row"), "walk")
    steps = numbered.select("row", F.posexplode("walk").alias("step", "index"))
    named = (
        steps.join(table, "index").groupBy("row").agg(F.array_sort(F.collect_list(F.struct("step", "id"))).alias("s"))
    )
    return named.select(F.col("s.id").alias("walk"))
