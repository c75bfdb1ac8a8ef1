"""How node2vec compiles its kernels: so that every kernel has the same flags and keeps its type.

Numba notices a change of the file that holds a kernel, not of the files that its callees live in: after an edit of
``counter_rng`` or ``trial`` remove the ``__pycache__`` folders (or set ``NUMBA_CACHE_DIR`` to a new one).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

try:
    import numba
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "numba is not installed, and the random walks and the training of node2vec on the CPU are compiled by it. "
        "Install the extra: pip install 'sparkdl-torch[node2vec]'."
    ) from error

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

# Scalars inside kernels: Python's from outside, numpy's within, for numba decides.
Int = Any  # int64
Word = Any  # uint64: 64 random bits, or a number made of them
Float = Any  # float64
Bool = Any


def jit(function: Kernel) -> Kernel:
    """`function` compiled by numba on its first call: strict float64 arithmetic, the interpreter lock released.

    The machine code is kept on disk: in ``NUMBA_CACHE_DIR``, beside the source, or in the user's cache, as numba finds
    a folder that it can write; else in a temporary folder of this user alone, which the workers of a host share.
    """
    flags: dict[str, Any] = {"nogil": True, "fastmath": False, "error_model": "numpy"}
    try:
        compiled: Kernel = numba.njit(cache=True, **flags)(function)
    except RuntimeError:  # "no locator available": nowhere to keep the machine code
        config: Any = numba.config
        config.CACHE_DIR = _private_folder()
        compiled = numba.njit(cache=bool(config.CACHE_DIR), **flags)(function)
    return compiled


def reassociated(function: Kernel) -> Kernel:
    """Compile a function whose sums may be taken in any order, and so in vector registers. No NaN is assumed away.

    It becomes part of the kernels that call it, and its machine code is kept with theirs.
    """
    flags: dict[str, Any] = {"nogil": True, "forceinline": True, "error_model": "numpy"}
    compiled: Kernel = numba.njit(fastmath={"reassoc", "contract", "arcp", "nsz"}, **flags)(function)
    return compiled


def _private_folder() -> str:
    """A temporary folder that only this user can write, for what is found there is run; empty if there is none."""
    path = os.path.join(tempfile.gettempdir(), f"node2vec-{os.getuid()}")
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.stat(path)
    except OSError:
        return ""
    return path if found.st_uid == os.getuid() and not found.st_mode & 0o077 else ""
