from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from sparkdl.columns import Columns
from sparkdl.errors import ConfigError
from sparkdl.predict_job import Predictor, _guarded, predict

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

ROWS = 37
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(ROWS, 4))
A, K = RANDOM.normal(size=ROWS), RANDOM.integers(0, 5, ROWS)
M = RANDOM.normal(size=(ROWS, 2, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> DataFrame:
    from pyspark.ml.linalg import Vectors

    rows = [
        (i, X[i].tolist(), float(A[i]), int(K[i]), bool(K[i] > 2), M[i].tolist(), X[i].tolist(), Vectors.dense(X[i]))
        for i in range(ROWS)
    ]
    rows[3] = (*rows[3][:-1], Vectors.sparse(4, dict(enumerate(X[3]))))
    types = "id int, x array<double>, a double, k int, flag boolean, m array<array<float>>, `x.y` array<float>"
    vector = spark.createDataFrame([(Vectors.dense([0.0]),)], ["v"]).schema["v"]
    return spark.createDataFrame(rows, spark.createDataFrame([], types).schema.add(vector)).repartition(2).cache()


def predicted(frame: DataFrame, model: nn.Module, feature_cols: Any, batch_size: int = 5) -> list[Any]:
    found = predict(frame, model, Columns.parse(feature_cols, "label", "weight"), "out", batch_size)
    assert found.columns == [*frame.columns, "out"]
    return [row["out"] for row in sorted(found.select("id", "out").collect())]


def plainly(model: nn.Module, *arrays: np.ndarray) -> np.ndarray:
    model.eval()
    with torch.no_grad():
        return model(*(torch.from_numpy(array.copy()) for array in arrays)).numpy()


class Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.function(*inputs, **named)


def test_arrays_and_vectors(frame: DataFrame) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    expected = plainly(model, X.astype(np.float32))
    model.train()
    for name in ("x", "v", "x.y"):
        assert np.allclose(predicted(frame, model, name), expected, atol=1e-6)
    assert model.training
    assert dict(predict(frame, model, Columns.parse("x")).dtypes)["prediction"] == "array<float>"


def test_scalars(frame: DataFrame) -> None:
    half = Function(lambda a: a / 2)
    found = predict(frame, half, Columns.parse("a"))
    assert dict(found.dtypes)["prediction"] == "float"
    assert np.array_equal(predicted(frame, half, "a"), A.astype(np.float32) / 2)
    assert np.array_equal(
        predicted(frame, Function(lambda a, k: a * k), ["a", "k"]), A.astype(np.float32) * K.astype(np.float32)
    )
    assert np.array_equal(predicted(frame, half, "flag"), (K > 2) / 2)


def test_inputs_by_name_and_stacked(frame: DataFrame) -> None:
    def forward(dense: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        assert dense.shape[1:] == (5,)
        return dense.sum(1) + key

    expected = X.astype(np.float32).sum(1) + A.astype(np.float32) + K
    found = predicted(frame, Function(forward), {"key": "k", "dense": ["x", "a"]})
    assert np.allclose(found, expected, atol=1e-5)


def test_whole_numbers(frame: DataFrame) -> None:
    model = Function(lambda x: x.argmax(1))
    assert dict(predict(frame, model, Columns.parse("x")).dtypes)["prediction"] == "bigint"
    assert predicted(frame, model, "x") == X.argmax(1).tolist()
    assert predicted(frame, nn.Embedding.from_pretrained(torch.arange(10.0).reshape(5, 2)), "k") == [
        [2.0 * k, 2.0 * k + 1] for k in K
    ]


def test_nested_arrays(frame: DataFrame) -> None:
    found = predict(frame, Function(lambda m: m + 1), Columns.parse("m"))
    assert dict(found.dtypes)["prediction"] == "array<array<float>>"
    assert np.array_equal(predicted(frame, Function(lambda m: m + 1), "m"), M + 1)
    deep = predicted(frame, Function(lambda m: torch.stack([m, -m], 1)), "m")
    assert np.array_equal(deep, np.stack([M, -M], 1))


def test_one_row_that_the_model_squeezes(frame: DataFrame) -> None:
    model = Function(lambda x: x.sum(1, keepdim=True).squeeze())
    assert np.allclose(predicted(frame, model, "x", batch_size=1), X.astype(np.float32).sum(1), atol=1e-5)


def test_a_model_goes_as_it_is_now(frame: DataFrame) -> None:
    model = nn.Linear(4, 1)
    found = predict(frame, model, Columns.parse("x"), "out")
    expected = plainly(model, X.astype(np.float32))
    with torch.no_grad():
        model.weight.zero_()
    assert np.allclose([row["out"] for row in found.sort("id").collect()], expected, atol=1e-6)


def test_bf16(frame: DataFrame) -> None:
    model = nn.Linear(4, 1)
    found = predict(frame, model, Columns.parse("x"), "out", precision="bf16").sort("id").collect()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(torch.from_numpy(X.astype(np.float32))).float().numpy()
    assert np.allclose([row["out"] for row in found], expected, atol=1e-6)


def test_rows_that_do_not_fit_fail_the_query(frame: DataFrame) -> None:
    from pyspark.sql import functions as F

    def read(frame: DataFrame, name: str, *shape: int, dtype: type = np.float32) -> int:
        return len(frame.select(_guarded(frame, name, shape, np.dtype(dtype))).collect())

    assert read(frame, "x", 4) == read(frame, "v", 4) == read(frame, "m", 2, 3) == ROWS
    not_x = "column 'x' holds a row that is null or not an array of 4 numbers"
    for change in (F.expr("slice(x, 1, 3)"), F.lit(None)):
        broken = frame.coalesce(1).withColumn("x", F.when(F.col("id") == 30, change).otherwise(F.col("x")))
        with pytest.raises(Exception, match=not_x):
            read(broken, "x", 4)
    null = frame.withColumn("k", F.when(F.col("id") != 30, F.col("k")))
    with pytest.raises(Exception, match="column 'k' holds a row that is null or not a number"):
        read(null, "k", dtype=np.int64)
    assert read(null.where("k is not null"), "k", dtype=np.int64) == ROWS - 1
    ragged = frame.withColumn(
        "m", F.when(F.col("id") == 30, F.expr("array(m[0], slice(m[1], 1, 2))")).otherwise(F.col("m"))
    )
    with pytest.raises(Exception, match=r"'m' holds a row that is null or not arrays of the shape \(2, 3\)"):
        read(ragged, "m", 2, 3)
    holes = frame.select("id", F.array("a", F.lit(None).cast("double")).alias("h"))
    assert np.isnan(predicted(holes, Function(lambda h: h), "h")).tolist() == [[False, True]] * ROWS
    assert np.isnan(predicted(holes, Function(lambda h: h[:, 1]), "h")).all()  # not null, which pandas makes of it


def test_refusals(spark: SparkSession, frame: DataFrame) -> None:
    def refused(frame: DataFrame, model: nn.Module, feature_cols: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            predict(frame, model, Columns.parse(feature_cols))
        return str(caught.value)

    text = spark.createDataFrame([("a",)], "s string")
    assert "'s' holds strings" in refused(text, nn.Identity(), "s")
    message = refused(frame, nn.Linear(5, 2), "x")
    assert "mat1 and mat2 shapes cannot be multiplied (2x4 and 5x2). Its columns: 'x' float32 (2, 4)" in message
    assert "forward() returned a tuple" in refused(frame, Function(lambda x: (x, x)), "x")
    assert "forward() returned shape (1, 4) for 2 rows" in refused(frame, Function(lambda x: x[:1]), "x")
    nothing = frame.where("id < 0")
    assert "'x' holds in a row is not known: the DataFrame has no rows" in refused(nothing, nn.Identity(), "x")
    assert predict(nothing, nn.Identity(), Columns.parse("a")).collect() == []
    first = spark.createDataFrame([(None,)], "a double")
    assert "'a' is null in the first row" in refused(first, nn.Identity(), "a")


def test_streaming(spark: SparkSession, frame: DataFrame, tmp_path: Path) -> None:
    from pyspark.ml.feature import VectorAssembler

    frame.select("id", "a", "k", "x").write.parquet(str(tmp_path / "rows"))
    stream = spark.readStream.schema("id int, a double, k int, x array<double>").parquet(str(tmp_path / "rows"))
    with pytest.raises(ConfigError, match="'x' holds in a row is not known: a streaming DataFrame"):
        predict(stream, nn.Identity(), Columns.parse("x"))
    assembled = VectorAssembler(inputCols=["a", "k"], outputCol="v").transform(stream)
    total = Function(lambda rows: rows.sum(1))
    found = predict(stream, total, Columns.parse("x"), "of_x", sample={"x": X[:1]})
    for table, source, expected in (
        ("numbers", predict(assembled, Function(lambda a, k: a + k), Columns.parse(["a", "k"]), "out"), A + K),
        ("vectors", predict(assembled, total, Columns.parse("v"), "out"), A + K),
        ("arrays", found.withColumnRenamed("of_x", "out"), X.sum(1)),
    ):
        writer = source.select("id", "out").writeStream.format("memory").queryName(table).outputMode("append")
        query = writer.option("checkpointLocation", str(tmp_path / table)).trigger(availableNow=True).start()
        assert query.awaitTermination(120)
        assert np.allclose([row["out"] for row in spark.table(table).sort("id").collect()], expected, atol=1e-5)


def test_the_twin() -> None:
    model = nn.Linear(4, 2)
    predictor = Predictor(model, Columns.parse("x"), "fp32", "cpu", (2,))
    rows = X.astype(np.float32)
    assert np.array_equal(predictor(rows), plainly(model, rows))
    with pytest.raises(ValueError, match=r"output has shape \(37, 2\) for 37 rows, but \(3,\) for the first row"):
        Predictor(model, Columns.parse("x"), "fp32", "cpu", (3,))(rows)
    with pytest.raises(ValueError, match="'x' holds a null inside an array"):
        predictor(X)  # what pandas makes of nulls among whole numbers
