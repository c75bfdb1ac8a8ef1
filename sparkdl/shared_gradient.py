"""A replica's gradient in a memory-mapped file, for replicas that share a host (``spark.sparkdl.sameHost``).

Spark then carries only the file's path; readers sum straight from memory, and share that work like the update's.
Two versions are kept, each stamped: step t writes half ``t % 2`` while nobody can still be reading it, because the
readers of step t - 2 ended with the job of step t - 1. A late copy of an old task finds a newer stamp and gives up.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence

import numpy as np
import torch

from sparkdl import wire
from sparkdl.errors import StateLost

PAGE = 4096


class SharedGradient:
    """The file of one replica: ``size`` elements of fp32 or bf16, twice."""

    def __init__(self, path: str, size: int, bf16: bool, create: bool = False):
        self._half = -(-size * (2 if bf16 else 4) // PAGE) * PAGE
        try:
            self._file = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
        except FileNotFoundError:
            raise StateLost(
                f"no gradient at {path}: 'spark.sparkdl.sameHost' is true, but this executor does not share a host (or "
                "a container) with the replica that wrote it; set it to false"
            ) from None
        if create:
            os.ftruncate(self._file, PAGE + 2 * self._half)
        self._map = mmap.mmap(self._file, PAGE + 2 * self._half)
        self._stamps = np.frombuffer(self._map, np.int64, 2)
        whole = torch.frombuffer(self._map, dtype=torch.uint8)
        dtype = torch.bfloat16 if bf16 else torch.float32
        self._halves = [whole[PAGE + h * self._half : PAGE + (h + 1) * self._half].view(dtype)[:size] for h in (0, 1)]

    def write(self, version: int, parts: wire.Parts) -> None:
        """Puts the gradient of a step in place, unless it is there; parts as of ``replica_items.piece_parts``."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            if self._stamps.max() > version + 1:
                raise StateLost(f"the run is at step {self._stamps.max() - 1} already, this task is of step {version}")
            if self._stamps[version % 2] == version + 1:
                return
            self._stamps[version % 2] = 0
            memory, position = wire.view(self._halves[version % 2]), 0
            for part in parts:
                memory[position : position + len(part)] = part
                position += len(part)
            self._stamps[version % 2] = version + 1
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def read(self, version: int) -> torch.Tensor:
        """The gradient of a step, in place."""
        if self._stamps[version % 2] != version + 1:
            raise StateLost(f"the shared gradient of step {version} is not there")
        return self._halves[version % 2]

    def close(self) -> None:
        """Gives the file back."""
        os.close(self._file)


def sum_range(gradients: Sequence[torch.Tensor], start: int, stop: int, out: torch.Tensor) -> torch.Tensor:
    """Sums elements ``start`` to ``stop`` in the order given, in fp32, into ``out``."""
    out.copy_(gradients[0][start:stop])
    for gradient in gradients[1:]:
        out.add_(gradient[start:stop])
    return out
