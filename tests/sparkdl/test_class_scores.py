from __future__ import annotations

import pytest
import torch
from torch import nn

from sparkdl.class_scores import ClassScores, classes_of
from sparkdl.errors import ConfigError

ROWS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) * 4


def test_scores_of_classes() -> None:
    found = ClassScores(nn.Identity(), 3, "classes")(ROWS)
    assert torch.equal(found[:, :3], ROWS)
    assert torch.equal(found[:, 3:6], ROWS.softmax(1))
    assert torch.equal(found[:, 6], ROWS.argmax(1).float())
    some = ClassScores(nn.Identity(), 3, "classes", ["prediction", "probability"])(ROWS)
    assert torch.equal(some, found[:, 3:])


def test_one_row_that_the_model_squeezes() -> None:
    found = ClassScores(nn.Flatten(0), 3, "classes")(ROWS[:1])
    assert torch.equal(found, ClassScores(nn.Identity(), 3, "classes")(ROWS[:1]))


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_one_number_for_two_classes(shape: tuple[int, ...]) -> None:
    logits = ROWS[:, 0].reshape(shape)
    found = ClassScores(nn.Identity(), 2, "logit")(logits)
    flat = logits.reshape(-1)
    assert torch.equal(found[:, :2], torch.stack([-flat, flat], 1))
    assert torch.equal(found[:, 3], flat.sigmoid())
    assert torch.allclose(found[:, 2:4].sum(1), torch.ones(6))
    assert torch.equal(found[:, 4], (flat > 0).float())
    same = ClassScores(nn.Identity(), 2, "probability")(logits.sigmoid())
    assert torch.allclose(same, found, atol=1e-5)


def test_bfloat16_outputs_have_the_digits_of_float32() -> None:
    found = ClassScores(nn.Identity(), 3, "classes")(ROWS.bfloat16())
    assert found.dtype == torch.float32
    assert torch.allclose(found[:, 3:6].sum(1), torch.ones(6), atol=1e-6)


def test_what_outputs_are() -> None:
    assert classes_of((7,), nn.CrossEntropyLoss()) == (7, "classes")
    assert classes_of((), nn.BCEWithLogitsLoss()) == classes_of((1,), None) == (2, "logit")
    assert classes_of((), nn.BCELoss()) == (2, "probability")
    with pytest.raises(ConfigError, match=r"gives \(3, 4\) numbers a row; TorchClassifier tells one class a row"):
        classes_of((3, 4), nn.CrossEntropyLoss())
    with pytest.raises(ConfigError, match=r"BCEWithLogitsLoss makes 3 labels of them"):
        classes_of((3,), nn.BCEWithLogitsLoss())
