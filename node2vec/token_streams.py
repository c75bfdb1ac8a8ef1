"""The corpus of skip-gram: the tokens of walks, cut by episode and part, five bytes each.

A *token* is an occurrence of a node in a walk. A `Stream` holds the tokens of one part in the walks of one episode: for
each walk how many there are, and for each token its position in the walk and its row in the part's tables. Streams of
one episode align walk by walk, so the pairs of any two parts are found by merging their streams by position, and pairs
are never stored: a walk of 80 nodes has 80 tokens, but some 840 pairs.

Tokens are dropped before they are cut into streams, as word2vec does it: those of nodes that occur less than
``min_count`` times, and at random those of frequent nodes (``sample``). The rest of a walk moves together, so positions
are those in the shortened walk.

What a walk adds to the streams depends on the walk and its number alone. So walks may be read file by file: `joined`
pieces of consecutive walks are the streams of all of them.

Letters: n walks of a file, W_e walks of an episode, T tokens, V nodes, P parts, E episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from node2vec.block_schedule import episode_of_walk
from node2vec.counter_rng import draw, high, key, mix
from node2vec.jit import Int, Word, jit
from sparkdl.errors import ConfigError

ALWAYS = 0xFFFFFFFF  # a threshold: the token stays, whatever the draw
LONGEST = 65_535  # tokens of a walk: positions are 16 bits

_PURPOSE = np.uint64(0x53414D504C45)  # "SAMPLE": other bits than windows and negatives draw from the same seed
_MARK = 0x4E32_5653_0000_0001  # "N2VS", version 1: the first number of a stream's bytes
_BORDER = 8  # bytes: arrays begin at multiples of it

Small = npt.NDArray[Any]  # uint8 or uint16


class Stream(NamedTuple):
    """The tokens of one part in the walks of one episode. What this module returns is read-only.

    counts     uint8 or uint16 [W_e]   tokens of each walk, walks in ascending number; 0 is usual
    positions  uint8 or uint16 [T]     of each token in its walk, ascending within a walk
    rows       int32 [T]               of each token's node in the tables of its part

    uint8 if no walk has more than 255 nodes, else uint16.
    """

    counts: Small
    positions: Small
    rows: npt.NDArray[np.int32]


def streams(
    nodes: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    first_walk: int,
    num_parts: int,
    num_episodes: int,
    keep: npt.NDArray[np.uint32] | None = None,
    seed: int = 0,
    *,
    num_nodes: int,
) -> list[list[Stream]]:
    """The streams of some consecutive walks: ``[episode][part]``, E lists of P, many perhaps empty.

    `nodes` int32, `offsets` int64 [n+1]: walk number ``first_walk + i`` is ``nodes[offsets[i]:offsets[i+1]]``. `keep`:
    what `keep_thresholds` says of each id, uint32 [V], or None to keep all tokens; `seed` is for its draws alone.
    Raises ConfigError: an id is not in 0 .. num_nodes-1, or a walk has more than 65,535 nodes.
    """
    nodes, offsets = _read_only(nodes, np.int32), _read_only(offsets, np.int64)
    nodes = nodes[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    _check_ids(nodes, num_nodes)
    longest = int(np.diff(offsets).max(initial=0))
    if longest > LONGEST:
        raise ConfigError(
            f"a walk has {longest} nodes, and a position in a walk is a number of 16 bits: at most {LONGEST} nodes "
            "fit. Cut it into shorter walks."
        )
    if keep is not None:
        assert len(keep) == num_nodes
        shorter, borders = np.empty_like(nodes), np.empty_like(offsets)
        _drop(nodes, offsets, first_walk, _read_only(keep, np.uint32), _sampling_seed(seed), shorter, borders)
        nodes, offsets = _read_only(shorter[: borders[-1]], np.int32), borders

    kind = np.uint8 if longest <= 255 else np.uint16
    num_walks = len(offsets) - 1
    divisor = _divisor(num_parts)
    episodes = np.empty(num_walks, np.int64)
    walks = np.zeros(num_episodes, np.int64)
    _deal(first_walk, episodes, walks)
    # counts lie episode by episode, within an episode part by part, and tokens in the same order
    walk_borders = _borders(np.repeat(walks, num_parts))
    counts = np.empty(num_walks * num_parts, kind)
    tokens = np.zeros(num_episodes * num_parts, np.int64)
    _count(nodes, offsets, episodes, divisor, walk_borders[:-1].copy(), counts, tokens)
    token_borders = _borders(tokens)
    positions, rows = np.empty(len(nodes), kind), np.empty(len(nodes), np.int32)
    _fill(nodes, offsets, episodes, divisor, token_borders[:-1].copy(), positions, rows)

    def piece(number: int) -> Stream:
        of_walks, of_tokens = (slice(*ends[number : number + 2]) for ends in (walk_borders, token_borders))
        return _frozen(counts[of_walks], positions[of_tokens], rows[of_tokens])

    return [[piece(episode * num_parts + part) for part in range(num_parts)] for episode in range(num_episodes)]


def joined(pieces: Sequence[Stream]) -> Stream:
    """The stream of the walks of all pieces, which hold one part in ascending ranges of walks, in order.

    uint16 if one of them is, for that file has a long walk. No pieces are a stream of no walks.
    """
    nothing = Stream(np.empty(0, np.uint8), np.empty(0, np.uint8), np.empty(0, np.int32))
    return _frozen(*(np.concatenate(arrays) for arrays in zip(nothing, *pieces, strict=True)))


def to_bytes(stream: Stream) -> list[npt.NDArray[np.uint8]]:
    """A stream as buffers, to be written or sent one behind the other; their lengths are multiples of 8 bytes.

    A head of four int64 (mark, W_e, T, bytes of a position), then counts, positions and rows, each filled up to the
    next multiple of 8 bytes. Little-endian.
    """
    head = np.array([_MARK, len(stream.counts), len(stream.rows), stream.positions.dtype.itemsize], "<i8")
    buffers = [head.view(np.uint8)]
    for array in stream:
        buffers.append(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).view(np.uint8))
        buffers.append(np.zeros(-array.nbytes % _BORDER, np.uint8))
    return [buffer for buffer in buffers if len(buffer)]


def from_bytes(buffer: Any, source: str = "a buffer") -> Stream:
    """The stream in the bytes that `to_bytes` made: read-only views of `buffer`, which may be a mapped file.

    Raises ConfigError, which names the `source`: the bytes are something else, or some are missing.
    """
    octets = np.frombuffer(buffer, np.uint8)
    head = octets[:32].view("<i8").tolist() if len(octets) >= 32 else [0] * 4
    _, num_walks, num_tokens, itemsize = head
    if head[0] != _MARK or itemsize not in (1, 2):
        raise ConfigError(f"{source} holds no stream of tokens of this version. Prepare the corpus again.")
    wanted = [(num_walks, f"<u{itemsize}"), (num_tokens, f"<u{itemsize}"), (num_tokens, "<i4")]
    place, arrays = 32, []
    for length, kind in wanted:
        stop = place + length * np.dtype(kind).itemsize
        arrays.append(octets[place:stop])
        place = -(-stop // _BORDER) * _BORDER
    if place != len(octets):
        raise ConfigError(f"{source} should have {place} bytes and has {len(octets)}. Prepare the corpus again.")
    return _frozen(*(array.view(kind) for array, (_, kind) in zip(arrays, wanted, strict=True)))


def count_tokens(ids: npt.NDArray[np.int32], num_ids: int) -> npt.NDArray[np.int64]:
    """How often each of the ids (or rows of a part) 0 .. num_ids-1 occurs: int64 [num_ids].

    Raises ConfigError: there is another id.
    """
    ids = _read_only(ids, np.int32)
    _check_ids(ids, num_ids)
    counts = np.zeros(num_ids, np.int64)
    _tally(ids, counts)
    return counts


def keep_thresholds(
    counts: npt.NDArray[np.int64], min_count: int, sample: float, total: int | None = None
) -> npt.NDArray[np.uint32] | None:
    """How probably a token of each id stays, in units of 2^-32, rounded; `ALWAYS` stands for 1. None: all tokens stay.

    `counts`: int64 [V], of all or some ids. A node that occurs less than `min_count` times is dropped. One of frequency
    f = count / `total` stays with probability (sqrt(f / sample) + 1) * sample / f, if that is below 1. `total`: tokens
    of all nodes that occur `min_count` times or more, as word2vec and gensim count; None: those in `counts`. `sample`
    0: nothing is dropped at random. This is what word2vec's code does; the formula in its paper (Mikolov et al.,
    *Distributed representations of words and phrases and their compositionality*, NIPS 2013, section 2.3) lacks the
    second term.
    Raises ConfigError: sample is not in 0 .. 1, or min_count is negative.
    """
    if not 0.0 <= sample < 1.0:
        raise ConfigError(f"sample={sample}: give a frequency of 0 (all tokens stay) or more, and below 1, as 1e-3.")
    if min_count < 0:
        raise ConfigError(f"min_count={min_count}: give a number of occurrences, 0 or more.")
    if sample == 0.0 and min_count <= 1:
        return None
    enough = counts >= min_count
    stays = np.ones(len(counts), np.float64)
    if sample > 0.0:
        total = int(counts[enough].sum()) if total is None else total
        ratio = np.maximum(counts, 1) / (sample * max(total, 1))  # f / sample
        stays = np.minimum((np.sqrt(ratio) + 1.0) / ratio, 1.0)
    thresholds = np.minimum(np.floor(stays * 2.0**32 + 0.5), float(ALWAYS)).astype(np.uint32)
    thresholds[~enough] = 0
    return thresholds


def _read_only(array: npt.NDArray[Any], kind: Any) -> Any:
    """As a mapped or a received array is: numba compiles a kernel for either kind."""
    view = np.ascontiguousarray(array, kind).view()
    view.flags.writeable = False
    return view


def _frozen(*arrays: npt.NDArray[Any]) -> Stream:
    return Stream(*(_read_only(array, array.dtype) for array in arrays))


def _sampling_seed(seed: int) -> np.uint64:
    return np.uint64(mix(np.uint64(seed & 0xFFFFFFFFFFFFFFFF) ^ _PURPOSE))


class _Divisor(NamedTuple):
    """P, and numbers for which ``n * reciprocal >> shift`` is n // P for n below 2^31: much faster than to divide.

    Granlund and Montgomery, *Division by invariant integers using multiplication* (PLDI 1994), theorem 4.2, for 31
    bits. The reciprocal is 2^32 at most, so the product stays below 2^63.
    """

    parts: np.uint64
    reciprocal: np.uint64
    shift: np.uint64


def _divisor(num_parts: int) -> _Divisor:
    shift = 31 + (num_parts - 1).bit_length()
    return _Divisor(np.uint64(num_parts), np.uint64(-(-(1 << shift) // num_parts)), np.uint64(shift))


def _borders(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where consecutive pieces begin, and where the last one ends: int64 [pieces + 1]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def _check_ids(ids: npt.NDArray[np.int32], num_ids: int) -> None:
    words = ids.view(np.uint32)  # a negative id is a large one
    if len(words) and int(words.max()) >= num_ids:
        wrong = int(ids[words >= num_ids][0])
        raise ConfigError(
            f"the walks hold node number {wrong}, and the numbers go from 0 to {num_ids - 1}: these are walks on "
            "another graph, or ids that were not numbered. Number the walks again."
        )


@jit
def _deal(first_walk: Int, episodes: npt.NDArray[np.int64], walks: npt.NDArray[np.int64]) -> None:
    """The episode of each walk, and how many walks each episode has."""
    for walk in range(len(episodes)):
        episode = episode_of_walk(first_walk + walk, len(walks))
        episodes[walk] = episode
        walks[episode] += 1


@jit
def _drop(
    nodes: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    first_walk: Int,
    keep: npt.NDArray[np.uint32],
    seed: Word,
    kept: npt.NDArray[np.int32],
    borders: npt.NDArray[np.int64],
) -> None:
    """What stays of the walks, to `kept` and `borders`. A token's draw: (seed, walk, position before dropping)."""
    count = 0
    borders[0] = 0
    for walk in range(len(offsets) - 1):
        walk_key = key(seed, first_walk + walk, 0)
        for place in range(offsets[walk], offsets[walk + 1]):
            node = nodes[place]
            bits = high(draw(walk_key, place - offsets[walk], 0, 0))
            kept[count] = node  # the next token takes its place, unless it stays: no branch to guess
            count += (bits < keep[node]) | (keep[node] == ALWAYS)
        borders[walk + 1] = count


