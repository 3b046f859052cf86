"""Makes kaldi_fbank.npz: signals and their Kaldi filterbank features, in plain NumPy and float64.

Written from the equations of Kaldi's feature extraction (feature-window.cc, mel-computations.cc and
feature-fbank.cc, and Povey's remarks in them), not from this project's code or torchaudio's:

    frame t   samples s[160 t .. 160 t + 399] of 16-bit audio, whole windows only
    offset    minus the frame's mean
    emphasis  x[i] - 0.97 x[i - 1], and x[0] - 0.97 x[0] for the first
    window    (0.5 - 0.5 cos(2 pi i / 399)) ** 0.85
    power     |DFT of 512 points|^2, bins 0 to 255
    mel       1127 ln(1 + f / 700), triangles that are linear in mel between equidistant corners
    value     ln(max(energy, 2^-23))

Run it from anywhere: `python tests/golden/make_kaldi_fbank.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("kaldi_fbank.npz")

SAMPLE_RATE = 16_000  # [Hz]
WINDOW, SHIFT, FFT = 400, 160, 512  # [samples]
NUM_BINS = 80
LOWEST, HIGHEST = 20.0, 8_000.0  # [Hz]
EMPHASIS = 0.97
FLOOR = 2.0**-23  # float32's epsilon


def signals() -> dict[str, np.ndarray]:
    """Short 16-bit recordings, int16, a quarter of a second each."""
    time = np.arange(4_005) / SAMPLE_RATE  # [s] no whole number of frames
    # Room noise, without which energies lie below the resolution of float32 beside the peaks.
    hiss, noise = np.random.default_rng(762).normal(0.0, [[20.0], [1_000.0]], (2, len(time)))
    sweep = 9_000 * np.sin(2 * np.pi * (100 * time + 15_000 * time**2))
    harmonics = np.arange(1, 30)[:, None]
    vowel = 8_000 / harmonics * np.sin(2 * np.pi * 120 * harmonics * time + harmonics**2)
    click = np.zeros(len(time))
    click[2_000] = 20_000.0  # all else is silence, at the floor
    named = {
        "sweep": sweep + hiss,
        "vowel": vowel.sum(axis=0) * np.exp(-4 * time) + hiss,
        "noise_off_zero": noise + 300.0,
        "click": click,
    }
    return {name: np.round(signal).astype(np.int16) for name, signal in named.items()}


def mel(hertz: np.ndarray | float) -> np.ndarray:
    """Frequency on the mel scale."""
    return 1127.0 * np.log(1.0 + np.asarray(hertz) / 700.0)


def triangles() -> np.ndarray:
    """Filters `(NUM_BINS, FFT // 2)`; the Nyquist bin belongs to none."""
    corners = np.linspace(mel(LOWEST), mel(HIGHEST), NUM_BINS + 2)
    bins = mel(np.arange(FFT // 2) * SAMPLE_RATE / FFT)
    filters = np.zeros((NUM_BINS, FFT // 2))
    for i in range(NUM_BINS):
        left, center, right = corners[i : i + 3]
        rise = (bins - left) / (center - left)
        fall = (right - bins) / (right - center)
        filters[i] = np.maximum(np.minimum(rise, fall), 0.0)
    return filters


def fbank(samples: np.ndarray) -> np.ndarray:
    """Features `(num_frames, NUM_BINS)` float64 of int16 samples."""
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1))) ** 0.85
    dft = np.exp(-2j * np.pi * np.outer(np.arange(FFT // 2), np.arange(WINDOW)) / FFT)
    filters = triangles()
    rows = []
    for start in range(0, len(samples) - WINDOW + 1, SHIFT):
        frame = samples[start : start + WINDOW].astype(np.float64)
        frame = frame - frame.mean()
        frame = frame - EMPHASIS * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(dft @ (frame * window)) ** 2
        rows.append(np.log(np.maximum(filters @ power, FLOOR)))
    return np.stack(rows)


def make() -> dict[str, np.ndarray]:
    """What the file holds: for each signal its samples and `<name>_fbank`, float32."""
    arrays: dict[str, np.ndarray] = {}
    for name, samples in signals().items():
        arrays[name] = samples
        arrays[f"{name}_fbank"] = fbank(samples).astype(np.float32)
    return arrays


if __name__ == "__main__":
    np.savez_compressed(FILE, **make())
