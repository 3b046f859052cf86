"""Normalisation between layers in which padding never counts."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from asr.model.lengths import length_mask, mask_padding


class MaskedBatchNorm(nn.Module):
    """Batch normalisation over the valid frames of a padded batch (Ioffe and Szegedy, 2015).

    One whose gain does not learn (`requires_grad_(False)`) stays in evaluation mode: its running
    statistics hold still, and training sees what evaluation will.

    Args:
        num_features: width of a frame.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(num_features)

    def train(self, mode: bool = True) -> Self:
        """Enter training mode, unless the gain does not learn, or evaluation mode."""
        return super().train(mode and self.norm.weight.requires_grad)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Normalise `(B, T, F)` frames within `(B,)` lengths; zero in the padding."""
        inside = length_mask(lengths, x.shape[1])
        output = x.new_zeros(x.shape)
        # index_put on the valid frames only: their mean and variance are all that batch norm sees.
        output[inside] = self.norm(x[inside]).to(output.dtype)
        return output


class MaskedLayerNorm(nn.Module):
    """Layer normalisation of each frame (Ba, Kiros and Hinton, 2016), zero in the padding.

    Args:
        num_features: width of a frame.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(num_features)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Normalise `(B, T, F)` frames within `(B,)` lengths; zero in the padding."""
        return mask_padding(self.norm(x), lengths)


class NoNorm(nn.Module):
    """Takes the place of a normalisation that is switched off."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the frames unchanged."""
        return x


def make_norm(kind: str, num_features: int) -> nn.Module:
    """Build a normalisation layer.

    Args:
        kind: "none", "batch" or "layer".
        num_features: width of a frame.

    Raises:
        ValueError: another kind.
    """
    if kind == "batch":
        return MaskedBatchNorm(num_features)
    if kind == "layer":
        return MaskedLayerNorm(num_features)
    if kind == "none":
        return NoNorm()
    raise ValueError(f"norm {kind!r}, expected 'none', 'batch' or 'layer'")
