"""Stored feature statistics, measured on the training data before the first step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

import torch

from asr.data.batch import Batch
from asr.features import StoredNormalizer
from asr.recognizer import Recognizer

MEASURED_S = 3600.0  # [s] audio that statistics are measured on


def measure_features(
    recognizer: Recognizer, batches: Iterable[Batch], batch_duration_s: float, device: torch.device
) -> None:
    """Measure on about an hour; nothing where statistics are there or not needed.

    Args:
        recognizer: whose features are to be measured.
        batches: of the training data, without augmentation, the same on every rank.
        batch_duration_s: largest padded size of one of them [s].
        device: where the features are computed.
    """
    normalizer = recognizer.features.normalizer
    if not isinstance(normalizer, StoredNormalizer) or normalizer.is_measured:
        return
    hour = islice(batches, math.ceil(MEASURED_S / batch_duration_s))
    on_device = (batch.to(device) for batch in hour)
    log_mel = recognizer.features.log_mel
    normalizer.measure(log_mel(batch.waveforms, batch.num_samples) for batch in on_device)
