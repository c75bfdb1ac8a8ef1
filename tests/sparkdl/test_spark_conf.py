from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sparkdl import spark_conf
from sparkdl.spark_conf import SETTINGS, Finding, Setting

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[2]


def run_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, env=env | environment, capture_output=True, text=True, check=False)


def test_the_table_is_well_formed() -> None:
    keys = [setting.key for setting in SETTINGS]
    assert len(set(keys)) == len(keys)
    for setting in SETTINGS:
        assert setting.key.startswith("spark.")
        assert setting.why
        assert spark_conf.satisfied(setting, setting.wants)


@pytest.mark.parametrize("version", ["3.5.9", "4.3.0"])
def test_the_embedded_settings_have_nothing_to_report(version: str) -> None:
    assert spark_conf.deviations(spark_conf.embedded_settings(2, 24_000), version) == []


def test_embedded_settings_fit_the_machine() -> None:
    assert spark_conf.embedded_settings(2, 24_000)["spark.master"] == "local[2,4]"
    memories = [spark_conf.embedded_settings(2, mb)["spark.driver.memory"] for mb in (2_000, 8_000, 64_000)]
    assert memories == ["1024m", "2000m", "4096m"]


def test_defaults_of_a_local_session() -> None:
    found = {finding.key: finding for finding in spark_conf.deviations({"spark.master": "local[*]"}, "4.3.0")}
    assert found["spark.master"].wants == "local[*,4]"
    assert found["spark.master"].level == "safety"
    assert found["spark.python.unix.domain.socket.enabled"].value == "false"
    assert found["spark.shuffle.compress"].wants == "false"
    assert "spark.executor.cores" not in found
    assert "spark.ui.enabled" not in found


def test_defaults_of_a_cluster() -> None:
    settings = {"spark.master": "yarn", "spark.executor.cores": "4", "spark.locality.wait": "2000"}
    found = {finding.key: finding for finding in spark_conf.deviations(settings, "3.5.1-amzn-0")}
    assert set(found) == {"spark.executor.cores", "spark.locality.wait", "spark.broadcast.blockSize"}
    assert found["spark.locality.wait"].wants == "at least 10s"


@pytest.mark.parametrize(
    ("master", "reported"),
    [("local", True), ("local[4]", True), ("local[4,4]", False), ("local-cluster[2,1,1024]", False), ("yarn", False)],
)
def test_masters_that_never_retry(master: str, reported: bool) -> None:
    found = spark_conf.deviations({"spark.master": master}, "4.3.0")
    assert ("spark.master" in [finding.key for finding in found]) == reported


@pytest.mark.parametrize(
    ("value", "good"), [("10s", True), ("9s", False), ("10000", True), ("9999ms", False), ("1min", True), ("?", False)]
)
def test_durations(value: str, good: bool) -> None:
    setting = Setting("spark.locality.wait", "10s", "3s", "always", "why", match="at least")
    assert spark_conf.satisfied(setting, value) == good


def test_foreign_packages_are_reported() -> None:
    assert spark_conf.foreign_packages({"sparkdl": ["sparkdl-torch"], "numpy": ["numpy"]}) == []
    found = spark_conf.foreign_packages({"sparkdl": ["sparkdl-torch", "sparkdl"], "node2vec": ["node2vec", "node2vec"]})
    assert [(finding.level, finding.key, finding.wants) for finding in found] == [
        ("safety", "sparkdl", "pip uninstall sparkdl"),
        ("safety", "node2vec", "pip uninstall node2vec"),
    ]


def test_table() -> None:
    assert "nothing" in spark_conf.table([])
    text = spark_conf.table([Finding("speed", "spark.a", "", "true", "it is faster")])
    assert text == "speed   spark.a is not set, set true\n        because it is faster"


def test_a_connect_session_is_refused() -> None:
    remote = type("SparkSession", (), {"__module__": "pyspark.sql.connect.session"})()
    with pytest.raises(RuntimeError, match=r"Spark Connect has no RDDs.*unset SPARK_REMOTE.*spark-submit"):
        spark_conf.refuse_connect(remote)
    spark_conf.refuse_connect(object())


@pytest.mark.parametrize("variable", [{"SPARK_REMOTE": "sc://localhost"}, {"SPARK_API_MODE": "connect"}])
def test_an_environment_that_would_connect_is_refused(
    variable: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark_conf, "_active_context", lambda: None)
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match="Spark Connect has no RDDs"):
        spark_conf.session()


@pytest.mark.spark
def test_check_prints_what_it_returns(spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> None:
    found = spark_conf.check(spark)
    assert [finding.key for finding in found if finding.key.startswith("spark.")] == []
    assert capsys.readouterr().out == spark_conf.table(found) + "\n"


@pytest.mark.spark
def test_the_active_session_is_used(spark: SparkSession) -> None:
    assert spark_conf.session().sparkContext is spark.sparkContext


@pytest.mark.spark
def test_costs_are_logged_once(
    spark: SparkSession, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = Finding("safety", "spark.task.maxFailures", "1", "at least 4", "why")
    small = Finding("speed", "spark.shuffle.compress", "true", "false", "why")
    monkeypatch.setattr(spark_conf, "_warned", set())
    monkeypatch.setattr(spark_conf, "findings", lambda session: [big, small])
    logger = logging.getLogger("sparkdl.test")
    for _ in range(2):
        spark_conf.warn_once(spark, logger)
    assert len(caplog.records) == 1
    assert "spark.task.maxFailures" in caplog.text
    assert "spark.shuffle.compress" not in caplog.text


@pytest.mark.spark
def test_a_session_is_started_where_there_is_none() -> None:
    program = """
import sys
from sparkdl import spark_conf
spark = spark_conf.session()
assert spark_conf.findings(spark) == [], spark_conf.findings(spark)
assert spark_conf.session() is spark
conf = dict(spark.sparkContext.getConf().getAll())
for key, value in spark_conf.embedded_settings(spark_conf.usable_cores(), spark_conf.memory_mb()).items():
    assert conf[key].endswith(value), (key, conf[key], value)  # Spark puts its own Java options in front
runtime = spark.sparkContext._jvm.java.lang.management.ManagementFactory.getRuntimeMXBean()
assert "-XX:TieredStopAtLevel=1" in list(runtime.getInputArguments())
worker = spark.sparkContext.parallelize([0], 1).map(lambda _: sys.executable).first()
assert worker == sys.executable, worker
spark.stop()
print("done")
"""
    done = run_python(program)
    assert done.stdout.strip().endswith("done"), done.stderr


@pytest.mark.spark
def test_a_session_that_spark_submit_asked_for_keeps_its_master() -> None:
    program = """
from sparkdl import spark_conf
spark = spark_conf.session()
assert spark.sparkContext.master == "local[1,2]", spark.sparkContext.master
assert spark.conf.get("spark.ui.enabled") == "false"
assert spark.conf.get("spark.locality.wait", "unset") == "unset"
spark.stop()
print("done")
"""
    arguments = "--master local[1,2] --conf spark.ui.enabled=false pyspark-shell"
    done = run_python(program, PYSPARK_SUBMIT_ARGS=arguments)
    assert done.stdout.strip().endswith("done"), done.stderr
