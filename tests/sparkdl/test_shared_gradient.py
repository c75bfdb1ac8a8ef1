"""A reader finds the gradient of exactly the step that it asked for, or StateLost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sparkdl import wire
from sparkdl.errors import StateLost
from sparkdl.shared_gradient import SharedGradient, sum_range

SIZE = 2500  # more than a page of fp32, and no whole number of pages


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[SharedGradient]:
    found = SharedGradient(str(tmp_path / "gradient"), SIZE, bf16=False, create=True)
    yield found
    found.close()


def values(seed: int) -> torch.Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


def parts(gradient: torch.Tensor, cut: int = 1000) -> wire.Parts:
    memory = wire.view(gradient)
    size = gradient.element_size()
    return [memory[: cut * size], bytes(memory[cut * size :])]


def test_two_versions_are_kept(shared: SharedGradient) -> None:
    shared.write(0, parts(values(0)))
    assert torch.equal(shared.read(0), values(0))
    shared.write(1, parts(values(1)))
    assert torch.equal(shared.read(0), values(0))
    assert torch.equal(shared.read(1), values(1))
    shared.write(2, parts(values(2)))
    assert torch.equal(shared.read(1), values(1))
    assert torch.equal(shared.read(2), values(2))
    with pytest.raises(StateLost, match="the shared gradient of step 0 is not there"):
        shared.read(0)


def test_nothing_is_there_before_it_is_written(shared: SharedGradient) -> None:
    for version in (0, 1, 7):
        with pytest.raises(StateLost, match=f"the shared gradient of step {version} is not there"):
            shared.read(version)


def test_a_version_is_written_once(shared: SharedGradient) -> None:
    shared.write(4, parts(values(0)))
    shared.write(4, parts(values(1)))  # a second attempt of the same task: readers may be reading
    assert torch.equal(shared.read(4), values(0))


@pytest.mark.parametrize("late", [1, 2])
def test_a_late_copy_of_an_old_task_is_refused(shared: SharedGradient, late: int) -> None:
    for version in (1, 2, 3):
        shared.write(version, parts(values(version)))
    with pytest.raises(StateLost, match=f"the run is at step 3 already, this task is of step {late}"):
        shared.write(late, parts(values(9)))
    assert torch.equal(shared.read(2), values(2))
    assert torch.equal(shared.read(3), values(3))


def test_a_task_that_dies_half_way_leaves_nothing_behind(shared: SharedGradient) -> None:
    shared.write(1, parts(values(1)))
    broken: wire.Parts = [*parts(values(3))[:1], "no bytes"]  # type: ignore[list-item]
    with pytest.raises((TypeError, ValueError)):
        shared.write(3, broken)
    for version in (1, 3):
        with pytest.raises(StateLost):
            shared.read(version)
    shared.write(3, parts(values(3)))  # the lock was let go of
    assert torch.equal(shared.read(3), values(3))


def test_another_process_reads_what_was_written(shared: SharedGradient, tmp_path: Path) -> None:
    reader = SharedGradient(str(tmp_path / "gradient"), SIZE, bf16=False)
    shared.write(5, parts(values(5)))
    assert torch.equal(reader.read(5), values(5))
    again = SharedGradient(str(tmp_path / "gradient"), SIZE, bf16=False, create=True)  # a restarted writer
    assert torch.equal(again.read(5), values(5))
    reader.close()
    again.close()


def test_bf16(tmp_path: Path) -> None:
    shared = SharedGradient(str(tmp_path / "gradient"), SIZE, bf16=True, create=True)
    first, second = values(0).to(torch.bfloat16), values(1).to(torch.bfloat16)
    shared.write(0, parts(first))
    shared.write(1, parts(second))
    assert shared.read(0).dtype == torch.bfloat16
    assert torch.equal(shared.read(0), first)
    assert torch.equal(shared.read(1), second)
    total = sum_range([shared.read(0), shared.read(1)], 0, SIZE, torch.empty(SIZE))
    assert torch.equal(total, first.float() + second.float())  # summed in fp32
    shared.close()


def test_sum_range_is_in_the_order_given() -> None:
    gradients = [values(r) * 10.0 ** (r % 5 - 2) for r in range(7)]
    expected = gradients[0][100:900].clone()
    for gradient in gradients[1:]:
        expected += gradient[100:900]
    out = torch.full((800,), 7.0)
    assert sum_range(gradients, 100, 900, out) is out
    assert torch.equal(out, expected)
    assert not torch.equal(sum_range(gradients[::-1], 100, 900, torch.empty(800)), expected)
    # a range of a range is the same
    assert torch.equal(sum_range(gradients, 300, 400, torch.empty(100)), expected[200:300])


def test_a_file_that_is_not_there_is_explained(tmp_path: Path) -> None:
    path = str(tmp_path / "elsewhere")
    with pytest.raises(StateLost) as raised:
        SharedGradient(path, SIZE, bf16=False)
    text = str(raised.value)
    assert text.startswith(f"no gradient at {path}: 'spark.sparkdl.sameHost' is true, but this executor")
    assert text.endswith("set it to false")
