"""Convolutional subsampling: lengths, zeros at the end, and what each frame can see."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from asr.model.subsampling import STRIDES, ConvSubsampling

FACTORS = (1, 2, 3, 4, 8)
N_MELS = 5


def layer_of(factor: int, n_mels: int = N_MELS, channels: int = 3) -> ConvSubsampling:
    torch.manual_seed(factor)
    return ConvSubsampling(n_mels, channels, factor).double()


def test_every_factor_is_tested_and_is_the_product_of_its_strides() -> None:
    assert tuple(STRIDES) == FACTORS
    for factor, strides in STRIDES.items():
        assert torch.tensor(strides).prod() == factor


@pytest.mark.parametrize("factor", FACTORS)
def test_output_length_of_every_input_length(factor: int) -> None:
    layer = layer_of(factor)
    for frames in range(1, 65):
        output, lengths = layer(torch.zeros(1, frames, N_MELS).double(), torch.tensor([frames]))
        expected = len(range(0, frames, factor))  # every factor-th frame from the first
        assert lengths.tolist() == [expected]
        assert output.shape == (1, expected, layer.output_size)
        assert layer.output_length(torch.tensor(frames)) == expected


@pytest.mark.parametrize(("n_mels", "factor", "width"), [(80, 4, 60), (40, 8, 15), (21, 2, 33)])
def test_output_size_by_hand(n_mels: int, factor: int, width: int) -> None:
    # Three channels of the mel bins halved, rounded up, once for each convolution.
    layer = layer_of(factor, n_mels)
    assert layer.output_size == width
    assert layer(torch.zeros(1, 9, n_mels).double(), torch.tensor([9]))[0].shape[-1] == width


def test_values_by_hand() -> None:
    # One mel bin and one channel: y_t = relu(a x_{2t-1} + b x_{2t} + c x_{2t+1} + d).
    layer = ConvSubsampling(1, 1, 2)
    kernel = torch.zeros(3, 3)
    kernel[:, 1] = torch.tensor([1.0, 10.0, 100.0])
    convolution = layer.convolutions[0]
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.bias is not None
    with torch.no_grad():
        convolution.weight.copy_(kernel[None, None])
        convolution.bias.fill_(-25.0)
    features = torch.tensor([[1.0, 2.0, 3.0, 0.0, 2.0], [1.0, 2.0, 3.0, 7.0, 7.0]])[..., None]
    output, lengths = layer(features, torch.tensor([5, 3]))
    # Row 0: 10 + 200, 2 + 30 + 0, 0 + 20 less than 25. Row 1 ends after 3: 10 + 200, 2 + 30.
    assert output[..., 0].tolist() == [[185.0, 7.0, 0.0], [185.0, 7.0, 0.0]]
    assert lengths.tolist() == [3, 2]


@pytest.mark.parametrize("factor", FACTORS)
def test_batch_equals_alone_and_padding_may_be_nan(factor: int) -> None:
    layer = layer_of(factor)
    features = torch.randn(4, 17, N_MELS).double()
    lengths = torch.tensor([17, 1, 9, 8])
    for row, length in enumerate(lengths.tolist()):
        features[row, length:] = float("nan")
    output, output_lengths = layer(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, alone_length = layer(features[row : row + 1, :length], torch.tensor([length]))
        assert output_lengths[row] == alone_length
        kept = int(alone_length)
        torch.testing.assert_close(output[row, :kept], alone[0], rtol=1e-12, atol=1e-12)
        assert torch.count_nonzero(output[row, kept:]) == 0


@pytest.mark.parametrize("factor", FACTORS)
def test_nan_in_the_padding_stays_out_of_the_gradients(factor: int) -> None:
    layer = layer_of(factor)
    features = torch.randn(2, 9, N_MELS).double()
    lengths = torch.tensor([9, 5])

    def gradients(padding: float) -> list[Tensor]:
        padded = features.clone()
        padded[1, 5:] = padding
        layer.zero_grad()
        layer(padded, lengths)[0].square().sum().backward()
        return [p.grad.clone() for p in layer.parameters() if p.grad is not None]

    for found, expected in zip(gradients(float("nan")), gradients(0.0), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("factor", [0, 5, 6, -2])
def test_other_factors_are_refused(factor: int) -> None:
    with pytest.raises(ValueError, match=f"subsampling {factor}, expected one of 1, 2, 3, 4, 8"):
        ConvSubsampling(N_MELS, 3, factor)
