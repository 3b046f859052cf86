"""Audio: every format read back, exact cuts, librosa's values, and one line for every bad file."""

from __future__ import annotations

import io
import os
import signal
from math import ceil, inf, nan

import librosa
import numpy as np
import pytest

import asr.audio_file
from asr.audio import (
    AudioInfo,
    count_channels,
    header_duration,
    load_audio,
    probe,
    stream_audio,
)
from tests.audio_files import (
    FORMATS,
    RATE,
    each_format,
    encode,
    error_of,
    floats,
    noise,
    ramp,
    riff,
    sine,
)


@each_format
def test_reads_back(name, tmp_path):
    waveform = sine(440, 0.5) + 0.5 * sine(1_300, 0.5)
    file = encode(waveform, name=name)
    path = tmp_path / "clip"  # no extension: the content decides
    path.write_bytes(file)
    loaded = load_audio(path, RATE)
    assert loaded.dtype == np.float32
    assert loaded.shape == waveform.shape
    assert np.std(loaded - waveform) <= FORMATS[name][1] * np.std(waveform)
    np.testing.assert_array_equal(load_audio(file, RATE), loaded)
    np.testing.assert_array_equal(load_audio(str(path), RATE), loaded)
    assert probe(path) == probe(file) == AudioInfo(RATE, len(waveform), 1)


def test_probe_tells_rate_length_and_channels():
    info = probe(encode(noise(441, 3), rate=44_100))
    assert info == AudioInfo(sample_rate=44_100, num_samples=441, num_channels=3)
    assert info.duration == 0.01


@pytest.mark.parametrize("channels", [1, 2, 6, asr.audio_file.MAX_CHANNELS])
def test_channels_are_averaged(channels):
    samples = noise(1_000, channels)
    loaded = load_audio(encode(samples, name="wav_float"), RATE)
    np.testing.assert_allclose(loaded, samples.astype(np.float64).mean(axis=1), atol=1e-6)


# Resampling


@pytest.mark.parametrize("rate", [1_000, 7_999, 8_000, 11_025, 22_050, 44_100, 48_000, 384_000])
@pytest.mark.parametrize("num_samples", [1, 2, 301, 5_000])
def test_resampled_length(rate, num_samples):
    resampled = load_audio(encode(noise(num_samples), rate=rate, name="wav_float"), RATE)
    assert resampled.shape == (ceil(num_samples * RATE / rate),)
    assert np.isfinite(resampled).all()


def test_resampling_in_blocks_is_that_of_the_whole(monkeypatch):
    file = encode(noise(20_000, 2), rate=44_100, name="wav_float")
    whole = load_audio(file, RATE)
    monkeypatch.setattr(asr.audio_file, "BLOCK_VALUES", 2 * 777)
    np.testing.assert_array_equal(load_audio(file, RATE), whole)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_sine_keeps_frequency_and_amplitude(rate):
    loaded = load_audio(encode(sine(1_000, 1.0, rate), rate=rate), RATE)
    np.testing.assert_allclose(loaded[500:-500], sine(1_000, 1.0)[500:-500], atol=1e-3)


def test_what_the_new_rate_cannot_carry_is_filtered_out():
    loaded = load_audio(encode(sine(10_000, 0.5, 44_100), rate=44_100), RATE)
    assert np.abs(loaded[500:-500]).max() < 1e-3


@pytest.mark.filterwarnings("ignore:.*removal in Python 3.13:DeprecationWarning")  # audioread's
@pytest.mark.parametrize(("rate", "channels"), [(22_050, 1), (44_100, 2), (8_000, 2), (RATE, 2)])
def test_equals_librosa(rate, channels):
    file = encode(noise(rate, channels), rate=rate, name="wav_float")
    for offset, duration in [(0.0, None), (0.25, 0.5)]:
        expected, _ = librosa.load(io.BytesIO(file), sr=RATE, offset=offset, duration=duration)
        actual = load_audio(file, RATE, offset=offset, duration=duration)
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, atol=1e-6)


# Offset and duration


