from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkdl import durable_state
from sparkdl.durable_state import DurableState
from sparkdl.step_settings import StepSettings


def test_the_newest_copy_alone_is_kept() -> None:
    state = DurableState("abc")
    assert (state.version, state.path, state.before, state.since) == (0, "", None, [])
    step = StepSettings(3, 0, 3, [{"lr": 0.1}])
    state.since.append(step)
    state.write(4, step, [b"one", memoryview(b"two")])
    first = Path(state.path)
    assert (state.version, state.before, state.since) == (4, step, [])
    assert first.read_bytes() == b"onetwo"
    assert "abc" in first.name
    state.write(9, None, iter([b"three"]))
    assert Path(state.path).read_bytes() == b"three"
    assert not first.exists()
    state.write(9, None, [b"again"])
    assert Path(state.path).read_bytes() == b"again"
    state.close()
    assert not Path(state.path).exists()


def test_a_copy_that_breaks_off_leaves_the_older_one() -> None:
    state = DurableState("abc")
    state.write(1, None, [b"one"])

    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise OSError("an executor was lost")

    with pytest.raises(OSError, match="was lost"):
        state.write(2, None, pieces())
    assert state.version == 1
    assert Path(state.path).read_bytes() == b"one"
    state.close()


def test_copies_cost_no_more_than_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(durable_state.time, "monotonic", lambda: clock[0])
    state = DurableState("abc")

    def slow() -> Iterator[bytes]:
        clock[0] += 3.0
        yield b"x"

    for now, due in ((59.0, False), (60.0, True)):
        clock[0] = now
        assert state.is_due == due
    state.write(1, None, slow())
    for now, due in ((63.0 + 149.0, False), (63.0 + 150.0, True)):  # 3 seconds are two hundredths of 150
        clock[0] = now
        assert state.is_due == due
    state.close()
