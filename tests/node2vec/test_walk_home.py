from __future__ import annotations

from typing import Any

import pytest

from node2vec.graph_files import Header
from node2vec.walk_home import HOST_SHARE, choose
from sparkdl.errors import ConfigError

GB = 10**9


def header(num_nodes: int, num_arcs: int, directed: bool = False, weighted: bool = False) -> Header:
    return Header(num_nodes, num_arcs, directed, weighted, (), "0" * 16)


def test_bytes_of_a_copy() -> None:
    plain = choose(header(100, 1000), 1, 80, host_memory=GB)
    assert (plain.graph_bytes, plain.filter_bytes, plain.table_bytes) == (8 * 101 + 4 * 1000, 750, 0)
    directed = choose(header(100, 1000, directed=True), 1, 80, host_memory=GB, bits_per_edge=6)
    assert directed.filter_bytes == 750  # an arc is an entry, not an edge
    weighted = choose(header(100, 1000, weighted=True), 1, 80, host_memory=GB, extend=True)
    assert weighted.table_bytes == 8 * 1000 + 16 * 100
    assert weighted.num_bytes == weighted.graph_bytes + weighted.filter_bytes + weighted.table_bytes


def test_the_border_is_what_fits() -> None:
    graph = header(10**8, 6 * 10**9)
    needed = choose(graph, 10**9, 80, host_memory=1).num_bytes
    large, small = (int(needed / HOST_SHARE * share) for share in (1.001, 0.999))
    assert choose(graph, 10**10, 80, host_memory=large, slots=400, hosts=50).home == "replicated"
    assert choose(graph, 10**10, 80, host_memory=small, slots=400, hosts=50).home == "partitioned"


def test_few_walks_do_not_make_all_tables_on_every_host() -> None:
    graph = header(10**8, 6 * 10**9, weighted=True)
    cluster: dict[str, Any] = {"host_memory": 200 * GB, "hosts": 50, "slots": 400}
    assert choose(graph, 10**10, 80, **cluster).home == "replicated"
    few = choose(graph, 1000, 80, **cluster)
    assert few.home == "partitioned"
    assert "few walks" in few.why
    assert choose(graph, 1000, 80, host_memory=200 * GB, slots=8, local=True).home == "replicated"


def test_node2vec_plus_is_at_home_in_both() -> None:
    weighted = header(10**8, 6 * 10**9, weighted=True)
    assert choose(weighted, 1000, 80, host_memory=GB, hosts=50, slots=400, extend=True).home == "partitioned"


def test_a_small_graph_is_replicated_and_the_choice_can_be_forced() -> None:
    graph = header(34, 156)
    assert choose(graph, 340, 80, host_memory=GB, hosts=3, slots=6).home == "replicated"
    assert choose(graph, 340, 80, host_memory=GB, home="partitioned").why == "as asked"
    forced = choose(graph, 340, 80, host_memory=0, home="replicated")
    assert (forced.home, forced.why) == ("replicated", "as asked, though it does not fit")


def test_what_is_printed() -> None:
    lines = str(choose(header(10**6, 10**7, weighted=True), 10**7, 80, host_memory=10 * GB, slots=4)).splitlines()
    assert lines[0] == (
        "a copy of the graph: 88.0 MB + edge filter 7.5 MB + alias tables 88.0 MB = 183.5 MB; "
        "a host has room for 7.0 GB"
    )
    assert lines[1].startswith("10,000,000 walks: about 33 s replicated, ")
    assert lines[1].endswith("partitioned -> replicated, which fits and is faster")


def test_another_home_is_refused() -> None:
    with pytest.raises(ConfigError, match="home='cloud' is unknown; choose one of auto, replicated, partitioned"):
        choose(header(1, 1), 1, 1, host_memory=1, home="cloud")
