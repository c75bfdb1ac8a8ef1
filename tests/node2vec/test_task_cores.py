from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from node2vec import task_cores

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


class Context:
    """As much of a SparkContext as is asked."""

    defaultParallelism = 6

    def __init__(self, master: str, settings: dict[str, str]):
        self.master, self.settings = master, settings

    def getConf(self) -> dict[str, str]:
        return self.settings


@pytest.mark.parametrize(
    ("master", "settings", "cores"),
    [
        ("local[6]", {"spark.executor.cores": "3"}, 6),
        ("local-cluster[2,4,1024]", {}, 4),
        ("yarn", {"spark.executor.cores": "3"}, 3),
        ("yarn", {}, 1),
    ],
)
def test_what_the_session_says_of_an_executor(master: str, settings: dict[str, str], cores: int) -> None:
    context: Any = Context(master, settings)
    assert task_cores.executor_cores(context) == cores


def test_a_local_master_has_no_profiles_and_one_executor(spark: SparkSession) -> None:
    assert task_cores.profile(spark.sparkContext, 2) is None
    assert task_cores.all_at_once(spark.sparkContext, 99, 2)


def test_tasks_that_have_to_wait_may_run_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    context: Any = Context("yarn", {})
    monkeypatch.setattr(task_cores, "concurrent_tasks", lambda sc: 3)
    assert [task_cores.all_at_once(context, number, 1) for number in (3, 4)] == [True, False]
    monkeypatch.setattr(task_cores, "concurrent_tasks", lambda sc: None)
    assert [task_cores.all_at_once(context, number, 2) for number in (6, 7)] == [True, False]


def test_a_refusal_is_no_error() -> None:
    context: Any = Context("yarn", {})
    assert task_cores.profile(context, 1) is None
    assert task_cores.profile(context, 2) is None  # it has no JVM
