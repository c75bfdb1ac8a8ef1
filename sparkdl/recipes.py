"""Modules, functions and settings as JSON, and back, without pickling: by the names that they are imported under.

A function or a class is "package.module:name". A module is its class and the arguments of its constructor, read back
from its attributes of the same names; what is built from these must equal the module in all but its weights, or the
module is refused. Weights are saved apart (`saved_model`). What has no name can be pickled, if whoever saves and
whoever loads say so (`aside`).
"""

from __future__ import annotations

import functools
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from sparkdl.dry_run import kept_generators
from sparkdl.errors import ConfigError

__all__ = ["described", "described_factory", "import_name", "module_of", "rebuilt"]

Aside = dict[str, Any]

MOST_NUMBERS = 100_000  # of a tensor among a constructor's arguments, such as the weights of classes
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_INTERNAL = frozenset(vars(nn.Module()))  # what every module has
_HOOKS = frozenset(name for name in _INTERNAL if name.endswith("_hooks"))
_PLACEMENT = ("device", "dtype")  # arguments of torch's layers that leave no attribute


class _NotDescribed(Exception):
    """Why something has no recipe: the end of a sentence."""


def described(value: Any, what: str, aside: Aside | None = None, weights_apart: bool = False) -> Any:
    """``value`` as JSON for :func:`rebuilt`.

    value: None, truth values, numbers, strings, tensors of at most 100,000 numbers; functions and classes that can be
        imported, and functools.partial of them; modules; lists, tuples and dicts of all these.
    what: the value's name, for the sentence. aside: takes what has no recipe, under a name that the JSON holds; it is
        to be pickled. weights_apart: the weights of a module are saved and loaded by the caller.

    Raises ConfigError: it has no recipe, and there is no ``aside``.
    """
    try:
        if isinstance(value, nn.Module):
            return _module(value, weights_apart)
        return _described(value)
    except _NotDescribed as error:
        if aside is not None:
            aside[what] = value
            return {"pickled": what}
        raise ConfigError(
            f"{what} cannot be saved: {error}. Define it at the top level of a module that can be imported wherever it "
            "is loaded, for example model=functools.partial(mypackage.nets.Net, hidden=64); or, where only the "
            "function that builds it lives elsewhere, pass what it builds; or save with trust=True, which pickles it: "
            "whoever loads that must say trust=True too"
        ) from None


def rebuilt(found: Any, aside: Mapping[str, Any] | None = None) -> Any:
    """The inverse of :func:`described`. Imports what is named; calls nothing but classes of modules.

    Raises ConfigError: a name cannot be imported, a constructor does not take its arguments any more, or something was
    pickled and ``aside`` is None.
    """
    if isinstance(found, list):
        return [rebuilt(value, aside) for value in found]
    if not isinstance(found, dict):
        return found
    ((kind, content), *rest) = found.items()
    if kind == "mapping":
        return {key: rebuilt(value, aside) for key, value in content.items()}
    if kind == "tuple":
        return tuple(rebuilt(value, aside) for value in content)
    if kind == "tensor":
        return torch.tensor(content, dtype=getattr(torch, found["dtype"]))
    if kind == "name":
        return _imported(content)
    if kind == "partial":
        arguments, keywords = (rebuilt(value, aside) for _, value in rest)
        return functools.partial(_imported(content), *arguments, **keywords)
    if kind == "module":
        with kept_generators():
            module = _layer_of(content)
        for name in found["frozen"]:
            module.get_parameter(name).requires_grad_(False)
        return module
    if kind == "layer":
        return _layer_of(found)
    if kind == "pickled":
        if aside is None:
            raise ConfigError(
                f"{content} was pickled when it was saved with trust=True. Unpickling runs whatever code it holds: if "
                "you know where it comes from, load it with trust=True, or a pipeline inside `with "
                "sparkdl.ml.trusted():`"
            )
        return aside[content]
    raise ConfigError(f"a saved value of the kind {kind!r} is unknown here: it was written by a newer sparkdl")


def module_of(value: Any, seed: int, check: bool = True) -> nn.Module:
    """The module that a rebuilt value stands for: itself, or what a factory builds, seeded.

    check: call nothing but classes of modules, and functions that are annotated as building one; any name can stand
    in a saved file. Raises ConfigError: it is neither.
    """
    if isinstance(value, nn.Module):
        return value
    if check and (reason := _no_factory(value)):
        raise ConfigError(f"the saved model names a function that is not called: {reason}")
    with kept_generators():
        torch.manual_seed(seed)
        found: nn.Module = value().to("cpu")
    return found


def described_factory(factory: Callable[[], nn.Module], aside: Aside | None = None) -> Any:
    """A factory of a model as JSON. Raises ConfigError: as :func:`described`, or it does not say what it builds."""
    found = described(factory, "model", aside)
    if "pickled" not in found and (reason := _no_factory(factory)):
        if aside is not None:
            aside["model"] = factory
            return {"pickled": "model"}
        raise ConfigError(f"model cannot be saved: {reason}. Annotate it, or save with trust=True, which pickles it")
    return found


