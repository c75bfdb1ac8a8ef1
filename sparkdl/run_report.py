"""A run as one HTML page: curves, where the time went, epochs, events. No network, no scripts, nothing to install.

Steps count from 1 here, as people do. The page follows the reader's light or dark setting, and prints in light.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from sparkdl.errors import ConfigError
from sparkdl.history import History
from sparkdl.line_chart import Chart, Line, Values, number

__all__ = ["report_html", "write_report"]

_OWN = {"step", "epoch", "loss", "lr", "rows", "seconds", "rows_per_second", "compute_ms", "sync_ms", "scheduling_ms"}
_PARTS = {"compute": "compute_ms", "sync": "sync_ms", "scheduling": "scheduling_ms"}
_MOST_ROWS = 200  # of a table; the middle of a longer one is left out

_STYLE = """
:root{--paper:#fff;--card:#fff;--ink:#1b1f24;--soft:#5b6470;--rule:#dfe3e8;--grid:#eceff2;
--c0:#0b66b5;--c1:#c2500a;--c2:#0a7d5a;--c3:#7a4fb5;--bad:#b3261e;--tint:.2;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--paper:#14171a;--card:#1b1f24;--ink:#e8eaed;--soft:#a4adb8;--rule:#343a42;
--grid:#292f36;--c0:#62b0f5;--c1:#f29b4b;--c2:#4fc79b;--c3:#b899ee;--bad:#ff8a80;--tint:.28}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:28px 20px 48px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
h1{font-size:24px;margin:0 0 2px}h2{font-size:16px;margin:0 0 6px}p{margin:0 0 8px}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:10px;margin:18px 0;padding:0}
.facts div{border:1px solid var(--rule);border-radius:8px;padding:8px 12px;background:var(--card)}
.facts dt{color:var(--soft);font-size:13px}.facts dd{margin:0;font-size:18px;font-weight:600;overflow-wrap:anywhere}
.charts{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:14px}
figure,section{margin:0;border:1px solid var(--rule);border-radius:8px;padding:12px 14px;background:var(--card)}
figure.wide{grid-column:1/-1}section{margin-top:14px;overflow-x:auto}
@media screen and (max-width:760px){.charts{grid-template-columns:minmax(0,1fr)}figure.wide{overflow-x:auto}
figure.wide svg{min-width:860px}}
svg{display:block;width:100%;height:auto}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;margin:0 0 4px;padding:0;list-style:none}
.legend,figcaption,.soft{font-size:13px;color:var(--soft);overflow-wrap:anywhere}
.legend i{display:inline-block;width:18px;height:0;border-top:3px solid var(--k);vertical-align:middle;margin-right:6px}
.legend i.dashed{border-top-style:dashed}.legend i.block{height:11px;border:0;background:var(--k);opacity:.75}
figcaption{margin-top:4px}
.tick{font-size:12px;fill:var(--soft)}.grid{stroke:var(--grid)}.axis{stroke:var(--soft)}
.border{stroke:var(--rule);stroke-dasharray:2 3}.event{fill:var(--bad)}.missing{fill:var(--bad)}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}.dashed{stroke-dasharray:6 4}
.range{fill-opacity:var(--tint)}.area{fill-opacity:.75}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}
.range,.area{stroke:none}.point{stroke:var(--card);stroke-width:1.5}
.range.c0,.area.c0,.point.c0{fill:var(--c0)}.range.c1,.area.c1,.point.c1{fill:var(--c1)}
.range.c2,.area.c2,.point.c2{fill:var(--c2)}.range.c3,.area.c3,.point.c3{fill:var(--c3)}
.column{fill:transparent}.column:hover{fill:var(--ink);fill-opacity:.1}
table{border-collapse:collapse;font-size:14px;white-space:nowrap}
th,td{padding:3px 14px 3px 0;text-align:right}th{color:var(--soft);font-weight:600;border-bottom:1px solid var(--rule)}
tbody tr:nth-child(even){background:var(--grid)}td.text,th.text{text-align:left;white-space:normal}
section:focus-visible{outline:2px solid var(--c0)}
@media print{:root{--paper:#fff;--card:#fff;--ink:#000;--soft:#444;--rule:#bbb;--grid:#e5e5e5;--c0:#0b66b5;--c1:#c2500a;
--c2:#0a7d5a;--c3:#7a4fb5;--bad:#b3261e;--tint:.2}body{max-width:none;padding:0;font-size:12px;
-webkit-print-color-adjust:exact;print-color-adjust:exact}figure,section{break-inside:avoid}section.long{break-inside:auto}}
"""


def write_report(history: History, path: str | Path) -> None:
    """Writes the page to a local file, whole or not at all; one that is there is replaced.

    Raises ConfigError: the file's folder does not exist, or is no folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ConfigError(f"the report cannot be written to {str(path)!r}: there is no folder {str(path.parent)!r}")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(report_html(history), encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def report_html(history: History, title: str = "Training run") -> str:
    """The page's text; in a notebook, ``IPython.display.HTML(report_html(history))`` shows it."""
    steps, epochs = _columns(history.steps), _columns(history.epochs)
    validations = _columns(getattr(history, "validations", None))
    x = steps["step"] + 1
    held_out = _held_out(epochs, validations)
    metrics = [name for name in steps if name not in _OWN]
    names = ["loss", *metrics, *(name[4:] for name in held_out if name[4:] not in {"loss", *metrics})]
    parts = [f"<h1>{escape(title)}</h1>", _facts(history, steps, epochs, held_out)]
    if len(x):
        charts = _Charts(x, epochs.get("step", np.zeros(0)) + 1, history.events)
        drawn = [charts.values(name, steps.get(name), held_out.get(f"val_{name}")) for name in names]
        drawn += [
            charts.single("Learning rate", "lr", steps["lr"]),
            charts.single("Rows per second", "rows", steps["rows_per_second"], "rows/s", wide=len(names) % 2 == 0),
            charts.time({name: steps[column] for name, column in _PARTS.items()}),
        ]
        parts.append(f'<div class="charts">{"".join(drawn)}</div>')
    else:
        parts.append("<p>No step was recorded.</p>")
    if len(epochs.get("epoch", ())):
        shown = epochs | {"epoch": epochs["epoch"] + 1, "step": epochs["step"] + 1}
        parts.append(_section("Epochs", _table(list(shown), _rows(shown)), len(epochs["epoch"])))
    if len(validations.get("step", ())):
        shown = validations | {"epoch": validations["epoch"] + 1}
        parts.append(_section("Validations", _table(list(shown), _rows(shown)), len(validations["step"])))
    if history.events:
        events = [[number(step), text] for step, text in history.events]
        parts.append(_section("Events", _table(["step", "what"], events, text=1), len(events)))
    settings = getattr(history, "settings", None)
    if isinstance(settings, Mapping) and settings:
        rows = [[str(name), str(value)] for name, value in settings.items()]
        parts.append(_section("Settings", _table(["setting", "value"], rows, text=0), len(rows)))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><main>\n" + "\n".join(parts) + "\n</main></body></html>\n"
    )


