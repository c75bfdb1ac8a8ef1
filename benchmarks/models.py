"""The networks, the synthetic rows and the optimizer that every benchmark and every peer shares.

All models consist of torch's own layers, so that Spark's workers need no module of this folder. All take flat float32
rows [B, F] and give logits [B, num_classes].
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

NUM_CLASSES = 10
LEARNING_RATE = 0.01
MOMENTUM = 0.9
make_optimizer = partial(torch.optim.SGD, lr=LEARNING_RATE, momentum=MOMENTUM)


class Spec(NamedTuple):
    """One network of the benchmarks. `num_features` is F; `default_steps` is how many steps give a settled median."""

    num_features: int
    num_classes: int
    default_steps: int
    about: str


SPECS: dict[str, Spec] = {
    "mlp": Spec(784, NUM_CLASSES, 1000, "784-256-10, 204k parameters: the step is all overhead"),
    "lenet": Spec(784, NUM_CLASSES, 800, "two tanh convolutions and two linear layers, 22k parameters"),
    "big": Spec(784, NUM_CLASSES, 120, "784-4096-2048-10, 11.6M parameters: the step is all traffic"),
    "conv": Spec(3 * 32 * 32, NUM_CLASSES, 20, "six convolutions on 3x32x32, 307k parameters: the step is all compute"),
    "tiny": Spec(22, 2, 500, "one linear layer, 46 parameters: an empty step"),
}


def mlp() -> nn.Module:
    """784-256-10 with ReLU, 203,530 parameters."""
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, NUM_CLASSES))


def lenet() -> nn.Module:
    """BigDL's LeNet-5 on 28x28 rows: tanh, 6 and 12 maps of 5x5, linear 192-100-10."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 6, 5),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 12, 5),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12 * 4 * 4, 100),
        nn.Tanh(),
        nn.Linear(100, NUM_CLASSES),
    )


def big() -> nn.Module:
    """784-4096-2048-10 with ReLU, 11,626,506 parameters, 46.5 MB in fp32."""
    return nn.Sequential(
        nn.Linear(784, 4096), nn.ReLU(), nn.Linear(4096, 2048), nn.ReLU(), nn.Linear(2048, NUM_CLASSES)
    )


CONV_WIDTHS = (48, 64, 128)
"""Channels of the three pairs of 3x3 convolutions of `conv`; each pair ends in a 2x2 pool."""


def conv() -> nn.Module:
    """Six 3x3 convolutions on 3x32x32 rows (48, 48, 64, 64, 128, 128 channels), then one linear layer."""
    layers: list[nn.Module] = [nn.Unflatten(1, (3, 32, 32))]
    channels = 3
    for width in CONV_WIDTHS:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    layers += [nn.Flatten(), nn.Linear(channels * 4 * 4, NUM_CLASSES)]
    return nn.Sequential(*layers)


def tiny() -> nn.Module:
    """One linear layer of 46 parameters: what a step costs when there is nothing to do in it."""
    return nn.Linear(22, 2)


MAKERS = {"mlp": mlp, "lenet": lenet, "big": big, "conv": conv, "tiny": tiny}


def make_model(name: str, seed: int = 0) -> nn.Module:
    """The network `name` with weights drawn from `seed`; the same weights in every process that asks."""
    if name not in MAKERS:
        raise ValueError(f"there is no benchmark model {name!r}; choose one of {', '.join(MAKERS)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MAKERS[name]()


def make_rows(name: str, num_rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [num_rows, F] uniform in [0, 1) and labels int64 [num_rows], both from `seed`."""
    spec = SPECS[name]
    rng = np.random.default_rng([seed, num_rows])
    features = rng.random((num_rows, spec.num_features), dtype=np.float32)
    labels = rng.integers(0, spec.num_classes, size=num_rows, dtype=np.int64)
    return features, labels


def num_parameters(model: nn.Module) -> int:
    """How many numbers the optimizer updates."""
    return sum(p.numel() for p in model.parameters())
