"""What a run ships to its executors once: the model with its first weights, the loss, and how to train it."""

from __future__ import annotations

import bisect
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pickle import PickleBuffer
from typing import IO, Any

import cloudpickle
import torch

from sparkdl.columns import Columns
from sparkdl.errors import ConfigError
from sparkdl.optim import Template
from sparkdl.versioned_state import StatePlan

Metric = Callable[[torch.Tensor, torch.Tensor], Any]


@dataclass(frozen=True, kw_only=True)
class Payload:
    """Picklable; the same on every executor for the whole run."""

    model: torch.nn.Module
    loss: Callable[..., torch.Tensor]
    template: Template
    plan: StatePlan
    columns: Columns
    seed: int
    batch_size: int
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    step_fn: Callable[..., Any] | None = None
    device: str = "auto"
    precision: str = "fp32"
    wire: str = "fp32"
    clip_norm: float | None = None
    clip_value: float | None = None
    accumulate: int = 1

    @property
    def record_names(self) -> tuple[str, ...]:
        """What every replica reports of a step: sums first, then milliseconds."""
        return ("rows", "denominator", "loss_sum", *self.metrics, "read_ms", "update_ms", "compute_ms", "write_ms")

    def initial_weights(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """fp32 [stop - start]: the flat vector of the weights that the model came with, or a part of it."""
        tensors = self.plan.layout.tensors
        stop = self.plan.layout.size if stop is None else stop
        flat = torch.zeros(stop - start)
        for t in tensors[max(0, bisect.bisect_right(tensors, start, key=lambda t: t.start) - 1) :]:
            if t.start >= stop:
                break
            a, b = max(start, t.start), min(stop, t.start + t.numel)
            if b > a:
                values = self.model.get_parameter(t.name).detach().reshape(-1)
                flat[a - start : b - start] = values[a - t.start : b - t.start]
        return flat


def forget_weights(payload: Payload) -> None:
    """Gives the memory of the trained parameters back, where they will not be asked for again."""
    for t in payload.plan.layout.tensors:
        payload.model.get_parameter(t.name).data = torch.empty(0)


def pickle(payload: Payload) -> bytes:
    """The payload as bytes for ``pickle.loads``, user classes from ``__main__`` or a notebook by value.

    Raises ConfigError: names the part (and of a model the attribute) that cannot be pickled.
    """
    with io.BytesIO() as file:
        write(payload, file)
        return file.getvalue()


def write(payload: Payload, file: IO[bytes]) -> None:
    """As :func:`pickle`, into a file and without a copy of the model's tensors on the way."""
    try:
        _Pickler(file, payload.model).dump(payload)
    except OSError:
        raise
    except Exception as error:
        raise ConfigError(_unpicklable(payload, error)) from error


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Writes the model's tensors straight from their memory; torch itself would copy each of them twice on the way."""

    def __init__(self, file: IO[bytes], model: torch.nn.Module):
        super().__init__(file, protocol=5)
        tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
        self._plain = {
            key
            for key, t in tensors.items()
            if type(t) in (torch.Tensor, torch.nn.Parameter)
            and (t.device.type, t.layout, t.is_contiguous()) == ("cpu", torch.strided, True)
            and not (t.is_quantized or t.is_complex() or vars(t) or t.numel() == 0)
        }

    def reducer_override(self, obj: Any) -> Any:
        """How one object is pickled."""
        if id(obj) not in self._plain:
            return super().reducer_override(obj)
        memory = PickleBuffer(obj.detach().reshape(-1).view(torch.uint8).numpy())
        is_parameter = isinstance(obj, torch.nn.Parameter)
        return _tensor, (memory, obj.dtype, tuple(obj.shape), is_parameter, obj.requires_grad)


def _tensor(
    memory: bytearray | bytes, dtype: torch.dtype, shape: tuple[int, ...], is_parameter: bool, requires_grad: bool
) -> torch.Tensor:
    # a copy has torch's own alignment, on which the last bit of a product may depend
    found = torch.frombuffer(memory, dtype=dtype).view(shape).clone()
    return torch.nn.Parameter(found, requires_grad) if is_parameter else found.requires_grad_(requires_grad)


_MODULE_ATTRIBUTES = frozenset(vars(torch.nn.Module()))  # parameters, hooks, submodules: looked at one by one


def _unpicklable(payload: Payload, error: Exception) -> str:
    parts = {name: getattr(payload, name) for name in ("model", "loss", "metrics", "step_fn")}
    for name, part in (parts | {"transform": dict(payload.columns.transforms)}).items():
        if _pickles(part):
            continue
        where = name
        for owner_name, owner in [("", part), *(part.named_modules() if isinstance(part, torch.nn.Module) else [])]:
            for key, value in getattr(owner, "__dict__", {}).items():
                if key not in _MODULE_ATTRIBUTES and not _pickles(value):
                    where = ".".join(filter(None, (name, owner_name, key)))
                    return (
                        f"{where} is a {type(value).__name__} and cannot be sent to the executors ({error}); create it "
                        "inside forward() when it is first needed, or leave it out in __getstate__"
                    )
        return (
            f"{where} cannot be sent to the executors ({type(error).__name__}: {error}); define it at module level or "
            "pass a function that builds it"
        )
    return f"the training set-up cannot be sent to the executors: {type(error).__name__}: {error}"


def _pickles(value: Any) -> bool:
    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True


def float_buffers(model: torch.nn.Module) -> list[torch.Tensor]:
    """The model's fp32 buffers (BatchNorm's running statistics): averaged over the replicas each step."""
    return [b for b in model.buffers() if b.dtype == torch.float32]


def raw_buffers(model: torch.nn.Module) -> list[torch.Tensor]:
    """All other buffers (counters, masks): taken as they are from the first replica that had rows."""
    return [b for b in model.buffers() if b.dtype != torch.float32]


def buffer_sizes(model: torch.nn.Module) -> tuple[int, int]:
    """Elements of all float buffers, bytes of all others."""
    floats = sum(b.numel() for b in float_buffers(model))
    return floats, sum(math.prod(b.shape) * b.element_size() for b in raw_buffers(model))


def read_buffers(model: torch.nn.Module) -> tuple[torch.Tensor, bytes]:
    """A copy of the buffers as one fp32 vector and one string of bytes, on the CPU."""
    floats = [b.detach().reshape(-1).cpu() for b in float_buffers(model)]
    raw = b"".join(
        b.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for b in raw_buffers(model)
    )
    return (torch.cat(floats) if floats else torch.empty(0)), raw


def load_buffers(model: torch.nn.Module, floats: torch.Tensor, raw: torch.Tensor) -> None:
    """The inverse of :func:`read_buffers`; ``raw`` is uint8."""
    start = 0
    for buffer in float_buffers(model):
        buffer.copy_(floats[start : start + buffer.numel()].view(buffer.shape))
        start += buffer.numel()
    start = 0
    for buffer in raw_buffers(model):
        size = buffer.numel() * buffer.element_size()
        buffer.copy_(raw[start : start + size].clone().view(buffer.dtype).view(buffer.shape))
        start += size
