"""Walks on ever larger random graphs in which each pair of nodes is an edge with probability 5 %: ours and the peers.

The seconds that 10 walks of 80 nodes from every node take, p = 0.5, q = 2, by

  Spark job       ours, warm, from the indexed graph to Parquet
  plain twin      our single-process reference: one walk at a time, whole graph in memory, no filter
  PecanPy         SparseOTF and PreComp with as many threads as the job has tasks; their preparation counts

All are measured by ``walks.py``. PecanPy makes at most as many steps as ``walks.py`` says, its seconds are scaled up to
all of them; where it is missing, its tables or its time would have gone beyond what ``walks.py`` allows.

Writes density.json and density.png into --output and prints one JSON line a graph.

    python benchmarks/density.py --pecanpy PYTHON              needs matplotlib
    python benchmarks/density.py --quick                       a minute
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SIZES = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
QUICK_SIZES = (100, 500)
NUM_WALKS = 10
FORMS = {  # walks.py's name -> ours
    "job warm, replicated": "Spark job",
    "kernel, plain": "plain twin",
    "PecanPy SparseOTF": "PecanPy SparseOTF",
    "PecanPy PreComp": "PecanPy PreComp",
}


def measure(size: int, options: argparse.Namespace) -> dict[str, Any]:
    """One graph: seconds by form."""
    command = [sys.executable, str(HERE / "walks.py"), "--cases", f"random-{size}", "--num-walks", str(NUM_WALKS)]
    command += ["--pecanpy", options.pecanpy] if options.pecanpy else []
    command += ["--quick"] if options.quick else []
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = {line["form"]: line for line in map(json.loads, printed.splitlines()) if "seconds" in line}
    steps = lines["job warm, replicated"]["steps"]
    seconds = {
        ours: round(line["seconds"] * steps / line["steps"] + line.get("prepare_seconds", 0), 3)
        for form, ours in FORMS.items()
        if (line := lines.get(form))
    }
    job = lines["job warm, replicated"]
    ratios = {form: round(taken / seconds["Spark job"], 2) for form, taken in seconds.items() if form != "Spark job"}
    about = {"vertices": job["nodes"], "edges": job["arcs"] // 2, "steps": steps}
    return {**about, "seconds": seconds, "ratios": ratios}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """The chart."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for form in FORMS.values():
        points = [(row["vertices"], row["seconds"][form]) for row in rows if form in row["seconds"]]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=form)
    axes.set(
        xscale="log", yscale="log", xlabel="vertices (each pair is an edge with probability 5 %)", ylabel="seconds",
        title=f"{NUM_WALKS} walks of 80 vertices from each vertex, p = 0.5, q = 2",
    )  # fmt: skip
    axes.grid(visible=True, which="major", alpha=0.4)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", help=f"comma-separated numbers of vertices ({','.join(map(str, SIZES))})")
    parser.add_argument("--pecanpy", metavar="PYTHON", help="an interpreter that has pecanpy")
    parser.add_argument("--output", type=Path, default=HERE / "results", metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="two small graphs, nothing written")
    options = parser.parse_args()
    sizes = map(int, options.sizes.split(",")) if options.sizes else QUICK_SIZES if options.quick else SIZES
    rows = []
    for size in sizes:
        rows.append(measure(size, options))
        print(json.dumps(rows[-1]), flush=True)
    if not options.quick:
        options.output.mkdir(exist_ok=True)
        (options.output / "density.json").write_text("\n".join(map(json.dumps, rows)) + "\n")
        draw(rows, options.output / "density.png")


if __name__ == "__main__":
    main()
