"""What a checkpoint consists of: the names of its files, and `trainer_state.json`, which says what they belong to.

A checkpoint is ``ROOT/step-XXXXXXXX`` with

    model.safetensors          all of the model's `state_dict`; above 1 GB in shards, see `saved_model`
    state/part-*.parquet       weights, optimizer state and buffers, see `saved_state`
    history.safetensors        the steps' and epochs' records
    callbacks-<i>.safetensors  tensors of callback i, if it keeps any
    trainer_state.json         :class:`TrainerState`
    _SUCCESS                   written last: without it a checkpoint does not count

Nothing in it is ever unpickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import torch

from sparkdl.errors import ConfigError
from sparkdl.payload import Payload
from sparkdl.step_settings import Plan, StepSettings
from sparkdl.versioned_state import StatePlan

FORMAT = 1
TRAINER_STATE, HISTORY, STATE, SUCCESS = "trainer_state.json", "history.safetensors", "state", "_SUCCESS"

_NAME = re.compile(r"step-(\d{8,})")


def checkpoint_name(root: str, step: int) -> str:
    """Where the checkpoint of a step lies."""
    return f"{root.rstrip('/')}/step-{step:08d}"


def step_of(name: str) -> int | None:
    """The step of a checkpoint by its directory's name; None: this is no checkpoint's name."""
    found = _NAME.fullmatch(name.rstrip("/").rpartition("/")[2])
    return int(found[1]) if found else None


def callback_file(number: int) -> str:
    """Where the tensors of callback ``number`` are."""
    return f"callbacks-{number}.safetensors"


@dataclass(frozen=True, kw_only=True)
class TrainerState:
    """Where a training was, and which training it was. `describe` makes it; saving fills in what only files tell.

    step: steps done; epoch, index: how many epochs, and how many steps of the next one, that makes. layout: (name,
    shape, group) of every trained parameter in the order of the flat vector. buffers: elements of the model's fp32
    buffers, bytes of all others. optimizer: the class's name; optimizer_state: what it keeps for a parameter of each
    group. before: the step that led here. callbacks: {"type", "state"} of each. stopped: the training has ended.
    fingerprints: of each lot, blake2b of 32 bytes in hex. files: name -> bytes.
    """

    step: int
    epoch: int
    index: int
    seed: int
    replicas: int
    batch_size: int
    rows_per_replica: list[int]
    steps_per_epoch: int
    layout: list[tuple[str, tuple[int, ...], int]]
    buffers: tuple[int, int]
    optimizer: str
    optimizer_state: list[list[str]]
    num_lots: int
    before: StepSettings | None = None
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False
    fingerprints: list[str] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    format: int = FORMAT

    def dumps(self) -> str:
        """As JSON. Raises ConfigError: a callback wants to keep what JSON does not know."""
        for callback in self.callbacks:
            try:
                json.dumps(callback["state"])
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"state_dict() of the callback {callback['type']} cannot be saved as JSON ({error}); return "
                    "numbers, strings, lists and dicts there, and tensors from tensors()"
                ) from error
        return json.dumps(asdict(self))

    @staticmethod
    def loads(text: str) -> TrainerState:
        """The inverse of :meth:`dumps`. Raises ConfigError: not one of ours, damaged, or of a later format."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise _damaged(f"it is no JSON ({error})") from error
        if not isinstance(values, dict) or not isinstance(values.get("format"), int):
            raise _damaged("it has no number 'format'")
        if values["format"] != FORMAT:
            raise ConfigError(
                f"the checkpoint has format {values['format']}, this sparkdl reads format {FORMAT}; use the version of "
                "sparkdl that wrote it, or load its model.safetensors"
            )
        return TrainerState(**{f.name: _field(f.name, values) for f in fields(TrainerState)})


class Checkpoint(NamedTuple):
    """A checkpoint that was read: all but its weights and state, which stay in their files until they are needed."""

    path: str
    state: TrainerState
    history: dict[str, np.ndarray]
    tensors: list[dict[str, torch.Tensor]]  # of each callback


def describe(
    payload: Payload,
    plan: Plan,
    step: int,
    before: StepSettings | None = None,
    callbacks: Sequence[Mapping[str, Any]] = (),
    stopped: bool = False,
) -> TrainerState:
    """The state of this training after ``step`` steps. Saving takes ``before`` from the run."""
    state_plan = payload.plan
    return TrainerState(
        step=step,
        epoch=step // plan.steps_per_epoch,
        index=step % plan.steps_per_epoch,
        seed=plan.seed,
        replicas=plan.num_replicas,
        batch_size=plan.batch_size,
        rows_per_replica=list(plan.rows_per_replica),
        steps_per_epoch=plan.steps_per_epoch,
        layout=[(t.name, t.shape, t.group) for t in state_plan.layout.tensors],
        buffers=(state_plan.num_buffer_floats, state_plan.num_buffer_bytes),
        optimizer=" and ".join(kind.__name__ for kind, _ in cloudpickle.loads(payload.template.blank)),  # our own bytes
        optimizer_state=_optimizer_state(state_plan),
        num_lots=state_plan.num_lots,
        before=before,
        callbacks=[dict(c) for c in callbacks],
        stopped=stopped,
    )


def _optimizer_state(plan: StatePlan) -> list[list[str]]:
    found: dict[int, list[str]] = {}
    for segment, entries in zip(plan.layout.segments, plan.entries, strict=True):
        found.setdefault(segment.group, [f"{e.name} {str(e.dtype).removeprefix('torch.')}" for e in entries])
    return [found[group] for group in sorted(found)]


