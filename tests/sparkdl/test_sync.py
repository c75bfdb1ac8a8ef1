"""The sum is in the order of replicas, whatever came first; missing and stale items are found; clipping is torch's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparkdl import slices, sync, wire
from sparkdl.errors import StateLost
from sparkdl.optim import SliceOptimizer
from sparkdl.payload import Payload, read_buffers
from sparkdl.replica import Replica
from sparkdl.replica_items import piece_parts
from sparkdl.versioned_state import VersionedState
from tests.sparkdl.payloads import payload_of

law = settings(deadline=None, max_examples=40, print_blob=True)  # machines may be busy

START, SIZE, STEP = 32, 80, 6  # the slice is elements 32 to 112 of the flat vector
BORDERS = ((32, 64), (64, 96), (96, 112))


def item(
    kind: int, replica: int, payload: bytes = b"", start: int = 0, count: int = 0, dtype: int = 0, step: int = STEP
) -> bytes:
    return wire.header(kind, step, replica, start, count, dtype) + payload


def record_of(replica: int, rows: float, denominator: float | None = None) -> bytes:
    values = np.array([rows, rows if denominator is None else denominator, 0.5])
    return item(wire.RECORD, replica, values.tobytes(), count=len(values))


def gradients_of(num_replicas: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Of very different magnitude, so that the order of the sum shows in the bits."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(SIZE, generator=generator) * 10.0 ** (r % 5 - 2)).to(dtype) for r in range(num_replicas)]


def pieces_of(replica: int, gradient: torch.Tensor) -> list[bytes]:
    return [
        item(
            wire.GRADIENT, replica, bytes(wire.view(gradient[a - START : b - START])), a, b - a,
            int(gradient.dtype == torch.bfloat16),
        )
        for a, b in BORDERS
    ]  # fmt: skip


def items_of(gradients: Sequence[torch.Tensor], contributors: Sequence[int], num_replicas: int) -> list[bytes]:
    items = [record_of(r, 2.0 if r in contributors else 0.0) for r in range(num_replicas)]
    for r in contributors:
        items += pieces_of(r, gradients[r])
    return items


def summed(
    items: Sequence[bytes], contributors: Sequence[int], num_replicas: int, num_floats: int = 0
) -> sync.GradientSum:
    total = sync.GradientSum(START, START + SIZE, num_replicas, num_floats)
    total.total.fill_(float("nan"))  # whatever an earlier step left
    assert total.read(wire.BytesSource(items), STEP, contributors) is None
    return total


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@law
@given(num_replicas=st.integers(1, 5), data=st.data())
def test_the_order_of_arrival_does_not_change_the_bits(
    dtype: torch.dtype, num_replicas: int, data: st.DataObject
) -> None:
    contributors = sorted(data.draw(st.sets(st.integers(0, num_replicas - 1), min_size=1)))
    gradients = gradients_of(num_replicas, dtype)
    expected = torch.zeros(SIZE)
    for n, r in enumerate(contributors):
        expected = gradients[r].float() if n == 0 else expected + gradients[r].float()
    items = data.draw(st.permutations(items_of(gradients, contributors, num_replicas)))
    total = summed(items, contributors, num_replicas)
    assert total.total.dtype == torch.float32
    assert torch.equal(total.total, expected)
    assert {r: found[0] for r, found in total.records.items()} == {
        r: 2.0 if r in contributors else 0.0 for r in range(num_replicas)
    }


def test_a_sum_may_be_used_again_and_forgets_the_step_before() -> None:
    gradients = gradients_of(3)
    total = sync.GradientSum(START, START + SIZE, 3, 2)
    buffers = [item(wire.BUFFERS, r, np.ones(2, np.float32).tobytes() + b"raw", count=11) for r in range(3)]
    total.read(wire.BytesSource([*items_of(gradients, [0, 1, 2], 3), *buffers]), STEP, [0, 1, 2])
    assert total.buffers() is not None
    total.read(wire.BytesSource(items_of(gradients, [1], 3)), STEP, [1])
    assert torch.equal(total.total, gradients[1])
    assert total.buffers() is None
    with pytest.raises(StateLost):
        total.read(wire.BytesSource([]), STEP, [1])


GRADIENTS = gradients_of(3)
WHOLE = items_of(GRADIENTS, [0, 1, 2], 3)


@pytest.mark.parametrize("missing", range(len(WHOLE)))
def test_whatever_is_missing_is_state_lost(missing: int) -> None:
    total = sync.GradientSum(START, START + SIZE, 3, 0)
    with pytest.raises(StateLost, match=f"step {STEP} are incomplete"):
        total.read(wire.BytesSource([x for n, x in enumerate(WHOLE) if n != missing]), STEP, [0, 1, 2])


@pytest.mark.parametrize("lost", [[0, 1, 2], [2]])
def test_a_piece_that_is_missing_from_everybody_is_state_lost(lost: list[int]) -> None:
    """Nobody else's piece shows that there should have been one, so the elements must be counted."""
    contributors = [r for r in range(3) if r in lost]
    items = [
        x for x in items_of(GRADIENTS, contributors, 3)
        if not (wire.unpack(x).kind == wire.GRADIENT and wire.unpack(x).start == BORDERS[1][0])
    ]  # fmt: skip
    total = sync.GradientSum(START, START + SIZE, 3, 0)
    with pytest.raises(StateLost):
        total.read(wire.BytesSource(items), STEP, contributors)


