"""What can update the touched rows of a table alone is found by trying; what cannot is refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Adagrad, Adam, Optimizer, RMSprop, SparseAdam

from sparkdl.errors import ConfigError
from sparkdl.optim import SliceOptimizer, template
from sparkdl.sparse_optim import sparse_tables
from tests.sparkdl.payloads import payload_of

SGD = torch.optim.SGD


class Mixed(nn.Module):
    """Two tables, one of them used twice, and layers."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.items = nn.Embedding(9, 4, sparse=True, **options)
        self.again = self.items
        self.words = nn.EmbeddingBag(5, 4, sparse=True, mode="sum")
        self.small = nn.Embedding(3, 4)


class OfRows(Optimizer):
    """One number a row, as row-wise Adagrad; ``spread`` breaks what a table needs."""

    def __init__(self, params: Any, spread: str = ""):
        super().__init__(params, {"lr": 0.1})
        self.spread = spread

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            if p.grad.layout == torch.strided:
                continue
            rows, values = p.grad.coalesce().indices()[0], p.grad.coalesce().values()
            state = self.state[p]
            if not state:
                state["squares"] = torch.zeros(len(p))
            state["squares"][rows] += values.square().mean(1)
            if self.spread == "state":
                state["squares"] *= 0.9
                state["squares"] += 0.1
            if self.spread == "weights":
                p.mul_(0.99)
            norm = values.norm() if self.spread == "norm" else 1.0
            p[rows] -= 0.1 * values / norm / (state["squares"][rows, None] + 1).sqrt()


def test_tables_are_the_weights_of_sparse_embeddings() -> None:
    assert sparse_tables(Mixed()) == {"items.weight", "words.weight"}
    with pytest.raises(ConfigError, match=r"'items.weight' has max_norm=1.0"):
        sparse_tables(Mixed(max_norm=1.0))


def test_two_optimizers_number_their_groups_one_after_the_other() -> None:
    model = Mixed()
    model.words.weight.requires_grad_(False)

    def dense(named_parameters: Any) -> Optimizer:
        rest = [p for n, p in named_parameters if n != "first.bias"]
        return Adam([{"params": [model.first.bias]}, {"params": rest, "lr": 0.5}], lr=0.25)

    found, stand_in = template({"dense": dense, "sparse": partial(SparseAdam, lr=0.125)}, model)
    assert found.group_of == {"first.bias": 0, "first.weight": 1, "small.weight": 1, "items.weight": 2}
    assert found.tables == {"items.weight"}
    assert found.elementwise
    assert [h["lr"] for h in found.hyper] == [0.25, 0.5, 0.125]
    torch.optim.lr_scheduler.StepLR(stand_in, 1)
    weights, table = torch.zeros(3), torch.zeros(2, 4)
    touched = torch.sparse_coo_tensor([[1]], torch.ones(1, 4), (2, 4), check_invariants=True).coalesce()
    first, second = SliceOptimizer(found.blank).update(
        [weights, table], [torch.ones(3), touched], [1, 2], [{}, {}], [{}, {}, {"lr": 2.0}]
    )
    assert torch.allclose(weights, torch.tensor(-0.5))
    assert torch.allclose(table, torch.tensor([[0.0], [-2.0]]).expand(2, 4))
    assert (set(first), set(second)) == ({"step", "exp_avg", "exp_avg_sq"},) * 2
    assert payload_of(model, make={"dense": dense, "sparse": SparseAdam}).plan.layout.dense_lots == 1


@pytest.mark.parametrize("make", [SGD, SparseAdam, partial(Adagrad, initial_accumulator_value=0.5), OfRows])
def test_what_updates_rows_alone_is_taken(make: Callable[[Any], Optimizer]) -> None:
    plan = payload_of(nn.Embedding(9, 5, sparse=True), make=make).plan
    assert plan.layout.dense_size == 0
    shapes = {e.name: e.shape for e in plan.entries[0] if e.shape}
    assert shapes == {
        "SGD": {}, "SparseAdam": {"exp_avg": (9, 5), "exp_avg_sq": (9, 5)}, "Adagrad": {"sum": (9, 5)},
        "OfRows": {"squares": (9,)},
    }[getattr(make, "func", make).__name__]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Adam, r"cannot use the sparse gradient .*\(Adam does not support sparse gradients.*SparseAdam"),
        (RMSprop, "RMSprop does not support sparse gradients"),
        (partial(SGD, lr=0.1, weight_decay=0.1), "cannot use the sparse gradient"),
        (partial(Adagrad, weight_decay=0.1), "weight_decay option is not compatible"),
        (partial(SGD, lr=0.1, momentum=0.9), r"keeps a sparse tensor in its state \(key 'momentum_buffer'\)"),
        (partial(OfRows, spread="state"), "its state of other rows changes with every step"),
        (partial(OfRows, spread="weights"), "changes rows of an Embedding that no row of the data looked up"),
        (partial(OfRows, spread="norm"), "update of one row of an Embedding depends on other rows"),
    ],
)
def test_what_needs_more_than_the_touched_rows_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        payload_of(nn.Embedding(9, 5, sparse=True), make=make)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (SparseAdam, "that of 'first.weight' is dense; pass optimizer="),
        ({"dense": Adam}, "the keys 'dense'; pass one function for 'sparse'"),
        ({"dense": Adam, "sparse": SparseAdam, "rest": Adam}, "the keys 'dense', 'sparse', 'rest'"),
        ({"dense": SparseAdam, "sparse": SparseAdam}, "'first.weight' is dense"),
        ({"dense": Adam, "sparse": lambda params: 3}, "returned int"),
    ],
)
def test_wrong_pairs_are_refused(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        template(make, Mixed())


@pytest.mark.parametrize(("model", "key"), [(nn.Linear(2, 2), "sparse"), (nn.Embedding(3, 2, sparse=True), "dense")])
def test_a_function_without_parameters_is_refused(model: nn.Module, key: str) -> None:
    with pytest.raises(ConfigError, match=f"a function for '{key}', but the model has no such parameters"):
        template({"dense": SGD, "sparse": SGD}, model)
