"""Node embeddings of large graphs on Spark: node2vec.

The public names are loaded when they are first used: ``import node2vec.walks`` must not import pyspark.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from node2vec import evaluate as evaluate
    from node2vec.estimator import Node2Vec as Node2Vec
    from node2vec.model import Node2VecModel as Node2VecModel
    from node2vec.workflow import Workflow as Workflow

__version__ = "0.1.0"

_MODULE_OF = {
    "Node2Vec": "node2vec.estimator",
    "Node2VecModel": "node2vec.model",
    "Workflow": "node2vec.workflow",
    "evaluate": "node2vec",  # a submodule
}

__all__ = ["Node2Vec", "Node2VecModel", "Workflow", "evaluate"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'node2vec' has no attribute {name!r}")
    home = _MODULE_OF[name]
    is_submodule = home == __name__
    value = importlib.import_module(f"{home}.{name}") if is_submodule else getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
