"""Alias tables: a neighbour drawn in proportion to its weight, by one number and one coin whatever the degree.

Walker's method as Vose builds it (*A linear algorithm for generating random numbers with a given distribution*, IEEE
Trans. Software Eng. 1991). A row of d neighbours has d slots of equal probability; a slot keeps its own neighbour when
the coin, 32 random bits, is below the slot's cut, and else gives the neighbour that the slot names. The cuts are
integers, so that every machine decides alike; a neighbour's probability is off by at most 2^-32.

8 bytes an arc and 8 bytes a node, beside the weights themselves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from node2vec.jit import jit
from sparkdl.errors import ConfigError

ALWAYS = 0xFFFFFFFF  # the largest cut; such a slot names itself, so the coin does not matter


class AliasTables(NamedTuple):
    """One table a row, in the order of the graph's arcs.

    `cuts`: uint32 [A]. `others`: int32 [A], places within the row. `totals`: float64 [V], sum of each row's weights.
    """

    cuts: npt.NDArray[np.uint32]
    others: npt.NDArray[np.int32]
    totals: npt.NDArray[np.float64]


def build(indptr: npt.NDArray[np.int64], weights: npt.NDArray[np.float32]) -> AliasTables:
    """The tables of all rows; a row's table depends on its own weights alone.

    `indptr`: int64 [V+1]; `weights`: float32 [A], 0 or more, of which a row with neighbours has one above 0.
    Raises ConfigError for other weights.
    """
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ConfigError("a weight is negative, infinite or not a number: no walk can be drawn in proportion to it.")
    tables = AliasTables(np.empty(len(weights), np.uint32), np.empty(len(weights), np.int32), np.zeros(len(indptr) - 1))
    degrees = np.diff(indptr)
    _fill(indptr, weights, *tables, np.empty(int(degrees.max(initial=0)), np.float64))
    empty = np.flatnonzero((tables.totals == 0) & (degrees > 0))
    if len(empty):
        raise ConfigError(
            f"all edges of node number {empty[0]} weigh 0 (and so those of {len(empty) - 1} more nodes): a walk that "
            "comes there could not go on. Drop the edges, or give them a weight."
        )
    return tables


@jit
def _fill(
    indptr: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
    cuts: npt.NDArray[np.uint32],
    others: npt.NDArray[np.int32],
    totals: npt.NDArray[np.float64],
    shares: npt.NDArray[np.float64],
) -> None:
    """Write all tables; `shares`: room for the longest row."""
    stack = np.empty(len(shares), np.int32)  # light slots from the left, heavy ones from the right
    for vertex in range(len(indptr) - 1):
        first = indptr[vertex]
        degree = indptr[vertex + 1] - first
        total = 0.0
        for slot in range(degree):
            total += np.float64(weights[first + slot])
        totals[vertex] = total
        if total == 0.0:
            continue
        light, heavy = 0, degree
        for slot in range(degree):
            shares[slot] = np.float64(weights[first + slot]) * degree / total
            if shares[slot] < 1.0:
                stack[light] = slot
                light += 1
            else:
                heavy -= 1
                stack[heavy] = slot
        while light > 0 and heavy < degree:
            light -= 1
            slot, donor = stack[light], stack[heavy]
            cuts[first + slot] = np.uint32(min(shares[slot] * 4294967296.0 + 0.5, 4294967295.0))
            others[first + slot] = donor
            shares[donor] -= 1.0 - shares[slot]
            if shares[donor] < 1.0:
                stack[light] = donor
                light += 1
                heavy += 1
        for place in range(light):  # left over by rounding, or with nothing to give: whole slots
            cuts[first + stack[place]] = ALWAYS
            others[first + stack[place]] = stack[place]
        for place in range(heavy, degree):
            cuts[first + stack[place]] = ALWAYS
            others[first + stack[place]] = stack[place]


def probabilities(tables: AliasTables, start: int, stop: int) -> npt.NDArray[np.float64]:
    """What the table of the row at arcs start..stop-1 draws: float64 [stop - start], of sum 1."""
    kept = tables.cuts[start:stop] / 2.0**32
    own = tables.others[start:stop] == np.arange(stop - start)
    kept[own] = 1.0
    drawn = kept + np.bincount(tables.others[start:stop], 1.0 - kept, stop - start)
    return np.asarray(drawn / (stop - start), np.float64)
