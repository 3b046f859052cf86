"""Groups of parameters, schedules and the average of weights, worked by hand."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asr.model import BiLstmCtc
from asr.model.ctc import ctc_loss
from asr.trainer.optim import (
    Constant,
    Cosine,
    InverseSqrt,
    Linear,
    Schedule,
    WeightAverage,
    freeze,
    make_optimizer,
    parameter_groups,
)

# --- groups of parameters ---------------------------------------------------------------------


N_MELS, VOCAB = 6, 4
ADAM = partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1)


def model_of(num_layers: int = 2, norm: str = "batch", **settings: object) -> BiLstmCtc:
    torch.manual_seed(80)
    sizes = {"subsampling": 2, "channels": 3, "hidden_size": 4, "num_layers": num_layers}
    model = BiLstmCtc(N_MELS, VOCAB, norm=norm, **{**sizes, **settings})  # type: ignore[arg-type]
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def take_steps(model: BiLstmCtc, optimizer: torch.optim.Optimizer, count: int = 3) -> None:
    generator = torch.Generator().manual_seed(81)
    lengths, token_lengths = torch.tensor([20, 12]), torch.tensor([3, 2])
    for _ in range(count):
        model.train()
        features = torch.randn(2, 20, N_MELS, generator=generator)
        tokens = torch.tensor([[1, 2, 3], [3, 1, 0]])
        ctc_loss(*model(features, lengths), tokens, token_lengths).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def block_names(model: BiLstmCtc, number: int) -> set[str]:
    """Names of all weights and statistics of a block."""
    own = {
        tensor.data_ptr()
        for module in model.blocks[number]
        for tensor in module.state_dict().values()
    }
    return {name for name, value in model.state_dict().items() if value.data_ptr() in own}


@pytest.mark.parametrize("backend", ["auto", "reference", "native"])
@pytest.mark.parametrize("frozen", [0, 1, 2, 3])
def test_frozen_blocks_stay_bit_for_bit_and_all_others_move(frozen: int, backend: str) -> None:
    model = model_of(dropout=0.2, recurrent_dropout=0.0, backend=backend)
    freeze(model, frozen)
    before = snapshot(model)
    take_steps(model, make_optimizer(ADAM, model))
    for number in range(len(model.blocks)):
        names = block_names(model, number)
        assert names
        for name in names:
            is_same = torch.equal(model.state_dict()[name], before[name])
            assert is_same == (number < frozen), name


def test_dropout_acts_in_frozen_blocks() -> None:
    model = model_of(num_layers=1, dropout=0.5, recurrent_dropout=0.5, backend="reference")
    freeze(model, 2)
    model.train()
    features, lengths = torch.randn(1, 8, N_MELS), torch.tensor([8])
    first, second = (model(features, lengths)[0] for _ in range(2))
    assert not torch.equal(first, second)
    assert model.layers[0].training
    assert not model.norms[0].training


def test_frozen_blocks_see_in_training_what_they_see_in_evaluation() -> None:
    model = model_of(num_layers=1, dropout=0.0)
    features, lengths = torch.randn(2, 8, N_MELS), torch.tensor([8, 5])
    freeze(model, 2)
    training = model.train()(features, lengths)[0]
    assert torch.equal(training, model.eval()(features, lengths)[0])


@pytest.mark.parametrize("frozen", [-1, 4, 100])
def test_a_number_of_frozen_blocks_that_makes_no_sense(frozen: int) -> None:
    with pytest.raises(ValueError, match=rf"^trainer\.frozen_layers {frozen}, expected 0 to 3: "):
        freeze(model_of(), frozen)


def lrs_of(model: BiLstmCtc, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every parameter of an optimiser, by name."""
    found = {
        parameter: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[parameter]: settings for parameter, settings in found.items()}