@pytest.mark.parametrize("stale", range(len(WHOLE)))
def test_an_item_of_another_step_is_state_lost(stale: int) -> None:
    for step in (STEP - 1, STEP + 1):
        head = wire.unpack(WHOLE[stale])
        other = wire.header(head.kind, step, head.replica, head.start, head.size) + WHOLE[stale][wire.HEADER_BYTES :]
        items = [other if n == stale else x for n, x in enumerate(WHOLE)]
        with pytest.raises(StateLost, match=f"step {step} came in where one of step {STEP} was expected"):
            sync.GradientSum(START, START + SIZE, 3, 0).read(wire.BytesSource(items), STEP, [0, 1, 2])


def test_an_item_of_another_kind_is_state_lost() -> None:
    with pytest.raises(StateLost, match=f"kind {wire.WEIGHTS}"):
        sync.GradientSum(0, 4, 1, 0).read(wire.BytesSource([item(wire.WEIGHTS, 0)]), STEP, [0])


def test_start_tokens_tell_the_version_that_is_there() -> None:
    total = sync.GradientSum(0, 4, 2, 0)
    items = [item(wire.START, r, step=40) for r in range(2)]
    assert total.read(wire.BytesSource(items), -1, ()) == 40


def test_empty_items_are_passed_over() -> None:
    items = [x for known in WHOLE for x in (item(wire.EMPTY, 0), known)]
    assert torch.equal(summed(items, [0, 1, 2], 3).total, summed(WHOLE, [0, 1, 2], 3).total)


def test_shared_gradients_are_named_not_read() -> None:
    items = [record_of(0, 1.0), item(wire.SHARED, 0, b"gradient-1-0", count=12)]
    total = sync.GradientSum(START, START + SIZE, 1, 0)
    assert total.read(wire.BytesSource(items), STEP, [0]) is None
    assert total.shared == {0: "gradient-1-0"}


# --- buffers and scale -----------------------------------------------------------------------------------------------


@law
@given(st.permutations(range(4)))
def test_float_buffers_are_weighed_by_rows_in_replica_order_others_from_the_first(order: list[int]) -> None:
    floats = [np.float32([10.0**r, 0.1 * r]) for r in range(4)]
    items = [record_of(r, 2.0 * r) for r in range(4)]
    items += [piece for r in (1, 2, 3) for piece in pieces_of(r, GRADIENTS[r - 1])]
    items += [
        item(wire.BUFFERS, r, floats[r].tobytes() + bytes([r]) * 3, count=11) for r in order if r
    ]  # 0 had no rows
    found = summed(items, [1, 2, 3], 4, num_floats=2).buffers()
    assert found is not None
    first, second, third = (torch.from_numpy(floats[r]) for r in (1, 2, 3))
    assert torch.equal(found[0], first + (second - first) * (4 / 12) + (third - first) * (6 / 12))
    assert found[1] == bytes([1, 1, 1])


