"""A state's parts come back from files, and into models, whatever their order; damage is a sentence."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from sparkdl import saved_state, slices, versioned_state
from sparkdl.errors import ConfigError
from sparkdl.optim import SliceOptimizer
from sparkdl.payload import Payload, read_buffers
from sparkdl.versioned_state import VersionedState, lot_bytes
from sparkdl.wire import FileSource
from tests.sparkdl.payloads import payload_of


class Odd(nn.Module):
    """Parameters of odd sizes, a frozen one, an empty one, one that is not contiguous; buffers of several types."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 13)
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.empty = nn.Parameter(torch.empty(0, 4))
        self.turned = nn.Parameter(torch.randn(5, 9).t())
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("count", torch.tensor(7, dtype=torch.int32))
        self.register_buffer("sums", torch.tensor([0.5, 0.25], dtype=torch.float64))
        self.register_buffer("mean", torch.randn(5))
        self.register_buffer("passing", torch.randn(3), persistent=False)


@pytest.fixture(autouse=True)
def _cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SEGMENT_SIZE", 48)
    monkeypatch.setattr(slices, "LOT_SIZE", 80)
    monkeypatch.setattr(versioned_state, "PART_BYTES", 100)


def state_of(payload: Payload, path: Path, version: int = 0) -> VersionedState:
    """Some steps with gradients of noise."""
    state = VersionedState(str(path), payload.plan)
    floats, raw = read_buffers(payload.model)
    state.begin(range(payload.plan.num_lots), payload.initial_weights(), (floats, raw))
    optimizer = SliceOptimizer(payload.template.blank)
    for v in range(version):
        gradient = torch.randn(payload.plan.layout.size, generator=torch.Generator().manual_seed(v))
        for lot in range(len(payload.plan.layout.lots)):
            state.update(lot, v, lambda a, b, g=gradient: g[a:b], optimizer, [{}])
        if payload.plan.has_buffers:
            state.set_buffers(v + 1, floats + v + 1, raw)
    return state


def payload(make: Any = torch.optim.Adam, model: nn.Module | None = None) -> Payload:
    torch.manual_seed(1)
    return payload_of(model or Odd(), make=make)


def prints(state: VersionedState, version: int) -> list[str]:
    return [saved_state.lot_fingerprint(state, version, lot).hex() for lot in range(state.plan.num_lots)]