@jit
def _count(
    nodes: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    episodes: npt.NDArray[np.int64],
    divisor: _Divisor,
    ends: npt.NDArray[np.int64],
    counts: Small,
    tokens: npt.NDArray[np.int64],
) -> None:
    """First pass: tokens of each walk in each part, and of each piece. `ends`: where each piece's next count goes."""
    num_parts = np.int64(divisor.parts)
    own = np.zeros(num_parts, np.int64)
    for walk in range(len(offsets) - 1):
        for place in range(offsets[walk], offsets[walk + 1]):
            own[_place(nodes[place], divisor)[0]] += 1
        for part in range(num_parts):
            piece = episodes[walk] * num_parts + part
            counts[ends[piece]] = own[part]
            ends[piece] += 1
            tokens[piece] += own[part]
            own[part] = 0


@jit
def _fill(
    nodes: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    episodes: npt.NDArray[np.int64],
    divisor: _Divisor,
    ends: npt.NDArray[np.int64],
    positions: Small,
    rows: npt.NDArray[np.int32],
) -> None:
    """Second pass: positions and rows. `ends`: where each piece's next token goes."""
    for walk in range(len(offsets) - 1):
        first_piece = np.uint64(episodes[walk]) * divisor.parts
        start = offsets[walk]
        for place in range(start, offsets[walk + 1]):
            part, row = _place(nodes[place], divisor)
            end = ends[first_piece + part]
            ends[first_piece + part] = end + 1
            positions[end] = place - start
            rows[end] = row


@jit
def _place(node: Int, divisor: _Divisor) -> tuple[Word, Word]:
    """Part and row of an id: the snake of ``block_schedule``, in words, so that indices are not tested for a sign."""
    row = np.uint64(node) * divisor.reciprocal >> divisor.shift
    part = np.uint64(node) - row * divisor.parts
    if row & np.uint64(1):
        part = divisor.parts - np.uint64(1) - part
    return part, row


@jit
def _tally(ids: npt.NDArray[np.int32], counts: npt.NDArray[np.int64]) -> None:
    for place in range(len(ids)):
        counts[ids[place]] += 1
