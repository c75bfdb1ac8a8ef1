"""Payloads of small models, as the trainer makes them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from sparkdl import slices
from sparkdl.columns import Columns
from sparkdl.optim import template
from sparkdl.payload import Payload, buffer_sizes
from sparkdl.versioned_state import state_plan


def payload_of(
    model: nn.Module,
    loss: Any = nn.functional.mse_loss,
    columns: Columns | None = None,
    make: Any = None,
    **options: Any,
) -> Payload:
    """The payload of a model and an optimizer (SGD); columns x and y."""
    found, _ = template(make or partial(torch.optim.SGD, lr=0.1), model)
    places = [(n, tuple(p.shape), found.group_of[n]) for n, p in model.named_parameters() if n in found.group_of]
    plan = state_plan(found, slices.layout(places, found.elementwise, found.tables), *buffer_sizes(model))
    columns = columns or Columns.parse("x", "y")
    options = {"seed": 0, "batch_size": 8} | options
    return Payload(model=model, loss=loss, template=found, plan=plan, columns=columns, **options)
