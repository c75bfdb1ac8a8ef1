from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import BinaryClassificationEvaluator, MulticlassClassificationEvaluator
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import DataFrame, SparkSession
from torch import nn

from sparkdl.errors import ConfigError
from sparkdl.ml import TorchClassificationModel, TorchEstimator, TorchModel
from tests.sparkdl.ml.stages import ROWS, SCHEMA, X, classifier, frame, pipeline

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> DataFrame:
    return frame(spark).cache()


@pytest.fixture(scope="module")
def model(rows: DataFrame) -> TorchClassificationModel:
    found = classifier().fit(rows)
    assert isinstance(found, TorchClassificationModel)
    return found


def scores(model: TorchModel) -> torch.Tensor:
    with torch.no_grad():
        return model.model(torch.from_numpy(X.copy()))


def test_columns_of_a_classifier(rows: DataFrame, model: TorchClassificationModel) -> None:
    found = model.transform(rows)
    assert found.columns == [*rows.columns, "rawPrediction", "probability", "prediction"]
    assert [found.schema[name].dataType for name in ("rawPrediction", "probability")] == [VectorUDT()] * 2
    for name in ("rawPrediction", "probability"):
        assert found.schema[name].metadata == {"ml_attr": {"num_attrs": 3}}
    assert found.schema["prediction"].metadata == {"ml_attr": {"type": "nominal", "num_vals": 3}}
    got = found.collect()
    assert [row[: len(rows.columns)] for row in got] == [tuple(row) for row in rows.collect()]  # in this order
    expected = scores(model)
    assert np.allclose([row["rawPrediction"].toArray() for row in got], expected, atol=1e-6)
    assert np.allclose([row["probability"].toArray() for row in got], expected.softmax(1), atol=1e-6)
    assert [row["prediction"] for row in got] == expected.argmax(1).tolist()
    assert MulticlassClassificationEvaluator(metricName="logLoss").evaluate(found) < 2


def test_columns_that_are_not_wanted_or_there_already(rows: DataFrame, model: TorchClassificationModel) -> None:
    some = model.copy({model.probabilityCol: "", model.rawPredictionCol: "", model.predictionCol: "class"})
    assert some.transform(rows).columns == [*rows.columns, "class"]
    none = some.copy({some.predictionCol: ""})
    assert none.transform(rows).columns == rows.columns
    with pytest.raises(ConfigError, match=r"column 'prediction' is there already, .* pass another prediction_col"):
        model.transform(rows.withColumnRenamed("a", "prediction"))
    with pytest.raises(ConfigError, match=r"the data have no column 'x'"):
        model.transform(rows.drop("x"))
    with pytest.raises(ConfigError, match=r"holds no model; it comes from fit\(\) or load\(\)"):
        TorchModel().transform(rows)


def test_two_classes_by_one_number(rows: DataFrame) -> None:
    two = rows.withColumn("label", (rows["label"] > 0).cast("double"))
    one = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    found = classifier(model=one, loss=nn.BCEWithLogitsLoss(), precision="bf16").fit(two)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = found.model(torch.from_numpy(X.copy())).float()
    got = found.transform(two)
    assert np.allclose([row["probability"][1] for row in got.collect()], logits.sigmoid(), atol=1e-6)
    assert [row["prediction"] for row in got.collect()] == (logits > 0).tolist()
    assert 0 <= BinaryClassificationEvaluator().evaluate(got) <= 1


def test_models_feed_each_other_also_in_streams(spark: SparkSession, rows: DataFrame, tmp_path: Path) -> None:
    encoder = TorchEstimator(
        model=nn.Linear(3, 2), loss=nn.MSELoss(), features_col="x", label_col=["a", "b"], output_col="code", verbose=0,
        step_fn=lambda model, batch: (model(*batch.inputs) - torch.stack(batch.target, 1)).square().mean(),
        batch_size=30, replicas=2,
    )  # fmt: skip
    chain = Pipeline(stages=[encoder, classifier(features_col="code", model=nn.Linear(2, 3), epochs=1)]).fit(rows)
    assert isinstance(chain, PipelineModel)
    expected = chain.transform(rows)
    assert expected.schema["code"].dataType == VectorUDT()
    assert expected.schema["code"].metadata == {"ml_attr": {"num_attrs": 2}}
    rows.write.parquet(str(tmp_path / "rows"))
    stream = spark.readStream.schema(SCHEMA).parquet(str(tmp_path / "rows"))
    query = chain.transform(stream).writeStream.format("memory").queryName("chained").trigger(availableNow=True).start()
    assert query.awaitTermination(120)
    assert sorted(spark.table("chained").collect()) == sorted(expected.collect())


def test_a_stream_goes_on_with_one_prediction_a_row_after_a_restart(
    spark: SparkSession, rows: DataFrame, tmp_path: Path
) -> None:
    fitted = pipeline(epochs=1).fit(rows)
    source, sink, checkpoint = (str(tmp_path / name) for name in ("source", "sink", "checkpoint"))

    def arrive(first: int, stop: int) -> None:
        rows.where(f"id >= {first} and id < {stop}").coalesce(1).write.mode("append").parquet(source)

    def run(model: PipelineModel) -> None:
        stream = spark.readStream.schema(SCHEMA).option("maxFilesPerTrigger", 1).parquet(source)
        found = model.transform(stream).select("id", "prediction")
        writer = found.writeStream.format("parquet").option("path", sink).option("checkpointLocation", checkpoint)
        query = writer.trigger(availableNow=True).start()
        assert query.awaitTermination(120)

    arrive(0, 20)
    arrive(20, 30)
    run(fitted)
    assert spark.read.parquet(sink).count() == 30
    fitted.save(str(tmp_path / "model"))
    arrive(30, ROWS)
    run(PipelineModel.load(str(tmp_path / "model")))
    expected = fitted.transform(rows).select("id", "prediction").collect()
    assert sorted(spark.read.parquet(sink).collect()) == sorted(expected)
