"""Features to zero mean and unit variance, by utterance or by stored statistics."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

# [nats] A mel bin that hardly moves (silence, a missing band) is centred but not blown up.
STD_FLOOR = 1e-2


class NoNormalizer(nn.Module):
    """Leaves features as they are."""

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return `(B, T, F)` features unchanged."""
        return features


class UtteranceNormalizer(nn.Module):
    """Each mel bin of each utterance to mean 0 and standard deviation 1 over its own frames.

    Removes what stays the same in a recording (gain, microphone, room); needs the whole utterance.
    """

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Normalise.

        Args:
            features: `(B, T, F)`.
            lengths: `(B,)` int64 [frames].

        Returns:
            `(B, T, F)`, zero beyond each length, finite also for silence and for no frames.
        """
        valid = _valid(features, lengths)
        count = lengths.clamp(min=1)[:, None, None]
        mean = torch.where(valid, features, 0.0).sum(dim=1, keepdim=True) / count
        centred = torch.where(valid, features - mean, 0.0)
        variance = centred.square().sum(dim=1, keepdim=True) / count
        return centred / variance.sqrt().clamp(min=STD_FLOOR)


class StoredNormalizer(nn.Module):
    """Each mel bin by a mean and standard deviation measured once on the training data.

    Keeps loudness differences between utterances and works on a stream. The statistics are buffers,
    so they travel inside the model file.

    Args:
        n_mels: number of mel bins F.
    """

    mean: Tensor
    std: Tensor
    is_measured: Tensor

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_mels))
        self.register_buffer("std", torch.ones(n_mels))
        self.register_buffer("is_measured", torch.tensor(False))

    def measure(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set mean and standard deviation from batches of features.

        Args:
            batches: pairs of features `(B, T, F)` and lengths `(B,)` int64 [frames].

        Raises:
            ValueError: where the batches hold no frame.
        """
        count = 0
        total = torch.zeros(self.mean.shape, dtype=torch.float64)
        squares = torch.zeros(self.mean.shape, dtype=torch.float64)
        for features, lengths in batches:
            frames = features[_valid(features, lengths).squeeze(-1)].double().cpu()  # (N, F)
            count += len(frames)
            total += frames.sum(dim=0)
            squares += frames.square().sum(dim=0)
        if not count:
            raise ValueError("no frames to measure feature statistics on, expected at least one")
        mean = total / count
        std = (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=STD_FLOOR)
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.is_measured.fill_(True)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Normalise `(B, T, F)` features; zero beyond each length.

        Raises:
            ValueError: before the statistics were measured or loaded.
        """
        if not self.is_measured:
            raise ValueError(
                "feature statistics are not measured, expected measure() or a model file"
            )
        return torch.where(_valid(features, lengths), (features - self.mean) / self.std, 0.0)


def make_normalizer(kind: str, n_mels: int) -> nn.Module:
    """Build a normaliser.

    Args:
        kind: "utterance", "stored" or "none".
        n_mels: number of mel bins F.

    Raises:
        ValueError: another kind.
    """
    if kind == "utterance":
        return UtteranceNormalizer()
    if kind == "stored":
        return StoredNormalizer(n_mels)
    if kind == "none":
        return NoNormalizer()
    raise ValueError(f"normalizer {kind!r}, expected 'utterance', 'stored' or 'none'")


def _valid(features: Tensor, lengths: Tensor) -> Tensor:
    """`(B, T, 1)` bool: True on frames of the utterance."""
    return (torch.arange(features.shape[1], device=features.device) < lengths[:, None])[..., None]
