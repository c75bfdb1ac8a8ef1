from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparkdl import optim, payload, slices
from sparkdl.columns import Columns
from sparkdl.dry_run import check
from sparkdl.errors import ConfigError
from sparkdl.label_checks import Numbers
from sparkdl.payload import Payload
from sparkdl.stored_arrays import from_arrays
from sparkdl.versioned_state import state_plan

ROWS = 8
DATA = {
    "x": np.random.default_rng(0).normal(size=(ROWS, 3)),
    "a": np.linspace(0, 1, ROWS),
    "b": np.linspace(1, 2, ROWS),
    "i": np.arange(ROWS),
    "image": np.zeros((ROWS, 3), np.uint8),
    "y": np.arange(ROWS) % 4,
    "z": np.linspace(-1, 1, ROWS),
    "p": np.arange(ROWS) % 2 / 1.0,
    "w": np.ones(ROWS),
}


def made(model: nn.Module, loss: Any = None, x: Any = "x", y: Any = "y", **more: Any) -> Payload:
    template, _ = optim.template(torch.optim.SGD, model)
    named = [(n, tuple(p.shape), template.group_of[n]) for n, p in model.named_parameters() if n in template.group_of]
    layout = slices.layout(named, template.elementwise, template.tables)
    return Payload(
        model=model,
        loss=nn.CrossEntropyLoss() if loss is None else loss,
        template=template,
        plan=state_plan(template, layout, *payload.buffer_sizes(model)),
        columns=Columns.parse(x, y, more.pop("weight_col", None)),
        seed=0,
        batch_size=4,
        **more,
    )


def tried(built: Payload, **data: Any) -> dict[str, Numbers]:
    return check(built, from_arrays(DATA | data, built.columns.names, dict(built.columns.transforms)))


def classes(built: Payload, **data: Any) -> int | None:
    """How many classes the label "y" was seen to have."""
    found = tried(built, **data).get("y")
    return None if found is None else found.size


def refused(built: Payload, **data: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        tried(built, **data)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    return message


class Tied(nn.Module):
    """Looks rows up, and multiplies by all of them."""

    def __init__(self, declared: bool, tied: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4, sparse=declared)
        self.tied = tied

    def forward(self, i: torch.Tensor) -> torch.Tensor:
        found = nn.functional.embedding(i, self.table.weight, sparse=True)
        return found @ self.table.weight.t() if self.tied else found


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 4)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> Any:
        return self.layer((left + right)[:, None])


class Returns(nn.Module):
    """A linear layer, then whatever a function makes of it."""

    def __init__(self, function: Any, out: int = 4) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(3, out), function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.layer(x))


def test_number_of_classes() -> None:
    assert classes(made(nn.Linear(3, 4))) == 4
    assert classes(made(nn.Linear(3, 4)), y=np.arange(ROWS) % 4 / 1.0) == 4  # Spark ML's labels are doubles
    assert classes(made(nn.Sequential(nn.Linear(3, 5), nn.LogSoftmax(1)), nn.NLLLoss())) == 5
    assert classes(made(nn.Linear(3, 4), precision="bf16")) == 4
    assert classes(made(nn.Linear(3, 4), weight_col="w", metrics={"one": lambda o, t: 1.0})) == 4
    assert classes(made(Two(), x={"right": "a", "left": "b"})) == 4


def test_losses_without_classes() -> None:
    assert classes(made(nn.Linear(3, 4)), y=np.full((ROWS, 4), 0.25)) is None  # a probability for each class
    assert classes(made(Returns(lambda o: o[:, 0]), nn.MSELoss(), y="z")) is None
    assert classes(made(Returns(lambda o: o[:, 0]), F.mse_loss, y="z")) is None
    assert classes(made(nn.Linear(3, 4), lambda output, target: output.square().mean(), y=None)) is None
    assert classes(made(Returns(lambda o: (o, o)), lambda output, target: output[0].square().mean())) is None


def test_class_numbers_are_seen_in_any_loss() -> None:
    def both(output: Any, targets: Any) -> torch.Tensor:
        assert len(targets) == 2
        return F.cross_entropy(output, targets[0]) + nn.NLLLoss()(output, targets[1].long().view(-1))

    found = tried(made(nn.Linear(3, 8), both, y=["y", "z"]), z=np.arange(ROWS) / 1.0)
    assert found == {"y": Numbers(8, "cross_entropy", -100), "z": Numbers(8, "nll_loss", -100)}
    step_fn = lambda model, batch: F.cross_entropy(model(*batch.inputs), batch.target)  # noqa: E731
    assert classes(made(nn.Linear(3, 5), step_fn=step_fn)) == 5
    message = refused(made(nn.Linear(3, 4), both, y=["y", "z"]), z=np.arange(ROWS) / 1.0)
    assert message.startswith("label_col: column 'z' holds label 7 but the model has 4 outputs (0..3)")
    message = refused(made(nn.Linear(3, 2), step_fn=step_fn))
    assert message.startswith("label_col: column 'y' holds label 3 but the model has 2 outputs (0..1)")
    # other numbers than the column's are nobody's labels
    assert tried(made(nn.Linear(3, 9), lambda o, t: F.cross_entropy(o, t + 1))) == {}


