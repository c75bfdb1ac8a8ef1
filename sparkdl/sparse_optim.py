"""Which parameters are embedding tables, and which optimizers can update the touched rows of a table alone.

That is tried, not listed: an optimizer takes two steps with a sparse gradient on a few rows, and what they changed is
looked at. Of torch's own, SparseAdam, SGD without momentum and Adagrad can.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import torch

from sparkdl.errors import ConfigError

Make: TypeAlias = Callable[[Any], torch.optim.Optimizer]
Named: TypeAlias = list[tuple[str, torch.nn.Parameter]]
Update: TypeAlias = Callable[[torch.Tensor, torch.Tensor, dict[str, Any]], dict[str, Any]]

BOTH = '{"dense": partial(torch.optim.Adam, lr=…), "sparse": partial(torch.optim.SparseAdam, lr=…)}'


def sparse_tables(model: torch.nn.Module) -> frozenset[str]:
    """The names of the parameters that are weights of an ``Embedding`` or ``EmbeddingBag`` with ``sparse=True``.

    Raises ConfigError: one has a ``max_norm``.
    """
    kinds = (torch.nn.Embedding, torch.nn.EmbeddingBag)
    found = {id(m.weight): m for m in model.modules() if isinstance(m, kinds) and m.sparse}
    tables = {name: found[id(p)] for name, p in model.named_parameters() if id(p) in found}
    for name, module in tables.items():
        if module.max_norm is not None:
            raise ConfigError(
                f"the Embedding of {name!r} has max_norm={module.max_norm} and sparse=True: it would change rows of "
                "the table in forward(), where only the optimizer may; leave max_norm out, or divide by the norm there"
            )
    return frozenset(tables)


def by_kind(makers: Mapping[str, Make], trainable: Named, tables: Collection[str]) -> list[tuple[Make, Named]]:
    """The two functions of an ``optimizer`` that is a mapping, dense first, and the parameters of each.

    Raises ConfigError: it has other keys, or there are no such parameters.
    """
    members = {
        "dense": [(name, p) for name, p in trainable if name not in tables],
        "sparse": [(name, p) for name, p in trainable if name in tables],
    }
    if set(makers) != set(members):
        raise ConfigError(
            f"optimizer is a mapping with the keys {', '.join(map(repr, makers))}; pass one function for 'sparse', the "
            "weights of Embeddings with sparse=True, and one for 'dense', all else"
        )
    for key, found in members.items():
        if not found:
            raise ConfigError(
                f"optimizer has a function for {key!r}, but the model has no such parameters; 'sparse' are the weights "
                "of Embeddings and EmbeddingBags with sparse=True, 'dense' all others. Pass the other function alone"
            )
    return [(makers[key], members[key]) for key in ("dense", "sparse")]


def try_table(update: Update, width: int) -> tuple[dict[str, Any], int]:
    """Two steps on a table of a few rows, some of them touched; returns the state and how many rows there were.

    update: one step of the optimizer on (weights, sparse gradient, state); returns the new state. width: of a row.
    Raises ConfigError: it takes no sparse gradient, touches other rows, or a row's update depends on others.
    """
    few = 5 if width == 4 else 4  # so that what is as long as the table can be told from what is as long as a row
    start = torch.linspace(-1.0, 1.0, few * width).view(few, width)
    values = torch.linspace(0.5, 2.0, 2 * width).view(2, width)

    def tried(weights: torch.Tensor, rows: Sequence[int], of_values: Sequence[int]) -> dict[str, Any]:
        others = [row for row in range(len(weights)) if row not in rows]
        state: dict[str, Any] = {}
        before: dict[str, torch.Tensor] = {}
        for number in (1.0, -0.5):
            places = torch.tensor([list(rows)])
            gradient = torch.sparse_coo_tensor(
                places, values[list(of_values)] * number, weights.shape, is_coalesced=True, check_invariants=False
            )
            state = update(weights, gradient, state)
            of_rows = {k: v for k, v in state.items() if isinstance(v, torch.Tensor) and v.shape[:1] == (len(weights),)}
            now = {k: v.to_dense()[others].clone() for k, v in of_rows.items()}
            if any(not torch.equal(v, before.get(k, v)) for k, v in now.items()):
                raise RuntimeError("its state of other rows changes with every step")
            before = now
        return state

    weights, alone = start.clone(), start[2:].clone()
    try:
        state = tried(weights, [0, 2], [0, 1])
        tried(alone, [0], [1])
    except Exception as error:
        raise ConfigError(
            f"the optimizer cannot use the sparse gradient of an Embedding with sparse=True ({error}); use "
            "torch.optim.SparseAdam, SGD without momentum and weight decay, or Adagrad without weight decay for it, in "
            f"a model with other layers as optimizer={BOTH}; or make the Embedding with sparse=False"
        ) from error
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and value.layout != torch.strided:
            raise ConfigError(
                f"with sparse gradients the optimizer keeps a sparse tensor in its state (key {name!r}), which grows "
                "with every step; use SGD without momentum, SparseAdam or Adagrad, or an Embedding with sparse=False"
            )
    if not torch.equal(weights[[1, 3]], start[[1, 3]]):
        raise ConfigError(
            "the optimizer changes rows of an Embedding that no row of the data looked up; with sparse=True only those "
            "that were are updated. Use SparseAdam, SGD or Adagrad, or make the Embedding with sparse=False"
        )
    if not torch.allclose(weights[2], alone[0]):
        raise ConfigError(
            "the optimizer's update of one row of an Embedding depends on other rows, but tables are cut into runs of "
            "rows; use SparseAdam, SGD or Adagrad, or make the Embedding with sparse=False"
        )
    return state, few
