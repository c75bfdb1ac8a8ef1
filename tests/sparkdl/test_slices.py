"""Laws of the flat vector: every element once, borders aligned, groups never mixed, slices and pieces cover it all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sparkdl import slices

law = settings(deadline=None, max_examples=60, print_blob=True)  # machines may be busy

shapes = st.lists(st.integers(1, 9), max_size=4).map(tuple) | st.sampled_from([(), (0,), (3, 0), (400,), (17, 31)])
parameters = st.lists(st.tuples(shapes, st.integers(0, 3)), min_size=1, max_size=12).map(
    lambda found: [(f"p{n}", shape, group) for n, (shape, group) in enumerate(found)]
)


@st.composite
def layouts(draw: st.DrawFn) -> slices.Layout:
    """A layout with at least one lot, cut small."""
    given_parameters = draw(parameters)
    assume(any(math.prod(shape) for _, shape, _ in given_parameters))
    with small(segment=16 * draw(st.integers(1, 8)), lot=draw(st.integers(1, 300))):
        return slices.layout(given_parameters, draw(st.booleans()))


@contextmanager
def small(segment: int = 64, lot: int = 96, piece: int = 1 << 18) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:  # the fixture would last for all of hypothesis' examples
        patch.setattr(slices, "SEGMENT_SIZE", segment)
        patch.setattr(slices, "LOT_SIZE", lot)
        patch.setattr(slices, "PIECE_SIZE", piece)
        yield


@law
@given(st.integers(0, 10**12))
def test_aligned_is_the_next_multiple_of_16(elements: int) -> None:
    assert slices.aligned(elements) % 16 == 0
    assert 0 <= slices.aligned(elements) - elements < 16


@law
@given(parameters, st.booleans())
def test_tensors_lie_one_after_the_other_by_group_then_in_the_models_order(
    given_parameters: list[tuple[str, tuple[int, ...], int]], elementwise: bool
) -> None:
    found = slices.layout(given_parameters, elementwise)
    assert [(t.group, int(t.name[1:])) for t in found.tensors] == sorted(
        (g, int(n[1:])) for n, _, g in given_parameters
    )
    of_name = {name: (shape, group) for name, shape, group in given_parameters}
    position = 0
    for t in found.tensors:
        assert (t.shape, t.group) == of_name[t.name]
        assert t.numel == math.prod(t.shape)
        assert t.start % 16 == 0
        assert 0 <= t.start - position < 16
        position = t.start + t.numel
    assert found.size == slices.aligned(position)


@law
@given(parameters, st.integers(1, 8), st.integers(1, 300))
def test_segments_cover_every_element_of_every_tensor_once_and_never_mix_groups(
    given_parameters: list[tuple[str, tuple[int, ...], int]], segment_lines: int, lot_size: int
) -> None:
    for elementwise in (True, False):
        with small(16 * segment_lines, lot_size):
            found = slices.layout(given_parameters, elementwise)
        owner: list[int | None] = [None] * found.size  # the group of the segment that holds an element
        previous_stop = 0
        for segment in found.segments:
            assert segment.start % 16 == 0
            assert previous_stop <= segment.start < segment.stop
            assert math.prod(segment.shape) == segment.stop - segment.start
            assert not elementwise or segment.stop - segment.start <= 16 * segment_lines
            owner[segment.start : segment.stop] = [segment.group] * (segment.stop - segment.start)
            previous_stop = segment.stop
        for t in found.tensors:
            assert set(owner[t.start : t.start + t.numel]) <= {t.group}
        if not elementwise:
            whole = [(t.start, t.start + t.numel, t.group, t.shape) for t in found.tensors if t.numel]
            assert list(found.segments) == whole


@law
@given(parameters, st.integers(1, 300), st.booleans())
def test_lots_are_runs_of_whole_segments_just_large_enough(
    given_parameters: list[tuple[str, tuple[int, ...], int]], lot_size: int, elementwise: bool
) -> None:
    with small(lot=lot_size):
        found = slices.layout(given_parameters, elementwise)
    covered = [n for first, last in found.lots for n in range(first, last)]
    assert covered == list(range(len(found.segments)))
    for number, (first, last) in enumerate(found.lots):
        start, stop = found.lot_bounds(number)
        assert (start, stop) == (found.segments[first].start, found.segments[last - 1].stop)
        assert stop - start >= lot_size or number == len(found.lots) - 1
        assert last - first == 1 or found.segments[last - 2].stop - start < lot_size


@law
@given(layouts(), st.data())
def test_cut_gives_runs_of_lots_that_cover_all_and_are_never_empty(found: slices.Layout, data: st.DataObject) -> None:
    num_slices = data.draw(st.integers(1, len(found.lots)))
    cut = slices.cut(found, num_slices)
    assert len(cut) == num_slices
    assert cut[0][0] == 0
    assert cut[-1][1] == len(found.lots)
    assert all(first < last for first, last in cut)
    assert all(before[1] == after[0] for before, after in pairwise(cut))


@law
@given(st.integers(1, 60), st.data())
def test_cut_of_even_lots_is_even(num_lots: int, data: st.DataObject) -> None:
    with small(segment=16, lot=16):
        found = slices.layout([("p", (num_lots * 16,), 0)], elementwise=True)
    num_slices = data.draw(st.integers(1, num_lots))
    counts = [last - first for first, last in slices.cut(found, num_slices)]
    assert max(counts) - min(counts) <= 1


@law
@given(layouts(), st.integers(1, 200), st.data())
def test_pieces_cover_every_slice_in_order_and_never_cross_its_border(
    found: slices.Layout, piece_size: int, data: st.DataObject
) -> None:
    cut = slices.cut(found, data.draw(st.integers(1, len(found.lots))))
    with small(piece=piece_size):
        pieces = slices.pieces(found, cut)
    for number, lots in enumerate(cut):
        start, stop = slices.slice_bounds(found, lots)
        assert start == found.lot_bounds(lots[0])[0]
        assert 0 <= stop - found.lot_bounds(lots[1] - 1)[1] < 16, "at most the padding goes along"
        mine = [p for p in pieces if p.slice == number]
        assert [p.start for p in mine] == [start, *(p.stop for p in mine[:-1])]
        assert mine[-1].stop == stop
        assert all(0 < p.stop - p.start <= piece_size for p in mine)
    assert [p.start for p in pieces] == sorted(p.start for p in pieces)
    in_a_piece = {e for p in pieces for e in range(p.start, p.stop)}
    assert all(in_a_piece.issuperset(range(t.start, t.start + t.numel)) for t in found.tensors)


@law
@given(st.integers(0, 10**10), st.integers(1, 10**5), st.integers(1, 1000))
def test_num_slices_is_one_a_megabyte_within_lots_and_replicas(size: int, num_lots: int, num_replicas: int) -> None:
    count = slices.num_slices(size, num_lots, num_replicas)
    assert 1 <= count <= min(num_lots, num_replicas)
    assert count == 1 or size * 4 / count >= 1 << 20
    fits: Any = count == min(num_lots, num_replicas) or size * 4 < (count + 1) << 20
    assert fits, "one more slice of a megabyte would have been possible"
