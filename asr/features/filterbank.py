"""Mel filterbank matrices from torchaudio, and the one place that imports it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

import torch
from torch import Tensor


@cache
def import_torchaudio() -> ModuleType:
    """Import torchaudio, also where its compiled extension does not load.

    torchaudio's wheels are linked against CUDA's libraries: beside a CPU build of torch the import
    raises OSError. Filterbanks, transforms and the Kaldi features are plain Python and need no
    extension, so a stub takes its place; forced_align and the RNN-T loss stay unavailable there.
    """
    try:
        return importlib.import_module("torchaudio")
    except OSError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules["torchaudio._extension"] = _extension_stub()
        return importlib.import_module("torchaudio")


def _extension_stub() -> ModuleType:
    stub = ModuleType("torchaudio._extension")
    stub._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
    stub._IS_RIR_AVAILABLE = False  # type: ignore[attr-defined]
    stub._IS_ALIGN_AVAILABLE = False  # type: ignore[attr-defined]
    stub._check_cuda_version = lambda: None  # type: ignore[attr-defined]
    stub.fail_if_no_align = lambda function: function  # type: ignore[attr-defined]
    return stub


def mel_filterbank(
    kind: str, n_mels: int, n_fft: int, sample_rate: int, f_min: float, f_max: float
) -> Tensor:
    """Triangular mel filters over the bins of a power spectrum.

    Args:
        kind: "slaney" (librosa's default: mel scale and area norm of Slaney's Auditory Toolbox),
            "htk" (HTK's mel scale, peaks of one) or "kaldi" (HTK's scale, triangles straight in mel
            instead of in hertz).
        n_mels: number of filters F.
        n_fft: length of the Fourier transform [samples].
        sample_rate: [Hz].
        f_min: lower edge of the first filter [Hz].
        f_max: upper edge of the last filter [Hz].

    Returns:
        `(n_fft // 2 + 1, F)` float32.

    Raises:
        ValueError: an unknown kind, too few filters, odd lengths, or a band outside 0 to half the
            sample rate.
    """
    if kind not in ("slaney", "htk", "kaldi"):
        raise ValueError(f"mel scale {kind!r}, expected 'slaney', 'htk' or 'kaldi'")
    fewest = 4 if kind == "kaldi" else 1
    if n_mels < fewest:
        raise ValueError(f"n_mels {n_mels}, expected at least {fewest}")
    # torchaudio rounds half of either down, and so moves every bin.
    if n_fft % 2 or sample_rate % 2:
        raise ValueError(f"n_fft {n_fft}, sample_rate {sample_rate} Hz: expected even numbers")
    if not 0 <= f_min < f_max <= sample_rate / 2:
        raise ValueError(
            f"mel band {f_min:g} to {f_max:g} Hz, "
            f"expected 0 <= f_min < f_max <= {sample_rate / 2:g} Hz (half the sample rate)"
        )
    if kind == "kaldi":
        import_torchaudio()
        kaldi = importlib.import_module("torchaudio.compliance.kaldi")
        with _float64_by_default():
            bank, _ = kaldi.get_mel_banks(
                n_mels, n_fft, float(sample_rate), f_min, f_max, 100.0, -500.0, 1.0
            )
        # Kaldi leaves out the Nyquist bin.
        return torch.nn.functional.pad(bank, (0, 1)).T.contiguous().float()
    functional = import_torchaudio().functional
    with _float64_by_default():
        bank = functional.melscale_fbanks(
            n_freqs=n_fft // 2 + 1,
            f_min=f_min,
            f_max=f_max,
            n_mels=n_mels,
            sample_rate=sample_rate,
            norm="slaney" if kind == "slaney" else None,
            mel_scale=kind,
        )
    return torch.as_tensor(bank).float()


@contextmanager
def _float64_by_default() -> Iterator[None]:
    """torchaudio computes filters in the default dtype; float32 is off by 1e-5 at their feet."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
