"""Which part of the tables a task trains against which, and when: every answer is a function of numbers.

Skip-gram has two tables with a row for each node: inputs (the vectors) and outputs (the contexts'). Both are cut into
the same P parts. A pair of a centre and a context belongs to the block (part of the centre, part of the context), and
there are P x P blocks. In a *round* task i trains block (i, s(i)); no two tasks have the same s, so they touch disjoint
rows and need no lock. P rounds, the *turns*, visit every block once. Since all pairs of a block at once would pull the
rows of the other parts out of step, the walks of an *epoch* are dealt to E *episodes* at random, and all blocks are
visited in each episode. So an epoch has E * P rounds. The scheme is that of Zhu, Xu, Tang and Qu, *GraphVite* (WWW
2019), section 3.3; its episodes are ours, its negatives come from the block's own outputs too.

Parts are cut by the *snake*: ids fall in frequency, every P of them are a group, and the groups are dealt to the parts
from left to right, then from right to left. A part then has its share of frequent and of rare nodes, and id, part and
row follow from each other by arithmetic: there is no table.

Tasks of several cores hold c parts of each table, a *group*: the parts c * I .. c * I + c-1 are group I, and there are
N = P / c of them. In a *group round* task I meets one group of the outputs, by the same rule with N in place of P, and
plays c rounds with it, in each of which its c threads train c blocks that share no row. So an epoch has E * N group
rounds, after which tables travel, and E * P rounds as before, in another order. With c = 1 both are one.

Letters: V nodes (ids 0 .. V-1, by falling frequency), W walks, T tokens, P parts, E episodes, c cores, N groups.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from node2vec.counter_rng import GOLDEN, mix, mix_numpy
from node2vec.jit import Int, Kernel, jit

from numba.extending import register_jitable  # isort: skip  # behind node2vec.jit, which says what is missing

FEWEST_NODES = 2000  # below these, one part: a round's fixed cost would be more than is gained
FEWEST_TOKENS = 1_000_000
NODES_OF_A_PART = 1000  # at least
MOST_PARTS = 16  # above, reading two streams and finding few pairs costs more than the pairs
LARGE_TABLE = 16 << 20  # bytes of one table: to send more takes longer than a round's fixed cost, about 0.1 s
EPISODES = 16  # where there are several parts: link prediction suffers from fewer
MANY_PARTS = 8  # from here on twice as many

_GOLDEN_U64 = np.uint64(GOLDEN)


def _also_in_kernels(function: Kernel) -> Kernel:
    """`function` as it is for Python (numbers and arrays), and compiled where a kernel calls it (numbers)."""
    register_jitable(function)
    return function


@_also_in_kernels
def part_of(ids: Any, num_parts: Int) -> Any:
    """The part, 0 .. P-1, of each id: a number or an array of integers; the result is of the same kind."""
    group = ids // num_parts
    place = ids - group * num_parts
    return place + (group & 1) * (num_parts - 1 - 2 * place)


@_also_in_kernels
def row_of(ids: Any, num_parts: Int) -> Any:
    """The row of each id in its part's tables: a number or an array of integers; the result is of the same kind."""
    return ids // num_parts


@_also_in_kernels
def id_of(part: Int, rows: Any, num_parts: Int) -> Any:
    """The id of each row of a part: the inverse of `part_of` and `row_of`. `rows`: a number or an array of integers."""
    return rows * num_parts + part + (rows & 1) * (num_parts - 1 - 2 * part)


def part_size(num_nodes: int, part: int, num_parts: int) -> int:
    """Rows of a part's tables: how many of the ids 0 .. num_nodes-1 are in it."""
    groups, rest = divmod(num_nodes, num_parts)
    place = num_parts - 1 - part if groups & 1 else part
    return groups + (place < rest)


class Round(NamedTuple):
    """One round of a run. number = (epoch * E + episode) * P + turn; all of them count from 0."""

    number: int
    epoch: int
    episode: int
    turn: int


def num_rounds(num_parts: int, num_episodes: int, epochs: int) -> int:
    """Rounds of a whole run."""
    return num_parts * num_episodes * epochs


def round_at(number: int, num_parts: int, num_episodes: int) -> Round:
    """The round with this number."""
    rest, turn = divmod(number, num_parts)
    epoch, episode = divmod(rest, num_episodes)
    return Round(number, epoch, episode, turn)


def rounds(num_parts: int, num_episodes: int, epochs: int) -> list[Round]:
    """All rounds of a run, in order."""
    return [round_at(number, num_parts, num_episodes) for number in range(num_rounds(num_parts, num_episodes, epochs))]


def fine_rounds(this: Round, cores: int) -> list[Round]:
    """The rounds of parts in a round of groups, in order. `this`: of ``round_at(number, N, E)``."""
    return [
        Round(this.number * cores + turn, this.epoch, this.episode, this.turn * cores + turn) for turn in range(cores)
    ]