@pytest.mark.parametrize("name", ["wav", "flac"])
@pytest.mark.parametrize(
    ("offset", "duration", "first", "count"),
    [
        (0.0, None, 0, 30_000),
        (0.5, 0.25, 8_000, 4_000),
        (1.5, 1.0 / RATE, 24_000, 1),
        (12_345 / RATE, 777 / RATE, 12_345, 777),
        (0.10003, 0.10003, 1_600, 1_600),  # 1600.48 samples, rounded
        (1.5, None, 24_000, 6_000),
        (1.5, 99.0, 24_000, 6_000),  # a longer one ends with the file
        (1.5, inf, 24_000, 6_000),
        (29_999 / RATE, None, 29_999, 1),
    ],
)
def test_cut_is_exact_to_the_sample(name, offset, duration, first, count):
    loaded = load_audio(encode(ramp(30_000), name=name), RATE, offset=offset, duration=duration)
    np.testing.assert_array_equal(loaded * 32_768, ramp(30_000)[first : first + count])


@each_format
@pytest.mark.parametrize("start", [100, 5_000, 31_000])
def test_cut_equals_the_same_samples_of_the_whole(name, start):
    # A pure sine makes the mp3 encoder lean on many earlier frames, which a bare seek loses.
    file = encode(sine(440, 2.0), name=name)
    whole = load_audio(file, RATE)
    part = load_audio(file, RATE, offset=start / RATE, duration=800 / RATE)
    np.testing.assert_allclose(part, whole[start : start + 800], atol=1e-4)


@each_format
def test_blocks_join_without_a_seam(name, monkeypatch):
    file = encode(sine(440, 2.0), name=name)
    whole = load_audio(file, RATE)
    monkeypatch.setattr(asr.audio_file, "BLOCK_VALUES", 5_000)
    np.testing.assert_allclose(load_audio(file, RATE), whole, atol=1e-4)


@pytest.mark.parametrize(
    "pattern",
    ["librispeech_dev_clean_part/audio/84/*.mp3", "speechocean762/audio/**/*1.opus", "fsdd/**/*"],
)
def test_cut_of_real_speech(pattern, speech_data):
    paths = sorted(path for path in speech_data.glob(pattern) if path.is_file())[:3]
    if not paths:
        pytest.skip(f"no recordings {pattern} in {speech_data}")
    for path in paths:
        info = probe(path)
        whole = load_audio(path, info.sample_rate)
        assert len(whole) == info.num_samples
        start = info.num_samples // 2
        part = load_audio(path, info.sample_rate, offset=start / info.sample_rate, duration=0.1)
        np.testing.assert_allclose(part, whole[start : start + len(part)], atol=1e-4)


@pytest.mark.parametrize("offset", [-0.001, 2.0, 2.1, 1e300, inf, nan])
@pytest.mark.parametrize("duration", [0.0, -1.0, 1e-9, nan])
def test_cut_outside_of_the_file(offset, duration):
    file = encode(sine(440, 2.0))
    line = error_of(lambda: load_audio(file, RATE, offset=offset))
    assert line.endswith(f"offset {offset:g} s, expected 0 to less than 2 s")
    line = error_of(lambda: load_audio(file, RATE, duration=duration))
    assert line.endswith(f"duration {duration:g} s, expected at least one sample")


def test_too_long_is_refused_unless_a_short_part_is_asked_for():
    file = encode(sine(440, 2.0))
    line = error_of(lambda: load_audio(file, RATE, max_duration=1.5))
    assert line.endswith("2 s of audio, expected at most 1.5 s at once")
    assert len(load_audio(file, RATE, max_duration=1.5, duration=1.5)) == 1.5 * RATE
    assert len(load_audio(file, RATE, max_duration=1.5, offset=0.5)) == 1.5 * RATE
    assert len(load_audio(file, RATE, max_duration=2.0)) == 2 * RATE


@pytest.mark.parametrize("read", [probe, lambda path: load_audio(path, RATE)])
class TestNoFile:
    def test_missing(self, read, tmp_path):
        path = tmp_path / "none.wav"
        assert str(path) in error_of(lambda: read(path), FileNotFoundError)

    def test_folder(self, read, tmp_path):
        line = error_of(lambda: read(tmp_path), IsADirectoryError)
        assert line.endswith(f"is a folder, expected an audio file: '{tmp_path}'")

    def test_pipe_is_refused_without_waiting_for_a_writer(self, read, tmp_path):
        path = tmp_path / "pipe.wav"
        os.mkfifo(path)
        signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for a writer"))
        signal.alarm(30)
        assert error_of(lambda: read(path)) == f"{path}: not a regular file, expected an audio file"
        signal.alarm(0)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
    def test_forbidden(self, read, tmp_path):
        path = tmp_path / "secret.wav"
        path.write_bytes(encode(noise(100)))
        path.chmod(0)
        assert str(path) in error_of(lambda: read(path), PermissionError)


