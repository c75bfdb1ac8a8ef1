"""Skip-gram with negative sampling: the kernels, the Spark job and the peers on the same walks in the same run.

One JSON line each:

  kernel shared, kernel pair   one thread, one part: nanoseconds a pair (a pair is one context and its negatives)
  job P=2 E=16 cold, warm      walks in Parquet to vectors in Parquet by Spark: prepare and train; cold is the session's
                               first, warm the best of those after it
  gensim, 1 worker ...         Word2Vec(sg=1, hs=0): training alone, its vocabulary is counted before
  MLlib                        pyspark.ml.feature.Word2Vec.fit, as many partitions as cores (hierarchical softmax), on
                               1M tokens at most (quick: 50,000); its seconds are scaled up to all

128 dimensions, window 10, 5 negatives, one epoch of 10 walks of 80 nodes from every node, p = q = 0.25. tokens_per_s
are of the whole machine. ratio: a peer's seconds over those of the first job, warm.

    python benchmarks/skipgram.py --gensim PYTHON              a Python that has gensim
    python benchmarks/skipgram.py --quick                      a minute: PPI (or an R-MAT graph), one walk a node
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

DIMENSIONS, WINDOW, NEGATIVE = 128, 10, 5
MLLIB_TOKENS = 1_000_000
KERNEL_WALKS = {"shared": 20_000, "pair": 8_000}


def main() -> None:
    """Each measurement in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", help="a folder of --graphs, or an R-MAT graph of walks.py (blogcatalog; quick: ppi)")
    parser.add_argument("--graphs", type=Path, default=ROOT.parent / "shared" / "data" / "graphs", metavar="DIR")
    parser.add_argument("--parts", default="2,4", help="comma-separated P (%(default)s)")
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--gensim", metavar="PYTHON", help="an interpreter that has gensim")
    parser.add_argument("--no-mllib", action="store_true", help="leave MLlib out")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        case = json.loads(options.case)
        for line in {"kernels": kernels, "jobs": jobs, "mllib": mllib}[case["what"]](case):
            print(json.dumps({**line, "load": round(os.getloadavg()[0], 1)}), flush=True)
        return
    name = options.graph or ("ppi" if options.quick else "blogcatalog")
    path = options.graphs / name / "edges.csv.gz"
    if not name.startswith("rmat") and not path.is_file():
        name = "rmat-250k"
    with tempfile.TemporaryDirectory() as folder:
        case = {"root": folder, "cores": options.cores, "parts": [int(part) for part in options.parts.split(",")]}
        case |= {"episodes": options.episodes, "quick": options.quick}
        tokens = make_walks(name, str(path), Path(folder), 1 if options.quick else 10)
        case["tokens"] = tokens
        about = {"graph": name, "tokens": tokens}
        first: dict[str, Any] = {}
        whats = ["kernels", "jobs", *(["gensim"] if options.gensim else []), *([] if options.no_mllib else ["mllib"])]
        for what in whats:
            command = [options.gensim, "-c", GENSIM] if what == "gensim" else [sys.executable, str(HERE), "--case"]
            command.append(json.dumps(case | {"what": what}))
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
                for printed in running.stdout or ():
                    line = json.loads(printed)
                    if line["form"].endswith("warm"):
                        first = first or line
                    elif first:
                        line["ratio"] = round(line["seconds"] / first["seconds"], 2)
                    if "ns_per_pair" not in line:
                        line["tokens_per_s"] = round(tokens / line["seconds"])
                    print(json.dumps({**about, **line}), flush=True)


