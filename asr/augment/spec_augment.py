"""SpecAugment: bands of mel bins and spans of frames hidden from the model in training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MAX_MASKS = 1000  # of a kind, an utterance or a second: more hide everything and take for ever


class SpecAugment:
    """Masks spans of frames and bands of mel bins (Park et al., "SpecAugment", Interspeech 2019).

    Masks are drawn for each utterance from its own seed and within its own length, so they depend
    neither on the batch nor on the worker. Normalised features are masked with zero, their mean.

    Args:
        freq_masks: bands an utterance.
        freq_width: widest band [mel bins].
        time_masks_per_s: spans a second of audio; at least one an utterance unless this is 0.
        time_width: widest span [frames].
        time_share: widest span as a share of the utterance; the smaller bound holds.
        frame_shift_ms: time between frames [ms].

    Raises:
        ValueError: a negative number, a share above 1, or frames without a distance.
    """

    def __init__(
        self,
        freq_masks: int = 2,
        freq_width: int = 15,
        time_masks_per_s: float = 0.7,
        time_width: int = 30,
        time_share: float = 0.15,
        frame_shift_ms: float = 10.0,
    ) -> None:
        for name, number, most in (
            ("freq_masks", freq_masks, MAX_MASKS),
            ("freq_width", freq_width, math.inf),
            ("time_masks_per_s", time_masks_per_s, MAX_MASKS),
            ("time_width", time_width, math.inf),
            ("time_share", time_share, 1),
        ):
            if not 0 <= number <= most:
                raise ValueError(f"{name} {number:g}, expected 0 to {most:g}")
        if not frame_shift_ms > 0:
            raise ValueError(f"frame_shift_ms {frame_shift_ms:g}, expected more than 0")
        self.freq_masks = freq_masks
        self.freq_width = freq_width
        self.time_width = time_width
        self.time_share = time_share
        self.masks_per_frame = time_masks_per_s * frame_shift_ms / 1000

    def __call__(self, features: Tensor, lengths: Tensor, seeds: Sequence[int]) -> Tensor:
        """Mask a batch.

        Args:
            features: `(B, T, F)`, normalised.
            lengths: `(B,)` int64 [frames].
            seeds: B seeds, one an utterance.

        Returns:
            `(B, T, F)`, masked with zero.
        """
        num_frames, num_bins = features.shape[1:]
        keep = np.ones((len(seeds), num_frames, num_bins), dtype=np.bool_)
        for row, (length, seed) in enumerate(zip(lengths.tolist(), seeds, strict=True)):
            self._mask(keep[row], length, np.random.default_rng(seed))
        return features * torch.from_numpy(keep).to(features.device)

    def _mask(self, keep: np.ndarray, length: int, generator: np.random.Generator) -> None:
        num_bins = keep.shape[1]
        for _ in range(self.freq_masks):
            width = generator.integers(min(self.freq_width, num_bins) + 1)
            start = generator.integers(num_bins - width + 1)
            keep[:, start : start + width] = False
        if not self.masks_per_frame:
            return
        widest = min(self.time_width, int(self.time_share * length))
        for _ in range(max(1, round(self.masks_per_frame * length))):
            width = generator.integers(widest + 1)
            start = generator.integers(length - width + 1)
            keep[start : start + width] = False
