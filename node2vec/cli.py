"""The command ``node2vec``: from edges to vectors in one call or stage by stage, and what the vectors say.

Each stage is done at once if its result is there already. Exit codes: 0 done, 1 the input or a setting cannot be used,
2 wrong usage, 3 the cluster failed: run it again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import types as T

from node2vec import cli_options, corpus_job, edge_source, finished_stages, graph_job, skipgram_job, walk_job
from node2vec import workflow as workflows
from node2vec.cli_options import Parser, chosen
from node2vec.edge_source import Edges
from node2vec.estimator import Node2Vec, working_root
from node2vec.vectors_output import output_at
from node2vec.walk_request import WalkRequest
from sparkdl import spark_conf
from sparkdl.errors import ClusterError, ConfigError, TrainingError
from sparkdl.spark_failures import FAILURES, failure_text, first_line

DONE, BAD_INPUT, BAD_CLUSTER, INTERRUPTED = 0, 1, 3, 130

_EPILOG = """
exit codes: 0 done, or done before; 1 the input or a setting cannot be used; 2 wrong usage; 3 the cluster failed, the
same command goes on. Under spark-submit the session is the one that it was asked for.
"""

_RUN = """
All stages: read edges, index them, walk, prepare the walks, train vectors, and write these to FILE, which appears whole
or not at all. With --root, stages that are done there are not done again, and a run that broke off goes on.
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

_PREPARE = """
Cut the walks in DIR/walks into the streams that training reads, and write these to DIR/corpus. Does nothing if DIR
holds them already.
"""

_TRAIN = """
Learn vectors from DIR/corpus by skip-gram with negative sampling, and write them to DIR/vectors. Does nothing if DIR
holds these vectors already; a training that broke off goes on where it was.
"""

_NEIGHBORS = """
Print the nodes whose vectors are most similar to those of the nodes given: a line for each, with the node asked for,
the neighbour and the cosine of both, separated by tabs.
"""

_EVAL = """
Print how well labels of nodes, or edges that were held out of the graph, are predicted from the vectors in DIR/vectors,
by the protocols of the node2vec paper: a name and a number a line, with a tab between them.
"""

_EXPORT = "Write the vectors in DIR/vectors to FILE, which appears whole or not at all."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parsed = parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except (ConfigError, TrainingError) as error:
        return _complain(str(error), BAD_INPUT)
    except ClusterError as error:
        return _complain(str(error), BAD_CLUSTER)
    except FAILURES as error:
        return _complain(first_line(failure_text(error)), BAD_CLUSTER)
    except OSError as error:
        return _complain(f"a file cannot be read or written: {error}", BAD_CLUSTER)
    except KeyboardInterrupt:
        return _complain("interrupted; the same command goes on.", INTERRUPTED)
    return DONE


def parser() -> argparse.ArgumentParser:
    """All commands with their options and help."""
    top = Parser(prog="node2vec", description="Node embeddings of large graphs, on Spark.", epilog=_EPILOG)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")

    def command(name: str, what: str, text: str, run: Any, root: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=what, description=text, epilog=_EPILOG)
        cli_options.add_root(made, required=root)
        cli_options.add_foreign(made)
        made.set_defaults(run=run)
        return made

    made = command("run", "edges -> vectors, all stages", _RUN, run, root=False)
    cli_options.add_output(made)
    cli_options.add_seed(made)
    for add in (
        cli_options.add_edges,
        cli_options.add_graph,
        cli_options.add_walk,
        cli_options.add_corpus,
        cli_options.add_training,
    ):
        add(made)
    made = command("index", "edges -> graph", _INDEX, index)
    cli_options.add_edges(made)
    cli_options.add_graph(made)
    made.add_argument("--parts", type=int, metavar="N", help="files of the graph (default: one for each 256 MB)")
    made = command("walk", "graph -> walks", _WALK, walk)
    cli_options.add_seed(made)
    cli_options.add_walk(made)
    cli_options.add_walk_plan(made)
    made = command("prepare", "walks -> corpus", _PREPARE, prepare)
    cli_options.add_seed(made)
    cli_options.add_corpus(made)
    made = command("train", "corpus -> vectors", _TRAIN, train)
    cli_options.add_seed(made)
    cli_options.add_training(made)
    made = command("neighbors", "the nodes most similar to some", _NEIGHBORS, neighbors)
    made.add_argument("ids", nargs="+", metavar="ID", help="of a node, as in the edges; after -- if it begins with -")
    made.add_argument("--top", "--topn", type=int, default=10, metavar="N", help="how many of each (default: 10)")
    made = command("export", "vectors -> a file", _EXPORT, export)
    cli_options.add_output(made)
    made = command("eval", "how good vectors are", _EVAL, evaluate)
    cli_options.add_seed(made)
    cli_options.add_evaluation(made)
    return top


def run(parsed: argparse.Namespace) -> None:
    """``node2vec run``. Raises what the stages and `output_at` raise."""
    output = output_at(parsed.output, parsed.overwrite)
    names = (*cli_options.GRAPH, *cli_options.WALK, *cli_options.CORPUS, *cli_options.TRAINING, "seed")
    n2v = Node2Vec(**chosen(parsed, names))
    spark = spark_conf.session_on(parsed.master)
    root = working_root(spark, parsed.root)
    begun = time.monotonic()
    for number, (name, result) in enumerate(workflows.Workflow(n2v, root).steps(_edges(spark, parsed)), 1):
        if name == "index":
            output.refuse_ids(spark.read.parquet(graph_job.spark_path(f"{root}/{graph_job.IDS}")))
            print(result)
        print(f"{name} is done, {number} of {len(workflows.STAGES)} ({time.monotonic() - begun:.1f} s)", flush=True)
    output.write(result)
    print(f"the vectors are in {parsed.output}")


