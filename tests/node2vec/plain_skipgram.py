"""Skip-gram on a block, written down plainly: pair by pair, in float64, every row where it is."""

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
    """``train_block`` in float64, pair by pair, with the rows of the negatives where they are."""
    count = 0
    used, shared = sgns.keep, Counter[int]()
    centre_stops, context_stops = np.cumsum(centres.counts, dtype=int), np.cumsum(contexts.counts, dtype=int)

    def step(centre: int, row: int, target: float, rate: float) -> np.ndarray:
        slope = rate * (target - 1 / (1 + np.exp(-inputs[centre] @ outputs[row])))
        change = slope * outputs[row]
        outputs[row] += slope * inputs[centre]
        return change

    for place, walk in enumerate(walks.tolist()):
        rate = first_rate + (last_rate - first_rate) * place / len(walks)
        for other in range(context_stops[place] - int(contexts.counts[place]), context_stops[place]):
            where, context = int(contexts.positions[other]), int(contexts.rows[other])
            is_due = used >= sgns.keep
            for one in range(centre_stops[place] - int(centres.counts[place]), centre_stops[place]):
                position, centre = int(centres.positions[one]), int(centres.rows[one])
                if where == position or abs(where - position) > reach(sgns, epoch, walk, position):
                    continue
                count += 1
                if is_due or sgns.keep == 1:
                    shared = Counter(negatives(sgns, noise, round_number, part, walk, position, where))
                    used, is_due = 0, False
                used += 1
                change = step(centre, context, 1.0, rate)
                for row, weight in shared.items():
                    for times in [1] * weight if sgns.keep == 1 else [weight]:
                        if row != context:
                            change += step(centre, row, 0.0, rate * times)
                inputs[centre] += change
    return count