class _Charts:
    """The figures of a page: all have the same steps, epochs and events."""

    def __init__(self, x: Values, borders: Values, events: Sequence[tuple[int, str]]):
        self._x, self._events = x, [(float(step), text) for step, text in events]
        self._borders = [float(b) for b in borders]

    def _chart(self, title: str, wide: bool = False, **more: Any) -> Chart:
        low, high = float(self._x[0]), float(self._x[-1])
        width, height = (1120, 300) if wide else (560, 250)
        return Chart(title, low, high, self._borders, self._events if wide else (), width=width, height=height, **more)

    def values(self, name: str, trained: Values | None, held_out: tuple[Values, Values] | None) -> str:
        """A loss or metric: of the training steps, and of validations, if there are any."""
        lines, keys = [], []
        if trained is not None:
            lines.append(Line(f"training {name}", self._x, trained))
        if held_out is not None:
            lines.append(Line(f"validation {name}", *held_out, sparse=True))
        for colour, line in enumerate(lines):
            keys.append((line.name, colour, "dashed" if line.sparse else ""))
        wide = name == "loss"
        text = ""
        if len(self._x) > 300 and trained is not None:
            text = "The line is a mean over neighbouring steps, the pale range holds each single one."
        if wide and self._events:
            text += " Triangles are events, told below."
        missing = sum(int((~np.isfinite(line.y)).sum()) for line in lines)
        if missing:
            text += f" {missing:,} values are no finite numbers: the red marks at the bottom."
        title = name.replace("_", " ").capitalize()
        chart = self._chart(title, wide)
        svg = chart.lines(lines)
        if chart.log:
            text += " The axis is logarithmic."
        return _figure(title, svg, keys, text, wide)

    def single(self, title: str, name: str, values: Values, unit: str = "", wide: bool = False) -> str:
        """One line from zero."""
        chart = self._chart(title, wide, from_zero=True, unit=f" {unit}" if unit else "")
        return _figure(title, chart.lines([Line(name, self._x, values)]), [], "", wide)

    def time(self, parts: Mapping[str, Values]) -> str:
        """What a step's time went to, stacked."""
        title = "Time of a step"
        svg, cut = self._chart(title, wide=True, unit=" ms").layers(self._x, parts)
        keys = [(name, colour, "block") for colour, name in enumerate(parts)]
        total = np.sum(list(parts.values()), axis=0)
        text = "Milliseconds."
        if cut:
            text += f" Cut off at the top; the longest step took {number(float(np.nanmax(total)) / 1e3)} s."
        return _figure(title, svg, keys, text, wide=True)


