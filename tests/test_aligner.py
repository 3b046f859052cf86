"""Alignments of known texts by hand, and of waveforms of any length."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import asr.emission
import asr.recognizer
from asr.aligner import (
    PAUSE_LOG_PROB,
    AlignedWord,
    Aligner,
    Alignment,
    Emission,
    align_emission,
)
from asr.recognizer import ModelSpec, Part, Recognizer
from asr.segment import find_segments
from asr.word import Character

RATE = 8000  # [Hz]
ALPHABET = " ab'"


def recognizer_of(**model: object) -> Recognizer:
    """A model that was never trained."""
    torch.manual_seed(60)
    sizes = {"hidden_size": 8, "num_layers": 1, "subsampling": 2} | model
    recognizer = Recognizer(
        ModelSpec(
            features=Part("LogMel", {"sample_rate": RATE, "n_mels": 12}),
            model=Part("BiLstmCtc", sizes),
            alphabet=ALPHABET,
            text={},
        )
    )
    return recognizer.eval()


def emission_of(labels: str, probability: float = 0.8, duration: float | None = None) -> Emission:
    """An output frame of 20 ms a label, `_` for the blank, the others share what is left."""
    ids = [("_" + ALPHABET).index(label) for label in labels]
    rest = (1 - probability) / len(ALPHABET)
    probabilities = np.full((len(ids), len(ALPHABET) + 1), rest, dtype=np.float32)
    probabilities[np.arange(len(ids)), ids] = probability
    return Emission(np.log(probabilities), 0.02, duration or 0.02 * len(ids))


def noise(seconds: float) -> np.ndarray:
    waveform = np.random.default_rng(0).standard_normal(round(seconds * RATE))
    return (0.1 * waveform).astype(np.float32)


def test_by_hand() -> None:
    alignment = align_emission(recognizer_of(), emission_of("__aab__ _b__"), "AB  B!")
    loud = round(math.log(0.8), 4)
    a, b = Character("a", 0.04, 0.08, loud), Character("b", 0.08, 0.1, loud)
    last = Character("b", 0.18, 0.2, loud)
    assert alignment == Alignment(
        text="ab b",
        words=(
            AlignedWord("ab", 0.04, 0.1, 0.8, (a, b), "AB"),
            AlignedWord("b", 0.18, 0.2, 0.8, (last,), "B!"),
        ),
        duration=0.24,
        log_prob=loud,
        shortfall=0.0,
        confidence=0.8,
    )
    assert alignment.fits


def test_confidence_and_shortfall_by_hand() -> None:
    # The model hears `a`; the text says `b`, whose frame then has 0.05 in place of 0.8.
    alignment = align_emission(recognizer_of(), emission_of("_a_"), "b")
    assert alignment.confidence == 0.05
    assert alignment.words[0].confidence == 0.05
    assert alignment.log_prob == pytest.approx((2 * math.log(0.8) + math.log(0.05)) / 3, abs=1e-4)
    assert alignment.shortfall == pytest.approx(math.log(0.8 / 0.05) / 3, abs=1e-4)  # 0.92
    assert not alignment.fits
    assert align_emission(recognizer_of(), emission_of("__a___"), "b").fits  # 0.46


@pytest.mark.parametrize(
    ("text", "originals"),
    [
        ("Ab, 'b'", ["Ab,", "'b'"]),
        ("a - b", [None, None]),  # three words as written
        ("- a-b", [None, None]),  # as many words, but not the same ones
        ("a-b", [None, None]),
    ],
)
def test_words_as_written_are_kept_where_each_is_one(
    text: str, originals: list[str | None]
) -> None:
    alignment = align_emission(recognizer_of(), emission_of("_a_b_ _b_"), text)
    assert [word.original for word in alignment.words] == originals


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("...", "text '...' has no characters to align, expected at least one"),
        ("abc", r"character 'c' \(U\+0063 LATIN SMALL LETTER C\) at position 2 of 'abc' is not in"),
        ("abbab", "text: 5 output frames, expected at least 6 for its 5 labels"),
    ],
)
def test_texts_that_cannot_be_aligned(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        align_emission(recognizer_of(), emission_of("_a_b_"), text)


def test_every_word_has_its_characters() -> None:
    first, second = align_emission(recognizer_of(), emission_of("_ab_ _b"), "ab b").words
    assert [(each.character, each.start, each.end) for each in first.characters] == [
        ("a", 0.02, 0.04), ("b", 0.04, 0.06),
    ]  # fmt: skip
    assert [(each.character, each.start, each.end) for each in second.characters] == [
        ("b", 0.12, 0.14),
    ]  # fmt: skip


@pytest.mark.parametrize("model", [{}, {"subsampling": 8, "upsampling": 2}, {"subsampling": 3}])
def test_every_character_has_a_length_within_the_audio(model: dict[str, int]) -> None:
    aligner = Aligner(recognizer_of(**model))
    for samples in [*range(2400, 2740, 20), 2721, 2799]:
        alignment = aligner.align(noise(1)[:samples], "ab a")
        assert alignment.duration == round(samples / RATE, 3)
        times = [t for word in alignment.words for c in word.characters for t in (c.start, c.end)]
        assert times == sorted(times)
        assert all(start < end for start, end in zip(times[::2], times[1::2], strict=True))
        assert 0 <= times[0] < times[-1] <= alignment.duration


def test_a_recording_is_run_as_the_transcriber_runs_it() -> None:
    recognizer = recognizer_of()
    waveform = noise(1.0)
    with torch.inference_mode():
        expected, _ = recognizer(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
    emission = Aligner(recognizer).emission(waveform)
    # The 51st frame begins where the audio ends.
    assert np.array_equal(emission.log_probs, expected[0, :50].numpy())
    assert emission.duration == 1.0


def test_what_is_steady_is_run_as_a_whole_for_it_has_a_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aligner = Aligner(recognizer_of())
    assert find_segments(noise(7.3), RATE) == []
    whole = aligner.emission(noise(7.3))
    monkeypatch.setattr(asr.emission, "CHUNK_S", 1.0)
    monkeypatch.setattr(asr.recognizer, "CONTEXT_S", 0.5)
    chunked = aligner.emission(noise(7.3))
    assert chunked.log_probs.shape == whole.log_probs.shape
    difference = np.abs(chunked.log_probs - whole.log_probs).max()
    assert 0 < difference < 1e-3


def speech(seconds: float, seed: int) -> np.ndarray:
    """Noise whose loudness changes all the time."""
    draws = np.random.default_rng(seed)
    samples = draws.standard_normal(round(seconds * RATE))
    steps = np.repeat(draws.uniform(-1, 1, len(samples) // 400 + 1), 400)[: len(samples)]
    return (0.1 * samples * steps).astype(np.float32)


@pytest.mark.parametrize("model", [{}, {"subsampling": 8, "upsampling": 2}, {"subsampling": 3}])
def test_pauses_are_blank_and_segments_are_as_alone(model: dict[str, int], tmp_path: Path) -> None:
    aligner = Aligner(recognizer_of(**model))
    pause = np.zeros(round(2.013 * RATE), np.float32)
    parts = [pause]
    for seed in range(8):
        parts += [speech(0.7 + seed / 3, seed), pause]
    waveform = np.concatenate(parts)
    told: list[tuple[float, float | None]] = []
    soundfile.write(tmp_path / "a.wav", waveform, RATE, subtype="FLOAT")
    found = aligner.emission(tmp_path / "a.wav", lambda done, total: told.append((done, total)))
    assert found.duration == round(len(waveform) / RATE, 3)
    assert told[-1][0] > 0.8 * found.duration
    assert np.exp(found.log_probs.astype(np.float64)).sum(axis=1) == pytest.approx(1, abs=1e-5)
    shift = found.frame_shift_s * RATE  # samples
    spoken = np.zeros(len(found.log_probs), bool)
    spans = find_segments(waveform, RATE)
    assert len(spans) == 8
    for span in spans:
        first = math.ceil(span.start / shift)
        samples = torch.from_numpy(waveform[round(first * shift) : span.end])
        with torch.inference_mode():
            log_probs, _ = aligner.recognizer(samples[None], torch.tensor([len(samples)]))
        count = math.ceil(len(samples) / shift)
        own = found.log_probs[first : first + count]
        np.testing.assert_allclose(own, log_probs[0, :count].numpy(), atol=1e-4)
        spoken[first : first + count] = True
    pauses = found.log_probs[~spoken]
    assert len(pauses) > 9 * 1.5 / found.frame_shift_s
    assert pauses[:, 0].min() > -1e-3
    assert (pauses[:, 1:] == PAUSE_LOG_PROB).all()


def test_what_cannot_be_read_is_told() -> None:
    with pytest.raises(FileNotFoundError):
        Aligner(recognizer_of()).align_file("gone.wav", "a")


def test_less_than_a_millisecond() -> None:
    with pytest.raises(ValueError, match="3 samples of audio, expected at least a millisecond"):
        Aligner(recognizer_of()).emission(noise(1)[:3])
