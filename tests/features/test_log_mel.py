"""Log-mel features: librosa's and Kaldi's values, and nothing but an utterance's own samples."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from types import ModuleType

import librosa
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.audio import load_audio
from asr.features import LogMel
from asr.features.filterbank import import_torchaudio

GOLDEN = Path(__file__).parents[1] / "golden"

# As LogMel's docstring gives them.
KALDI = {
    "center": False,
    "mel_scale": "kaldi",
    "window": "povey",
    "preemphasis": 0.97,
    "remove_dc_offset": True,
    "scale": 32768,
    "log_floor": 1.1920929e-07,
}
SETTINGS = {"librosa": {}, "kaldi": KALDI}
each_setting = pytest.mark.parametrize("setting", SETTINGS)
RECORDINGS = [
    "librispeech_dev_clean_part/audio/*/*0.mp3",  # nothing above 6 kHz
    "speechocean762/audio/**/*10.opus",
    "fsdd/recordings/*_7.wav",  # 8 kHz
]


def signals(sample_rate: int) -> dict[str, NDArray[np.float32]]:
    """A second and a bit of several kinds of sound."""
    generator = np.random.default_rng(7)
    time = np.arange(sample_rate + 123) / sample_rate  # [s]
    click = np.zeros(len(time))
    click[5_000] = 0.9
    return {
        name: samples.astype(np.float32)
        for name, samples in {
            "noise": generator.normal(0, 0.1, len(time)),
            "quiet noise": generator.normal(0, 1e-4, len(time)),
            "sine": 0.5 * np.sin(2 * np.pi * 440 * time),
            "sweep": 0.3 * np.sin(2 * np.pi * (50 + sample_rate / 5 * time) * time),
            "off zero": 0.2 + generator.normal(0, 0.01, len(time)),
            "click": click,
        }.items()
    }


def alone(model: LogMel, waveform: NDArray[np.float32] | Tensor) -> Tensor:
    """Features `(T, F)` of one waveform."""
    features, lengths = model(torch.as_tensor(waveform)[None], torch.tensor([len(waveform)]))
    assert lengths.tolist() == [features.shape[1]]
    return features[0]


def pad(waveforms: list[Tensor], value: float, extra: int = 0) -> tuple[Tensor, Tensor]:
    """A batch `(B, N)` and the lengths of its rows; `value` fills the padding."""
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    batch = torch.full((len(waveforms), int(lengths.max()) + extra), value)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = waveform
    return batch, lengths


def librosa_log_mel(waveform: NDArray[np.float32], model: LogMel, kind: str) -> NDArray:
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=model.sample_rate,
        n_fft=model.n_fft,
        win_length=model.win_length,
        hop_length=model.hop_length,
        center=True,
        pad_mode="constant",
        n_mels=model.n_mels,
        fmin=20.0,
        fmax=model.sample_rate / 2,
        htk=kind == "htk",
        norm="slaney" if kind == "slaney" else None,
    )
    return np.log(np.maximum(power, model.log_floor)).T


def measured(setting: str, normalizer: str, n_mels: int = 80) -> LogMel:
    """A LogMel that is ready for use, its stored statistics measured on noise."""
    model = LogMel(**SETTINGS[setting], n_mels=n_mels, normalizer=normalizer)
    if normalizer == "stored":
        waveforms = torch.from_numpy(signals(16_000)["noise"])[None]
        model.normalizer.measure([model.log_mel(waveforms, torch.tensor([waveforms.shape[1]]))])
    return model


# Values


@pytest.mark.parametrize("kind", ["slaney", "htk"])
@pytest.mark.parametrize(
    ("sample_rate", "n_mels", "sizes"),
    [
        (16_000, 80, (512, 400, 160)),
        (8_000, 40, (256, 200, 80)),
        (22_050, 80, (1_024, 551, 220)),  # a window of an odd length
    ],
)
def test_equals_librosa(kind, sample_rate, n_mels, sizes):
    model = LogMel(sample_rate, n_mels, mel_scale=kind, normalizer="none")
    assert (model.n_fft, model.win_length, model.hop_length) == sizes
    for name, waveform in signals(sample_rate).items():
        expected = librosa_log_mel(waveform, model, kind)
        np.testing.assert_allclose(alone(model, waveform), expected, atol=1e-4, err_msg=name)


def test_equals_librosa_with_another_band_and_transform():
    model = LogMel(n_mels=40, n_fft=1_024, f_min=20.0, normalizer="none")
    for name, waveform in signals(16_000).items():
        expected = librosa_log_mel(waveform, model, "slaney")
        np.testing.assert_allclose(alone(model, waveform), expected, atol=1e-4, err_msg=name)


def fbank_script() -> ModuleType:
    """The script that made the golden arrays."""
    spec = importlib.util.spec_from_file_location("make", GOLDEN / "make_kaldi_fbank.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_equals_kaldi_golden():
    model = LogMel(**KALDI, normalizer="none")
    with np.load(GOLDEN / "kaldi_fbank.npz") as golden:
        names = [name for name in golden if f"{name}_fbank" in golden]
        assert len(names) == 4
        for name in names:
            features = alone(model, golden[name].astype(np.float32) / 32_768)
            expected = golden[f"{name}_fbank"]
            np.testing.assert_allclose(features, expected, atol=1e-4, err_msg=name)


def test_golden_is_what_its_script_makes():
    made = fbank_script().make()
    with np.load(GOLDEN / "kaldi_fbank.npz") as golden:
        assert set(golden) == set(made)
        for name, array in made.items():
            np.testing.assert_allclose(golden[name], array, atol=1e-4, err_msg=name)


@pytest.fixture
def float64_by_default():
    """torchaudio's Kaldi features in the precision of their waveform, filters included."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("sample_rate", "n_mels"), [(16_000, 80), (8_000, 40)])
