"""The command ``node2vec``: one stage a call, each of which is done at once if its result is there already.

Exit codes: 0 done, 1 the input or a setting cannot be used, 2 wrong usage, 3 the cluster failed: run it again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import types as T

from node2vec import edge_source, graph_job, walk_job
from node2vec.walk_home import HOMES
from node2vec.walk_request import WalkRequest
from sparkdl import spark_conf
from sparkdl.errors import ClusterError, ConfigError
from sparkdl.spark_failures import FAILURES, failure_text, first_line

DONE, BAD_INPUT, BAD_CLUSTER = 0, 1, 3

_EPILOG = """
exit codes: 0 done, or done before; 1 the input or a setting cannot be used; 2 wrong usage; 3 the cluster failed, the
same command goes on. Under spark-submit the session is the one that it was asked for.
"""

_INDEX = """
Read edges, number their nodes by degree, and write the graph to DIR/graph and the ids to DIR/ids. Prints a report of
what the edges held. Does nothing if DIR holds the graph of these edges and settings already.
"""

_WALK = """
Walk the graph that `node2vec index` left in DIR, and write the walks to DIR/walks as Parquet: one column `walk`, a list
of the nodes' numbers (DIR/ids says which id each is). Does nothing if DIR holds these walks already. The same settings
give the same walks on any cluster.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parsed = parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except ConfigError as error:
        return _complain(str(error), BAD_INPUT)
    except ClusterError as error:
        return _complain(str(error), BAD_CLUSTER)
    except FAILURES as error:
        return _complain(first_line(failure_text(error)), BAD_CLUSTER)
    return DONE


def parser() -> argparse.ArgumentParser:
    """All commands with their options and help."""
    top = argparse.ArgumentParser(
        prog="node2vec", description="Node embeddings of large graphs, on Spark.", epilog=_EPILOG
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="{index,walk}")
    _add_index(commands.add_parser("index", help="edges -> graph", description=_INDEX, epilog=_EPILOG))
    _add_walk(commands.add_parser("walk", help="graph -> walks", description=_WALK, epilog=_EPILOG))
    return top


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--root",
        required=True,
        metavar="DIR",
        help="directory or URI that all hosts share; each stage has a folder in it",
    )
    command.add_argument(
        "--master", help="Spark master, as local[4] or yarn (default: an embedded session on all cores)"
    )


def _add_index(command: argparse.ArgumentParser) -> None:
    _add_common(command)
    command.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="files, directories or globs of edges; .gz is read too",
    )
    command.add_argument(
        "--format", choices=("parquet", "csv", "tsv", "edgelist"), help="of the input, where the names do not say it"
    )
    command.add_argument("--src", default="src", help="column of an edge's first node (default: %(default)s)")
    command.add_argument("--dst", default="dst", help="column of its second node (default: %(default)s)")
    command.add_argument(
        "--weight", default="weight", help="column of its weight, used if there (default: %(default)s)"
    )
    command.add_argument("--unweighted", action="store_true", help="leave weights out")
    command.add_argument("--directed", action="store_true", help="an edge leads from src to dst only")
    command.add_argument(
        "--multi-edges",
        choices=("sum", "max", "first"),
        default="sum",
        help="weight of an edge given several times: the sum, the largest, or the smallest (default: %(default)s)",
    )
    command.add_argument(
        "--self-loops",
        choices=("keep", "drop"),
        default="keep",
        help="edges of a node to itself (default: %(default)s)",
    )
    command.add_argument(
        "--bad-weights",
        choices=("raise", "drop"),
        default="raise",
        help="edges whose weight is no positive number: an error, or left out (default: %(default)s)",
    )
    command.add_argument(
        "--max-degree",
        type=int,
        metavar="N",
        help="keep N edges of a node that has more, chosen by a hash (default: all)",
    )
    command.add_argument("--parts", type=int, metavar="N", help="files of the graph (default: one for each 256 MB)")
    command.set_defaults(run=index)


def _add_walk(command: argparse.ArgumentParser) -> None:
    _add_common(command)
    command.add_argument("--p", type=float, default=1.0, help="return parameter: above 1 goes back less (default: 1)")
    command.add_argument("--q", type=float, default=1.0, help="in-out parameter: above 1 stays closer (default: 1)")
    command.add_argument(
        "--num-walks", type=int, default=10, metavar="N", help="walks of each start node (default: 10)"
    )
    command.add_argument("--walk-length", type=int, default=80, metavar="N", help="nodes of a walk (default: 80)")
    command.add_argument("--start-nodes", metavar="FILE", help="text file of ids, one a line (default: all nodes)")
    command.add_argument("--extend", action="store_true", help="node2vec+, which heeds how weak an edge is")
    command.add_argument("--gamma", type=float, default=0.0, help="its noise parameter (default: 0)")
    command.add_argument("--seed", type=int, default=0, help="of the random numbers (default: 0)")
    command.add_argument("--partitions", type=int, metavar="N", help="tasks (default: a few for each slot)")
    command.add_argument(
        "--home",
        choices=HOMES,
        default="auto",
        help="the graph whole on every host, or cut over the executors (default: by a cost model, which is printed)",
    )
    command.set_defaults(run=walk)


def index(parsed: argparse.Namespace) -> None:
    """``node2vec index``. Raises what `graph_job.index` raises."""
    spark = spark_conf.session_on(parsed.master)
    weight = None if parsed.unweighted else parsed.weight
    edges = edge_source.edges_of(spark, parsed.input, parsed.src, parsed.dst, weight, parsed.format)
    report = graph_job.index(
        spark,
        edges,
        parsed.root,
        directed=parsed.directed,
        multi_edges=parsed.multi_edges,
        self_loops=parsed.self_loops,
        bad_weights=parsed.bad_weights,
        max_degree=parsed.max_degree,
        parts=parsed.parts,
    )
    print(report)
    print(f"the graph is in {parsed.root}/graph")


def walk(parsed: argparse.Namespace) -> None:
    """``node2vec walk``. Raises what `walk_job.walk` raises."""
    names = ("p", "q", "num_walks", "walk_length", "extend", "gamma", "seed")
    settings: dict[str, Any] = {name: getattr(parsed, name) for name in names}
    request = WalkRequest(**settings)
    if parsed.start_nodes is not None or not walk_job.is_done(parsed.root, request):
        spark = spark_conf.session_on(parsed.master)
        starts = None if parsed.start_nodes is None else _ids(spark, parsed.root, parsed.start_nodes)
        walk_job.walk(
            spark, parsed.root, **settings, start_nodes=starts, partitions=parsed.partitions, home=parsed.home
        )
    print(f"the walks are in {parsed.root}/walks")


def _ids(spark: SparkSession, root: str, path: str) -> list[Any]:
    """The ids in a text file, of the type that the graph's have."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"the start nodes cannot be read: {error}.") from error
    lines = [line for line in lines if line]
    kind = spark.read.parquet(graph_job.spark_path(f"{root}/ids")).schema["id"].dataType
    if isinstance(kind, T.StringType):
        return lines
    try:
        return [int(line) for line in lines]
    except ValueError as error:
        raise ConfigError(f"the ids of this graph are integers, but {path} holds others: {error}.") from error


def _complain(sentence: str, code: int) -> int:
    print(f"node2vec: {sentence}", file=sys.stderr)
    return code
