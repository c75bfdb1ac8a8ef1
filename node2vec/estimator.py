"""Node2Vec: all settings in one place, and from edges to a model in one call.

Grover and Leskovec, *node2vec: Scalable Feature Learning for Networks*, KDD 2016; skip-gram with negative sampling:
Mikolov et al., NIPS 2013.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame, SparkSession

from node2vec import corpus_job, skipgram_job, walk_job, walk_numbering
from node2vec.edge_cleaning import Policy
from node2vec.graph_files import absolute
from node2vec.walk_request import WalkRequest
from node2vec.workflow import Workflow
from sparkdl import spark_conf
from sparkdl.errors import ConfigError

if TYPE_CHECKING:
    from node2vec.model import Node2VecModel

ROOT = "spark.node2vec.root"


@dataclass(frozen=True)
class Node2Vec:
    """Settings of node embeddings; they are checked here, before any job.

    Vectors: dimensions; window, the largest distance of two nodes of a pair in a walk; negative, noise nodes a pair;
    ns_exponent of the noise; alpha and min_alpha, the learning rate's ends; epochs; negatives, "shared" or "pair" (see
    ``skipgram_job``); min_count and sample leave rare and frequent nodes out of walks (0: none).
    Walks: num_walks from each node, of walk_length nodes, with return parameter p and in-out parameter q; extend and
    gamma are node2vec+.
    Graph: directed, multi_edges, self_loops, bad_weights, max_degree, see ``edge_cleaning.Policy``.
    partitions: parts that the vocabulary is cut into, at most so many tasks train at once; episodes: how often they
    take turns in an epoch. Both belong to the vectors' identity; None: chosen by size and slots at the start, so give
    numbers where two clusters shall give the same vectors. seed: of all randomness.
    cores: of a training task, a divisor of the partitions (None: 1, or an executor's for large tables); device: "cpu",
    "cuda" or "auto", GPUs where the session gives tasks some. They belong to the vectors' identity, too.

    Raises ConfigError: a setting that makes no walks or no vectors.
    """

    dimensions: int = 128
    num_walks: int = 10
    walk_length: int = 80
    p: float = 1.0
    q: float = 1.0
    directed: bool = False
    window: int = 10
    min_count: int = 0
    sample: float = 0.0
    negative: int = 5
    ns_exponent: float = 0.75
    alpha: float = 0.025
    min_alpha: float = 0.0001
    epochs: int = 1
    max_degree: int | None = None
    partitions: int | None = None
    episodes: int | None = None
    seed: int = 0
    negatives: str = "shared"
    extend: bool = False
    gamma: float = 0.0
    multi_edges: str = "sum"
    self_loops: str = "keep"
    bad_weights: str = "raise"
    cores: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        self.request()
        Policy(**self.policy())
        corpus_job.check(self.partitions, self.episodes, self.min_count, self.sample)
        skipgram_job.check(**self.training())

    def request(self) -> WalkRequest:
        """The settings of the walks."""
        names = ("p", "q", "num_walks", "walk_length", "extend", "gamma", "seed")
        return WalkRequest(**{name: getattr(self, name) for name in names})

    def policy(self) -> dict[str, Any]:
        """The settings of the graph."""
        names = ("directed", "multi_edges", "self_loops", "bad_weights", "max_degree")
        return {name: getattr(self, name) for name in names}

    def training(self) -> dict[str, Any]:
        """The settings of the vectors."""
        names = ("dimensions", "window", "negative", "ns_exponent", "alpha", "min_alpha", "epochs", "negatives")
        return {name: getattr(self, name) for name in (*names, "cores", "device")}

    def fit(
        self, edges: Any, init: Node2VecModel | None = None, root: str | os.PathLike[str] | None = None
    ) -> Node2VecModel:
        """Edges to a model. edges: DataFrame src, dst[, weight]; paths; a networkx graph.

        init: an earlier model; nodes that it knows begin with its vectors. root: where the stages keep their results,
        a directory that driver and executors share; None: a temporary one, which only a session on this machine can
        share, or the setting ``spark.node2vec.root``.
        """
        return Workflow(self, working_root(spark_conf.session(), root)).run(edges, init)

    def walks(self, edges: Any, root: str | os.PathLike[str] | None = None) -> DataFrame:
        """The walks alone: one column walk, arrays of ids. Arguments as in `fit`."""
        spark = spark_conf.session()
        flow = Workflow(self, working_root(spark, root))
        flow.index(edges)
        return walk_job.with_ids(spark, flow.root, flow.walk())

    def fit_walks(
        self,
        walks: DataFrame,
        column: str = "walk",
        init: Node2VecModel | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> Node2VecModel:
        """Own walks, or sentences, to a model. walks: a column of arrays of ids, strings or integers."""
        spark = walks.sparkSession
        flow = Workflow(replace(self, min_count=0), working_root(spark, root))  # what is rare is not numbered at all
        walk_numbering.number_walks(spark, walks, flow.root, column, self.min_count)
        flow.prepare()
        return flow.train(init)


def working_root(spark: SparkSession, root: str | os.PathLike[str] | None) -> str:
    """`root`, or the one of the session's settings, or a temporary directory where the session is on this machine.

    Raises ConfigError: there is none of these.
    """
    given = root or spark.sparkContext.getConf().get(ROOT, None)
    if given is not None:
        return absolute(given)
    if not re.match(r"local(\[|-cluster|$)", spark.sparkContext.master or ""):
        raise ConfigError(
            f"the executors of {spark.sparkContext.master} share no temporary directory with the driver: pass "
            f"root=..., a directory on a file system that all of them see, or set {ROOT}."
        )
    made = tempfile.mkdtemp(prefix="node2vec-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made
