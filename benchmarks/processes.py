"""The processes of a benchmark and their memory, as /proc tells."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path


def processes_below(root: int) -> dict[int, str]:
    """The command lines of all processes that `root` started, directly or not."""
    parents: dict[int, int] = {}
    words: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            pid = int(entry.name)
            # The command's name stands in brackets and may itself hold spaces and brackets.
            parents[pid] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            words[pid] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    found: dict[int, str] = {}
    level = {root}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        found |= {pid: words[pid] for pid in level if pid in words}
    return found


def rss(pid: int) -> int:
    """Bytes of a process in memory, shared pages (mapped rows and state) included; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def proportional_size(pid: int) -> int:
    """Bytes of a process in memory, of a page that n processes share a n-th; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def cpu_seconds() -> float:
    """Of this process, Spark's JVM and its workers so far."""
    ticks = 0
    for pid in (os.getpid(), *processes_below(os.getpid())):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += sum(int(field) for field in fields[11:15])  # its own, and of children that have ended
    return ticks / os.sysconf("SC_CLK_TCK")


class Watch(threading.Thread):
    """Shows `see` this process and all below it, over and over, until the process ends."""

    def __init__(self, seconds: float = 0.3) -> None:
        super().__init__(daemon=True)
        self.seconds = seconds

    def run(self) -> None:
        """Goes on until the process ends."""
        while True:
            self.see("driver Python", os.getpid())
            for pid, words in processes_below(os.getpid()).items():
                if "CoarseGrainedExecutorBackend" in words:
                    self.see("executor JVM", pid)
                elif "pyspark.daemon" in words or "pyspark/daemon" in words:
                    self.see("Python worker", pid)
                elif "java" in words.split(" ")[0]:
                    self.see("driver JVM", pid)
            time.sleep(self.seconds)

    def see(self, kind: str, pid: int) -> None:
        """Look at a process; `kind`: "driver Python", "driver JVM", "executor JVM" or "Python worker"."""
        raise NotImplementedError
