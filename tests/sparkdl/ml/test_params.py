from __future__ import annotations

import json

import pytest
from torch import nn

from sparkdl.errors import ConfigError
from sparkdl.ml import TorchClassifier, TorchEstimator, TorchModel


def test_columns_have_both_spellings() -> None:
    python = TorchClassifier(features_col="x", label_col="y", raw_prediction_col="r", validation_indicator_col="v")
    sparks = TorchClassifier(featuresCol="x", labelCol="y", rawPredictionCol="r", validationIndicatorCol="v")  # type: ignore[call-arg]
    for stage in (python, sparks):
        assert (stage.getFeaturesCol(), stage.getLabelCol(), stage.getRawPredictionCol()) == ("x", "y", "r")
        assert stage.getValidationIndicatorCol() == "v"
    assert TorchEstimator(output_col="out").getPredictionCol() == "out"
    assert TorchEstimator(features_col={"ids": "a", "dense": ["b", "c"]}).getOrDefault("featuresCol")["ids"] == "a"
    chained = TorchClassifier().setFeaturesCol("f").setLabelCol("l").setProbabilityCol("").setParams(batch_size=7)
    assert (chained.getProbabilityCol(), chained.getOrDefault(chained.batch_size)) == ("", 7)


def test_extra_values_go_into_copies_alone() -> None:
    model = nn.Linear(2, 2)
    stage = TorchClassifier(model=model, batch_size=32)
    copy = stage.copy({stage.batch_size: 64, stage.learning_rate: 0.5})
    assert (copy.getOrDefault("batch_size"), copy.getOrDefault("learning_rate")) == (64, 0.5)
    assert (stage.getOrDefault("batch_size"), stage.getOrDefault("learning_rate")) == (32, None)
    assert copy.getOrDefault("model") is model


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("num_workers", "TorchClassifier has no Param 'num_workers'; here it is replicas"),
        ("batchsize", "did you mean 'batch_size'?"),
        ("lr", "here it is learning_rate"),
        ("tree_depth", "there are .*accumulate, batch_size, callbacks"),
    ],
)
def test_unknown_words(word: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        TorchClassifier(**{word: 1})  # type: ignore[misc]


def test_wrong_types() -> None:
    with pytest.raises(TypeError, match=r'Invalid param value given for param "batch_size"'):
        TorchClassifier(batch_size=2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"1.5 is no fraction of the rows"):
        TorchClassifier(validation_fraction=1.5)
    with pytest.raises(ConfigError, match=r"TorchModel has no Param 'epochs'"):
        TorchModel().setParams(epochs=3)


def test_every_param_is_explained_and_defaults_are_json() -> None:
    stage = TorchClassifier()
    assert all(param.doc for param in stage.params)
    assert "rows of a step" in stage.explainParams()
    defaults = {param.name: value for param, value in stage._defaultParamMap.items()}
    assert json.loads(json.dumps(defaults)) == defaults
    assert defaults["seed"] == 0
