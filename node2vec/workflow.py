"""From edges to a model in four stages under one root, each of which is done once and stays there.

    root/graph, root/ids   index     what the edges are
    root/walks             walk      random walks on the graph
    root/corpus            prepare   the walks as token streams
    root/vectors           train     what skip-gram learned from them

A stage counts when its marker is there, which is written last. So a run that broke off goes on where it was, and a run
with other settings of a later stage, in a copy of the root, shares the earlier ones. Stages may run in processes of
their own: `node2vec index`, `walk`, `prepare` and `train` are these same calls.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame, SparkSession

from node2vec import corpus_job, graph_job, model_files, skipgram_job, stage, walk_job
from node2vec.graph_files import absolute
from node2vec.graph_job import spark_path
from node2vec.graph_report import GraphReport
from sparkdl import spark_conf
from sparkdl.errors import ConfigError

if TYPE_CHECKING:
    from node2vec.corpus_files import Header
    from node2vec.estimator import Node2Vec
    from node2vec.model import Node2VecModel

STAGES = ("index", "walk", "prepare", "train")


class Workflow:
    """The stages of `n2v` under `root`, a directory or URI that driver and executors share.

    Each method does its stage, or, if it is done already with these settings, gives its result at once. verbose: show
    where the graph lives while it is walked, and the progress of the training.
    Every method raises ConfigError: the stage before is missing, or its folder was made with other settings; and
    ClusterError: the cluster failed, and the same call goes on.
    """

    def __init__(self, n2v: Node2Vec, root: str | os.PathLike[str], verbose: bool = True):
        self.n2v, self.root, self.verbose = n2v, absolute(root), verbose

    def run(self, edges: Any, init: Node2VecModel | None = None) -> Node2VecModel:
        """All stages. edges: DataFrame src, dst[, weight]; paths; a networkx graph. init: see `train`."""
        results = dict(self.steps(edges, init))
        model: Node2VecModel = results["train"]
        return model

    def steps(self, edges: Any, init: Node2VecModel | None = None) -> Iterator[tuple[str, Any]]:
        """All stages, one by one: after each its name, as in ``STAGES``, and what its method returned."""
        calls: tuple[Callable[[], Any], ...] = (
            lambda: self.index(edges),
            self.walk,
            self.prepare,
            lambda: self.train(init),
        )
        for name, call in zip(STAGES, calls, strict=True):
            yield name, call()

    def index(self, edges: Any) -> GraphReport:
        """Edges to ``root/graph`` and ``root/ids``; what was found in them."""
        return graph_job.index(spark_conf.session(), edges, self.root, **self.n2v.policy())

    def walk(self) -> DataFrame:
        """The graph to ``root/walks``: one column walk, arrays of node numbers; `walk_job.with_ids` gives ids."""
        request = asdict(self.n2v.request())
        return walk_job.walk(spark_conf.session(), self.root, **request, verbose=self.verbose)

    def prepare(self) -> Header:
        """Walks, whoever made them, to ``root/corpus``."""
        n2v = self.n2v
        return corpus_job.prepare(
            spark_conf.session(), self.root, n2v.partitions, n2v.episodes, n2v.min_count, n2v.sample, n2v.seed
        )

    def train(self, init: Node2VecModel | None = None) -> Node2VecModel:
        """The corpus to ``root/vectors``. init: an earlier model; nodes that it knows begin with its vectors."""
        spark = spark_conf.session()
        known = None
        if init is not None:
            known = init.vectors.join(_ids(spark, self.root), "id").select("index", "vector")
        settings = self.n2v.training()
        skipgram_job.train(spark, self.root, **settings, init=known, seed=self.n2v.seed, verbose=self.verbose)
        return model_at(spark, self.root, asdict(self.n2v))


def model_at(
    spark: SparkSession, root: str | os.PathLike[str], settings: dict[str, Any] | None = None
) -> Node2VecModel:
    """The model whose vectors are in ``root/vectors``. settings: what the model says of itself; None: the manifest's.

    Raises ConfigError: there are no complete vectors at root.
    """
    from node2vec.model import Node2VecModel

    location = absolute(root)
    found = vectors_settings(location)
    vectors = spark.read.schema("index int, vector array<float>").parquet(
        spark_path(f"{location}/{skipgram_job.STAGE}"), pathGlobFilter="part-*.parquet"
    )
    named = vectors.join(_ids(spark, location), "index").select("id", "vector")
    shape = model_files.written_shape(f"{location}/{skipgram_job.STAGE}", found["dimensions"])
    return Node2VecModel(named, found if settings is None else settings, shape)


def vectors_settings(root: str | os.PathLike[str]) -> dict[str, Any]:
    """What the vectors at root were made with. Raises ConfigError: there are none, or they are not complete."""
    found = stage.settings_of(absolute(root), skipgram_job.STAGE)
    if found is None:
        raise ConfigError(
            f"{os.fspath(root)}/{skipgram_job.STAGE} holds no complete vectors: run `node2vec train` there first."
        )
    return found


def _ids(spark: SparkSession, location: str) -> DataFrame:
    return spark.read.parquet(spark_path(f"{location}/{graph_job.IDS}"))
