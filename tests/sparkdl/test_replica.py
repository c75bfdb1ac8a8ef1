"""The sum over replicas is the gradient of the whole batch, whoever held how many of its rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparkdl import slices
from sparkdl.columns import Columns
from sparkdl.optim import SliceOptimizer, template
from sparkdl.payload import Payload, read_buffers
from sparkdl.replica import Batch, Replica, Sums, step_seed
from sparkdl.table_rows import sparse_rows
from sparkdl.versioned_state import state_plan
from sparkdl.versioned_tables import VersionedTables
from tests.sparkdl.payloads import payload_of

law = settings(deadline=None, max_examples=30, print_blob=True)  # machines may be busy

Arrays = dict[str, np.ndarray]


def run_replica(
    payload: Payload, arrays: Arrays, rows_in_step: int, step: int = 0, number: int = 0, using: Replica | None = None
) -> Sums:
    replica = using or Replica(payload)
    replica.bind(payload.initial_weights())
    floats, raw = read_buffers(payload.model)
    buffers = floats, torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)
    return replica.forward_backward(arrays, rows_in_step, step, number, buffers)


def run_step(
    payload: Payload, arrays: Arrays, counts: Sequence[int]
) -> tuple[dict[str, torch.Tensor], np.ndarray, list[Sums]]:
    """Deals rows out, counts[r] to replica r; returns the mean's gradients by name, the sum of records, all sums."""
    borders = np.cumsum([0, *counts])
    total = int(borders[-1])
    found = []
    replica = Replica(payload)
    for number, (a, b) in enumerate(pairwise(borders)):
        rows = np.arange(a, b)
        found.append(run_replica(payload, {k: v[rows] for k, v in arrays.items()}, total, 0, number, replica))
    record = np.sum([sums.record for sums in found], axis=0)
    scale = record[0] / record[1] if record[1] else 1.0  # sync divides once
    gradients = {}
    for n, t in enumerate(payload.plan.layout.tensors):
        parts = [sums.gradients[n] for sums in found]
        gradients[t.name] = sum((p for p in parts if p is not None), torch.zeros(t.shape)) * scale
    return gradients, record, found


def whole_batch(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6)


def network(outputs: int = 4) -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, outputs))


def rows_of(num_rows: int, seed: int = 0, classes: int = 4) -> Arrays:
    generator = np.random.default_rng(seed)
    return {
        "x": generator.normal(size=(num_rows, 3)).astype(np.float32),
        "y": generator.integers(0, classes, num_rows),
        "z": generator.normal(size=(num_rows, 4)).astype(np.float32),
        "w": generator.uniform(0.1, 3, num_rows).astype(np.float32),
    }


def tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


shares = st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any)


@law
@given(shares, st.integers(0, 99))
def test_the_sum_over_replicas_is_the_whole_batchs_mean(counts: list[int], seed: int) -> None:
    model = network()
    arrays = rows_of(sum(counts), seed)
    gradients, record, _ = run_step(payload_of(model, nn.MSELoss(), Columns.parse("x", "z")), arrays, counts)
    t = tensors(arrays)
    loss = nn.functional.mse_loss(model(t["x"]), t["z"])
    assert_same(gradients, whole_batch(model, loss))
    assert record[:2].tolist() == [sum(counts), sum(counts)]
    assert record[2] / record[1] == pytest.approx(loss.item(), rel=1e-5)


def test_1_1_1_9_in_3_and_1_is_3() -> None:
    """The mean of the means would be 5."""
    model = nn.Linear(1, 1, bias=False)
    arrays = {"x": np.array([[1], [1], [1], [9]], np.float32), "y": np.zeros(4, np.float32)}
    payload = payload_of(model, lambda output, target: output.mean(), metrics={"first": lambda o, t: o.mean()})
    gradients, record, _ = run_step(payload, arrays, [3, 1])
    assert gradients["weight"].item() == 3.0
    weight = model.weight.item()
    assert record[2] / record[1] == pytest.approx(3 * weight)
    assert record[3] / record[0] == pytest.approx(3 * weight)


def test_a_replica_without_rows_gives_nothing() -> None:
    payload = payload_of(network(), nn.CrossEntropyLoss())
    sums = run_replica(payload, {k: v[:0] for k, v in rows_of(3).items()}, 3)
    assert sums.gradients == [None] * 4
    assert not sums.record.any()
    assert sums.raw_buffers == b""