def test_rows_of_embeddings_are_seen() -> None:
    model = nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 4))
    assert tried(made(model, x="i")) == {"i": Numbers(50, "Embedding"), "y": Numbers(4, "CrossEntropyLoss", -100)}
    assert "An Embedding has fewer rows" in refused(made(nn.Sequential(nn.Embedding(5, 4)), x="i"))


def test_sparse_inputs() -> None:
    built = made(nn.Linear(3, 4))
    columns = Columns.parse("x", "y", transform={"x": "sparse"})
    assert tried(dataclasses.replace(built, columns=columns)) == {"y": Numbers(4, "CrossEntropyLoss", -100)}
    message = refused(dataclasses.replace(made(nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 4))), columns=columns))
    assert "Its inputs: 'x' sparse float32 (8, 3)" in message
    assert "call .to_dense() in forward()" in message


def test_ignored_labels_are_no_classes() -> None:
    assert classes(made(nn.Linear(3, 4)), y=np.array([-100, 0, 1, 2, 3, 0, 1, 2])) == 4
    assert classes(made(nn.Linear(3, 4)), y=np.full(ROWS, -100)) == 4
    assert classes(made(nn.Linear(3, 4), nn.CrossEntropyLoss(ignore_index=255)), y=np.full(ROWS, 255)) == 4


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        random.random(), np.random.random()
        return self.layers(x.add_(1.0))


def test_nothing_is_touched() -> None:
    model = Stateful().eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    rows = from_arrays({"x": DATA["x"].astype(np.float32), "y": DATA["y"]})
    before = rows["x"].copy()
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    expected = torch.rand(1), random.random(), np.random.random()
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    assert check(made(model), rows)["y"].size == 4
    assert (torch.rand(1), random.random(), np.random.random()) == expected
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert np.array_equal(rows["x"], before)


def test_weights_must_be_fp32() -> None:
    assert "parameter 'weight' is bfloat16" in refused(made(nn.Linear(3, 4).to(torch.bfloat16)))
    assert "parameter 'weight' is float64" in refused(made(nn.Linear(3, 4).double()))


def test_too_many_inputs_may_be_one_stacked_input() -> None:
    message = refused(made(nn.Linear(3, 4), x=["a", "b", "z"]))
    assert message.startswith("forward() takes 1 argument (input: ")
    assert message.endswith('feature_cols gives 3 inputs. Did you mean feature_cols=[["a", "b", "z"]]?')


def test_one_stacked_input_may_be_several_inputs() -> None:
    message = refused(made(Two(), x=[["a", "b"]]))
    assert message.startswith("forward() takes 2 arguments (left: ")
    assert message.endswith('feature_cols gives 1 input. Did you mean feature_cols=["a", "b"]?')


def test_too_few_or_misnamed_inputs() -> None:
    message = refused(made(Two(), x="a"))
    assert (
        "forward() takes 2 arguments (left: 'torch.Tensor', right: 'torch.Tensor'), feature_cols gives 1 input"
        in message
    )
    message = refused(made(Two(), x={"left": "a", "wrong": "b"}))
    assert "feature_cols names 'left', 'wrong'" in message
    assert "Use the names of forward()'s arguments" in message


@pytest.mark.parametrize(
    ("model", "x", "wanted"),
    [
        (nn.Linear(5, 4), "x", ["RuntimeError: mat1 and mat2 shapes", "(8x3 and 5x4)", "'x' float32 (8, 3)"]),
        (nn.Linear(1, 4), "a", ["'a' float32 (8,)", 'feature_cols=[["x"]] makes it (rows, 1)']),
        (nn.Linear(3, 4), "image", ["'image' uint8 (8, 3)", "call .float() in forward()"]),
        (nn.Linear(2, 4), [["i", "y"]], ["['i', 'y'] int64 (8, 2)", "cast the column to double"]),
        (nn.Embedding(9, 4), "a", ["'a' float32 (8,)", "cast the column to bigint"]),
        (nn.Embedding(4, 4), "i", ["index out of range", "An Embedding has fewer rows"]),
    ],
)
def test_forward_that_fails_is_shown_its_inputs(model: nn.Module, x: Any, wanted: list[str]) -> None:
    message = refused(made(model, x=x))
    assert message.startswith("forward() failed on the first 8 rows of the data: ")
    for part in wanted:
        assert part in message


