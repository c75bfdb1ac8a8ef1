"""The state of a training outside of its executors: parts of lots in Parquet files, and on their way into a model.

A *part* is what :meth:`sparkdl.versioned_state.VersionedState.parts` yields: at most 16 MB of a lot's bytes, with the
lot's number and the offset in it. Nothing here holds more than a few parts at a time.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sparkdl import wire
from sparkdl.errors import ConfigError
from sparkdl.payload import load_buffers
from sparkdl.versioned_state import StatePlan, VersionedState, lot_bytes, share_parts

Part = tuple[int, int, memoryview]  # lot, offset in its bytes, memory

COLUMNS = ("lot", "offset", "bytes")


def lot_fingerprint(state: VersionedState, version: int, lot: int) -> bytes:
    """32 bytes that tell a lot's weights, optimizer state or buffers from any others: blake2b."""
    digest = hashlib.blake2b(digest_size=32)
    for _, _, memory in state.parts(lot, version):
        digest.update(memory)
    return digest.digest()


def state_parts(state: VersionedState, version: int) -> Iterator[Part]:
    """All parts of a version, lot by lot."""
    yield from share_parts(state, range(state.plan.num_lots), version)


def write_parquet(parts: Iterable[Part], path: str) -> None:
    """Writes parts as the executors do (the twin of :meth:`sparkdl.spark_engine.SparkEngine.write_state`)."""
    schema = pa.schema([("lot", pa.int32()), ("offset", pa.int64()), ("bytes", pa.binary())])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for lot, offset, memory in parts:
            writer.write_table(pa.table([[lot], [offset], [bytes(memory)]], schema=schema))


def read_parquet(paths: Iterable[str]) -> Iterator[Part]:
    """The parts in files, in their order. Raises ConfigError: a file is no Parquet file of parts."""
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=1, columns=list(COLUMNS)):
                    lots, offsets, data = (batch.column(name) for name in COLUMNS)
                    for i in range(batch.num_rows):
                        yield lots[i].as_py(), offsets[i].as_py(), memoryview(data[i].as_buffer()).cast("B")
        except (pa.ArrowException, OSError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"the state of a checkpoint is damaged: {path} cannot be read ({error})") from error


def verified(
    parts: Iterable[Part], plan: StatePlan, version: int, fingerprints: Sequence[str], path: str
) -> Iterator[Part]:
    """The same parts. Raises ConfigError, before or behind the last of them: they are not those of ``fingerprints``.

    version: of the state. path: of the checkpoint, for the sentence.
    """
    open_lots: dict[int, tuple[Any, int]] = {}
    done: set[int] = set()
    for lot, offset, memory in parts:
        digest, expected = open_lots.pop(lot, (None, 0))
        if digest is None:
            digest = hashlib.blake2b(digest_size=32)
        if lot in done or not 0 <= lot < plan.num_lots or offset != expected:
            raise _damaged(path, f"lot {lot} has a part at byte {offset} where none belongs")
        digest.update(memory)
        size = offset + len(memory)
        if size < lot_bytes(plan, lot, version):
            open_lots[lot] = digest, size
        elif size > lot_bytes(plan, lot, version) or digest.hexdigest() != fingerprints[lot]:
            raise _damaged(path, f"the bytes of lot {lot} are not those that were saved")
        else:
            done.add(lot)
        yield lot, offset, memory
    if len(done) != plan.num_lots:
        missing = next(lot for lot in range(plan.num_lots) if lot not in done)
        raise _damaged(path, f"lot {missing} is not there, or not whole")


def _damaged(path: str, what: str) -> ConfigError:
    return ConfigError(f"the checkpoint {path} is damaged: {what}; resume from another one")


def items(parts: Iterable[Part], version: int) -> Iterator[wire.Parts]:
    """The parts as items of a snapshot, for :func:`sparkdl.state_job.restore`."""
    for lot, offset, memory in parts:
        yield [wire.header(wire.STATE, version, lot, offset, len(memory)), memory]


def restore(state: VersionedState, parts: Iterable[Part], version: int) -> None:
    """Puts a version in place in a fresh file of state, in this process."""
    for lot, offset, memory in parts:

        def copy(target: memoryview, memory: memoryview = memory) -> None:
            target[:] = memory

        state.restore(lot, version, offset, len(memory), copy)


class ModelLoader:
    """Weights and buffers into a model in place, from parts of a state in any order; optimizer state is passed over."""

    def __init__(self, plan: StatePlan, model: torch.nn.Module):
        self._plan, self._model = plan, model
        parameters = dict(model.named_parameters())
        self._targets: list[tuple[torch.Tensor, torch.Tensor]] = []  # the parameter, and what its bytes are written to
        for t in plan.layout.tensors:
            parameter = parameters[t.name].detach()
            plain = parameter.is_contiguous() and parameter.device.type == "cpu" and parameter.dtype == torch.float32
            self._targets.append((parameter, parameter if plain else torch.empty(t.shape)))
        self._bytes = [wire.view(target) if target.numel() else memoryview(b"") for _, target in self._targets]
        self._starts = [t.start * 4 for t in plan.layout.tensors]
        self._buffers = np.empty(lot_bytes(plan, len(plan.layout.lots), 0) if plan.has_buffers else 0, np.uint8)
        self._missing = 4 * sum(t.numel for t in plan.layout.tensors) + len(self._buffers)

    def put(self, lot: int, offset: int, memory: memoryview) -> None:
        """Takes a part; each is to come once."""
        layout = self._plan.layout
        if lot == len(layout.lots):
            self._buffers[offset : offset + len(memory)] = np.frombuffer(memory, np.uint8)
            self._missing -= len(memory)
            return
        start, stop = (element * 4 for element in layout.lot_bounds(lot))
        position = start + offset
        end = min(stop, position + len(memory))  # what lies behind is optimizer state
        number = max(0, bisect.bisect_right(self._starts, position) - 1)
        while number < len(self._starts) and self._starts[number] < end:
            first = self._starts[number]
            a, b = max(position, first), min(end, first + layout.tensors[number].numel * 4)
            if b > a:
                self._bytes[number][a - first : b - first] = memory[a - position : b - position]
                self._missing -= b - a
            number += 1

    def finish(self) -> None:
        """After the last part. Raises RuntimeError: something did not come."""
        if self._missing:
            raise RuntimeError(f"{self._missing} bytes of the model's weights and buffers are missing")
        with torch.no_grad():
            for parameter, target in self._targets:
                if target is not parameter:
                    parameter.copy_(target)
            if self._plan.has_buffers:
                floats = self._plan.num_buffer_floats
                skip = len(self._buffers) - self._plan.num_buffer_bytes
                data = torch.from_numpy(self._buffers)
                load_buffers(self._model, data[: floats * 4].view(torch.float32), data[skip:])


def load_model(plan: StatePlan, parts: Iterable[Part], model: torch.nn.Module) -> None:
    """Puts the weights and buffers among ``parts`` into a model."""
    loader = ModelLoader(plan, model)
    for part in parts:
        loader.put(*part)
    loader.finish()
