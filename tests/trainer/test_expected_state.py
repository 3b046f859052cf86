"""What a state may hold: what a training would have saved itself, and nothing else."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from asr.trainer.expected_state import Stateful, fitting_states

Optimizer = Callable[[Any], torch.optim.Optimizer]
ADAM = partial(torch.optim.AdamW, lr=0.1, fused=True)
OPTIMIZERS = {
    "adamw": ADAM,
    "amsgrad": partial(torch.optim.Adam, lr=0.1, amsgrad=True),
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "plain sgd": partial(torch.optim.SGD, lr=0.1),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.1, momentum=0.9),
    "adagrad": partial(torch.optim.Adagrad, lr=0.1),
    "adafactor": partial(torch.optim.Adafactor, lr=0.1),  # with rows and columns of moments
}


def parts_of(make: Optimizer, steps: int) -> dict[str, Stateful]:
    """A model, frozen in part, whose optimiser has taken some steps, and a gradient scaler."""
    torch.manual_seed(70)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = make([{"params": learning[:2], "lr": 0.2}, {"params": learning[2:]}])
    for _ in range(steps):
        model(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"model": model, "optimizer": optimizer, "precision": torch.amp.GradScaler("cpu")}


def states_of(parts: dict[str, Stateful]) -> dict[str, Any]:
    return {name: deepcopy(part.state_dict()) for name, part in parts.items()}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("steps", [0, 2])
def test_a_state_of_its_own_fits(make: Optimizer, steps: int) -> None:
    states = states_of(parts_of(make, steps))
    fresh = parts_of(make, 0)
    before = states_of(fresh)
    fitting = fitting_states(states, fresh)
    assert_same(fitting, states)
    assert_same(states_of(fresh), before)  # nothing was touched to find out


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value)
    else:
        assert found == expected


def moment(states: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = states["optimizer"]["state"][0]
    return entry


def group(states: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = states["optimizer"]["param_groups"][0]
    return entry


def put(place: Callable[[dict[str, Any]], dict[Any, Any]], key: Any, value: Any) -> Any:
    return lambda states: place(states).__setitem__(key, value)


def drop(place: Callable[[dict[str, Any]], dict[Any, Any]], key: Any) -> Any:
    return lambda states: place(states).pop(key)


CHANGES = {
    "shape": (put(moment, "exp_avg", torch.zeros(2)), "optimizer.state.0.exp_avg is float32 [2], "
              "expected float32 [3]"),
    "dtype": (put(moment, "exp_avg", torch.zeros(3, dtype=torch.float64)),
              "optimizer.state.0.exp_avg is float64 [3], expected float32 [3]"),
    "no tensor": (put(moment, "exp_avg", 3), "optimizer.state.0.exp_avg is 3, expected float32"),
    "step": (put(moment, "step", torch.zeros(3)), "optimizer.state.0.step is float32 [3], "
             "expected float32 []"),
    "sparse": (put(moment, "exp_avg", torch.zeros(3).to_sparse()), "is no plain tensor"),
    "meta": (put(moment, "exp_avg", torch.zeros(3, device="meta")), "is no plain tensor"),
    "parameter": (put(moment, "exp_avg", nn.Parameter(torch.zeros(3))), "is no plain tensor"),
    "no moment": (drop(moment, "exp_avg"), "optimizer.state.0 has no exp_avg, expected one"),
    "more": (put(moment, "third", torch.zeros(3)), "optimizer.state.0 has 'third', expected only"),
    "no entry": (drop(lambda s: s["optimizer"]["state"], 1), "optimizer.state has no 1, expected"),
    "one more": (put(lambda s: s["optimizer"]["state"], 9, {}), "optimizer.state has 9, expected"),
    "no state": (put(lambda s: s["optimizer"], "state", None), "optimizer.state is None, expected"),
    "entry": (put(lambda s: s["optimizer"]["state"], 0, []), "optimizer.state.0 is a list"),
    "groups": (put(lambda s: s["optimizer"], "param_groups", []), "optimizer.param_groups is a "
               "list of 0, expected a list of 2"),
    "tensors": (put(group, "params", torch.zeros(2)), "param_groups[0].params is float32 [2]"),
    "two tensors": (put(group, "params", [torch.zeros(2)] * 2), "params is a list of 2, expected"),
    "params": (put(group, "params", [0, 7]), "param_groups[0].params is [0, 7], expected [0, 1]"),
    "setting": (put(group, "eps", "small"), "optimizer.param_groups[0].eps is 'small', expected"),
    "infinite": (put(group, "lr", float("inf")), "optimizer.param_groups[0].lr is inf, expected"),
    "flag": (put(group, "fused", 3), "optimizer.param_groups[0].fused is 3, expected one like"),
    "new setting": (put(group, "speed", 3), "optimizer.param_groups[0] has 'speed', expected"),
    "weight": (put(lambda s: s["model"], "2.weight", torch.zeros(3, 2)),
               "model.2.weight is float32 [3, 2], expected float32 [2, 3]"),
    "NaN": (put(lambda s: s["model"], "2.bias", torch.full((2,), torch.nan)),
            "model.2.bias is not finite, expected numbers"),
    "no weight": (drop(lambda s: s["model"], "2.bias"), "model has no 2.bias, expected one"),
    "no mapping": (put(lambda s: s, "model", 3), "model is 3, expected names and values"),
    "no part": (drop(lambda s: s, "model"), "parts has no model, expected one"),
    "scale": (put(lambda s: s["precision"], "scale", "1"), "precision.scale is '1', expected one"),
    "negative": (put(lambda s: s["precision"], "scale", -1.0), "precision.scale is -1.0, expected"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_differs_is_named(name: str) -> None:
    change, expected = CHANGES[name]
    parts = parts_of(ADAM, 2)
    states = states_of(parts)
    before = states_of(parts)
    change(states)
    with pytest.raises(ValueError, match=re.escape(expected)) as caught:
        fitting_states(states, parts)
    assert "\n" not in str(caught.value)
    assert_same(states_of(parts), before)


def test_present_settings_hold_and_what_they_do_not_need_is_left_out() -> None:
    saved = states_of(parts_of(partial(torch.optim.SGD, lr=0.1, momentum=0.9), 2))
    plain = parts_of(OPTIMIZERS["plain sgd"], 0)
    fitting = fitting_states(saved, plain)["optimizer"]
    assert fitting["state"] == {}
    assert [each["momentum"] for each in fitting["param_groups"]] == [0, 0]
    for each in saved["optimizer"]["param_groups"]:
        each["momentum"] = 0
    with pytest.raises(ValueError, match=r"optimizer.state has 0, expected nothing"):
        fitting_states(saved, plain)  # nothing says that it ever had another momentum


def test_settings_that_need_more_than_was_saved() -> None:
    saved = states_of(parts_of(partial(torch.optim.Adam, lr=0.1), 2))
    amsgrad = parts_of(OPTIMIZERS["amsgrad"], 0)
    with pytest.raises(ValueError, match=r"optimizer.state.0 has no max_exp_avg_sq, expected one"):
        fitting_states(saved, amsgrad)


def test_moments_lie_in_memory_as_their_weights_do() -> None:
    """torch's fused step takes the third number of each, wherever the strides have it."""
    weight = nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last))
    optimizer = ADAM([weight])
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    saved = deepcopy(optimizer.state_dict())
    moments = saved["state"][0]
    expected = moments["exp_avg"].clone()
    assert not expected.is_contiguous()
    moments["exp_avg"] = expected.contiguous()
    moments["exp_avg_sq"] = torch.ones(1).expand(4, 3, 2, 2)
    found = fitting_states({"optimizer": saved}, {"optimizer": optimizer})["optimizer"]["state"][0]
    assert found["exp_avg"].stride() == found["exp_avg_sq"].stride() == weight.stride()
    assert torch.equal(found["exp_avg"], expected)
    assert torch.equal(found["exp_avg_sq"], torch.ones(4, 3, 2, 2))


def test_attributes_of_a_mapping_do_not_come_along() -> None:
    parts = parts_of(ADAM, 1)
    states = states_of(parts)
    forged = OrderedDict(states["model"])
    forged._metadata = 3  # type: ignore[attr-defined]
    parts["model"].load_state_dict(fitting_states(states | {"model": forged}, parts)["model"])


def test_a_part_that_is_skipped() -> None:
    parts = parts_of(ADAM, 1)
    states = states_of(parts) | {"precision": {}}
    with pytest.raises(ValueError, match=r"precision has no scale"):
        fitting_states(states, parts)
    assert fitting_states(states, parts, skipped={"precision"}).keys() == {"model", "optimizer"}
