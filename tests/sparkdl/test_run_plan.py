"""The rule that chooses the form of a step."""

from __future__ import annotations

import pytest

from sparkdl.run_plan import choose_form


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