class_weights = torch.tensor([0.2, 3.0, 1.0, 0.5])
CLASS_LOSSES = {
    "plain": nn.CrossEntropyLoss(),
    "weights": nn.CrossEntropyLoss(weight=class_weights),
    "ignored": nn.CrossEntropyLoss(ignore_index=2),
    "ignored, weights": nn.CrossEntropyLoss(weight=class_weights, ignore_index=1),
    "smoothed": nn.CrossEntropyLoss(weight=class_weights, ignore_index=1, label_smoothing=0.3),
    "smoothed only": nn.CrossEntropyLoss(label_smoothing=0.3),
}


@pytest.mark.parametrize("name", CLASS_LOSSES)
@law
@given(counts=shares, seed=st.integers(0, 99))
def test_class_losses_are_divided_once(name: str, counts: list[int], seed: int) -> None:
    model, loss = network(), CLASS_LOSSES[name]
    arrays = rows_of(sum(counts), seed)
    gradients, record, _ = run_step(payload_of(model, loss), arrays, counts)
    t = tensors(arrays)
    if loss.ignore_index >= 0 and bool((t["y"] == loss.ignore_index).all()):
        assert not any(g.any() for g in gradients.values())
        return
    expected = loss(model(t["x"]), t["y"])
    assert_same(gradients, whole_batch(model, expected))
    assert record[2] / record[1] == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("weight", [None, class_weights])
def test_an_ignored_label_need_not_be_a_class(weight: torch.Tensor | None) -> None:
    model, loss = network(), nn.CrossEntropyLoss(weight=weight, ignore_index=255)
    arrays = rows_of(9)
    arrays["y"][[0, 4, 5, 8]] = 255
    t = tensors(arrays)
    expected = whole_batch(model, loss(model(t["x"]), t["y"]))
    assert_same(run_step(payload_of(model, loss), arrays, [4, 5])[0], expected)


@pytest.mark.parametrize("weight", [None, class_weights])
def test_where_every_label_is_ignored_the_gradient_is_zero(weight: torch.Tensor | None) -> None:
    model, loss = network(), nn.CrossEntropyLoss(weight=weight)
    arrays = rows_of(5)
    arrays["y"][:] = -100
    gradients, record, _ = run_step(payload_of(model, loss), arrays, [3, 2])
    assert not any(g.any() for g in gradients.values())
    assert record[:3].tolist() == [5, 0, 0]
    arrays["y"][3:] = 1  # one replica of two has labels
    t = tensors(arrays)
    expected = whole_batch(model, loss(model(t["x"]), t["y"]))
    assert_same(run_step(payload_of(model, loss), arrays, [3, 2])[0], expected)


class Sequences(nn.Module):
    """Scores of 4 classes at 3 places."""

    def __init__(self, log: bool):
        super().__init__()
        torch.manual_seed(4)
        self.linear, self.log = nn.Linear(3, 12), log

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.linear(x).view(len(x), 4, 3)
        return scores.log_softmax(1) if self.log else scores


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(ignore_index=0), nn.NLLLoss(weight=class_weights, ignore_index=0)]
)
@pytest.mark.parametrize("counts", [[5, 2], [1, 0, 6], [7]])
def test_labels_may_be_sequences(loss: Any, counts: list[int]) -> None:
    model = Sequences(isinstance(loss, nn.NLLLoss))
    arrays = rows_of(7) | {"y": np.random.default_rng(3).integers(0, 4, (7, 3))}
    t = tensors(arrays)
    expected = loss(model(t["x"]), t["y"])
    gradients, record, _ = run_step(payload_of(model, loss), arrays, counts)
    assert_same(gradients, whole_batch(model, expected))
    assert record[2] / record[1] == pytest.approx(expected.item(), rel=1e-5)


def test_labels_may_be_probabilities() -> None:
    model, loss = network(), nn.CrossEntropyLoss(weight=class_weights)
    arrays = rows_of(7)
    arrays["z"] = np.abs(arrays["z"]) / np.abs(arrays["z"]).sum(1, keepdims=True)
    t = tensors(arrays)
    expected = whole_batch(model, loss(model(t["x"]), t["z"]))
    assert_same(run_step(payload_of(model, loss, Columns.parse("x", "z")), arrays, [5, 2])[0], expected)


