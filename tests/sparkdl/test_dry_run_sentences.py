"""Words for tensors, columns and errors."""

from __future__ import annotations

import torch

from sparkdl.dry_run_sentences import counted, number, plain, shown, spelled, text_of, unequal


def test_values_by_type_and_shape() -> None:
    assert shown(torch.zeros(8, 3)) == "float32 (8, 3)"
    assert shown(torch.zeros(2, 3).to_sparse()) == "sparse float32 (2, 3)"
    assert shown((1, 2)) == "a tuple of 2"
    assert (shown(None), shown(3)) == ("None", "a int")
    assert plain(torch.bfloat16) == "bfloat16"


def test_words() -> None:
    assert (counted(1, "input"), counted(2, "input")) == ("1 input", "2 inputs")
    assert (number(7.0), number(1.5)) == ("7", "1.5")
    assert (spelled("x"), spelled(("a", "b"))) == ("'x'", "['a', 'b']")
    assert text_of(ValueError("several\n  lines.")) == "ValueError: several lines"
    assert text_of(KeyError()) == "KeyError"


def test_unequal_shapes_and_what_helps() -> None:
    column, row = torch.zeros(4, 1), torch.zeros(4)
    assert "broadcast them to (4, 4)" in unequal("MSELoss", "y", column, row)
    assert unequal("MSELoss", "y", column, row).endswith(
        "Squeeze the output: return output.squeeze(-1) from forward()."
    )
    assert "return output.unsqueeze(-1)" in unequal("MSELoss", "y", row, column)
    assert "compares them place by place" in unequal("MSELoss", "y", torch.zeros(4, 3), torch.zeros(4, 2))
