"""Trains a small network on scikit-learn's digits (8 x 8 pictures) by Spark jobs and prints its test accuracy.

python examples/digits.py            on this machine
spark-submit examples/digits.py      on a cluster
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from sparkdl import Trainer


def network() -> nn.Module:
    """Two convolutions and a linear layer."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(512, 10),
    )


def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The share of rows whose largest output is at their label."""
    return (output.argmax(dim=1) == target).float().mean()


def main() -> None:
    """Trains, evaluates, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--replicas", type=int, help="default: one for each task slot")
    arguments = parser.parse_args()

    pixels, labels = load_digits(return_X_y=True)
    pixels = (pixels / 16.0).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(pixels, labels, test_size=0.2, random_state=0, stratify=labels)

    total_steps = arguments.epochs * -(-len(train_x) // arguments.batch_size)
    trainer = Trainer(
        network,  # a function: built once, with the trainer's seed
        loss=nn.CrossEntropyLoss(label_smoothing=0.1),
        optimizer=partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.05),
        scheduler=partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=1e-2, total_steps=total_steps),
        metrics={"accuracy": accuracy},
        feature_cols="pixels",
        label_col="digit",
        batch_size=arguments.batch_size,
        replicas=arguments.replicas,
    )
    history = trainer.fit({"pixels": train_x, "digit": train_y}, epochs=arguments.epochs)
    result = trainer.evaluate({"pixels": test_x, "digit": test_y})
    split = history.time_split()
    print(f"trained on {len(train_x)} digits: {len(history.steps)} steps, {arguments.epochs} epochs")
    print(
        f"a step (median): compute {split['compute_ms']:.1f} ms, sync {split['sync_ms']:.1f} ms, "
        f"scheduling {split['scheduling_ms']:.1f} ms"
    )
    print(f"fingerprint of weights and optimizer state: {history.fingerprint}")
    print(f"test loss {result['loss']:.4f}, test accuracy {result['accuracy']:.4f}")


if __name__ == "__main__":
    main()
