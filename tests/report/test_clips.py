"""Sound and picture of an utterance: what is chosen, and that what is encoded can be read back."""

import base64
import io
import math
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from asr.metrics.error_rate import score_utterance
from asr.report.clips import (
    CtcPath,
    embedded_clip,
    encode_picture,
    encode_sound,
    listed,
    make_clip,
    within,
)
from asr.report.evaluation import EvaluatedUtterance
from asr.word import Character

SECONDS = 1.5


@pytest.fixture
def waveform():
    time = np.arange(int(16_000 * SECONDS)) / 16_000
    return (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1), (313, 80), (256, 3)])
def test_picture_is_what_was_given(shape):
    log_mel = np.random.default_rng(1).normal(-5, 3, shape).astype(np.float32)
    read = np.rint(255 * imread(io.BytesIO(encode_picture(log_mel)), format="png"))
    quiet, loud = np.quantile(log_mel, 0.05), log_mel.max()
    shares = (log_mel - quiet).clip(0) / (loud - quiet) if loud > quiet else 0 * log_mel
    assert np.array_equal(read, 4 * np.rint(63 * shares).T[::-1])


@pytest.mark.parametrize(("audio_format", "media_type"), [
    ("opus", "audio/ogg;codecs=opus"), ("wav", "audio/wav"),
])  # fmt: skip
def test_sound_is_what_was_given_and_the_same_each_time(waveform, audio_format, media_type):
    found, sound = encode_sound(waveform, 16_000, audio_format)
    assert found == media_type
    assert encode_sound(waveform, 16_000, audio_format) == (found, sound)
    read, rate = soundfile.read(io.BytesIO(sound), dtype="float32")
    assert (rate, len(read)) == (16_000, len(waveform))
    # Opus starts late or early by a fraction of a sample: compare the tone's power.
    spectrum = np.abs(np.fft.rfft(read))
    assert abs(spectrum.argmax() / SECONDS - 440) < 1
    assert math.isclose(np.std(read), np.std(waveform), rel_tol=0.05)


def test_opus_of_another_rate_is_resampled_and_small(waveform):
    _, sound = encode_sound(waveform, 11_025, "opus")  # as if recorded at a rate that Opus lacks
    read, rate = soundfile.read(io.BytesIO(sound))
    assert rate == 12_000
    assert abs(len(read) / rate - len(waveform) / 11_025) < 0.001
    speech_like = np.random.default_rng(0).normal(0, 0.1, 16_000 * 20).astype(np.float32)
    assert len(encode_sound(speech_like, 16_000, "opus")[1]) < 20 * 32_000 / 8


def test_unknown_format_is_named(waveform):
    with pytest.raises(ValueError, match="'mp3', expected 'opus' or 'wav'"):
        encode_sound(waveform, 16_000, "mp3")


def test_loud_is_far_and_high_is_up(waveform):
    log_mel = np.full((20, 4), -10.0, np.float32)
    log_mel[5, 3] = 0.0  # loud, in the highest band
    clip = make_clip("a", waveform, 16_000, log_mel, 0.01, [])
    read = np.rint(255 * imread(io.BytesIO(clip.picture), format="png"))
    assert read.shape == (4, 20)
    assert read[0, 5] == read.max() == 252
    assert np.count_nonzero(read) == 1
    silent = make_clip("a", waveform, 16_000, np.zeros((20, 4), np.float32), 0.01, [])
    assert not imread(io.BytesIO(silent.picture), format="png").any()


def test_size_is_that_in_the_page(waveform):
    path = CtcPath("hypothesis", (Character("a", 0.123456, 0.2, math.log(0.98765)),))
    clip = make_clip("a", waveform, 16_000, np.ones((150, 4), np.float32), 0.01, [path])
    embedded = embedded_clip(clip)
    assert embedded["paths"] == [
        {"name": "hypothesis", "missing": "", "characters": [["a", 0.123, 0.2, 0.988]]}
    ]
    assert (embedded["seconds"], embedded["pictureSeconds"]) == (1.5, 1.5)
    encoded = [str(embedded[name]).split(",")[1] for name in ("audio", "picture")]
    assert [base64.b64decode(each) for each in encoded] == [clip.sound, clip.picture]
    assert clip.num_bytes == sum(map(len, encoded))
    assert list(within([clip] * 5, 3.5 * clip.num_bytes)) == [clip] * 3
    assert list(within([clip], 0)) == []


def evaluation_of(make_evaluation, errors):
    """Utterances 0, 1, ... of five words with so many deleted; words of a right one differ."""
    utterances = []
    for place, count in enumerate(errors):
        said = "a b c d e" + " f" * (place if not count else 0)
        scored = score_utterance(str(place), said, " ".join(said.split()[count:]))
        utterances.append(EvaluatedUtterance(str(place), None, 1.0, "", scored))
    return replace(make_evaluation(), utterances=tuple(utterances))


def test_most_errors_and_every_fifth_of_the_best(make_evaluation):
    evaluation = evaluation_of(make_evaluation, [1, 2, 0, 3, 4, 5, 1, 0, 0, 2])
    chosen = [each.id for each in listed(evaluation, 6)]
    assert chosen == ["5", "4", "3", "1", "8", "9"]
    assert listed(evaluation, 0) == []
    assert len(listed(evaluation, 100)) == 10


def test_where_there_are_few_errors_the_best_fill_up(make_evaluation):
    evaluation = evaluation_of(make_evaluation, [0, 0, 1, 0, 0])
    assert {each.id for each in listed(evaluation, 4)} == {"2", "4", "3", "1"}
