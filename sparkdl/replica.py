"""One replica: forward and backward over its rows of one step. Pure in (weights, buffers, rows, key).

A replica's gradient is that of ``sum over its rows / rows in the step``, so that the sum over replicas is the mean
over the step whoever held the rows. Losses whose mean divides by something that only the data tell (class weights,
``ignore_index``, ``weight_col``) report that denominator; the sync divides the sums once.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from sparkdl.payload import Payload, load_buffers, read_buffers
from sparkdl.stored_arrays import Stored
from sparkdl.versioned_tables import VersionedTables

CLASS_LOSSES = (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss)


class Batch:
    """What ``step_fn(model, batch)`` gets: tensors of some rows on the replica's device.

    ``inputs`` and ``kwargs`` are what ``model(*inputs, **kwargs)`` takes; ``target`` and ``weight`` may be None;
    ``len(batch)`` counts rows.
    """

    def __init__(self, payload: Payload, arrays: Mapping[str, Stored], device: torch.device):
        columns = payload.columns
        inputs, kwargs = columns.inputs(arrays)
        self._num_rows = len(next(iter(arrays.values())))
        self.inputs = tuple(x.to(device) for x in inputs)
        self.kwargs = {name: x.to(device) for name, x in kwargs.items()}
        self.target: Any = _to(columns.target(arrays), device)
        self.weight: torch.Tensor | None = _to(columns.weight(arrays), device)
        one_target = isinstance(self.target, torch.Tensor) and self.target.ndim == 1
        if isinstance(payload.loss, CLASS_LOSSES) and one_target and self.target.is_floating_point():
            self.target = self.target.long()  # Spark ML's labels are doubles; checked when the data were prepared

    def __len__(self) -> int:
        return self._num_rows


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, tuple):
        return tuple(v.to(device) for v in value)
    return None if value is None else value.to(device)


class Sums(NamedTuple):
    """What a replica found: gradients in the layout's order (None: all zeros), record, and its buffers afterwards."""

    num_rows: int
    gradients: list[torch.Tensor | None]
    record: np.ndarray  # float64, see Payload.record_names
    float_buffers: torch.Tensor  # fp32
    raw_buffers: bytes