def test_labels_may_be_doubles_as_in_spark_ml() -> None:
    model, loss = network(), nn.CrossEntropyLoss()
    arrays = rows_of(6)
    expected = run_step(payload_of(model, loss), arrays, [6])[0]
    found = run_step(payload_of(model, loss), arrays | {"y": arrays["y"].astype(np.float32)}, [6])[0]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def weighted_mse(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return ((output - target).square().mean(1) * weight).sum() / weight.sum()


@pytest.mark.parametrize("loss", [nn.MSELoss(), weighted_mse])
@law
@given(counts=shares, seed=st.integers(0, 99))
def test_weight_col_gives_the_weighted_mean(loss: Any, counts: list[int], seed: int) -> None:
    model = network()
    arrays = rows_of(sum(counts), seed)
    payload = payload_of(model, loss, Columns.parse("x", "z", "w"))
    gradients, record, _ = run_step(payload, arrays, counts)
    t = tensors(arrays)
    expected = weighted_mse(model(t["x"]), t["z"], t["w"])
    assert_same(gradients, whole_batch(model, expected))
    assert record[1] == pytest.approx(arrays["w"].sum(), rel=1e-5)
    assert record[2] / record[1] == pytest.approx(expected.item(), rel=1e-4)


def test_rows_of_weight_zero_do_not_count() -> None:
    model = network()
    arrays = rows_of(8)
    arrays["w"][:5] = 0
    payload = payload_of(model, nn.CrossEntropyLoss(), Columns.parse("x", "y", "w"))
    gradients, _, _ = run_step(payload, arrays, [4, 4])  # the first replica has nothing else
    t = {name: x[5:] for name, x in tensors(arrays).items()}
    each = nn.functional.cross_entropy(model(t["x"]), t["y"], reduction="none")
    assert_same(gradients, whole_batch(model, (each * t["w"]).sum() / t["w"].sum()))


def absolute(model: nn.Module, batch: Batch) -> torch.Tensor:
    return (model(*batch.inputs) - batch.target).abs().mean()


def absolute_and_more(model: nn.Module, batch: Batch) -> dict[str, Any]:
    return {"loss": absolute(model, batch), "rows": len(batch), "largest": batch.inputs[0].mean()}


def test_step_fn_takes_the_losss_place() -> None:
    model = network()
    arrays = rows_of(7)
    t = tensors(arrays)
    expected = whole_batch(model, (model(t["x"]) - t["z"]).abs().mean())
    columns = Columns.parse("x", "z")
    plain = run_step(payload_of(model, None, columns, step_fn=absolute), arrays, [4, 0, 3])
    assert_same(plain[0], expected)
    metrics: Any = {"largest": None, "rows": None}
    payload = payload_of(model, None, columns, step_fn=absolute_and_more, metrics=metrics)
    gradients, record, _ = run_step(payload, arrays, [4, 0, 3])
    assert_same(gradients, expected)
    assert record[payload.record_names.index("rows", 1)] == 4 * 4 + 3 * 3
    assert record[3] / record[0] == pytest.approx(arrays["x"].mean(), rel=1e-4)


def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    assert not output.requires_grad
    return (output.argmax(1) == target).float().mean()


def test_metrics_are_sums_over_rows() -> None:
    model = network()
    arrays = rows_of(11)
    payload = payload_of(
        model, nn.CrossEntropyLoss(), metrics={"accuracy": accuracy, "two": lambda o, t: 2}, accumulate=2
    )
    _, record, _ = run_step(payload, arrays, [7, 0, 4])
    t = tensors(arrays)
    assert record[3] / record[0] == pytest.approx(accuracy(model(t["x"]).detach(), t["y"]).item())
    assert record[4] == 22


@law
@given(shares, st.integers(2, 7), st.sampled_from(["ignored, weights", "plain"]))
def test_accumulating_changes_only_the_rounding(counts: list[int], accumulate: int, name: str) -> None:
    model = network()
    arrays = rows_of(sum(counts))
    expected = run_step(payload_of(model, CLASS_LOSSES[name]), arrays, counts)
    found = run_step(payload_of(model, CLASS_LOSSES[name], accumulate=accumulate), arrays, counts)
    assert_same(found[0], expected[0])
    np.testing.assert_allclose(found[1][:3], expected[1][:3], rtol=1e-5)


def test_accumulating_really_cuts_the_rows() -> None:
    sizes = []

    def step_fn(model: nn.Module, batch: Batch) -> torch.Tensor:
        sizes.append(len(batch))
        return absolute(model, batch)

    run_step(payload_of(network(), None, Columns.parse("x", "z"), step_fn=step_fn, accumulate=3), rows_of(9), [7, 2])
    assert sorted(sizes[:3]) == [2, 2, 3]
    assert sizes[3:] == [1, 1]


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(3), nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(self.norm(x))
        return result


def test_float_buffers_are_weighted_by_rows_and_integers_come_along() -> None:
    model = Normed()
    arrays = rows_of(8)
    _, _, found = run_step(payload_of(model, nn.CrossEntropyLoss()), arrays, [5, 0, 3])
    expected = torch.zeros(6)
    for a, b in ((0, 5), (5, 8)):
        alone = Normed().train()
        alone(torch.from_numpy(arrays["x"][a:b]))
        assert alone.norm.running_mean is not None
        assert alone.norm.running_var is not None
        expected += torch.cat([alone.norm.running_mean, alone.norm.running_var]) * ((b - a) / 8)
    torch.testing.assert_close(
        sum(s.float_buffers * (s.record[0] / sum(f.record[0] for f in found)) for s in found), expected
    )
    assert [np.frombuffer(s.raw_buffers, np.int64).tolist() for s in found] == [[1], [], [1]]
    assert model.norm.num_batches_tracked == 0, "the payload's own model is left alone"


def test_buffers_start_from_what_is_given_not_from_the_last_step() -> None:
    payload = payload_of(Normed(), nn.CrossEntropyLoss())
    replica = Replica(payload)
    first = run_replica(payload, rows_of(6), 6, using=replica)
    second = run_replica(payload, rows_of(6), 6, using=replica)
    assert torch.equal(first.float_buffers, second.float_buffers)
    assert first.raw_buffers == second.raw_buffers


class Noisy(nn.Module):
    """Draws from all three generators that user code may know."""

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.linear, self.dropout = nn.Linear(3, 64), nn.Dropout(p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.dropout(self.linear(x)) * float(np.random.rand()) * random.random()
        return result.view(len(x), 4, 16).sum(2)


def test_randomness_depends_on_seed_step_and_replica_alone() -> None:
    model = Noisy()

    def gradient(seed: int, step: int, number: int, using: Replica | None = None) -> torch.Tensor:
        found = run_replica(payload_of(model, nn.CrossEntropyLoss(), seed=seed), rows_of(4), 4, step, number, using)
        assert found.gradients[0] is not None
        return found.gradients[0]

    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 0, 1)]
    found = [gradient(*key) for key in keys]
    for n, one in enumerate(found):
        assert not any(torch.equal(one, other) for other in found[:n]), keys[n]
    used = Replica(payload_of(model, nn.CrossEntropyLoss()))
    for step in (5, 3):  # whatever ran in this process before
        gradient(0, step, 2, used)
    torch.manual_seed(99)
    assert torch.equal(gradient(0, 0, 1, used), found[3])


