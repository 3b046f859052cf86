"""Audio files cut short, and headers that lie: one line each, and no memory or time spent."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from asr.audio import load_audio
from tests.audio_files import (
    RATE,
    each_format,
    encode,
    error_of,
    noise,
    with_data_size,
    with_flac_length,
    with_mp3_frames,
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


@pytest.mark.parametrize("name", ["opus", "vorbis"])
def test_cut_ogg_seems_to_end_earlier(name):
    # libsndfile takes the length from the last page that is there, which says nothing of others.
    file = encode(noise(4 * RATE), name=name)
    part = load_audio(file[: int(0.7 * len(file))], RATE)
    assert RATE <= len(part) < 3 * RATE
    np.testing.assert_allclose(part, load_audio(file, RATE)[: len(part)], atol=1e-4)


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
