"""Les Misérables (networkx has it): who appears with whom becomes vectors, by Spark jobs, and a picture.

Walks the graph, trains the vectors, says who is nearest to Valjean, and draws all characters in two dimensions,
coloured by community.

    python examples/lesmis.py                        on this machine; writes lesmis.png
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from itertools import pairwise

import networkx
import numpy as np

from node2vec import walk_job
from node2vec.estimator import Node2Vec
from node2vec.workflow import Workflow
from sparkdl import spark_conf


def main() -> None:
    """Index, walk, prepare and train; then look at the vectors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--p", type=float, default=0.5, help="return parameter (0.5)")
    parser.add_argument("--q", type=float, default=2.0, help="in-out parameter (2)")
    parser.add_argument("--picture", default="lesmis.png", help="where it goes (%(default)s)")
    arguments = parser.parse_args()
    spark = spark_conf.session()
    graph = networkx.les_miserables_graph()
    n2v = Node2Vec(p=arguments.p, q=arguments.q, dimensions=32, num_walks=40, walk_length=40, window=5, epochs=3)
    with tempfile.TemporaryDirectory() as root:
        results = dict(Workflow(n2v, root).steps(graph))
        print(results["index"])
        named = [row.walk for row in walk_job.with_ids(spark, root, results["walk"]).collect()]
        model = results["train"]
        nearest = [(row["id"], row["similarity"]) for row in model.most_similar("Valjean", 5).collect()]
        vectors = {row["id"]: row["vector"] for row in model.vectors.collect()}
    moves = Counter(move for walk in named for move in pairwise(walk))
    strangers = [move for move in moves if not graph.has_edge(*move)]
    assert not strangers, f"a walk took a step that is no edge: {strangers[0]}"
    print(f"{len(named)} walks of {moves.total()} steps, all of them along edges; one of Valjean's begins")
    print("  " + " -> ".join(next(walk for walk in named if walk[0] == "Valjean")[:8]))
    print("nearest to Valjean: " + ", ".join(f"{name} ({similarity:.2f})" for name, similarity in nearest))
    draw(graph, vectors, arguments.picture)
    print(f"the picture of all {len(vectors)} characters is {arguments.picture}")


def draw(graph: networkx.Graph, vectors: dict[str, list[float]], path: str) -> None:
    """Characters in two dimensions (t-SNE), coloured by community (greedy modularity)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE

    names = sorted(vectors)
    places = TSNE(perplexity=12, init="pca", random_state=0).fit_transform(np.array([vectors[name] for name in names]))
    communities = networkx.community.greedy_modularity_communities(graph, weight="weight")
    colour = {name: f"C{number % 10}" for number, members in enumerate(communities) for name in members}
    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter(*places.T, c=[colour[name] for name in names], s=[20 + 6 * graph.degree(name) for name in names])
    for name, place in zip(names, places, strict=True):
        axes.annotate(name, place, fontsize=7, xytext=(3, 3), textcoords="offset points")
    axes.set_axis_off()
    axes.set_title("Les Misérables: vectors of the characters, coloured by community")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
