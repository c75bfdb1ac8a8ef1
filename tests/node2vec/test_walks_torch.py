from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from node2vec import walks, walks_torch
from node2vec.graph import Graph
from sparkdl.errors import ConfigError
from tests.node2vec.sample_graphs import every_start, graphs, samples

BIASES = [(1, 1), (0.25, 4), (4, 0.25), (0.5, 2), (2, 0.5)]
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")),
]


def same(graph: Graph, per_node: int, length: int, p: float, q: float, extend: bool, device: str) -> bool:
    starts, numbers = every_start(graph, per_node)
    tables = walks.prepare(graph, extend=extend)
    wanted = walks.walk(graph, starts, numbers, length, p, q, 3, tables=tables)
    made = walks_torch.walk_numpy(graph, starts, numbers, length, p, q, 3, tables=tables, device=device)
    assert made[0].dtype == made[1].dtype == np.int32
    return np.array_equal(wanted[0], made[0]) and np.array_equal(wanted[1], made[1])


@pytest.mark.parametrize(("p", "q"), BIASES)
@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", samples())
def test_tensors_walk_as_the_kernels_do(name: str, device: str, extend: bool, p: float, q: float) -> None:
    assert same(samples()[name], 20, 40, p, q, extend, device)


@settings(deadline=None)
@given(graphs(), st.integers(1, 9), st.integers(1, 6), st.sampled_from(BIASES), st.booleans())
def test_any_graph(graph: Graph, per_node: int, length: int, bias: tuple[float, float], extend: bool) -> None:
    assert same(graph, per_node, length, *bias, extend, "cpu")


def test_a_graph_is_copied_once_and_walked_often() -> None:
    graph = samples()["karate"]
    there = walks_torch.to_device(graph)
    for seed in (0, 2**63, 2**64 - 1):
        made, lengths = walks_torch.walk(there, [0, 5, 33], [7, 2**40, 0], 30, 0.5, 2, seed)
        wanted = walks.walk(graph, [0, 5, 33], [7, 2**40, 0], 30, 0.5, 2, seed)
        assert made.tolist() == wanted[0].tolist()
        assert lengths.tolist() == wanted[1].tolist()


def test_no_walks_are_an_empty_tensor() -> None:
    made, lengths = walks_torch.walk(walks_torch.to_device(samples()["karate"]), [], [], 5)
    assert made.shape == (0, 5)
    assert lengths.shape == (0,)


def test_what_cannot_be_used_is_refused() -> None:
    there = walks_torch.to_device(samples()["karate"])
    with pytest.raises(ConfigError, match="node number 34"):
        walks_torch.walk(there, [34], [0], 5)
    with pytest.raises(ConfigError, match="p=0 is no bias"):
        walks_torch.walk(there, [3], [0], 5, p=0)
