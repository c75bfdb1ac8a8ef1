from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.tuning import TrainValidationSplit, TrainValidationSplitModel
from pyspark.sql import DataFrame, SparkSession
from torch import nn

from sparkdl.errors import ConfigError
from sparkdl.hadoop_files import HadoopFiles
from sparkdl.ml import TorchClassificationModel, TorchClassifier, TorchModel, trusted
from tests.sparkdl.engines import other_scheme
from tests.sparkdl.ml.stages import classifier, frame, net, pipeline

pytestmark = pytest.mark.spark

ROOT = Path(__file__).resolve().parents[3]
ANOTHER_PROCESS = """
import sys
from pyspark.ml import PipelineModel
from sparkdl import spark_conf
settings = {"spark.driver.memory": "1g", "spark.local.dir": sys.argv[4]}
spark = spark_conf.start_embedded(cores=2, settings=settings)
PipelineModel.load(sys.argv[1]).transform(spark.read.parquet(sys.argv[2])).coalesce(1).write.parquet(sys.argv[3])
"""


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> DataFrame:
    return frame(spark).cache()


@pytest.fixture(scope="module")
def fitted(rows: DataFrame) -> PipelineModel:
    return pipeline(model=net).fit(rows)


def stage(model: PipelineModel) -> TorchClassificationModel:
    found = model.stages[-1]
    assert isinstance(found, TorchClassificationModel)
    return found


def test_a_pipeline_gives_the_same_bits_in_another_process(
    spark: SparkSession, rows: DataFrame, fitted: PipelineModel, tmp_path: Path
) -> None:
    names = ["model", "rows", "found", "local"]
    paths = [str(tmp_path / name) for name in names]
    fitted.write().overwrite().save(paths[0])
    rows.coalesce(1).write.parquet(paths[1])
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER_PROCESS, *paths], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = fitted.transform(spark.read.parquet(paths[1])).sort("id").collect()
    assert spark.read.parquet(paths[2]).sort("id").collect() == expected


def test_what_a_loaded_model_knows(spark: SparkSession, fitted: PipelineModel, tmp_path: Path) -> None:
    path = other_scheme(spark, tmp_path) + "/model"
    stage(fitted).save(path)
    names = HadoopFiles(spark.sparkContext).list(path)
    assert sorted(names) == ["history.safetensors", "metadata", "model.safetensors"]
    again = TorchModel.load(path)
    assert isinstance(again, TorchClassificationModel)
    assert (again.uid, again.num_classes, again.fitted.kinds) == (stage(fitted).uid, 3, stage(fitted).fitted.kinds)
    assert again.fitted.factory is net
    ours, theirs = stage(fitted).summary, again.summary
    assert theirs.steps.equals(ours.steps)
    assert (theirs.fingerprint, theirs.settings) == (ours.fingerprint, ours.settings)
    with pytest.raises(ConfigError, match=r"there is something at .* already; write"):
        again.save(path)
    again.write().overwrite().save(path)
    with pytest.raises(ConfigError, match=r"holds a sparkdl.ml.TorchClassificationModel, no TorchClassifier; load it"):
        TorchClassifier.load(path)
    with pytest.raises(ConfigError, match=r"there is no saved stage at"):
        TorchModel.load(f"{path}/none")


def test_estimators_come_back_with_their_weights_and_settings(rows: DataFrame, tmp_path: Path) -> None:
    given = net()
    with torch.no_grad():
        given[0].bias.fill_(0.25)  # as a module that was trained before
    whole = pipeline(
        model=given,
        loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])),
        optimizer=partial(torch.optim.SGD, momentum=0.9),
        epochs=1,
    )
    whole.save(str(tmp_path / "pipeline"))
    again = Pipeline.load(str(tmp_path / "pipeline"))
    assert stage(again.fit(rows)).summary.fingerprint == stage(whole.fit(rows)).summary.fingerprint
    split = TrainValidationSplit(
        estimator=again,
        estimatorParamMaps=[{again.getStages()[-1].learning_rate: rate} for rate in (0.01, 0.1)],
        evaluator=MulticlassClassificationEvaluator(),
        parallelism=2,
        collectSubModels=False,
    ).fit(rows)
    split.save(str(tmp_path / "split"))
    found = TrainValidationSplitModel.load(str(tmp_path / "split"))
    assert found.validationMetrics == split.validationMetrics
    best = found.bestModel
    assert isinstance(best, PipelineModel)
    assert best.transform(rows).collect() == split.bestModel.transform(rows).collect()


class Local(nn.Linear):
    """Made to look as if it came from a notebook."""


Local.__module__ = "__main__"


def test_what_lives_nowhere_is_pickled_only_by_those_who_say_so(
    spark: SparkSession, rows: DataFrame, tmp_path: Path
) -> None:
    model = classifier(model=lambda: Local(3, 3), epochs=1).fit(rows)
    path = str(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"model cannot be saved: .*<lambda> lives in no module"):
        model.save(path)
    with pytest.raises(ConfigError, match=r"model cannot be saved: Local lives in __main__, where no other process"):
        classifier(model=Local(3, 3)).save(path)
    assert HadoopFiles(spark.sparkContext).list(path) == {}
    model.save(path, trust=True)
    with pytest.raises(ConfigError, match=r"model was pickled when it was saved with trust=True. Unpickling runs"):
        TorchModel.load(path)
    again = TorchModel.load(path, trust=True)
    assert again.transform(rows).collect() == model.transform(rows).collect()
    whole = PipelineModel([model])
    with trusted():
        whole.save(f"{path}-pipeline")
        assert isinstance(PipelineModel.load(f"{path}-pipeline").stages[0].model, nn.Linear)
    with pytest.raises(ConfigError, match=r"or a pipeline inside `with sparkdl.ml.trusted"):
        PipelineModel.load(f"{path}-pipeline")


def test_a_stage_whose_writer_was_stopped_is_none(
    rows: DataFrame, fitted: PipelineModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "model"
    with monkeypatch.context() as patched:
        patched.setattr("sparkdl.ml.persistence.DefaultParamsWriter.saveMetadata", stop)
        with pytest.raises(KeyboardInterrupt):
            stage(fitted).save(str(path))
    assert (path / "model.safetensors").is_file()
    with pytest.raises(ConfigError, match=r"there is no saved stage at .*, or its writer was stopped before the end"):
        TorchModel.load(str(path))


def test_what_was_changed_on_disk_is_refused(fitted: PipelineModel, tmp_path: Path) -> None:
    path = tmp_path / "model"
    stage(fitted).save(str(path))
    (part,) = (path / "metadata").glob("part-*")
    text = part.read_text()
    for name in (path / "metadata").glob(".*.crc"):
        os.remove(name)

    def changed(**values: Any) -> None:
        part.write_text(json.dumps(json.loads(text) | values))

    changed(format=9)
    with pytest.raises(ConfigError, match=r"has format 9, this sparkdl reads format 1"):
        TorchModel.load(str(path))
    about = json.loads(text)["fitted"]
    changed(fitted=about | {"model": {"partial": "os:system", "arguments": ["true"], "keywords": {"mapping": {}}}})
    with pytest.raises(ConfigError, match=r"names a function that is not called"):
        TorchModel.load(str(path))
    changed(fitted=about | {"model": {"name": "tests.sparkdl.ml.stages:one_number"}})
    with pytest.raises(ConfigError, match=r"has shape|has a tensor"):
        TorchModel.load(str(path))
