"""History: records in, DataFrames out; means weighed by rows; a rollback leaves no trace but its event."""

from __future__ import annotations

import math
import pickle

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkdl.history import History, StepRecord


def add(history: History, step: int, epoch: int = 0, rows: int = 10, loss: float = 1.0, **metrics: float) -> StepRecord:
    return history.add_step(step, epoch, rows, 0.5, loss, 0.1, 2.0, 3.0, 5.0, metrics)


def test_steps_are_a_frame_with_metrics_last() -> None:
    history = History()
    record = add(history, 0, loss=4.0, accuracy=0.25)
    add(history, 1, loss=3.0, accuracy=0.5)
    frame = history.steps
    columns = ["step", "epoch", "loss", "lr", "rows", "rows_per_second", "compute_ms", "sync_ms", "scheduling_ms"]
    assert list(frame.columns) == [*columns, "accuracy"]
    assert frame["step"].tolist() == [0, 1]
    assert {str(frame[name].dtype) for name in ("step", "epoch", "rows")} == {"int64"}
    assert frame["rows_per_second"].tolist() == [20.0, 20.0]
    assert frame["accuracy"].tolist() == [0.25, 0.5]
    assert record == StepRecord(0, 0, 10, 0.5, 4.0, 0.1, 2.0, 3.0, 5.0, {"accuracy": 0.25})
    assert record.rows_per_second == 20.0


def test_an_empty_history_has_its_columns() -> None:
    history = History()
    assert len(history.steps) == len(history.epochs) == 0
    assert history["loss"] == []
    assert "val_loss" not in history
    assert math.isnan(history.time_split()["compute_ms"])
    assert history.fingerprint is None
    assert repr(history) == "History(0 steps, 0 epochs)"


def test_a_metric_that_comes_later_leaves_gaps() -> None:
    history = History()
    add(history, 0)
    add(history, 1, late=1.0)
    add(history, 2)
    late = history["late"]
    assert [math.isnan(value) for value in late] == [True, False, True]
    assert history.epoch_means(0) == {"loss": 1.0, "late": 1.0}


@settings(deadline=None, max_examples=60, print_blob=True)
@given(st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(-100, 100), min_size=1, max_size=9)), max_size=20))
def test_epoch_means_are_means_over_rows(steps: list[tuple[int, list[int]]]) -> None:
    """The oracle has the rows themselves: a mean of unequal steps' means is another number."""
    history = History()
    rows_of_epoch: dict[int, list[int]] = {}
    for step, (epoch, losses) in enumerate(steps):
        mean = sum(losses) / len(losses)
        add(history, step, epoch, rows=len(losses), loss=mean, double=2 * mean)
        rows_of_epoch.setdefault(epoch, []).extend(losses)
    for epoch in range(3):
        means = history.epoch_means(epoch)
        losses = rows_of_epoch.get(epoch, [])
        if not losses:
            assert means == {}
        else:
            assert means["loss"] == pytest.approx(sum(losses) / len(losses))
            assert means["double"] == pytest.approx(2 * sum(losses) / len(losses))


def test_a_loss_that_is_no_number_is_not_hidden_in_the_mean() -> None:
    history = History()
    add(history, 0, loss=math.nan)
    add(history, 1, loss=1.0)
    assert math.isnan(history.epoch_means(0)["loss"])


def test_an_epoch_takes_its_means_from_the_steps() -> None:
    history = History()
    add(history, 0, rows=3, loss=1.0, accuracy=1.0)
    add(history, 1, rows=1, loss=9.0, accuracy=0.0)
    record = history.add_epoch(0, 2.0, {"loss": 0.5, "accuracy": 0.9})
    assert record == {
        "epoch": 0,
        "step": 1,
        "loss": 3.0,
        "rows": 4,
        "seconds": 2.0,
        "rows_per_second": 2.0,
        "accuracy": 0.75,
        "val_loss": 0.5,
        "val_accuracy": 0.9,
    }
    assert history.epochs.to_dict("records") == [record]
    assert list(history.epochs.columns) == list(record)


def test_an_epoch_takes_what_is_given() -> None:
    history = History()
    add(history, 0)
    record = history.add_epoch(0, 2.0, loss=7.0, rows=100, metrics={"f1": 0.5})
    assert (record["loss"], record["rows"], record["rows_per_second"], record["f1"]) == (7.0, 100, 50.0, 0.5)


