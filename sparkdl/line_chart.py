"""Charts as SVG text, made by plain Python: lines over steps, and layers stacked on each other.

However many values there are, a chart has a few hundred points: values are put into buckets, which show their means
and the range from their smallest to their largest. Values that are no finite numbers leave a gap, and a mark below it.
Colours are classes (``c0``, ``c1``, …) that the page's style sheet defines, for light and for dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Chart", "Line", "bucket_starts", "number", "ticks"]

Values = npt.NDArray[np.float64]

MEANS = 160  # buckets of a line, and columns that tell their values when the pointer is on them
RANGE = 450  # buckets of the range around a line
PLAIN = 300  # so many values are drawn one by one
FEW = 25  # so many get a point each
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 36  # room around the plot


class Line(NamedTuple):
    """A named line; x ascending. sparse: few values, each drawn as a point, such as those of validations."""

    name: str
    x: Values
    y: Values
    sparse: bool = False


def bucket_starts(count: int, most: int) -> npt.NDArray[np.int64]:
    """Where each of at most ``most`` buckets of about equal length begins; none is empty."""
    number_of = min(count, most)
    return (np.arange(number_of) * count // max(1, number_of)).astype(np.int64)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from low to high; low and high themselves at the widest."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12 - math.floor(math.log10(step))) for i in range(first, last + 1)]


def number(value: float) -> str:
    """A number for people: four digits that count, thousands set apart, no long rows of zeros."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("infinite" if value > 0 else "-infinite")
    if value == round(value) and abs(value) < 1e15:
        return f"{round(value):,}"
    if 1e-4 <= abs(value) < 1e7:
        digits = max(0, 3 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{digits}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.3e}"