def make_walks(name: str, path: str, root: Path, num_walks: int) -> int:
    """root/walks and root/ids as the stages before leave them, and walks.npz for the peers; returns the tokens."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import walks as walk_benchmark
    from pyarrow import fs

    from node2vec import stage, walk_files
    from node2vec.walks import prepare, walk

    graph = walk_benchmark.make_graph(name, path, root)
    starts = np.tile(np.arange(graph.num_nodes, dtype=np.int32), num_walks)
    numbers = np.repeat(np.arange(num_walks), graph.num_nodes)
    made, lengths = walk(graph, starts, numbers, 80, 0.25, 0.25, tables=prepare(graph))
    stage.begin(root, "walks", {"walk_length": 80})
    borders = np.linspace(0, len(made), 9).astype(int)
    for number in range(8):
        some = slice(borders[number], borders[number + 1])
        batch = walk_files.batch_of(made[some], lengths[some])
        walk_files.write(fs.LocalFileSystem(), str(root / "walks" / walk_files.part_name(number)), [batch])
    stage.finish(root, "walks")
    (root / "ids").mkdir()
    index = pa.array(np.arange(graph.num_nodes), pa.int32())
    pq.write_table(pa.table({"index": index, "id": index.cast(pa.int64())}), root / "ids" / "part-0.parquet")
    np.savez(root / "walks.npz", walks=made, lengths=lengths)
    return int(lengths.sum())


def kernels(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One thread, one part."""
    from node2vec import skipgram, token_streams

    arrays = np.load(Path(case["root"], "walks.npz"))
    for name, most in KERNEL_WALKS.items():
        order = np.random.default_rng(0).permutation(len(arrays["walks"]))[:most]
        rows, lengths = arrays["walks"][order], arrays["lengths"][order]
        nodes = rows[np.arange(rows.shape[1]) < lengths[:, None]]
        num_nodes = int(arrays["walks"].max()) + 1
        ((stream,),) = token_streams.streams(
            nodes, np.concatenate([[0], np.cumsum(lengths)]), 0, 1, 1, num_nodes=num_nodes
        )
        noise = skipgram.noise_of(np.bincount(stream.rows, minlength=num_nodes))
        settings = skipgram.Sgns(WINDOW, NEGATIVE, 8 if name == "shared" else 1, np.uint64(0))
        walks = np.arange(len(order), dtype=np.int64)
        seconds = []
        for _ in range(3):  # the first compiles
            inputs = skipgram.initial_inputs(num_nodes, DIMENSIONS, 0, 0, 1)
            outputs = np.zeros_like(inputs)
            begun = time.perf_counter()
            pairs = skipgram.train_block(
                inputs, outputs, noise, stream, stream, walks, settings, 0, 0, 0, True, 0.025, 0.0001
            )
            seconds.append(time.perf_counter() - begun)
        best = min(seconds[1:])
        yield {
            "form": f"kernel {name}",
            "pairs": pairs,
            "seconds": round(best, 3),
            "ns_per_pair": round(best / pairs * 1e9, 1),
        }


def jobs(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The two stages on Spark."""
    from node2vec import corpus_job, skipgram_job
    from sparkdl import spark_conf

    root = Path(case["root"])
    spark = spark_conf.start_embedded(case["cores"], {"spark.local.dir": str(root / "local")})
    cold = True
    for parts in case["parts"]:
        runs = []
        for _ in range(2 if case["quick"] else 3):
            for stage in ("corpus", "vectors"):
                shutil.rmtree(root / stage, ignore_errors=True)
            begun = time.perf_counter()
            corpus_job.prepare(spark, root, parts, case["episodes"])
            prepared = time.perf_counter()
            skipgram_job.train(spark, root, dimensions=DIMENSIONS, window=WINDOW, negative=NEGATIVE, verbose=False)
            runs.append({"seconds": time.perf_counter() - begun, "prepare_seconds": prepared - begun})
            if cold:
                yield {"form": f"job P={parts} E={case['episodes']} cold", **rounded(runs[-1])}
                cold = False
        yield {"form": f"job P={parts} E={case['episodes']} warm", **rounded(min(runs, key=lambda run: run["seconds"]))}
    spark.stop()


def rounded(run: dict[str, float]) -> dict[str, float]:
    """Seconds as people read them."""
    return {name: round(value, 2) for name, value in run.items()}


def mllib(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Spark's own."""
    from pyspark.ml.feature import Word2Vec
    from pyspark.sql import functions as F

    from sparkdl import spark_conf

    spark = spark_conf.start_embedded(case["cores"], {"spark.local.dir": str(Path(case["root"], "local"))})
    frame = spark.read.parquet(str(Path(case["root"], "walks"))).select(
        F.col("walk").cast("array<string>").alias("walk")
    )
    most = MLLIB_TOKENS // 20 if case["quick"] else MLLIB_TOKENS
    share = min(1.0, most / case["tokens"])
    frame = frame.limit(int(share * frame.count())).repartition(case["cores"]).cache()
    frame.count()
    peer = Word2Vec(
        vectorSize=DIMENSIONS, windowSize=WINDOW, minCount=0, maxIter=1, numPartitions=case["cores"], inputCol="walk",
        outputCol="vector", seed=0,
    )  # fmt: skip
    begun = time.perf_counter()
    peer.fit(frame)
    seconds = round((time.perf_counter() - begun) / share, 2)
    yield {"form": f"MLlib, {case['cores']} partitions", "seconds": seconds, "share": round(share, 3)}
    spark.stop()


GENSIM = """
import json, sys, time
import numpy as np
from gensim.models import Word2Vec
case = json.loads(sys.argv[1])
arrays = np.load(case["root"] + "/walks.npz")
walks = [list(map(str, walk[:length].tolist())) for walk, length in zip(arrays["walks"], arrays["lengths"])]
for workers in (1, 2):
    settings = dict(vector_size=128, window=10, min_count=0, sg=1, hs=0, negative=5, epochs=1, sample=0)
    model = Word2Vec(workers=workers, **settings)
    model.build_vocab(walks)
    begun = time.perf_counter()
    model.train(walks, total_examples=model.corpus_count, epochs=1)
    seconds = time.perf_counter() - begun
    form = f"gensim, {workers} worker{'s' * (workers > 1)}"
    print(json.dumps({"form": form, "seconds": round(seconds, 2)}), flush=True)
"""


if __name__ == "__main__":
    main()
