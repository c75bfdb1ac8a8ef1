"""Skip-gram on a block, written down plainly: in float64, one pair after the other, every row where it is."""

from __future__ import annotations

from collections import Counter

import numpy as np

from node2vec import pair_kernel, token_streams
from node2vec.counter_rng import GOLDEN, key_numpy, mix_numpy
from node2vec.skipgram import Noise, Sgns
from node2vec.token_streams import Stream

Walks = list[list[int]]


def streams_of(walks: Walks, num_parts: int, num_nodes: int = 12) -> list[Stream]:
    nodes = np.array([node for walk in walks for node in walk], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(walk) for walk in walks])]).astype(np.int64)
    return token_streams.streams(nodes, offsets, 0, num_parts, 1, num_nodes=num_nodes)[0]


def random_walks(num_walks: int, length: int, num_nodes: int, seed: int = 0) -> Walks:
    return (np.random.default_rng(seed).random((num_walks, length)) ** 2 * num_nodes).astype(int).tolist()


def reach(sgns: Sgns, epoch: int, walk: int, position: int) -> int:
    walk_key = key_numpy(int(sgns.seed ^ pair_kernel.WINDOWS), epoch, walk)
    bits = int(mix_numpy(walk_key + np.array([position + 1], np.uint64) * np.uint64(GOLDEN))[0])
    return 1 + ((bits >> 32) * sgns.window >> 32)


def negatives(
    sgns: Sgns, noise: Noise, round_number: int, part: int, walk: int, position: int, context: int
) -> list[int]:
    golden = np.uint64(GOLDEN)
    state = key_numpy(int(sgns.seed ^ pair_kernel.NEGATIVES), round_number, part)
    for number in (walk, (position << 16) + context):
        state = mix_numpy(state + np.array([number + 1], np.uint64) * golden)
    bits = mix_numpy(state + np.arange(1, sgns.negative + 1, dtype=np.uint64) * golden)
    slots = [int(bit) * len(noise.cuts) >> 32 for bit in bits >> np.uint64(32)]
    coins = (bits & np.uint64(0xFFFFFFFF)).tolist()
    return [
        slot if coin < noise.cuts[slot] else int(noise.others[slot]) for slot, coin in zip(slots, coins, strict=True)
    ]


def plain(
    inputs: np.ndarray,
    outputs: np.ndarray,
    noise: Noise,
    centres: Stream,
    contexts: Stream,
    walks: np.ndarray,
    sgns: Sgns,
    epoch: int,
    round_number: int,
    part: int,
    first_rate: float,
    last_rate: float,
) -> int:
    """``train_block`` in float64, pair by pair, with the rows of the negatives where they are.

    With shared negatives four, two or one pairs of a context are a minibatch: they take their slopes first, and then
    move the rows one after the other, all with the centres as they were.
    """
    count = 0
    used, shared = sgns.keep, Counter[int]()
    centre_stops, context_stops = np.cumsum(centres.counts, dtype=int), np.cumsum(contexts.counts, dtype=int)

    def slope(hidden: np.ndarray, row: int, target: float, rate: float) -> float:
        return float(rate * (target - 1 / (1 + np.exp(-hidden @ outputs[row]))))

    def move(hidden: np.ndarray, row: int, by: float) -> np.ndarray:
        change = by * outputs[row]
        outputs[row] += by * hidden
        return change

    for place, walk in enumerate(walks.tolist()):
        rate = first_rate + (last_rate - first_rate) * place / len(walks)
        for other in range(context_stops[place] - int(contexts.counts[place]), context_stops[place]):
            where, context = int(contexts.positions[other]), int(contexts.rows[other])
            ones = range(centre_stops[place] - int(centres.counts[place]), centre_stops[place])
            met = [(int(centres.positions[one]), int(centres.rows[one])) for one in ones]
            met = [one for one in met if 0 < abs(where - one[0]) <= reach(sgns, epoch, walk, one[0])]
            count += len(met)
            if sgns.keep == 1:
                for position, centre in met:
                    change = np.zeros(inputs.shape[1])
                    drawn = negatives(sgns, noise, round_number, part, walk, position, where)
                    for row in [context, *Counter(row for row in drawn if row != context).elements()]:
                        change += move(inputs[centre], row, slope(inputs[centre], row, float(row == context), rate))
                    inputs[centre] += change
                continue
            if met and used >= sgns.keep:
                shared = Counter(negatives(sgns, noise, round_number, part, walk, met[0][0], where))
                used = 0
            used += len(met)
            weights = [(context, 1), *((row, weight) for row, weight in shared.items() if row != context)]
            while met:
                size = next(size for size in (4, 2, 1) if size <= len(met))
                batch, met = [centre for _, centre in met[:size]], met[size:]
                hidden = inputs[batch].copy()
                slopes = [
                    [slope(before, row, float(row == context), rate * weight) for row, weight in weights]
                    for before in hidden
                ]
                for centre, before, of_rows in zip(batch, hidden, slopes, strict=True):
                    for (row, _), by in zip(weights, of_rows, strict=True):
                        inputs[centre] += move(before, row, by)
    return count
