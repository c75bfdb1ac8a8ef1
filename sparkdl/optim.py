"""torch's own optimizers, run on parts of the flat vector.

Law: updating a slice is slicing the update. An element-wise optimizer may be cut anywhere, any other only between
tensors; what needs the whole vector at once is refused. A step is a pure function of (weights, gradient, state,
hyperparameters): the optimizer object keeps nothing between calls, so a retried task never applies a step twice.
"""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import cloudpickle
import torch
from torch.optim import Optimizer

from sparkdl.errors import ConfigError
from sparkdl.sparse_optim import BOTH, Named, by_kind, sparse_tables, try_table

# Element i of the update depends on element i of weights, gradient and state alone; cutting at any place leaves the
# bits of these unchanged on the CPU (tests/sparkdl/test_optim.py tries each).
ELEMENTWISE = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adagrad,
    torch.optim.RMSprop,
    torch.optim.Adadelta,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.Adamax,
    torch.optim.Rprop,
    torch.optim.ASGD,
)

MakeOptimizer = Callable[[Any], Optimizer]
OptimizerArgument = MakeOptimizer | Optimizer | Mapping[str, MakeOptimizer]
Hyper = list[dict[str, Any]]


class Template(NamedTuple):
    """An optimizer (or two) without parameters, as bytes, and what must be known of it."""

    blank: bytes  # the optimizer objects, cloudpickled, their groups empty
    group_of: dict[str, int]  # parameter name -> group number; parameters in no group are not trained
    elementwise: bool  # for what is no table
    hyper: Hyper  # numbers of every group at the start: lr, momentum, betas, …
    tables: frozenset[str] = frozenset()  # parameters whose gradients are sparse


class Together(Optimizer):
    """The stand-in for two optimizers: the groups of both, for schedulers to drive."""

    def __init__(self, optimizers: Sequence[Optimizer]):
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        super().__init__([{k: v for k, v in group.items() if k != "param_names"} for group in groups], {})
        self.defaults = optimizers[0].defaults


def template(make_optimizer: OptimizerArgument, model: torch.nn.Module) -> tuple[Template, Optimizer]:
    """Builds the user's optimizer once on ``model`` and reads off what the slices need.

    ``make_optimizer`` is called with ``list(model.parameters())``; if its first argument is called
    ``named_parameters`` it gets ``list(model.named_parameters())``. An optimizer already built on this model's
    parameters is taken as it is. A mapping ``{"dense": f, "sparse": g}`` holds one function for the tables (see
    :mod:`sparkdl.sparse_optim`) and one for all else. Returns the template and the built optimizer, or their
    :class:`Together` (the stand-in that schedulers drive).

    Raises ConfigError: not an optimizer, no parameters of this model, needs a closure (LBFGS), sparse-only.
    """
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trainable:
        raise ConfigError("the model has no parameter with requires_grad=True, so there is nothing to train")
    tables = sparse_tables(model) & {name for name, _ in trainable}
    if isinstance(make_optimizer, Mapping):
        parts = by_kind(make_optimizer, trainable, tables)
        optimizers = [_checked(make, _build(make, members)) for make, members in parts]
    else:
        made = make_optimizer if isinstance(make_optimizer, Optimizer) else _build(make_optimizer, trainable)
        optimizers = [_checked(make_optimizer, made)]
    names = {id(p): name for name, p in trainable}
    group_of: dict[str, int] = {}
    number = 0
    for optimizer in optimizers:
        kind = type(optimizer).__name__
        for group in optimizer.param_groups:
            for p in group["params"]:
                if id(p) not in names:
                    raise ConfigError(
                        f"parameter group {number} of {kind} holds a tensor of shape {tuple(p.shape)} that is not "
                        "a trainable parameter of the model; build the optimizer from the parameters that it is given"
                    )
                if isinstance(optimizer, torch.optim.SparseAdam) and names[id(p)] not in tables:
                    raise ConfigError(
                        f"SparseAdam takes sparse gradients only, but that of {names[id(p)]!r} is dense; pass "
                        f"optimizer={BOTH}, of which the second takes the weights of Embeddings with sparse=True"
                    )
                group_of[names[id(p)]] = number
            number += 1
    dense = [o for o in optimizers if any(names[id(p)] not in tables for g in o.param_groups for p in g["params"])]
    # fused kernels round their vector tail otherwise
    elementwise = all(
        getattr(type(o), "elementwise", type(o) in ELEMENTWISE) and not any(g.get("fused") for g in o.param_groups)
        for o in dense
    )
    stand_in = optimizers[0] if len(optimizers) == 1 else Together(optimizers)
    blanks = cloudpickle.dumps([_blank(optimizer) for optimizer in optimizers])
    return Template(blanks, group_of, elementwise, hyper_of(stand_in), tables & set(group_of)), stand_in