def test_keys_of_steps_are_63_bits_and_do_not_repeat() -> None:
    keys = {step_seed(seed, step, r) for seed in (0, 1, 11) for step in range(12) for r in range(12)}
    assert len(keys) == 3 * 12 * 12
    assert all(0 <= key < 2**63 for key in keys)


def test_parameters_are_views_of_the_flat_vector() -> None:
    model = network()
    payload = payload_of(model, nn.CrossEntropyLoss())
    replica = Replica(payload)
    first, second = payload.initial_weights(), torch.zeros(payload.plan.layout.size)
    for flat in (first, second, first):
        replica.bind(flat)
        for t, p in zip(payload.plan.layout.tensors, replica.model.parameters(), strict=True):
            assert torch.equal(p, flat[t.start : t.start + t.numel].view(t.shape))
            flat[t.start] += 1
            assert p.flatten()[0] == flat[t.start]
    replica.forget_views()
    assert torch.equal(model[0].weight, payload.model[0].weight)  # type: ignore[index]


def test_frozen_parameters_get_no_gradient() -> None:
    model = network()
    model[0].requires_grad_(False)
    payload = payload_of(model, nn.CrossEntropyLoss())
    replica = Replica(payload)
    sums = run_replica(payload, rows_of(4), 4, using=replica)
    assert len(sums.gradients) == 2
    assert [p.requires_grad for p in replica.model.parameters()] == [False, False, True, True]
    assert torch.equal(replica.model[0].weight, model[0].weight)  # type: ignore[index]


