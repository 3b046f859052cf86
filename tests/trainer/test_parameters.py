"""Frozen blocks do not move, the others move at the rates worked out by hand."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from asr.model import BiLstmCtc
from asr.model.ctc import ctc_loss
from asr.trainer.parameters import freeze, make_optimizer, parameter_groups

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
