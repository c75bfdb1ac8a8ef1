"""Laws 1, 2 and 5 on Spark: every form of a step gives the bits of the single-process twin, which is plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession
from torch import nn

from sparkdl import Trainer, batches
from tests.sparkdl.runs import arrays, fingerprint_of_twin, mlp, norm_net, trained_by_torch

pytestmark = pytest.mark.spark

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True),
    "adam": partial(torch.optim.Adam, lr=1e-3),
    "adamw": partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1),
    "rmsprop": partial(torch.optim.RMSprop, lr=1e-3),
    "adagrad": partial(torch.optim.Adagrad, lr=1e-2),
    "adafactor": partial(torch.optim.Adafactor, lr=1e-2),  # aligned with tensors
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("replicas", [1, 2, 3, 5])
def test_twenty_steps_equal_plain_torch(spark: SparkSession, name: str, replicas: int) -> None:
    data = arrays(rows=457)  # ten steps an epoch, the last one partial; replicas hold uneven shares
    model = mlp()
    form = ("gather", "fused", "jobs")[replicas % 3]
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), OPTIMIZERS[name], batch_size=48, replicas=replicas, form=form, seed=3
    )
    history = trainer.fit(data, epochs=2, verbose=0)
    assert len(history.steps) == 20
    expected = trained_by_torch(mlp(), OPTIMIZERS[name], data, replicas, batch_size=48, epochs=2, seed=3)
    largest = max(float(p.detach().abs().max()) for p in expected.parameters())
    difference = max(
        float((a - b).detach().abs().max())
        for a, b in zip(trainer.model.parameters(), expected.parameters(), strict=True)
    )
    print(f"{name}, {replicas} replicas, {form}: largest difference {difference / largest:.1e}")  # pytest -s
    assert difference / largest < 2e-6


@pytest.mark.parametrize("form", ["gather", "fused", "jobs"])
def test_every_form_has_the_bits_of_the_twin(spark: SparkSession, form: str) -> None:
    data = arrays(rows=300)
    options: dict[str, Any] = {"batch_size": 64, "replicas": 3, "seed": 1, "clip_norm": 0.5, "clip_value": 0.1}
    trainer = Trainer(
        norm_net(),
        nn.CrossEntropyLoss(),
        OPTIMIZERS["adamw"],
        scheduler=partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.01, total_steps=20),
        form=form,
        **options,
    )
    history = trainer.fit(data, epochs=2, verbose=0)
    assert history.fingerprint == fingerprint_of_twin(trainer, norm_net(), data, epochs=2)


@pytest.mark.parametrize("options", [{"wire": "bf16"}, {"accumulate": 3}, {"precision": "bf16"}])
def test_options_have_the_bits_of_the_twin(spark: SparkSession, options: dict[str, Any]) -> None:
    data = arrays(rows=200)
    prints = set()
    for form in ("gather", "fused"):
        trainer = Trainer(
            norm_net(), nn.CrossEntropyLoss(), OPTIMIZERS["sgd"], batch_size=64, replicas=2, form=form, **options
        )
        prints.add(trainer.fit(data, epochs=1, verbose=0).fingerprint)
        prints.add(fingerprint_of_twin(trainer, norm_net(), data, epochs=1))
    assert len(prints) == 1


@pytest.mark.parametrize("form", ["gather", "fused"])
def test_steps_per_job_changes_no_bit(spark: SparkSession, form: str) -> None:
    data = arrays(rows=500)
    prints = {
        k: Trainer(
            mlp(), nn.CrossEntropyLoss(), OPTIMIZERS["adam"], batch_size=32, replicas=2, form=form, steps_per_job=k
        )
        .fit(data, epochs=1, verbose=0)
        .fingerprint
        for k in (1, 10)
    }
    assert prints[1] == prints[10]


@pytest.mark.parametrize("wire", ["fp32", "bf16"])
def test_same_host_sharing_changes_no_bit(spark: SparkSession, wire: str) -> None:
    data = arrays(rows=300)
    prints = []
    for shared in ("false", "true"):
        spark.conf.set("spark.sparkdl.sameHost", shared)
        trainer = Trainer(
            norm_net(), nn.CrossEntropyLoss(), OPTIMIZERS["adam"], batch_size=64, replicas=3, form="gather", wire=wire,
            clip_norm=0.5,
        )  # fmt: skip
        prints.append(trainer.fit(data, epochs=1, verbose=0).fingerprint)
    spark.conf.unset("spark.sparkdl.sameHost")
    assert prints[0] == prints[1]


def test_a_frame_gives_the_same_bits_however_it_is_partitioned(spark: SparkSession) -> None:
    data = arrays(rows=250)
    rows = [(x.tolist(), int(y)) for x, y in zip(data["features"], data["label"], strict=True)]
    prints = []
    for partitions in (1, 7):
        frame = spark.createDataFrame(rows, "features array<float>, label int").repartition(partitions)
        trainer = Trainer(mlp(), nn.CrossEntropyLoss(), OPTIMIZERS["adam"], batch_size=64, replicas=3)
        history = trainer.fit(frame, epochs=1, verbose=0)
        assert history.steps["rows"].tolist() == [64, 64, 64, 58]
        prints.append(history.fingerprint)
    assert prints[0] == prints[1]


def test_weights_and_class_weights_equal_torch(spark: SparkSession) -> None:
    data = arrays(rows=90) | {"w": np.linspace(0.1, 2.0, 90, dtype=np.float32)}
    class_weights = torch.tensor([0.2, 1.0, 3.0, 1.0, 0.5])
    for loss, weight_col in ((nn.CrossEntropyLoss(weight=class_weights), None), (nn.CrossEntropyLoss(), "w")):
        trainer = Trainer(
            mlp(), loss, OPTIMIZERS["sgd"], batch_size=90, replicas=4, form="fused", weight_col=weight_col
        )
        trainer.fit(data, epochs=2, verbose=0)
        model = mlp()
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        x, y, w = (torch.from_numpy(data[k]) for k in ("features", "label", "w"))
        for _ in range(2):
            optimizer.zero_grad()
            if weight_col:
                each = nn.functional.cross_entropy(model(x), y, reduction="none")
                value = (each * w).sum() / w.sum()
            else:
                value = loss(model(x), y)
            value.backward()
            optimizer.step()
        for a, b in zip(trainer.model.parameters(), model.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-6)


def test_groups_schedules_and_history(spark: SparkSession) -> None:
    def groups(named_parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        decay = [p for _, p in named_parameters if p.ndim > 1]
        rest = [p for _, p in named_parameters if p.ndim <= 1]
        return torch.optim.AdamW(
            [{"params": decay, "weight_decay": 0.1}, {"params": rest, "lr": 5e-3, "weight_decay": 0.0}], lr=1e-3
        )

    data = arrays(rows=100)
    trainer = Trainer(
        mlp(),
        nn.CrossEntropyLoss(),
        groups,
        scheduler=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5),
        metrics={"accuracy": lambda output, target: (output.argmax(1) == target).float().mean()},
        batch_size=100,
        replicas=3,
    )
    history = trainer.fit(data, epochs=3, verbose=0)
    model = mlp()
    optimizer = groups(list(model.named_parameters()))
    x, y = torch.from_numpy(data["features"]), torch.from_numpy(data["label"])
    losses, hits = [], []
    for step in range(3):
        for group, start in zip(optimizer.param_groups, (1e-3, 5e-3), strict=True):
            group["lr"] = start * 0.5**step
        optimizer.zero_grad()
        output = model(x)
        loss = nn.functional.cross_entropy(output, y)
        losses.append(loss.item())
        hits.append(float((output.argmax(1) == y).float().mean()))
        loss.backward()
        optimizer.step()
    for a, b in zip(trainer.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-7)
    assert history.steps["lr"].tolist() == [1e-3, 5e-4, 2.5e-4]
    assert history.steps["loss"].tolist() == pytest.approx(losses, rel=1e-5)
    assert history.steps["accuracy"].tolist() == pytest.approx(hits, rel=1e-6)
    assert (history.steps[["compute_ms", "sync_ms", "scheduling_ms"]] >= 0).all().all()


def test_every_row_once_an_epoch(spark: SparkSession) -> None:
    """A model that records which rows it saw: its weight's gradient counts them, one place a row."""

    class Count(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen = nn.Embedding(37, 1)
            nn.init.zeros_(self.seen.weight)

        def forward(self, row: torch.Tensor) -> torch.Tensor:
            return self.seen(row).squeeze(1)

    def total(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return -output.mean()

    trainer = Trainer(
        Count(), total, partial(torch.optim.SGD, lr=1.0), batch_size=8, replicas=5, feature_cols="row", label_col=None
    )
    trainer.fit({"row": np.arange(37)}, epochs=2, verbose=0)
    steps = [min(8, 37 - 8 * s) for s in range(batches.num_steps(37, 8))]
    seen = trainer.model.seen.weight.detach().flatten()
    # a row weighs 1 / (rows in its step): 1/8, or 1/5 in the last step of an epoch
    assert float(seen.sum()) == pytest.approx(2 * len(steps), rel=1e-5)
    allowed = torch.tensor([2 / 8, 1 / 8 + 1 / 5, 2 / 5])
    assert all(float((allowed - value).abs().min()) < 1e-6 for value in seen)