def test_rates_by_hand() -> None:
    model = model_of(num_layers=2, bidirectional=False, lookahead=1)
    optimizer = make_optimizer(ADAM, model, layer_decay=0.5)
    found = lrs_of(model, optimizer)
    assert found.keys() == dict(model.named_parameters()).keys()
    expected = {
        "subsampling.convolutions.0.weight": (0.00125, 0.1),
        "subsampling.convolutions.0.bias": (0.00125, 0.0),
        "input_norm.norm.weight": (0.00125, 0.0),
        "layers.0.weight_ih_l0": (0.0025, 0.1),
        "layers.0.bias_hh_l0": (0.0025, 0.0),
        "norms.0.norm.bias": (0.0025, 0.0),
        "layers.1.weight_hh_l0": (0.005, 0.1),
        "norms.1.norm.weight": (0.005, 0.0),
        "lookahead.filter.weight": (0.01, 0.1),
        "head.weight": (0.01, 0.1),
        "head.bias": (0.01, 0.0),
    }
    assert {name: found[name] for name in expected} == expected
    lrs = [group["lr"] for group in optimizer.param_groups]
    assert lrs == sorted(lrs)
    assert len(lrs) == 2 * 4


def test_a_step_of_each_block_is_as_long_as_its_rate_says() -> None:
    """Plain SGD: the way that a weight goes is its rate times its gradient."""
    plain = partial(torch.optim.SGD, lr=1.0)
    ways = []
    for decay in (1.0, 0.5):
        model = model_of(num_layers=1, dropout=0.0)
        before = snapshot(model)
        take_steps(model, make_optimizer(plain, model, decay), count=1)
        ways.append({n: p.detach() - before[n] for n, p in model.named_parameters()})
    for name, rate in (("subsampling.convolutions.0.weight", 0.25), ("head.weight", 1.0),
                       ("layers.0.weight_hh_l0", 0.5)):  # fmt: skip
        torch.testing.assert_close(ways[1][name], rate * ways[0][name], rtol=1e-4, atol=1e-6)
        assert ways[0][name].abs().max() > 1e-3


def assert_same(found: list[nn.Parameter], expected: list[nn.Parameter]) -> None:
    assert [id(parameter) for parameter in found] == [id(parameter) for parameter in expected]


def test_without_decay_there_are_two_groups_in_the_models_order() -> None:
    model = model_of()
    matrices, others = parameter_groups(model)
    assert (matrices.rate, matrices.is_decayed) == (1.0, True)
    assert (others.rate, others.is_decayed) == (1.0, False)
    parameters = list(model.parameters())
    assert_same(matrices.parameters, [p for p in parameters if p.ndim > 1])
    assert_same(others.parameters, [p for p in parameters if p.ndim <= 1])


def test_frozen_parameters_are_in_no_group() -> None:
    model = model_of()
    freeze(model, 3)
    groups = parameter_groups(model, layer_decay=0.5)
    assert [group.rate for group in groups] == [1.0, 1.0]
    assert_same(groups[0].parameters, [model.head.weight])
    assert_same(groups[1].parameters, [model.head.bias])


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.01, float("nan")])
def test_a_layer_decay_that_makes_no_sense(decay: float) -> None:
    with pytest.raises(ValueError, match=r"^trainer\.layer_decay \S+, expected above 0 to 1$"):
        make_optimizer(ADAM, model_of(), decay)


# --- schedules --------------------------------------------------------------------------------


WARMUP = 0.2
FALLING: list[Callable[..., Schedule]] = [Linear, Cosine, InverseSqrt]
ALL = [Constant, *(partial(kind, floor=0.0) for kind in FALLING)]


@pytest.mark.parametrize("kind", ALL)
def test_the_warm_up_is_a_line_from_0_to_1(kind: Callable[..., Schedule]) -> None:
    schedule = kind(warmup=WARMUP)
    assert [schedule(progress) for progress in (0.0, 0.05, 0.1)] == pytest.approx([0, 0.25, 0.5])
    assert schedule(WARMUP - 1e-9) == pytest.approx(1, abs=1e-6)
    assert schedule(WARMUP) == 1.0


@pytest.mark.parametrize(
    ("kind", "middle", "end"),
    [
        (Constant, 1.0, 1.0),
        (partial(Linear, floor=0.0), 0.5, 0.0),
        (partial(Cosine, floor=0.0), 0.5, 0.0),
        # The square root of warmup over progress: 0.2 / 0.6 and 0.2 / 1.
        (partial(InverseSqrt, floor=0.0), math.sqrt(1 / 3), math.sqrt(0.2)),
    ],
)
def test_shapes_after_the_warm_up(kind: Callable[..., Schedule], middle: float, end: float) -> None:
    schedule = kind(warmup=WARMUP)
    assert schedule(0.6) == pytest.approx(middle, abs=1e-12)
    assert schedule(1.0) == pytest.approx(end, abs=1e-12)


