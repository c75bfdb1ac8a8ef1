"""The rule that chooses the form of a step, and what is said of a plan before its first step."""

from __future__ import annotations

import pytest

from sparkdl.run_plan import choose_form, remark
from sparkdl.step_settings import Plan


@pytest.mark.parametrize(
    ("megabytes", "replicas", "slots", "form"),
    [
        (1, 1, 1, "gather"),
        (4000, 1, 1, "gather"),  # alone there is nothing to send
        (4000, 2, 2, "gather"),  # at two replicas both send the same
        (1, 8, 8, "gather"),  # 1 x 7 x 6 / 8 = 5.25 MB
        (3, 8, 8, "gather"),  # 15.75 MB
        (4, 8, 8, "fused"),  # 21 MB
        (1, 8, 2, "fused"),  # four replicas a slot: 21 MB
        (1, 8, 4, "gather"),  # two replicas a slot: 10.5 MB
        (9, 4, 64, "gather"),  # 13.5 MB: slots to spare change nothing
        (100, 3, 3, "fused"),
        (1, 64, 64, "fused"),
    ],
)
def test_the_rule_of_form_auto(megabytes: int, replicas: int, slots: int, form: str) -> None:
    assert choose_form(megabytes << 20, replicas, slots) == form


@pytest.mark.parametrize(
    ("batch_size", "replicas", "slots", "words"),
    [
        (15, 2, 4, "gives each of 2 replicas 7.5:"),
        (16, 2, 4, None),
        (1, 1, 1, None),  # alone: nothing to share out
        (512, 8, 4, "8 replicas on 4 task slots: each step takes 2 waves"),
        (512, 9, 4, "each step takes 3 waves"),
        (512, 4, 4, None),
    ],
)
def test_remarks(batch_size: int, replicas: int, slots: int, words: str | None) -> None:
    said = remark(Plan("run", 0, batch_size, (100,) * replicas, ((0, 1),)), slots)
    assert said is None if words is None else words in (said or "")
