"""The report holds what the history holds, for any run, and is one file without anything from outside."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparkdl.errors import ConfigError
from sparkdl.history import History
from sparkdl.run_report import report_html, write_report

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that tags are closed in order; collects text, tags and attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.texts, self.attributes = list[str](), list[str](), list[str](), list[Any]()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def history(steps: int, epochs: int = 0, loss: Any = None, metric: str = "accuracy", validated: bool = True) -> History:
    made = History()
    each = max(1, steps // epochs) if epochs else 0
    for step in range(steps):
        value = 1.0 / (step + 1) if loss is None else loss(step)
        made.add_step(step, step // each if each else 0, 10, 0.02, value, 0.1, 3.0, 2.0, 1.0, {metric: 0.5})
        if each and (step + 1) % each == 0:
            made.add_epoch(step // each, 1.0, {"loss": 0.25, metric: 0.75} if validated else None)
    return made


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(History(), id="nothing"),
        pytest.param(history(1), id="one step"),
        pytest.param(history(3, loss=lambda step: math.nan), id="only NaN"),
        pytest.param(history(400, 4, loss=lambda step: math.inf if step % 7 == 0 else float(step)), id="infinite"),
        pytest.param(history(50, 5, loss=lambda step: -float(step), validated=False), id="below zero"),
        pytest.param(history(350, 350), id="an epoch a step"),
        pytest.param(history(5, 1, metric="<b>&quot;"), id="names that are no HTML"),
    ],
)
def test_any_run_gives_a_well_formed_page(made: History) -> None:
    page = Page(report_html(made))
    assert page.tags[0] == "html"
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in {"src", "href"} or "://" in (value or "")]
    assert ("svg" in page.tags) == bool(len(made.steps))


def test_the_page_tells_curves_epochs_events_and_settings() -> None:
    made = history(40, 4)
    made.add_event(12, "executor 2 was lost: <going back>")
    made.fingerprint = "ab" * 32
    made.settings = {"batch_size": 10, "optimizer": "Adam"}  # type: ignore[attr-defined]
    page = Page(report_html(made))
    text = "\n".join(page.texts)
    for told in (
        "training loss", "validation loss", "validation accuracy", "Learning rate", "Rows per second", "Time of a step",
        "compute", "sync", "scheduling", "Epochs", "rows_per_second", "Events", "executor 2 was lost: <going back>",
        "ab" * 32, "Settings", "batch_size", "Adam", "lowest val_loss, at step 10", "50% · 33% · 17%",
    ):  # fmt: skip
        assert told in text, told
    assert "step 40: validation loss 0.25" in text
    assert "step 40\ntraining loss 0.025" in text


def test_validations_between_epochs_are_taken_if_the_history_has_them() -> None:
    made = history(40, 2, validated=False)
    made.add_validation(0, 5, {"loss": 0.5})
    made.add_validation(1, 30, {"loss": math.nan})
    page = Page(report_html(made))
    text = "\n".join(page.texts)
    assert "step 5: validation loss 0.5" in text
    assert "validation accuracy" not in text
    told = text[text.index("Validations") :].split()
    assert told == ["Validations", "epoch", "step", "val_loss", "1", "5", "0.5", "2", "30"]


def test_a_long_run_stays_small() -> None:
    made = History()
    rng = np.random.default_rng(0)
    for step in range(20_000):
        made.add_step(step, 0, 10, 0.02, float(rng.random()), 0.1, 3.0, 2.0, 1.0, {"accuracy": 0.5})
    made.events = [(step, "lost") for step in range(1000)]
    text = report_html(made)
    assert len(text) < 600_000
    assert "800 rows are left out here" in text


def test_it_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.html"
    write_report(history(5), path)
    first = path.read_text()
    assert first == report_html(history(5))
    write_report(history(6), str(path))
    second = path.read_text()
    assert first != second

    def broken(self: Path, *args: Any, **more: Any) -> int:
        with self.open("w") as file:
            file.write("half")
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", broken)
    with pytest.raises(OSError, match="no space left"):
        write_report(history(7), path)
    assert path.read_text() == second
    assert [p.name for p in tmp_path.iterdir()] == ["run.html"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no folder '.*nowhere'"):
        write_report(history(1), tmp_path / "nowhere" / "run.html")