def _figure(title: str, svg: str, keys: Iterable[tuple[str, int, str]], text: str, wide: bool = False) -> str:
    legend = "".join(
        f'<li><i class="{kind}" style="--k:var(--c{colour})"></i>{escape(name)}</li>' for name, colour, kind in keys
    )
    legend = f'<ul class="legend">{legend}</ul>' if legend else ""
    caption = f"<figcaption>{escape(text.strip())}</figcaption>" if text.strip() else ""
    return f"<figure{' class=wide' if wide else ''}><h2>{escape(title)}</h2>{legend}{svg}{caption}</figure>"


def _facts(
    history: History, steps: Mapping[str, Values], epochs: Mapping[str, Values], held_out: Mapping[str, Any]
) -> str:
    """The numbers at the top."""
    facts = [("steps", number(len(steps["step"]))), ("epochs", number(len(epochs.get("epoch", ()))))]
    if len(steps["step"]):
        split = history.time_split()
        usual = sum(split[f"{part}_ms"] for part in _PARTS)
        facts += [
            ("rows", number(float(steps["rows"].sum()))),
            ("a step, median", f"{number(usual)} ms"),
            ("compute, sync, scheduling", " · ".join(f"{split[part]:.0%}" for part in _PARTS)),
            ("last loss", number(float(steps["loss"][-1]))),
        ]
    for name, (at, values) in held_out.items():
        finite = np.flatnonzero(np.isfinite(values))
        if not len(finite):
            continue
        if name == "val_loss":
            best = finite[np.argmin(values[finite])]
            facts.append((f"lowest val_loss, at step {number(float(at[best]))}", number(float(values[best]))))
        else:  # whether small or large is good is not known here
            facts.append((f"last {name}", number(float(values[finite[-1]]))))
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    print_ = f'<p class="soft">Fingerprint {escape(history.fingerprint)}</p>' if history.fingerprint else ""
    return f'<dl class="facts">{cells}</dl>{print_}'


def _held_out(epochs: Mapping[str, Values], validations: Mapping[str, Values]) -> dict[str, tuple[Values, Values]]:
    """Steps done and values of each "val_…" column: of the validations if there are any, else of the epochs."""
    if len(validations.get("step", ())):
        table, at = validations, validations["step"]
    else:
        table, at = epochs, epochs.get("step", np.zeros(0)) + 1
    return {
        name: (at[known], table[name][known])
        for name in table
        if name.startswith("val_") and (known := ~np.isnan(table[name])).any()
    }


def _columns(frame: Any) -> dict[str, Values]:
    """A DataFrame's columns of numbers."""
    if frame is None:
        return {}
    return {str(name): np.asarray(frame[name], dtype=np.float64) for name in frame.columns}


def _rows(columns: Mapping[str, Values]) -> list[list[str]]:
    return [
        [
            "" if np.isnan(value) and name != "loss" else number(float(value))
            for name, value in zip(columns, row, strict=True)
        ]
        for row in zip(*columns.values(), strict=True)
    ]


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], text: int | None = None) -> str:
    """text: from this column on there is text, not numbers."""
    marks = ["" if text is None or i < text else ' class="text"' for i in range(len(names))]
    head = "".join(f"<th{mark}>{escape(name)}</th>" for mark, name in zip(marks, names, strict=True))
    half = _MOST_ROWS // 2
    cells = [
        "<tr>" + "".join(f"<td{mark}>{escape(cell)}</td>" for mark, cell in zip(marks, row, strict=True)) + "</tr>"
        for row in (rows if len(rows) <= _MOST_ROWS else [*rows[:half], *rows[-half:]])
    ]
    if len(rows) > _MOST_ROWS:
        left_out = f"{len(rows) - 2 * half:,} rows are left out here"
        cells.insert(half, f'<tr><td class="text" colspan="{len(names)}">{left_out}</td></tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(cells)}</tbody></table>"


def _section(title: str, table: str, rows: int) -> str:
    # a table wider than the screen scrolls, by keyboard too
    return f"<section tabindex=0{' class=long' if rows > 25 else ''}><h2>{escape(title)}</h2>{table}</section>"
