"""Sparse embeddings on Spark: all forms have the twin's bits and torch's numbers, whatever was lost or resumed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession
from torch import nn
from torch.optim import SGD, Adagrad

from sparkdl import MaxIteration, ModelCheckpoint, SeveralIteration, Trainer, batches, slices
from sparkdl.replica_cache import run_directory
from sparkdl.spark_engine import SparkEngine
from sparkdl.step_settings import StepSettings
from tests.sparkdl.runs import fingerprint_of_twin, replica_rows
from tests.sparkdl.sparse_runs import PAIR, USERS, Scores, data

pytestmark = pytest.mark.spark


@pytest.fixture(autouse=True)
def _cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of several lots. Executors take the layout from the payload."""
    monkeypatch.setattr(slices, "TABLE_LOT_SIZE", 512)


def trainer_of(model: nn.Module, optimizer: Any = PAIR, **options: Any) -> Trainer:
    options = {"batch_size": 40, "replicas": 3, "seed": 2} | options
    return Trainer(model, nn.MSELoss(), optimizer, feature_cols=["user", "item", "words"], **options)


@pytest.mark.parametrize("form", ["gather", "fused", "jobs"])
def test_every_form_has_the_bits_of_the_twin(spark: SparkSession, form: str) -> None:
    rows = data(250)  # the last step of an epoch is partial
    trainer = trainer_of(
        Scores(), form=form, clip_norm=0.01, scheduler=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9)
    )
    history = trainer.fit(rows, epochs=2, verbose=0)
    assert history.fingerprint == fingerprint_of_twin(trainer, Scores(), rows, epochs=2)


@pytest.mark.parametrize("options", [{"wire": "bf16", "steps_per_job": 4}, {"accumulate": 2, "clip_value": 0.001}])
def test_options_change_forms_alike_and_a_model_may_be_tables_alone(
    spark: SparkSession, options: dict[str, Any]
) -> None:
    rows = data(220)
    prints = set()
    for form in ("gather", "fused"):
        trainer = trainer_of(Scores(layer=False), partial(SGD, lr=1.0), form=form, **options)
        prints.add(trainer.fit(rows, epochs=1, verbose=0).fingerprint)
    prints.add(fingerprint_of_twin(trainer, Scores(layer=False), rows, epochs=1))
    assert len(prints) == 1


@pytest.mark.parametrize("name", ["adam", "adagrad"])
def test_ten_steps_equal_plain_torch(spark: SparkSession, name: str) -> None:
    rows = data(400)
    model, expected = Scores(layer=name == "adam"), Scores(layer=name == "adam")
    for net in (model, expected):
        for module in net.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    tables = [p for n, p in expected.named_parameters() if not n.startswith("layer")]
    if name == "adagrad":
        made: Any = partial(Adagrad, lr=0.05, initial_accumulator_value=0.1)
        optimizers: list[Any] = [made(tables)]
    else:
        made = PAIR
        optimizers = [PAIR["sparse"](tables), PAIR["dense"](expected.layer.parameters())]  # type: ignore[union-attr]
    trainer = trainer_of(model, made, form="fused")
    trainer.fit(rows, epochs=1, verbose=0)
    parts = replica_rows(rows, 3)
    counts = [len(p["label"]) for p in parts]
    for step in range(10):
        picked = [batches.rows(2, 0, step, r, counts, 40) for r in range(3)]
        batch = {
            n: torch.from_numpy(np.concatenate([p[n][i] for p, i in zip(parts, picked, strict=True)])) for n in rows
        }
        for optimizer in optimizers:
            optimizer.zero_grad()
        nn.functional.mse_loss(expected(batch["user"], batch["item"], batch["words"]), batch["label"]).backward()
        for optimizer in optimizers:
            optimizer.step()
    start = dict(Scores(layer=name == "adam").named_parameters())
    for (n, found), wanted in zip(trainer.model.named_parameters(), expected.parameters(), strict=True):
        difference = (found - wanted).detach().abs().max() / wanted.detach().abs().max()
        assert difference < 2e-6, n
        assert (found != start[n]).any(), n
    untouched = sorted(set(range(USERS)) - set(rows["user"].tolist()))
    assert torch.equal(trainer.model.users.weight[untouched], start["users.weight"][untouched])


@pytest.mark.parametrize(("form", "name"), [("gather", "state"), ("fused", "tables")])
def test_lost_state_and_lost_copies_change_no_bit(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, form: str, name: str
) -> None:
    rows = data(240)
    run = SparkEngine.run
    lost: list[str] = []

    def run_and_lose(self: Any, steps: Sequence[StepSettings]) -> Any:
        if steps[0].step == 4:
            path = Path(run_directory(self.run_id)) / f"{name}-{self._generation}"
            lost.append(path.name)
            with path.open("r+b") as file:  # no lot has a stamp any more
                file.write(bytes(2 * self.payload.plan.num_lots * 8))
        return run(self, steps)

    monkeypatch.setattr(SparkEngine, "run", run_and_lose)
    trainer = trainer_of(Scores(), form=form)
    history = trainer.fit(rows, epochs=1, verbose=0)
    assert lost == [f"{name}-0"]
    assert [text.partition(":")[0] for _, text in history.events] == ["went back from step 4 to step 0"]
    assert history.fingerprint == fingerprint_of_twin(trainer, Scores(), rows, epochs=1)


@pytest.mark.parametrize("form", ["gather", "fused"])
def test_a_resumed_training_has_the_bits_of_one_that_never_stopped(
    spark: SparkSession, tmp_path: Path, form: str
) -> None:
    rows = data(240)
    checkpoint = ModelCheckpoint(str(tmp_path), every=SeveralIteration(5))
    trainer_of(Scores(), form=form).fit(rows, epochs=MaxIteration(8), callbacks=[checkpoint], verbose=0)
    trainer = trainer_of(Scores(), form=form)
    history = trainer.fit(rows, epochs=2, callbacks=[checkpoint], resume="auto", verbose=0)
    assert history.fingerprint == fingerprint_of_twin(trainer, Scores(), rows, epochs=2)
