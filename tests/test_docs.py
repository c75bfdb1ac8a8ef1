"""What the documents say of the code is what the code says: settings, modules, floors, links, examples.

``python -m tests.test_docs`` writes the table in docs/settings.md anew.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SETTINGS_PAGE = ROOT / "docs" / "settings.md"
START, STOP = "<!-- table: start -->", "<!-- table: end -->"
WHERE = {"always": "every session", "cluster": "on a cluster", "local": "local masters", "embedded": "embedded only"}


def settings_table() -> str:
    from sparkdl.spark_conf import SETTINGS

    lines = ["| setting | set | Spark's default | where | level | because |", "|---|---|---|---|---|---|"]
    for s in SETTINGS:
        wants = f"at least `{s.wants}`" if s.match == "at least" else f"`{s.wants}`"
        default = f"`{s.default}`" if s.default else "-"
        since = "" if s.since == (3, 5) else f", Spark {s.since[0]}.{s.since[1]} and newer"
        cells = [f"`{s.key}`", wants, default, WHERE[s.when] + since, s.level, s.why]
        assert not any("|" in cell for cell in cells)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def replaced(text: str, table: str) -> str:
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(STOP)
    return f"{before}{START}\n\n{table}\n\n{STOP}{after}"


def test_the_table_of_settings_is_that_of_the_code() -> None:
    text = SETTINGS_PAGE.read_text()
    assert text == replaced(text, settings_table()), "write it anew: python -m tests.test_docs"


def test_every_module_has_its_line_on_its_floor() -> None:
    from tests.test_floors import FLOORS

    parts = re.split(r"^### Floor (\d).*$", (ROOT / "ARCHITECTURE.md").read_text(), flags=re.MULTILINE)
    listed, misplaced = [], []
    for floor, text in zip(parts[1::2], parts[2::2], strict=True):
        section = re.split(r"^## ", text, flags=re.MULTILINE)[0]
        for name in re.findall(r"^\| `((?:node2vec/|ml/)?\w+)\.py` \| \S", section, flags=re.MULTILINE):
            listed.append(name)
            module = name.replace("/", ".") if name.startswith("node2vec/") else f"sparkdl.{name.replace('/', '.')}"
            if module.removesuffix(".__init__") not in FLOORS[int(floor)]:
                misplaced.append(f"{name} on floor {floor}")
    assert misplaced == []
    wanted = [path.stem for path in (ROOT / "sparkdl").glob("*.py")]
    wanted += [f"ml/{path.stem}" for path in (ROOT / "sparkdl" / "ml").glob("*.py") if path.stem != "__init__"]
    wanted += [f"node2vec/{path.stem}" for path in (ROOT / "node2vec").glob("*.py") if path.stem != "__init__"]
    assert sorted(listed) == sorted(wanted)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (page.parent / link).exists()]
    named = re.findall(r"`((?:tests|examples|benchmarks|scripts|docs|sparkdl)/[\w./-]+)`", text)
    missing += [name for name in named if not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_compile(page: Path) -> None:
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)):
        assert compile(block, f"{page.name}, block {number}", "exec").co_code


def test_the_readme_has_an_example_of_each_package() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert [re.search(r"^from (\w+) import", block, re.MULTILINE)[1] for block in blocks[1:]] == ["node2vec"]  # type: ignore[index]
    assert re.search(r"^from sparkdl import .*Trainer", blocks[0], re.MULTILINE)
    assert all(len(block.splitlines()) <= 20 for block in blocks)


def test_the_table_of_gather_is_that_of_the_rule() -> None:
    from sparkdl.run_plan import choose_form

    text = (ROOT / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) million \|$", text, flags=re.MULTILINE)
    assert len(rows) >= 5
    for replicas, mib, millions in rows:
        size, parameters = float(mib) * (1 << 20), float(millions) * 1e6
        assert size == pytest.approx(4 * parameters, rel=0.03)
        for factor, form in ((0.97, "gather"), (1.03, "fused")):
            assert choose_form(int(size * factor), int(replicas), slots=int(replicas)) == form


if __name__ == "__main__":
    SETTINGS_PAGE.write_text(replaced(SETTINGS_PAGE.read_text(), settings_table()))
    sys.stdout.write(f"{SETTINGS_PAGE.relative_to(ROOT)} is written\n")