def test_parameters_in_no_group_are_frozen() -> None:
    model = network()
    found, _ = template(lambda params: torch.optim.SGD(list(params)[:2], lr=0.1), model)
    layout = slices.layout([(n, tuple(p.shape), 0) for n, p in model.named_parameters() if n in found.group_of], True)
    payload = Payload(
        model=model, loss=nn.CrossEntropyLoss(), template=found, plan=state_plan(found, layout),
        columns=Columns.parse("x", "y"), seed=0, batch_size=8,
    )  # fmt: skip
    replica = Replica(payload)
    run_replica(payload, rows_of(4), 4, using=replica)
    assert [p.requires_grad for p in replica.model.parameters()] == [True, True, False, False]


def test_gradients_do_not_add_up_over_steps() -> None:
    payload = payload_of(network(), nn.CrossEntropyLoss())
    replica = Replica(payload)
    found = []
    for step in range(3):
        gradients = run_replica(payload, rows_of(4), 4, step, using=replica).gradients
        found.append([g.clone() for g in gradients if g is not None])  # a sum would grow in the same memory
    for several in zip(*found, strict=True):
        assert all(torch.equal(g, several[0]) for g in several)


def test_bf16_precision_is_autocast() -> None:
    seen = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.linear(x)
            seen.append(result.dtype)
            return result

    model = Watching()
    for precision in ("fp32", "bf16"):
        sums = run_replica(payload_of(model, nn.CrossEntropyLoss(), precision=precision), rows_of(4), 4)
        assert all(g is not None and g.dtype == torch.float32 for g in sums.gradients)
    assert seen == [torch.float32, torch.bfloat16]


def test_gradients_of_another_memory_format_are_put_in_order() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 4, 2), nn.Flatten())
    arrays = {"x": np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32), "y": np.array([0, 1, 2, 3, 0])}
    expected = run_step(payload_of(model, nn.CrossEntropyLoss()), arrays, [3, 2])
    payload = payload_of(model.to(memory_format=torch.channels_last), nn.CrossEntropyLoss())
    found = run_step(payload, arrays, [3, 2])
    assert_same(found[0], expected[0])


def test_tables_on_a_device_follow_by_the_rows_that_changed(tmp_path: Path) -> None:
    """A GPU's replica keeps them there; here the device is the CPU's memory."""
    net = nn.Sequential(nn.Linear(1, 2), nn.Embedding(40, 4, sparse=True))
    payload = payload_of(net, make=partial(torch.optim.SGD, lr=1.0))
    (lot,) = payload.plan.layout.table_lots
    optimizer = SliceOptimizer(payload.template.blank)
    replica = Replica(payload)
    replica._in_place = False

    def begun(name: str) -> VersionedTables:
        state = VersionedTables(str(tmp_path / name), payload.plan)
        state.begin([0, lot], payload.initial_weights(), (torch.empty(0), b""))
        return state

    def step(state: VersionedTables, version: int) -> None:
        rows = torch.tensor([version, 20])
        gradient = sparse_rows(rows, torch.full((2, 4), 1.0 + version), (40, 4))
        state.update(lot, version, lambda a, b: gradient, optimizer, [{}])

    def check(state: VersionedTables, version: int) -> torch.Tensor:
        replica.bind(torch.zeros(payload.plan.layout.dense_size), state, version)
        table: torch.Tensor = replica.model[1].weight.detach()
        assert torch.equal(table.reshape(-1), state.weights(version)[-160:])
        assert not torch.any(replica.model[0].weight)
        return table

    state = begun("one")
    first = check(state, 0)
    for version in range(4):
        step(state, version)
        if version != 1:  # a version that this process did not see
            assert check(state, version + 1).data_ptr() == first.data_ptr()
    first[30] = 7.0
    step(state, 4)
    replica.bind(torch.zeros(payload.plan.layout.dense_size), state, 5)
    assert (first[30] == 7.0).all(), "rows that did not change are not copied"
    other = begun("two")
    for version in range(5):
        step(other, version)
    step(other, 5)
    assert check(other, 6)[30, 0] != 7.0, "another file's versions are others"