def test_output_must_have_the_rows() -> None:
    assert "returned float32 (1, 4) for 8 rows" in refused(made(Returns(lambda o: o.mean(0, keepdim=True))))
    assert "returned float32 () for 8 rows" in refused(made(Returns(torch.sum), nn.MSELoss(), y="z"))


def test_output_must_be_what_the_loss_takes() -> None:
    assert "forward() returned a tuple of 2, but CrossEntropyLoss takes one tensor" in refused(
        made(Returns(lambda o: (o, o)))
    )
    assert "returned a dict" in refused(made(Returns(lambda o: {"logits": o}), nn.MSELoss(), y="z"))


@pytest.mark.parametrize(
    "loss",
    [nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss(), nn.BCELoss(), nn.BCEWithLogitsLoss(), F.mse_loss],
)
def test_silent_broadcasts_are_refused(loss: Any) -> None:
    message = refused(made(Returns(torch.sigmoid, 1), loss, y="p"))
    assert "forward() returned float32 (8, 1) and label 'p' is float32 (8,)" in message
    assert "broadcast them to (8, 8)" in message
    assert "Squeeze the output: return output.squeeze(-1) from forward()." in message
    assert classes(made(Returns(lambda o: torch.sigmoid(o).squeeze(-1), 1), loss, y="p")) is None


def test_labels_in_arrays_of_one() -> None:
    labels = np.ones((ROWS, 1))
    assert "Make 'z' a column of numbers" in refused(made(Returns(lambda o: o[:, 0]), nn.MSELoss(), y="z"), z=labels)
    message = refused(made(nn.Linear(3, 4)), y=labels.astype(int))
    assert "label 'y' is int64 (8, 1)" in message
    assert "instead of arrays of one" in message
    assert "compares them place by place" in refused(made(nn.Linear(3, 4), nn.MSELoss(), y="x"))


def test_class_losses_need_one_output_per_class() -> None:
    message = refused(made(Returns(lambda o: o[:, 0])))
    assert "forward() returned float32 (8,)" in message
    assert "BCEWithLogitsLoss" in message
    sequence = Returns(lambda o: o[:, None, :].expand(-1, 5, -1))
    message = refused(made(sequence), y=np.zeros((ROWS, 5), int))
    assert "output.movedim(-1, 1)" in message
    moved = Returns(lambda o: o[:, :, None].expand(-1, -1, 5))
    assert classes(made(moved), y=np.zeros((ROWS, 5), int)) == 4


def test_labels_beyond_the_outputs() -> None:
    message = refused(made(nn.Linear(3, 10)), y=np.arange(ROWS) + 3)
    assert "column 'y' holds label 10 but the model has 10 outputs (0..9)" in message
    assert "StringIndexer" in message
    assert "label -1 but the model has 4 outputs (0..3)" in refused(made(nn.Linear(3, 4)), y=np.full(ROWS, -1))
    beside_ignored = np.where(np.arange(ROWS) < 4, -100, -1)
    assert "label -1 but the model has 4 outputs" in refused(made(nn.Linear(3, 4)), y=beside_ignored)
    assert "label 1 but the model has 1 output (0)" in refused(made(nn.Linear(3, 1)), y=np.arange(ROWS) % 2)


def test_labels_that_are_no_classes() -> None:
    assert "holds NaN" in refused(made(nn.Linear(3, 4)), y=np.full(ROWS, np.nan))
    assert "holds 0.5, but CrossEntropyLoss compares with class numbers" in refused(
        made(nn.Linear(3, 4)), y=np.full(ROWS, 0.5)
    )
    assert "holds NaN" in refused(made(Returns(lambda o: o[:, 0]), nn.MSELoss(), y="z"), z=np.full(ROWS, np.nan))


def test_targets_that_torch_losses_do_not_take() -> None:
    assert "label_col is None, but CrossEntropyLoss compares with one" in refused(made(nn.Linear(3, 4), y=None))
    assert "label_col gives 2 targets" in refused(made(nn.Linear(3, 4), y=["y", "z"]))


