"""A search on three threads in a session whose scheduler is FAIR; prints what pools there are, as JSON."""

from __future__ import annotations

import json
import sys

from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.tuning import ParamGridBuilder, TrainValidationSplit

from sparkdl import spark_conf
from sparkdl.ml.estimators import POOL, own_pool
from tests.sparkdl.ml.stages import classifier, frame


def main() -> None:
    """The folder for Spark's files is the only argument."""
    settings = {"spark.master": "local[2,4]", "spark.scheduler.mode": "FAIR", "spark.local.dir": sys.argv[1]}
    spark = spark_conf.start_embedded(settings=settings)
    rows = frame(spark).cache()
    stage = classifier(epochs=1)
    grid = ParamGridBuilder().addGrid(stage.learning_rate, [0.001, 0.05, 0.2]).build()
    TrainValidationSplit(
        estimator=stage,
        estimatorParamMaps=grid,
        evaluator=MulticlassClassificationEvaluator(),
        parallelism=3,
    ).fit(rows)
    sc = spark.sparkContext
    with own_pool(sc):
        inside = sc.getLocalProperty(POOL)
    after = sc.getLocalProperty(POOL)
    sc.setLocalProperty(POOL, "users")
    with own_pool(sc):  # the user's choice stays
        rows.count()
    pools = sc._jsc.sc().getAllPools()
    names = sorted(pools.apply(number).name() for number in range(pools.size()))
    print(json.dumps({"pools": names, "inside": inside, "after": after}))
    spark.stop()


if __name__ == "__main__":
    main()
