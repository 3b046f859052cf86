"""Mel filters: librosa's matrices, and torchaudio where its extension does not load."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import librosa
import numpy as np
import pytest
import torch

from asr.features.filterbank import import_torchaudio, mel_filterbank


@pytest.mark.parametrize("kind", ["slaney", "htk"])
@pytest.mark.parametrize(
    ("n_mels", "n_fft", "sample_rate", "f_min", "f_max"),
    [
        (80, 512, 16_000, 20.0, 8_000.0),
        (40, 256, 8_000, 0.0, 4_000.0),
        (128, 1_024, 22_050, 20.0, 7_600.0),
        (1, 512, 16_000, 20.0, 8_000.0),
    ],
)
def test_equals_librosa(kind, n_mels, n_fft, sample_rate, f_min, f_max):
    bank = mel_filterbank(kind, n_mels, n_fft, sample_rate, f_min, f_max)
    expected = librosa.filters.mel(
        sr=sample_rate,
        n_fft=n_fft,
        n_mels=n_mels,
        fmin=f_min,
        fmax=f_max,
        htk=kind == "htk",
        norm="slaney" if kind == "slaney" else None,
    )
    assert bank.dtype == torch.float32
    np.testing.assert_allclose(bank, expected.T, rtol=1e-5, atol=1e-9)


def test_kaldi_triangles_by_hand():
    # mel = 1127 ln(1 + f / 700), by a calculator: 1000 Hz is 999.99 mel, 4000 Hz 2146.06. Five
    # equal steps from 0 have corners at 0, 429.21, 858.42, 1287.64, 1716.85 and 2146.06 mel, and
    # 1000 Hz, bin 16 of 128 at 8 kHz, lies 0.3298 of a step above the third.
    bank = mel_filterbank("kaldi", 4, 128, 8_000, 0.0, 4_000.0)
    assert bank.shape == (65, 4)
    np.testing.assert_allclose(bank[16], [0.0, 1 - 0.3298, 0.3298, 0.0], atol=1e-4)
    assert not bank[0].any()
    assert not bank[64].any()  # Kaldi leaves out the Nyquist bin


def test_odd_sample_rate():
    with pytest.raises(ValueError, match="sample_rate 11025 Hz: expected even numbers"):
        mel_filterbank("slaney", 40, 512, 11_025, 20.0, 5_000.0)


@pytest.mark.parametrize("n_mels", [-1, 0, 3])
def test_too_few_kaldi_filters(n_mels):
    with pytest.raises(ValueError, match=f"n_mels {n_mels}, expected at least 4"):
        mel_filterbank("kaldi", n_mels, 512, 16_000, 20.0, 8_000.0)


def test_default_dtype_stays():
    mel_filterbank("kaldi", 40, 512, 16_000, 20.0, 8_000.0)
    mel_filterbank("htk", 40, 512, 16_000, 20.0, 8_000.0)
    assert torch.get_default_dtype() == torch.float32


def test_torchaudio_is_whole():
    torchaudio = import_torchaudio()
    assert torchaudio is sys.modules["torchaudio"]
    assert import_torchaudio() is torchaudio
    waveform = torch.ones(1, 1_600)
    assert torchaudio.transforms.Resample(16_000, 8_000)(waveform).shape == (1, 800)
    assert torchaudio.transforms.TimeMasking(10)(torch.ones(1, 80, 100)).shape == (1, 80, 100)
    assert torchaudio.compliance.kaldi.fbank(waveform).shape == (8, 23)


def test_torchaudio_in_a_spawned_process():
    arguments = ("kaldi", 20, 512, 16_000, 20.0, 8_000.0)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        bank = pool.submit(mel_filterbank, *arguments).result(timeout=120)
        torch.testing.assert_close(bank, mel_filterbank(*arguments))
