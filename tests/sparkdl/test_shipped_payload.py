"""A payload in many broadcasts is the payload."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterable, Iterator

import pytest
import torch
from pyspark.sql import SparkSession
from torch import nn

from sparkdl import shipped_payload
from sparkdl.errors import ConfigError
from sparkdl.payload import Payload
from sparkdl.payload import pickle as pickled
from sparkdl.shipped_payload import ShippedPayload
from tests.sparkdl.payloads import payload_of

pytestmark = pytest.mark.spark


class Read:
    """What a task finds, twice."""

    def __init__(self, shipped: ShippedPayload):
        self.shipped = shipped

    def __call__(self, _: Iterable[int]) -> Iterator[bytes]:
        yield bytes(self.shipped.value)
        yield bytes(self.shipped.value)


@pytest.mark.parametrize("part_bytes", [1 << 26, 1000])
def test_tasks_find_the_whole_pickle(spark: SparkSession, part_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped_payload, "PART_BYTES", part_bytes)
    payload = payload_of(nn.Linear(30, 40))
    shipped = ShippedPayload(spark.sparkContext, payload)
    assert (len(shipped._parts) > 3) == (part_bytes == 1000)
    found = spark.sparkContext.parallelize([0], 1).mapPartitions(Read(shipped)).collect()
    assert found == [pickled(payload)] * 2
    assert shipped.size == len(found[0])
    back: Payload = pickle.loads(found[0])
    assert torch.equal(back.model.weight, payload.model.weight)
    shipped.destroy()


def test_what_cannot_be_shipped_is_named(spark: SparkSession) -> None:
    model = nn.Linear(2, 2)
    model.guard = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"^model\.guard is a lock and cannot be sent to the executors"):
        ShippedPayload(spark.sparkContext, payload_of(model))
