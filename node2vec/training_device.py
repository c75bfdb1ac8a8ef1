"""Where blocks are trained: on the CPU by numba's kernels, or on a GPU by torch's.

Both train the same pairs with the same negatives, but torch's kernels take many steps at once (``skipgram_torch``), so
the vectors differ: the device belongs to their identity, and is chosen once, on the driver. "torch" is the GPU's code
on the CPU, for tests; it is slower than numba and has no other use.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from node2vec import skipgram
from sparkdl.errors import ClusterError

DEVICES = ("auto", "cpu", "cuda", "torch")


def chosen(device: str, gpus: float) -> str:
    """What "auto" means where a task is given so many GPUs: "cuda" if there are any, else "cpu"."""
    if device != "auto":
        return device
    return "cuda" if gpus > 0 else "cpu"


def local(device: str, task: int, addresses: Sequence[str] | None = None) -> str:
    """The name of a run's device in a task, for torch. addresses: of the GPUs that Spark gave the task, if it did.

    Tasks to which Spark gives none share those that torch sees. Raises ClusterError: torch sees none.
    """
    if device != "cuda":
        return device
    import torch

    if not torch.cuda.is_available():
        raise ClusterError(
            f'device="cuda", but torch {torch.__version__} sees no CUDA device on {platform.node()}: train with '
            'device="cpu", or give every executor a GPU and a torch that was built for it.'
        )
    return f"cuda:{addresses[0] if addresses else task % torch.cuda.device_count()}"


def kernel(device: str) -> Callable[..., int]:
    """The function that trains a block there: ``skipgram.train_block`` or ``skipgram_torch.train_block``."""
    if device == "cpu":
        return skipgram.train_block
    from node2vec import skipgram_torch

    return skipgram_torch.train_block


@contextmanager
def tables_on(device: str, tables: Sequence[npt.NDArray[np.float32]]) -> Iterator[list[Any]]:
    """The tables as the device's kernel takes them; what it made of them is in `tables` at the end.

    torch computes on one thread meanwhile: the threads of an operation can show in the last bit of a sum.
    """
    if device == "cpu":
        yield list(tables)
        return
    import torch

    place = torch.device("cpu" if device == "torch" else device)
    there = [torch.from_numpy(table).to(place) for table in tables]  # on the CPU both are one memory
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield there
    finally:
        torch.set_num_threads(threads)
    if place.type != "cpu":
        for table, trained in zip(tables, there, strict=True):
            torch.from_numpy(table).copy_(trained)
