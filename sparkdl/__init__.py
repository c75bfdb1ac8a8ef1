"""Synchronous data-parallel PyTorch training as ordinary Spark jobs.

The public names are loaded when they are first used: ``import sparkdl.slices`` must not import pyspark.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparkdl.history import History as History
    from sparkdl.spark_conf import check as check
    from sparkdl.trainer import Trainer as Trainer

__version__ = "0.1.0"

_MODULE_OF = {
    "History": "sparkdl.history",
    "Trainer": "sparkdl.trainer",
    "check": "sparkdl.spark_conf",
}

__all__ = ["History", "Trainer", "check"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'sparkdl' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