def _checked(make_optimizer: Any, optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(
            f"optimizer={make_optimizer!r} returned {type(optimizer).__name__}, not a torch.optim.Optimizer; "
            "pass f(params) -> Optimizer, for example functools.partial(torch.optim.Adam, lr=1e-3)"
        )
    kind = type(optimizer)
    step_arguments = list(inspect.signature(kind.step).parameters.values())[1:]
    if isinstance(optimizer, torch.optim.LBFGS) or any(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in step_arguments[:1]
    ):
        raise ConfigError(
            f"{kind.__name__} evaluates the loss several times over the whole parameter vector in one step (its step() "
            "needs a closure), which slices cannot do; use a first-order optimizer such as Adam, AdamW, SGD or Muon"
        )
    return optimizer


def _blank(optimizer: Optimizer) -> tuple[type[Optimizer], dict[str, Any]]:
    # torch pickles an optimizer's groups and state alone; its own attributes belong to it as well, hooks do not
    blank = {k: v for k, v in vars(optimizer).items() if not k.startswith("_optimizer_")}
    groups = [{k: v for k, v in g.items() if k != "param_names"} | {"params": []} for g in optimizer.param_groups]
    return type(optimizer), blank | {"param_groups": groups, "state": defaultdict(dict)}


def _build(make_optimizer: MakeOptimizer, trainable: Named) -> Optimizer:
    try:
        first = next(iter(inspect.signature(make_optimizer).parameters), "")
    except (TypeError, ValueError):
        first = ""
    try:
        return make_optimizer(trainable if first == "named_parameters" else [p for _, p in trainable])
    except Exception as error:
        raise ConfigError(
            f"optimizer={make_optimizer!r} could not be built from the model's parameters: "
            f"{type(error).__name__}: {error}"
        ) from error


def hyper_of(optimizer: Optimizer) -> Hyper:
    """The numbers of every group (lr, betas, momentum, weight_decay, …) as plain Python values."""
    return [
        {k: plain for k, v in group.items() if k != "params" and (plain := _plain(v)) is not None}
        for group in optimizer.param_groups
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, tuple | list) and value and all(isinstance(v, bool | int | float) for v in value):
        return list(value)
    return None


def changed(now: Hyper, start: Hyper) -> Hyper:
    """What of ``now`` differs from ``start``: all that a step has to carry, since tasks know the template."""
    # keys that only the scheduler put there (initial_lr) mean nothing to the optimizer
    return [{k: v for k, v in a.items() if k in b and b[k] != v} for a, b in zip(now, start, strict=True)]


class Entry(NamedTuple):
    """One value of a segment's optimizer state in memory: a tensor (``kind`` "tensor") or a Python number or None."""

    name: str
    kind: str  # tensor, int, float, bool or none
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int  # bytes from the start of the state area


def entry_bytes(entry: Entry) -> int:
    """Room that a value takes: a multiple of 64 bytes."""
    return -(-math.prod(entry.shape) * entry.dtype.itemsize // 64) * 64


class SliceOptimizer:
    """The user's optimizer, applied to segments. Holds no state of its own between two calls of :meth:`update`."""

    def __init__(self, blank: bytes):
        self._optimizers: list[Optimizer] = []
        for kind, attributes in cloudpickle.loads(blank):
            self._optimizers.append(kind.__new__(kind))
            self._optimizers[-1].__setstate__(attributes)
        self._groups = [(optimizer, g) for optimizer in self._optimizers for g in optimizer.param_groups]
        self._start = [dict(g) for _, g in self._groups]
        self._tried = False
        self.changed_by_step: list[str] = []  # by the first step: what a group's numbers should never be

    def update(
        self,
        params: Sequence[torch.Tensor],
        grads: Sequence[torch.Tensor],
        groups: Sequence[int],
        states: Sequence[dict[str, Any]],
        hyper: Hyper,
    ) -> list[dict[str, Any]]:
        """One step, in place on ``params``; tensors of ``states`` may be changed in place as well.

        ``hyper`` holds, for each group, what differs from the template. Returns the new states (their tensors may or
        may not be those that came in).
        """
        leaves = []
        self._clear()
        for (_, group), start, now in zip(self._groups, self._start, hyper, strict=True):
            group.update({k: v for k, v in start.items() if k != "params"})
            for key, value in now.items():
                group[key] = tuple(value) if isinstance(start[key], tuple) else _like(start[key], value)
        for param, grad, number, state in zip(params, grads, groups, states, strict=True):
            leaf = param.detach()  # same memory; the optimizer wants a leaf that carries .grad
            leaf.requires_grad_(True)
            leaf.grad = grad
            leaves.append(leaf)
            optimizer, group = self._groups[number]
            group["params"].append(leaf)
            if state:
                optimizer.state[leaf] = state
        used = [o for o in self._optimizers if any(g["params"] for g in o.param_groups)]
        before = None if self._tried else [hyper_of(o) for o in used]
        # torch's sparse optimizers leave it open, of which newer torch warns
        unchecked = torch.sparse.check_sparse_tensor_invariants(enable=False)
        with unchecked if any(g.is_sparse for g in grads) else nullcontext():
            for optimizer in used:
                optimizer.step()
        if before is not None:
            self._tried = len(used) == len(self._optimizers)
            found = {
                key
                for optimizer, befores in zip(used, before, strict=True)
                for old, new in zip(befores, hyper_of(optimizer), strict=True)
                for key in old | new
                if old.get(key) != new.get(key)
            }
            self.changed_by_step = sorted(found | set(self.changed_by_step))
        states_now = [self._groups[n][0].state.get(leaf, {}) for n, leaf in zip(groups, leaves, strict=True)]
        self._clear()
        return states_now

    def _clear(self) -> None:
        for optimizer, group in self._groups:
            optimizer.state = defaultdict(dict)
            group["params"] = []


def _like(start: Any, value: Any) -> Any:
    return torch.full_like(start, value) if isinstance(start, torch.Tensor) else value


def state_entries(
    optimizer: SliceOptimizer, shape: tuple[int, ...], group: int, offset: int, groups: int, table: bool = False
) -> tuple[list[Entry], int]:
    """What state the optimizer keeps for a segment of this shape, laid out from byte ``offset`` on.

    Found by one step on zeros; for rows of a ``table``, by :func:`try_table`. Returns the entries and the first free
    byte (a multiple of 64).
    Raises ConfigError: the state holds something that is neither a tensor nor a number, or a step changes a group; or
    the optimizer cannot update the touched rows of a table alone.
    """
    if table:

        def update(weights: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any]) -> dict[str, Any]:
            return optimizer.update([weights], [gradient], [group], [state], [{} for _ in range(groups)])[0]

        state, few = try_table(update, shape[1])
    else:
        few = -1
        (state,) = optimizer.update(
            [torch.zeros(shape)], [torch.zeros(shape)], [group], [{}], [{} for _ in range(groups)]
        )
    if kept := optimizer.changed_by_step:
        raise ConfigError(
            f"the optimizer keeps {', '.join(map(repr, kept))} in its parameter groups, where a step changes it; here "
            "each step starts from the same groups, so it would never get on. Use one that keeps them in its state "
            "(torch.optim's do; for large batches sparkdl.large_batches has LARS and LAMB)"
        )
    entries = []
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            found = tuple(value.shape)
            of_rows = table and found[:1] == (few,)
            entries.append(Entry(name, "tensor", (shape[0], *found[1:]) if of_rows else found, value.dtype, offset))
        elif value is None or isinstance(value, bool | int | float):
            kind = "none" if value is None else type(value).__name__
            entries.append(Entry(name, kind, (), torch.float64, offset))
        else:
            raise ConfigError(
                f"the optimizer keeps a {type(value).__name__} in its state (key {name!r}); only tensors and numbers "
                "can be kept with the executors, so this optimizer cannot be used"
            )
        offset += entry_bytes(entries[-1])
    return entries, offset
