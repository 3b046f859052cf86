"""Audio files cut short, and headers that lie: one line each, and no memory or time spent."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from asr.audio import load_audio, probe
from tests.audio_files import (
    RATE,
    each_format,
    encode,
    error_of,
    noise,
    with_data_size,
    with_flac_length,
    with_mp3_frames,
    with_serial_number,
)

# Files cut short and headers that lie (libmpg123 writes warnings of its own: capfd takes them)


@pytest.mark.usefixtures("capfd")
@pytest.mark.parametrize("share", [0.95, 0.6, 0.2])
@pytest.mark.parametrize("name", ["wav", "wav_float", "wav_24_bit", "wav_ulaw", "flac", "mp3"])
def test_cut_file_is_refused(name, share):
    file = encode(noise(4 * RATE), name=name)
    line = error_of(lambda: load_audio(file[: int(share * len(file))], RATE))
    assert "cut short" in line or "damaged" in line


def test_cut_wav_tells_what_is_there_and_gives_it_when_asked():
    samples = noise(4 * RATE)
    cut = encode(samples)[: 44 + 2 * RATE]
    line = error_of(lambda: load_audio(cut, RATE))
    assert line.endswith("cut short, 1 s of audio, expected 4 s")
    part = load_audio(cut, RATE, duration=0.9)
    np.testing.assert_allclose(part, samples[: len(part)], atol=1e-4)


OGG = pytest.mark.parametrize("name", ["opus", "vorbis"])


@OGG
@pytest.mark.parametrize("as_file", [False, True])
def test_cut_ogg_is_refused_whatever_its_length(name, as_file, tmp_path):
    file = encode(noise(4 * RATE), name=name)
    for length in range(len(file) // 4, len(file), 997):
        cut = file[:length]
        if as_file:
            cut = tmp_path / "cut.ogg"
            cut.write_bytes(file[:length])
        line = error_of(lambda cut=cut: load_audio(cut, RATE))
        if length > len(file) // 2:  # cut in its first page it has no samples at all
            assert "cut short, " in line
            assert line.endswith(" s of audio, expected an Ogg stream with its last page")


@OGG
def test_ogg_cut_between_two_pages_is_refused(name):
    file = encode(noise(4 * RATE), name=name)
    last = file.rindex(b"OggS")
    assert file[last + 5] & 4  # the flag of the last page
    for length in range(last, last + 4):
        assert "cut short" in error_of(lambda length=length: load_audio(file[:length], RATE))


@OGG
def test_cut_ogg_gives_what_is_there_when_asked(name):
    file = encode(noise(4 * RATE), name=name)
    part = load_audio(file[: int(0.7 * len(file))], RATE, duration=0.9)
    assert len(part) == 0.9 * RATE
    np.testing.assert_allclose(part, load_audio(file, RATE)[: len(part)], atol=1e-4)


@OGG
def test_joined_ogg_streams_are_read_to_the_end_of_the_last(name):
    file = encode(noise(RATE), name=name)
    whole, other = (with_serial_number(file, number) for number in (7, 1 << 31))
    alone = load_audio(whole, RATE)
    for joined, times in ((whole + other, 2), (whole + whole, 2), (whole + other + whole, 3)):
        assert probe(joined).num_samples == times * RATE
        np.testing.assert_array_equal(load_audio(joined, RATE), np.tile(alone, times))
    across = load_audio(whole + other, RATE, offset=0.9, duration=0.3)
    np.testing.assert_array_equal(across[1600:], alone[:3200])
    np.testing.assert_allclose(across[:1600], alone[-1600:], atol=1e-4)
    line = error_of(lambda: load_audio(whole + encode(noise(RATE), 8_000, name), RATE))
    assert "joined of streams of 8000 Hz x 1 and 16000 Hz x 1, expected one sample rate" in line
    for chain in (whole + other[:-9], whole[:-9] + other, whole + other[: other.rindex(b"OggS")]):
        line = error_of(lambda chain=chain: load_audio(chain, RATE))
        assert "cut short" in line


def test_ogg_whose_last_page_is_damaged_is_refused():
    file = bytearray(encode(noise(4 * RATE), name="vorbis"))
    file[-20] ^= 4
    assert "cut short" in error_of(lambda: load_audio(bytes(file), RATE))


@OGG
@pytest.mark.parametrize("rest", [bytes(128), b"TAG" + bytes(125), b"Oxygen"])
def test_ogg_with_something_behind_it_is_whole(name, rest):
    file = encode(noise(RATE), name=name)
    np.testing.assert_array_equal(load_audio(file + rest, RATE), load_audio(file, RATE))


@pytest.mark.usefixtures("capfd")
@each_format
def test_beginning_of_a_file_is_no_audio(name):
    file = encode(noise(RATE), name=name)
    line = error_of(lambda: load_audio(file[: min(40, len(file) // 2)], RATE))
    assert "cannot be read as audio" in line
    assert "not a regular file" not in line  # which libsndfile says of an mp3


@pytest.fixture
def bounded() -> Iterator[None]:
    """Less than 64 MiB and two seconds of work."""
    start = time.process_time()
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 2**20
    assert time.process_time() - start < 2


# Recorders that write to a pipe leave such numbers; others count the header with the samples.
@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    "size", [2**31 - 1, 2**31 - 36, 2**31, 2**32 - 1, 2**32 - 37, 2 * RATE + 36]
)
def test_length_that_only_looks_wrong(size):
    samples = noise(RATE)
    loaded = load_audio(with_data_size(encode(samples), size), RATE)
    np.testing.assert_allclose(loaded, samples, atol=1e-4)


FORGED = {
    "wav of 2^30 samples": with_data_size(encode(noise(RATE)), 2**31 - 2**17),
    "flac of 2^31 samples": with_flac_length(encode(noise(RATE), name="flac"), 2**31),
    "flac of 2^36 samples": with_flac_length(encode(noise(RATE), name="flac"), 2**36 - 1),
    "flac of four hours": with_flac_length(encode(noise(RATE), name="flac"), 4 * 3_600 * RATE),
    "mp3 of 2^32 frames": with_mp3_frames(encode(noise(RATE), name="mp3"), 2**32 - 1),
    "mp3 of three hours": with_mp3_frames(encode(noise(RATE), name="mp3"), 3 * 3_600 * RATE // 576),
}


@pytest.mark.usefixtures("bounded", "capfd")
@pytest.mark.parametrize("name", FORGED)
def test_forged_length_costs_nothing(name):
    line = error_of(lambda: load_audio(FORGED[name], RATE))
    assert any(cause in line for cause in ("cut short", "damaged", "expected at most 14400 s"))
