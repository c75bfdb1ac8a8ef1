"""Neural collaborative filtering (NeuMF, He et al. 2017, arXiv:1708.05031) on ratings of MovieLens-1M's shape.

The ratings are made here: as many users, items and ratings as MovieLens-1M has, as unevenly spread, from tastes that
can be learnt. Of each user one item is held out and ranked among 99 that the user has not rated: HR@10 is the share of
users for whom it is among the first ten, NDCG@10 also counts how far in front. A blind guess gets 0.10 and 0.045.

python examples/neumf.py             on this machine
python examples/neumf.py --small     a minute
spark-submit examples/neumf.py       on a cluster
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from sparkdl import Trainer

USERS, ITEMS, RATINGS = 6040, 3706, 1_000_209
NEGATIVES = 4  # for each rating, items that the user has not rated
CANDIDATES = 99
TOP = 10


class NeuMF(nn.Module):
    """A product of factors beside a multi-layer perceptron, each with tables of its own; scores items for users.

    factors: width of the product's tables. widths: of the perceptron; the first is that of its two rows side by side.
    sparse: whether a step's cost follows the rows that it looks up, not the tables.
    """

    def __init__(self, users: int, items: int, factors: int, widths: tuple[int, ...], sparse: bool = True):
        super().__init__()
        half = widths[0] // 2
        self.user_factors, self.item_factors = (nn.Embedding(n, factors, sparse=sparse) for n in (users, items))
        self.user_rows, self.item_rows = (nn.Embedding(n, half, sparse=sparse) for n in (users, items))
        for table in (self.user_factors, self.item_factors, self.user_rows, self.item_rows):
            nn.init.normal_(table.weight, std=0.05)
        layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
        self.perceptron = nn.Sequential(*layers)
        self.score = nn.Linear(factors + widths[-1], 1)

    def forward(self, user: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """user: int64 [rows]; items: int64 [rows, n]. Returns scores [rows, n]."""
        product = self.user_factors(user).unsqueeze(1) * self.item_factors(items)
        rows = self.item_rows(items)
        side_by_side = torch.cat([self.user_rows(user).unsqueeze(1).expand_as(rows), rows], dim=2)
        result: torch.Tensor = self.score(torch.cat([product, self.perceptron(side_by_side)], dim=2)).squeeze(2)
        return result


def first_is_liked(output: torch.Tensor, target: Any) -> torch.Tensor:
    """Binary cross-entropy: of each row's items the first was rated, the others were not."""
    liked = torch.zeros_like(output)
    liked[:, 0] = 1.0
    return nn.functional.binary_cross_entropy_with_logits(output, liked)


def made_ratings(users: int, items: int, ratings: int, seed: int = 0) -> list[np.ndarray]:
    """For each user the items that were rated, in the order of rating; at least 20 of them, or a fifth of all.

    A few items get most ratings and a few users give most of them; among items of equal fame taste decides.
    """
    rng = np.random.default_rng(seed)
    least = min(20, items // 5)
    activity = rng.lognormal(0.0, 1.0, users)
    counts = np.clip(least + activity * (ratings / users - least) / activity.mean(), least, 0.6 * items).astype(int)
    fame = -1.1 * np.log(10 + np.arange(items)) * 1.5
    tastes, kinds = rng.normal(size=(users, 8)), rng.normal(size=(items, 8))
    found = []
    for user in range(users):
        # the largest of "log weight + Gumbel" are a draw without replacement
        drawn = fame + 0.9 * kinds @ tastes[user] + rng.gumbel(size=items)
        found.append(np.argsort(-drawn)[: counts[user]])
    for rated in found:
        rng.shuffle(rated)
    return found


def not_rated(rng: np.random.Generator, rated: np.ndarray, items: int, shape: tuple[int, ...]) -> np.ndarray:
    """Items drawn evenly among those that are not in ``rated``."""
    return rng.choice(np.setdiff1d(np.arange(items), rated, assume_unique=True), shape)


def dealt(rated: list[np.ndarray], items: int, seed: int = 1) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Rows to train on (a user; the rated item and four others), and items to rank: int64 [users, 1 + 99]."""
    rng = np.random.default_rng(seed)
    rows = [np.c_[r[:-1, None], not_rated(rng, r, items, (len(r) - 1, NEGATIVES))] for r in rated]
    candidates = [np.r_[r[-1], not_rated(rng, r, items, (CANDIDATES,))] for r in rated]
    users = np.repeat(np.arange(len(rated)), [len(found) for found in rows])
    return {"user": users, "items": np.concatenate(rows)}, np.stack(candidates)


def ranked(model: nn.Module, candidates: np.ndarray) -> tuple[float, float]:
    """HR@10 and NDCG@10 of the first candidate of each user."""
    model.eval()
    with torch.no_grad():
        chunks = torch.from_numpy(candidates).split(512)
        users = torch.arange(len(candidates)).split(512)
        scores = torch.cat([model(u, c) for u, c in zip(users, chunks, strict=True)]).numpy()
    place = (scores[:, 1:] >= scores[:, :1]).sum(1)  # of equal scores the held-out item comes last
    hit = place < TOP
    return float(hit.mean()), float((hit / np.log2(place + 2.0)).mean())


def main() -> None:
    """Makes ratings, trains, ranks, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a tenth of the users and items, 1 / 30 of the ratings")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--factors", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=2048, help="ratings of a step; each brings 5 records")
    parser.add_argument("--replicas", type=int, help="default: one for each task slot")
    arguments = parser.parse_args()

    share, of_ratings = (10, 30) if arguments.small else (1, 1)
    users, items = USERS // share, ITEMS // share
    rated = made_ratings(users, items, RATINGS // of_ratings)
    train, candidates = dealt(rated, items)
    widths = tuple(arguments.factors * k for k in (8, 4, 2, 1))
    trainer = Trainer(
        partial(NeuMF, users, items, arguments.factors, widths),
        loss=first_is_liked,
        # tables lazily, by the rows of a step; the perceptron as always
        optimizer={"dense": partial(torch.optim.Adam, lr=2e-3), "sparse": partial(torch.optim.SparseAdam, lr=2e-3)},
        feature_cols=["user", "items"],
        label_col=None,
        batch_size=arguments.batch_size // (4 if arguments.small else 1),
        replicas=arguments.replicas,
    )
    history = trainer.fit(train, epochs=arguments.epochs)
    hits, gain = ranked(trainer.model, candidates)
    records = (1 + NEGATIVES) * float(history.steps["rows_per_second"].median())
    print(f"{users:,} users, {items:,} items, {len(train['user']):,} ratings: {len(history.steps)} steps")
    print(f"{records:,.0f} records/s (median step)")
    print(f"HR@10 {hits:.4f}, NDCG@10 {gain:.4f}")


if __name__ == "__main__":
    main()
