from __future__ import annotations

import ast
import subprocess
import sys
import types
from pathlib import Path

import pytest

import node2vec
import sparkdl

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("package", [sparkdl, node2vec])
def test_all_is_sorted_and_every_name_exists(package: types.ModuleType) -> None:
    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name).__name__.rpartition(".")[2] == name
        assert name in dir(package)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "sparkdl" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name  # "as" marks it as exported
            seen[alias.name] = node.module
    assert seen == sparkdl._MODULE_OF
    assert sorted(seen) == sparkdl.__all__


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="module 'sparkdl' has no attribute 'Trainor'"):
        sparkdl.Trainor  # noqa: B018 - the access is the test


def test_import_alone_loads_neither_torch_nor_pyspark() -> None:
    program = "import sparkdl, sys; assert not {'torch', 'pyspark'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_versions_agree() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert f'\nversion = "{sparkdl.__version__}"\n' in text
    assert node2vec.__version__ == sparkdl.__version__
