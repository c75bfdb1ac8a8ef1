"""docs/features.md: each row names a test, and the test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "features.md"


def rows() -> list[list[str]]:
    """The cells of all tables' rows, without their heads."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in found if row[-1] != "test"]


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def missing(row: list[str]) -> str | None:
    """What is wrong with a row."""
    named = re.fullmatch(r"`(tests/[\w/]+\.py)::(test_\w+)`", row[-1])
    if len(row) != 3 or not all(row) or named is None:
        return f"{row}: three cells, the last one a test"
    path = ROOT / named[1]
    if not path.is_file() or named[2] not in functions(path):
        return f"{row[0]}: there is no {row[-1]}"
    return None


def test_every_row_names_a_test_that_exists() -> None:
    found = rows()
    assert len(found) > 50
    assert [text for row in found if (text := missing(row))] == []


def test_the_check_sees_what_is_missing() -> None:
    here = "`tests/test_features.py::test_the_check_sees_what_is_missing`"
    assert missing(["a", "b", here]) is None
    assert missing(["a", "b", here.replace("what", "nothing")]) is not None
    assert missing(["a", "b", here.replace("features", "nothing")]) is not None
    assert missing(["a", "b", ""]) is not None
    assert missing(["a", here]) is not None
