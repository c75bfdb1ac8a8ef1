"""What a checkpoint remembers comes back from its JSON, and says in a sentence what does not fit."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparkdl import checkpoint_files
from sparkdl.checkpoint_files import TrainerState, callback_file, check_files, check_fits, checkpoint_name, describe
from sparkdl.errors import ConfigError
from sparkdl.payload import Payload
from sparkdl.step_settings import Plan, StepSettings
from tests.sparkdl.payloads import payload_of

counts = st.integers(0, 2**62)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
groups = st.lists(st.dictionaries(st.text(), st.floats(allow_nan=False) | st.integers() | st.booleans(), max_size=2))
states = st.builds(
    TrainerState,
    step=counts,
    epoch=counts,
    index=counts,
    seed=st.integers(),
    replicas=counts,
    batch_size=counts,
    rows_per_replica=st.lists(counts, max_size=4),
    steps_per_epoch=counts,
    layout=st.lists(st.tuples(st.text(), st.lists(counts, max_size=3).map(tuple), counts), max_size=4),
    buffers=st.tuples(counts, counts),
    optimizer=st.text(),
    optimizer_state=st.lists(st.lists(st.text(), max_size=2), max_size=2),
    num_lots=counts,
    before=st.none() | st.builds(StepSettings, counts, counts, counts, groups),
    callbacks=st.lists(
        st.fixed_dictionaries({"type": st.text(), "state": st.dictionaries(st.text(), plain, max_size=3)}), max_size=2
    ),
    stopped=st.booleans(),
    fingerprints=st.lists(st.binary(min_size=32, max_size=32).map(bytes.hex), max_size=3),
    files=st.dictionaries(st.text(), counts, max_size=3),
)


@given(states)
def test_json_brings_back_everything(state: TrainerState) -> None:
    assert TrainerState.loads(state.dumps()) == state


PLAN = Plan("run", 3, 8, (20, 11), ((0, 1),))


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 1))


def payload(model: nn.Module | None = None, make: Any = torch.optim.Adam, **options: Any) -> Payload:
    return payload_of(model or network(), make=make, seed=3, **options)


def saved(**changes: Any) -> TrainerState:
    state = describe(payload(), PLAN, 9, StepSettings(8, 1, 4, [{}]), [{"type": "Mine", "state": {"best": 1.5}}])
    state = replace(state, fingerprints=["ab" * 32] * state.num_lots, files={"model.safetensors": 100})
    return replace(state, **changes)


def test_a_training_is_described_and_fits_itself() -> None:
    state = saved()
    assert (state.step, state.epoch, state.index, state.steps_per_epoch) == (9, 2, 1, 4)
    assert (state.seed, state.replicas, state.batch_size, state.rows_per_replica) == (3, 2, 8, [20, 11])
    assert state.layout[0] == ("0.weight", (6, 4), 0)
    assert [name for name, _, _ in state.layout] == [name for name, _ in network().named_parameters()]
    assert (state.optimizer, state.optimizer_state) == (
        "Adam",
        [["step float32", "exp_avg float32", "exp_avg_sq float32"]],
    )
    assert state.buffers == (12, 8)
    assert state.num_lots == 2
    check_fits(TrainerState.loads(state.dumps()), payload(), PLAN, "there")


FOREIGN: list[tuple[dict[str, Any], str]] = [
    ({"seed": 4}, "written with seed=4, now it is 3"),
    ({"replicas": 5}, "written with replicas=5, now it is 2"),
    ({"batch_size": 9}, "written with batch_size=9, now it is 8"),
    ({"rows_per_replica": [20, 12]}, "on 32 rows, dealt to the replicas as 20, 12; now there are 31, dealt as 20, 11"),
    ({"num_lots": 3}, "cut into 3 lots with 2 fingerprints, this model into 2"),
    ({"fingerprints": []}, "cut into 2 lots with 0 fingerprints"),
    ({"optimizer": "SGD"}, r"the state of SGD \(which keeps step float32, .*\), now the optimizer is Adam \(which"),
    (
        {"optimizer_state": [["step float32"]]},
        r"the state of Adam \(which keeps step float32\), now the optimizer is Adam",
    ),
    ({"buffers": (6, 8)}, "has 6 elements of fp32 buffers and 8 bytes of others, the model has 12 and 8"),
]


@pytest.mark.parametrize(("changes", "sentence"), FOREIGN)
def test_another_training_is_told_by_both_values(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"checkpoint there .*{sentence}.*; (pass|use) "):
        check_fits(saved(**changes), payload(), PLAN, "there")


MODELS: list[tuple[nn.Module, str]] = [
    (nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)),
     r"has parameter '2.weight' of shape \(1, 6\) in group 0 where the model has .* of shape \(2, 6\)"),
    (nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 1, bias=False)),
     r"the checkpoint has parameter '2.bias' of shape \(1,\) in group 0, the model has not"),
    (nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 1), nn.Linear(1, 1)),
     r"the model has parameter '3.weight' of shape \(1, 1\) in group 0, the checkpoint has not"),
    (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 1)),
     "has parameter '1.weight' .* where the model has parameter '2.weight'"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "sentence"), MODELS)
def test_another_model_is_told_by_the_first_parameter_that_differs(model: nn.Module, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"{sentence}.*pass the model that was trained"):
        check_fits(saved(), payload(model), PLAN, "there")


def test_an_optimizer_that_keeps_other_things_is_told() -> None:
    momentum = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    state = replace(describe(payload(make=momentum), PLAN, 9), fingerprints=["ab" * 32] * 2)
    check_fits(state, payload(make=momentum), PLAN, "there")
    with pytest.raises(ConfigError, match=r"of SGD \(which keeps momentum_buffer float32\), now .* SGD \("):
        check_fits(state, payload(make=torch.optim.SGD), PLAN, "there")


# --- damage


@pytest.mark.parametrize("name", [f.name for f in fields(TrainerState)])
def test_a_missing_field_or_one_of_another_type_is_damage(name: str) -> None:
    values = asdict(saved())
    for broken in ({k: v for k, v in values.items() if k != name}, values | {name: {"other": object}}):
        with pytest.raises(ConfigError, match=f"trainer_state.json is damaged: .*'{name}'.*; resume from another"):
            TrainerState.loads(json.dumps(broken, default=str))


@pytest.mark.parametrize("text", ["", "{", '{"format": 1', "[]", "null", '{"format": "1"}', "\x00"])
def test_what_is_no_json_is_damage(text: str) -> None:
    with pytest.raises(ConfigError, match=r"trainer_state.json is damaged: .*; resume from another"):
        TrainerState.loads(text)


def test_any_cut_of_the_json_is_damage() -> None:
    text = saved().dumps()
    for length in range(0, len(text), 7):
        with pytest.raises(ConfigError, match=r"trainer_state.json is damaged"):
            TrainerState.loads(text[:length])


def test_another_format_is_told() -> None:
    text = json.dumps(asdict(saved()) | {"format": 2})
    with pytest.raises(ConfigError, match="has format 2, this sparkdl reads format 1; use the version of sparkdl"):
        TrainerState.loads(text)


def test_a_callback_that_keeps_a_tensor_is_told() -> None:
    state = saved(callbacks=[{"type": "Mine", "state": {"best": torch.ones(1)}}])
    with pytest.raises(ConfigError, match=r"state_dict\(\) of the callback Mine cannot be saved .* from tensors\(\)"):
        state.dumps()


def test_files_are_compared_by_size() -> None:
    state = saved(files={"a": 3, "state/b": 0})
    check_files(state, {"a": 3, "state/b": 0, "more": 1}, "there")
    with pytest.raises(ConfigError, match="checkpoint there is damaged: state/b is missing; resume from another one"):
        check_files(state, {"a": 3}, "there")
    with pytest.raises(ConfigError, match="checkpoint there is damaged: a has 2 bytes, it had 3; resume from another"):
        check_files(state, {"a": 2, "state/b": 0}, "there")


# --- names


@given(st.integers(0, 10**12))
def test_a_name_tells_its_step(step: int) -> None:
    path = checkpoint_name("s3a://bucket/run/", step)
    assert path.startswith("s3a://bucket/run/step-")
    assert checkpoint_files.step_of(path) == checkpoint_files.step_of(f"{path}/") == step
    assert len(checkpoint_name("r", min(step, 99_999_999))) == len("r/step-00000000")


@pytest.mark.parametrize("name", ["", "step-", "step-1", "step-0000001x", "steps-00000001", "/root/.step-00000001"])
def test_other_names_are_no_checkpoints(name: str) -> None:
    assert checkpoint_files.step_of(name) is None


def test_each_callback_has_a_file() -> None:
    assert [callback_file(i) for i in (0, 12)] == ["callbacks-0.safetensors", "callbacks-12.safetensors"]
