"""Synchronous data-parallel PyTorch training as ordinary Spark jobs.

The public names are loaded when they are first used: ``import sparkdl.slices`` must not import pyspark.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparkdl.callbacks import Callback as Callback
    from sparkdl.callbacks import EarlyStopping as EarlyStopping
    from sparkdl.callbacks import LearningRateMonitor as LearningRateMonitor
    from sparkdl.callbacks import ModelCheckpoint as ModelCheckpoint
    from sparkdl.exported_model import export as export
    from sparkdl.history import History as History
    from sparkdl.mlflow_log import MLflowLogger as MLflowLogger
    from sparkdl.spark_conf import check as check
    from sparkdl.tensorboard_log import TensorBoard as TensorBoard
    from sparkdl.trainer import Trainer as Trainer
    from sparkdl.triggers import EveryEpoch as EveryEpoch
    from sparkdl.triggers import MaxEpoch as MaxEpoch
    from sparkdl.triggers import MaxIteration as MaxIteration
    from sparkdl.triggers import MaxScore as MaxScore
    from sparkdl.triggers import MinLoss as MinLoss
    from sparkdl.triggers import SeveralIteration as SeveralIteration
    from sparkdl.triggers import Trigger as Trigger

__version__ = "0.1.0"

_NAMES = {
    "sparkdl.callbacks": ["Callback", "EarlyStopping", "LearningRateMonitor", "ModelCheckpoint"],
    "sparkdl.exported_model": ["export"],
    "sparkdl.history": ["History"],
    "sparkdl.mlflow_log": ["MLflowLogger"],
    "sparkdl.spark_conf": ["check"],
    "sparkdl.tensorboard_log": ["TensorBoard"],
    "sparkdl.trainer": ["Trainer"],
    "sparkdl.triggers": [
        "EveryEpoch",
        "MaxEpoch",
        "MaxIteration",
        "MaxScore",
        "MinLoss",
        "SeveralIteration",
        "Trigger",
    ],
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'sparkdl' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