def parts_of(group: int, cores: int) -> range:
    """The parts of a group."""
    return range(group * cores, (group + 1) * cores)


def output_part(task: int, this: Round, num_parts: int, cores: int = 1) -> int:
    """The part of the outputs that meets part `task` of the inputs. Of groups: with N for P, and one core."""
    group, place = divmod(task, cores)
    ahead, turn = divmod(this.turn, cores)
    return (group + ahead + this.episode) % (num_parts // cores) * cores + (place + turn) % cores


def holder(part: int, this: Round, num_parts: int, cores: int = 1) -> int:
    """The part of the inputs that meets a part of the outputs: the inverse of `output_part`."""
    group, place = divmod(part, cores)
    ahead, turn = divmod(this.turn, cores)
    return (group - ahead - this.episode) % (num_parts // cores) * cores + (place - turn) % cores


def next_holder(part: int, this: Round, num_parts: int, num_episodes: int) -> int:
    """The task that needs a part of the outputs in the round after this one. Of groups: with N for P."""
    return holder(part, round_at(this.number + 1, num_parts, num_episodes), num_parts)


def rates(this: Round, num_rounds: int, alpha: float, min_alpha: float) -> tuple[float, float]:
    """The learning rates at the first and behind the last walk of a round.

    They fall linearly from `alpha` to `min_alpha` over the rounds of the run; inside a round they fall linearly over
    the walks of the episode. A round begins at the very number at which the one before it ended.
    """
    first, last = (number / num_rounds for number in (this.number, this.number + 1))
    return (1.0 - first) * alpha + first * min_alpha, (1.0 - last) * alpha + last * min_alpha


def default_parts(num_nodes: int, num_tokens: int, slots: int) -> int:
    """P for a corpus: one for each task slot, but not more than the corpus is worth."""
    if num_nodes < FEWEST_NODES or num_tokens < FEWEST_TOKENS:
        return 1
    return max(1, min(slots, MOST_PARTS, num_nodes // NODES_OF_A_PART))


def default_cores(num_nodes: int, dimensions: int, num_parts: int, executor_cores: int) -> int:
    """Cores of a task: 1, but where a part's table is large, as many as an executor has and P is a multiple of.

    Parts that stay in one task do not travel between its threads: c cores move a c-th of the bytes. For small tables a
    round's fixed cost is all there is.
    """
    if 4 * dimensions * (num_nodes // num_parts) < LARGE_TABLE:
        return 1
    return max(cores for cores in range(1, max(1, min(num_parts, executor_cores)) + 1) if num_parts % cores == 0)


def default_episodes(num_parts: int) -> int:
    """E for a number of parts: with one there is only one block, and episodes mean nothing; many need more of them.

    BlogCatalog's macro-F1 with 8 parts is .003 higher with 32 episodes than with 16.
    """
    if num_parts == 1:
        return 1
    return EPISODES if num_parts < MANY_PARTS else 2 * EPISODES


@jit
def episode_of_walk(walk: Int, num_episodes: Int) -> Int:
    """The episode, 0 .. E-1, of walk number `walk`, for kernels."""
    return np.int64(mix((np.uint64(walk) + np.uint64(1)) * _GOLDEN_U64) % np.uint64(num_episodes))


def episode_of(walks: npt.ArrayLike, num_episodes: int) -> npt.NDArray[np.int64]:
    """The episode, 0 .. E-1, of each walk number: int64, of the shape of `walks`.

    A hash of the number alone, so that an episode is a random sample of the walks, whoever numbers them in whatever
    order, and the same in every epoch and run.
    """
    numbers = np.atleast_1d(np.asarray(walks)).astype(np.uint64)
    hashes = mix_numpy((numbers + np.uint64(1)) * _GOLDEN_U64)
    return (hashes % np.uint64(num_episodes)).astype(np.int64).reshape(np.shape(walks))


def walks_of(episode: int, num_walks: int, num_episodes: int) -> npt.NDArray[np.int64]:
    """The numbers, ascending, of the walks of an episode: int64 [W_e]. Over the episodes every walk is there once."""
    if num_episodes == 1:
        return np.arange(num_walks, dtype=np.int64)
    found = np.empty(_collect(episode, num_walks, num_episodes, np.empty(0, np.int64)), np.int64)
    _collect(episode, num_walks, num_episodes, found)
    return found


@jit
def _collect(episode: Int, num_walks: Int, num_episodes: Int, found: npt.NDArray[np.int64]) -> Int:
    """How many walks the episode has; as many of them as fit are written to `found`."""
    count = 0
    for walk in range(num_walks):
        if episode_of_walk(walk, num_episodes) == episode:
            if count < len(found):
                found[count] = walk
            count += 1
    return count
