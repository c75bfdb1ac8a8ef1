"""Which walks are wanted, and which of them a range of walk ids stands for.

Walk id = walk number * number of start nodes + place of the start node: a range of ids is a share of the work, and the
walks do not depend on how the ids were cut.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from node2vec.trial import law
from sparkdl.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class WalkRequest:
    """`num_walks` walks of `walk_length` nodes from each start node; see ``transition`` for p, q, extend and gamma.

    Raises ConfigError: a value that no walk can be made with.
    """

    p: float = 1.0
    q: float = 1.0
    num_walks: int = 10
    walk_length: int = 80
    extend: bool = False
    gamma: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        law(self.p, self.q)
        for name, what in (("num_walks", "each start node has one walk"), ("walk_length", "a walk has one node")):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ConfigError(f"{name}={value!r} makes no walk: {what} at least, so give 1 or more.")
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"seed={self.seed} does not fit 64 bits: give 0 to 2^64 - 1.")

    def fields(self) -> dict[str, Any]:
        """The values by name, as JSON has them: ``WalkRequest(**fields)`` is the same request."""
        return {name: value.item() if isinstance(value, np.generic) else value for name, value in asdict(self).items()}

    def settings(self, starts: npt.NDArray[np.int32] | None) -> dict[str, Any]:
        """What decides about the walks, for the stage's manifest; `starts`: start nodes, int32 [S], None for all."""
        chosen = None if starts is None else hashlib.sha256(starts.tobytes()).hexdigest()[:16]
        return {**self.fields(), "start_nodes": chosen}


def walks_between(
    first: int, last: int, starts: npt.NDArray[np.int32] | None, num_nodes: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Start nodes, int32 [last - first], and walk numbers, int64, of the walks with ids first .. last-1.

    `starts`: int32 [S], or None: all nodes 0 .. num_nodes-1.
    """
    ids = np.arange(first, last, dtype=np.int64)
    numbers, places = np.divmod(ids, num_nodes if starts is None else len(starts))
    return (places.astype(np.int32) if starts is None else starts[places]), numbers


def cut(num_walks: int, parts: int) -> list[tuple[int, int]]:
    """`parts` ranges of walk ids, first and behind the last, as equal as can be; none is empty."""
    parts = max(1, min(parts, num_walks))
    borders = [num_walks * part // parts for part in range(parts + 1)]
    return list(itertools.pairwise(borders))
