"""Progress: what the user sees, where, and how often."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sparkdl.history import StepRecord
from sparkdl.progress import Progress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the logger "sparkdl" says."""
    said: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, handler = logging.getLogger("sparkdl"), Collect()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield said
    logger.removeHandler(handler)
    logger.setLevel(level)


def record(step: int, epoch: int = 0, rows: int = 512, scheduling_ms: float = 0.1) -> StepRecord:
    return StepRecord(step, epoch, rows, 0.016, 0.43214, 0.001, 2.4, 1.9, scheduling_ms)


def progress(clock: Clock | None = None, verbose: int = 1, num_steps: int = 118, **arguments: Any) -> Progress:
    arguments = {"rows_per_epoch": (num_steps - 1) * 512 + 96, "batch_size": 512, **arguments}
    return Progress(num_steps * 5, 5, verbose, clock=clock or Clock(), **arguments)


def test_a_line(lines: list[str], clock: Clock) -> None:
    shown = progress(clock)
    clock.now += 12.34
    shown.update(record(118 + 24, 1, scheduling_ms=8.9))
    assert lines == [
        "[Epoch 2 12800/60000][Step 143][Wall clock 12.3 s] 512 records in 0.016 s. "
        "Throughput is 32000.0 records/second. Loss is 0.4321. lr 0.001. compute 2.4 ms, sync 1.9 ms, scheduling 8.9 ms"
    ]


def test_a_line_every_five_seconds_and_one_at_the_end_of_an_epoch(lines: list[str], clock: Clock) -> None:
    shown = progress(clock, num_steps=100)
    for step in range(200):
        shown.update(record(step, step // 100))
        clock.now += 0.125
    shown.close()
    assert [int(re.findall(r"Step (\d+)", line)[0]) for line in lines] == [1, 41, 81, 100, 140, 180, 200]
    assert lines[3].startswith("[Epoch 1 50784/50784]")


def test_records_in_bunches_give_one_line(lines: list[str], clock: Clock) -> None:
    shown = progress(clock)
    for bunch in range(3):
        clock.now += 6
        for step in range(30 * bunch, 30 * bunch + 30):
            shown.update(record(step))
    assert len(lines) == 3


def test_a_rollback_goes_back(lines: list[str], clock: Clock) -> None:
    shown = progress(clock)
    shown.update(record(24))
    shown.note("executor 2 was lost: going back to step 10")
    clock.now += 6
    shown.update(record(9))
    assert lines[0].startswith("[Epoch 1 12800/60000][Step 25]")
    assert lines[1] == "executor 2 was lost: going back to step 10"
    assert lines[2].startswith("[Epoch 1 5120/60000][Step 10]")


def test_verbose_0_is_silent(lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    shown = progress(verbose=0)
    for step in range(60):
        shown.update(record(step, scheduling_ms=100.0))
    shown.note("text")
    shown.close()
    assert lines == []
    assert capsys.readouterr().err == ""


def hints(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("Scheduling takes")]


def test_a_hint_once_after_50_steps(lines: list[str]) -> None:
    shown = progress()
    for step in range(49):
        shown.update(record(step, scheduling_ms=4.3))
    assert hints(lines) == []
    for step in range(49, 117):
        shown.update(record(step, scheduling_ms=4.3))
    shown.close()
    (hint,) = hints(lines)
    assert hint.startswith("Scheduling takes 50% of a step")
    assert "batch_size (now 512), fewer replicas, or steps_per_job > 1" in hint


def test_a_hint_at_the_end_of_a_short_run(lines: list[str]) -> None:
    shown = progress()
    for step in range(10):
        shown.update(record(step, scheduling_ms=4.3))
    shown.close()
    assert len(hints(lines)) == 1


def test_no_hint_where_scheduling_is_small_or_only_the_start_was_slow(lines: list[str]) -> None:
    shown = progress()
    for step in range(60):
        shown.update(record(step, scheduling_ms=900.0 if step < 5 else 1.8))
    shown.close()
    short = progress()
    for step in range(8):
        short.update(record(step, scheduling_ms=900.0 if step < 5 else 0.1))
    short.close()
    assert hints(lines) == []


def test_verbose_2_is_a_line_a_step(lines: list[str], clock: Clock) -> None:
    shown = progress(clock, verbose=2)
    for step in range(3):
        shown.update(record(step))
    assert [re.findall(r"Step (\d+)", line) for line in lines] == [["1"], ["2"], ["3"]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = progress()
    for step in range(20, 30):  # resumed
        shown.update(record(step))
    assert shown._bar.initial == 20  # the rate counts the steps of this process
    shown.note("executor 2 was lost")
    shown.update(record(24))
    shown.update(record(25))
    assert shown._bar.n == 26
    shown.close()
    shown.close()
    text = terminal.getvalue()
    assert "executor 2 was lost\n" in text
    assert re.search(r"Epoch 1/5: .* 26/590 .*loss 0\.4321, lr 0\.001, 32000\.0 rows/s", text)
    assert lines == []


def test_verbose_2_on_a_terminal_is_lines_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = progress(verbose=2)
    shown.update(record(0))
    shown.update(record(1))
    shown.close()
    text = terminal.getvalue()
    assert re.findall(r"\[Step (\d)\]", text) == ["1", "2"]
    assert "2/590" in text


def test_when_something_was_shown_last(lines: list[str], clock: Clock) -> None:
    shown = progress(clock)
    assert shown.shown_at == 100.0
    clock.now = 110.0
    shown.update(record(0))
    clock.now = 112.0
    shown.update(record(1))  # no line: the last one is two seconds old
    assert shown.shown_at == 110.0
    shown.note("text")
    assert shown.shown_at == 112.0


def test_a_bar_that_moves_is_something_shown(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = progress(clock)
    clock.now = 107.0
    shown.update(record(0))
    assert shown.shown_at == 107.0
    shown.close()


SCRIPT = """
import logging, sys
from sparkdl.history import StepRecord
from sparkdl.progress import Progress
exec(sys.argv[1])
shown = Progress(10, 1, rows_per_epoch=100, batch_size=10)
shown.note("first")
exec(sys.argv[2])
Progress(10, 1, rows_per_epoch=100, batch_size=10).note("second")
shown.close()
"""


def run(before: str, between: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, before, between], capture_output=True, text=True, check=True, timeout=120
    ).stderr


def test_lines_are_seen_once_whether_logging_is_configured_before_later_or_never() -> None:
    never = run("", "")
    assert re.fullmatch(r"\d\d:\d\d:\d\d sparkdl: first\n\d\d:\d\d:\d\d sparkdl: second\n", never)
    assert run("logging.basicConfig(level='INFO')", "") == "INFO:sparkdl:first\nINFO:sparkdl:second\n"
    assert run("logging.basicConfig(level='WARNING')", "") == ""
    later = run("", "logging.basicConfig(level='INFO')").splitlines()
    assert len(later) == 2
    assert later[1] == "INFO:sparkdl:second"
