"""The moving average against a sequence worked by hand, and that it leaves the model alone."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from asr.trainer.average import WeightAverage


def model_of() -> nn.Sequential:
    torch.manual_seed(90)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage) -> None:
    """Three optimiser steps, each on other data."""
    for _ in range(3):
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update()


def averaged(average: WeightAverage, model: nn.Module) -> dict[str, torch.Tensor]:
    with average.applied():
        return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_sequence_by_hand() -> None:
    # Decay 0.25 is reached at update 2: 1/10, 2/11, then 3/12 and 4/13 > 0.25.
    # 8 -> 0.1 * 8 + 0.9 * 10 = 9.8
    # -> 2/11 * 9.8 + 9/11 * 21 = 18.963636...
    # -> 0.25 * 18.963636 + 0.75 * 1 = 5.490909...
    # -> 0.25 * 5.490909 + 0.75 * 0 = 1.372727...
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 8.0)
    average = WeightAverage(model, decay=0.25)
    assert averaged(average, model)["weight"].item() == 8.0
    for weight, expected in ((10.0, 9.8), (21.0, 208.6 / 11), (1.0, 5.4909091), (0.0, 1.3727273)):
        nn.init.constant_(model.weight, weight)
        average.update()
        assert averaged(average, model)["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_weights_that_stand_still_are_their_own_average() -> None:
    model = model_of()
    average = WeightAverage(model, decay=0.999)
    for _ in range(50):
        average.update()
    found = averaged(average, model)
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


def test_the_models_own_weights_come_back_bit_for_bit() -> None:
    model = model_of()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    average = WeightAverage(model, decay=0.9)
    train(model, optimizer, average)
    before = copy.deepcopy(model.state_dict())
    addresses = [parameter.data_ptr() for parameter in model.parameters()]
    with average.applied():
        assert not torch.equal(model[0].weight, before["0.weight"])
        assert not torch.equal(model[1].weight, before["1.weight"])
        for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
            assert torch.equal(model.state_dict()[name], before[name])
    with pytest.raises(KeyboardInterrupt), average.applied():
        raise KeyboardInterrupt
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert [parameter.data_ptr() for parameter in model.parameters()] == addresses
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_resumed_average_goes_on_bit_for_bit() -> None:
    model = model_of()
    average = WeightAverage(model, decay=0.9)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    train(model, optimizer, average)
    file = io.BytesIO()
    torch.save(average.state_dict(), file)
    file.seek(0)
    train(model, optimizer, average)  # what is saved is a state, not a view of what goes on
    after = averaged(average, model)
    again = model_of()  # which seeds the data too
    resumed = WeightAverage(again, decay=0.9)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    optimizer = torch.optim.AdamW(again.parameters(), lr=0.1)
    first = WeightAverage(again, decay=0.9)
    train(again, optimizer, first)  # to where it was saved
    found, expected = averaged(resumed, again), averaged(first, again)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    train(again, optimizer, resumed)
    assert resumed.num_updates == average.num_updates == 6
    assert all(torch.equal(averaged(resumed, again)[name], value) for name, value in after.items())


def test_without_decay_the_average_is_the_weights_and_holds_none() -> None:
    model = model_of()
    average = WeightAverage(model, decay=0.0)
    train(model, torch.optim.AdamW(model.parameters(), lr=0.1), average)
    before = copy.deepcopy(model.state_dict())
    found = averaged(average, model)
    assert all(torch.equal(found[name], value) for name, value in before.items())
    assert average.state_dict() == {"num_updates": 3, "average": {}}
    average.load_state_dict({"num_updates": 8, "average": {}})
    assert average.num_updates == 8
    with pytest.raises(ValueError, match=r"average of 0\.bias has shape \[2\], expected None"):
        average.load_state_dict(WeightAverage(model, decay=0.5).state_dict())


def test_an_average_of_another_model_is_refused() -> None:
    average = WeightAverage(model_of(), decay=0.9)
    before = copy.deepcopy(average.state_dict())
    wider = WeightAverage(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)), decay=0.9)
    message = r"^average of 0\.weight has shape \[2, 4\], expected \[2, 3\]$"
    with pytest.raises(ValueError, match=message):
        average.load_state_dict(wider.state_dict())
    lacking = WeightAverage(nn.Sequential(nn.Linear(3, 2)), decay=0.9)
    with pytest.raises(ValueError, match=r"average of 1\.bias has shape None, expected \[2\]"):
        average.load_state_dict(lacking.state_dict())
    after = average.state_dict()["average"]
    assert all(torch.equal(after[name], value) for name, value in before["average"].items())


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0, float("nan")])
def test_a_decay_that_makes_no_sense(decay: float) -> None:
    with pytest.raises(ValueError, match=r"^trainer\.ema_decay \S+, expected 0 to below 1$"):
        WeightAverage(model_of(), decay)
