from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from node2vec import jit


def test_kernels_compile_and_compute() -> None:
    @jit.jit
    def double(array: np.ndarray) -> int:
        total = 0
        for value in array:
            total += 2 * value
        return total

    assert double(np.arange(5)) == 20
    assert double.signatures  # type: ignore[attr-defined]


def test_a_package_without_a_folder_for_machine_code_compiles_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = jit.numba.njit
    asked = []

    def njit(*arguments: object, **flags: object) -> object:
        asked.append(flags.pop("cache", False))
        if asked[-1]:
            raise RuntimeError("cannot cache function: no locator available")
        return kept(*arguments, **flags)

    monkeypatch.setattr(jit.numba, "njit", njit)
    monkeypatch.setattr(jit, "_private_folder", lambda: "")
    assert jit.jit(lambda: 3)() == 3
    assert asked == [True, False]


def test_machine_code_is_read_from_folders_of_this_user_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = Path(jit._private_folder())
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o077 == 0
    folder.chmod(0o777)
    assert jit._private_folder() == ""


def test_without_numba_the_error_says_what_to_install() -> None:
    program = "import sys; sys.modules['numba'] = None; import node2vec.counter_rng"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "pip install 'sparkdl-torch[node2vec]'" in done.stderr
