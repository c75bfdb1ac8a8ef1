"""Skip-gram with negative sampling on one block: the pairs of a part of the centres with a part of the contexts.

The method is word2vec's (Mikolov et al., *Distributed representations of words and phrases*, NIPS 2013), as its C code
and gensim train it: a centre at position p of a walk pairs with the contexts at most b positions away, b drawn from
1 .. window, and each pair is one step of gradient descent on

    -log sigmoid(input . output)  -  sum over the negatives of log sigmoid(-input . output of the negative)

A block has the centres of one part and the contexts and negatives of one part (Zhu et al., *GraphVite*, WWW 2019). The
pairs of a walk are trained context by context. What is drawn is a hash of numbers: the reach b of (seed, epoch, walk,
position), so that the pairs are the same whatever the parts, the episodes or the device; the negatives of (seed, round,
input part, walk, both positions). Nothing counts on from one walk to the next, and a call on the same arrays gives the
same bits, as long as the processors have vector registers of one width: the sums of a dot product are taken in the
order that suits these.

Negatives may be shared: drawn at a context's first pair, and drawn anew at the first context after `keep` pairs or
more. The pairs of a context then go four at a time: their slopes hang on the rows before the four, and by these they
move the rows one after the other. That is several times as fast as fresh negatives for each pair. Link prediction sees
the difference; classification hardly does.

Letters: d dimensions, n_i and n_s rows of the input and the output part, W walks of the episode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from node2vec import alias
from node2vec.block_schedule import id_of, part_size
from node2vec.counter_rng import GOLDEN, key, mix
from node2vec.jit import Word, jit
from node2vec.pair_kernel import descend
from node2vec.window_pairs import meet
from sparkdl.errors import ConfigError

if TYPE_CHECKING:
    from node2vec.token_streams import Stream

Rows = npt.NDArray[np.float32]

_PURPOSE = np.uint64(0x5354415254)  # "START": other bits than windows and negatives draw from the same seed
_GOLDEN = np.uint64(GOLDEN)


class Sgns(NamedTuple):
    """The settings of a run that a block needs. The kernels take it as it is."""

    window: int  # the farthest that a context is from its centre, in positions
    negative: int  # negatives of a pair
    keep: int  # pairs that share negatives, at least; 1: fresh ones for each pair
    seed: np.uint64


class Noise(NamedTuple):
    """What the negatives of an output part are drawn from: one alias table over its rows (see ``alias``)."""

    cuts: npt.NDArray[np.uint32]  # [n_s]
    others: npt.NDArray[np.int32]  # [n_s]


def noise_of(counts: npt.ArrayLike, exponent: float = 0.75) -> Noise:
    """The table that draws row k with a probability in proportion to ``counts[k] ** exponent``.

    counts: int64 [n_s], tokens of each row. Rows without tokens are never drawn, also not with exponent 0, which draws
    all others alike. Without any token there are no pairs, and nobody will ask the table.
    Raises ConfigError: the exponent is infinite or not a number.
    """
    tokens = np.asarray(counts, np.float64)
    if not np.isfinite(exponent):
        raise ConfigError(
            f"ns_exponent={exponent} is no exponent of counts: word2vec takes 0.75, and 0 draws all alike."
        )
    weights = np.zeros(len(tokens), np.float64)
    seen = tokens > 0
    if seen.any():
        logs = exponent * np.log(tokens[seen])
        weights[seen] = np.exp(logs - logs.max())  # the largest is 1: no power overflows
    else:
        weights[:] = 1.0
    tables = alias.build(np.array([0, len(weights)]), weights.astype(np.float32))
    return Noise(tables.cuts, tables.others)


def initial_inputs(num_nodes: int, dimensions: int, seed: int, part: int, num_parts: int) -> Rows:
    """The input rows of a part before training: float32 [n_i, d], uniform in -1/d .. 1/d.

    That is gensim's range, twice that of word2vec's C code: with it BlogCatalog's macro-F1 is .005 higher.

    A row depends on (seed, its node's id) alone: a node has the same in any number of parts. Output rows start at 0.
    """
    ids = np.asarray(id_of(part, np.arange(part_size(num_nodes, part, num_parts), dtype=np.int64), num_parts))
    rows = np.empty((len(ids), dimensions), np.float32)
    _fill(rows, ids.astype(np.int64), np.uint64(seed))
    return rows


def train_block(
    inputs: Rows,
    outputs: Rows,
    noise: Noise,
    centres: Stream,
    contexts: Stream,
    walks: npt.NDArray[np.int64],
    sgns: Sgns,
    epoch: int,
    round_number: int,
    input_part: int,
    same_part: bool,
    first_rate: float,
    last_rate: float,
) -> int:
    """Train all pairs of a block, in place and in the order of ``pairs``; returns their number.

    inputs: float32 [n_i, d]; outputs: float32 [n_s, d]: rows of the parts, in C order, not overlapping. noise: of the
    output part.
    centres, contexts: the tokens of the input part and of the output part in the walks of an episode, walk by walk;
    their arrays may be read-only. walks: int64 [W], numbers of these walks.
    round_number, input_part: which block of the run this is, for the negatives alone.
    same_part: the two streams are of one part; a token is not its own context.
    first_rate, last_rate: step length at the first walk, and behind the last: it falls linearly over the walks.

    A negative that is the pair's own context is left out of that pair.
    """
    assert len(centres.counts) == len(contexts.counts) == len(walks)
    return int(
        descend(
            inputs,
            outputs,
            noise.cuts,
            noise.others,
            *_arrays(centres),
            *_arrays(contexts),
            _fixed(walks),
            Sgns(int(sgns.window), int(sgns.negative), int(sgns.keep), np.uint64(sgns.seed)),
            epoch,
            round_number,
            input_part,
            same_part,
            float(first_rate),
            float(last_rate),
        )
    )


def pairs(
    centres: Stream, contexts: Stream, walks: npt.NDArray[np.int64], sgns: Sgns, epoch: int, same_part: bool
) -> npt.NDArray[np.int32]:
    """The pairs that ``train_block`` trains, in its order: int32 [n, 2], rows of centre and context in their parts."""
    assert len(centres.counts) == len(contexts.counts) == len(walks)
    arrays = (*_arrays(centres), *_arrays(contexts), _fixed(walks))
    rest = (int(sgns.window), np.uint64(sgns.seed), epoch, same_part)
    found = np.empty((meet(*arrays, *rest, np.empty((0, 2), np.int32)), 2), np.int32)
    meet(*arrays, *rest, found)
    return found


def _arrays(stream: Stream) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.int32]]:
    return _fixed(stream.counts), _fixed(stream.positions), _fixed(stream.rows)


def _fixed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`array` read-only, as a mapped or a received one is: numba compiles a kernel for either kind."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


@jit
def _fill(rows: Any, ids: Any, seed: Word) -> None:
    """`initial_inputs` of the nodes `ids`."""
    dimensions = rows.shape[1]
    for row in range(len(ids)):
        row_key = key(np.uint64(seed) ^ _PURPOSE, np.int64(ids[row]), 0)
        for column in range(dimensions):
            bits = mix(row_key + np.uint64(column + 1) * _GOLDEN) >> np.uint64(40)
            rows[row, column] = np.float32((np.float64(bits) / 8388608.0 - 1.0) / dimensions)
