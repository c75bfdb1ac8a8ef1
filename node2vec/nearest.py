"""The nearest of each vector by cosine, block by block: what the tasks of ``similar_job`` compute.

A cosine here is the product of two vectors of length 1 (float32), summed in float64 and rounded to float32. So it does
not depend on how vectors were cut into blocks, and equal vectors are equally near; among those the smaller id comes
first (strings by their UTF-8 bytes, as Spark sorts). The float32 matrix product only picks who may be among the
nearest: whoever is further off than its rounding error allows is out. The result is exact, at the matrix product's
speed.

Letters: n queries, m candidates, d dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Matrix = npt.NDArray[np.float32]

QUERIES = 1024  # of one matrix product
CANDIDATES = 4096  # with 1024 queries 16 MiB of scores, which stay in the cache's reach
PAIRS = 1 << 16  # whose cosines are summed in float64 at once
SAMPLE = 1024  # candidates that give a first idea of how near the nearest are
_NONE = np.float32(-2.0)  # below every cosine
_ORDER = [("row", "ascending"), ("similarity", "descending"), ("id", "ascending")]


def units(matrix: Matrix) -> Matrix:
    """Rows scaled to length 1: float32 [n, d] to float32 [n, d]. A row of zeros stays zeros: it is like nothing."""
    exact = matrix.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", exact, exact))
    exact /= np.where(norms > 0, norms, 1.0)[:, None]
    return exact.astype(np.float32)


def cosines(left: Matrix, right: Matrix) -> npt.NDArray[np.float32]:
    """The cosine of each row of `left` with that row of `right`; both of length 1: float32 [n, d] to float32 [n]."""
    sums = np.einsum("ij,ij->i", left.astype(np.float64), right.astype(np.float64))
    clipped: npt.NDArray[np.float32] = np.clip(sums, -1.0, 1.0).astype(np.float32)
    return clipped


def direction(positive: Matrix, negative: Matrix) -> Matrix:
    """Where several vectors point together: float32 [d], of length 1; zeros if they cancel each other.

    The mean of the vectors scaled to length 1, those of `negative` turned round: gensim's rule in ``most_similar``.
    """
    total = units(positive).sum(axis=0, dtype=np.float64) - units(negative).sum(axis=0, dtype=np.float64)
    count = max(1, len(positive) + len(negative))
    together = total / count if np.linalg.norm(total) > 1e-7 * count else np.zeros_like(total)
    one: Matrix = units(together.astype(np.float32)[None])[0]
    return one


def best(found: pa.Table, top: int) -> pa.Table:
    """The `top` nearest of each row of `found` (row, id, similarity), sorted by row, then nearest first, then id."""
    found = found.take(pc.sort_indices(found, sort_keys=_ORDER)).combine_chunks()
    rows = found.column("row").to_numpy()
    places = np.arange(len(rows)) - np.searchsorted(rows, rows)
    return found.filter(pa.array(places < top)) if len(rows) and places.max() >= top else found


def nearest_to(query: Matrix, ids: pa.Array, matrix: Matrix, left_out: pa.Array, top: int) -> pa.Table:
    """The `top` of a block that are nearest to one direction: a table row (0), id, similarity.

    query: float32 [d] of length 1; matrix: float32 [m, d] of any lengths; left_out: ids that do not count.
    """
    similarity = np.concatenate(
        [
            cosines(np.broadcast_to(query, part.shape), units(part))
            for part in (matrix[first : first + PAIRS] for first in range(0, max(1, len(matrix)), PAIRS))
        ]
    )
    wanted = ~np.asarray(pc.is_in(ids, value_set=left_out))
    # Only those as near as the last of the best, found without sorting strings, are worth sorting.
    places = np.flatnonzero(wanted)
    if len(places) > top:
        places = places[similarity[places] >= np.partition(similarity[places], -top)[-top]]
    return best(_table(np.zeros(len(places), np.int32), ids.take(pa.array(places)), similarity[places]), top)


class Search:
    """The `top` nearest candidates of each of n queries; candidates come block by block, in any order, each once.

    ids: Arrow array [n], units: float32 [n, d], rows of length 1 (see `units`). A query's own block is known by its
    ids, and nobody is near to himself.
    """

    def __init__(self, ids: pa.Array, units: Matrix, top: int):
        self.ids, self.units, self.top = ids, units, top
        # The error of a float32 sum of d products of total size 1, in whatever order, and of the result's rounding.
        self.slack = np.float32((units.shape[1] + 3) * 2.0**-24)
        self._least = np.full(len(units), _NONE)  # no candidate below this can be among the nearest
        self._found = [
            _table(np.empty(0, np.int32), ids.slice(0, 0), np.empty(0, np.float32))
            for _ in range(0, len(units), QUERIES)
        ]

    def add(self, ids: pa.Array, units: Matrix) -> None:
        """Another block of candidates: Arrow array [m], float32 [m, d]."""
        own = self.ids.equals(ids)
        for column in range(0, len(units), CANDIDATES):
            candidates, names = units[column : column + CANDIDATES], ids.slice(column, CANDIDATES)
            for number in range(len(self._found)):
                self._search(number, names, candidates, own, column)

    def result(self) -> Iterator[pa.Table]:
        """Tables id, similar_id, similarity (float32): queries in their order, nearest first."""
        for number, found in enumerate(self._found):
            rows = pc.add(found.column("row").cast(pa.int64()), number * QUERIES)
            yield pa.table(
                {"id": self.ids.take(rows), "similar_id": found.column("id"), "similarity": found.column("similarity")}
            )

    def _search(self, number: int, ids: pa.Array, units: Matrix, own: bool, column: int) -> None:
        first = number * QUERIES
        queries, least = self.units[first : first + QUERIES], self._least[first : first + QUERIES]
        scores = queries @ units.T
        if own:
            places = np.arange(first, first + len(queries)) - column
            inside = (places >= 0) & (places < len(units))
            scores[np.flatnonzero(inside), places[inside]] = -np.inf
        if (least == _NONE).any():
            sample = scores[:, : max(SAMPLE, 4 * self.top)]
            if sample.shape[1] >= self.top:
                np.maximum(least, np.partition(sample, -self.top, axis=1)[:, -self.top] - self.slack, out=least)
        near = np.flatnonzero(scores >= (least - self.slack)[:, None])  # much faster than np.nonzero in two dimensions
        rows, columns = np.divmod(near, scores.shape[1])
        if not len(rows):
            return
        similarity = np.concatenate(
            [
                cosines(queries[rows[start : start + PAIRS]], units[columns[start : start + PAIRS]])
                for start in range(0, len(rows), PAIRS)
            ]
        )
        new = _table(rows.astype(np.int32), ids.take(pa.array(columns)), similarity)
        found = best(pa.concat_tables([self._found[number], new]), self.top)
        self._found[number] = found
        rows = found.column("row").to_numpy()
        ends = np.searchsorted(rows, np.arange(len(queries)), "right")
        full = ends - np.searchsorted(rows, np.arange(len(queries))) == self.top
        similarity = found.column("similarity").to_numpy()
        least[full] = np.maximum(least[full], similarity[ends[full] - 1])


def _table(rows: npt.NDArray[np.int32], ids: pa.Array, similarity: npt.NDArray[np.float32]) -> pa.Table:
    return pa.table({"row": pa.array(rows), "id": ids, "similarity": pa.array(similarity)})
