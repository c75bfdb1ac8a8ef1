"""What a replica hands over is its gradient, whatever was cut where; and always as many items."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparkdl import slices, wire
from sparkdl.payload import Payload, read_buffers
from sparkdl.replica import Replica, Sums
from sparkdl.replica_items import gradient_items, piece_parts, report_items
from tests.sparkdl.payloads import payload_of

law = settings(deadline=None, max_examples=30, print_blob=True)  # machines may be busy


def sums_of(payload: Payload, num_rows: int, inputs: int = 3) -> Sums:
    """A replica's sums over some rows."""
    replica = Replica(payload)
    replica.bind(payload.initial_weights())
    generator = np.random.default_rng(0)
    arrays = {
        "x": generator.normal(size=(num_rows, inputs)).astype(np.float32),
        "y": generator.integers(0, 4, num_rows),
    }
    floats, raw = read_buffers(payload.model)
    return replica.forward_backward(
        arrays, 4, 0, 0, (floats, torch.frombuffer(bytearray(raw or b"\0"), dtype=torch.uint8))
    )


@law
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 6), max_size=3).map(tuple), st.booleans()), min_size=1, max_size=7),
    st.booleans(), st.data(),
)  # fmt: skip
def test_a_piece_is_a_part_of_the_flat_gradient(
    parameters: list[tuple[tuple[int, ...], bool]], bf16: bool, data: st.DataObject
) -> None:
    layout = slices.layout([(str(n), shape, 0) for n, (shape, _) in enumerate(parameters)], elementwise=True)
    torch.manual_seed(0)
    gradients = [torch.randn(shape) if used else None for shape, used in parameters]
    flat = torch.zeros(layout.size)
    for t, gradient in zip(layout.tensors, gradients, strict=True):
        if gradient is not None:
            flat[t.start : t.start + t.numel] = gradient.reshape(-1)
    start = data.draw(st.integers(0, layout.size))
    stop = data.draw(st.integers(start, layout.size))
    found = b"".join(bytes(part) for part in piece_parts(layout, gradients, start, stop, bf16))
    expected = flat[start:stop].to(torch.bfloat16) if bf16 else flat[start:stop]
    assert found == bytes(wire.view(expected))


class PartlyUsed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(3, 4), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.used(x)
        return result


def test_unused_parameters_travel_as_zeros() -> None:
    payload = payload_of(PartlyUsed(), nn.CrossEntropyLoss())
    layout = payload.plan.layout
    gradients = sums_of(payload, 4).gradients
    assert [g is None for g in gradients] == [False, False, True, True]
    data = b"".join(bytes(part) for part in piece_parts(layout, gradients, 0, layout.size, False))
    flat = np.frombuffer(data, np.float32)
    assert len(flat) == layout.size
    assert not flat[layout.tensors[2].start :].any()
    assert flat[: layout.tensors[2].start].any()


def test_a_gradient_of_another_memory_format_is_put_in_order() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 4, 2), nn.Flatten())
    payload = payload_of(model.to(memory_format=torch.channels_last), nn.CrossEntropyLoss())
    gradients = sums_of(payload, 4, 12).gradients
    layout = payload.plan.layout
    data = b"".join(bytes(p) for p in piece_parts(layout, gradients, 0, layout.size, False))
    first = layout.tensors[0]
    weight = torch.frombuffer(bytearray(data), dtype=torch.float32)[: first.numel].view(first.shape)
    assert gradients[0] is not None
    assert torch.equal(weight, gradients[0])


@pytest.mark.parametrize("buffers", [False, True])
def test_a_replica_without_rows_hands_over_as_many_items(buffers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "LOT_SIZE", 16)
    monkeypatch.setattr(slices, "PIECE_SIZE", 16)
    model = nn.Sequential(nn.Linear(3, 20), *([nn.BatchNorm1d(20)] if buffers else []), nn.Linear(20, 4))
    payload = payload_of(model, nn.CrossEntropyLoss(), make=torch.optim.Adafactor)
    layout = payload.plan.layout
    pieces = slices.pieces(layout, slices.cut(layout, 2))
    found = []
    for num_rows in (0, 4):
        sums = sums_of(payload, num_rows)
        items = [*report_items(payload, 2, 7, 1, sums), *gradient_items(payload, pieces, 7, 1, sums)]
        found.append([number for number, _ in items])
        for _, (head, *parts) in items:
            header = wire.unpack(head)
            assert (header.version, header.replica) == (7, 1)
            assert wire.payload_bytes(header) == sum(len(p) for p in parts)
    assert found[0] == found[1]
    assert len(found[0]) == 2 + buffers + len(pieces)
