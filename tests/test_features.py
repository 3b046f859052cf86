"""Log-mel features: librosa's and Kaldi's values, of an utterance's own samples alone."""

from __future__ import annotations

import importlib.util
import itertools
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType

import librosa
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.audio import load_audio
from asr.features import (
    NORMALIZERS,
    STD_FLOOR,
    ActiveNormalizer,
    LogMel,
    NoNormalizer,
    PcenNormalizer,
    StoredNormalizer,
    UtteranceNormalizer,
    import_torchaudio,
    make_normalizer,
    mel_filterbank,
)

GOLDEN = Path(__file__).parent / "golden"

# As LogMel's docstring gives them.
KALDI = {
    "center": False,
    "mel_scale": "kaldi",
    "window": "povey",
    "preemphasis": 0.97,
    "remove_dc_offset": True,
    "remove_mean": False,
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
    if normalizer in ("stored", "pcen"):
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
        (11_025, 40, (512, 276, 110)),  # an odd rate
    ],
)
def test_filters_equal_librosa(kind, sample_rate, n_mels, sizes):
    model = LogMel(sample_rate, n_mels, mel_scale=kind, normalizer="none", remove_mean=False)
    assert (model.n_fft, model.win_length, model.hop_length) == sizes
    for name, waveform in signals(sample_rate).items():
        expected = librosa_log_mel(waveform, model, kind)
        np.testing.assert_allclose(alone(model, waveform), expected, atol=1e-4, err_msg=name)


def test_equals_librosa_with_another_band_and_transform():
    model = LogMel(n_mels=40, n_fft=1_024, f_min=20.0, normalizer="none", remove_mean=False)
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
    slaney, htk = (
        LogMel(mel_scale=kind, normalizer="none", remove_mean=False) for kind in ("slaney", "htk")
    )
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
@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("padding", [0.0, 0.7, float("nan"), float("inf")])
def test_batch_equals_alone(setting, normalizer, padding):
    model = measured(setting, normalizer)
    noise = torch.from_numpy(signals(16_000)["noise"])
    waveforms = [noise[:length] for length in (16_000, 0, 1, 399, 400, 401, 5_000, 559, 560)]
    batch, num_samples = pad(waveforms, padding, extra=777)
    features, lengths = model(batch, num_samples)
    assert features.shape[1] == lengths.max()
    # Two frames may differ little, and their normaliser divides the rounding by that.
    atol = 2e-4 if normalizer in ("utterance", "active") else 1e-5
    for row, length, waveform in zip(features, lengths, waveforms, strict=True):
        torch.testing.assert_close(row[:length], alone(model, waveform), atol=atol, rtol=0)
        assert not row[length:].any()


def test_more_samples_than_the_batch_is_wide():
    with pytest.raises(AssertionError, match="beyond"):
        LogMel()(torch.zeros(1, 1_000), torch.tensor([2_000]))


# Extremes


@each_setting
@pytest.mark.parametrize("normalizer", NORMALIZERS)
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


# Pauses


