"""How long does a Spark ML pipeline with TorchClassifier take, beside one with Spark's MultilayerPerceptronClassifier?

Both are VectorAssembler, StandardScaler and a network of one hidden layer of the same width (ours with ReLU and Adam,
Spark's with its sigmoid and L-BFGS, all else its defaults), on the same cached rows, on `local[2]`, each in a session
of its own: Spark's with Java's best compiler, ours as sparkdl starts it. Each is fitted on a ladder of budgets (epochs;
maxIter), after one small fit that warms the session up (`first_s`: how long that took). A rung's seconds are those of
Pipeline.fit, by the clock (`s`) and of all processes' CPU (`cpu_s`), which a busy machine disturbs less.

  digits     scikit-learn's 1,797 digits, 64 columns, 10 classes
  generated  200,000 rows for training, 40,000 for the test, 50 columns, 5 classes (scikit-learn's make_classification)

One JSON line a contestant, then one a data set: `target` is the best test accuracy that both reach (the lower of the
two best ones), `ours` and `spark` are the first rungs at it or within 0.2 points, `ratio` and `cpu_ratio` are ours over
Spark's; `transform_ratio` compares the seconds to predict and score the test rows.

    python benchmarks/pipeline.py
    python benchmarks/pipeline.py --quick        less than a minute: digits only, one rung each
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from peers import load_average
from processes import cpu_seconds

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))

TOLERANCE = 0.002  # of accuracy, by which two results count as equal


class Case(NamedTuple):
    """A data set, the network's hidden width, our batch and learning rate, and the ladders."""

    hidden: int
    batch_size: int
    learning_rate: float
    epochs: tuple[int, ...]
    iterations: tuple[int, ...]


CASES = {
    "digits": Case(64, 128, 5e-3, (5, 10, 20, 40), (25, 50, 100, 200)),
    "generated": Case(128, 2048, 5e-3, (2, 4, 6, 8, 10, 12, 16), (25, 50, 100, 200)),
}


