"""Normalisation within lengths against torch's own layers on the valid frames alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from asr.model.normalization import MaskedBatchNorm, MaskedLayerNorm, NoNorm, make_norm

WIDTH = 3
LENGTHS = torch.tensor([5, 1, 3])


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(30)
    return 2 + 3 * torch.randn(3, 5, WIDTH).double()


def valid_frames(x: Tensor) -> Tensor:
    return torch.cat([x[row, :length] for row, length in enumerate(LENGTHS.tolist())])


def randomise(*norms: nn.Module) -> None:
    """The same random gains and shifts for all: 1 and 0 would hide a missing one."""
    for norm in norms:
        torch.manual_seed(31)
        for parameter in norm.parameters():
            nn.init.normal_(parameter)


def test_batch_norm_is_torchs_on_the_valid_frames(x: Tensor) -> None:
    ours, theirs = MaskedBatchNorm(WIDTH).double(), nn.BatchNorm1d(WIDTH).double()
    randomise(ours, theirs)
    for scale in (1.0, 4.0):  # twice, so that the running statistics move twice
        expected = theirs(valid_frames(scale * x))
        output = ours(scale * x, LENGTHS)
        torch.testing.assert_close(valid_frames(output), expected, rtol=1e-12, atol=1e-12)
        assert torch.count_nonzero(output[1, 1:]) == 0
    for name, statistic in theirs.named_buffers():
        torch.testing.assert_close(ours.norm.get_buffer(name), statistic, rtol=1e-12, atol=1e-12)
    assert not torch.equal(ours.norm.get_buffer("running_mean"), torch.zeros(WIDTH).double())


def test_batch_norm_evaluates_with_its_running_statistics(x: Tensor) -> None:
    norm = MaskedBatchNorm(WIDTH).double()
    for _ in range(3):
        norm(x, LENGTHS)
    norm.eval()
    statistics = {name: value.clone() for name, value in norm.state_dict().items()}
    output = norm(x, LENGTHS)
    alone = norm(x[2:, :3], torch.tensor([3]))
    assert torch.equal(output[2, :3], alone[0])
    assert all(torch.equal(value, statistics[name]) for name, value in norm.state_dict().items())


def test_gradients_of_batch_norm(x: Tensor) -> None:
    ours, theirs = MaskedBatchNorm(WIDTH).double(), nn.BatchNorm1d(WIDTH).double()
    randomise(ours, theirs)
    weights = torch.randn(x.shape).double()
    left, right = x.clone().requires_grad_(), x.clone().requires_grad_()
    (ours(left, LENGTHS) * weights).sum().backward()
    (theirs(valid_frames(right)) * valid_frames(weights)).sum().backward()
    torch.testing.assert_close(left.grad, right.grad, rtol=1e-12, atol=1e-12)
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-12, atol=1e-12)


def test_layer_norm_is_torchs_on_each_frame(x: Tensor) -> None:
    ours, theirs = MaskedLayerNorm(WIDTH).double(), nn.LayerNorm(WIDTH).double()
    randomise(ours, theirs)
    output = ours(x, LENGTHS)
    torch.testing.assert_close(valid_frames(output), theirs(valid_frames(x)))
    assert torch.count_nonzero(output[1, 1:]) == 0
    assert torch.count_nonzero(output[2, 3:]) == 0


@pytest.mark.parametrize("kind", ["batch", "layer"])
def test_padding_may_be_nan(kind: str, x: Tensor) -> None:
    norm = make_norm(kind, WIDTH).double()
    randomise(norm)
    expected = norm(x, LENGTHS)
    x[1, 1:] = float("nan")
    assert torch.equal(norm(x, LENGTHS), expected)


def test_no_norm_changes_nothing(x: Tensor) -> None:
    norm = make_norm("none", WIDTH)
    assert isinstance(norm, NoNorm)
    assert norm(x, LENGTHS) is x
    assert not list(norm.parameters())


def test_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="norm 'instance', expected 'none', 'batch' or 'layer'"):
        make_norm("instance", WIDTH)


def test_batch_norm_that_does_not_learn_stays_in_evaluation_mode(x: Tensor) -> None:
    norm = MaskedBatchNorm(WIDTH).double()
    randomise(norm)
    norm(x, LENGTHS)
    statistics = {name: value.clone() for name, value in norm.named_buffers()}
    expected = norm.eval()(x, LENGTHS)
    norm.requires_grad_(False)
    parent = nn.ModuleList([norm]).train()  # as the model's own train() reaches it
    assert parent.training
    assert torch.equal(norm(x, LENGTHS), expected)
    assert all(torch.equal(value, statistics[name]) for name, value in norm.named_buffers())
    norm.requires_grad_(True)
    parent.train()
    assert not torch.equal(norm(x, LENGTHS), expected)
