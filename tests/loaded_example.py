"""An example as a module whose functions and classes travel to workers by value, as those of a script do."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import cloudpickle

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@contextmanager
def loaded(name: str) -> Iterator[ModuleType]:
    """``examples/name.py``, while the block lasts."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    cloudpickle.register_pickle_by_value(module)
    yield module
    cloudpickle.unregister_pickle_by_value(module)
    del sys.modules[name]
