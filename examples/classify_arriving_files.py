"""Structured Streaming with a PyTorch model: files arrive, each of their rows gets exactly one prediction.

Makes its own data, trains shortly, classifies what has arrived, stops, and goes on with a loaded model and the query's
checkpoint where it stopped.

spark-submit examples/classify_arriving_files.py [--root hdfs:///arriving]
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import DataFrame, SparkSession
from torch import nn

from sparkdl.ml import TorchClassifier
from sparkdl.spark_conf import session

SCHEMA = "id long, x double, y double, label double"


def points(spark: SparkSession, first: int, count: int) -> DataFrame:
    """Points of the plane; label 1 inside the circle of radius 1."""
    x, y = np.random.default_rng(first).normal(size=(2, count))
    inside = (x * x + y * y < 1).astype(float)
    numbers = zip(range(first, first + count), x.tolist(), y.tolist(), inside.tolist(), strict=True)
    return spark.createDataFrame(list(numbers), SCHEMA)


def classify(spark: SparkSession, model: PipelineModel, root: str) -> None:
    """Classifies the files that have arrived since the last call, one a batch; `trigger` decides how long it waits."""
    arriving = spark.readStream.schema(SCHEMA).option("maxFilesPerTrigger", 1).parquet(f"{root}/arriving")
    query = (
        model.transform(arriving)
        .select("id", "label", "prediction", "probability")
        .writeStream.format("parquet")
        .option("path", f"{root}/classified")
        .option("checkpointLocation", f"{root}/checkpoint")
        .trigger(availableNow=True)  # ends when all files are read; processingTime="10 seconds" would go on
        .start()
    )
    query.awaitTermination()


def report(spark: SparkSession, root: str) -> None:
    """Says how many files arrived, and how many predictions they have."""
    arrived = spark.read.schema(SCHEMA).parquet(f"{root}/arriving")
    found = spark.read.parquet(f"{root}/classified")
    right = found.where("label = prediction").count()
    rows, ids = found.count(), found.select("id").distinct().count()
    print(f"{arrived.count()} rows arrived; {rows} predictions of {ids} rows, {right / rows:.1%} of them right")
    assert rows == ids == arrived.count(), "each row has one prediction"


def main() -> None:
    """Trains, classifies, stops, goes on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="a directory that is not there yet; default: a temporary one")
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    spark = session()
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.root or folder
        classifier = TorchClassifier(
            model=nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2)),
            learning_rate=0.02,
            epochs=arguments.epochs,
            batch_size=256,
        )
        pipeline = Pipeline(stages=[VectorAssembler(inputCols=["x", "y"], outputCol="features"), classifier])
        model = pipeline.fit(points(spark, first=10_000, count=2000))
        model.write().overwrite().save(f"{root}/model")

        for first in (0, 300):
            points(spark, first, 300).coalesce(1).write.mode("append").parquet(f"{root}/arriving")
        classify(spark, model, root)
        report(spark, root)

        points(spark, 600, 300).coalesce(1).write.mode("append").parquet(f"{root}/arriving")
        classify(spark, PipelineModel.load(f"{root}/model"), root)  # as a program that was started again would
        report(spark, root)


if __name__ == "__main__":
    main()
