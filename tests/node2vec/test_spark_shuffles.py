from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from node2vec import spark_shuffles
from node2vec.spark_shuffles import PrivateShuffles, PublicShuffles

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


@pytest.mark.parametrize("form", [PrivateShuffles, PublicShuffles])
def test_both_forms_do_the_same(spark: SparkSession, form: Any) -> None:
    assert spark_shuffles.relay(form(spark.sparkContext, 2, 5, spark_shuffles._nothing)) == spark_shuffles.RELAYED


def test_the_private_form_is_taken_where_it_works(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    sc = spark.sparkContext
    monkeypatch.setattr(spark_shuffles, "_tested", {})
    assert isinstance(spark_shuffles.shuffles(sc, 2, 5, spark_shuffles._nothing), PrivateShuffles)
    monkeypatch.setattr(spark_shuffles, "_tested", {})
    monkeypatch.setattr(PrivateShuffles, "run", lambda self, sent: (_ for _ in ()).throw(AttributeError("moved")))
    assert isinstance(spark_shuffles.shuffles(sc, 2, 5, spark_shuffles._nothing), PublicShuffles)
    assert sc.getLocalProperty("spark.job.description") is None
