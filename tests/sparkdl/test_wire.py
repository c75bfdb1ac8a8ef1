"""Items survive the way from memory to bytes and back, and views share memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkdl import wire

law = settings(deadline=None, max_examples=60, print_blob=True)  # machines may be busy
KINDS = range(9)
ELEMENT_BYTES = {wire.GRADIENT: 4, wire.SUM: 4, wire.WEIGHTS: 4, wire.RECORD: 8}  # all other kinds count bytes


@law
@given(
    st.sampled_from(KINDS), st.integers(-1, 2**62), st.integers(0, 2**31 - 1), st.integers(0, 2**62),
    st.integers(0, 2**62), st.integers(0, 1), st.binary(max_size=9),
)  # fmt: skip
def test_unpack_is_the_inverse_of_header(
    kind: int, version: int, replica: int, start: int, count: int, dtype: int, payload: bytes
) -> None:
    data = wire.header(kind, version, replica, start, count, dtype)
    assert len(data) == wire.HEADER_BYTES == 32
    expected = wire.Header(kind, dtype, version, replica, start, count)
    assert wire.unpack(data + payload) == expected
    assert wire.unpack(memoryview(data + payload)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_payload_bytes_counts_elements_of_numbers_and_bytes_of_the_rest(kind: int) -> None:
    assert wire.payload_bytes(wire.Header(kind, 0, 1, 2, 3, 10)) == 10 * ELEMENT_BYTES.get(kind, 1)
    if kind == wire.GRADIENT:
        assert wire.payload_bytes(wire.Header(kind, wire.DTYPES["bf16"], 1, 2, 3, 10)) == 20


def items_of(payloads: list[bytes]) -> list[bytes]:
    return [wire.header(wire.STATE, n, n, n, len(data)) + data for n, data in enumerate(payloads)]


def read_all(source: wire.Source) -> list[bytes]:
    found = []
    for number, head in enumerate(source):
        assert head == wire.Header(wire.STATE, 0, number, number, number, head.size)
        half = memoryview(bytearray(head.size // 2))  # a payload may be read in parts
        source.readinto(half)
        rest = memoryview(bytearray(head.size - len(half)))
        source.readinto(rest)
        found.append(bytes(half) + bytes(rest))
    return found


@law
@given(st.lists(st.binary(max_size=100), max_size=6))
def test_bytes_source_gives_back_the_items(payloads: list[bytes]) -> None:
    for convert in (bytes, bytearray, memoryview):
        assert read_all(wire.BytesSource(map(convert, items_of(payloads)))) == payloads  # type: ignore[arg-type]


@pytest.mark.parametrize("payloads", [[], [b""], [b"abc", b"", b"x" * 100_000, b"end"]])
def test_file_source_gives_back_the_items(tmp_path: Path, payloads: list[bytes]) -> None:
    path = tmp_path / "items"
    path.write_bytes(b"".join(items_of(payloads)))
    assert read_all(wire.FileSource(str(path))) == payloads


def test_read_takes_a_whole_payload() -> None:
    numbers = np.arange(5, dtype=np.float64)
    source = wire.BytesSource([wire.header(wire.RECORD, 0, 0, 0, 5) + numbers.tobytes()])
    for head in source:
        assert np.array_equal(np.frombuffer(wire.read(source, head), np.float64), numbers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3)])
def test_view_is_the_tensors_own_memory(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.randn(shape).to(dtype).requires_grad_()
    view = wire.view(tensor)
    assert len(view) == tensor.numel() * tensor.element_size()
    other = torch.randn(shape).to(dtype)
    view[:] = wire.view(other)
    assert torch.equal(tensor, other)


def test_bf16_travels_as_the_upper_half_of_fp32() -> None:
    tensor = torch.tensor([1.0, -2.5, 3.0e38])
    halves = np.frombuffer(wire.view(tensor.to(torch.bfloat16)), np.uint16)
    back = (halves.astype(np.uint32) << 16).view(np.float32)
    assert back[:2].tolist() == [1.0, -2.5]
    assert back[2] == pytest.approx(3.0e38, rel=2**-8)


@pytest.mark.parametrize("array", [np.zeros(0), np.zeros((3, 0)), np.arange(6.0).reshape(2, 3), np.arange(6)[::2]])
def test_bytes_of_are_the_arrays_bytes_in_order(array: np.ndarray) -> None:
    assert bytes(wire.bytes_of(array)) == array.tobytes()