def words(pause_s: float, noise: float = 0.0) -> tuple[Tensor, list[slice]]:
    """Three stretches of loud noise between pauses, and the frames inside each."""
    draws = torch.Generator().manual_seed(0)
    sounds = [0.1 * torch.randn(8_000, generator=draws) for _ in range(3)]
    pause = round(pause_s * 16_000)
    parts, spans, start = [], [], 0
    for sound in sounds:
        parts += [noise * torch.randn(pause, generator=draws), sound]
        start += pause
        spans.append(slice(start // 160 + 3, (start + 8_000) // 160 - 2))
        start += 8_000
    return torch.cat([*parts, noise * torch.randn(pause, generator=draws)]), spans


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_pauses_move_nothing_where_the_voice_is_the_measure(noise):
    model, others = LogMel(normalizer="active"), LogMel(normalizer="utterance")
    plain, plain_spans = words(0.0)
    waveform, spans = words(2.0, noise)
    for normalised, largest in ((model, 0.05), (others, None)):
        expected, found = alone(normalised, plain), alone(normalised, waveform)
        pairs = zip(spans, plain_spans, strict=True)
        moved = max(float((found[span] - expected[own]).abs().mean()) for span, own in pairs)
        assert moved < largest if largest is not None else moved > 0.3
    assert alone(model, waveform).min() == -3.0
    # One silence looks like another.
    assert (alone(model, waveform)[: spans[0].start - 6] == -3.0).float().mean() > 0.99


@pytest.mark.parametrize("normalizer", ["active", "pcen"])
@pytest.mark.parametrize("decibel", [-30.0, 20.0])
def test_gain_changes_little(normalizer, decibel):
    model = measured("librosa", normalizer)
    waveform, spans = words(0.5)
    plain, louder = alone(model, waveform), alone(model, waveform * 10 ** (decibel / 20))
    limit = 0.35 if normalizer == "pcen" else 1e-3
    assert max(float((plain[span] - louder[span]).abs().mean()) for span in spans) < limit


def test_pcen_equals_librosa():
    model = PcenNormalizer(20)
    draws = np.random.default_rng(0)
    energy = np.exp(draws.normal(-5, 3, (20, 300)))
    smoothing = 0.025
    expected = librosa.pcen(
        energy, gain=0.98, bias=2.0, power=0.5, b=smoothing, eps=1e-9, axis=-1,
        zi=(1 - smoothing) * energy[:, :1],
    )  # fmt: skip
    found, last = model.compress(torch.from_numpy(np.log(energy).T[None]))
    np.testing.assert_allclose(found[0].T, expected, rtol=1e-9)
    more, _ = model.compress(torch.from_numpy(np.log(energy[:, :90]).T[None]), last)
    joined = librosa.pcen(
        np.hstack([energy, energy[:, :90]]), gain=0.98, bias=2.0, power=0.5, b=smoothing, eps=1e-9,
        axis=-1, zi=(1 - smoothing) * energy[:, :1],
    )  # fmt: skip
    np.testing.assert_allclose(more[0].T, joined[:, 300:], rtol=1e-9)


def test_pcen_sees_no_later_frame():
    model = PcenNormalizer(8)
    features = torch.randn(1, 200, 8, generator=torch.Generator().manual_seed(0))
    changed = features.clone()
    changed[:, 100:] += 3
    (found, _), (after, _) = model.compress(features), model.compress(changed)
    assert torch.equal(found[:, :100], after[:, :100])
    assert not torch.equal(found[:, 100:], after[:, 100:])


@pytest.mark.parametrize("normalizer", ["pcen", "stored", "none"])
@pytest.mark.parametrize("setting", [{}, {"center": False}, {"preemphasis": 0.97}], ids=str)
def test_a_stream_has_the_features_of_the_whole(normalizer, setting):
    model = LogMel(8000, 12, remove_mean=False, normalizer=normalizer, **setting)
    if normalizer != "none":
        model.normalizer.mean.fill_(0.3)
        model.normalizer.is_measured.fill_(True)
    for num_samples in (0, 50, 199, 200, 2000, 8123):
        draws = torch.Generator().manual_seed(num_samples)
        waveform = torch.randn(num_samples, generator=draws)
        expected, lengths = model(waveform[None], torch.tensor([num_samples]))
        before = 100 if model.center else 0
        padded = torch.nn.functional.pad(waveform, (before, 4000))
        parts, state, first, again = [], None, 0, 2
        for count in (1, 5, 30, 100):
            end = (first + count + again - 1) * 80 + 200
            features, state = model.step(padded[None, first * 80 : end], again, state)
            parts.append(features[0, :count])
            # What comes again is seen already.
            torch.testing.assert_close(
                features[0, count:][: max(lengths[0] - first - count, 0)],
                expected[0, first + count :][:again], rtol=1e-5, atol=1e-5,
            )  # fmt: skip
            first += count
        found = torch.cat(parts)[: lengths[0]]
        torch.testing.assert_close(found, expected[0, : len(found)], rtol=1e-5, atol=1e-5)
        assert len(found) == min(lengths[0], first)


@pytest.mark.parametrize("setting", [{}, {"normalizer": "active", "remove_mean": False}])
def test_what_needs_the_whole_has_no_stream(setting):
    with pytest.raises(ValueError, match="need the whole waveform, expected remove_mean=false"):
        LogMel(8000, 12, **setting).step(torch.zeros(1, 200), 0, None)


# Settings


def test_settings_alone_decide_so_only_statistics_are_saved():
    assert not LogMel(normalizer="utterance").state_dict()
    assert not LogMel(normalizer="active").state_dict()
    names = ["normalizer.mean", "normalizer.std", "normalizer.is_measured"]
    assert list(LogMel(normalizer="stored").state_dict()) == names
    assert list(LogMel(normalizer="pcen").state_dict()) == names


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frame_shift_ms": 30.0}, "frame_shift_ms 30, frame_length_ms 25, n_fft 512: expected"),
        ({"frame_shift_ms": 0.0}, "frame_shift_ms 0"),
        ({"frame_length_ms": 0.0}, "frame_length_ms 0"),
        ({"n_fft": 256}, r"n_fft 256: expected .* length <= n_fft \(400 samples or more\)"),
        ({"n_fft": 513, "mel_scale": "kaldi"}, "n_fft 513, expected an even number"),
        ({"f_max": 9_000.0}, "mel band 20 to 9000 Hz, expected .* <= 8000 Hz"),
        ({"f_min": 4_000.0, "f_max": 4_000.0}, "mel band 4000 to 4000 Hz"),
        ({"f_min": -1.0}, "mel band -1 to 8000 Hz"),
        ({"f_min": float("nan")}, "mel band nan"),
        ({"n_mels": 0}, "n_mels 0, expected at least 1"),
        ({"mel_scale": "bark"}, "mel scale 'bark', expected 'slaney', 'htk' or 'kaldi'"),
        ({"window": "hamming"}, "window 'hamming', expected 'hann' or 'povey'"),
        (
            {"normalizer": "batch"},
            "normalizer 'batch', expected 'active', 'utterance', 'pcen', .* or 'none'",
        ),
        ({"log_floor": 0.0}, "log_floor 0, expected more than 0"),
        ({"log_floor": float("nan")}, "log_floor nan"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        LogMel(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("normalizer", ["none", "utterance"])
@pytest.mark.parametrize("offset", [0.03, -0.2])
def test_an_offset_changes_nothing(normalizer, offset):
    model = LogMel(normalizer=normalizer)
    waveform = torch.from_numpy(signals(16_000)["noise"])
    plain = alone(model, waveform - waveform.mean())
    # To a step of the mean.
    assert (alone(model, waveform + offset) - plain).abs().mean() < 2e-4
    as_it_is = LogMel(normalizer=normalizer, remove_mean=False)
    assert (alone(as_it_is, waveform + offset) - plain).abs().mean() > 0.01


def test_every_frame_sees_only_its_own_window_where_the_mean_stays():
    model = LogMel(n_mels=4, normalizer="none", remove_mean=False)
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


@pytest.mark.parametrize("kind", ["slaney", "htk"])
def test_filters_of_odd_sizes_equal_librosa(kind):
    for n_fft, rate in ((512, 11_025), (511, 16_000), (513, 22_051)):
        bank = mel_filterbank(kind, 40, n_fft, rate, 20.0, 5_000.0)
        norm = "slaney" if kind == "slaney" else None
        expected = librosa.filters.mel(
            sr=rate, n_fft=n_fft, n_mels=40, fmin=20, fmax=5_000, htk=kind == "htk", norm=norm
        )
        np.testing.assert_allclose(bank, expected.T, atol=1e-6)


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
    assert isinstance(make_normalizer("active", N_MELS), ActiveNormalizer)
    assert isinstance(make_normalizer("utterance", N_MELS), UtteranceNormalizer)
    assert isinstance(make_normalizer("pcen", N_MELS), PcenNormalizer)
    assert isinstance(make_normalizer("stored", N_MELS), StoredNormalizer)
    assert isinstance(make_normalizer("none", N_MELS), NoNormalizer)
    with pytest.raises(ValueError, match="normalizer 'global', expected 'active', 'utterance', "):
        make_normalizer("global", N_MELS)
