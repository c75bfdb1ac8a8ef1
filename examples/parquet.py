"""Trains on Parquet files: writes scikit-learn's diabetes rows as Parquet, reads them back by path, and predicts.

spark-submit examples/parquet.py [--data DIRECTORY_OF_PARQUET_FILES]
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sklearn.datasets import load_diabetes

from sparkdl import Trainer
from sparkdl.spark_conf import session


def write_rows(folder: Path) -> None:
    """442 patients in two files: ten measurements (float columns) and how far the disease has come a year later."""
    measured, progression = load_diabetes(return_X_y=True, as_frame=True)
    table = pa.table(
        {
            **{name: (column / column.std()).to_numpy(np.float32) for name, column in measured.items()},
            "progression": ((progression - progression.mean()) / progression.std()).to_numpy(np.float32),
        }
    )
    for part, rows in enumerate((table.slice(0, 200), table.slice(200))):
        pq.write_table(rows, folder / f"part-{part}.parquet")


def main() -> None:
    """Writes rows unless given some, trains on them, predicts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="Parquet files with the columns of scikit-learn's diabetes data")
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = arguments.data or folder
        if arguments.data is None:
            write_rows(Path(folder))
        names = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
        trainer = Trainer(
            torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1), torch.nn.Flatten(0)),
            loss=torch.nn.MSELoss(),
            optimizer=partial(torch.optim.AdamW, lr=1e-2),
            scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=40, gamma=0.5),
            feature_cols=[names],  # a nested list: ten columns, one input
            label_col="progression",
            batch_size=64,
        )
        history = trainer.fit(path, epochs=arguments.epochs)
        print(history.epochs[["epoch", "loss"]].tail(3).to_string(index=False))
        print(f"mean squared error over all rows: {trainer.evaluate(path)['loss']:.3f} (a constant: 1.000)")
        frame = session().read.parquet(path)
        trainer.predict(frame, output_col="predicted").select("bmi", "progression", "predicted").show(5)


if __name__ == "__main__":
    main()
