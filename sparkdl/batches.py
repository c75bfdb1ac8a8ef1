"""Which rows belong to which step: exact epochs as pure functions of (seed, epoch, step, replica).

An epoch is an order of all rows, cut into steps of `batch_size` rows; the last step may be smaller.  Two questions make
it up:

- *How many* of a step's rows does each replica hold?  Row k of a replica with n_r rows has the virtual time
  (k + 1/2) / n_r; the epoch's positions are all rows sorted by it.  Every replica advances at an even pace.
- *Which* rows are they?  Each replica has its own shuffle, keyed by (seed, epoch, replica) and computed only at the
  positions asked for: no order of a billion rows is ever held, and a task that runs again picks the same rows.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sparkdl.errors import ConfigError

__all__ = ["num_steps", "rows", "shares"]


def num_steps(num_rows: int, batch_size: int) -> int:
    """Steps of one epoch: `num_rows` / `batch_size`, rounded up."""
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}: a step needs at least one row. Pass a positive integer.")
    return -(-num_rows // batch_size)


def shares(rows_per_replica: Sequence[int], taken: int) -> list[int]:
    """How many of the first `taken` positions of an epoch belong to each replica.

    The shares sum to `taken`, never shrink as `taken` grows, and stay close to proportional.  Replicas without rows are
    welcome.  Equal virtual times go to the lower replica first.  All integers: the same answer on every machine.

    Raises ValueError: `taken` is negative or more than there are rows.
    """
    total = sum(rows_per_replica)
    if not 0 <= taken <= total:
        raise ValueError(f"taken is {taken}: an epoch of {total} rows has the positions 0 to {total}.")
    if total == 0:
        return [0] * len(rows_per_replica)
    # Rows with a virtual time below taken / total: k + 1/2 < n_r * taken / total.  That is a beginning of the order, at
    # most half a row per replica away from the wanted length; the heaps walk the few positions missing or too many.
    twice = 2 * total
    counts = [-((total - 2 * num_rows * taken) // twice) for num_rows in rows_per_replica]
    missing = taken - sum(counts)
    if missing == 0:
        return counts
    # (2k + 1) / n_r as an integer.  Two different fractions are at least 1 / (n_r * n_s) apart, so after scaling by
    # more than max(n)^2 their floors are in the same order, and equal only where the fractions are.
    scale = 2 * max(rows_per_replica).bit_length()
    if missing > 0:
        upcoming = [
            (((2 * count + 1) << scale) // num_rows, replica)
            for replica, (count, num_rows) in enumerate(zip(counts, rows_per_replica, strict=True))
            if count < num_rows
        ]
        heapq.heapify(upcoming)
        for _ in range(missing):
            replica = upcoming[0][1]
            counts[replica] += 1
            if counts[replica] < rows_per_replica[replica]:
                following = ((2 * counts[replica] + 1) << scale) // rows_per_replica[replica]
                heapq.heapreplace(upcoming, (following, replica))
            else:
                heapq.heappop(upcoming)
    else:
        latest = [
            (-(((2 * count - 1) << scale) // num_rows), -replica)
            for replica, (count, num_rows) in enumerate(zip(counts, rows_per_replica, strict=True))
            if count > 0
        ]
        heapq.heapify(latest)
        for _ in range(-missing):
            replica = -latest[0][1]
            counts[replica] -= 1
            if counts[replica] > 0:
                previous = ((2 * counts[replica] - 1) << scale) // rows_per_replica[replica]
                heapq.heapreplace(latest, (-previous, -replica))
            else:
                heapq.heappop(latest)
    return counts


def rows(
    seed: int, epoch: int, step: int, replica: int, rows_per_replica: Sequence[int], batch_size: int
) -> npt.NDArray[np.int64]:
    """The replica's own row numbers (0 to n_r - 1) in a step of an epoch; int64 [rows of this replica in the step].

    `step` counts from 0 within the epoch.  `seed` and `epoch` may be any integers.

    Raises ValueError: the epoch has no such step.
    """
    total = sum(rows_per_replica)
    if not 0 <= step < num_steps(total, batch_size):
        raise ValueError(
            f"step is {step}: an epoch of {total} rows in steps of {batch_size} has the steps 0 to "
            f"{num_steps(total, batch_size) - 1}."
        )
    start = shares(rows_per_replica, step * batch_size)[replica]
    stop = shares(rows_per_replica, min((step + 1) * batch_size, total))[replica]
    positions = np.arange(start, stop, dtype=np.uint64)
    return _shuffled(positions, rows_per_replica[replica], _round_keys(seed, epoch, replica)).view(np.int64)


_NUM_ROUNDS = 6
# Up to here sorting hashes is as fast, and exactly uniform, which few rounds on a tiny grid are not.
_SORTED_UP_TO = 1024
_HALF = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))  # those of murmur3's finalizer


def _round_keys(seed: int, epoch: int, replica: int) -> npt.NDArray[np.uint64]:
    """One uint64 key per round.  The text keeps seed 0 epoch 1 and seed 1 epoch 0 apart, at any size of the numbers."""
    digest = hashlib.sha512(f"sparkdl rows {int(seed)} {int(epoch)} {int(replica)}".encode()).digest()
    return np.frombuffer(digest, dtype="<u8", count=_NUM_ROUNDS).astype(np.uint64)


@functools.lru_cache(maxsize=256)
def _grid(num_rows: int) -> tuple[int, int]:
    """Lines and columns of a near-square grid of at least num_rows places, and as few more as a short search finds."""
    side = math.isqrt(num_rows - 1) + 1
    widths = range(side, side + min(64, side // 2) + 1)
    num_columns = min(widths, key=lambda width: -num_rows % width)
    return -(-num_rows // num_columns), num_columns


def _shuffled(positions: npt.NDArray[np.uint64], num_rows: int, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """A bijection of 0 to num_rows - 1 at some positions: sorted hashes, or a Feistel network on a grid of places.

    Places from num_rows on (there are few) are sent round again until they land inside: cycle walking.
    """
    if positions.size == 0:
        return positions
    if num_rows <= _SORTED_UP_TO:
        order = np.argsort(_hashed(np.arange(num_rows, dtype=np.uint64), keys[0]), kind="stable")
        return order.astype(np.uint64)[positions]
    num_lines, num_columns = _grid(num_rows)
    shuffled = _permute_grid(positions, num_lines, num_columns, keys)
    if num_lines * num_columns > num_rows:
        outside = np.flatnonzero(shuffled >= np.uint64(num_rows))
        while outside.size:
            walked = _permute_grid(shuffled[outside], num_lines, num_columns, keys)
            shuffled[outside] = walked
            outside = outside[walked >= np.uint64(num_rows)]
    return shuffled


def _hashed(numbers: npt.NDArray[np.uint64], key: np.uint64) -> npt.NDArray[np.uint64]:
    """A keyed hash of each number, as a new array; its upper half is well mixed."""
    hashed = numbers + key  # wraps around, as do the products
    hashed *= _MULTIPLIERS[0]
    hashed ^= hashed >> _HALF
    hashed *= _MULTIPLIERS[1]
    return hashed


def _permute_grid(
    numbers: npt.NDArray[np.uint64], num_lines: int, num_columns: int, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """Rounds that shift the line by a hash of the column and the column by a hash of the line; each can be undone."""
    sizes = (np.uint64(num_lines), np.uint64(num_columns))
    line, column = np.divmod(numbers, sizes[1])
    parts = [line, column]
    for number, key in enumerate(keys):
        shifted, other = number % 2, 1 - number % 2
        hashed = _hashed(parts[other], key)
        hashed >>= _HALF  # the well mixed half, and small enough that the sum below cannot wrap
        hashed += parts[shifted]
        hashed %= sizes[shifted]
        parts[shifted] = hashed
    return parts[0] * sizes[1] + parts[1]