def import_name(value: Any) -> str | None:
    """The "package.module:name" of a function or class, or None where no other process could import it."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not isinstance(module, str) or module == "__main__" or not name or "<" in name:
        return None
    try:
        return f"{module}:{name}" if _imported(f"{module}:{name}") is value else None
    except ConfigError:
        return None


def _imported(name: str) -> Any:
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"what was saved needs {path!r} of the module {module!r}, which cannot be imported here ({error}); install "
            "the package, or put it on the path, that it was saved with"
        ) from error
    return found


def _no_factory(factory: Any) -> str | None:
    """Why a factory is not to be called when something is loaded, or None. Any name can stand in a saved file."""
    function = factory.func if isinstance(factory, functools.partial) else factory
    if isinstance(function, type):
        return None if issubclass(function, nn.Module) else f"{function.__qualname__} is no class of modules"
    try:
        returned = typing.get_type_hints(function).get("return")
    except Exception:
        returned = None
    if isinstance(returned, type) and issubclass(returned, nn.Module):
        return None
    name = getattr(function, "__qualname__", repr(function))
    return f"{name}() does not say that it returns a module, as `def {name}(...) -> torch.nn.Module` would"


def _described(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_described(each) for each in value]
    if isinstance(value, tuple):
        return {"tuple": [_described(each) for each in value]}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise _NotDescribed("it holds a mapping whose keys are not all strings")
        return {"mapping": {key: _described(each) for key, each in value.items()}}
    if isinstance(value, nn.Module):
        return _module(value, weights_apart=False)
    if isinstance(value, torch.Tensor):
        if value.numel() > MOST_NUMBERS or value.is_complex():
            raise _NotDescribed(f"it holds a tensor of {value.numel():,} numbers")
        plain = value.detach().cpu()
        return {"tensor": plain.tolist(), "dtype": str(plain.dtype).removeprefix("torch.")}
    if isinstance(value, functools.partial):
        return {
            "partial": _name(value.func),
            "arguments": [_described(each) for each in value.args],
            "keywords": _described(value.keywords),
        }
    return {"name": _name(value)}


def _name(value: Any) -> str:
    found = import_name(value)
    if found is None:
        name = getattr(value, "__qualname__", None)
        if name is None:
            raise _NotDescribed(f"it holds a {type(value).__qualname__}")
        where = "__main__" if getattr(value, "__module__", None) == "__main__" else "no module"
        raise _NotDescribed(f"{name} lives in {where}, where no other process can import it")
    return found


# --- modules


def _module(module: nn.Module, weights_apart: bool) -> dict[str, Any]:
    """A module and which of its parameters are frozen, once it is known that this builds the like."""
    layer = _layer(module)
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    found = {"module": layer, "frozen": frozen}
    try:
        again = rebuilt(found)
    except Exception as error:
        message = " ".join(str(error).split())
        raise _NotDescribed(
            f"{type(module).__qualname__} cannot be built again from its attributes ({type(error).__name__}: {message})"
        ) from error
    if difference := _difference(module, again, weights_apart):
        raise _NotDescribed(f"the {type(module).__qualname__} that its attributes describe has another {difference}")
    return found


def _layer(module: nn.Module) -> dict[str, Any]:
    kind = type(module)
    if kind in _CONTAINERS:
        return {"layer": _name(kind), "children": {name: _layer(child) for name, child in module.named_children()}}
    name = _name(kind)
    keywords = {}
    for p in inspect.signature(kind).parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) or p.name in _PLACEMENT:
            continue
        if not hasattr(module, p.name):
            if p.default is p.empty:
                raise _NotDescribed(f"a {kind.__qualname__} keeps no attribute {p.name!r}, which its constructor takes")
            continue
        value = getattr(module, p.name)
        if isinstance(p.default, bool) and (value is None or isinstance(value, nn.Parameter)):
            value = value is not None  # bias=True became a parameter
        if p.default is p.empty or not _equal(value, p.default):
            keywords[p.name] = _layer(value) if isinstance(value, nn.Module) else _described(value)
    return {"layer": name, "keywords": keywords}


def _layer_of(found: Mapping[str, Any]) -> nn.Module:
    kind = _imported(found["layer"])
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ConfigError(f"the saved model names {found['layer']}, which is no class of modules")
    if "children" in found:
        children = {name: _layer_of(child) for name, child in found["children"].items()}
        container = kind()
        for name, child in children.items():
            container.add_module(name, child)
        return container
    return kind(**{name: rebuilt(value) for name, value in found["keywords"].items()})


def _difference(module: nn.Module, again: nn.Module, weights_apart: bool) -> str | None:
    """In what two modules differ, but for the values of what a state_dict holds, if that is saved apart."""
    layers, others = (dict(m.named_modules(remove_duplicate=False)) for m in (module, again))
    if list(layers) != list(others):
        return "set of layers"
    for name, layer in layers.items():
        other = others[name]
        if type(layer) is not type(other):
            return f"layer {name!r}"
        if hooks := [hook for hook in sorted(_HOOKS) if getattr(layer, hook)]:
            return f"set of hooks ({hooks[0]} of {name!r})"
        ours, theirs = ({k: v for k, v in vars(m).items() if k not in _INTERNAL} for m in (layer, other))
        for key in sorted(ours.keys() | theirs.keys()):
            if key not in ours or key not in theirs or not _equal(ours[key], theirs[key]):
                return f"attribute {'.'.join(filter(None, (name, key)))}"
    if _shared(module) != _shared(again):
        return "set of tensors that are shared"
    saved = module.state_dict().keys() if weights_apart else set()
    tensors, copies = (_tensors(m) for m in (module, again))
    for name, tensor in tensors.items():
        like = copies.get(name)
        if like is None or like.shape != tensor.shape or like.dtype != tensor.dtype:
            return f"tensor {name!r}"
        if name not in saved and not torch.equal(tensor.cpu(), like):
            return f"content of {name!r}, which a state_dict does not hold"
    return None if tensors.keys() == copies.keys() else "set of tensors"


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, under every name that they have."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _shared(module: nn.Module) -> dict[str, str]:
    """Of every tensor the first name that it has."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in _tensors(module).items()}


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, nn.Module) or isinstance(b, nn.Module):
        return False  # not a layer of it, but hidden in an attribute
    try:
        return type(a) is type(b) and bool(a == b)
    except Exception:
        return False
