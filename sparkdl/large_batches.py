"""What large batches need: LARS and LAMB, which scale each layer's update to its weights, and a warm-up.

Both are ordinary torch optimizers for dense parameters; they work in any training loop. A layer's update depends on two
norms of the whole tensor, so slices are cut at tensors (see :mod:`sparkdl.optim`). What an optimizer remembers must lie
in its state: those of several libraries count steps in a parameter group, and would count to one here, for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler, ReduceLROnPlateau, SequentialLR

from sparkdl.errors import ConfigError

__all__ = ["LAMB", "LARS", "layer_groups", "warmup"]


def layer_groups(named_parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> list[dict[str, Any]]:
    """Parameter groups for LARS and LAMB: matrices, and biases and norms' scales without decay and without adaptation.

    named_parameters: of the model. Tensors with fewer than two dimensions count as biases and scales; that they are
    left alone is how both papers' results were made. Frozen parameters are left out.
    """
    layers: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for _, parameter in named_parameters:
        if parameter.requires_grad:
            (layers if parameter.ndim >= 2 else rest).append(parameter)
    groups: list[dict[str, Any]] = [{"params": layers}, {"params": rest, "weight_decay": 0.0, "adapt": False}]
    return [group for group in groups if group["params"]]


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling, arXiv:1708.03888: momentum, each layer's rate scaled by |w| / |gradient|.

    lr: the global rate, of the size that plain SGD has. trust: the paper's eta, how far one step may turn a layer.
    weight_decay: beta, added to the gradient. A group with ``adapt=False`` is plain SGD with momentum (Nesterov's is
    not there); so is a layer whose weights or gradient are all zero. Raises ValueError: a number out of range.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        adapt: bool = True,
    ):
        _check(lr=lr, weight_decay=weight_decay, trust=trust)
        _check_below_one(momentum=momentum)
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": adapt}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of all parameters that have a gradient; returns the closure's loss, if there is one."""
        loss = _evaluated(closure)
        for group in self.param_groups:
            decay, momentum = group["weight_decay"], group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                rate = group["lr"]
                if group["adapt"]:
                    weights, gradient = float(p.norm()), float(p.grad.norm())
                    if weights > 0 and gradient > 0:
                        rate *= group["trust"] * weights / (gradient + decay * weights)
                update = p.grad.add(p, alpha=decay) if decay else p.grad
                state = self.state[p]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                # The rate goes into the buffer, as the paper has it: a changed rate does not rescale what is under way.
                p.sub_(state["momentum_buffer"].mul_(momentum).add_(update, alpha=rate))
        return loss


class LAMB(Optimizer):
    """LAMB, arXiv:1904.00962: AdamW's direction, each layer's length of it scaled by |w| / |direction|.

    lr: the part of its own length by which a layer moves. betas, eps: as Adam's, moments are corrected for their start.
    weight_decay: added to the direction. A group with ``adapt=False`` is plain AdamW, as is a layer whose weights or
    direction are all zero. Raises ValueError: a number out of range.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        adapt: bool = True,
    ):
        _check(lr=lr, eps=eps, weight_decay=weight_decay)
        _check_below_one(**{f"betas[{i}]": beta for i, beta in enumerate(betas)})
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapt": adapt})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of all parameters that have a gradient; returns the closure's loss, if there is one."""
        loss = _evaluated(closure)
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
                state["step"] += 1
                mean = state["exp_avg"].lerp_(p.grad, 1 - beta1)
                square = state["exp_avg_sq"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                direction = (mean / (1 - beta1 ** state["step"])).div_(
                    (square / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
                )
                direction.add_(p, alpha=group["weight_decay"])
                rate = group["lr"]
                if group["adapt"]:
                    weights, length = float(p.norm()), float(direction.norm())
                    if weights > 0 and length > 0:
                        rate *= weights / length
                p.sub_(direction, alpha=rate)
        return loss


def warmup(optimizer: Optimizer, steps: int, then: Callable[[Optimizer], LRScheduler] | None = None) -> LRScheduler:
    """A scheduler: the rate grows in equal parts over ``steps`` steps, 1/steps of it in the first, then ``then``.

    then: f(optimizer) -> scheduler, which counts from the end of the warm-up; None: the rate stays.
    ``Trainer(scheduler=partial(warmup, steps=100, then=partial(CosineAnnealingLR, T_max=900)))``.
    Raises ConfigError: steps below 1, or ``then`` is no function.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ConfigError(f"warmup's steps is {steps!r}; pass a positive number of steps")
    if then is not None and not callable(then):
        raise ConfigError(
            f"warmup's then is {then!r}; pass a function of the optimizer, "
            "for example partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=900)"
        )
    growing = LinearLR(optimizer, start_factor=1 / steps, total_iters=max(1, steps - 1))
    if then is None:
        return growing
    after = then(optimizer)
    if not isinstance(after, LRScheduler) or isinstance(after, ReduceLROnPlateau):
        raise ConfigError(
            f"warmup's then returned {type(after).__name__}; pass a function that returns a scheduler of torch "
            "which counts steps, for example CosineAnnealingLR"
        )
    return SequentialLR(optimizer, [growing, after], milestones=[steps])


def _evaluated(closure: Callable[[], float] | None) -> float | None:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _check(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 <= value < float("inf"):
            raise ValueError(f"{name} is {value}; pass a number of 0 or more")


def _check_below_one(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 <= value < 1.0:
            raise ValueError(f"{name} is {value}; pass a number from 0 to below 1")
