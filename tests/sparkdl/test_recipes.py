from __future__ import annotations

import functools
import json
from typing import Any

import pytest
import torch
from torch import nn

from sparkdl.errors import ConfigError
from sparkdl.recipes import described, described_factory, import_name, module_of, rebuilt
from tests.sparkdl import runs


class Scaled(nn.Module):
    """Keeps its arguments as attributes, one of them a module."""

    def __init__(self, body: nn.Module, factor: float = 2.0, taps: tuple[int, ...] = (1, 2)):
        super().__init__()
        self.body, self.factor, self.taps = body, factor, taps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) * self.factor


class Forgetful(nn.Module):
    """Keeps nothing of its argument but a layer."""

    def __init__(self, width: int):
        super().__init__()
        self.layer = nn.Linear(3, width)


class Halved(nn.Module):
    """Keeps another number than it was given."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.width = width // 2


class Drawn(nn.Module):
    """A buffer that a state_dict does not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("noise", torch.rand(4), persistent=False)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    return model


def hooked() -> nn.Module:
    model = nn.Linear(3, 3)
    model.register_forward_hook(lambda *arguments: None)
    return model


def through_json(value: Any, **options: Any) -> Any:
    return json.loads(json.dumps(described(value, "model", **options)))


LAYERS = [
    nn.Linear(3, 4, bias=False),
    nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4, momentum=0.3),
        nn.GELU(approximate="tanh"),
        nn.MaxPool2d((2, 2)),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(64, 10),
    ),
    nn.Embedding(7, 3, padding_idx=0),
    nn.LayerNorm((3, 4), elementwise_affine=False),
    nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.ModuleList([nn.ReLU(), nn.PReLU(3)])}),
    Scaled(nn.Sequential(nn.Linear(3, 3), Scaled(nn.Tanh(), 0.5)), taps=(4,)),
    nn.CrossEntropyLoss(weight=torch.tensor([0.1, 0.7, 0.2]), label_smoothing=0.1),
]


@pytest.mark.parametrize("module", LAYERS, ids=lambda module: type(module).__name__)
def test_modules_are_built_again(module: nn.Module) -> None:
    drawn = torch.get_rng_state()
    again = rebuilt(through_json(module, weights_apart=True))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert str(again) == str(module)
    again.load_state_dict(module.state_dict())
    if not isinstance(module, nn.CrossEntropyLoss):
        assert [(n, p.shape) for n, p in again.named_parameters()] == [
            (n, p.shape) for n, p in module.named_parameters()
        ]
    else:
        assert torch.equal(again.weight, module.weight)  # which no file holds


def test_frozen_parameters_stay_frozen() -> None:
    module = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2))
    again = rebuilt(through_json(module, weights_apart=True))
    assert [p.requires_grad for p in again.parameters()] == [False, False, True, True]


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Forgetful(4), "a Forgetful keeps no attribute 'width', which its constructor takes"),
        (Halved(), "has another attribute width"),
        (Drawn(), "has another content of 'noise', which a state_dict does not hold"),
        (tied(), "has another set of tensors that are shared"),
        (hooked(), "has another set of hooks (_forward_hooks of '')"),
        (Scaled(nn.Identity(), factor=torch.nn.functional), "it holds a module"),  # type: ignore[arg-type]
        (type("Local", (nn.Module,), {})(), "Local lives in no module, where no other process can import it"),
    ],
    ids=["forgetful", "halved", "drawn", "tied", "hooked", "attribute", "local"],
)
def test_modules_that_could_come_back_different_are_refused(module: nn.Module, reason: str) -> None:
    with pytest.raises(ConfigError) as raised:
        described(module, "model", weights_apart=True)
    assert reason in str(raised.value)
    assert "or save with trust=True, which pickles it" in str(raised.value)


def test_weights_that_no_file_would_hold_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"loss cannot be saved: .* another content of 'weight'"):
        described(nn.Linear(2, 2), "loss")


def test_settings_and_functions() -> None:
    value = {
        "a": [1, 2.5, None, True, "x"],
        "b": (1, (2,)),
        "tensor": 0,
        "f": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        "g": nn.functional.cross_entropy,
        "loss": nn.MSELoss(),
    }
    again = rebuilt(through_json(value))
    partial, loss = again.pop("f"), again.pop("loss")
    assert isinstance(loss, nn.MSELoss)
    assert (partial.func, partial.args, partial.keywords) == (torch.optim.SGD, (), {"lr": 0.1, "momentum": 0.9})
    assert again == {name: content for name, content in value.items() if name in again}
    with pytest.raises(ConfigError, match=r"keys are not all strings"):
        described({1: 2}, "metrics")
    with pytest.raises(ConfigError, match=r"a tensor of 100,001 numbers"):
        described(torch.zeros(100_001), "loss")


def unannotated():  # type: ignore[no-untyped-def]
    return nn.Linear(2, 2)


def test_factories() -> None:
    found = json.loads(json.dumps(described_factory(runs.mlp)))
    assert found == {"name": "tests.sparkdl.runs:mlp"}
    assert module_of(rebuilt(found), 0).state_dict().keys() == runs.mlp().state_dict().keys()
    made = module_of(rebuilt(described_factory(functools.partial(nn.Linear, 2, out_features=3))), seed=5)  # type: ignore[arg-type]
    torch.manual_seed(5)
    assert torch.equal(made.weight, nn.Linear(2, 3).weight)
    with pytest.raises(ConfigError, match=r"<lambda> lives in no module"):
        described_factory(lambda: nn.Linear(2, 2))
    with pytest.raises(ConfigError, match=r"as `def unannotated\(\.\.\.\) -> torch.nn.Module` would. Annotate it"):
        described_factory(unannotated)
    aside: dict[str, Any] = {}
    assert described_factory(unannotated, aside) == {"pickled": "model"}
    assert aside == {"model": unannotated}


@pytest.mark.parametrize("name", ["os:system", "subprocess:run", "builtins:dict"])
def test_no_other_function_is_called(name: str) -> None:
    keywords = {"mapping": {"args": ["false"]}}
    with pytest.raises(ConfigError, match=r"names a function that is not called"):
        module_of(rebuilt({"partial": name, "arguments": [], "keywords": keywords}), 0)
    with pytest.raises(ConfigError, match=r"which is no class of modules"):
        rebuilt({"module": {"layer": name, "keywords": {}}, "frozen": []})


def test_what_is_pickled_needs_trust() -> None:
    aside: dict[str, Any] = {}
    found = described({"top": lambda x: x}, "metrics", aside)
    assert found == {"pickled": "metrics"}
    assert rebuilt(found, aside) is aside["metrics"]
    with pytest.raises(ConfigError, match=r"metrics was pickled when it was saved with trust=True. Unpickling runs"):
        rebuilt(found)


def test_names() -> None:
    assert import_name(nn.Linear) == "torch.nn.modules.linear:Linear"
    assert import_name(Scaled.forward) == f"{__name__}:Scaled.forward"
    assert import_name(3) is None
    with pytest.raises(ConfigError, match=r"needs 'gone' of the module 'torch.nn', which cannot be imported here"):
        rebuilt({"name": "torch.nn:gone"})
    with pytest.raises(ConfigError, match=r"kind 'later' is unknown here"):
        rebuilt({"later": 1})
