"""Labels of all rows against what the dry run saw them used for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from sparkdl.errors import ConfigError
from sparkdl.label_checks import Numbers, ValueRange, check_labels, check_rows

CLASSES = Numbers(10, "CrossEntropyLoss", -100)


@given(
    hnp.arrays(np.float32, st.integers(0, 20), elements=st.sampled_from([-1, 0, 2, 0.5, 1.25, math.nan, math.inf])),
    st.integers(0, 20),
)
def test_the_range_of_parts_is_that_of_the_whole(values: np.ndarray, cut: int) -> None:
    found = ValueRange.joined([ValueRange.of(values[:cut]), ValueRange.of(values[cut:])])
    assert found == ValueRange.of(values)
    numbers = [v for v in values.tolist() if not math.isnan(v)]
    fractions = [v for v in numbers if not math.isinf(v) and v != math.floor(v)]
    lowest, highest = min(numbers, default=None), max(numbers, default=None)
    assert found == (lowest, highest, len(numbers) < len(values), next(iter(fractions), None))


def test_ranges_of_whole_numbers_and_arrays() -> None:
    assert ValueRange.of(np.array([3, -1])) == (-1, 3, False, None)
    assert ValueRange.of(np.array([[0.5, 2.0]], np.float32)) == (0.5, 2, False, None)  # a quantity for each place
    assert ValueRange.of(np.empty((0, 2), np.float32)) == (None, None, False, None)


def test_labels_of_the_whole_data() -> None:
    loss = nn.CrossEntropyLoss()
    check_labels("y", loss, CLASSES, ValueRange(0, 9))
    check_labels("y", loss, CLASSES, ValueRange(-100, 9))
    check_labels("y", nn.CrossEntropyLoss(ignore_index=255), Numbers(10, "CrossEntropyLoss", 255), ValueRange(0, 255))
    check_labels("y", loss, None, ValueRange(-1, 99))  # not known
    check_labels("y", loss, CLASSES, ValueRange())  # no rows
    check_labels("y", nn.MSELoss(), None, ValueRange(-5, 5, fraction=0.5))
    check_labels("y", F.mse_loss, None, ValueRange(nan=True))  # a function may mask them
    for low, high, label in ((0, 10, "10"), (-1, 9, "-1"), (-100, 10, "10")):
        with pytest.raises(ConfigError, match=rf"'y' holds label {label} but the model has 10 outputs \(0\.\.9\)"):
            check_labels("y", loss, CLASSES, ValueRange(low, high))
    with pytest.raises(ConfigError, match=r"'y' holds label 1 but the model has 1 output \(0\)"):
        check_labels("y", loss, Numbers(1, "CrossEntropyLoss"), ValueRange(0, 1))
    with pytest.raises(ConfigError, match=r"'y' holds 1\.5, but CrossEntropyLoss compares with class numbers"):
        check_labels("y", loss, None, ValueRange(0, 2, fraction=1.5))
    for other in (loss, nn.MSELoss()):
        with pytest.raises(ConfigError, match=r"'y' holds NaN.*dropna"):
            check_labels("y", other, None, ValueRange(nan=True))
    with pytest.raises(ConfigError, match="label 2 but BCEWithLogitsLoss compares with probabilities"):
        check_labels("y", nn.BCEWithLogitsLoss(), None, ValueRange(0, 2))


def test_every_label_and_every_column_that_is_looked_up() -> None:
    used = {"y": Numbers(10, "cross_entropy"), "z": Numbers(3, "cross_entropy"), "user": Numbers(5, "Embedding")}
    good = {"y": ValueRange(0, 9), "z": ValueRange(0, 2), "user": ValueRange(0, 4)}

    def check(**bad: ValueRange) -> None:
        check_rows(["y", "z"], F.cross_entropy, used, [good, {}, good | bad])

    check()
    with pytest.raises(ConfigError, match=r"column 'y' holds label 10 but the model has 10 outputs \(0\.\.9\)"):
        check(y=ValueRange(0, 10))
    with pytest.raises(ConfigError, match=r"column 'z' holds label 3 but the model has 3 outputs \(0\.\.2\)"):
        check(z=ValueRange(0, 3))
    with pytest.raises(ConfigError, match=r"column 'z' holds NaN, which is no class number for cross_entropy"):
        check(z=ValueRange(0, 1, nan=True))
    with pytest.raises(
        ConfigError, match=r"feature_cols: column 'user' holds 5 but its Embedding has 5 rows \(0\.\.4\)"
    ):
        check(user=ValueRange(0, 5))
