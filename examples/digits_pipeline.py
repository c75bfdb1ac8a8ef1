"""A Spark ML pipeline with a PyTorch classifier on scikit-learn's digits: fitted, saved, loaded, evaluated.

spark-submit examples/digits_pipeline.py [--model hdfs:///models/digits]
python examples/digits_pipeline.py            on this machine
"""

from __future__ import annotations

import argparse
import tempfile

import torch
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.feature import StandardScaler, VectorAssembler
from pyspark.sql import DataFrame, SparkSession
from sklearn.datasets import load_digits
from torch import nn

from sparkdl.ml import TorchClassifier
from sparkdl.spark_conf import session

PIXELS = [f"p{i}" for i in range(64)]


def digits(spark: SparkSession) -> DataFrame:
    """1,797 pictures of 8 x 8 pixels, a column each, the digit as `label`, and every tenth row marked `is_val`."""
    pixels, labels = load_digits(return_X_y=True)
    rows = [
        (*map(float, picture), float(label), i % 10 == 0)
        for i, (picture, label) in enumerate(zip(pixels, labels, strict=True))
    ]
    return spark.createDataFrame(rows, ", ".join(f"{p} double" for p in PIXELS) + ", label double, is_val boolean")


def main() -> None:
    """Fits, saves, loads, evaluates, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--model", help="where to save the pipeline; default: a temporary directory")
    arguments = parser.parse_args()

    train, test = digits(session()).randomSplit([0.8, 0.2], seed=0)
    torch.manual_seed(0)  # of the layers' first weights
    classifier = TorchClassifier(
        # a module of torch's own layers is saved by their names and arguments: no class of ours is needed to load it
        model=nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.25), nn.Linear(128, 10)),
        optimizer=torch.optim.AdamW,
        learning_rate=3e-3,
        features_col="scaled",
        validation_indicator_col="is_val",
        early_stopping_patience=3,
        epochs=arguments.epochs,
        batch_size=128,
    )
    pipeline = Pipeline(
        stages=[
            VectorAssembler(inputCols=PIXELS, outputCol="pixels"),
            StandardScaler(inputCol="pixels", outputCol="scaled", withMean=True),
            classifier,
        ]
    )
    fitted = pipeline.fit(train)
    print(fitted.stages[-1].summary.epochs[["epoch", "loss", "val_loss"]].tail(3).to_string(index=False))
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model or f"{folder}/digits"
        fitted.write().overwrite().save(path)
        scored = PipelineModel.load(path).transform(test)
        scored.select("label", "prediction", "probability").show(3, truncate=60)
        accuracy = MulticlassClassificationEvaluator(metricName="accuracy").evaluate(scored)
    print(f"test accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