BAD_FILES = {
    "empty": (b"", "empty file, expected audio"),
    "text": (b"one two three\n" * 20, "cannot be read as audio (Format not recognised), expected"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(500), "cannot be read as audio (Format not recog"),
    "no samples": (riff(b""), "no audio samples, expected at least one"),
    "0 Hz": (riff(bytes(200), rate=0), "cannot be read as audio"),
    "1 Hz": (riff(bytes(200), rate=1), "sample rate 1 Hz, expected 1000 to 384000 Hz"),
    "10 MHz": (riff(bytes(200), rate=10_000_000), "sample rate 10000000 Hz, expected 1000 to"),
    "0 channels": (riff(bytes(200), channels=0), "0 channels, expected 1 to 64"),
    "65 channels": (riff(bytes(650), channels=65), "65 channels, expected 1 to 64"),
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("read", [probe, lambda source: load_audio(source, RATE)])
def test_bad_file(name, read, tmp_path):
    content, expected = BAD_FILES[name]
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    assert error_of(lambda: read(path)).startswith(f"{path}: {expected}")
    assert error_of(lambda: read(content)).startswith(f"<{len(content)} bytes of audio>: ")


BAD_SAMPLES = {
    "NaN": (floats(0.1, nan, 0.1), "NaN or Inf among the samples"),
    "Inf": (floats(0.1, inf, 0.1), "NaN or Inf among the samples"),
    "doubles": (riff(np.full(9, 1e300).tobytes(), kind=3, bits=64), "NaN or Inf among"),
    "overflow of the mean": (
        riff(np.full(8, 3e38, "<f4").tobytes(), channels=2, kind=3, bits=32),
        "NaN or Inf among the samples",
    ),
    "no audio scale": (floats(0.0, -1e30), "samples up to 1e+30, expected -1 to 1 or near it"),
}


@pytest.mark.parametrize("name", BAD_SAMPLES)
def test_bad_samples(name):
    content, expected = BAD_SAMPLES[name]
    assert expected in error_of(lambda: load_audio(content, RATE))


def test_floats_on_the_scale_of_integers_are_read():
    assert load_audio(floats(-32_768, 5), RATE).tolist() == [-32_768, 5]


def test_bare_samples_are_refused(tmp_path):
    path = tmp_path / "clip.raw"
    path.write_bytes(bytes(1_000))
    assert error_of(lambda: load_audio(path, RATE)).startswith(f"{path}: samples without a header")


# Streams


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "vorbis"])
@pytest.mark.parametrize("rate", [RATE, 8_000, 11_025])
def test_a_stream_is_the_whole_in_blocks(name, rate, monkeypatch):
    file = encode(noise(3 * RATE, 2), name=name)
    whole = load_audio(file, rate, channel=1)
    monkeypatch.setattr("asr.audio_file.BLOCK_VALUES", 5_000)
    monkeypatch.setattr("asr.audio.BLOCK_SAMPLES", 4_000)
    blocks = list(stream_audio(file, rate, channel=1))
    assert len(blocks) > 3
    assert all(len(block) >= 4_000 for block in blocks[:-1])
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-6)


def test_a_stream_is_bounded_by_its_own_length(monkeypatch):
    file = encode(noise(3 * RATE, 1))
    monkeypatch.setattr("asr.audio.MAX_DURATION_S", 1.0)
    assert sum(map(len, stream_audio(file, RATE))) == 3 * RATE
    monkeypatch.setattr("asr.audio.MAX_STREAMED_S", 2.0)
    line = error_of(lambda: list(stream_audio(file, RATE)))
    assert "3 s of audio, expected at most 2 s at once" in line


def test_what_a_header_tells():
    stereo = encode(noise(RATE // 2, 2))
    assert (count_channels(stereo), header_duration(stereo)) == (2, 0.5)
