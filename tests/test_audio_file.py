"""Which library reads what: formats, joined files and headers that lie, each read to its end."""

from __future__ import annotations

import io
import os
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asr.audio import find_audio, load_audio, probe
from tests.audio_files import (
    RATE,
    encode,
    error_of,
    noise,
    riff,
    sine,
    with_data_size,
    with_flac_length,
)

# What FFmpeg writes: container, codec, and whether the container lists its samples.
MEDIA = {
    "m4a": ("mp4", "aac", True),
    "mov": ("mov", "aac", True),
    "3gp": ("3gp", "aac", True),
    "mkv": ("matroska", "aac", False),
    "webm": ("webm", "libopus", False),
    "aac": ("adts", "aac", False),
    "wma": ("asf", "wmav2", False),
    "mp2": ("mp2", "mp2", False),
    "wav of ADPCM": ("wav", "adpcm_ms", False),
    "avi": ("avi", "libmp3lame", False),
}


def encode_media(samples: NDArray, container: str, codec: str, rate: int = RATE) -> bytes:
    """The bytes of a file that FFmpeg writes, of samples `(num_samples,)` float32."""
    target = io.BytesIO()
    # No random numbers or dates in the file: the same in every process.
    exact = {"fflags": "+bitexact"}
    with av.open(target, "w", format=container, options=exact) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 48_000
        resampler = av.AudioResampler(stream.codec_context.format or "fltp", "mono", rate)
        frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
        frame.sample_rate = rate
        for each in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(each))
        output.mux(stream.encode(None))
    return target.getvalue()


def likeness(found: NDArray, expected: NDArray, slack: int = 2_400) -> float:
    """The highest correlation over shifts of up to `slack` samples: codecs delay."""
    size = len(expected) - 2 * slack
    middle = expected[slack : slack + size]
    return max(
        float(np.corrcoef(found[shift : shift + size], middle)[0, 1])
        for shift in range(min(2 * slack, len(found) - size))
    )