def rows(name: str, num_rows: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Features [rows, columns], labels [rows], and how many of the rows, the first ones, are for training."""
    from sklearn.datasets import load_digits, make_classification

    if name == "digits":
        features, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(labels))
        return features[order], labels[order], round(0.8 * len(labels))
    features, labels = make_classification(
        n_samples=num_rows * 6 // 5,
        n_features=50,
        n_informative=20,
        n_redundant=10,
        n_classes=5,
        n_clusters_per_class=8,
        flip_y=0.02,
        random_state=0,
    )
    return features, labels, num_rows


def write(name: str, num_rows: int, folder: str) -> int:
    """The rows as Parquet, a column each, in four files of training rows and one for the test; returns their width."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features, labels, num_train = rows(name, num_rows)
    table = pa.table({**{f"x{i}": c for i, c in enumerate(features.T)}, "label": labels.astype(np.float64)})
    for part in ("train", "test"):
        os.makedirs(f"{folder}/{part}")
    for number, piece in enumerate(np.array_split(np.arange(num_train), 4)):
        pq.write_table(table.slice(piece[0], len(piece)), f"{folder}/train/{number}.parquet")
    pq.write_table(table.slice(num_train), f"{folder}/test/0.parquet")
    return features.shape[1]


def contestant(who: str, name: str, folder: str, width: int, ladder: list[int]) -> dict[str, Any]:
    """One of the two, on its ladder, in this process's session."""
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import MultilayerPerceptronClassifier
    from pyspark.ml.evaluation import MulticlassClassificationEvaluator
    from pyspark.ml.feature import StandardScaler, VectorAssembler

    from sparkdl import spark_conf
    from sparkdl.ml import TorchClassifier

    case = CASES[name]
    best = {"spark.driver.extraJavaOptions": "-XX:+UseParallelGC"} if who == "spark" else {}
    spark = spark_conf.start_embedded(
        cores=2, settings={"spark.driver.memory": "4g", "spark.sql.shuffle.partitions": "2", **best}
    )
    train, test = (spark.read.parquet(f"{folder}/{part}").cache() for part in ("train", "test"))
    classes = int(train.agg({"label": "max"}).head()[0]) + 1  # type: ignore[index]
    counts = [train.count(), test.count()]
    evaluator = MulticlassClassificationEvaluator(metricName="accuracy")

    def pipeline(budget: int) -> Pipeline:
        if who == "spark":
            last: Any = MultilayerPerceptronClassifier(
                featuresCol="scaled", layers=[width, case.hidden, classes], maxIter=budget, seed=0
            )
        else:
            last = TorchClassifier(
                model=network(width, case.hidden, classes),
                learning_rate=case.learning_rate,
                features_col="scaled",
                epochs=budget,
                batch_size=case.batch_size,
                verbose=0,
            )
        assembled = VectorAssembler(inputCols=[f"x{i}" for i in range(width)], outputCol="features")
        return Pipeline(
            stages=[assembled, StandardScaler(inputCol="features", outputCol="scaled", withMean=True), last]
        )

    began = time.perf_counter()
    pipeline(2).fit(train.limit(1000)).transform(test.limit(100)).select("prediction").collect()
    first = time.perf_counter() - began
    rungs, transforms = [], []
    for budget in ladder:
        began, used = time.perf_counter(), cpu_seconds()
        model = pipeline(budget).fit(train)
        rung = {"budget": budget, "s": time.perf_counter() - began, "cpu_s": cpu_seconds() - used}
        began = time.perf_counter()
        accuracy = evaluator.evaluate(model.transform(test))
        transforms.append(time.perf_counter() - began)
        rungs.append({name: round(value, 2) for name, value in rung.items()} | {"accuracy": round(accuracy, 4)})
    found = {"data": name, "who": who, "rows": counts, "rungs": rungs, "transform_s": round(min(transforms), 2)}
    return {**found, "first_s": round(first, 2), "load": load_average()}


def network(width: int, hidden: int, classes: int) -> Any:
    """One hidden layer, seeded."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def verdict(name: str, ours: dict[str, Any], sparks: dict[str, Any]) -> dict[str, Any]:
    """The times at which both reach the same accuracy."""
    target = min(max(rung["accuracy"] for rung in found["rungs"]) for found in (ours, sparks))
    mine, theirs = (
        next(rung for rung in found["rungs"] if rung["accuracy"] >= target - TOLERANCE) for found in (ours, sparks)
    )
    return {
        "data": name,
        "target": target,
        "ours": mine,
        "spark": theirs,
        "ratio": round(mine["s"] / theirs["s"], 2),
        "cpu_ratio": round(mine["cpu_s"] / theirs["cpu_s"], 2),
        "ratio_with_first": round((mine["s"] + ours["first_s"]) / (theirs["s"] + sparks["first_s"]), 2),
        "transform_ratio": round(ours["transform_s"] / sparks["transform_s"], 2),
    }


def main() -> None:
    """Runs every contestant in a process of its own; prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits,generated")
    parser.add_argument("--rows", type=int, default=200_000, help="of the generated set, for training")
    parser.add_argument("--quick", action="store_true", help="digits only, one rung each")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        print(json.dumps(contestant(**json.loads(arguments.contestant))), flush=True)
        return
    for name in ["digits"] if arguments.quick else arguments.data.split(","):
        with tempfile.TemporaryDirectory() as folder:
            width = write(name, arguments.rows, folder)
            found = {}
            for who, ladder in (("ours", CASES[name].epochs), ("spark", CASES[name].iterations)):
                about = {"who": who, "name": name, "folder": folder, "width": width, "ladder": list(ladder)}
                if arguments.quick:
                    about["ladder"] = [ladder[1]]
                command = [sys.executable, str(HERE), "--contestant", json.dumps(about)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[who] = json.loads(done.stdout.strip().splitlines()[-1])
                print(json.dumps(found[who]), flush=True)
            print(json.dumps(verdict(name, found["ours"], found["spark"])), flush=True)


if __name__ == "__main__":
    main()
