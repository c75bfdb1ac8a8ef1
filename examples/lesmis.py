"""Walks the co-appearances of Les Misérables (networkx has them) by Spark jobs and says what it did.

python examples/lesmis.py            on this machine
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from itertools import pairwise

import networkx

from node2vec import graph_job, walk_job
from sparkdl import spark_conf


def main() -> None:
    """Index the graph, walk it, and compare the walks' moves with the edges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--p", type=float, default=0.5, help="return parameter (0.5)")
    parser.add_argument("--q", type=float, default=2.0, help="in-out parameter (2)")
    arguments = parser.parse_args()
    spark = spark_conf.session()
    graph = networkx.les_miserables_graph()
    with tempfile.TemporaryDirectory() as root:
        print(graph_job.index(spark, graph, root))
        walks = walk_job.walk(spark, root, p=arguments.p, q=arguments.q, num_walks=10, walk_length=40)
        named = [row.walk for row in walk_job.with_ids(spark, root, walks).collect()]
    moves = Counter(move for walk in named for move in pairwise(walk))
    strangers = [move for move in moves if not graph.has_edge(*move)]
    assert not strangers, f"a walk took a step that is no edge: {strangers[0]}"
    first = next(walk for walk in named if walk[0] == "Valjean")
    print(f"{len(named)} walks of {moves.total()} steps, all of them along edges; one of Valjean's begins")
    print("  " + " -> ".join(first[:8]))
    visits = Counter(name for walk in named for name in walk)
    print("most visited: " + ", ".join(f"{name} ({count})" for name, count in visits.most_common(5)))


if __name__ == "__main__":
    main()