@pytest.mark.parametrize("name", MEDIA)
def test_what_phones_browsers_and_films_hold_is_read(name: str, tmp_path: Path) -> None:
    seconds = np.arange(2 * RATE) / RATE
    samples = (0.5 * np.sin(2 * np.pi * (200 + 400 * seconds) * seconds)).astype(np.float32)
    container, codec, has_list = MEDIA[name]
    content = encode_media(samples, container, codec)
    path = tmp_path / "clip"
    path.write_bytes(content)
    whole = load_audio(path, RATE)
    assert abs(len(whole) - len(samples)) <= 0.15 * RATE  # delay and padding of the codec
    assert likeness(whole, samples) > 0.95
    np.testing.assert_array_equal(load_audio(content, RATE), whole)
    info = probe(path)
    assert info.duration == pytest.approx(len(whole) / RATE, abs=1 / RATE)
    if has_list:
        assert info.num_samples == len(whole)
    rate = info.sample_rate
    whole = load_audio(path, rate)
    for start in (rate // 20, 3 * rate // 2):
        part = load_audio(path, rate, offset=start / rate, duration=0.2)
        np.testing.assert_allclose(part, whole[start : start + rate // 5], atol=2e-3)


def test_a_film_gives_its_sound_and_a_picture_alone_is_no_audio() -> None:
    def film(*, has_sound: bool) -> bytes:
        target = io.BytesIO()
        with av.open(target, "w", format="mp4") as output:
            video = output.add_stream("mpeg4", rate=10)
            video.width = video.height = 32
            video.pix_fmt = "yuv420p"
            sound = output.add_stream("aac", rate=RATE, layout="mono") if has_sound else None
            for _ in range(10):
                picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
                output.mux(video.encode(picture))
            output.mux(video.encode(None))
            if sound is not None:
                frame = av.AudioFrame.from_ndarray(sine(440, 1.0)[None], "fltp", "mono")
                frame.sample_rate = RATE
                output.mux(sound.encode(frame))
                output.mux(sound.encode(None))
        return target.getvalue()

    assert len(load_audio(film(has_sound=True), RATE)) == pytest.approx(RATE, abs=2_048)
    assert "cannot be read as audio" in error_of(lambda: load_audio(film(has_sound=False), RATE))


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        ("WAV", "GSM610"), ("AIFF", "GSM610"), ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"),
        ("AU", "G721_32"), ("WAV", "G721_32"), ("AU", "G723_24"), ("WAV", "NMS_ADPCM_32"),
    ],
)  # fmt: skip
def test_codecs_in_which_nobody_can_seek(format: str, subtype: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, sine(440, 2.0, 8_000), 8_000, format=format, subtype=subtype)
    whole = load_audio(file.getvalue(), 8_000)
    assert abs(len(whole) - 16_000) <= 800
    assert likeness(whole, sine(440, 2.0, 8_000), 400) > 0.9
    part = load_audio(file.getvalue(), 8_000, offset=1.5, duration=0.2)
    np.testing.assert_allclose(part, whole[12_000:13_600], atol=1e-4)


# Lengths that are unknown or wrong


@pytest.mark.parametrize("behind", [b"", b"LIST\4\0\0\0INFO"])
def test_a_wav_whose_recorder_died(behind: bytes) -> None:
    samples = noise(RATE)
    file = with_data_size(encode(samples), 0)
    place = file.index(b"data")
    file = file[:place] + behind + file[place:]
    np.testing.assert_allclose(load_audio(file, RATE), samples, atol=1e-4)
    assert probe(file).num_samples == RATE


@pytest.mark.parametrize("channels", [2, 8, 9, 16, 64])
def test_many_channels_through_ffmpeg(channels: int) -> None:
    samples = noise(RATE // 4, channels)
    file = with_data_size(encode(samples), 0)  # which libsndfile does not count
    assert probe(file).num_channels == channels
    for channel in (0, channels - 1):
        one = load_audio(file, RATE, channel=channel)
        np.testing.assert_allclose(one, samples[:, channel], atol=1e-4)
    np.testing.assert_allclose(load_audio(file, RATE), samples.mean(axis=1), atol=1e-4)


def test_a_flac_from_a_pipe() -> None:
    file = with_flac_length(encode(noise(RATE), name="flac"), 0)
    whole = load_audio(encode(noise(RATE), name="flac"), RATE)
    np.testing.assert_array_equal(load_audio(file, RATE), whole)
    assert probe(file).num_samples == RATE
    assert len(load_audio(file, RATE, offset=0.25, duration=0.5)) == RATE // 2
    line = error_of(lambda: load_audio(file, RATE, offset=1.5))
    assert line.endswith("offset 1.5 s, expected less than its length")
    line = error_of(lambda: load_audio(file, RATE, max_duration=0.5))
    assert line.endswith("more than 0.5 s of audio, expected at most that at once")


def without_count(mp3: bytes) -> bytes:
    """An mp3 without its first frame, which counts the others: as a pipe leaves it."""
    second = mp3.index(mp3[:2], 4)
    return mp3[second:]


def test_an_mp3_of_variable_rate_from_a_pipe_is_read_to_its_end() -> None:
    samples = np.concatenate([np.zeros(3 * RATE, np.float32), noise(5 * RATE)])
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="MP3", compression_level=0.5)
    piped = without_count(file.getvalue())
    assert b"Xing" not in piped
    assert b"Info" not in piped
    loaded = load_audio(piped, RATE)
    assert abs(len(loaded) - len(samples)) < 0.2 * RATE
    assert probe(piped).num_samples == len(loaded)
    part = load_audio(piped, RATE, offset=7.0, duration=0.5)
    np.testing.assert_array_equal(part, loaded[7 * RATE :][: len(part)])


@pytest.mark.parametrize("tags", [b"", b"TAG" + bytes(125)])
def test_joined_mp3s_are_read_to_the_end_of_the_last(tags: bytes) -> None:
    file = encode(sine(440, 3.0), name="mp3") + tags
    loaded = load_audio(file + file, RATE)
    assert abs(len(loaded) - 6 * RATE) < 0.2 * RATE
    assert np.std(loaded[4 * RATE : 5 * RATE]) == pytest.approx(
        np.std(loaded[RATE : 2 * RATE]), 0.05
    )


def test_an_mp3_with_a_picture_in_front() -> None:
    file = encode(sine(440, 1.0), name="mp3")
    size = 5_000
    tag = b"ID3\3\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127])
    loaded = load_audio(tag + bytes(size) + file, RATE)
    np.testing.assert_array_equal(loaded, load_audio(file, RATE))


# Channels


def test_a_channel_alone_and_all_of_them() -> None:
    both = np.stack([sine(440, 0.5), 0.5 * sine(1_300, 0.5)], axis=1)
    file = encode(both, name="wav_float")
    for channel in (0, 1):
        np.testing.assert_array_equal(load_audio(file, RATE, channel=channel), both[:, channel])
    np.testing.assert_allclose(load_audio(file, RATE), both.mean(axis=1), atol=1e-7)
    line = error_of(lambda: load_audio(file, RATE, channel=2))
    assert line.endswith("channel 2, expected 0 to 1")
    np.testing.assert_array_equal(
        load_audio(encode(both[:, 0], name="wav_float"), RATE, channel=0), both[:, 0]
    )


def test_channels_of_opposite_phase_do_not_become_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wave = sine(440, 1.0)
    wave[: RATE // 2] = 0  # nothing is settled by silence
    file = encode(np.stack([-0.9 * wave, wave], axis=1), name="wav_float")
    np.testing.assert_array_equal(load_audio(file, RATE), wave)
    assert "its channels cancel each other, so channel 1 alone is read" in caplog.text
    caplog.clear()
    load_audio(encode(np.stack([wave, wave], axis=1)), RATE)
    load_audio(encode(np.zeros((RATE, 2), np.float32)), RATE)
    assert not caplog.text


# Names and folders


@pytest.mark.parametrize("name", [b"\xfcber.wav", "ü.opus".encode(), b"a b&(c)=~.m4a"])
def test_any_name_of_a_file(name: bytes, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(encode(noise(RATE), name="opus" if name.endswith(b"opus") else "wav"))
    assert len(load_audio(path, RATE)) == RATE
    assert find_audio(tmp_path) == ([path], [])


def test_a_name_is_never_an_address_or_a_list_of_other_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(encode(noise(RATE)))
    lists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{secret}'\n",
        "concat:secret.wav": f"concat:{secret}",
        "film.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    }
    for name, content in lists.items():
        path = tmp_path / name
        path.write_text(content)
        assert "cannot be read as audio" in error_of(lambda path=path: load_audio(path, RATE))
    with pytest.raises(FileNotFoundError):
        load_audio("http://127.0.0.1/a.wav", RATE)


def test_bare_samples_say_how_they_become_a_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.PCM"
    path.write_bytes(bytes(1_000))
    assert "ffmpeg -f s16le -ar 16000 -ac 1 -i FILE" in error_of(lambda: load_audio(path, RATE))


def test_folders_are_searched_through_links_but_not_for_hidden_files(tmp_path: Path) -> None:
    content = riff(bytes(200))
    outside = tmp_path / "outside"
    folder = tmp_path / "folder"
    for path in ("a.wav", "._a.wav", ".trash/b.wav", "deep/c.m4a", "notes.txt"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    outside.mkdir()
    (outside / "d.wav").write_bytes(content)
    (folder / "link").symlink_to(outside)
    (folder / "deep" / "up").symlink_to(folder)
    audio, others = find_audio(folder)
    names = [path.relative_to(folder).as_posix() for path in audio]
    assert names == ["a.wav", "deep/c.m4a", "link/d.wav"]
    assert [path.name for path in others] == ["notes.txt"]
