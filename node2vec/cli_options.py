"""The options of the command ``node2vec``: PecanPy's and gensim's names where these have one, with our defaults."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NoReturn

from node2vec.estimator import Node2Vec
from node2vec.evaluate import OPERATORS
from node2vec.walk_home import HOMES

DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Node2Vec)}

GRAPH = ("directed", "multi_edges", "self_loops", "bad_weights", "max_degree")
WALK = ("p", "q", "num_walks", "walk_length", "extend", "gamma")
CORPUS = ("partitions", "episodes", "min_count", "sample")
TRAINING = (
    "dimensions", "window", "negative", "ns_exponent", "alpha", "min_alpha", "epochs", "negatives", "cores", "device"
)  # fmt: skip

_MASTER = "Spark decides how many tasks run at once: give --master local[8], or ask spark-submit for more executors"

# Options of PecanPy, of the original node2vec and of gensim that mean nothing here, and what to use.
FOREIGN = {
    "--workers": _MASTER,
    "--mode": "walks never need a table of all edges' pairs; `node2vec walk --home` says where the graph lives",
    "--task": "use a command: run, index, walk, prepare or train",
    "--delimiter": "use --format csv, tsv or edgelist; an edge list may use blanks, tabs, commas or semicolons",
    "--implicit_ids": "ids are always those of the edges",
    "--random_state": "use --seed",
    "--iter": "use --epochs",
    "--size": "use --dimensions",
    "--sg": "skip-gram with negative sampling is the one method there is",
    "--hs": "skip-gram with negative sampling is the one method there is",
}


class Parser(argparse.ArgumentParser):
    """Options are never abbreviated: what is unique today may not be so tomorrow."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **{"allow_abbrev": False, **options})


class _Foreign(argparse.Action):
    """Says what to use in place of another program's option."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> NoReturn:
        parser.error(f"there is no {option_string}: {FOREIGN[option_string or '']}.")


def add_root(command: argparse.ArgumentParser, required: bool = True) -> None:
    """Where results are, and where Spark runs."""
    what = "directory or URI that all hosts share; each stage has a folder in it"
    if not required:
        what += " (default: a temporary one on this machine, or the Spark setting spark.node2vec.root)"
    command.add_argument("--root", required=required, metavar="DIR", help=what)
    command.add_argument(
        "--master", help="Spark master, as local[4] or yarn (default: an embedded session on all cores)"
    )


def add_foreign(command: argparse.ArgumentParser) -> None:
    """Other programs' options, which end the command with a hint."""
    for flag in FOREIGN:
        command.add_argument(flag, action=_Foreign, nargs="?", help=argparse.SUPPRESS)


def add_seed(command: argparse.ArgumentParser) -> None:
    """The seed, which each stage has."""
    command.add_argument("--seed", type=int, default=DEFAULTS["seed"], help="of the random numbers (default: 0)")


def add_edges(command: argparse.ArgumentParser) -> None:
    """Where edges come from, and how they are read."""
    group = command.add_argument_group("edges")
    group.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="files, directories or globs of edges; .gz is read too",
    )
    add_format(group)
    group.add_argument("--src", default="src", help="column of an edge's first node (default: %(default)s)")
    group.add_argument("--dst", default="dst", help="column of its second node (default: %(default)s)")
    group.add_argument("--weight", default="weight", help="column of its weight, used if there (default: %(default)s)")
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--weighted", action="store_true", help="refuse edges without weights (default: use them if there)"
    )
    either.add_argument("--unweighted", action="store_true", help="leave weights out")


def add_format(group: Any) -> None:
    """What files of edges are."""
    kinds = ("parquet", "csv", "tsv", "edgelist")
    group.add_argument("--format", choices=kinds, help="of files of edges, where their names do not say it")


def add_graph(command: argparse.ArgumentParser) -> None:
    """How edges become a graph."""
    group = command.add_argument_group("graph")
    either = group.add_mutually_exclusive_group()
    either.add_argument("--directed", action="store_true", help="an edge leads from src to dst only")
    either.add_argument("--undirected", action="store_false", dest="directed", help="it leads both ways (default)")
    group.add_argument(
        "--multi-edges",
        choices=("sum", "max", "first"),
        default=DEFAULTS["multi_edges"],
        help="weight of an edge given several times: the sum, the largest, or the smallest (default: %(default)s)",
    )
    group.add_argument(
        "--self-loops",
        choices=("keep", "drop"),
        default=DEFAULTS["self_loops"],
        help="edges of a node to itself (default: %(default)s)",
    )
    group.add_argument(
        "--bad-weights",
        choices=("raise", "drop"),
        default=DEFAULTS["bad_weights"],
        help="edges whose weight is no positive number: an error, or left out (default: %(default)s)",
    )
    group.add_argument(
        "--max-degree",
        type=int,
        metavar="N",
        help="keep N edges of a node that has more, chosen by a hash (default: all)",
    )


