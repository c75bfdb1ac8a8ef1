"""examples/neumf.py: its ratings have MovieLens-1M's shape, nothing held out is trained on, and it learns."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import ModuleType

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession

from sparkdl import Trainer
from tests.loaded_example import loaded

USERS, ITEMS = 150, 120


@pytest.fixture(scope="module")
def neumf() -> Iterator[ModuleType]:
    with loaded("neumf") as module:
        yield module


def test_rows_and_candidates(neumf: ModuleType) -> None:
    rated = neumf.made_ratings(USERS, ITEMS, 5000)
    train, candidates = neumf.dealt(rated, ITEMS)
    counts = np.array([len(items) for items in rated])
    assert counts.min() >= 20
    assert counts.max() > 2 * np.median(counts)
    assert 4000 < counts.sum() < 6000
    assert len(train["user"]) == counts.sum() - USERS
    for user, items in enumerate(rated):
        mine, seen = train["items"][train["user"] == user], set(items.tolist())
        assert len(seen) == len(items)
        assert set(mine[:, 0].tolist()) == seen - {items[-1]}
        assert not seen & set(mine[:, 1:].ravel().tolist())
        assert candidates[user, 0] == items[-1]
        assert not seen & set(candidates[user, 1:].tolist())


def test_ranking_counts_hits_and_their_places(neumf: ModuleType) -> None:
    class Fixed(torch.nn.Module):
        def forward(self, user: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
            place = torch.tensor([0, 1, 9, 10])[user]  # so many of the others are better
            return torch.where(torch.arange(100) == 0, 0.5, (torch.arange(100) <= place[:, None]) * 1.0)

    hits, gain = neumf.ranked(Fixed(), np.zeros((4, 100), np.int64))
    assert hits == 0.75
    assert gain == pytest.approx((1 + 1 / np.log2(3) + 1 / np.log2(11)) / 4)


@pytest.mark.spark
def test_it_learns(neumf: ModuleType, spark: SparkSession) -> None:
    train, candidates = neumf.dealt(neumf.made_ratings(USERS, ITEMS, 5000), ITEMS)
    trainer = Trainer(
        partial(neumf.NeuMF, USERS, ITEMS, 8, (16, 8)),
        neumf.first_is_liked,
        {"dense": partial(torch.optim.Adam, lr=0.01), "sparse": partial(torch.optim.SparseAdam, lr=0.01)},
        feature_cols=["user", "items"],
        label_col=None,
        batch_size=512,
        replicas=2,
    )
    blind = neumf.ranked(trainer.model, candidates)
    trainer.fit(train, epochs=3, verbose=0)
    hits, gain = neumf.ranked(trainer.model, candidates)
    assert hits > blind[0] + 0.1
    assert gain > blind[1] + 0.05
