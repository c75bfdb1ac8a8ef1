"""A small model with sparse embeddings, and its data, that several tests train with."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import nn
from torch.optim import Adam, SparseAdam

USERS, ITEMS, WIDTH = 200, 90, 8
PAIR = {"dense": partial(Adam, lr=0.01), "sparse": partial(SparseAdam, lr=0.01)}


class Scores(nn.Module):
    """Two tables looked up by number, one by bags of words, and a layer that may be left out."""

    def __init__(self, layer: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.users = nn.Embedding(USERS, WIDTH, sparse=True)
            self.items = nn.Embedding(ITEMS, WIDTH, sparse=True, padding_idx=0)
            self.words = nn.EmbeddingBag(30, WIDTH, sparse=True, mode="mean")
            self.layer = nn.Sequential(nn.Linear(WIDTH, 4), nn.Dropout(0.1), nn.Linear(4, 1)) if layer else None

    def forward(self, user: torch.Tensor, item: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        found = self.users(user) * self.items(item) + self.words(words)
        result: torch.Tensor = (found.sum(1, keepdim=True) if self.layer is None else self.layer(found)).squeeze(1)
        return result


def data(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {
        "user": rng.integers(0, USERS, rows),
        "item": (rng.random(rows) ** 3 * ITEMS).astype(np.int64),  # a few of them in most steps
        "words": rng.integers(0, 30, (rows, 3)),
        "label": rng.random(rows, dtype=np.float32),
    }