def test_equals_torchaudio_kaldi(sample_rate, n_mels, float64_by_default):
    kaldi = import_torchaudio().compliance.kaldi
    model = LogMel(sample_rate, n_mels, **KALDI, normalizer="none")
    for name, waveform in signals(sample_rate).items():
        expected = kaldi.fbank(
            torch.from_numpy(waveform).double()[None] * 32_768,
            sample_frequency=sample_rate,
            num_mel_bins=n_mels,
            dither=0.0,
            snip_edges=True,
        )
        np.testing.assert_allclose(alone(model, waveform), expected, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("pattern", RECORDINGS)
def test_real_speech_equals_librosa_and_kaldi(pattern, speech_data):
    paths = sorted(speech_data.glob(pattern))[:4]
    if not paths:
        pytest.skip(f"no recordings {pattern} in {speech_data}")
    slaney, htk = (LogMel(mel_scale=kind, normalizer="none") for kind in ("slaney", "htk"))
    kaldi, fbank = LogMel(**KALDI, normalizer="none"), fbank_script().fbank
    for path in paths:
        waveform = load_audio(path, 16_000, duration=3.0)
        for kind, model in (("slaney", slaney), ("htk", htk)):
            expected = librosa_log_mel(waveform, model, kind)
            np.testing.assert_allclose(alone(model, waveform), expected, atol=1e-4)
        expected = fbank(waveform.astype(np.float64) * 32_768)
        np.testing.assert_allclose(alone(kaldi, waveform), expected, atol=1e-4)


@pytest.mark.cuda
@each_setting
def test_gpu_equals_cpu(setting):
    model = LogMel(**SETTINGS[setting])
    batch, num_samples = pad([torch.from_numpy(s) for s in signals(16_000).values()], 0.0)
    expected, lengths = model(batch, num_samples)
    features, gpu_lengths = model.cuda()(batch.cuda(), num_samples.cuda())
    # Bins far from the pure tone hold what the FFT rounds; on an H200 they differ by 4e-4.
    torch.testing.assert_close(features.cpu(), expected, atol=1e-3, rtol=0)
    assert gpu_lengths.tolist() == lengths.tolist()


# Frames


@each_setting
@pytest.mark.parametrize(("sample_rate", "n_mels"), [(16_000, 40), (8_000, 20), (22_050, 40)])
def test_frame_count_by_counting(setting, sample_rate, n_mels):
    model = LogMel(sample_rate, n_mels, **SETTINGS[setting], normalizer="none")
    num_samples = torch.arange(2_001)
    starts = np.arange(0, 2_001, model.hop_length)
    if model.center:  # a frame on every multiple of the hop from 0 to the end
        expected = [int((starts <= n).sum()) for n in range(2_001)]
    else:  # a frame wherever a whole window fits
        expected = [int((starts + model.win_length <= n).sum()) for n in range(2_001)]
    assert model.frame_count(num_samples).tolist() == expected
    assert model.frame_count(num_samples.view(3, 667)).shape == (3, 667)


@each_setting
def test_as_many_frames_as_counted(setting):
    model = LogMel(n_mels=4, **SETTINGS[setting], normalizer="none")
    waveform = torch.from_numpy(signals(16_000)["noise"])
    for num_samples in range(0, 2_001, 7):  # 7 and the hop share no factor: every remainder
        length = torch.tensor([num_samples])
        features, lengths = model(waveform[None, :num_samples], length)
        assert features.shape == (1, int(model.frame_count(length)), 4)
        assert lengths.tolist() == [features.shape[1]]


def test_frame_shift_in_whole_samples():
    assert LogMel(frame_shift_ms=12.5).frame_shift_s == 0.0125
    assert LogMel(22_050, frame_shift_ms=10.01).frame_shift_s == 221 / 22_050  # of 220.7


def test_result_is_float32_with_integer_lengths_and_no_gradient():
    model = measured("librosa", "utterance")
    assert not list(model.parameters())
    features, lengths = model(torch.zeros(2, 4_000), torch.tensor([4_000, 10]))
    assert (features.dtype, features.shape) == (torch.float32, (2, 26, 80))
    assert (lengths.dtype, lengths.tolist()) == (torch.int64, [26, 1])
    assert not features.requires_grad


# Batches


@each_setting
@pytest.mark.parametrize("normalizer", ["none", "utterance", "stored"])
@pytest.mark.parametrize("padding", [0.0, 0.7, float("nan"), float("inf")])
def test_batch_equals_alone(setting, normalizer, padding):
    model = measured(setting, normalizer)
    noise = torch.from_numpy(signals(16_000)["noise"])
    waveforms = [noise[:length] for length in (16_000, 0, 1, 399, 400, 401, 5_000, 559, 560)]
    batch, num_samples = pad(waveforms, padding, extra=777)
    features, lengths = model(batch, num_samples)
    assert features.shape[1] == lengths.max()
    # Two frames may differ little, and their normaliser divides the rounding by that.
    atol = 2e-4 if normalizer == "utterance" else 1e-5
    for row, length, waveform in zip(features, lengths, waveforms, strict=True):
        torch.testing.assert_close(row[:length], alone(model, waveform), atol=atol, rtol=0)
        assert not row[length:].any()


def test_more_samples_than_the_batch_is_wide():
    with pytest.raises(AssertionError, match="beyond"):
        LogMel()(torch.zeros(1, 1_000), torch.tensor([2_000]))


# Extremes


@each_setting
@pytest.mark.parametrize("normalizer", ["none", "utterance", "stored"])
@pytest.mark.parametrize("amplitude", [0.0, 1e-30, 1.0, 2.0**31])
def test_always_finite(setting, normalizer, amplitude):
    model = measured(setting, normalizer)
    num_samples = torch.arange(513)
    waveforms = amplitude * torch.randn(513, 512, generator=torch.Generator().manual_seed(0))
    features, _ = model(waveforms, num_samples)
    assert features.isfinite().all()


@pytest.mark.parametrize(("setting", "floor"), [("librosa", 1e-10), ("kaldi", 2.0**-23)])
def test_silence_is_the_floor_and_normalised_zero(setting, floor):
    features = alone(measured(setting, "none"), torch.zeros(4_000))
    np.testing.assert_allclose(features, np.log(floor), rtol=1e-6)
    normalized = alone(measured(setting, "utterance"), torch.zeros(4_000))
    np.testing.assert_allclose(normalized, 0.0, atol=1e-3)


# Settings


def test_settings_alone_decide_so_only_statistics_are_saved():
    assert not LogMel(normalizer="utterance").state_dict()
    names = ["normalizer.mean", "normalizer.std", "normalizer.is_measured"]
    assert list(LogMel(normalizer="stored").state_dict()) == names


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frame_shift_ms": 30.0}, "frame_shift_ms 30, frame_length_ms 25, n_fft 512: expected"),
        ({"frame_shift_ms": 0.0}, "frame_shift_ms 0"),
        ({"frame_length_ms": 0.0}, "frame_length_ms 0"),
        ({"n_fft": 256}, r"n_fft 256: expected .* length <= n_fft \(400 samples or more\)"),
        ({"n_fft": 513}, "n_fft 513, sample_rate 16000 Hz: expected even numbers"),
        ({"f_max": 9_000.0}, "mel band 20 to 9000 Hz, expected .* <= 8000 Hz"),
        ({"f_min": 4_000.0, "f_max": 4_000.0}, "mel band 4000 to 4000 Hz"),
        ({"f_min": -1.0}, "mel band -1 to 8000 Hz"),
        ({"f_min": float("nan")}, "mel band nan"),
        ({"n_mels": 0}, "n_mels 0, expected at least 1"),
        ({"mel_scale": "bark"}, "mel scale 'bark', expected 'slaney', 'htk' or 'kaldi'"),
        ({"window": "hamming"}, "window 'hamming', expected 'hann' or 'povey'"),
        ({"normalizer": "batch"}, "normalizer 'batch', expected 'utterance', 'stored' or 'none'"),
        ({"log_floor": 0.0}, "log_floor 0, expected more than 0"),
        ({"log_floor": float("nan")}, "log_floor nan"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        LogMel(**settings)
    assert "\n" not in str(caught.value)


def test_every_frame_sees_only_its_own_window():
    model = LogMel(n_mels=4, normalizer="none")
    waveform = torch.from_numpy(signals(16_000)["noise"])[:4_000]
    before = alone(model, waveform)
    for position in (0, 1_999, 2_000, 3_999):
        changed = waveform.clone()
        changed[position] += 0.5
        moved = (alone(model, changed) != before).any(dim=1).nonzero().flatten().tolist()
        # hann's first weight is 0, so a window reaches from t * 160 - 199 to t * 160 + 199.
        assert moved == [t for t in range(26) if abs(position - t * 160) < 200]


def test_signals_are_different_kinds():
    for one, other in itertools.combinations(signals(16_000).values(), 2):
        assert not np.allclose(one, other, atol=1e-3)
