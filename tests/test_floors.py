"""Who may import whom. Floor 0 knows no Spark, floor 1 imports floors 0 and 1, floor 2 anything."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("sparkdl", "node2vec")

FLOORS: dict[int, set[str]] = {
    0: {
        "node2vec",  # its exports are lazy
        "node2vec.alias",
        "node2vec.arc_hash",
        "node2vec.block_schedule",
        "node2vec.block_training",
        "node2vec.corpus_files",
        "node2vec.counter_rng",
        "node2vec.edge_cleaning",
        "node2vec.edge_filter",
        "node2vec.edge_words",
        "node2vec.evaluate",
        "node2vec.graph",
        "node2vec.graph_files",
        "node2vec.graph_parts",
        "node2vec.graph_report",
        "node2vec.host_graph",
        "node2vec.jit",
        "node2vec.minibatch",
        "node2vec.nearest",
        "node2vec.pair_kernel",
        "node2vec.resident_tables",
        "node2vec.skipgram",
        "node2vec.skipgram_torch",
        "node2vec.stage",
        "node2vec.stream_copies",
        "node2vec.superstep",
        "node2vec.table_files",
        "node2vec.table_pieces",
        "node2vec.token_streams",
        "node2vec.training_device",
        "node2vec.transition",
        "node2vec.trial",
        "node2vec.vector_blocks",
        "node2vec.vectors_input",
        "node2vec.walk_files",
        "node2vec.walk_home",
        "node2vec.walk_lanes",
        "node2vec.walk_request",
        "node2vec.walk_source",
        "node2vec.walker_round",
        "node2vec.walks",
        "node2vec.walks_torch",
        "node2vec.window_pairs",
        "node2vec.word2vec_files",
        "sparkdl",  # its exports are lazy
        "sparkdl.arrow_columns",
        "sparkdl.batches",
        "sparkdl.callbacks",
        "sparkdl.checkpoint_files",
        "sparkdl.class_scores",
        "sparkdl.columns",
        "sparkdl.course",
        "sparkdl.dry_run",
        "sparkdl.dry_run_sentences",
        "sparkdl.durable_state",
        "sparkdl.errors",
        "sparkdl.exported_model",
        "sparkdl.heartbeat",
        "sparkdl.history",
        "sparkdl.inspect_checkpoint",
        "sparkdl.java_runtime",
        "sparkdl.label_checks",
        "sparkdl.large_batches",
        "sparkdl.line_chart",
        "sparkdl.mlflow_log",
        "sparkdl.optim",
        "sparkdl.payload",
        "sparkdl.progress",
        "sparkdl.recipes",
        "sparkdl.replica",
        "sparkdl.replica_items",
        "sparkdl.row_files",
        "sparkdl.run_report",
        "sparkdl.saved_model",
        "sparkdl.saved_state",
        "sparkdl.shared_gradient",
        "sparkdl.slices",
        "sparkdl.sparse_optim",
        "sparkdl.sparse_rows",
        "sparkdl.step_settings",
        "sparkdl.stored_arrays",
        "sparkdl.sync",
        "sparkdl.table_rows",
        "sparkdl.training_loop",
        "sparkdl.triggers",
        "sparkdl.versioned_state",
        "sparkdl.versioned_tables",
        "sparkdl.wire",
        "sparkdl.worker_heap",
    },
    1: {
        "node2vec.corpus_job",
        "node2vec.edge_source",
        "node2vec.edge_survey",
        "node2vec.finished_stages",
        "node2vec.graph_job",
        "node2vec.host_directory",
        "node2vec.model_files",
        "node2vec.node_numbering",
        "node2vec.partitioned_walk_job",
        "node2vec.replicated_walk_job",
        "node2vec.rotation",
        "node2vec.similar_job",
        "node2vec.skipgram_job",
        "node2vec.small_graph_job",
        "node2vec.spark_shuffles",
        "node2vec.task_cores",
        "node2vec.vector_survey",
        "node2vec.walk_job",
        "node2vec.walk_numbering",
        "sparkdl.checkpoint_job",
        "sparkdl.evaluate_job",
        "sparkdl.fit_run",
        "sparkdl.forward_backward_job",
        "sparkdl.gather_job",
        "sparkdl.hadoop_files",
        "sparkdl.heartbeat_job",
        "sparkdl.held_out",
        "sparkdl.packed_columns",
        "sparkdl.parameter_sync_job",
        "sparkdl.predict_job",
        "sparkdl.preflight_job",
        "sparkdl.replica_cache",
        "sparkdl.replica_data_job",
        "sparkdl.run_plan",
        "sparkdl.shipped_payload",
        "sparkdl.slices_form",
        "sparkdl.spark_conf",
        "sparkdl.spark_engine",
        "sparkdl.spark_failures",
        "sparkdl.spark_internals",
        "sparkdl.spark_public",
        "sparkdl.state_job",
        "sparkdl.tensorboard_log",
        "sparkdl.training_data",
    },
    2: {
        "node2vec.__main__",
        "node2vec.cli",
        "node2vec.cli_options",
        "node2vec.estimator",
        "node2vec.model",
        "node2vec.root_evaluation",
        "node2vec.vectors_output",
        "node2vec.workflow",
        "sparkdl.__main__",
        "sparkdl.cli",
        "sparkdl.ml",
        "sparkdl.ml.estimators",
        "sparkdl.ml.models",
        "sparkdl.ml.params",
        "sparkdl.ml.persistence",
        "sparkdl.trainer",
    },
}
FLOOR_OF = {module: floor for floor, modules in FLOORS.items() for module in modules}
FORBIDDEN_BELOW_1 = {"pyspark", "py4j"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def imported(source: str) -> set[str]:
    """Modules that a source imports anywhere, functions' bodies too; not under TYPE_CHECKING."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not read here"
            assert node.module is not None
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & PATHS.keys()
            names.update(submodules)
            if len(submodules) < len(node.names):
                names.add(node.module)
        if isinstance(node, ast.If) and is_type_checking(node.test):
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))
    return names


