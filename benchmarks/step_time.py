"""How long one training step takes, beside the peers on the same machine in the same run.

One JSON line per case (model, replicas, master, form, wire). Every case has a JVM of its own. The peers of a model are
measured once, right before its first case: torch, DDP and BigDL with two tasks; where a case has more replicas, BigDL
is also measured with as many tasks (bigdl_4: local[4], however many cores there are).

  ours_ms       median over the steps after the 500th (the last 60 % of a run too short for that), as the peers' figures
  ours_wall_ms  wall clock of the same steps over their number: with snapshots, records and ends of epochs
  first200_s    the first 200 steps in seconds: what a short run feels
  load          the machine's one-minute load before and after: how disturbed the figures are

    python benchmarks/step_time.py --quick                                  about a minute
    python benchmarks/step_time.py --models mlp,big --replicas 2,4,8 --bigdl PYTHON
    python benchmarks/step_time.py --masters "local[2]" "local-cluster[2,1,2000]" --forms gather,fused,jobs
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
import tempfile
import time
from typing import Any

import models
import peers

QUICK_STEPS = {"mlp": 200, "lenet": 150, "big": 20, "conv": 4, "tiny": 200}
MAX_ROWS = 16384
MAX_NUMBERS = 1 << 24  # of the features; 64 MB
PARTS = ("compute_ms", "sync_ms", "scheduling_ms")


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """Trains one case in this process with a session of its own."""
    import torch

    from sparkdl import Trainer

    batch, steps = case["batch"], case["steps"]
    rows = min(steps * batch, MAX_ROWS, MAX_NUMBERS // models.SPECS[case["model"]].num_features)
    rows = max(batch, rows // batch * batch)
    features, labels = models.make_rows(case["model"], rows)
    clock = peers.Clock()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        spark = peers.start_session(case["master"], {"spark.local.dir": folder, **case["conf"]})
        session_s = time.perf_counter() - begun
        trainer = Trainer(
            models.make_model(case["model"]),
            loss=torch.nn.CrossEntropyLoss(),
            optimizer=models.make_optimizer,
            feature_cols="features",
            label_col="label",
            batch_size=batch,
            replicas=case["replicas"],
            form=case["form"],
            wire=case["wire"],
        )
        begun = time.perf_counter()
        data = {"features": features, "label": labels}
        with peers.watching(clock.on_step):
            history = trainer.fit(data, epochs=math.ceil(steps * batch / rows), verbose=0)
        fit_s = time.perf_counter() - begun
        spark.stop()
    return {"session_s": round(session_s, 1), "fit_s": round(fit_s, 1), **summary_of(history, clock)}


def summary_of(history: Any, clock: peers.Clock) -> dict[str, Any]:
    """The figures of a finished run: ours_* over the settled steps, and where their time went."""
    records = history.steps
    times = peers.StepTimes([float(ms) for ms in 1000 * records["rows"] / records["rows_per_second"]])
    first = peers.settled_from(len(times.ms))
    summary: dict[str, Any] = {f"ours_{name}": value for name, value in times.summary().items()}
    summary["ours_wall_ms"] = clock.wall_ms(first)
    summary["first200_s"] = round(sum(times.ms[:200]) / 1000, 2)
    summary |= {part: round(float(records[part][first:].median()), 2) for part in PARTS}
    summary["last_loss"] = round(float(records["loss"].iloc[-1]), 4)
    summary["events"] = [text for _, text in history.events]
    return summary


def cases(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every combination that the command line asks for."""
    conf = dict(pair.split("=", 1) for pair in args.conf)
    conf["spark.sparkdl.sameHost"] = str(args.same_host).lower()
    grid = itertools.product(args.models, args.masters, args.replicas, args.forms, args.wire)
    found = []
    for model, master, replicas, form, wire in grid:
        steps = args.steps or (QUICK_STEPS[model] if args.quick else models.SPECS[model].default_steps)
        found.append(
            {
                "model": model,
                "master": master,
                "replicas": replicas,
                "form": form,
                "wire": wire,
                "batch": args.batch,
                "steps": steps,
                "conf": conf,
            }
        )
    return found


