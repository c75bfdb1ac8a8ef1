"""Some centres against the output rows that they share, as vector instructions for numba kernels.

A *minibatch* is a few rows of the input table and the output rows of one context and its negatives. Two small matrix
products train it: all scores of the one with the other, and what both change by. Loading and storing rows takes longer
than the arithmetic, so an element of a row is loaded into a register once, serves all its products there, and is stored
once (Ji et al., *Parallelizing word2vec in shared and distributed memory*, 2016).

The scores are those of the rows before the minibatch. The changes are not: in its register an output row is moved by
one centre after the other, and each centre gets the row as those before it left it. That costs nothing and is nearly
the descent pair by pair; with changes from the rows as they were, vectors are 8 % shorter and macro-F1 is .002 lower
(PPI, mean of six runs).

The loops are written in LLVM's own vectors of `LANES` numbers: its vectorizer gives up where several rows are stored,
for they may be one row; here they may be, too. The order of all sums is laid down, so the width of a processor's
registers does not change the bits: where they hold less than a vector, it takes two of them or four.

A row that stands twice in a minibatch, among the centres or among the output rows, gets both changes.

Letters: n rows of a table, d dimensions, m centres of a minibatch, K output rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import node2vec.jit  # noqa: F401  # says what is missing where numba is

from numba import float32, types  # isort: skip
from numba.core import cgutils as untyped, errors  # isort: skip
from numba.extending import intrinsic  # isort: skip

cgutils: Any = untyped
ir: Any = cgutils.ir  # of llvmlite, which comes with numba

MOST = 4  # centres of a minibatch
AT_ONCE = 3  # output rows in one loop: with 4 centres 12 sums, which fit into registers even of half a vector
LANES = 16  # float32 of 512 bits

_FLOAT, _INT, _LANE = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_LINE = 16  # float32 of a cache line


class Products(NamedTuple):
    """The two products of minibatches of one size, to be called from numba kernels.

    ``scores(inputs, centres, first, outputs, rows, found)`` writes the dot product of input row ``centres[first + i]``
    and output row ``rows[k]`` into ``found[k * MOST + i]``, for i below the size.

    ``move(inputs, centres, first, outputs, rows, slopes)`` adds to each of these input rows the output rows times
    ``slopes[k * MOST + i]``, and to each output row the input rows; the input rows as they were before, the output rows
    as the centres before this one left them.

    inputs, outputs: float32 [n, d] in C order; centres, rows: int64, the number of rows a multiple of `AT_ONCE`; found,
    slopes: float32 [K * MOST], of which `scores` may overwrite what is not named above.
    """

    scores: Any
    move: Any


def products(size: int) -> Products:
    """Make the code for minibatches of `size` centres, 1 .. `MOST`."""
    return Products(_intrinsic(size, _write_scores), _intrinsic(size, _write_move))


class _Table:
    """An array of a kernel as its code sees it: where an element lies, or the first of a row."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        array = context.make_array(kind)(context, builder, value)
        self._builder, self._data = builder, array.data
        self.shape = cgutils.unpack_tuple(builder, array.shape, kind.ndim)

    def place(self, index: Any) -> Any:
        """The address of an element of a flat array."""
        return self._builder.gep(self._data, [index])

    def item(self, index: Any) -> Any:
        """An element of a flat array."""
        return self._builder.load(self.place(index))

    def row(self, index: Any) -> Any:
        """The address of a row of a matrix."""
        return self.place(self._builder.mul(index, self.shape[1]))


class _Call(NamedTuple):
    """The arguments of a product."""

    inputs: _Table
    centres: list[Any]  # addresses of the rows
    outputs: _Table
    rows: _Table
    numbers: _Table  # scores or slopes


