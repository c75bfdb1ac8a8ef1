from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node2vec import alias
from sparkdl.errors import ConfigError

WEIGHTS = st.one_of(st.just(0.0), st.floats(2**-20, 2**20, width=32), st.floats(2**-126, 2**126, width=32))
ROWS = st.lists(st.lists(WEIGHTS, max_size=12).filter(lambda row: not row or max(row) > 0), max_size=6)


def arrays(rows: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=indptr[1:])
    return indptr, np.array([weight for row in rows for weight in row], np.float32)


@settings(deadline=None)
@given(ROWS)
def test_tables_draw_in_proportion_to_weight(rows: list[list[float]]) -> None:
    indptr, weights = arrays(rows)
    tables = alias.build(indptr, weights)
    assert (tables.cuts.dtype, tables.others.dtype, tables.totals.dtype) == (np.uint32, np.int32, np.float64)
    for start, stop, total in zip(indptr[:-1], indptr[1:], tables.totals, strict=True):
        row = weights[start:stop].astype(np.float64)
        assert total == pytest.approx(row.sum(), rel=1e-12)
        if stop > start:
            drawn = alias.probabilities(tables, start, stop)
            assert drawn == pytest.approx(row / row.sum(), abs=2**-31)
            assert not drawn[row == 0].any()
            assert (tables.others[start:stop] >= 0).all()
            assert (tables.others[start:stop] < stop - start).all()


def test_a_row_has_the_same_table_wherever_it_is() -> None:
    rows = [[1.0, 2.0, 5.0], [3.0], [], [0.5, 0.25, 4.0, 4.0]]
    together = alias.build(*arrays(rows))
    alone = [alias.build(*arrays([row])) for row in rows]
    assert together.cuts.tolist() == [cut for tables in alone for cut in tables.cuts.tolist()]
    assert together.others.tolist() == [other for tables in alone for other in tables.others.tolist()]


def test_a_long_row() -> None:
    weights = np.random.default_rng(0).pareto(1.0, 100_000).astype(np.float32)
    tables = alias.build(np.array([0, len(weights)]), weights)
    wanted = weights.astype(np.float64) / weights.astype(np.float64).sum()
    assert np.abs(alias.probabilities(tables, 0, len(weights)) - wanted).max() < 2**-36


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_have_to_be_finite_and_not_negative(weight: float) -> None:
    with pytest.raises(ConfigError, match="negative, infinite or not a number"):
        alias.build(*arrays([[1.0, weight]]))


def test_a_row_needs_some_weight() -> None:
    with pytest.raises(ConfigError, match=r"all edges of node number 1 weigh 0 \(and so those of 1 more nodes\)"):
        alias.build(*arrays([[1.0], [0.0, 0.0], [], [0.0]]))
