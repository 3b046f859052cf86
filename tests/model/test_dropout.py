"""Dropout: its share, its mean, its draws."""

from __future__ import annotations

import pytest
import torch

from asr.model.dropout import Dropout


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(40)


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_drops_its_share_and_keeps_the_mean(p: float) -> None:
    dropped = Dropout(p)(torch.ones(1001, 333))
    assert (dropped == 0).float().mean() == pytest.approx(p, abs=0.004)
    kept = dropped[dropped != 0]
    assert torch.equal(kept, kept[0].expand_as(kept))
    assert kept[0] == pytest.approx(1 / (1 - p), rel=1e-4)
    # Neither rows nor columns nor neighbours go together.
    for axis in (0, 1):
        shares = (dropped == 0).float().mean(dim=axis)
        assert (shares - p).abs().max() < 5.5 * (p * (1 - p) / dropped.shape[axis]) ** 0.5
    gone = (dropped == 0).flatten().double()
    for distance in (1, 2, 3, 4, 64):
        together = (gone[:-distance] * gone[distance:]).mean()
        assert together == pytest.approx(p * p, abs=0.004)


def test_the_gradient_goes_where_values_went() -> None:
    x = torch.randn(5, 7, 3, requires_grad=True)
    output = Dropout(0.4)(x)
    output.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), output.detach())


def test_torchs_generator_decides() -> None:
    x = torch.ones(100)
    first, second = Dropout(0.5)(x), Dropout(0.5)(x)
    torch.manual_seed(40)
    again = Dropout(0.5)(x)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_in_evaluation_and_at_zero_nothing_happens() -> None:
    x = torch.randn(4, 4)
    assert Dropout(0.9).eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (3, 1, 2)])
def test_every_shape(shape: tuple[int, ...]) -> None:
    assert Dropout(0.5)(torch.ones(shape)).shape == shape
    assert torch.count_nonzero(Dropout(1.0)(torch.ones(shape))) == 0


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_shares_that_make_no_sense(p: float) -> None:
    with pytest.raises(ValueError, match=r"dropout .*, expected 0 to 1"):
        Dropout(p)


@pytest.mark.cuda
def test_on_a_gpu_too() -> None:
    dropped = Dropout(0.3)(torch.ones(1000, 1000, device="cuda"))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