def _intrinsic(size: int, write: Callable[[Any, _Call], None]) -> Any:
    """What numba calls: it checks that the arrays are what the code takes them for."""

    def product(typing: Any, inputs: Any, centres: Any, first: Any, outputs: Any, rows: Any, numbers: Any) -> Any:
        for kind, wanted, ndim in (
            (inputs, float32, 2), (outputs, float32, 2), (numbers, float32, 1), (centres, types.int64, 1),
            (rows, types.int64, 1),
        ):  # fmt: skip
            if not isinstance(kind, types.Array) or (kind.dtype, kind.ndim, kind.layout) != (wanted, ndim, "C"):
                raise errors.TypingError(f"a minibatch takes {wanted} of {ndim} dimensions in C order here, not {kind}")

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            kinds = signature.args
            tables = [_Table(context, builder, kinds[k], values[k]) for k in (0, 1, 3, 4, 5)]
            start = context.cast(builder, values[2], kinds[2], types.int64)
            places = [tables[1].item(builder.add(start, _INT(i))) for i in range(size)]
            write(builder, _Call(tables[0], [tables[0].row(place) for place in places], *tables[2:]))
            return context.get_dummy_value()

        return types.void(inputs, centres, first, outputs, rows, numbers), generate

    return intrinsic(product)


def _write_scores(builder: Any, call: _Call) -> None:
    """Block by block of output rows, m * AT_ONCE sums of products, each of as many lanes as a vector has."""
    size, columns = len(call.centres), call.inputs.shape[1]
    sums = [cgutils.alloca_once(builder, _vector(LANES)) for _ in range(AT_ONCE * size)]

    def add(load: Callable[[Any, Any], Any], rows: list[Any], column: Any) -> None:
        centres = [load(centre, column) for centre in call.centres]
        for k, row in enumerate(rows):
            output = load(row, column)
            for i, centre in enumerate(centres):
                place = sums[k * size + i]
                builder.store(_plus_product(builder, builder.load(place), centre, output), place)

    def load_one(row: Any, column: Any) -> Any:
        return builder.insert_element(_constant(LANES), _load(builder, row, column, None), _LANE(0))

    with _each(builder, _INT(0), call.rows.shape[0], AT_ONCE) as first:
        rows = [call.outputs.row(call.rows.item(builder.add(first, _INT(k)))) for k in range(AT_ONCE)]
        for place in sums:
            builder.store(_constant(LANES), place)
        whole = _whole(builder, columns)
        with _each(builder, _INT(0), whole, LANES) as column:
            add(lambda row, column: _load(builder, row, column, LANES), rows, column)
        with _each(builder, whole, columns, 1) as column:
            add(load_one, rows, column)
        scores = _across(builder, [builder.load(place) for place in sums])
        order = [k * size + min(i, size - 1) for k in range(AT_ONCE) for i in range(MOST)]
        scores = builder.shuffle_vector(scores, scores, _mask(order))
        _store(builder, scores, call.numbers.place(builder.mul(first, _INT(MOST))), _INT(0))


def _write_move(builder: Any, call: _Call) -> None:
    """Column by column of vectors: the centres' stay in registers while all output rows pass."""
    columns = call.inputs.shape[1]

    def move(lanes: int | None, column: Any) -> None:
        centres = [_load(builder, centre, column, lanes) for centre in call.centres]
        changes = [cgutils.alloca_once(builder, centre.type) for centre in centres]
        for change in changes:
            builder.store(_constant(lanes), change)
        with _each(builder, _INT(0), call.rows.shape[0], AT_ONCE) as first:
            for k in range(AT_ONCE):
                number = builder.add(first, _INT(k))
                row = call.outputs.row(call.rows.item(number))
                moved = _load(builder, row, column, lanes)
                for i, (centre, change) in enumerate(zip(centres, changes, strict=True)):
                    slope = call.numbers.item(builder.add(builder.mul(number, _INT(MOST)), _INT(i)))
                    slope = slope if lanes is None else _spread(builder, slope, lanes)
                    builder.store(_plus_product(builder, builder.load(change), slope, moved), change)
                    moved = _plus_product(builder, moved, slope, centre)
                _store(builder, moved, row, column)
        for centre, change in zip(call.centres, changes, strict=True):  # loaded again, for the last may be this row
            moved = builder.fadd(_load(builder, centre, column, lanes), builder.load(change))
            _store(builder, moved, centre, column)

    whole = _whole(builder, columns)
    with _each(builder, _INT(0), whole, LANES) as column:
        move(LANES, column)
    with _each(builder, whole, columns, 1) as column:
        move(None, column)


