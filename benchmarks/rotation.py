"""What it costs to pass skip-gram's tables on after each round, and what that makes of runs on large clusters.

Trains on a corpus of next to no walks over many nodes, so that a round is all rotation: tables in, tables out, and the
noise tables of each part. One JSON line a case; then, from the cases of the most nodes, what a cost model predicts.

  round_s           median wall clock of a round (of groups), without the first and the last
  us_core_a_node    microseconds of CPU of all processes together, JVM and Python, for a node and round, tables that are
                    written down now and then included; it does not grow where the machine does something else as well
  form              shuffled: both tables go through the shuffle; resident: inputs stay in files on the executor
  cores             of a task: with 2, half the tasks, each with twice the parts

    python benchmarks/rotation.py                            1M nodes, 128 dimensions, local[2]
    python benchmarks/rotation.py --nodes 1000000,4000000
    python benchmarks/rotation.py --quick                    under a minute: 100,000 nodes
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from processes import cpu_seconds

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))

DIMENSIONS, PARTS, GROUP_ROUNDS = 128, 4, 8

# The cost model. Measured elsewhere (one core, 128 dimensions, window 10, 5 shared negatives, walks of 80 nodes):
PAIRS_A_NODE = 8360  # 10 walks from every node
PAIR_S = 110e-9  # to train a pair
JOIN_S = 2.3e-9  # to find a pair, times the number of parts; measured up to 16 parts
NETWORK = 1.25e9  # bytes a second of a host: 10 Gb/s, an assumption
HOST_CORES = 16  # an assumption
EPISODES = 4
CLUSTERS = [(10_000_000, 300_000_000, 500), (100_000_000, 3_000_000_000, 2000)]  # nodes, edges, cores


def main() -> None:
    """Each case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="1000000", help="comma-separated (%(default)s)")
    parser.add_argument("--forms", default="shuffled,resident", help="comma-separated (%(default)s)")
    parser.add_argument("--cores", default="1,2", help="of a task, comma-separated (%(default)s)")
    parser.add_argument("--memory", default="3g", help="of the JVM (%(default)s)")
    parser.add_argument("--master", default="local[2,4]")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, help="a JSON file for all lines")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(json.loads(options.case))), flush=True)
        return
    lines = []
    for num_nodes in [100_000] if options.quick else map(int, options.nodes.split(",")):
        for form in ("resident",) if options.quick else options.forms.split(","):
            for cores in map(int, options.cores.split(",")):
                with tempfile.TemporaryDirectory() as folder:
                    case = {"root": folder, "nodes": num_nodes, "form": form, "cores": cores}
                    case |= {"memory": options.memory, "master": options.master}
                    command = [sys.executable, str(HERE), "--case", json.dumps(case)]
                    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                lines.append(json.loads(done.stdout.splitlines()[-1]))
                print(json.dumps(lines[-1]), flush=True)
    for line in predictions([line for line in lines if line["nodes"] == lines[-1]["nodes"]]):
        lines.append(line)
        print(json.dumps(line), flush=True)
    if options.out:
        options.out.write_text("\n".join(map(json.dumps, lines)) + "\n")


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """A training of `GROUP_ROUNDS` rounds."""
    from node2vec import resident_tables, skipgram_job
    from sparkdl import spark_conf

    root, groups = Path(case["root"]), PARTS // case["cores"]
    make_corpus(root, case["nodes"], max(1, GROUP_ROUNDS // groups))
    settings = {"spark.master": case["master"], "spark.local.dir": str(root / "local")}
    spark = spark_conf.start_embedded(settings=settings | {"spark.driver.memory": case["memory"]})
    resident_tables.LARGE = 0 if case["form"] == "resident" else 1 << 62
    story = skipgram_job.story
    seen: list[tuple[float, float]] = []  # wall clock and CPU at each round's begin

    def watched(number: int, training: Any) -> str:
        seen.append((time.perf_counter(), cpu_seconds()))
        return story(number, training)

    skipgram_job.story = watched
    skipgram_job.train(spark, root, dimensions=DIMENSIONS, window=2, cores=case["cores"], verbose=False)
    spark.stop()
    begins = np.array(seen)
    walls, cpus = np.diff(begins[1:], axis=0).T  # the first round makes the tables, the last one writes vectors
    return {
        "nodes": case["nodes"], "dimensions": DIMENSIONS, "parts": PARTS, "form": case["form"], "cores": case["cores"],
        "tasks": groups, "rounds": len(walls), "round_s": round(statistics.median(walls), 2),
        "mean_round_s": round(float(walls.mean()), 2), "cpu_round_s": round(float(cpus.mean()), 2),
        "us_core_a_node": round(float(cpus.mean()) / case["nodes"] * 1e6, 2), "master": case["master"],
        "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def make_corpus(root: Path, num_nodes: int, episodes: int) -> None:
    """root/corpus of 2,000 short walks between random nodes."""
    from node2vec import block_schedule, corpus_files, corpus_job, token_streams
    from node2vec.graph_files import file_system

    num_walks, length = 2000, 10
    nodes = np.random.default_rng(0).integers(0, num_nodes, num_walks * length).astype(np.int32)
    offsets = np.arange(num_walks + 1, dtype=np.int64) * length
    streams = token_streams.streams(nodes, offsets, 0, PARTS, episodes, num_nodes=num_nodes)
    files, folder = file_system(root / "corpus")
    (root / "corpus").mkdir()
    for part in range(PARTS):
        counts = np.zeros(block_schedule.part_size(num_nodes, part, PARTS), np.int64)
        for episode in range(episodes):
            stream = streams[episode][part]
            corpus_files.write_stream(files, f"{folder}/{corpus_files.stream_name(episode, part)}", stream)
            counts += np.bincount(stream.rows, minlength=len(counts))
        corpus_files.write_counts(files, f"{folder}/{corpus_job.counts_name(part, 0)}", counts)
    header = corpus_files.Header(
        num_nodes,
        num_walks,
        len(nodes),
        length,
        PARTS,
        episodes,
        min_count=0,
        sample=0.0,
        seed=0,
        fingerprint=str(root),
    )
    corpus_files.write_header(str(root / "corpus"), header)


def predictions(lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """An epoch's seconds on large clusters: P = cores of the cluster, tasks of one core or of a host's.

    train: pairs over all cores. join: each part reads all walks, whatever P. rotation: a task passes E x V nodes on,
    one after the other, whatever the number of tasks. network: the bytes of a host's tasks over its line.
    us_core_a_node was measured here; everything else is extrapolated.
    """
    for num_nodes, num_edges, cluster in CLUSTERS:
        for line in lines:
            cores = 1 if line["cores"] == 1 else HOST_CORES
            tables = 1 if line["form"] == "resident" else 2
            seconds = {
                "train_s": num_nodes * PAIRS_A_NODE * PAIR_S / cluster,
                "join_s": num_nodes * PAIRS_A_NODE * JOIN_S,
                "rotation_s": EPISODES * num_nodes * line["us_core_a_node"] / 1e6,
                "network_s": EPISODES * num_nodes * 4 * DIMENSIONS * tables * (HOST_CORES // cores) / NETWORK,
            }
            yield {
                "prediction": f"{num_nodes} nodes, {num_edges} edges, {cluster} cores", "form": line["form"],
                "cores": cores, "episodes": EPISODES, **{name: round(value) for name, value in seconds.items()},
                "epoch_s": round(sum(seconds.values())), "measured": "us_core_a_node alone; the rest is extrapolated",
            }  # fmt: skip


if __name__ == "__main__":
    main()
