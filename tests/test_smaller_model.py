"""The example of smaller models: what each way does to a network, and the whole program in a small form."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from tests.loaded_example import loaded

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="module")
def example() -> Iterator[Any]:
    pytest.importorskip("sklearn", reason="the example's digits")
    with loaded("smaller_model") as module:
        yield module


def test_the_smallest_weights_of_all_layers_go(example: Any) -> None:
    model = example.network(32)
    copied = example.pruned(model, 0.8)
    kept = torch.cat([m.weight.abs().flatten() for m in copied.modules() if isinstance(m, nn.Linear)])
    whole = torch.cat([m.weight.abs().flatten() for m in model.modules() if isinstance(m, nn.Linear)])
    assert (kept == 0).float().mean().item() == pytest.approx(0.8, abs=1e-3)
    assert kept[kept > 0].min() >= whole[kept == 0].max()
    assert sorted(copied.state_dict()) == sorted(model.state_dict())


def test_a_student_that_equals_its_teacher_learns_from_the_labels_alone(example: Any) -> None:
    class Rows:
        inputs, target = (torch.rand(8, 64),), torch.arange(8)

    teacher = example.network(16)
    same = example.Distillation(teacher)(teacher, Rows)
    labels = nn.functional.cross_entropy(teacher(*Rows.inputs), Rows.target)
    torch.testing.assert_close(same, example.LABELS * labels)
    other = example.Distillation(example.network(16))
    other(teacher, Rows).backward()
    assert all(p.grad is None for p in other.teacher.parameters())
    assert all(p.grad is not None for p in teacher.parameters())


@pytest.mark.spark
def test_the_program(
    example: Any, spark: SparkSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["smaller_model", "--epochs", "1", "--replicas", "2"])
    example.main()
    lines = capsys.readouterr().out.splitlines()
    assert sum("accuracy" in line for line in lines) + sum("not installed" in line for line in lines) == 7