def test_loss_that_fails_is_shown_what_it_compared() -> None:
    message = refused(made(nn.Linear(3, 4), F.cross_entropy, y="z"))
    assert message.startswith("the loss cross_entropy failed on the first 8 rows of the data: ")
    assert "The output is float32 (8, 4), the label 'z' float32 (8,)" in message
    weighted = nn.CrossEntropyLoss(weight=torch.ones(3))
    assert "the loss CrossEntropyLoss failed" in refused(made(nn.Linear(3, 4), weighted))
    message = refused(made(Returns(lambda o: o[:, 0]), nn.BCEWithLogitsLoss()), y=np.arange(ROWS) % 2)
    assert "cast the label column to double" in message


def test_loss_must_be_a_mean() -> None:
    assert "reduction='sum'" in refused(made(nn.Linear(3, 4), nn.CrossEntropyLoss(reduction="sum")))
    assert "returned float32 (8,) as the loss" in refused(made(nn.Linear(3, 4), nn.CrossEntropyLoss(reduction="none")))
    assert "returned a float as the loss" in refused(made(nn.Linear(3, 4), lambda output, target: 1.0))


def test_loss_must_be_finite() -> None:
    holes = np.where(np.arange(ROWS * 3).reshape(ROWS, 3) == 5, np.nan, 0.0)
    assert "the loss of the first 8 rows is nan; 'x' holds NaN or infinite" in refused(made(nn.Linear(3, 4)), x=holes)
    message = refused(made(nn.Linear(3, 4), lambda output, target: output.mean() / 0.0))
    assert "the rows are all finite" in message


def test_gradients_must_arrive_whole() -> None:
    for loss in (
        lambda output, target: output.detach().mean(),
        lambda output, target: torch.ones((), requires_grad=True),
    ):
        assert "no gradient reached any parameter" in refused(made(nn.Linear(3, 4), loss))
    message = refused(made(nn.Linear(3, 4), lambda output, target: (output * 0.0).abs().sqrt().mean()))
    assert "gradient of 'weight' is NaN" in message

    def broken(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        root = output.exp()
        value = root.mean()
        root.zero_()
        return value * root.sum()

    assert "backward() failed on the first 8 rows" in refused(made(nn.Linear(3, 4), broken))


def test_only_the_weights_of_sparse_embeddings_may_have_sparse_gradients() -> None:
    tried(made(Tied(declared=True, tied=False), x="i"))
    message = refused(made(Tied(declared=True, tied=True), x="i"))
    assert "'table.weight' belongs to an Embedding with sparse=True, but gets a dense gradient" in message
    message = refused(made(Tied(declared=False, tied=False), x="i"))
    assert "'table.weight' gets a sparse gradient, but is no weight of a torch.nn.Embedding" in message
    holes = nn.Embedding(9, 4, sparse=True)
    loss = nn.CrossEntropyLoss()
    message = refused(made(holes, lambda output, target: loss((output * 0.0).abs().sqrt() + output, target), x="i"))
    assert "gradient of 'weight' is NaN" in message


def test_metrics() -> None:
    def no_mean(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return output.argmax(1) == target

    message = refused(made(nn.Linear(3, 4), metrics={"accuracy": no_mean}))
    assert message == "metric 'accuracy' is bool (8,); it must be one number, the mean over the rows."
    message = refused(made(nn.Linear(3, 4), metrics={"odd": lambda output, target: output.missing}))
    assert message.startswith("metric 'odd' failed on the first 8 rows: AttributeError")
    assert "the output, float32 (8, 4), and the label, int64 (8,)" in message


def test_step_fn() -> None:
    def step(model: nn.Module, batch: Any) -> Any:
        loss = F.cross_entropy(model(*batch.inputs), batch.target)
        return {"loss": loss, "double": 2 * loss}

    assert classes(made(nn.Linear(3, 4), step_fn=step)) == 4
    assert classes(made(nn.Linear(3, 4), step_fn=step, metrics={"double": print})) == 4
    assert classes(made(nn.Linear(3, 4), step_fn=lambda m, b: step(m, b)["loss"])) == 4
    assert "without 'other'" in refused(made(nn.Linear(3, 4), step_fn=step, metrics={"other": print}))
    message = refused(made(nn.Linear(3, 4), step_fn=lambda m, b: {"lose": step(m, b)["loss"]}))
    assert "step_fn returned the keys 'lose', without 'loss'" in message
    assert "step_fn returned None as the loss" in refused(made(nn.Linear(3, 4), step_fn=lambda m, b: None))
    assert "step_fn returned float32 (8, 4) as the loss" in refused(
        made(nn.Linear(3, 4), step_fn=lambda m, b: m(*b.inputs))
    )
    message = refused(made(nn.Linear(2, 4), step_fn=step))
    assert message.startswith("step_fn failed on the first 8 rows of the data: RuntimeError: mat1")
    assert "inputs 'x' float32 (8, 3), the label 'y' int64 (8,)" in message
