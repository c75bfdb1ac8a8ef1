"""Pictures in, features out: a detector finds the object, an extractor looks at it, both stages of one Spark pipeline.

spark-submit examples/image_features.py [--output hdfs:///features]
python examples/image_features.py            on this machine

Each picture (32 x 32 bytes) has one of scikit-learn's digits somewhere among noise. Both networks are trained here: the
detector on where the digits are, the extractor, behind the trained detector, on which digits they are; in use it gives
the 16 numbers before its last layer. What it finds is written as Parquet, and judged by the nearest neighbour's label.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from pyspark.ml import PipelineModel
from pyspark.ml.functions import vector_to_array
from pyspark.sql import DataFrame, SparkSession
from sklearn.datasets import load_digits
from torch import nn

from sparkdl.ml import TorchEstimator
from sparkdl.spark_conf import session

SIZE, DIGIT, FEATURES = 32, 8, 16


def decode(picture: bytes) -> np.ndarray:
    """float32 [1, 32, 32], 0 to 1."""
    return np.frombuffer(picture, np.uint8).reshape(1, SIZE, SIZE).astype(np.float32) / 255


class Detector(nn.Module):
    """Where the object is: row and column of its middle, as shares of the picture; the mean of a map of scores."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Sequential(
            nn.Conv2d(1, 12, 5, padding=2), nn.ReLU(), nn.Conv2d(12, 12, 5, padding=2), nn.ReLU(),
            nn.Conv2d(12, 1, 5, padding=2),
        )  # fmt: skip

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """[rows, 1, 32, 32] to [rows, 2]."""
        share = self.scores(picture).flatten(1).softmax(dim=1).view(-1, SIZE, SIZE)
        axis = (torch.arange(SIZE, device=picture.device) + 0.5) / SIZE
        return torch.stack([share.sum(dim=2) @ axis, share.sum(dim=1) @ axis], dim=1)


class Extractor(nn.Module):
    """Cuts the object out and describes it: scores of the ten digits in training, 16 features in use."""

    def __init__(self) -> None:
        super().__init__()
        self.describe = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * 25, FEATURES), nn.Tanh(),
        )  # fmt: skip
        self.tell = nn.Linear(FEATURES, 10)

    def forward(self, picture: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """[rows, 1, 32, 32] and [rows, 2] to [rows, 10] or [rows, 16]."""
        window = torch.eye(2, 3, device=picture.device).repeat(len(picture), 1, 1) * (DIGIT + 2) / SIZE
        window[:, :, 2] = where.flip(1) * 2 - 1  # grid_sample speaks of x and y from -1 to 1
        grid = F.affine_grid(window, [len(picture), 1, DIGIT + 2, DIGIT + 2], align_corners=False)
        features = self.describe(F.grid_sample(picture, grid, align_corners=False))
        return self.tell(features) if self.training else features


def pictures(spark: SparkSession, seed: int, count: int) -> DataFrame:
    """Columns id, picture (bytes), digit, place (two floats)."""
    rng = np.random.default_rng(seed)
    pixels, labels = load_digits(return_X_y=True)
    chosen = rng.integers(0, len(pixels) // 2, count) + (seed % 2) * (len(pixels) // 2)  # test and training ones apart
    corner = rng.integers(0, SIZE - DIGIT + 1, (count, 2))
    field = rng.uniform(0, 70, (count, SIZE, SIZE))
    for picture, (top, left), digit in zip(field, corner, pixels[chosen].reshape(-1, DIGIT, DIGIT), strict=True):
        picture[top : top + DIGIT, left : left + DIGIT] = np.maximum(digit / 16 * 255, 20)
    place = (corner + DIGIT / 2) / SIZE
    content = [one.astype(np.uint8).tobytes() for one in field]
    rows = zip(range(count), content, labels[chosen].tolist(), place.tolist(), strict=True)
    return spark.createDataFrame(list(rows), "id long, picture binary, digit long, place array<float>")


def main() -> None:
    """Trains both, chains them, writes features, judges them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--pictures", type=int, default=2000, help="to learn from; half as many test (%(default)s)")
    parser.add_argument("--output", help="where the features go; default: a temporary directory")
    arguments = parser.parse_args()
    spark = session()
    train, test = pictures(spark, 0, arguments.pictures), pictures(spark, 1, arguments.pictures // 2)

    torch.manual_seed(0)  # of the first weights
    learning = {
        "optimizer": torch.optim.AdamW, "learning_rate": 3e-3, "transforms": {"picture": decode}, "batch_size": 64,
        "epochs": arguments.epochs,
    }  # fmt: skip
    detector = TorchEstimator(
        model=Detector(), loss=partial(F.smooth_l1_loss, beta=0.02), features_col="picture", label_col="place",
        prediction_col="where", **learning,
    ).fit(train)  # fmt: skip
    extractor = TorchEstimator(
        model=Extractor(), loss=nn.CrossEntropyLoss(), features_col=["picture", "where"], label_col="digit",
        prediction_col="features", **learning,
    ).fit(detector.transform(train))  # fmt: skip

    pipeline = PipelineModel(stages=[detector, extractor])
    with tempfile.TemporaryDirectory() as folder:
        output = arguments.output or f"{folder}/features"
        numbers = [vector_to_array(name).alias(name) for name in ("where", "features")]
        pipeline.transform(test).select("id", "digit", "place", *numbers).write.mode("overwrite").parquet(output)
        table = spark.read.parquet(output).orderBy("id").toPandas()
    where, place = np.stack(table["where"].to_list()), np.stack(table["place"].to_list())
    features, digits = np.stack(table["features"].to_list()), table["digit"].to_numpy()
    away = np.linalg.norm((where - place) * SIZE, axis=1)
    distances = np.linalg.norm(features[:, None] - features[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    right = np.mean(digits[distances.argmin(axis=1)] == digits)
    print(f"{len(table)} pictures, {features.shape[1]} features each")
    print(f"detector: {np.median(away):.2f} pixels off (median), {np.mean(away < 2):.1%} within two")
    print(f"extractor: the nearest neighbour shows the same digit in {right:.1%}")


if __name__ == "__main__":
    main()
