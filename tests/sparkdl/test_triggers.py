"""Triggers fire where their names say, and combine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkdl.errors import ConfigError
from sparkdl.triggers import (
    EveryEpoch,
    MaxEpoch,
    MaxIteration,
    MaxScore,
    MinLoss,
    Moment,
    SeveralIteration,
    Trigger,
    moment_at,
)

STEPS = st.integers(1, 50)


@given(STEPS, STEPS, STEPS)
def test_positions(step: int, steps_per_epoch: int, interval: int) -> None:
    moment = moment_at(step, steps_per_epoch)
    assert EveryEpoch()(moment) == (step % steps_per_epoch == 0)
    assert SeveralIteration(interval)(moment) == (step % interval == 0)
    assert MaxIteration(interval)(moment) == (step >= interval)
    assert MaxEpoch(interval)(moment) == (step >= interval * steps_per_epoch)


def test_nothing_fires_at_the_start_but_what_is_reached() -> None:
    start = moment_at(0, 5)
    assert not any(trigger(start) for trigger in (EveryEpoch(), SeveralIteration(1), MaxEpoch(1), MaxIteration(1)))


def test_values() -> None:
    nothing, measured = Moment(3, 1, True), Moment(3, 1, True, {"loss": 0.5, "val_accuracy": 0.9})
    assert not MinLoss(0.6)(nothing)
    assert not MaxScore(0.1)(nothing)
    assert MinLoss(0.6)(measured)
    assert not MinLoss(0.5)(measured)
    assert MaxScore(0.8)(measured)
    assert not MaxScore(0.9)(measured)
    assert not MaxScore(0.1, "val_f1")(measured)


@given(STEPS, st.integers(1, 6), st.integers(1, 6))
def test_combined(step: int, first: int, second: int) -> None:
    a, b, moment = SeveralIteration(first), SeveralIteration(second), moment_at(step, 100)
    assert (a | b)(moment) == (a(moment) or b(moment))
    assert (a & b)(moment) == (a(moment) and b(moment))


def test_what_they_are_shown_as() -> None:
    trigger = (SeveralIteration(200) | EveryEpoch()) & MaxEpoch(3)
    assert repr(trigger) == "((SeveralIteration(200) | EveryEpoch()) & MaxEpoch(3))"
    assert repr(MinLoss(0.1)) == "MinLoss(0.1, 'loss')"


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "3"])
@pytest.mark.parametrize("trigger", [SeveralIteration, MaxEpoch, MaxIteration])
def test_only_positive_integers(trigger: type[Trigger], value: object) -> None:
    with pytest.raises(ConfigError, match="pass a positive integer"):
        trigger(value)  # type: ignore[call-arg]


def test_only_triggers_combine() -> None:
    with pytest.raises(ConfigError, match="200 is no trigger"):
        EveryEpoch() | 200  # type: ignore[operator]