def _across(builder: Any, vectors: list[Any]) -> Any:
    """The sum of each vector's lanes, all in one vector: halves are added, those of two vectors side by side."""
    width = LANES
    while width > 1:
        if len(vectors) > 1 and len(vectors) % 2:
            vectors = [*vectors, vectors[-1]]
        made = []
        for k in range(0, len(vectors), 2):
            pair = vectors[k], vectors[min(k + 1, len(vectors) - 1)]
            lanes = pair[0].type.count * min(2, len(vectors))
            lower = [start + lane for start in range(0, lanes, width) for lane in range(width // 2)]
            halves = [builder.shuffle_vector(*pair, _mask([lane + by for lane in lower])) for by in (0, width // 2)]
            made.append(builder.fadd(*halves))
        vectors, width = made, width // 2
    (sums,) = vectors
    return sums


def _vector(lanes: int) -> Any:
    return ir.VectorType(_FLOAT, lanes)


def _constant(lanes: int | None) -> Any:
    """Zeros."""
    return ir.Constant(_FLOAT, 0.0) if lanes is None else ir.Constant(_vector(lanes), [0.0] * lanes)


def _mask(lanes: list[int]) -> Any:
    return ir.Constant(ir.VectorType(_LANE, len(lanes)), lanes)


def _load(builder: Any, row: Any, column: Any, lanes: int | None) -> Any:
    """A vector from a row on, or one number."""
    place = builder.gep(row, [column])
    return builder.load(place if lanes is None else builder.bitcast(place, _vector(lanes).as_pointer()), align=4)


def _store(builder: Any, value: Any, row: Any, column: Any) -> None:
    builder.store(value, builder.bitcast(builder.gep(row, [column]), value.type.as_pointer()), align=4)


def _spread(builder: Any, number: Any, lanes: int) -> Any:
    """The number in every lane."""
    one = builder.insert_element(ir.Constant(_vector(lanes), ir.Undefined), number, _LANE(0))
    return builder.shuffle_vector(one, one, _mask([0] * lanes))


def _plus_product(builder: Any, total: Any, a: Any, b: Any) -> Any:
    """The sum of `total` and a * b, in one instruction where the processor has it."""
    return builder.fadd(builder.fmul(a, b, flags=("contract",)), total, flags=("contract",))


def _whole(builder: Any, columns: Any) -> Any:
    """The columns that whole vectors reach."""
    return builder.and_(columns, _INT(-LANES))


@contextmanager
def _each(builder: Any, start: Any, stop: Any, step: int) -> Iterator[Any]:
    with cgutils.for_range_slice(builder, start, stop, _INT(step), _INT) as (index, _):
        yield index


def _fetch(typing: Any, table: Any, row: Any) -> Any:
    """Ask the processor to bring a row of a table, float32 [n, d] in C order, that will be changed soon."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        rows = _Table(context, builder, signature.args[0], values[0])
        place = rows.row(context.cast(builder, values[1], signature.args[1], types.int64))
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _LANE, _LANE, _LANE])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch")
        with _each(builder, _INT(0), rows.shape[1], _LINE) as column:
            address = builder.bitcast(builder.gep(place, [column]), byte)
            builder.call(function, [address, _LANE(1), _LANE(3), _LANE(1)])  # to write, into the nearest cache, data
        return context.get_dummy_value()

    return types.void(table, row), generate


fetch: Any = intrinsic(_fetch)  # to be called from kernels; it changes nothing but the time
