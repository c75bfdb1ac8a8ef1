"""Random graphs with hubs: the recursive matrix model (Chakrabarti, Zhan, Faloutsos: R-MAT, SDM 2004)."""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

QUADRANTS = (0.57, 0.19, 0.19, 0.05)  # as the Graph500 benchmark chooses them


def rmat(scale: int, edges: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Both ends of every edge, int64 [edges] each, in 0 .. 2**scale-1.

    Repeats and self-loops occur, and many of the 2**scale nodes have no edge.
    """
    rng = np.random.default_rng([seed, scale, edges])
    src, dst = np.zeros(edges, np.int64), np.zeros(edges, np.int64)
    a, b, c, _ = QUADRANTS
    for _ in range(scale):
        draw = rng.random(edges, np.float32)
        down = draw >= a + b
        right = ((draw >= a) & ~down) | (draw >= a + b + c)
        src = src << 1 | down
        dst = dst << 1 | right
    return src, dst


def main() -> None:
    """Write a graph as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output")
    parser.add_argument("--scale", type=int, default=16)
    parser.add_argument("--edges", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    src, dst = rmat(options.scale, options.edges, options.seed)
    pq.write_table(pa.table({"src": src, "dst": dst}), options.output, row_group_size=1 << 20)


if __name__ == "__main__":
    main()