class Chart:
    """One chart's axes. Draws lines or layers into them and gives the SVG text.

    title: for screen readers. low, high: of the first and last step. borders: steps at which epochs end.
    events: (step, text). unit: of the values, told beside them. from_zero: whether the axis begins there.
    """

    def __init__(
        self,
        title: str,
        low: float,
        high: float,
        borders: Sequence[float] = (),
        events: Sequence[tuple[float, str]] = (),
        unit: str = "",
        from_zero: bool = False,
        width: int = 560,
        height: int = 250,
    ):
        self.title, self.unit, self.width, self.height = title, unit, width, height
        self._low, self._high = (low - 0.5, high + 0.5) if low == high else (low, high)
        self._borders, self._events, self._from_zero = borders, events, from_zero
        self.log = False  # known once lines are drawn
        self._bottom, self._top = 0.0, 1.0

    def lines(self, lines: Sequence[Line]) -> str:
        """Lines over each other, on an axis of powers of ten where values spread over two of them and more."""
        known = np.concatenate([line.y[np.isfinite(line.y)] for line in lines]) if lines else np.zeros(0)
        self._scale(known)
        parts = [self._frame(), f'<g clip-path="url(#{self._clip()})">']
        parts += [self._line(line, number_) for number_, line in enumerate(lines)]
        parts += ["</g>", *(self._missing(line) for line in lines), self._columns(lines)]
        parts += [self._points(line, number_) for number_, line in enumerate(lines)]
        return self._svg(parts)

    def layers(self, x: Values, layers: Mapping[str, Values]) -> tuple[str, int]:
        """Layers stacked on each other, bucket by bucket; also says how many buckets are taller than the axis.

        The axis leaves out what is far above the rest: first steps start processes and take a hundred times as long.
        """
        starts = bucket_starts(len(x), MEANS)
        means = {name: _means(values, starts) for name, values in layers.items()}
        total = np.nan_to_num(np.sum([np.nan_to_num(m) for m in means.values()], axis=0))
        usual = float(np.quantile(total, 0.95)) if len(total) else 0.0
        top = min(float(total.max(initial=0.0)), 1.5 * usual) if len(total) > 20 else float(total.max(initial=0.0))
        self._from_zero = True
        self._scale(np.array([0.0, top or 1.0]))
        edges = np.concatenate([x[starts] - 0.5, x[-1:] + 0.5]) if len(x) else np.zeros(1)
        self._low, self._high = min(self._low, float(edges[0])), max(self._high, float(edges[-1]))
        parts = [self._frame(), f'<g clip-path="url(#{self._clip()})">']
        below = np.zeros(len(starts))
        for layer, mean in enumerate(means.values()):
            above = below + np.nan_to_num(mean)
            parts.append(f'<path class="area c{layer}" d="{self._band(edges, below, above)}"/>')
            below = above
        parts += ["</g>", self._columns([Line(name, x, values) for name, values in layers.items()])]
        return self._svg(parts), int((total > self._top).sum())

    # --- axes

    def _scale(self, known: Values) -> None:
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        # The rare extremes do not decide: one value near zero makes no logarithmic curve.
        usual = np.quantile(known, (0.02, 0.98)) if known.size else np.ones(2)
        self.log = bool(not self._from_zero and low > 0 and usual[1] / usual[0] >= 50)
        if self.log:
            self._bottom, self._top = math.log10(low), math.log10(high)
            room = 0.04 * (self._top - self._bottom)
            self._bottom, self._top = self._bottom - room, self._top + room
            return
        if self._from_zero or 0 <= low < 0.35 * high:
            low = min(0.0, low)
        room = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
        self._bottom = low if low == 0 else low - room
        self._top = high + room

    def _x(self, value: float) -> float:
        return LEFT + (value - self._low) / (self._high - self._low) * (self.width - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        at = math.log10(value) if self.log else value
        return self.height - BOTTOM - (at - self._bottom) / (self._top - self._bottom) * (self.height - TOP - BOTTOM)

    def _levels(self) -> list[float]:
        if not self.log:
            return ticks(self._bottom, self._top, 5)
        every = 1 + int(self._top - self._bottom) // 6
        factors = (1.0, 2.0, 5.0) if self._top - self._bottom < 2.5 else (1.0,)
        powers = range(math.floor(self._bottom), math.ceil(self._top) + 1)
        levels = [factor * 10.0**power for power in powers if power % every == 0 for factor in factors]
        return [level for level in levels if self._bottom <= math.log10(level) <= self._top]

    def _frame(self) -> str:
        right, base = self.width - RIGHT, self.height - BOTTOM
        parts = []
        if 0 < len(self._borders) <= 60:
            parts += [
                f'<line class="border" x1="{self._x(b):.1f}" x2="{self._x(b):.1f}" y1="{TOP}" y2="{base}"/>'
                for b in self._borders
                if self._low < b < self._high
            ]
        for level in self._levels():
            y = self._y(level)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(level)}</text>')
        for step in ticks(self._low, self._high, max(2, self.width // 110)):
            if step == round(step):
                x = self._x(step)
                parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 4}"/>')
                label = f"{step:,.0f}"
                at = min(x, self.width - 4.0 * len(label))  # whole, at the right edge too
                parts.append(f'<text class="tick" x="{at:.1f}" y="{base + 17}" text-anchor="middle">{label}</text>')
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{base}" y2="{base}"/>')
        parts.append(f'<text class="tick" x="{right}" y="{self.height - 4}" text-anchor="end">step</text>')
        for step, text in self._events:
            x = min(max(self._x(step), LEFT), right)
            told = f"<title>{escape(f'step {step:,.0f}: {text}')}</title>"
            parts.append(f'<path class="event" d="M{x:.1f} {TOP}l-5 -9h10z">{told}</path>')
        return "".join(parts)

    # --- marks

    def _line(self, line: Line, colour: int) -> str:
        if len(line.x) <= PLAIN or line.sparse:
            starts = bucket_starts(len(line.x), PLAIN)
            return f'<path class="line c{colour}{" dashed" if line.sparse else ""}" d="{self._path(line, starts)}"/>'
        wide = bucket_starts(len(line.x), min(RANGE, len(line.x) // 3))
        lowest, highest = _extremes(line.y, wide)
        edges = np.concatenate([line.x[wide], line.x[-1:]])
        return (
            f'<path class="range c{colour}" d="{self._band(edges, lowest, highest)}"/>'
            f'<path class="line c{colour}" d="{self._path(line, bucket_starts(len(line.x), MEANS))}"/>'
        )

    def _path(self, line: Line, starts: npt.NDArray[np.int64]) -> str:
        places, means = _means(line.x, starts), _means(line.y, starts)
        text, drawing = [], False
        for x, y in zip(places, means, strict=True):
            if math.isfinite(y):  # the short way to the right makes a dot of a value between two gaps
                text.append(f"{'L' if drawing else 'M'}{self._x(x):.1f} {self._y(y):.1f}{'' if drawing else 'h.1'}")
            drawing = math.isfinite(y)
        return "".join(text)

    def _band(self, edges: Values, low: Values, high: Values) -> str:
        text = []
        for left, right, bottom, top in zip(edges[:-1], edges[1:], low, high, strict=True):
            if math.isfinite(bottom) and math.isfinite(top):
                a, b, base, end = self._x(left), self._x(right), self._y(bottom), self._y(top)
                text.append(f"M{a:.1f} {base:.1f}V{end - 0.4:.1f}H{max(b, a + 0.5):.1f}V{base:.1f}z")
        return "".join(text)

    def _points(self, line: Line, colour: int) -> str:
        if len(line.x) > (PLAIN if line.sparse else FEW):
            return ""
        return "".join(
            f'<circle class="point c{colour}" cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="3.5">'
            f"<title>{escape(f'step {x:,.0f}: {line.name} {number(y)}{self.unit}')}</title></circle>"
            for x, y in zip(line.x, line.y, strict=True)
            if math.isfinite(y)
        )

    def _missing(self, line: Line) -> str:
        starts = bucket_starts(len(line.x), RANGE)
        missing = np.add.reduceat(~np.isfinite(line.y), starts) if len(starts) else np.zeros(0)
        base = self.height - BOTTOM
        return "".join(
            f'<rect class="missing" x="{self._x(line.x[start]) - 1:.1f}" y="{base - 5}" width="2" height="5">'
            f"<title>{escape(f'step {line.x[start]:,.0f}: {line.name} is no finite number')}</title></rect>"
            for start, count in zip(starts, missing, strict=True)
            if count
        )

    def _columns(self, lines: Sequence[Line]) -> str:
        dense = [line for line in lines if not line.sparse and len(line.x)]
        if not dense:
            return ""
        x = dense[0].x
        starts = bucket_starts(len(x), MEANS)
        stops = np.append(starts[1:], len(x))
        told = [
            (line.name, _means(line.y, starts), *_extremes(line.y, starts)) for line in dense if len(line.y) == len(x)
        ]
        parts = []
        for i, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            words = []
            for name, means, lowest, highest in told:
                spread = f" ({number(lowest[i])} to {number(highest[i])})" if highest[i] > lowest[i] else ""
                words.append(f"{name} {number(means[i])}{self.unit}{spread}")
            steps = f"step {x[start]:,.0f}" + (f" to {x[stop - 1]:,.0f}" if stop - start > 1 else "")
            left = self._x(x[start] - (0.5 if stop - start == 1 else 0))
            right = self._x(x[stop] if stop < len(x) else x[-1] + 0.5)
            told_here = "\n".join([steps, *words])
            parts.append(
                f'<rect class="column" x="{left:.1f}" y="{TOP}" width="{max(1.0, right - left):.1f}" '
                f'height="{self.height - TOP - BOTTOM}"><title>{escape(told_here)}</title></rect>'
            )
        return "".join(parts)

    def _clip(self) -> str:
        return "clip-" + "".join(c if c.isascii() and c.isalnum() else "-" for c in self.title)

    def _svg(self, parts: Sequence[str]) -> str:
        plot = f'x="{LEFT}" y="{TOP}" width="{self.width - LEFT - RIGHT}" height="{self.height - TOP - BOTTOM}"'
        return (
            f'<svg role="img" aria-label="{escape(self.title)}" viewBox="0 0 {self.width} {self.height}">'
            f'<defs><clipPath id="{self._clip()}"><rect {plot}/></clipPath></defs>{"".join(parts)}</svg>'
        )


def _means(values: Values, starts: npt.NDArray[np.int64]) -> Values:
    """Means of the finite values of each bucket; NaN where there are none."""
    if not len(starts):
        return np.zeros(0)
    finite = np.isfinite(values)
    sums = np.add.reduceat(np.where(finite, values, 0.0), starts)
    counts = np.add.reduceat(finite.astype(np.float64), starts)
    means: Values = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
    return means


def _extremes(values: Values, starts: npt.NDArray[np.int64]) -> tuple[Values, Values]:
    """The smallest and the largest finite value of each bucket; NaN where there are none."""
    if not len(starts):
        return np.zeros(0), np.zeros(0)
    known: Values = np.where(np.isfinite(values), values, np.nan)
    return np.fmin.reduceat(known, starts), np.fmax.reduceat(known, starts)
