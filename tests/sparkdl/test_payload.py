"""What is shipped comes back as it was; what cannot be shipped is named."""

from __future__ import annotations

import pickle as standard_pickle
import threading
from typing import Any

import pytest
import torch
from torch import nn

from sparkdl.errors import ConfigError
from sparkdl.payload import (
    Payload,
    buffer_sizes,
    float_buffers,
    forget_weights,
    load_buffers,
    pickle,
    raw_buffers,
    read_buffers,
)
from tests.sparkdl.payloads import payload_of


class Holder(nn.Module):
    """A model whose layer holds something."""

    def __init__(self, name: str, value: Any):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        setattr(self.encoder[1], name, value)


def test_pickle_is_undone_by_unpickling_and_takes_lambdas() -> None:
    model = nn.Linear(3, 2)
    scale = 2.0
    payload = payload_of(model, lambda output, target: scale * (output - target).abs().mean(), clip_norm=1.5)
    back: Payload = standard_pickle.loads(pickle(payload))
    assert torch.equal(back.model.weight, model.weight)
    assert back.loss(torch.ones(2), torch.zeros(2)).item() == 2.0
    assert (back.plan, back.columns, back.clip_norm) == (payload.plan, payload.columns, 1.5)
    assert back.template == payload.template


class Many(nn.Module):
    """Tensors of all kinds that a model may have."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.tied = nn.Linear(3, 4)
        self.tied.weight = self.first.weight
        self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)
        self.turned = nn.Parameter(torch.randn(5, 2).t())
        self.empty = nn.Parameter(torch.empty(0, 2))
        self.scalar = nn.Parameter(torch.tensor(1.5))
        self.small = nn.Parameter(torch.randn(4).to(torch.bfloat16), requires_grad=False)
        self.named = nn.Parameter(torch.randn(2))
        self.named.remark = "kept"  # type: ignore[attr-defined]
        self.register_buffer("view", self.turned.detach()[0])
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("complex", torch.randn(2, dtype=torch.complex64))
        self.plain = torch.randn(3)


def test_tensors_of_all_kinds_come_back() -> None:
    model = Many()
    back: Many = standard_pickle.loads(pickle(payload_of(model))).model
    assert list(back.state_dict()) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        found = back.state_dict()[name]
        assert torch.equal(found, tensor), name
        assert (found.dtype, found.stride()) == (tensor.dtype, tensor.stride())
    for name, parameter in model.named_parameters():
        assert back.get_parameter(name).requires_grad == parameter.requires_grad, name
    assert back.tied.weight is back.first.weight
    assert back.named.remark == "kept"  # type: ignore[attr-defined]
    assert torch.equal(back.plain, model.plain)
    assert back.first.weight.data_ptr() % 64 == 0


def test_parts_of_the_weights_make_all_of_them() -> None:
    payload = payload_of(Many())
    whole = payload.initial_weights()
    for start in range(0, payload.plan.layout.size, 5):
        for stop in range(start, payload.plan.layout.size + 1, 7):
            assert torch.equal(payload.initial_weights(start, stop), whole[start:stop])


def test_weights_can_be_forgotten() -> None:
    payload = payload_of(Many())
    forget_weights(payload)
    sizes = {name: p.numel() for name, p in payload.model.named_parameters()}
    assert sizes == dict.fromkeys(sizes, 0) | {"frozen": 3, "small": 4}
    assert buffer_sizes(payload.model) == (5, 2 + 16)


def test_a_layers_attribute_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^model\.encoder\.1\.guard is a lock and cannot be sent .*__getstate__$"):
        pickle(payload_of(Holder("guard", threading.Lock())))


def test_a_models_own_attribute_that_cannot_be_pickled_is_named() -> None:
    model = nn.Linear(2, 2)
    model.guard = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"^model\.guard is a lock and cannot be sent to the executors"):
        pickle(payload_of(model))


def test_a_private_attribute_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^model\.encoder\.1\._guard is a lock and cannot be sent"):
        pickle(payload_of(Holder("_guard", threading.Lock())))


def test_a_losss_attribute_that_cannot_be_pickled_is_named() -> None:
    loss = nn.MSELoss()
    loss.guard = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"^loss\.guard is a lock"):
        pickle(payload_of(nn.Linear(2, 2), loss))


@pytest.mark.parametrize("part", ["loss", "metrics", "step_fn"])
def test_a_function_that_cannot_be_pickled_is_named(part: str) -> None:
    lock = threading.Lock()

    def locked(*_: Any) -> torch.Tensor:
        with lock:
            return torch.zeros(())

    options: dict[str, Any] = {part: {"locked": locked} if part == "metrics" else locked}
    with pytest.raises(ConfigError, match=rf"^{part} cannot be sent to the executors \(TypeError: cannot pickle"):
        pickle(payload_of(nn.Linear(2, 2), **options))


def test_the_cause_is_kept() -> None:
    with pytest.raises(ConfigError) as caught:
        pickle(payload_of(Holder("guard", threading.Lock())))
    assert isinstance(caught.value.__cause__, TypeError)


def test_initial_weights_are_the_models_and_padding_is_zero() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1))
    model[0].bias.requires_grad_(False)
    payload = payload_of(model)
    flat = payload.initial_weights()
    left = flat.clone()
    parameters = dict(model.named_parameters())
    assert {t.name for t in payload.plan.layout.tensors} == {"0.weight", "1.weight", "1.bias"}
    for t in payload.plan.layout.tensors:
        assert torch.equal(flat[t.start : t.start + t.numel].view(t.shape), parameters[t.name])
        left[t.start : t.start + t.numel] = 0
    assert not left.any()


def test_initial_weights_do_not_depend_on_the_memory_format() -> None:
    model = nn.Conv2d(3, 4, 2)
    expected = payload_of(model).initial_weights()
    assert torch.equal(payload_of(model.to(memory_format=torch.channels_last)).initial_weights(), expected)


def test_record_names_hold_the_metrics() -> None:
    names = payload_of(nn.Linear(1, 1), metrics={"accuracy": torch.dist}).record_names
    assert names == ("rows", "denominator", "loss_sum", "accuracy", "read_ms", "update_ms", "compute_ms", "write_ms")


class Buffers(nn.Module):
    """Buffers of every sort; the linear layer so that there is something to train."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.norm = nn.BatchNorm1d(3)  # two fp32 of three elements and one int64 without dimensions
        self.register_buffer("zero_dim", torch.tensor(1.5))
        self.register_buffer("mask", torch.tensor([[True, False], [False, True]]))
        self.register_buffer("exact", torch.tensor([1 / 3], dtype=torch.float64))
        self.register_buffer("short", torch.tensor([1.0, 2.0, 3.0]).to(torch.bfloat16))
        self.register_buffer("temporary", torch.arange(6.0).view(2, 3).t(), persistent=False)  # not contiguous
        self.register_buffer("empty", torch.empty(0))
        self.register_buffer("empty_counts", torch.empty(0, dtype=torch.int64))
        self.register_buffer("absent", None)
        self.register_buffer("yes", torch.tensor(True))


