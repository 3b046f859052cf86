"""SpecAugment: masks within their bounds, drawn from an utterance's own seed and length only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.augment import SpecAugment

NUM_BINS = 80
SEEDS = range(200)


def masks(augment: SpecAugment, length: int, extra: int = 0, bins: int = NUM_BINS) -> np.ndarray:
    """Where each of the seeds masks an utterance, `(seeds, length + extra, bins)` bool."""
    features = torch.ones(len(SEEDS), length + extra, bins)
    return augment(features, torch.full((len(SEEDS),), length), SEEDS).numpy() == 0


def only_bands(count: int = 1, width: int = 15) -> SpecAugment:
    return SpecAugment(count, width, time_masks_per_s=0.0)


def only_spans(per_s: float = 0.1, width: int = 30, share: float = 1.0, **other) -> SpecAugment:
    return SpecAugment(0, 0, per_s, width, share, **other)


def widths_of_one(masked: np.ndarray) -> np.ndarray:
    """Width of the one contiguous span that each row `(rows, N)` may have."""
    edges = np.diff(masked.astype(int), axis=1, prepend=0, append=0)
    assert ((edges == 1).sum(axis=1) <= 1).all()
    return masked.sum(axis=1)


def test_one_band_of_bins_over_all_frames():
    masked = masks(only_bands(width=15), length=50)
    assert (masked == masked[:, :1]).all()
    widths = widths_of_one(masked[:, 0])
    assert (widths.min(), widths.max()) == (0, 15)
    assert widths.mean() == pytest.approx(7.5, abs=1.5)
    assert masked[:, 0].any(axis=0).all()  # no bin is out of reach


def test_several_bands():
    masked = masks(only_bands(count=3, width=10), length=20)[:, 0]
    assert masked.sum(axis=1).max() <= 30
    assert masked.sum(axis=1).max() > 10
    # Each hides 5 bins of 80 on average: of the bins, 1 - (1 - 5/80)^3 = 17.6 % are hidden.
    assert masked.mean() == pytest.approx(0.176, abs=0.02)


@pytest.mark.parametrize(
    ("length", "width", "share", "widest"),
    [
        (300, 30, 1.0, 30),
        (300, 30, 0.05, 15),
        (19, 30, 0.15, 2),
        (20, 30, 1.0, 20),
        (6, 30, 0.1, 0),
    ],
)
def test_one_span_of_frames_within_the_utterance(length, width, share, widest):
    masked = masks(only_spans(width=width, share=share), length, extra=40, bins=2)
    assert (masked == masked[..., :1]).all()
    widths = widths_of_one(masked[:, :, 0])
    assert (widths.min(), widths.max()) == (0, widest)
    assert widths.mean() == pytest.approx(widest / 2, abs=0.1 * widest)
    assert not masked[:, length:].any()
    if widest:
        (reached,) = masked.any(axis=(0, 2)).nonzero()
        assert reached.min() < 10
        assert reached.max() >= length - 10


@pytest.mark.parametrize(
    ("per_s", "length", "frame_shift_ms", "count"),
    [
        (0.7, 1_000, 10.0, 7),
        (1.4, 1_000, 10.0, 14),
        (0.7, 1_000, 20.0, 14),
        (0.7, 100, 10.0, 1),
        (0.1, 100, 10.0, 1),  # at least one
    ],
)
def test_number_of_spans_grows_with_the_duration(per_s, length, frame_shift_ms, count):
    # Spans of 0 or 1 frames: each hides half a frame on average.
    augment = only_spans(per_s, width=1, frame_shift_ms=frame_shift_ms)
    masked = masks(augment, length, bins=1)[:, :, 0]
    assert masked.sum(axis=1).max() <= count
    deviation = np.sqrt(count / 4 / len(SEEDS))
    assert masked.sum(axis=1).mean() == pytest.approx(count / 2, abs=4 * deviation + 0.01 * count)


def test_share_that_the_defaults_hide():
    # Bands: 1 - (1 - 7.5/80)^2 = 17.9 %. Spans: 1 - (1 - 15/1000)^7 = 10.0 %. Both: 26.1 %.
    assert masks(SpecAugment(), length=1_000).mean() == pytest.approx(0.261, abs=0.03)


def random_features(*lengths: int, extra: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(len(lengths), max(lengths) + extra, NUM_BINS, generator=generator)
    return features, torch.tensor(lengths)


def test_masked_is_zero_and_the_rest_untouched():
    features, lengths = random_features(200, 120)
    masked = SpecAugment()(features.clone(), lengths, [3, 4])
    hidden = masks(SpecAugment(), 200)[3]
    assert hidden.any()
    assert not masked[0][torch.from_numpy(hidden)].any()
    shown = torch.from_numpy(~hidden)
    assert torch.equal(masked[0][shown], features[0][shown])
    assert masked.dtype == torch.float32


def test_input_is_not_written_to():
    features, lengths = random_features(100)
    SpecAugment()(features, lengths, [1])
    assert torch.equal(features, random_features(100)[0])


def test_batch_equals_alone_with_any_padding():
    features, lengths = random_features(300, 1, 100, 0, 220, extra=33)
    seeds = [11, 12, 13, 14, 2**63 - 1]
    batch = SpecAugment()(features, lengths, seeds)
    for row, length in enumerate(lengths.tolist()):
        own = features[row : row + 1, :length]
        alone = SpecAugment()(own, lengths[row : row + 1], seeds[row : row + 1])
        assert torch.equal(batch[row, :length], alone[0])
    order = [4, 2, 0, 1, 3]
    turned = SpecAugment()(features[order], lengths[order], [seeds[row] for row in order])
    assert torch.equal(turned, batch[order])


def test_seed_alone_decides():
    first, again = masks(SpecAugment(), 300), masks(SpecAugment(), 300)
    np.testing.assert_array_equal(first, again)
    assert len({mask.tobytes() for mask in first}) == len(SEEDS)


def test_bands_wider_than_the_features():
    features, lengths = random_features(20)
    masked = SpecAugment(freq_masks=1, freq_width=1_000, time_masks_per_s=0)(features, lengths, [1])
    assert masked.shape == features.shape


@pytest.mark.parametrize(
    "nothing",
    [
        {"freq_masks": 0, "time_masks_per_s": 0.0},
        {"freq_width": 0, "time_width": 0},
        {"freq_width": 0, "time_share": 0.0},
    ],
)
def test_zero_hides_nothing(nothing):
    features, lengths = random_features(300, 100)
    assert torch.equal(SpecAugment(**nothing)(features, lengths, [1, 2]), features)


def test_a_seed_for_each_utterance():
    with pytest.raises(ValueError, match="shorter"):
        SpecAugment()(*random_features(10, 10), [1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freq_masks": -1}, "freq_masks -1, expected 0 to 1000"),
        ({"freq_width": -1}, "freq_width -1"),
        ({"time_masks_per_s": -0.1}, "time_masks_per_s -0.1"),
        ({"time_masks_per_s": float("nan")}, "time_masks_per_s nan"),
        ({"time_width": -1}, "time_width -1"),
        ({"time_share": 1.5}, "time_share 1.5, expected 0 to 1"),
        ({"time_share": -0.1}, "time_share -0.1"),
        ({"frame_shift_ms": 0.0}, "frame_shift_ms 0, expected more than 0"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        SpecAugment(**settings)
