"""Stored feature statistics, measured on the training data before the first step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from asr.checkpoint import Recognizer
from asr.data.batch import BatchLoader
from asr.features.normalize import StoredNormalizer

MEASURED_S = 3600.0  # [s] audio that statistics are measured on


def measure_features(
    recognizer: Recognizer,
    loader: BatchLoader,
    plan: Sequence[tuple[int, ...]],
    batch_duration_s: float,
    device: torch.device,
) -> None:
    """Measure on about an hour of the plan; nothing where statistics are there or not needed.

    Args:
        recognizer: whose features are to be measured.
        loader: of the training data, without augmentation.
        plan: batches, the same on every rank.
        batch_duration_s: largest padded size of one of them [s].
        device: where the features are computed.
    """
    normalizer = recognizer.features.normalizer
    if not isinstance(normalizer, StoredNormalizer) or normalizer.is_measured:
        return
    hour = plan[: math.ceil(MEASURED_S / batch_duration_s)]
    on_device = (batch.to(device) for batch in loader.batches(0, hour))
    log_mel = recognizer.features.log_mel
    normalizer.measure(log_mel(batch.waveforms, batch.num_samples) for batch in on_device)
