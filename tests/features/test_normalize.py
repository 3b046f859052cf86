"""Normalisers: numpy's statistics over an utterance's frames or over all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.features.normalize import (
    STD_FLOOR,
    NoNormalizer,
    StoredNormalizer,
    UtteranceNormalizer,
    make_normalizer,
)

N_MELS = 5


def make_batch(*lengths: int, junk: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features far from zero, every bin on a scale of its own; `junk` beyond the lengths."""
    generator = np.random.default_rng([seed, *lengths])
    scale = np.array([0.5, 1.0, 2.0, 5.0, 10.0])
    shape = (len(lengths), max(lengths), N_MELS)
    features = torch.from_numpy(generator.normal(-8.0, scale, shape)).float()
    for row, length in zip(features, lengths, strict=True):
        row[length:] = junk
    return features, torch.tensor(lengths)


def frames_of(features: Tensor, lengths: Tensor) -> np.ndarray:
    """All frames `(N, F)` of a batch, float64."""
    pairs = zip(features, lengths, strict=True)
    return torch.cat([row[:length] for row, length in pairs]).double().numpy()


@pytest.mark.parametrize("junk", [0.0, 1e6, float("nan"), float("inf")])
def test_utterance_to_mean_0_and_deviation_1(junk):
    features, lengths = make_batch(100, 2, 37, junk=junk)
    normalized = UtteranceNormalizer()(features, lengths)
    for row, source, length in zip(normalized, features, lengths, strict=True):
        frames = frames_of(row[None], length[None])
        np.testing.assert_allclose(frames.mean(axis=0), 0.0, atol=1e-5)
        np.testing.assert_allclose(frames.std(axis=0), 1.0, atol=1e-5)
        own = frames_of(source[None], length[None])
        expected = (own - own.mean(axis=0)) / own.std(axis=0)
        np.testing.assert_allclose(frames, expected, atol=1e-5)
        assert not row[length:].any()


def test_bin_that_hardly_moves_is_not_blown_up():
    features = -23.0 + 1e-4 * make_batch(50)[0]
    normalized = UtteranceNormalizer()(features, torch.tensor([50]))
    expected = (features - features.mean(dim=1, keepdim=True)) / STD_FLOOR
    torch.testing.assert_close(normalized, expected, atol=1e-3, rtol=0)
    assert normalized.abs().max() < 1


def test_one_frame_and_none():
    features, lengths = make_batch(1, 0)
    assert not UtteranceNormalizer()(features, lengths).any()
    nothing = UtteranceNormalizer()(torch.zeros(2, 0, N_MELS), torch.zeros(2, dtype=torch.int64))
    assert nothing.shape == (2, 0, N_MELS)


@pytest.mark.parametrize("junk", [0.0, 1e6, float("nan")])
def test_stored_statistics_are_those_of_all_frames(junk):
    batches = [make_batch(100, 3, 50, junk=junk), make_batch(7, junk=junk), make_batch(20, 0)]
    frames = np.concatenate([frames_of(*batch) for batch in batches])
    assert len(frames) == 180
    normalizer = StoredNormalizer(N_MELS)
    normalizer.measure(iter(batches))
    np.testing.assert_allclose(normalizer.mean, frames.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(normalizer.std, frames.std(axis=0), rtol=1e-6)

    features, lengths = make_batch(30, 12, junk=junk, seed=1)
    normalized = normalizer(features, lengths)
    expected = (frames_of(features, lengths) - frames.mean(axis=0)) / frames.std(axis=0)
    np.testing.assert_allclose(frames_of(normalized, lengths), expected, atol=1e-5)
    assert not normalized[1, 12:].any()


def test_measuring_keeps_its_precision_far_from_zero():
    features = 1_000.0 + make_batch(500)[0] / 10
    normalizer = StoredNormalizer(N_MELS)
    normalizer.measure([(features, torch.tensor([500]))])
    expected = frames_of(features, torch.tensor([500])).std(axis=0)
    np.testing.assert_allclose(normalizer.std, expected, rtol=1e-5)


def test_measuring_again_replaces():
    normalizer = StoredNormalizer(N_MELS)
    normalizer.measure([make_batch(50)])
    batch = make_batch(60, seed=1)
    normalizer.measure([batch])
    np.testing.assert_allclose(normalizer.mean, frames_of(*batch).mean(axis=0), rtol=1e-6)


def test_constant_bin_is_stored_with_the_floor():
    normalizer = StoredNormalizer(N_MELS)
    normalizer.measure([(torch.full((1, 9, N_MELS), -23.0), torch.tensor([9]))])
    torch.testing.assert_close(normalizer.std, torch.full((N_MELS,), STD_FLOOR))


def test_stored_raises_before_it_is_measured():
    with pytest.raises(ValueError, match="not measured, expected measure"):
        StoredNormalizer(N_MELS)(*make_batch(10))


@pytest.mark.parametrize("batches", [[], [(torch.zeros(2, 4, N_MELS), torch.tensor([0, 0]))]])
def test_nothing_to_measure(batches):
    normalizer = StoredNormalizer(N_MELS)
    with pytest.raises(ValueError, match="no frames to measure"):
        normalizer.measure(batches)
    assert not normalizer.is_measured


def test_statistics_travel_with_the_state():
    batch = make_batch(40, 20)
    normalizer, copy = StoredNormalizer(N_MELS), StoredNormalizer(N_MELS)
    normalizer.measure([batch])
    copy.load_state_dict(normalizer.state_dict())
    torch.testing.assert_close(copy(*batch), normalizer(*batch))


def test_none_leaves_features_alone():
    features, lengths = make_batch(10, 4, junk=3.0)
    torch.testing.assert_close(NoNormalizer()(features.clone(), lengths), features)


def test_kinds():
    assert isinstance(make_normalizer("utterance", N_MELS), UtteranceNormalizer)
    assert isinstance(make_normalizer("stored", N_MELS), StoredNormalizer)
    assert isinstance(make_normalizer("none", N_MELS), NoNormalizer)
    with pytest.raises(ValueError, match="normalizer 'global', expected 'utterance', 'stored' or"):
        make_normalizer("global", N_MELS)