def add_walk(command: argparse.ArgumentParser) -> None:
    """The law and the number of the walks."""
    group = command.add_argument_group("walks")
    _add(group, "--p", "return parameter: above 1 goes back less", float)
    _add(group, "--q", "in-out parameter: above 1 stays closer", float)
    _add(group, "--num-walks", "walks of each start node", int, "N")
    _add(group, "--walk-length", "nodes of a walk", int, "N")
    group.add_argument("--extend", action="store_true", help="node2vec+, which heeds how weak an edge is")
    _add(group, "--gamma", "its noise parameter", float)


def add_walk_plan(command: argparse.ArgumentParser) -> None:
    """What only `node2vec walk` lets one choose."""
    group = command.add_argument_group("how and from where")
    group.add_argument("--start-nodes", metavar="FILE", help="text file of ids, one a line (default: all nodes)")
    group.add_argument("--partitions", type=int, metavar="N", help="tasks (default: a few for each slot)")
    group.add_argument(
        "--home",
        choices=HOMES,
        default="auto",
        help="the graph whole on every host, or cut over the executors (default: by a cost model, which is printed)",
    )


def add_corpus(command: argparse.ArgumentParser) -> None:
    """How walks are cut into streams."""
    group = command.add_argument_group("corpus")
    group.add_argument(
        "--partitions",
        type=int,
        metavar="P",
        help="parts that the nodes are cut into: so many tasks train at once; the vectors depend on it "
        "(default: by the graph's size and Spark's slots)",
    )
    group.add_argument(
        "--episodes",
        type=int,
        metavar="E",
        help="how often the parts take turns in an epoch; the vectors depend on it (default: 1 for one part, else 16)",
    )
    _add(group, "--min-count", "leave out nodes that occur less often in the walks", int, "N")
    _add(group, "--sample", "threshold of word2vec's subsampling of frequent nodes; 0: none", float)


def add_training(command: argparse.ArgumentParser) -> None:
    """Skip-gram."""
    group = command.add_argument_group("vectors")
    _add(group, "--dimensions", "numbers of a vector", int, "D")
    group.add_argument(
        "--window-size",
        "--window",
        dest="window",
        type=int,
        default=DEFAULTS["window"],
        metavar="N",
        help="largest distance of two nodes of a pair in a walk (default: %(default)s)",
    )
    _add(group, "--negative", "noise nodes of a pair", int, "N")
    _add(group, "--ns-exponent", "noise is drawn in proportion to counts to this power", float)
    _add(group, "--alpha", "learning rate at the start", float)
    _add(group, "--min-alpha", "learning rate at the end", float)
    _add(group, "--epochs", "passes over the walks", int, "N")
    group.add_argument(
        "--negatives",
        choices=("shared", "pair"),
        default=DEFAULTS["negatives"],
        help="noise nodes serve several pairs, or each pair has its own, which is slower (default: %(default)s)",
    )
    group.add_argument(
        "--cores",
        type=int,
        default=DEFAULTS["cores"],
        metavar="N",
        help="of a task, a divisor of --partitions (default: 1; of an executor where tables are large)",
    )
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default=DEFAULTS["device"],
        help="auto: GPUs where Spark gives tasks some, else the CPU (default: %(default)s)",
    )


def add_output(command: argparse.ArgumentParser) -> None:
    """Where vectors go to."""
    command.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="the vectors; its ending says how: .parquet (a directory: id, vector), .txt, .emb or .w2v (word2vec's "
        "text), .bin (word2vec's binary form), .npy (a matrix, its ids beside it)",
    )
    command.add_argument("--overwrite", action="store_true", help="replace what is there")


def add_evaluation(command: argparse.ArgumentParser) -> None:
    """What vectors are to predict."""
    either = command.add_mutually_exclusive_group(required=True)
    either.add_argument(
        "--labels", metavar="FILE", help="predict labels: lines of an id and its labels, with blanks between them"
    )
    either.add_argument(
        "--edges", nargs="+", metavar="PATH", help="predict links: edges of these files, which the graph does not have"
    )
    command.add_argument("--train-share", type=float, default=0.5, help="of the nodes with labels (default: 0.5)")
    command.add_argument("--splits", type=int, default=5, metavar="N", help="random ones (default: 5)")
    command.add_argument(
        "--operator", choices=OPERATORS, default="hadamard", help="two vectors to one, of a pair (default: hadamard)"
    )
    add_format(command)


def chosen(parsed: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The values of these options."""
    return {name: getattr(parsed, name) for name in names}


def _add(group: Any, flag: str, what: str, kind: type, metavar: str | None = None) -> None:
    name = flag[2:].replace("-", "_")
    group.add_argument(flag, type=kind, default=DEFAULTS[name], metavar=metavar, help=f"{what} (default: %(default)s)")