def test_a_column_is_that_of_the_epochs_then_of_the_steps() -> None:
    history = History()
    add(history, 0, loss=4.0)
    add(history, 1, loss=2.0)
    assert history["loss"] == [4.0, 2.0]
    history.add_epoch(0, 1.0, {"loss": 2.5})
    assert history["loss"] == [3.0]
    assert history["val_loss"] == [2.5]
    assert history["lr"] == [0.1, 0.1]
    assert "val_loss" in history
    assert {"loss", "val_loss", "lr"} <= set(history)
    with pytest.raises(KeyError, match="there is no column 'acc' in this history; it has 'epoch', 'step', 'loss'"):
        history["acc"]


def test_truncate_forgets_steps_and_the_epochs_they_ended() -> None:
    history = History()
    for step in range(6):
        add(history, step, step // 2, loss=float(step))
        if step % 2:
            history.add_epoch(step // 2, 1.0)
    history.add_event(5, "executor 2 was lost")
    history.truncate(3)
    assert history.steps["step"].tolist() == [0, 1, 2]
    assert history.epochs["epoch"].tolist() == [0]
    assert history.events == [(5, "executor 2 was lost")]
    for step in range(3, 6):
        add(history, step, step // 2, loss=float(step))
        if step % 2:
            history.add_epoch(step // 2, 1.0)
    assert history.steps["step"].tolist() == list(range(6))
    assert history["loss"] == [0.5, 2.5, 4.5]


def test_truncating_at_an_epochs_end_keeps_the_epoch() -> None:
    history = History()
    add(history, 0)
    add(history, 1)
    history.add_epoch(0, 1.0)
    add(history, 2, 1)
    history.truncate(2)
    assert history.epochs["epoch"].tolist() == [0]
    assert history.steps["step"].tolist() == [0, 1]


def test_steps_out_of_order_are_our_own_mistake() -> None:
    history = History()
    add(history, 3)
    with pytest.raises(AssertionError, match="step 3 after step 3"):
        add(history, 3)


def test_time_split_leaves_out_the_warm_up() -> None:
    history = History()
    for step in range(20):
        slow = 1000.0 if step < 2 else 1.0
        history.add_step(step, 0, 10, 0.1, 1.0, 0.1, 4.0 * slow, 1.0 * slow, 5.0 * slow)
    assert history.time_split() == {
        "compute_ms": 4.0,
        "sync_ms": 1.0,
        "scheduling_ms": 5.0,
        "compute": 0.4,
        "sync": 0.1,
        "scheduling": 0.5,
    }
    mixed = History()
    for step in range(10):
        mixed.add_step(step, 0, 10, 0.1, 1.0, 0.1, 1000.0 if step == 0 else float(step), 0.0, 0.0)
    assert mixed.time_split()["compute_ms"] == 5.0


def test_a_step_costs_only_its_numbers() -> None:
    history = History()
    for step in range(1000):
        add(history, step, accuracy=1.0)
    assert len(pickle.dumps(history)) < 1000 * 8 * 10 + 2000


def test_a_history_is_pickled_whole() -> None:
    history = History()
    add(history, 0, accuracy=1.0)
    history.add_epoch(0, 1.0)
    history.fingerprint = "abc"
    copy = pickle.loads(pickle.dumps(history))
    assert copy.steps.equals(history.steps)
    assert copy.epochs.equals(history.epochs)
    assert copy.fingerprint == "abc"
    assert repr(copy) == "History(1 steps, 1 epochs, last loss 1)"


def test_a_history_goes_through_arrays_in_any_order() -> None:
    history = History()
    for step in range(3):
        history.add_step(step, step // 2, 8, 0.1, 1.0 / (step + 1), 0.1, 3.0, 2.0, 1.0, {"z.top1": 0.5, "a": step})
    history.add_epoch(0, 1.5, {"loss": 0.25})
    assert history.add_validation(0, 2, {"loss": 0.25, "accuracy": 0.5}) == {"val_loss": 0.25, "val_accuracy": 0.5}
    history.add_event(2, "went back: \u2026")
    arrays = history.to_arrays()
    found = History.from_arrays({name: arrays[name].copy() for name in sorted(arrays, reverse=True)})
    for table in ("steps", "epochs", "validations"):
        pd.testing.assert_frame_equal(getattr(found, table), getattr(history, table))
    assert found.events == history.events
    found.add_step(3, 1, 8, 0.1, 0.2, 0.1, 3.0, 2.0, 1.0)
    assert len(found.steps) == 4


def test_validations_between_epochs() -> None:
    history = History()
    history.add_validation(0, 2, {"f1": 0.25})
    history.add_validation(1, 7, {"f1": 0.5})
    assert history["val_f1"] == [0.25, 0.5]
    assert "val_f1" in history
    history.truncate(6)
    assert history.validations["step"].tolist() == [2]
