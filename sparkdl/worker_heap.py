"""PySpark collects garbage at the end of every task: what lives as long as the worker is set apart from that.

Torch, numba and pyarrow bring hundreds of thousands of objects, over which a collection takes 50 to 200 ms.
"""

from __future__ import annotations

import gc
import sys

_num_modules = 0
_calls = 0


def set_apart() -> None:
    """To call at the end of each task's work: what is there by now and has been there before is not collected again.

    It acts when modules were imported since the last call, and at calls 1, 2, 4, 8, ...: what a library makes on its
    first uses, such as compiled kernels, comes without an import.
    """
    global _num_modules, _calls
    _calls += 1
    if len(sys.modules) != _num_modules or _calls & (_calls - 1) == 0:
        _num_modules = len(sys.modules)
        gc.collect()
        gc.freeze()
