"""A classifier's output as Spark ML tells it: a raw score and a probability of each class, and the likeliest class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from sparkdl.errors import ConfigError

__all__ = ["ClassScores", "Scale", "classes_of"]

# What the outputs are: one score a class (logits, or logarithms of probabilities), the logit of class 1 of two, or its
# probability.
Scale = Literal["classes", "logit", "probability"]

COLUMNS = ("raw", "probability", "prediction")


def classes_of(row_shape: tuple[int, ...], loss: Any) -> tuple[int, Scale]:
    """How many classes a model has, and what its outputs are. row_shape: of its output for one row; loss: its loss.

    Raises ConfigError: the outputs of a row are not the scores of classes.
    """
    sigmoid = isinstance(loss, nn.BCELoss | nn.BCEWithLogitsLoss)
    if row_shape in ((), (1,)):
        return 2, "probability" if isinstance(loss, nn.BCELoss) else "logit"
    if len(row_shape) == 1 and not sigmoid:
        return row_shape[0], "classes"
    why = f" and {type(loss).__name__} makes {row_shape[0]} labels of them" if len(row_shape) == 1 else ""
    raise ConfigError(
        f"the model gives {row_shape} numbers a row{why}; TorchClassifier tells one class a row, from one score a "
        "class, or one number for two classes. Return that from forward(), or use TorchEstimator, whose column is the "
        "output itself"
    )


class ClassScores(nn.Module):
    """Wraps a classifier so that one pass gives all that is wanted, side by side, float32 [rows, columns].

    wanted: of "raw" (num_classes columns), "probability" (num_classes) and "prediction" (one), in that order.
    Raw scores are the outputs, or -x and x for one logit x (of a probability p: log(p / (1 - p))). Probabilities are
    their softmax, for one logit the sigmoid. The prediction is the class of the largest score, the first of several.
    """

    def __init__(self, model: nn.Module, num_classes: int, scale: Scale, wanted: Sequence[str] = COLUMNS):
        super().__init__()
        self.model, self.num_classes, self.scale = model, num_classes, scale
        self.wanted = [name for name in COLUMNS if name in wanted]

    def forward(self, *inputs: Any, **named: Any) -> torch.Tensor:
        """As the model's own, whose output it takes."""
        output = self.model(*inputs, **named).float()  # softmax has more digits than bfloat16
        if self.scale == "classes":
            raw = output.reshape(-1, self.num_classes)
            probability = raw.softmax(1)
        else:
            one = output.reshape(-1, 1)
            of_one = one if self.scale == "probability" else one.sigmoid()
            logit = one.logit() if self.scale == "probability" else one
            raw = torch.cat([-logit, logit], 1)
            of_zero = 1 - one if self.scale == "probability" else (-one).sigmoid()
            probability = torch.cat([of_zero, of_one], 1)
        found = {"raw": raw, "probability": probability, "prediction": raw.argmax(1, keepdim=True).float()}
        return torch.cat([found[name] for name in self.wanted], 1)