def test_buffers_may_be_all_float_or_all_raw() -> None:
    for floats, raw in ((np.float32([1, 2]), b""), (np.float32([]), b"abc")):
        data = floats.tobytes() + raw
        items = [record_of(0, 2.0), *pieces_of(0, GRADIENTS[0]), item(wire.BUFFERS, 0, data, count=len(data))]
        total = summed(items, [0], 1, num_floats=len(floats))
        found = total.buffers()
        assert found is not None
        assert found[0].tolist() == floats.tolist()
        assert found[1] == raw


class Constant(nn.Module):
    """A buffer that nothing changes, as a positional encoding."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.register_buffer("table", torch.rand(100, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(x)
        return result


def test_buffers_that_the_model_does_not_change_keep_their_bits() -> None:
    payload = payload_of(Constant(), nn.MSELoss())
    replica, flat = Replica(payload), payload.initial_weights()
    replica.bind(flat)
    floats, _ = read_buffers(payload.model)
    items = [*WHOLE]
    for r in range(3):
        arrays = {"x": np.ones((r + 1, 1), np.float32), "y": np.ones((r + 1, 1), np.float32)}
        sums = replica.forward_backward(arrays, 6, STEP, r, (floats, torch.empty(0, dtype=torch.uint8)))
        items.append(item(wire.BUFFERS, r, bytes(wire.view(sums.float_buffers)), count=400))
    found = summed(items, [0, 1, 2], 3, num_floats=100).buffers()
    assert found is not None
    assert torch.equal(found[0], floats)


def test_buffers_of_a_part_of_the_replicas_are_state_lost() -> None:
    buffers = item(wire.BUFFERS, 0, np.ones(2, np.float32).tobytes(), count=8)
    with pytest.raises(StateLost):
        summed([*WHOLE, buffers], [0, 1, 2], 3, num_floats=2)


def test_infinities_in_a_buffer_stay() -> None:
    """A causal mask is often a buffer."""
    mask = np.float32([0, -np.inf])
    items = [item(wire.BUFFERS, r, mask.tobytes(), count=8) for r in range(3)]
    found = summed([*WHOLE, *items], [0, 1, 2], 3, num_floats=2).buffers()
    assert found is not None
    assert found[0].tolist() == mask.tolist()


@pytest.mark.parametrize(
    ("records", "scale"),
    [
        ([(3, 3), (1, 1)], 1.0),  # plain means over rows
        ([(3, 2), (1, 0)], 2.0),  # ignored labels: 4 rows, 2 counted
        ([(4, 6.0), (4, 10.0)], 0.5),  # weights
        ([(3, 0), (1, 0)], 1.0),  # nothing counted: sums are zero
    ],
)
def test_scale_turns_the_sum_into_the_mean(records: list[tuple[float, float]], scale: float) -> None:
    total = sync.GradientSum(0, 0, len(records), 0)
    for r in reversed(range(len(records))):
        total.records[r] = np.array([*records[r], 0.0])
    assert total.scale() == scale


# --- clipping --------------------------------------------------------------------------------------------------------


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 13), nn.Linear(13, 11), nn.Linear(11, 3))
    for p in model.parameters():
        p.grad = torch.randn(p.shape) * 3
    return model


def flat_gradient(payload: Payload, model: nn.Module) -> torch.Tensor:
    flat = torch.zeros(payload.plan.layout.size)
    parameters = dict(model.named_parameters())
    for t in payload.plan.layout.tensors:
        gradient = parameters[t.name].grad
        assert gradient is not None
        flat[t.start : t.start + t.numel] = gradient.reshape(-1)
    return flat


def getter(flat: torch.Tensor) -> Callable[[int, int], torch.Tensor]:
    return lambda start, stop: flat[start:stop]


CUTS = [(1 << 17, 1 << 16), (48, 80), (16, 16)]


@pytest.mark.parametrize("clip_norm", [0.01, 1.0, 30.0, 1e6])
@pytest.mark.parametrize("cut", CUTS)
def test_clip_norm_is_torchs(clip_norm: float, cut: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SEGMENT_SIZE", cut[0])
    monkeypatch.setattr(slices, "LOT_SIZE", cut[1])
    model = network()
    payload = payload_of(model, clip_norm=clip_norm)
    flat = flat_gradient(payload, model)
    lots = range(len(payload.plan.layout.lots))
    factor = sync.clip_factor(payload, sync.square_norm(payload, lots, getter(flat)))
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    torch.testing.assert_close(flat * factor, flat_gradient(payload, model), rtol=1e-6, atol=0)


def test_the_norm_does_not_depend_on_the_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    found = []
    for make in (None, partial(torch.optim.Adafactor, lr=0.1)):
        for segment, lot in CUTS:
            monkeypatch.setattr(slices, "SEGMENT_SIZE", segment)
            monkeypatch.setattr(slices, "LOT_SIZE", lot)
            payload = payload_of(model, make=make, clip_norm=1.0)
            layout, flat = payload.plan.layout, flat_gradient(payload, model)
            whole = sync.square_norm(payload, range(len(layout.lots)), getter(flat))
            for num_slices in range(1, len(layout.lots) + 1):  # exactly the same, however lots are spread over slices
                spread = [
                    norm for lots in slices.cut(layout, num_slices)
                    for norm in sync.square_norm(payload, range(*lots), getter(flat))
                ]  # fmt: skip
                assert spread == whole
            found.append(sync.clip_factor(payload, whole))
    assert found == pytest.approx([found[0]] * len(found), rel=1e-12)


def test_without_clip_norm_nothing_is_clipped() -> None:
    assert sync.clip_factor(payload_of(network()), [1e30]) == 1.0


def test_clip_value_is_torchs_and_comes_after_the_scale() -> None:
    model = network()
    payload = payload_of(model, clip_value=1.0)
    flat = flat_gradient(payload, model)
    found = sync.finish(payload, flat.clone(), 0.5)
    for p in model.parameters():
        assert p.grad is not None
        p.grad.mul_(0.5)
    torch.nn.utils.clip_grad_value_(model.parameters(), 1.0)
    assert torch.equal(found, flat_gradient(payload, model))
    assert found.abs().max() == 1.0


def test_finish_works_in_place() -> None:
    payload, flat = payload_of(network()), torch.ones(4)
    assert sync.finish(payload, flat, 0.25) is flat
    assert flat.tolist() == [0.25] * 4


@pytest.mark.parametrize("clip", [1.0, 0.125])
def test_update_lots_steps_with_the_clipped_gradient(
    clip: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SEGMENT_SIZE", 48)
    monkeypatch.setattr(slices, "LOT_SIZE", 80)
    model = network()
    payload = payload_of(model, make=partial(torch.optim.SGD, lr=0.5, momentum=0.9))
    layout, flat = payload.plan.layout, flat_gradient(payload, model)
    before = flat.clone()
    state = VersionedState(str(tmp_path / "state"), payload.plan)
    state.begin(range(len(layout.lots)), payload.initial_weights(), (torch.empty(0), b""))
    optimizer = SliceOptimizer(payload.template.blank)
    net = copy.deepcopy(model)
    for p, q in zip(net.parameters(), model.parameters(), strict=True):
        assert q.grad is not None
        p.grad = q.grad * clip
    oracle = torch.optim.SGD(net.parameters(), lr=0.25, momentum=0.9)
    for version in range(2):
        lots = list(reversed(range(len(layout.lots))))
        sync.update_lots(payload, state, optimizer, lots, version, getter(flat), clip, [{"lr": 0.25}])
        oracle.step()
    parameters = dict(net.named_parameters())
    for t in layout.tensors:
        place = state.weights(2)[t.start : t.start + t.numel].view(t.shape)
        assert torch.equal(place, parameters[t.name].detach())
    assert torch.equal(flat, before), "the sum is left alone: another task may need it"


@pytest.mark.parametrize("num_slices", [1, 2])
def test_the_pieces_of_whole_tensors_make_a_complete_sum(num_slices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "LOT_SIZE", 16)
    model = network()
    layout = payload_of(model, make=partial(torch.optim.Adafactor, lr=0.1)).plan.layout
    gradients = [p.grad for p in model.parameters()]
    items = [record_of(0, 1.0)]
    for piece in slices.pieces(layout, slices.cut(layout, num_slices)):
        data = b"".join(bytes(part) for part in piece_parts(layout, gradients, piece.start, piece.stop, False))
        items.append(item(wire.GRADIENT, 0, data, piece.start, piece.stop - piece.start))
    total = sync.GradientSum(0, layout.size, 1, 0)  # the whole vector, as in the gather form
    total.read(wire.BytesSource(items), STEP, [0])
    assert torch.equal(total.total, flat_gradient(payload_of(model), model))
