from __future__ import annotations

import gc
import sys
import types

import pytest

from sparkdl import worker_heap


def test_it_acts_at_powers_of_two_and_after_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    acted: list[str] = []
    monkeypatch.setattr(worker_heap, "_calls", 0)
    monkeypatch.setattr(worker_heap, "_num_modules", len(sys.modules))
    monkeypatch.setattr(gc, "collect", lambda: acted.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: acted.append("freeze"))
    counts = []
    for _ in range(9):
        worker_heap.set_apart()
        counts.append(len(acted) // 2)
    assert counts == [1, 2, 2, 3, 3, 3, 3, 4, 4]
    assert acted[:2] == ["collect", "freeze"]  # garbage must not be frozen
    monkeypatch.setitem(sys.modules, "a_new_module", types.ModuleType("a_new_module"))
    worker_heap.set_apart()
    worker_heap.set_apart()
    assert len(acted) // 2 == 5
