from __future__ import annotations

import numpy as np
import pytest
import torch

from node2vec import block_training, skipgram, skipgram_torch, training_device
from sparkdl.errors import ClusterError
from tests.node2vec.test_block_training import corpus, random_walks, training


def test_auto_is_a_gpu_where_tasks_have_one() -> None:
    assert [training_device.chosen("auto", gpus) for gpus in (0, 0.5, 1)] == ["cpu", "cuda", "cuda"]
    assert [training_device.chosen(name, 1) for name in ("cpu", "torch")] == ["cpu", "torch"]


def test_a_task_takes_the_gpu_that_spark_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert training_device.local("cuda", 5, ["3"]) == "cuda:3"
    assert [training_device.local("cuda", task) for task in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert training_device.local("torch", 5, ["3"]) == "torch"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ClusterError, match=r'device="cuda", but torch .* sees no CUDA device on'):
        training_device.local("cuda", 0)


def test_kernels() -> None:
    assert training_device.kernel("cpu") is skipgram.train_block
    assert training_device.kernel("torch") is training_device.kernel("cuda") is skipgram_torch.train_block


def test_torch_trains_in_place_on_one_thread() -> None:
    table, before = np.ones((3, 2), np.float32), torch.get_num_threads()
    with training_device.tables_on("torch", [table]) as (there,):
        there += 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    assert (table == 2).all()
    with training_device.tables_on("cpu", [table]) as (same,):
        assert same is table


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_tables_back() -> None:
    data = corpus(random_walks(), 2, 2)
    runs = [training(2, 2, cores=2, device=name) for name in ("cuda", "cuda", "torch")]
    found = [block_training.train(run, data.streams, data.counts) for run in runs]
    assert found[0].tobytes() == found[1].tobytes()
    assert np.allclose(found[0], found[2], atol=1e-4)


@pytest.mark.parametrize(("num_parts", "cores"), [(1, 1), (4, 2)])
def test_torch_learns_what_numba_learns(num_parts: int, cores: int) -> None:
    data = corpus(random_walks(600), num_parts, 4)
    numba, with_torch = (
        block_training.train(
            training(num_parts, 4, 600, cores=cores, epochs=5, device=name, dimensions=16), data.streams, data.counts
        )
        for name in ("cpu", "torch")
    )
    lengths = [np.linalg.norm(vectors, axis=1) for vectors in (numba, with_torch)]
    assert numba.tobytes() != with_torch.tobytes()
    assert lengths[1].mean() == pytest.approx(lengths[0].mean(), rel=0.3)
