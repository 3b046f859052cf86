"""Convolutional subsampling: fewer, wider frames before the recurrent layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.model.lengths import mask_padding, subsampled_length

# Strides of the convolutions that make up each factor.
STRIDES = {1: (1,), 2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}


class ConvSubsampling(nn.Module):
    """Convolutions over time and frequency with ReLU, each shortening time by its stride.

    Every convolution halves the frequency axis, so that the width stays small. Padding
    is zeroed before every convolution: at an utterance's end the kernel sees the same zeros alone
    and in any batch.

    Args:
        n_mels: mel bins F of the features.
        channels: channels of every convolution.
        factor: frames in for one frame out, 1, 2, 3, 4 or 8.

    Raises:
        ValueError: another factor.
    """

    def __init__(self, n_mels: int, channels: int, factor: int) -> None:
        super().__init__()
        if factor not in STRIDES:
            raise ValueError(
                f"subsampling {factor}, expected one of {', '.join(map(str, STRIDES))}"
            )
        self.strides = STRIDES[factor]
        self.convolutions = nn.ModuleList()
        width = n_mels
        previous = 1
        for stride in self.strides:
            convolution = nn.Conv2d(previous, channels, 3, (stride, 2), padding=1)
            # torch's default leaves a sixth of the signal's power after each (He et al., 2015).
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)
            # The kernels for channels-last are up to twice as fast, on CPUs and GPUs.
            convolution.weight.data = convolution.weight.data.to(memory_format=torch.channels_last)
            self.convolutions.append(convolution)
            previous = channels
            width = (width + 1) // 2
        self.output_size = channels * width

    def output_length(self, lengths: Tensor) -> Tensor:
        """Frames left of `lengths` frames: int64, the same shape."""
        for stride in self.strides:
            lengths = subsampled_length(lengths, stride)
        return lengths

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Subsample.

        Args:
            features: `(B, T, F)`; padding may hold anything.
            lengths: `(B,)` int64 [frames].

        Returns:
            `(B, ceil(T / factor), output_size)`, zero in the padding, and lengths `(B,)` int64.
        """
        x = mask_padding(features, lengths)[:, None]  # (B, 1, T, F)
        x = x.to(memory_format=torch.channels_last)
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            x = torch.relu(convolution(x))
            lengths = subsampled_length(lengths, stride)
            inside = torch.arange(x.shape[2], device=x.device) < lengths[:, None]
            x = x * inside[:, None, :, None]
        return x.transpose(1, 2).flatten(2), lengths  # (B, T', channels * F')