def peers_of(case: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """The peers' figures for the model of this case."""
    if args.no_peers:
        return {}
    peer_steps = min(case["steps"], args.peer_steps)
    return peers.measure(case["model"], case["batch"], peer_steps, args.bigdl or None, bigdl_steps=case["steps"])


def measure(case: dict[str, Any], beside: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Our case in a fresh process; one dictionary for one output line."""
    load = [peers.load_average()]
    ours = peers.run_case(__file__, case, args.timeout)
    load.append(peers.load_average())
    result = {"case": case, **{k: v for k, v in ours.items() if k not in case}, "peers": beside, "load": load}
    if "ours_ms" in ours:
        result["ratios"] = {f"over_{name}": round(ours["ours_ms"] / peer["ms"], 2) for name, peer in beside.items()}
    return result


def main() -> int:
    """The command line; returns 1 when a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words, numbers = peers.comma_words, peers.comma_numbers
    parser.add_argument("--models", type=words, default=["mlp"], help=f"of {', '.join(models.SPECS)} (mlp)")
    parser.add_argument("--replicas", type=numbers, default=[2], help="such as 2,4,8 (2)")
    parser.add_argument(
        "--masters", nargs="+", default=["local[2]"], help='such as "local[2]" "local-cluster[2,1,2000]"'
    )
    parser.add_argument("--forms", type=words, default=["auto"], help="of auto, jobs, fused, gather (auto)")
    parser.add_argument("--wire", type=words, default=["fp32"], help="of fp32, bf16 (fp32)")
    parser.add_argument("--batch", type=int, default=512, help="rows of one step over all replicas (512)")
    parser.add_argument("--steps", type=int, help="steps of each case (enough for the model to settle)")
    parser.add_argument("--peer-steps", type=int, default=300, help="at most so many for torch and DDP (300)")
    parser.add_argument(
        "--same-host", action="store_true", help="gradients through the host's memory, not Spark's block store"
    )
    parser.add_argument(
        "--bigdl",
        nargs="?",
        const=os.environ.get("BIGDL_PYTHON", ""),
        metavar="PYTHON",
        help="measure BigDL as well, with this interpreter ($BIGDL_PYTHON); README.md says how to make its environment",
    )
    parser.add_argument("--no-peers", action="store_true", help="ours only")
    parser.add_argument(
        "--conf", action="append", default=[], metavar="KEY=VALUE", help="a further Spark setting; may be repeated"
    )
    parser.add_argument("--timeout", type=float, default=1200, help="seconds for one case (1200)")
    parser.add_argument("--quick", action="store_true", help="few steps: shows that it works, not what it costs")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(run_case(json.loads(args.case))))
        return 0
    if args.bigdl == "":
        parser.error("--bigdl needs the interpreter of BigDL's environment, or $BIGDL_PYTHON")
    if unknown := set(args.models) - set(models.SPECS):
        parser.error(f"there is no model {', '.join(sorted(unknown))}; choose of {', '.join(models.SPECS)}")
    failed = False
    measured: dict[str, dict[str, Any]] = {}
    wider: dict[tuple[str, int], dict[str, Any]] = {}
    for case in cases(args):
        key = case["model"], case["replicas"]
        if case["model"] not in measured:
            measured[case["model"]] = peers_of(case, args)
        if args.bigdl and case["replicas"] > 2 and case["model"] != "tiny" and key not in wider:
            tasks = peers.bigdl_step(
                case["model"], case["batch"], case["steps"], args.bigdl, f"local[{case['replicas']}]"
            )
            wider[key] = {f"bigdl_{case['replicas']}": tasks.summary()}
        result = measure(case, measured[case["model"]] | wider.get(key, {}), args)
        failed |= "error" in result
        print(json.dumps(result), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