MAKERS = {
    "Adam": torch.optim.Adam,
    "SGD": torch.optim.SGD,
    "Adafactor": torch.optim.Adafactor,  # whole tensors
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("version", [0, 1, 2, 5])
def test_a_state_goes_through_files_into_another_state(name: str, version: int, tmp_path: Path) -> None:
    found = payload(MAKERS[name])
    state = state_of(found, tmp_path / "state", version)
    files = [str(tmp_path / f"part-{i}.parquet") for i in (0, 1)]
    parts = list(saved_state.state_parts(state, version))
    half = next(i for i, part in enumerate(parts) if part[0] == state.plan.num_lots // 2)
    saved_state.write_parquet(parts[:half], files[0])
    saved_state.write_parquet(parts[half:], files[1])
    checked = saved_state.verified(
        saved_state.read_parquet(files), state.plan, version, prints(state, version), "there"
    )
    with open(tmp_path / "items", "wb") as file:
        for item in saved_state.items(checked, version):
            file.writelines(item)

    other = VersionedState(str(tmp_path / "other"), found.plan)
    source = FileSource(str(tmp_path / "items"))
    for head in source:
        other.restore(head.replica, head.version, head.start, head.size, source.readinto)
    third = VersionedState(str(tmp_path / "third"), found.plan)
    saved_state.restore(third, saved_state.read_parquet(files), version)
    for restored in (other, third):
        restored.require(version, range(found.plan.num_lots))
        assert prints(restored, version) == prints(state, version)
        restored.close()
    state.close()


def test_all_bytes_of_a_lot_are_in_its_parts(tmp_path: Path) -> None:
    found = payload()
    state = state_of(found, tmp_path / "state", 1)
    for version in (0, 1):
        for lot in range(found.plan.num_lots):
            parts = list(state.parts(lot, version))
            assert sum(len(memory) for _, _, memory in parts) == lot_bytes(found.plan, lot, version)
            assert [rest for _, rest, _ in parts][-1] == 0
    state.close()


# --- into a model


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("version", [0, 3])
def test_parts_in_any_order_fill_a_model(name: str, version: int, tmp_path: Path) -> None:
    found = payload(MAKERS[name])
    state = state_of(found, tmp_path / "state", version)
    parts = list(saved_state.state_parts(state, version))
    random.Random(version).shuffle(parts)
    model = Odd()
    model.frozen.data.fill_(5.0)
    saved_state.load_model(found.plan, parts, model)
    flat = state.weights(version)
    parameters = dict(model.named_parameters())
    assert not parameters["turned"].is_contiguous()
    for t in found.plan.layout.tensors:
        assert torch.equal(parameters[t.name].detach().reshape(-1), flat[t.start : t.start + t.numel]), t.name
    assert model.frozen.tolist() == [5.0] * 3  # not trained, so not touched
    floats, raw = read_buffers(model)
    expected_floats, expected_raw = state.buffers(version)
    assert torch.equal(floats, expected_floats)
    assert raw == expected_raw.numpy().tobytes()
    state.close()


def test_a_model_without_buffers_is_filled(tmp_path: Path) -> None:
    found = payload(model=nn.Linear(9, 30))
    state = state_of(found, tmp_path / "state", 2)
    model = nn.Linear(9, 30)
    saved_state.load_model(found.plan, saved_state.state_parts(state, 2), model)
    for t, parameter in zip(found.plan.layout.tensors, model.parameters(), strict=True):
        assert torch.equal(parameter.detach().reshape(-1), state.weights(2)[t.start : t.start + t.numel])
    state.close()


def test_a_part_that_did_not_come_is_missed(tmp_path: Path) -> None:
    found = payload(torch.optim.SGD)
    state = state_of(found, tmp_path / "state", 2)
    parts = list(saved_state.state_parts(state, 2))
    for left_out in range(len(parts)):
        with pytest.raises(RuntimeError, match="bytes of the model's weights and buffers are missing"):
            saved_state.load_model(found.plan, parts[:left_out] + parts[left_out + 1 :], Odd())
    state.close()


# --- damage


def test_any_byte_that_differs_and_any_part_that_is_missing_is_damage(tmp_path: Path) -> None:
    found = payload()
    state = state_of(found, tmp_path / "state", 2)
    parts = list(saved_state.state_parts(state, 2))
    expected = prints(state, 2)

    def check(changed: list[saved_state.Part]) -> None:
        for _ in saved_state.verified(changed, found.plan, 2, expected, "there"):
            pass

    check(parts)
    for number, (lot, offset, memory) in enumerate(parts):
        other = bytearray(memory)
        other[len(other) // 2] ^= 1
        rest = parts[number + 1 :]
        for changed in (
            [*parts[:number], (lot, offset, memoryview(other)), *rest],
            [*parts[:number], *rest],
            [*parts[:number], (lot, offset, memory), (lot, offset, memory), *rest],
            [*parts[:number], (lot, offset + 4, memory), *rest],
            [*parts[:number], (lot, offset, memory[:-4]), *rest],
            [*parts[:number], (found.plan.num_lots, offset, memory), *rest],
        ):
            with pytest.raises(
                ConfigError, match=r"the checkpoint there is damaged: .*lot .*; resume from another one"
            ):
                check(changed)
    state.close()


def test_files_that_hold_no_parts_are_damage(tmp_path: Path) -> None:
    import pyarrow as pa

    path = tmp_path / "part.parquet"
    saved_state.write_parquet([(0, 0, memoryview(b"abc" * 100))], str(path))
    whole = path.read_bytes()
    pq.write_table(pa.table({"other": [1]}), tmp_path / "foreign")
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(500))
    (tmp_path / "empty").touch()
    for name in ("foreign", "cut", "noise", "empty", "nowhere"):
        with pytest.raises(ConfigError, match=f"state of a checkpoint is damaged: .*{name} cannot be read"):
            list(saved_state.read_parquet([str(tmp_path / name)]))


def test_a_row_of_16_mb_is_one_part(tmp_path: Path) -> None:
    memory = memoryview(np.random.default_rng(0).bytes(1 << 24))
    saved_state.write_parquet([(3, 1 << 40, memory), (4, 0, memory)], str(tmp_path / "part"))
    found = list(saved_state.read_parquet([str(tmp_path / "part")]))
    assert [(lot, offset, part == memory) for lot, offset, part in found] == [(3, 1 << 40, True), (4, 0, True)]


def test_partial_is_a_maker(tmp_path: Path) -> None:
    found = payload(partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    state = state_of(found, tmp_path / "state", 1)
    assert lot_bytes(found.plan, 0, 1) == 2 * lot_bytes(found.plan, 0, 0)
    state.close()


# --- shares


@pytest.mark.parametrize("version", [0, 1])
def test_the_shares_of_a_state_are_all_of_it_in_order(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = payload()
    state = state_of(found, tmp_path / "state", version)
    for lots in (range(found.plan.num_lots), [0, found.plan.num_lots - 1]):
        whole = list(versioned_state.share_parts(state, lots, version))
        for size in (50, 100, 333, 1000, 1 << 20):
            monkeypatch.setattr(versioned_state, "SHARE_BYTES", size)
            shares = [
                list(versioned_state.share_parts(state, lots, version, share, size))
                for share in range(versioned_state.num_shares(found.plan, lots, version))
            ]
            assert [part for share in shares for part in share] == whole
            assert all(sum(len(memory) for _, _, memory in share) < size + 100 for share in shares)
    state.close()