def step_seed(seed: int, step: int, replica: int) -> int:
    """The key of dropout: 63 bits from (seed, step, replica)."""
    digest = hashlib.blake2b(f"{seed}/{step}/{replica}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _on_cpu(gradient: torch.Tensor) -> torch.Tensor:
    found = gradient.to("cpu")
    return found.coalesce() if found.is_sparse else found.contiguous()


def _is_plain(parameter: torch.nn.Parameter) -> bool:
    return type(parameter) is torch.nn.Parameter and not vars(parameter)


def _of_shape(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    """One of the same shape that takes no memory."""
    return torch.nn.Parameter(torch.zeros((), dtype=parameter.dtype).expand(parameter.shape))


class Replica:
    """A model in a process. Everything in it is rebuilt from the payload, or handed in with each call."""

    def __init__(self, payload: Payload, device: torch.device | str = "cpu", copy_weights: bool = True):
        """copy_weights: False where :meth:`bind` comes before all else, to do without the memory."""
        self.payload = payload
        self.device = torch.device(device)
        empty = {} if copy_weights else {id(p): _of_shape(p) for p in self._trained(payload) if _is_plain(p)}
        self.model = copy.deepcopy(payload.model, empty).to(self.device)
        self.model.requires_grad_(True)
        parameters = dict(self.model.named_parameters())
        self._frozen = set(parameters) - {t.name for t in payload.plan.layout.tensors}
        for name in self._frozen:
            parameters[name].requires_grad_(False)
        self._parameters = [parameters[t.name] for t in payload.plan.layout.tensors]
        self._norms = [m for m in self.model.modules() if isinstance(m, torch.nn.BatchNorm1d)]
        self._loss = copy.deepcopy(payload.loss)
        if isinstance(self._loss, torch.nn.Module):
            self._loss = self._loss.to(self.device)
        self._in_place = self.device.type == "cpu"
        self._views: dict[tuple[int, int], list[torch.Tensor]] = {}
        self._tables: tuple[torch.Tensor, VersionedTables, int] | None = None  # on a GPU: whose, and of which version

    @staticmethod
    def _trained(payload: Payload) -> list[torch.nn.Parameter]:
        return [payload.model.get_parameter(t.name) for t in payload.plan.layout.tensors]

    def bind(self, flat: torch.Tensor, tables: VersionedTables | None = None, version: int = 0) -> None:
        """Makes the parameters views of ``flat`` (fp32 [size]); on a GPU, copies of it.

        tables: where embedding tables lie in ``version``, if there are any; ``flat`` may end before them then. On a GPU
        they stay, and only the rows that changed since the version before go there.
        """
        if self._in_place:
            of_tables = flat if tables is None else tables.weights(version)
            key = (flat.data_ptr(), of_tables.data_ptr())
            views = self._views.get(key)
            if views is None:
                views = self._views[key] = self._cut(flat, of_tables)
        elif tables is None:
            on_device = flat.to(self.device, non_blocking=True)
            views = self._cut(on_device, on_device)
        else:
            border = self.payload.plan.layout.dense_size
            views = self._cut(flat[:border].to(self.device, non_blocking=True), self._on_device(tables, version))
        for parameter, view in zip(self._parameters, views, strict=True):
            parameter.data = view

    def _on_device(self, tables: VersionedTables, version: int) -> torch.Tensor:
        """The flat vector on the device; of it, only the tables count."""
        layout, weights = self.payload.plan.layout, tables.weights(version)
        kept, of, at = self._tables or (weights.to(self.device, copy=True), tables, version)
        if of is not tables or at not in (version, version - 1):
            kept[layout.dense_size :].copy_(weights[layout.dense_size :])
        elif at == version - 1:
            for lot in layout.table_lots:
                start, stop, _, shape = layout.table_segment(lot)
                rows, values = tables.table_rows(lot, version)
                kept[start:stop].view(shape).index_copy_(0, rows.to(self.device), values.to(self.device))
        self._tables = kept, tables, version
        return kept

    def forget_views(self) -> None:
        """Lets go of every flat vector seen so far."""
        self._views.clear()
        self._tables = None

    def _cut(self, flat: torch.Tensor, tables: torch.Tensor) -> list[torch.Tensor]:
        layout = self.payload.plan.layout
        return [
            (flat if t.start < layout.dense_size else tables)[t.start : t.start + t.numel].view(t.shape)
            for t in layout.tensors
        ]

    def forward_backward(
        self,
        arrays: Mapping[str, Stored],
        rows_in_step: int,
        step: int,
        replica: int,
        buffers: tuple[torch.Tensor, torch.Tensor],
    ) -> Sums:
        """The replica's share of a step. ``arrays`` holds its rows (maybe none), ``buffers`` the step's buffers."""
        payload = self.payload
        record = np.zeros(len(payload.record_names))
        num_rows = len(next(iter(arrays.values())))
        if num_rows == 0:
            return Sums(0, [None] * len(self._parameters), record, torch.zeros(payload.plan.num_buffer_floats), b"")
        began = time.perf_counter()
        seed = step_seed(payload.seed, step, replica)
        # not torch.manual_seed: without a GPU it keeps a formatted stack for each kind of GPU, a millisecond every step
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed_all(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        self.model.train()
        with torch.no_grad():
            load_buffers(self.model, *buffers)
        for parameter in self._parameters:
            parameter.grad = None
        for part in _microbatches(arrays, payload.accumulate):
            # BatchNorm1d cannot normalise a single row by itself, and the last step of an epoch may leave a replica
            # just one: it is normalised by the running statistics then
            alone = len(next(iter(part.values()))) == 1
            resting = [norm.eval() for norm in self._norms if alone and norm.training]
            self._backward(Batch(payload, part, self.device), rows_in_step, record)
            for norm in resting:
                norm.train()
        gradients = [None if p.grad is None else _on_cpu(p.grad.detach()) for p in self._parameters]
        floats, raw = read_buffers(self.model)
        record[payload.record_names.index("compute_ms")] = (time.perf_counter() - began) * 1e3
        return Sums(num_rows, gradients, record, floats, raw)

    def _backward(self, batch: Batch, rows_in_step: int, record: np.ndarray) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.payload.precision == "bf16"):
            loss, denominator, values = self.measure(batch)
        scale = denominator / rows_in_step
        (loss if scale == 1.0 else loss * scale).backward()
        num_rows = len(batch)
        record[0] += num_rows
        record[1] += denominator
        record[2] += float(loss.detach()) * denominator
        for place, value in enumerate(values, start=3):
            record[place] += value * num_rows

    def measure(self, batch: Batch) -> tuple[torch.Tensor, float, list[float]]:
        """The mean loss over the batch, the denominator of that mean, and the means of the metrics."""
        payload = self.payload
        if payload.step_fn is not None:
            result = payload.step_fn(self.model, batch)
            named = result if isinstance(result, Mapping) else {"loss": result}
            return named["loss"], float(len(batch)), [_number(named[name]) for name in payload.metrics]
        output = self.model(*batch.inputs, **batch.kwargs)
        loss, denominator = self._mean_loss(output, batch)
        with torch.no_grad():
            values = [
                _number(metric(output.detach() if isinstance(output, torch.Tensor) else output, batch.target))
                for metric in payload.metrics.values()
            ]
        return loss, denominator, values

    def _mean_loss(self, output: Any, batch: Batch) -> tuple[torch.Tensor, float]:
        loss, target = self._loss, batch.target
        if batch.weight is not None:
            if isinstance(loss, torch.nn.Module) and hasattr(loss, "reduction"):
                each = copy.copy(loss)
                each.reduction = "none"  # type: ignore[assignment]
                per_row = each(output, target)
                per_row = per_row.reshape(len(batch), -1)
                per_row = per_row.sum(dim=1) if loss.reduction == "batchmean" else per_row.mean(dim=1)
                total = float(batch.weight.sum())
                return (per_row * batch.weight).sum() / (total or 1.0), total
            return loss(output, target, batch.weight), float(batch.weight.sum())
        if isinstance(loss, CLASS_LOSSES) and loss.reduction == "mean" and not target.is_floating_point():
            counted = target != loss.ignore_index
            if loss.weight is not None:
                total = float(
                    torch.where(counted, loss.weight[torch.where(counted, target, 0)], 0.0).sum(dtype=torch.float64)
                )
            else:
                total = float(counted.sum()) / (target.numel() / len(batch))
            if total == 0.0:
                return output.sum() * 0.0, 0.0  # every label ignored: torch's own mean would be NaN
            return loss(output, target), total
        return loss(output, target), float(len(batch))


def _number(value: Any) -> float:
    return float(value.detach() if isinstance(value, torch.Tensor) else value)


def _microbatches(arrays: Mapping[str, Stored], parts: int) -> Iterator[Mapping[str, Stored]]:
    num_rows = len(next(iter(arrays.values())))
    borders = [num_rows * k // parts for k in range(parts + 1)]
    for start, stop in itertools.pairwise(borders):
        if stop > start:
            yield {name: array[start:stop] for name, array in arrays.items()}
