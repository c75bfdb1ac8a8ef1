"""The heartbeat speaks when nobody else does, says what runs, and stands in nobody's way."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest

from sparkdl import heartbeat as module
from sparkdl.heartbeat import Heartbeat, RunningJob, sentence
from sparkdl.progress import Progress

STEP = RunningJob("epoch 1 step 41: forward-backward", 31.4, 8, 3, 2)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is shown while there is no `Progress`."""
    lines: list[str] = []
    monkeypatch.setattr(module, "show", lines.append)
    return lines


def test_what_is_said_of_jobs() -> None:
    assert (
        sentence([STEP]) == "epoch 1 step 41: forward-backward has been running for 31 s: 3 of 8 tasks done, 2 running"
    )
    waiting = STEP._replace(done=0, running=0)
    assert sentence([waiting]).endswith("0 of 8 tasks done, none running: there is no free task slot, or no executor")
    assert sentence([STEP._replace(done=8, running=0)]).endswith("8 of 8 tasks done, 0 running")
    young = STEP._replace(seconds=14.0, running=0)
    assert sentence([young]).endswith("running for 14 s: 3 of 8 tasks done"), "Spark may not have counted them yet"
    later = RunningJob("validation", 2.0, 4, 0, 4)
    assert sentence([later._replace(what="sparkdl: validation")]).startswith("validation has been running for 2 s")
    assert sentence([later, STEP]) == sentence([STEP]) + "; 1 more jobs at the same time"
    assert sentence([]) == "no Spark job of this training is running: the driver is at work, or waits for executors"


def test_it_speaks_after_30_seconds_and_again_every_30(clock: Clock, said: list[str]) -> None:
    heartbeat = Heartbeat(lambda: [STEP], clock=clock)
    spoken = []
    for second in range(100):
        clock.now = float(second)
        heartbeat.beat()
        if len(said) > len(spoken):
            spoken.append(second)
    assert spoken == [30, 60, 90]
    assert said == [sentence([STEP])] * 3


def test_it_is_quiet_while_progress_shows_something(clock: Clock, said: list[str]) -> None:
    progress = Progress(10, 1, rows_per_epoch=100, batch_size=10, clock=clock)
    lines: list[str] = []
    progress._logger = type("Log", (), {"info": staticmethod(lines.append)})()  # type: ignore[assignment]
    heartbeat = Heartbeat(lambda: [STEP], clock=clock, progress=progress)
    for second in range(0, 200, 20):
        clock.now = float(second)
        progress.note("news")
        heartbeat.beat()
    assert set(lines) == {"news"}
    clock.now = 209.0
    heartbeat.beat()
    assert set(lines) == {"news"}
    clock.now = 210.0
    heartbeat.beat()
    assert lines[-1] == sentence([STEP])
    assert said == []


def test_the_thread_beats_and_ends_with_the_run(said: list[str]) -> None:
    looked = threading.Event()

    def jobs() -> list[RunningJob]:
        if len(said) >= 1:
            looked.set()
        return [STEP]

    before = threading.active_count()
    with Heartbeat(jobs, seconds=0.01) as heartbeat:
        assert looked.wait(60)
        assert heartbeat._thread is not None
        assert heartbeat._thread.daemon
    heartbeat._thread.join(60)
    assert threading.active_count() == before
    assert said[0] == sentence([STEP])


def test_a_run_that_ends_while_spark_is_asked_is_not_told_of(clock: Clock, said: list[str]) -> None:
    def jobs() -> list[RunningJob]:
        heartbeat.__exit__(None, None, None)
        return [STEP]

    heartbeat = Heartbeat(jobs, verbose=0, clock=clock)
    clock.now = 100.0
    heartbeat.beat()
    assert said == []


def test_an_error_of_its_own_stops_nothing(said: list[str]) -> None:
    calls: list[int] = []
    enough = threading.Event()

    def jobs() -> list[RunningJob]:
        calls.append(1)
        if len(calls) > 2:
            enough.set()
        raise OSError("the JVM is gone")

    with Heartbeat(jobs, seconds=0.01):
        assert enough.wait(60)
    assert said == []


def test_verbose_0_starts_no_thread(said: list[str]) -> None:
    def jobs() -> Any:
        raise AssertionError("nobody may ask")

    before = threading.active_count()
    with Heartbeat(jobs, verbose=0, seconds=0.0):
        assert threading.active_count() == before


def test_it_does_not_keep_a_process_alive() -> None:
    program = """
from sparkdl.heartbeat import Heartbeat
Heartbeat(lambda: [], seconds=1000.0).__enter__()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=240)
