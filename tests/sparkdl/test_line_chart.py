"""Charts are well-formed, small whatever they show, and hold every value between their borders."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkdl.line_chart import BOTTOM, LEFT, RIGHT, TOP, Chart, Line, bucket_starts, number, ticks

finite = st.floats(-1e12, 1e12, allow_nan=False)


@given(low=finite, size=st.floats(1e-9, 1e12), most=st.integers(2, 12))
def test_ticks_are_few_round_and_between(low: float, size: float, most: int) -> None:
    high = low + size
    if high - low < 1e-6 * abs(low):  # nothing that a float could tell apart
        return
    found = ticks(low, high, most)
    assert len(found) <= most + 2
    assert all(low - 1e-6 * size <= tick <= high + 1e-6 * size for tick in found)
    if len(found) > 1:
        step = found[1] - found[0]
        digits = step / 10 ** math.floor(math.log10(step) + 1e-6)
        assert min(abs(digits - wanted) for wanted in (1, 2, 5, 10)) < 1e-2


def test_ticks_of_known_ranges() -> None:
    assert ticks(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(1, 900, 8) == [200, 400, 600, 800]
    assert ticks(0, 0.0103, 5) == [0.0, 0.005, 0.01]
    assert ticks(3, 3) == [3]


@given(count=st.integers(0, 5000), most=st.integers(1, 400))
def test_buckets_are_of_equal_length_and_hold_everything(count: int, most: int) -> None:
    starts = bucket_starts(count, most)
    lengths = np.diff([*starts, count])
    assert len(starts) == min(count, most)
    assert lengths.sum() == count
    if count:
        assert lengths.min() >= 1
        assert lengths.max() - lengths.min() <= 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (100000.0, "100,000"),
        (0.25, "0.25"),
        (0.123456, "0.1235"),
        (12.3456, "12.35"),
        (1234.56, "1,235"),
        (-0.5, "-0.5"),
        (1.5e-7, "1.500e-07"),
        (3.2e9 + 0.5, "3.200e+09"),
        (math.nan, "not a number"),
        (-math.inf, "-infinite"),
        (math.inf, "infinite"),
    ],
)
def test_numbers_are_for_people(value: float, text: str) -> None:
    assert number(value) == text


def elements(svg: str, tag: str, kind: str = "") -> list[ElementTree.Element]:
    return [e for e in ElementTree.fromstring(svg).iter(tag) if kind in e.get("class", "")]


def coordinates(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)]


values = st.lists(st.floats(width=32) | st.floats(0.1, 10), min_size=1, max_size=700)


@given(y=values, zero=st.booleans())
def test_every_value_lies_in_the_plot(y: list[float], zero: bool) -> None:
    array = np.array(y, dtype=np.float64)
    x = np.arange(1.0, len(y) + 1)
    svg = Chart("a", 1, len(y), from_zero=zero).lines([Line("loss", x, array)])
    for path in elements(svg, "path", "line"):
        for at, height in coordinates(path.get("d", "")):
            assert LEFT - 1 <= at <= 560 - RIGHT + 1
            assert TOP - 1 <= height <= 250 - BOTTOM + 1
    drawn = "".join(path.get("d", "") for path in elements(svg, "path", "line"))
    assert bool(drawn) == bool(np.isfinite(array).any())
    assert bool(elements(svg, "rect", "missing")) == (not np.isfinite(array).all())


def test_a_line_has_the_values_where_they_belong() -> None:
    svg = Chart("a", 1, 3).lines([Line("loss", np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 1.0]))])
    (path,) = elements(svg, "path", "line")
    (x1, y1), (x2, y2), (x3, y3) = coordinates(path.get("d", ""))
    assert (x1, x3) == (LEFT, 560 - RIGHT)
    assert x2 == pytest.approx((x1 + x3) / 2)
    assert y1 == 250 - BOTTOM
    assert y1 - y3 == pytest.approx((y1 - y2) / 2, abs=0.2)


def test_a_hundred_thousand_values_are_some_hundred_points_and_no_extreme_is_lost() -> None:
    count = 100_000
    y = np.sin(np.arange(count) / 500.0)
    y[77_777] = 50.0
    svg = Chart("a", 1, count).lines([Line("loss", np.arange(1.0, count + 1), y)])
    assert len(svg) < 120_000
    (band,) = elements(svg, "path", "range")
    tops = [float(v) for v in re.findall(r"V(-?[\d.]+)H", band.get("d", ""))]
    assert TOP < min(tops) < TOP + 15  # the one value of 50
    assert sorted(tops)[1] > TOP + 150
    assert any((e.text or "").endswith(" to 50)") for e in elements(svg, "title"))


def test_a_gap_is_a_gap() -> None:
    y = np.array([1.0, np.nan, 2.0, np.inf, 3.0, 4.0])
    svg = Chart("a", 1, 6).lines([Line("loss", np.arange(1.0, 7), y)])
    (path,) = elements(svg, "path", "line")
    assert re.sub(r"[\d. h]", "", path.get("d", "")) == "MMML"
    told = [e[0].text for e in elements(svg, "rect", "missing")]
    assert told == ["step 2: loss is no finite number", "step 4: loss is no finite number"]


def test_a_wide_spread_gets_powers_of_ten_but_one_small_value_does_not() -> None:
    x = np.arange(1.0, 101)
    chart = Chart("a", 1, 100)
    labels = [e.text for e in elements(chart.lines([Line("loss", x, 10.0 ** (-x / 20))]), "text", "tick")]
    assert chart.log
    assert {"0.1", "0.01", "0.001"} <= set(labels)
    chart = Chart("a", 1, 100)
    chart.lines([Line("loss", x, np.where(x == 7, 1e-9, 1.0))])
    assert not chart.log


def test_what_the_pointer_is_told() -> None:
    svg = Chart("a", 1, 2, events=[(2, "executor <2> was lost")], unit=" ms").lines(
        [
            Line("loss & more", np.array([1.0, 2.0]), np.array([0.5, 0.25])),
            Line("validation", np.array([2.0]), np.array([0.125]), sparse=True),
        ]
    )
    told = {e.text for e in elements(svg, "title")}
    assert {"step 1\nloss & more 0.5 ms", "step 2\nloss & more 0.25 ms"} <= told
    assert {"step 2: validation 0.125 ms", "step 2: executor <2> was lost"} <= told


def test_layers_add_up_and_the_first_step_does_not_flatten_the_rest() -> None:
    count = 100
    compute, sync = np.full(count, 3.0), np.full(count, 1.0)
    compute[0] = 4000.0
    svg, cut = Chart("a", 1, count).layers(np.arange(1.0, count + 1), {"compute": compute, "sync": sync})
    assert cut == 1
    first, second = (e.get("d", "") for e in elements(svg, "path", "area"))
    heights = [
        [float(base) - float(top) for base, top in re.findall(r" (-?[\d.]+)V(-?[\d.]+)H", path)]
        for path in (first, second)
    ]
    assert heights[0][1] == pytest.approx(3 * heights[1][1], rel=0.03)
    assert heights[0][1] > 80, "3 of 4 ms are a good part of the height"
    svg, cut = Chart("a", 1, 1).layers(np.array([1.0]), {"compute": np.array([5.0]), "sync": np.array([np.nan])})
    assert cut == 0
    assert len(elements(svg, "path", "area")) == 2


def test_few_values_get_points_and_a_lonely_one_is_seen() -> None:
    svg = Chart("a", 1, 1).lines([Line("loss", np.array([1.0]), np.array([0.7]))])
    assert len(elements(svg, "circle", "point")) == 1
    y = np.full(100, np.nan)
    y[50] = 1.0
    (path,) = elements(Chart("a", 1, 100).lines([Line("loss", np.arange(1.0, 101), y)]), "path", "line")
    assert re.fullmatch(r"M[\d.]+ [\d.]+h\.1", path.get("d", ""))
