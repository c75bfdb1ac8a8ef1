"""A copy of a run's state on the driver's disk, for when the executors lose every one of theirs."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable

from sparkdl.step_settings import StepSettings

COPY_SECONDS = 60.0  # between two copies
COPY_SHARE = 0.02  # of the run's time that copies may cost


class DurableState:
    """The newest copy; before the first one, version 0, the payload's own model, for which no file is needed.

    run: stands in the files' names, for Spark hands out a file of one name once.
    """

    def __init__(self, run: str):
        self.version = 0
        self.path = ""  # empty: the payload's model
        self.before: StepSettings | None = None  # the step that led to this version
        self.since: list[StepSettings] = []  # the steps from this version to the last snapshot
        self._run = run
        self._directory = tempfile.TemporaryDirectory(prefix="sparkdl-")
        self._due = time.monotonic() + COPY_SECONDS

    @property
    def is_due(self) -> bool:
        """Whether a new copy should be made by now."""
        return time.monotonic() >= self._due

    def write(self, version: int, before: StepSettings | None, pieces: Iterable[bytes | memoryview]) -> None:
        """Replaces the copy by that of ``version``: a snapshot's items, one after the other."""
        began = time.monotonic()
        path = os.path.join(self._directory.name, f"snapshot-{self._run}-{version}")
        with open(path, "wb") as file:
            file.writelines(pieces)
        if self.path not in ("", path):
            os.unlink(self.path)
        self.version, self.path, self.before, self.since = version, path, before, []
        now = time.monotonic()
        self._due = now + max(COPY_SECONDS, (now - began) / COPY_SHARE)

    def close(self) -> None:
        """Removes the copy."""
        self._directory.cleanup()