def test_the_cosine_is_none_of_the_lines() -> None:
    # A quarter of the way down: (1 + cos 45 degrees) / 2.
    assert Cosine(warmup=WARMUP, floor=0.0)(0.4) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert Linear(warmup=WARMUP, floor=0.0)(0.4) == pytest.approx(0.75)


@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_the_floor_is_where_it_ends(kind: Callable[..., Schedule]) -> None:
    schedule = kind(warmup=WARMUP, floor=0.1)
    assert schedule(WARMUP) == 1.0
    assert schedule(0.6) == pytest.approx(0.55)  # half of the way from 1 to 0.1
    assert schedule(1.0) == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5])
def test_up_then_down_and_never_outside_0_to_1(
    kind: Callable[..., Schedule], warmup: float
) -> None:
    schedule = kind(warmup=warmup)
    grid = np.linspace(0, 1, 1001)
    factors = np.array([schedule(progress) for progress in grid])
    assert (np.diff(factors[grid <= warmup]) > 0).all()
    assert (np.diff(factors[grid >= warmup]) <= 1e-12).all()
    assert factors.min() >= 0
    assert factors.max() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", ALL)
def test_without_a_warm_up_it_starts_at_1(kind: Callable[..., Schedule]) -> None:
    assert kind(warmup=0.0)(0.0) == 1.0


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("warmup", [-0.1, 1.0, 20, float("nan")])
def test_a_warm_up_that_is_no_share(kind: Callable[..., Schedule], warmup: float) -> None:
    with pytest.raises(ValueError, match=rf"warmup {warmup:g}, expected a share of the training"):
        kind(warmup=warmup)


@pytest.mark.parametrize("kind", [Linear, Cosine, InverseSqrt])
@pytest.mark.parametrize("floor", [-0.1, 1.1, float("nan")])
def test_a_floor_that_is_no_factor(kind: Callable[..., Schedule], floor: float) -> None:
    with pytest.raises(ValueError, match=rf"floor {floor:g}, expected a factor of 0 to 1"):
        kind(warmup=WARMUP, floor=floor)


# --- the average ------------------------------------------------------------------------------


def small_model() -> nn.Sequential:
    torch.manual_seed(90)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage) -> None:
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
    model = small_model()
    average = WeightAverage(model, decay=0.999)
    for _ in range(50):
        average.update()
    found = averaged(average, model)
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


def test_the_models_own_weights_come_back_bit_for_bit() -> None:
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    average = WeightAverage(model, decay=0.9)
    learn(model, optimizer, average)
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
    model = small_model()
    average = WeightAverage(model, decay=0.9)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    learn(model, optimizer, average)
    file = io.BytesIO()
    torch.save(average.state_dict(), file)
    file.seek(0)
    learn(model, optimizer, average)  # a state was saved, not a view of what goes on
    after = averaged(average, model)
    again = small_model()  # which seeds the data too
    resumed = WeightAverage(again, decay=0.9)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    optimizer = torch.optim.AdamW(again.parameters(), lr=0.1)
    first = WeightAverage(again, decay=0.9)
    learn(again, optimizer, first)  # to where it was saved
    found, expected = averaged(resumed, again), averaged(first, again)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    learn(again, optimizer, resumed)
    assert resumed.num_updates == average.num_updates == 6
    assert all(torch.equal(averaged(resumed, again)[name], value) for name, value in after.items())


def test_without_decay_the_average_is_the_weights_and_holds_none() -> None:
    model = small_model()
    average = WeightAverage(model, decay=0.0)
    learn(model, torch.optim.AdamW(model.parameters(), lr=0.1), average)
    before = copy.deepcopy(model.state_dict())
    found = averaged(average, model)
    assert all(torch.equal(found[name], value) for name, value in before.items())
    assert average.state_dict() == {"num_updates": 3, "average": {}}
    average.load_state_dict({"num_updates": 8, "average": {}})
    assert average.num_updates == 8


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0, float("nan")])
def test_a_decay_that_makes_no_sense(decay: float) -> None:
    with pytest.raises(ValueError, match=r"^trainer\.ema_decay \S+, expected 0 to below 1$"):
        WeightAverage(small_model(), decay)
