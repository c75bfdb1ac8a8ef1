"""Is there surely no edge u -> v? One memory access answers, in less than two bytes an edge.

A Bloom filter whose four bits of an edge lie in one 64-bit word (Putze, Sanders and Singler, *Cache-, hash- and
space-efficient Bloom filters*, 2009): "no" is certain, "maybe" has to be looked up. With 6 bits an edge about 7 % of
the pairs without an edge are answered "maybe", with 12 bits 1 %. On undirected graphs {u, v} is one entry.

Filters of the same number of words can be united by ``|``: each part of a graph adds its own rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from node2vec.counter_rng import high, mix
from node2vec.jit import Bool, Int, Word, jit
from sparkdl.errors import ConfigError

Words = npt.NDArray[np.uint64]

_ONE = np.uint64(1)
_SIX_BITS = np.uint64(63)


def empty(num_edges: int, bits_per_edge: float = 12.0) -> Words:
    """A filter without entries, sized for `num_edges` entries: uint64 [words], at least one word."""
    if not bits_per_edge > 0:
        raise ConfigError(f"bits_per_edge={bits_per_edge} leaves no room for an edge: 6 to 12 are sensible.")
    num_words = max(1, int(np.ceil(num_edges * bits_per_edge / 64)))
    if num_words >= 2**32:
        raise ConfigError(f"{num_edges} edges at {bits_per_edge} bits need 32 GiB or more: lower bits_per_edge.")
    return np.zeros(num_words, np.uint64)


def build(
    indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int32], directed: bool, bits_per_edge: float = 12.0
) -> Words:
    """The filter of all arcs of a whole graph: uint64 [words]. Loops are left out: no walk asks for them."""
    words = empty(len(indices) if directed else (len(indices) + 1) // 2, bits_per_edge)
    add(words, indptr, indices, directed, 0, 1)
    return words


@jit
def add(
    words: Words,
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    directed: Bool,
    first_vertex: Int,
    stride: Int,
) -> None:
    """Enter the arcs of some rows; row r belongs to vertex ``first_vertex + r * stride``.

    On undirected graphs each arc enters its edge, so that nothing is missing where only one of both arcs was kept
    (see ``max_degree``).
    """
    for row in range(len(indptr) - 1):
        vertex = first_vertex + row * stride
        for arc in range(indptr[row], indptr[row + 1]):
            if indices[arc] != vertex:
                bits = _hash(vertex, indices[arc], directed)
                words[_place(bits, len(words))] |= _pattern(bits)


@jit
def maybe(words: Words, u: Int, v: Int, directed: Bool) -> Bool:
    """False: u -> v is no edge (`u` not `v`). True: it may be one."""
    bits = _hash(u, v, directed)
    pattern = _pattern(bits)
    return words[_place(bits, len(words))] & pattern == pattern


@jit
def _hash(u: Int, v: Int, directed: Bool) -> Word:
    if not directed and u > v:
        u, v = v, u
    return mix((np.uint64(u) << np.uint64(32)) | np.uint64(v))


@jit
def _place(bits: Word, num_words: Int) -> Int:
    return np.int64((high(bits) * np.uint64(num_words)) >> np.uint64(32))


@jit
def _pattern(bits: Word) -> Word:
    """Four bits, not always different ones, from the low 24: the upper 32 chose the word."""
    return (
        (_ONE << (bits & _SIX_BITS))
        | (_ONE << ((bits >> np.uint64(6)) & _SIX_BITS))
        | (_ONE << ((bits >> np.uint64(12)) & _SIX_BITS))
        | (_ONE << ((bits >> np.uint64(18)) & _SIX_BITS))
    )
