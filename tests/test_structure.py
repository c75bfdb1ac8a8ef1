"""Each module has its test file at the same place under tests, and each test file its module."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent

UNTESTED = {
    "sparkdl/__init__.py": "test_exports.py",
    "node2vec/__init__.py": "test_exports.py",
    "sparkdl/ml/__init__.py": "names of the modules beside it, which all their tests import",
    "sparkdl/errors.py": "declares exceptions, computes nothing",
    "sparkdl/__main__.py": "three lines that test_cli.py runs",
    "node2vec/__main__.py": "three lines that test_cli.py runs",
    **dict.fromkeys(
        [
            "sparkdl/forward_backward_job.py",
            "sparkdl/gather_job.py",
            "sparkdl/parameter_sync_job.py",
            "sparkdl/replica_cache.py",
            "sparkdl/slices_form.py",
            "sparkdl/state_job.py",
        ],
        "shipping without mathematics of its own: test_forms.py runs every form against the single-process twin",
    ),
}


def test_every_module_has_its_test() -> None:
    modules = {path.relative_to(ROOT) for package in ("sparkdl", "node2vec") for path in (ROOT / package).rglob("*.py")}
    wanted = {path.parent / f"test_{path.name}" for path in modules if path.as_posix() not in UNTESTED}
    missing = sorted(path.as_posix() for path in wanted if not (TESTS / path).is_file())
    assert missing == []


def test_every_test_has_its_module() -> None:
    tests = [path for package in ("sparkdl", "node2vec") for path in (TESTS / package).rglob("test_*.py")]
    modules = [path.relative_to(TESTS).with_name(path.name.removeprefix("test_")) for path in tests]
    assert [path.as_posix() for path in modules if not (ROOT / path).is_file()] == []
