"""What a training would have saved itself, and where a state that it is given differs from that.

torch compares little: an optimiser takes moments of any shape, and its fused step then reads past
their end.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from copy import deepcopy
from math import isfinite
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from asr.untrusted import shown


class Stateful(Protocol):
    """Whatever a resume must bring back."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def fitting_states(
    found: object, parts: Mapping[str, Stateful], skipped: Container[str] = ()
) -> dict[str, dict[str, Any]]:
    """The states of a training's parts, once they are known to be what it would have saved itself.

    Args:
        found: by the parts' names, their states as torch.load gives them.
        parts: by name, what they are for.
        skipped: names whose state is left where it is.

    Returns:
        By name, what `load_state_dict` may be given: nothing but what was compared. An optimiser
        keeps its present settings, and what only other settings need is left out.

    Raises:
        ValueError: a difference: it names the entry, what it is and what was expected.
    """
    states = _entries(found, parts, "parts", may_lack=skipped)
    fitting = {}
    for name, part in parts.items():
        if name in skipped:
            continue
        if isinstance(part, Optimizer):
            fitting[name] = _optimizer_state(states[name], part, name)
        else:
            _compare(states[name], part.state_dict(), name)
            _check_finite(states[name], name)
            fitting[name] = dict(states[name])  # without attributes that torch.load gives back
    return fitting


def _optimizer_state(found: object, optimizer: Optimizer, name: str) -> dict[str, Any]:
    before = optimizer.state_dict()
    entries = _entries(found, before, name)
    has_other_settings = _compare_groups(
        entries["param_groups"], before["param_groups"], f"{name}.param_groups"
    )
    # A step on copies of the parameters, with gradients of zero, makes the state that is expected:
    # no formula for its shapes would hold for every optimiser.
    twin = deepcopy(optimizer)
    for group in twin.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    twin.step()
    expected, where = twin.state_dict()["state"], f"{name}.state"
    state = _mapping(entries["state"], where)
    if not state and not before["state"]:  # saved before the first step
        return before
    if has_other_settings:  # these may need less: no momentum, say
        state = {
            key: {each: value for each, value in entry.items() if each in expected[key]}
            if isinstance(entry, Mapping)
            else entry
            for key, entry in state.items()
            if key in expected
        }
    _compare(state, expected, where)
    # Optimisers go over a weight and its moments side by side, in the order of their memory.
    laid_out = {
        key: {each: _laid_out(value, expected[key][each]) for each, value in entry.items()}
        for key, entry in state.items()
    }
    return {"state": laid_out, "param_groups": before["param_groups"]}


def _laid_out(value: Any, expected: Any) -> Any:
    if not isinstance(value, Tensor) or value.stride() == expected.stride():
        return value
    return value.new_empty_strided(expected.size(), expected.stride()).copy_(value)


def _compare_groups(found: object, expected: list[dict[str, Any]], name: str) -> bool:
    """Compare an optimiser's groups of parameters; returns whether any setting is another one."""
    if not isinstance(found, list) or len(found) != len(expected):
        raise ValueError(f"{name} is {_named(found)}, expected {_named(expected)}")
    is_other = False
    for number, (group, wanted) in enumerate(zip(found, expected, strict=True)):
        where = f"{name}[{number}]"
        # Settings that torch has come to know since are as good as given.
        settings = _entries(group, wanted, where, may_lack=wanted.keys() - {"params"})
        numbers = settings["params"]
        if not isinstance(numbers, list) or any(type(each) is not int for each in numbers):
            raise ValueError(f"{where}.params is {_named(numbers)}, expected whole numbers")
        if numbers != wanted["params"]:
            raise ValueError(
                f"{where}.params is {shown(numbers)}, expected {shown(wanted['params'])}"
            )
        for key, value in settings.items():
            if key != "params" and not _is_like(value, wanted[key]):
                raise ValueError(
                    f"{where}.{key} is {_named(value)}, expected one like {_named(wanted[key])}"
                )
            is_other |= key not in ("lr", "params") and value != wanted[key]
    return is_other


def _is_like(value: object, other: object) -> bool:
    """Whether a setting could be another value of the same setting."""
    if isinstance(value, list | tuple) and isinstance(other, list | tuple):
        return len(value) == len(other) and all(map(_is_like, value, other))
    if any(each is None or isinstance(each, bool) for each in (value, other)):
        return all(each is None or isinstance(each, bool) for each in (value, other))
    if isinstance(value, int | float) and isinstance(other, int | float):
        return isfinite(value)
    return isinstance(value, str) and isinstance(other, str)


def _compare(found: object, expected: object, name: str) -> None:
    """Compare a value and what is in it by keys, shapes, dtypes and kinds."""
    if isinstance(expected, Mapping):
        for key, value in _entries(found, expected, name).items():
            _compare(value, expected[key], f"{name}.{key}")
    elif isinstance(expected, Tensor):
        was, wanted = _named(found), _named(expected)
        if not isinstance(found, Tensor) or was != wanted:
            raise ValueError(f"{name} is {was}, expected {wanted}")
        is_sparse, is_elsewhere = found.layout != torch.strided, found.device.type != "cpu"
        if type(found) is not Tensor or is_sparse or is_elsewhere or found.requires_grad:
            raise ValueError(f"{name} is no plain tensor, expected one")
    elif type(found) is not type(expected):
        raise ValueError(f"{name} is {_named(found)}, expected one like {_named(expected)}")
    elif isinstance(found, int | float) and not 0 <= found < float("inf"):
        raise ValueError(f"{name} is {found}, expected a finite number from 0 up")


def _check_finite(found: Mapping[Any, Any], name: str) -> None:
    for key, value in found.items():
        if isinstance(value, Mapping):
            _check_finite(value, f"{name}.{key}")
        elif isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name}.{key} is not finite, expected numbers")


def _entries(
    found: object, expected: Mapping[Any, Any], name: str, may_lack: Container[Any] = ()
) -> dict[Any, Any]:
    """What should be a mapping with the same keys."""
    entries = _mapping(found, name)
    for key in expected:
        if key not in entries and key not in may_lack:
            raise ValueError(f"{name} has no {key}, expected one")
    for key in entries:
        if key not in expected:
            only = f"only {shown(list(expected))}" if expected else "nothing"
            raise ValueError(f"{name} has {_named(key)}, expected {only}")
    return entries


def _mapping(found: object, name: str) -> dict[Any, Any]:
    if not isinstance(found, Mapping):
        raise ValueError(f"{name} is {_named(found)}, expected names and values")
    return dict(found)


def _named(value: object) -> str:
    """A value as a message shows it; of tensors the kind alone, as some crash where printed."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if value is None or isinstance(value, bool | int | float | str):
        return shown(value)
    size = f" of {len(value)}" if isinstance(value, list | tuple) else ""
    return f"a {type(value).__name__}{size}"