def index(parsed: argparse.Namespace) -> None:
    """``node2vec index``. Raises what `graph_job.index` raises."""
    spark = spark_conf.session_on(parsed.master)
    settings = chosen(parsed, cli_options.GRAPH)
    print(graph_job.index(spark, _edges(spark, parsed), parsed.root, **settings, parts=parsed.parts))
    print(f"the graph is in {parsed.root}/graph")


def walk(parsed: argparse.Namespace) -> None:
    """``node2vec walk``. Raises what `walk_job.walk` raises."""
    settings = chosen(parsed, (*cli_options.WALK, "seed"))
    request = WalkRequest(**settings)
    if parsed.start_nodes is not None or not walk_job.is_done(parsed.root, request):
        spark = spark_conf.session_on(parsed.master)
        starts = None if parsed.start_nodes is None else _ids_in_file(spark, parsed.root, parsed.start_nodes)
        walk_job.walk(
            spark, parsed.root, **settings, start_nodes=starts, partitions=parsed.partitions, home=parsed.home
        )
    print(f"the walks are in {parsed.root}/walks")


def prepare(parsed: argparse.Namespace) -> None:
    """``node2vec prepare``. Raises what `corpus_job.prepare` raises."""
    settings = chosen(parsed, cli_options.CORPUS)
    corpus_job.check(**settings)
    if not finished_stages.corpus_is_done(parsed.root, **settings, seed=parsed.seed):
        corpus_job.prepare(spark_conf.session_on(parsed.master), parsed.root, **settings, seed=parsed.seed)
    print(f"the corpus is in {parsed.root}/corpus")


def train(parsed: argparse.Namespace) -> None:
    """``node2vec train``. Raises what `skipgram_job.train` raises."""
    settings = chosen(parsed, (*cli_options.TRAINING, "seed"))
    skipgram_job.check(**settings)
    if not finished_stages.vectors_are_done(parsed.root, settings):
        skipgram_job.train(spark_conf.session_on(parsed.master), parsed.root, **settings)
    print(f"the vectors are in {parsed.root}/vectors")


def neighbors(parsed: argparse.Namespace) -> None:
    """``node2vec neighbors``. Raises ConfigError: no vectors at root, or a node has none."""
    workflows.vectors_settings(parsed.root)  # before Spark starts
    spark = spark_conf.session_on(parsed.master)
    model = workflows.model_at(spark, parsed.root)
    for node in _typed(spark, parsed.root, parsed.ids, "the command line"):
        for row in model.most_similar(node, parsed.top).collect():
            print(node, row["id"], f"{row['similarity']:.6f}", sep="\t")


def export(parsed: argparse.Namespace) -> None:
    """``node2vec export``. Raises ConfigError: no vectors at root, or what `output_at` raises."""
    workflows.vectors_settings(parsed.root)
    output = output_at(parsed.output, parsed.overwrite)
    output.write(workflows.model_at(spark_conf.session_on(parsed.master), parsed.root))
    print(f"the vectors are in {parsed.output}")


def evaluate(parsed: argparse.Namespace) -> None:
    """``node2vec eval``. Raises what `root_evaluation` raises."""
    from node2vec import root_evaluation

    workflows.vectors_settings(parsed.root)
    spark = spark_conf.session_on(parsed.master)
    if parsed.labels is not None:
        scores = root_evaluation.classify(
            spark, parsed.root, parsed.labels, parsed.train_share, parsed.splits, parsed.seed
        )
    else:
        edges = edge_source.edges_of(spark, parsed.edges, weight=None, file_format=parsed.format)
        scores = root_evaluation.predict_links(spark, parsed.root, edges, parsed.operator, parsed.seed)
    what = "labelled nodes" if parsed.labels is not None else "edges"
    print(f"{scores.used} of {scores.given} {what} take part", file=sys.stderr)
    for name, value in scores.values.items():
        print(f"{name}\t{value:.6f}")


def _edges(spark: SparkSession, parsed: argparse.Namespace) -> Edges:
    weight = None if parsed.unweighted else parsed.weight
    edges = edge_source.edges_of(spark, parsed.input, parsed.src, parsed.dst, weight, parsed.format)
    if parsed.weighted and "weight" not in edges.frame.columns:
        raise ConfigError(
            f"--weighted was given, but the edges have no weights: no column {parsed.weight!r}, and no third one "
            "without a head line. Name it with --weight, or leave --weighted out."
        )
    return edges


def _ids_in_file(spark: SparkSession, root: str, path: str) -> list[Any]:
    """The ids in a text file, one a line."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"the start nodes cannot be read: {error}.") from error
    return _typed(spark, root, [line for line in lines if line], path)


def _typed(spark: SparkSession, root: str, words: list[str], place: str) -> list[Any]:
    """Ids of the type that the graph's have."""
    kind = spark.read.parquet(graph_job.spark_path(f"{os.fspath(root)}/ids")).schema["id"].dataType
    if isinstance(kind, T.StringType):
        return words
    try:
        return [int(word) for word in words]
    except ValueError as error:
        raise ConfigError(f"the ids of this graph are integers, but {place} holds others: {error}.") from error


def _complain(sentence: str, code: int) -> int:
    print(f"node2vec: {sentence}", file=sys.stderr)
    return code