def check_fits(state: TrainerState, payload: Payload, plan: Plan, path: str) -> None:
    """Raises ConfigError: the checkpoint at ``path`` is of another model or another training than this one."""
    mine = describe(payload, plan, state.step)
    advice = "pass the same settings, or start anew without resume"
    for name in ("seed", "replicas", "batch_size"):
        there, here = getattr(state, name), getattr(mine, name)
        if there != here:
            raise ConfigError(f"the checkpoint {path} was written with {name}={there}, now it is {here}; {advice}")
    if list(state.rows_per_replica) != list(mine.rows_per_replica):
        raise ConfigError(
            f"the checkpoint {path} was written in a training on {sum(state.rows_per_replica)} rows, dealt to the "
            f"replicas as {_short(state.rows_per_replica)}; now there are {sum(mine.rows_per_replica)}, dealt as "
            f"{_short(mine.rows_per_replica)}; pass the same data, or start anew without resume"
        )
    other = "; pass the model that was trained, or start anew without resume"
    for there, here in zip(state.layout, mine.layout, strict=False):
        if there != here:
            raise ConfigError(
                f"the checkpoint {path} has {_parameter(there)} where the model has {_parameter(here)}{other}"
            )
    if len(state.layout) != len(mine.layout):
        longer, owner, less = (
            (state.layout, "the checkpoint", "the model")
            if len(state.layout) > len(mine.layout)
            else (mine.layout, "the model", "the checkpoint")
        )
        extra = _parameter(longer[min(len(state.layout), len(mine.layout))])
        raise ConfigError(f"{owner} has {extra}, {less} has not (checkpoint {path}){other}")
    if tuple(state.buffers) != tuple(mine.buffers):
        raise ConfigError(
            f"the checkpoint {path} has {state.buffers[0]} elements of fp32 buffers and {state.buffers[1]} bytes of "
            f"others, the model has {mine.buffers[0]} and {mine.buffers[1]}{other}"
        )
    if (state.optimizer, state.optimizer_state) != (mine.optimizer, mine.optimizer_state):
        raise ConfigError(
            f"the checkpoint {path} holds the state of {_keeps(state)}, now the optimizer is {_keeps(mine)}; pass the "
            "same optimizer, or start anew without resume"
        )
    if state.num_lots != mine.num_lots or len(state.fingerprints) != state.num_lots:
        raise ConfigError(
            f"the checkpoint {path} is cut into {state.num_lots} lots with {len(state.fingerprints)} fingerprints, "
            f"this model into {mine.num_lots}; use the version of sparkdl that wrote it, or load its model.safetensors"
        )


def check_files(state: TrainerState, found: Mapping[str, int], path: str) -> None:
    """Raises ConfigError: a file is missing, or has another size than it had. found: name -> bytes."""
    for name, size in state.files.items():
        if name not in found:
            raise ConfigError(f"the checkpoint {path} is damaged: {name} is missing; resume from another one")
        if found[name] != size:
            raise ConfigError(
                f"the checkpoint {path} is damaged: {name} has {found[name]} bytes, it had {size}; resume from another "
                "one"
            )


def _parameter(entry: tuple[str, tuple[int, ...], int]) -> str:
    name, shape, group = entry
    return f"parameter {name!r} of shape {tuple(shape)} in group {group}"


def _keeps(state: TrainerState) -> str:
    kept = "; ".join(dict.fromkeys(", ".join(names) or "nothing" for names in state.optimizer_state))
    return f"{state.optimizer} (which keeps {kept})"


def _short(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:8])) + (", …" if len(rows) > 8 else "")


def _damaged(what: str) -> ConfigError:
    return ConfigError(f"{TRAINER_STATE} is damaged: {what}; resume from another checkpoint")


def _field(name: str, values: Mapping[str, Any]) -> Any:
    if name not in values:
        raise _damaged(f"it has no {name!r}")
    value = values[name]
    try:
        return _READ[name](value)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise _damaged(f"{name!r} is {str(value)[:60]!r}") from error


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError
    return value


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _before(value: Any) -> StepSettings | None:
    if value is None:
        return None
    hyper = [dict(group) for group in _list(value["hyper"])]
    return StepSettings(_int(value["step"]), _int(value["epoch"]), _int(value["index"]), hyper)


def _pair(value: Any) -> tuple[int, int]:
    a, b = _list(value)
    return _int(a), _int(b)


_READ: dict[str, Any] = {
    **dict.fromkeys(
        ("format", "step", "epoch", "index", "seed", "replicas", "batch_size", "steps_per_epoch", "num_lots"), _int
    ),
    "seed": lambda v: v if isinstance(v, int) and not isinstance(v, bool) else _int(v),
    "rows_per_replica": lambda v: [_int(n) for n in _list(v)],
    "layout": lambda v: [(_str(n), tuple(_int(k) for k in _list(s)), _int(g)) for n, s, g in _list(v)],
    "buffers": _pair,
    "optimizer": _str,
    "optimizer_state": lambda v: [[_str(n) for n in _list(names)] for names in _list(v)],
    "before": _before,
    "callbacks": lambda v: [{"type": _str(c["type"]), "state": dict(c["state"])} for c in _list(v)],
    "stopped": _bool,
    "fingerprints": lambda v: [bytes.fromhex(_str(f)).hex() for f in _list(v)],
    "files": lambda v: {_str(name): _int(size) for name, size in v.items()},
}