def violations(floor: int, names: set[str]) -> list[str]:
    found = [f"imports {name}" for name in names if floor == 0 and name.partition(".")[0] in FORBIDDEN_BELOW_1]
    ours = [name for name in names if name.partition(".")[0] in PACKAGES]
    found += [
        f"imports {name} of floor {FLOOR_OF.get(name, 'unknown')}" for name in ours if FLOOR_OF.get(name, 9) > floor
    ]
    return sorted(found)


def test_every_module_has_a_floor() -> None:
    assert set(PATHS) <= set(FLOOR_OF), "give the new module a floor in FLOORS"


@pytest.mark.parametrize("name", sorted(PATHS))
def test_imports_stay_on_their_floor(name: str) -> None:
    assert violations(FLOOR_OF[name], imported(PATHS[name].read_text())) == []


def test_the_reader_sees_every_import() -> None:
    source = """
from typing import TYPE_CHECKING
import numpy as np
if TYPE_CHECKING:
    from pyspark.sql import DataFrame
else:
    import py4j
def f():
    import pyspark.sql
    from sparkdl import spark_conf, __version__
"""
    assert imported(source) == {"typing", "numpy", "py4j", "pyspark.sql", "sparkdl.spark_conf", "sparkdl"}
    assert violations(0, imported(source)) == [
        "imports py4j",
        "imports pyspark.sql",
        "imports sparkdl.spark_conf of floor 1",
    ]
    assert violations(1, imported(source)) == []


def test_floor_0_runs_without_pyspark() -> None:
    modules = sorted(FLOORS[0] & set(PATHS))
    program = f"""
import importlib, sys
sys.modules["pyspark"] = None
for name in {modules!r}:
    importlib.import_module(name)
assert "py4j" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
