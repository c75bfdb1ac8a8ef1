"""Makes a trained network smaller in three ways, and says what each costs: distillation, pruning, int8 weights.

python examples/smaller_model.py            on this machine
spark-submit examples/smaller_model.py      on a cluster

A large network learns scikit-learn's digits. Then a small one learns from it (Hinton et al. 2015: the large one's
softened outputs beside the labels), once with its help and once without; the large one loses the smallest 80 % of its
weights, by magnitude over all layers; and its linear layers compute with int8 (torchao, an extra: sparkdl[quantize]).
"""

from __future__ import annotations

import argparse
import copy
import io
import zlib
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.utils import prune

from sparkdl import Trainer

TEMPERATURE, LABELS = 4.0, 0.3  # how soft the large one's outputs are; the labels' share of the loss


def network(width: int) -> nn.Module:
    """Two hidden layers."""
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


class Distillation:
    """A ``step_fn``: the loss of a student beside its teacher, whose weights stay as they are."""

    def __init__(self, teacher: nn.Module):
        self.teacher = copy.deepcopy(teacher).eval().requires_grad_(False)

    def __call__(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """The mean over the rows."""
        output = model(*batch.inputs)
        with torch.no_grad():
            taught = self.teacher(*batch.inputs)
        soft = F.kl_div(
            F.log_softmax(output / TEMPERATURE, dim=1),
            F.log_softmax(taught / TEMPERATURE, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return LABELS * F.cross_entropy(output, batch.target) + (1 - LABELS) * TEMPERATURE**2 * soft


def pruned(model: nn.Module, share: float) -> nn.Module:
    """A copy whose ``share`` of smallest weights, over all linear layers, is zero."""
    copied = copy.deepcopy(model)
    weights = [(layer, "weight") for layer in copied.modules() if isinstance(layer, nn.Linear)]
    prune.global_unstructured(weights, pruning_method=prune.L1Unstructured, amount=share)
    for layer, name in weights:
        prune.remove(layer, name)
    return copied


def quantized(model: nn.Module) -> nn.Module:
    """A copy whose linear layers have int8 weights and turn their inputs to int8 as they come."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    copied = copy.deepcopy(model).eval()
    quantize_(copied, Int8DynamicActivationInt8WeightConfig())
    return copied


def kilobytes(model: nn.Module) -> tuple[float, float]:
    """Of its saved tensors: as they are, and deflated (what zeros are worth in a file)."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return len(file.getvalue()) / 1024, len(zlib.compress(file.getvalue(), 6)) / 1024


def main() -> None:
    """Trains, shrinks, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--replicas", type=int, help="default: one for each task slot")
    arguments = parser.parse_args()

    pixels, labels = load_digits(return_X_y=True)
    pixels = (pixels / 16.0).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(pixels, labels, test_size=0.2, random_state=0, stratify=labels)
    inputs, wanted = torch.from_numpy(test_x), torch.from_numpy(test_y)

    def trained(width: int, **learning: Any) -> nn.Module:
        trainer = Trainer(
            partial(network, width),
            optimizer=partial(torch.optim.AdamW, lr=3e-3),
            feature_cols="pixels",
            label_col="digit",
            batch_size=64,
            replicas=arguments.replicas,
            **learning,
        )
        trainer.fit({"pixels": train_x, "digit": train_y}, epochs=arguments.epochs)
        return trainer.model

    def say(name: str, model: nn.Module) -> None:
        with torch.no_grad():
            accuracy = float((model(inputs).argmax(dim=1) == wanted).float().mean())
        plain, deflated = kilobytes(model)
        print(f"{name:28} accuracy {accuracy:.4f}  {plain:7.1f} kB  deflated {deflated:7.1f} kB")

    large = trained(256, loss=nn.CrossEntropyLoss()).eval()
    say("256 wide", large)
    say("16 wide", trained(16, loss=nn.CrossEntropyLoss()).eval())
    say("16 wide, taught by the 256", trained(16, step_fn=Distillation(large)).eval())
    for share in (0.5, 0.8, 0.9):
        say(f"256 wide, {share:.0%} pruned", pruned(large, share))
    try:
        say("256 wide, int8", quantized(large))
    except ImportError:
        print("int8: not shown, torchao is not installed (pip install 'sparkdl[quantize]')")


if __name__ == "__main__":
    main()
