"""The Python blocks of these pages run, one after the other, as a reader would run them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.spark
@pytest.mark.parametrize("page", ["callbacks.md", "embeddings.md", "export.md", "large_batches.md", "ml.md"])
def test_the_blocks_of_a_page_run(
    spark: SparkSession, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    if page == "callbacks.md":
        assert Path("run.html").read_text().startswith("<!doctype html>")
