"""What a step costs when there is nothing to compute: a model of 46 parameters, two rows a replica.

For 2 to 128 replicas on two slots and each form of the step: milliseconds a step and a queued task, where they go, and
beside them, in the same JVM, bare Spark jobs of as many tasks: JVM-only ones and Python ones. One JSON line per case,
then one line per form with the fixed cost of a step and the cost of each further queued task.

    python benchmarks/empty_step.py --quick
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from typing import Any

import models
import peers
import step_time

ROWS_PER_REPLICA = 2
STEPS_PER_EPOCH = 50


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """One number of replicas and one form, with bare jobs before and after, in this process's own session."""
    import torch

    from sparkdl import Trainer

    replicas, steps, jobs = case["replicas"], case["steps"], case["jobs"]
    batch = ROWS_PER_REPLICA * replicas
    features, labels = models.make_rows("tiny", batch * min(steps, STEPS_PER_EPOCH))
    clock = peers.Clock()
    with tempfile.TemporaryDirectory() as folder:
        spark = peers.start_session(case["master"], {"spark.local.dir": folder, **case["conf"]})
        bare = {"jvm_job": peers.jvm_job(spark.sparkContext, replicas)}
        bare["python_job"] = peers.python_job(spark.sparkContext, replicas)
        found = {f"{name}_before": peers.timed(job, jobs).summary() for name, job in bare.items()}
        trainer = Trainer(
            models.make_model("tiny"),
            loss=torch.nn.CrossEntropyLoss(),
            optimizer=models.make_optimizer,
            feature_cols="features",
            label_col="label",
            batch_size=batch,
            replicas=replicas,
            form=case["form"],
        )
        epochs = -(-steps // STEPS_PER_EPOCH)
        with peers.watching(clock.on_step):
            history = trainer.fit({"features": features, "label": labels}, epochs=epochs, verbose=0)
        found |= {name: peers.timed(job, jobs).summary() for name, job in bare.items()}
        spark.stop()
    ours = step_time.summary_of(history, clock)
    return {
        **ours,
        "ours_ms_per_task": round(ours["ours_ms"] / replicas, 2),
        **found,
        "ratios": {f"over_{name}": round(ours["ours_ms"] / found[name]["ms"], 2) for name in bare},
    }


def lines_of(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per form, and for the bare jobs: ms = fixed + per_task * replicas, from the fewest and the most replicas."""
    found = []
    for form in dict.fromkeys(r["case"]["form"] for r in results):
        done = sorted((r for r in results if r["case"]["form"] == form and "ours_ms" in r), key=_replicas)
        if len(done) < 2:
            continue
        low, high = done[0], done[-1]
        span = _replicas(high) - _replicas(low)
        line: dict[str, Any] = {"form": form, "replicas": [_replicas(low), _replicas(high)]}
        for name, of in (
            ("ours", lambda r: r["ours_ms"]),
            ("jvm_job", lambda r: r["jvm_job"]["ms"]),
            ("python_job", lambda r: r["python_job"]["ms"]),
        ):
            slope = (of(high) - of(low)) / span
            line[name] = {
                "fixed_ms": round(of(low) - slope * _replicas(low), 2),
                "ms_per_queued_task": round(slope, 2),
            }
        found.append(line)
    return found


def _replicas(result: dict[str, Any]) -> int:
    return int(result["case"]["replicas"])


def main() -> int:
    """The command line; returns 1 when a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=peers.comma_numbers, help="comma-separated (2,8,32,128; with --quick 2,8)")
    parser.add_argument("--forms", type=peers.comma_words, help="of jobs, fused, gather (all; with --quick gather)")
    parser.add_argument("--master", default="local[2]", help="local[2]")
    parser.add_argument("--steps", type=int, help="steps of each case (600 up to 8 replicas, 300 above; quick: 100)")
    parser.add_argument("--jobs", type=int, help="bare jobs of each kind, before and after (100; quick: 30)")
    parser.add_argument("--same-host", action="store_true", help="gradients through the host's memory")
    parser.add_argument("--conf", action="append", default=[], metavar="KEY=VALUE", help="a further Spark setting")
    parser.add_argument("--timeout", type=float, default=1200, help="seconds for one case (1200)")
    parser.add_argument("--quick", action="store_true", help="few cases and steps: shows that it works")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(run_case(json.loads(args.case))))
        return 0
    conf = dict(pair.split("=", 1) for pair in args.conf)
    conf["spark.sparkdl.sameHost"] = str(args.same_host).lower()
    results = []
    forms = args.forms or (["gather"] if args.quick else ["gather", "fused", "jobs"])
    for replicas, form in itertools.product(args.replicas or ([2, 8] if args.quick else [2, 8, 32, 128]), forms):
        steps = args.steps or (100 if args.quick else 600 if replicas <= 8 else 300)
        case = {"master": args.master, "replicas": replicas, "form": form, "steps": steps, "conf": conf}
        case["jobs"] = args.jobs or (30 if args.quick else 100)
        load = [peers.load_average()]
        ours = peers.run_case(__file__, case, args.timeout)
        load.append(peers.load_average())
        results.append({"case": case, **{k: v for k, v in ours.items() if k not in case}, "load": load})
        print(json.dumps(results[-1]), flush=True)
    for line in lines_of(results):
        print(json.dumps(line), flush=True)
    return int(any("error" in r for r in results))


if __name__ == "__main__":
    sys.exit(main())
