"""What a batch of 1024 instead of 32 costs in accuracy, and what LARS and LAMB bring back: digits, 20 epochs each.

With a batch of 32 that is 900 steps, with 1024 it is 40. Every optimizer gets three rates around its best one, the same
warm-up (a tenth of the steps) and cosine, and three seeds; one JSON line a case with the best rate's test accuracies.

    python benchmarks/large_batches.py --quick
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from sparkdl import Trainer
from sparkdl.large_batches import LAMB, LARS, layer_groups, warmup

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
from digits import network

EPOCHS = 20


def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The share of rows whose largest output is at their label; here, so that it travels to workers by value."""
    return (output.argmax(dim=1) == target).float().mean()


def sgd(lr: float) -> Callable[[Any], torch.optim.Optimizer]:
    """Momentum 0.9."""
    return partial(torch.optim.SGD, lr=lr, momentum=0.9)


def adamw(lr: float) -> Callable[[Any], torch.optim.Optimizer]:
    """Weight decay 0.01, which is LAMB's too."""
    return partial(torch.optim.AdamW, lr=lr, weight_decay=0.01)


def lars(lr: float) -> Callable[[Any], torch.optim.Optimizer]:
    """Biases neither decayed nor adapted."""

    def make(named_parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return LARS(layer_groups(named_parameters), lr=lr, trust=0.02, weight_decay=1e-4)

    return make


def lamb(lr: float) -> Callable[[Any], torch.optim.Optimizer]:
    """Biases neither decayed nor adapted."""

    def make(named_parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return LAMB(layer_groups(named_parameters), lr=lr, weight_decay=0.01)

    return make


CASES: list[tuple[int, Callable[[float], Any], tuple[float, ...]]] = [
    (1024, sgd, (0.1, 0.3, 1.0)),
    (1024, adamw, (0.01, 0.03, 0.1)),
    (1024, lars, (1.0, 2.0, 4.0)),
    (1024, lamb, (0.05, 0.1, 0.2)),
    (32, sgd, (0.03, 0.1, 0.3)),
    (32, adamw, (0.003, 0.01, 0.03)),
    (32, lars, (0.1, 0.3, 1.0)),
    (32, lamb, (0.01, 0.02, 0.04)),
]


def trained_accuracy(batch_size: int, optimizer: Any, seed: int, data: list[np.ndarray]) -> float:
    """Trains once and evaluates on the fifth of the digits that was left out."""
    train_x, test_x, train_y, test_y = data
    steps = EPOCHS * -(-len(train_x) // batch_size)
    warm = steps // 10
    trainer = Trainer(
        network,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        scheduler=partial(warmup, steps=warm, then=partial(CosineAnnealingLR, T_max=steps - warm)),
        metrics={"accuracy": accuracy},
        batch_size=batch_size,
        replicas=1,
        steps_per_job=16,
        seed=seed,
    )
    trainer.fit({"features": train_x, "label": train_y}, epochs=EPOCHS, verbose=0)
    return trainer.evaluate({"features": test_x, "label": test_y})["accuracy"]


def main() -> None:
    """Runs every case; prints one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", default="32,1024")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one seed, the large batch only")
    arguments = parser.parse_args()
    sizes = {1024} if arguments.quick else {int(size) for size in arguments.batch_sizes.split(",")}
    pixels, labels = load_digits(return_X_y=True)
    data = train_test_split((pixels / 16.0).astype(np.float32), labels, test_size=0.2, random_state=0, stratify=labels)
    for batch_size, make, rates in CASES:
        if batch_size not in sizes:
            continue
        found = {
            lr: sorted(
                round(trained_accuracy(batch_size, make(lr), seed, data), 4)
                for seed in range(1 if arguments.quick else arguments.seeds)
            )
            for lr in rates
        }
        best = max(found, key=lambda lr: float(np.mean(found[lr])))
        mean = round(float(np.mean(found[best])), 4)
        case = {"batch_size": batch_size, "optimizer": make.__name__, "lr": best, "accuracy": mean, "of": found}
        print(json.dumps(case), flush=True)


if __name__ == "__main__":
    main()
