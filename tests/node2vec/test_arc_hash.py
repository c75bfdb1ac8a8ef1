from __future__ import annotations

import numpy as np

from node2vec.arc_hash import GOLDEN, arc_hash, mix


def test_mix_is_splitmix64() -> None:
    """The first outputs of the published generator for the seed 1234567."""
    state = np.array([1234567], np.uint64) + GOLDEN * np.arange(1, 4, dtype=np.uint64)
    assert mix(state).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_arcs_have_hashes_of_their_own() -> None:
    tails, heads = (a.ravel() for a in np.meshgrid(np.arange(300), np.arange(300), indexing="ij"))
    hashes = arc_hash(tails, heads)
    assert len(np.unique(hashes)) == 90_000
    assert np.array_equal(hashes, arc_hash(tails.astype(np.int32), heads.astype(np.uint32)))
    assert not np.array_equal(hashes, arc_hash(tails, heads, seed=1))
    bits = (hashes[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.all(np.abs(bits.mean(axis=0) - 0.5) < 0.01)  # six standard deviations