def test_buffers_round_trip() -> None:
    source, target = Buffers(), Buffers()
    source.norm.running_mean.uniform_()
    source.norm.num_batches_tracked.fill_(2**40 + 1)
    expected = {name: b.clone() for name, b in source.named_buffers()}
    for b in target.buffers():
        b.zero_()
    floats, raw = read_buffers(source)
    assert (floats.dtype, floats.dim()) == (torch.float32, 1)
    assert (floats.numel(), len(raw)) == buffer_sizes(source) == (3 + 3 + 1 + 6, 8 + 4 + 8 + 6 + 1)
    for b in source.buffers():
        b.zero_()  # what was read is a copy
    load_buffers(target, floats, torch.frombuffer(bytearray(raw), dtype=torch.uint8))
    for name, b in target.named_buffers():
        assert b.dtype == expected[name].dtype
        assert torch.equal(b, expected[name]), name


def test_every_buffer_is_float_or_raw() -> None:
    model = Buffers()
    kinds = {id(b) for b in float_buffers(model)}, {id(b) for b in raw_buffers(model)}
    assert not kinds[0] & kinds[1]
    assert kinds[0] | kinds[1] == {id(b) for b in model.buffers()}


def test_a_model_without_buffers_reads_as_nothing() -> None:
    model = nn.Linear(1, 1)
    floats, raw = read_buffers(model)
    assert (floats.numel(), raw, buffer_sizes(model)) == (0, b"", (0, 0))
    load_buffers(model, floats, torch.empty(0, dtype=torch.uint8))
