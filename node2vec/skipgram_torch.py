"""The blocks of ``skipgram`` as torch tensor code, for GPUs and for CPUs without numba's kernels.

The pairs are those of ``skipgram.pairs``, in its order: hashes are the same 64 bits in int64. The steps are not: some
thousands of consecutive pairs, a *batch*, take theirs at once, from the rows as they were before the batch. Within a
batch each group of consecutive pairs shares its negatives, which are those that ``skipgram`` draws at the group's first
pair. A row that many pairs of a batch ask to move would go too far, since none of them sees what the others did: its
steps are scaled down to what `CAP` pairs ask for. Walks that go to and fro between two nodes diverge without that.

A call on the same tensors gives the same bits: sums over rows are taken in a fixed order on the CPU, and on a GPU by
sorting. CPUs and GPUs differ in the last bits, and so do GPUs of different makes.

Letters: as in ``skipgram``; g groups of G pairs in a batch, K negatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from node2vec.counter_rng import GOLDEN, high_torch, key_torch, low_torch, mix_torch
from node2vec.pair_kernel import NEGATIVES
from node2vec.skipgram import Noise, Sgns
from node2vec.window_pairs import WINDOWS

if TYPE_CHECKING:
    from node2vec.token_streams import Stream

Tensor = torch.Tensor

GROUP = 32  # pairs that share negatives, at least, where sgns.keep is above 1
CAP = 8  # pairs' worth of a row's step in a batch; as a negative, which it is K times as often, K times that
FEWEST, MOST = 1024, 1 << 18  # pairs of a batch
MEETINGS = 1 << 22  # tokens in each other's window that are looked at in one go, unless one walk has more: 400 MB
_WALK_BITS = 18  # of the key that tokens are searched by: positions of a walk, and a window before and behind it
_STRIDE = GOLDEN - (1 << 64)  # the same bits in int64


class _Pairs(NamedTuple):
    """Pairs of some walks, in order: int64 [n] each."""

    places: Tensor  # of the walk among the walks
    positions: Tensor  # of the centre
    others: Tensor  # of the context
    centres: Tensor  # rows
    contexts: Tensor


def train_block(
    inputs: Tensor,
    outputs: Tensor,
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
    batch: int | None = None,
) -> int:
    """Train all pairs of a block, in place, on the device of `inputs`; returns their number.

    inputs: float32 [n_i, d]; outputs: float32 [n_s, d], on one device. The rest is as for ``skipgram.train_block``, in
    numpy arrays. batch: pairs of a batch; by default about as many as the smaller part has rows, within 1,024 and
    2^18, for a row's step should not come from many stale ones.
    """
    device = inputs.device
    if batch is None:
        batch = min(max(FEWEST, min(len(inputs), len(outputs))), MOST)
    group = 1 if sgns.keep == 1 else max(GROUP, int(sgns.keep))
    batch = max(1, batch // group) * group
    cuts = torch.tensor(noise.cuts.astype(np.int64), device=device)
    aliases = torch.tensor(noise.others.astype(np.int64), device=device)
    numbers = torch.tensor(np.asarray(walks, np.int64), device=device)
    rates = first_rate + (last_rate - first_rate) * (torch.arange(len(walks), device=device).double() / len(walks))
    block_key = key_torch(
        int(sgns.seed) ^ int(NEGATIVES), *(torch.tensor(n, device=device) for n in (round_number, input_part))
    )
    noise_keys = mix_torch(block_key + (numbers + 1) * _STRIDE)
    count = 0
    for found in _meetings(centres, contexts, numbers, sgns, epoch, same_part):
        first = torch.arange(0, len(found.places), group, device=device)
        pair_keys = mix_torch(
            noise_keys[found.places[first]] + ((found.positions[first] << 16) + found.others[first] + 1) * _STRIDE
        )
        drawn = _drawn(pair_keys, int(sgns.negative), cuts, aliases)
        pair_rates = rates[found.places].float()
        for start in range(0, len(found.places), batch):
            part = slice(start, start + batch)
            groups = slice(start // group, (start + batch) // group)
            _step(inputs, outputs, found.centres[part], found.contexts[part], drawn[groups], pair_rates[part], group)
        count += len(found.places)
    return count


def pairs(
    centres: Stream,
    contexts: Stream,
    walks: npt.NDArray[np.int64],
    sgns: Sgns,
    epoch: int,
    same_part: bool,
    device: str | torch.device = "cpu",
) -> Tensor:
    """``skipgram.pairs`` on a device: int64 [n, 2], rows of centre and context in their parts."""
    numbers = torch.tensor(np.asarray(walks, np.int64), device=device)
    found = [torch.stack(made[3:], 1) for made in _meetings(centres, contexts, numbers, sgns, epoch, same_part)]
    return torch.cat([torch.empty((0, 2), dtype=torch.int64, device=device), *found])


def negative_rows(pair_keys: Tensor, negative: int, noise: Noise) -> Tensor:
    """``skipgram.negative_row`` 0 .. negative-1 of each of the keys (int64 [n]): int64 [n, negative]."""
    cuts, others = (torch.tensor(table.astype(np.int64), device=pair_keys.device) for table in noise)
    return _drawn(pair_keys, negative, cuts, others)


def _drawn(pair_keys: Tensor, negative: int, cuts: Tensor, others: Tensor) -> Tensor:
    numbers = torch.arange(1, negative + 1, device=pair_keys.device)
    bits = mix_torch(pair_keys[:, None] + numbers * _STRIDE)
    slots = (high_torch(bits) * len(cuts)) >> 32
    return torch.where(low_torch(bits) < cuts[slots], slots, others[slots])


def _meetings(
    centres: Stream, contexts: Stream, numbers: Tensor, sgns: Sgns, epoch: int, same_part: bool
) -> Iterator[_Pairs]:
    """The pairs, in runs of whole walks. Where a run ends depends on the streams alone."""
    centre_counts, context_counts = np.asarray(centres.counts, np.int64), np.asarray(contexts.counts, np.int64)
    assert len(centre_counts) == len(context_counts) == len(numbers)
    most = np.cumsum(context_counts * np.minimum(centre_counts, 2 * int(sgns.window) + 1))
    ends = [0, *np.cumsum(centre_counts).tolist()], [0, *np.cumsum(context_counts).tolist()]
    start = 0
    while start < len(most):
        done = int(most[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(most, done + MEETINGS, side="right")))
        found = _meet(
            [
                Tensors.of(stream, slice(start, stop), slice(end[start], end[stop]), numbers.device)
                for stream, end in zip((centres, contexts), ends, strict=True)
            ],
            numbers[start:stop],
            sgns,
            epoch,
            same_part,
        )
        if len(found.places):
            yield found._replace(places=found.places + start)
        start = stop


class Tensors(NamedTuple):
    """The tokens of some walks on a device: int64 [T] each."""

    places: Tensor  # of the walk among these walks
    positions: Tensor
    rows: Tensor

    @classmethod
    def of(cls, stream: Stream, walks: slice, tokens: slice, device: torch.device) -> Tensors:
        """Copy the tokens of consecutive walks of a stream."""
        counts = torch.tensor(stream.counts[walks].astype(np.int64), device=device)
        places = torch.repeat_interleave(torch.arange(len(counts), device=device), counts)
        positions = torch.tensor(stream.positions[tokens].astype(np.int64), device=device)
        return cls(places, positions, torch.tensor(stream.rows[tokens].astype(np.int64), device=device))


def _meet(streams: list[Tensors], numbers: Tensor, sgns: Sgns, epoch: int, same_part: bool) -> _Pairs:
    """All pairs of some walks: each context finds the centres near it between two searches in the sorted tokens.

    Of those a centre stays whose own reach goes as far.
    """
    centres, contexts = streams
    window = int(sgns.window)
    farthest = min(window, (1 << 16) - 1)
    keys = key_torch(int(sgns.seed) ^ int(WINDOWS), torch.tensor(epoch, device=numbers.device), numbers)
    bits = mix_torch(keys[centres.places] + (centres.positions + 1) * _STRIDE)
    reach = 1 + ((high_torch(bits) * window) >> 32)
    tokens = (centres.places << _WALK_BITS) + centres.positions
    middle = (contexts.places << _WALK_BITS) + contexts.positions
    first = torch.searchsorted(tokens, middle - farthest)
    counts = torch.searchsorted(tokens, middle + farthest, right=True) - first
    other = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    one = torch.arange(len(other), device=other.device) + (first - (counts.cumsum(0) - counts))[other]
    distance = (centres.positions[one] - contexts.positions[other]).abs()
    meeting = distance <= reach[one]
    if same_part:
        meeting &= distance > 0
    one, other = one[meeting], other[meeting]
    return _Pairs(
        contexts.places[other],
        centres.positions[one],
        contexts.positions[other],
        centres.rows[one],
        contexts.rows[other],
    )


def _step(
    inputs: Tensor, outputs: Tensor, centres: Tensor, contexts: Tensor, drawn: Tensor, rates: Tensor, group: int
) -> None:
    """Move the rows by one batch. centres, contexts: int64 [n]; rates: float32 [n]; drawn: int64 [g, K]."""
    num_pairs, dimensions = len(centres), inputs.shape[1]
    missing = len(drawn) * group - num_pairs  # the last group is filled up with pairs of rate 0
    if missing:
        centres, contexts, rates = (
            torch.cat([array, array.new_zeros(missing)]) for array in (centres, contexts, rates)
        )
    shape = (len(drawn), group, dimensions)
    hidden, positive = inputs[centres].view(shape), outputs[contexts].view(shape)
    negative = outputs[drawn]  # [g, K, d]
    rate = rates.view(len(drawn), group, 1)
    pull = (1 - torch.sigmoid((hidden * positive).sum(2, keepdim=True))) * rate  # [g, G, 1]
    differs = drawn[:, None, :] != contexts.view(len(drawn), group, 1)  # [g, G, K]
    push = -torch.sigmoid(torch.bmm(hidden, negative.transpose(1, 2))) * (rate * differs)
    counted = (rates > 0).float()
    most = CAP * max(1, drawn.shape[1])
    changes = [
        (inputs, centres, pull * positive + torch.bmm(push, negative), counted, CAP),
        (outputs, contexts, pull * hidden, counted, CAP),
        (outputs, drawn.reshape(-1), torch.bmm(push.transpose(1, 2), hidden), (differs * (rate > 0)).sum(1), most),
    ]
    for table, rows, change, asked, cap in changes:
        asks = _added(table.new_zeros(len(table), 1), rows, asked.reshape(-1, 1).float())
        _added(table, rows, change.reshape(-1, dimensions) * (cap / asks.clamp(min=cap))[rows])


def _added(table: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    """Add `values` [m, d] to the `rows` of a table, a row several times; the order of the sums is fixed."""
    if table.is_cuda:
        return table.index_put_((rows,), values, accumulate=True)  # sorts; index_add_ adds in any order there
    return table.index_add_(0, rows, values)
