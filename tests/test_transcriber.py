"""Waveforms to transcripts: alone as in a batch, and word times by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from asr.decoder import Greedy, Hypothesis
from asr.model_file import save_model
from asr.recognizer import FIXED_BYTES, SPARE, ModelSpec, Part, Recognizer, Waveform, choose_device
from asr.segment import Span, find_segments
from asr.transcriber import BATCH_S, CHUNK_S, Transcriber, Transcript
from asr.word import Word

RATE = 8000  # [Hz]
ALPHABET = " ab'"


def recognizer_of(**features: object) -> Recognizer:
    """A model that was never trained but says many things: every weight is random and large."""
    torch.manual_seed(60)
    recognizer = Recognizer(
        ModelSpec(
            features=Part("LogMel", {"sample_rate": RATE, "n_mels": 12} | features),
            model=Part("BiLstmCtc", {"hidden_size": 8, "num_layers": 1, "subsampling": 2}),
            alphabet=ALPHABET,
            text={},
        )
    )
    for parameter in recognizer.parameters():
        nn.init.normal_(parameter)
    return recognizer


def waveform(seconds: float, seed: int) -> Waveform:
    """Noise whose loudness and colour change all the time."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal(round(seconds * RATE))
    steps = np.repeat(generator.uniform(-1, 1, len(noise) // 400 + 1), 400)[: len(noise)]
    return (noise * steps).astype(np.float32)


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    return Transcriber(recognizer_of())


@pytest.fixture(scope="module")
def waveforms() -> list[Waveform]:
    return [waveform(seconds, seed) for seed, seconds in enumerate((1.0, 0.13, 2.0, 0.5))]


def test_a_transcript_does_not_depend_on_its_neighbours(
    transcriber: Transcriber, waveforms: list[Waveform]
) -> None:
    together = transcriber.transcribe(waveforms)
    alone = [transcriber.transcribe([samples])[0] for samples in waveforms]
    assert [t.text for t in together] == [t.text for t in alone]
    for one, other in zip(together, alone, strict=True):
        assert [(w.word, w.start, w.end) for w in one.words] == [
            (w.word, w.start, w.end) for w in other.words
        ]
        assert [w.confidence for w in one.words] == pytest.approx(
            [w.confidence for w in other.words], abs=2e-4
        )
    assert len({t.text for t in together}) == len(waveforms)
    assert transcriber.transcribe(waveforms[::-1]) == together[::-1]


def test_confidences_go_through_a_calibration(
    transcriber: Transcriber, waveforms: list[Waveform]
) -> None:
    calibrated = Transcriber(transcriber.recognizer, calibrate=lambda confidence: confidence / 4)
    before, after = transcriber.transcribe(waveforms), calibrated.transcribe(waveforms)
    assert [t.text for t in before] == [t.text for t in after]
    confidences = [word.confidence / 4 for t in before for word in t.words]
    assert confidences
    assert [word.confidence for t in after for word in t.words] == pytest.approx(
        confidences, abs=1e-4
    )


def test_words_make_the_text_and_their_times_run_forward(
    transcriber: Transcriber, waveforms: list[Waveform]
) -> None:
    for transcript, samples in zip(transcriber.transcribe(waveforms), waveforms, strict=True):
        assert transcript.duration == len(samples) / RATE
        assert transcript.text == " ".join(word.word for word in transcript.words)
        assert " " not in "".join(word.word for word in transcript.words)
        times = [time for word in transcript.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert all(0 <= time <= transcript.duration for time in times)
        assert all(word.start <= word.end and 0 < word.confidence <= 1 for word in transcript.words)
    assert len(transcriber.transcribe(waveforms)[0].words) > 1


def whole(waveform: Waveform, sample_rate: int) -> list[Span]:
    """A detector that takes all for speech."""
    return [Span(0, len(waveform))]


class Fixed:
    """A decoder that always says the same."""

    def __init__(self, hypothesis: Hypothesis) -> None:
        self.hypothesis = hypothesis

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        worse = Hypothesis((2,), (0,), (1,), (0.0,), -99.0)
        return [[self.hypothesis, worse] for _ in lengths]


def transcript_of(text: str, frames: list[tuple[int, int, float]], seconds: float) -> Transcript:
    """The transcript of a text whose characters lie on these frames with these probabilities."""
    hypothesis = Hypothesis(
        tokens=tuple(ALPHABET.index(character) + 1 for character in text),
        starts=tuple(start for start, _, _ in frames),
        ends=tuple(end for _, end, _ in frames),
        log_probs=tuple(math.log(probability) for _, _, probability in frames),
        score=0.0,
    )
    silence = np.zeros(round(seconds * RATE), dtype=np.float32)
    return Transcriber(recognizer_of(), Fixed(hypothesis), detector=whole).transcribe([silence])[0]


def test_word_times_and_confidence_by_hand() -> None:
    # Output frames are 20 ms apart: 10 ms between features, every second one is kept.
    frames = [(3, 5, 0.5), (7, 8, 0.8), (9, 10, 0.1), (12, 14, 0.9)]
    transcript = transcript_of("ab b", frames, seconds=1.0)
    assert transcript == Transcript(
        text="ab b",
        words=(
            Word("ab", start=0.06, end=0.16, confidence=0.6325),  # sqrt(0.5 * 0.8)
            Word("b", start=0.24, end=0.28, confidence=0.9),
        ),
        duration=1.0,
    )


def test_times_end_with_the_audio() -> None:
    transcript = transcript_of("a", [(0, 51, 1.0)], seconds=1.001)
    assert transcript.words == (Word("a", 0.0, 1.001, 1.0),)


def test_a_word_on_frames_past_the_end_of_the_audio_has_a_length() -> None:
    transcript = transcript_of("a b", [(50, 51, 1.0), (51, 52, 1.0), (52, 53, 1.0)], seconds=0.99)
    assert transcript.words == (Word("a", 0.97, 0.99, 1.0), Word("b", 0.99, 0.99, 1.0))
    (word,) = transcript_of("a", [(0, 1, 1.0)], seconds=0.01).words
    assert (word.start, word.end) == (0.0, 0.01)


@pytest.mark.parametrize("text", ["", " ", "   "])
def test_nothing_but_spaces_is_no_word(text: str) -> None:
    frames = [(index, index + 1, 0.5) for index in range(len(text))]
    assert transcript_of(text, frames, 0.5) == Transcript("", (), 0.5)


def test_spaces_around_and_between_words_are_one() -> None:
    frames = [(index, index + 1, 0.5) for index in range(6)]
    transcript = transcript_of(" a  b ", frames, 0.5)
    assert transcript.text == "a b"
    assert [(word.start, word.end) for word in transcript.words] == [(0.02, 0.04), (0.08, 0.1)]


def test_no_waveforms_give_no_transcripts(transcriber: Transcriber) -> None:
    assert transcriber.transcribe([]) == []


@pytest.mark.parametrize(
    "features", [{}, {"center": False, "mel_scale": "kaldi", "window": "povey"}], ids=str
)
@pytest.mark.parametrize("samples", [0, 1, 79, 199, 200])
def test_clips_shorter_than_a_window(features: dict[str, object], samples: int) -> None:
    transcriber = Transcriber(recognizer_of(**features))
    clip = waveform(0.1, seed=1)[:samples]
    (transcript,) = transcriber.transcribe([clip])
    assert transcript.duration == samples / RATE
    assert transcriber.transcribe([clip, waveform(1.0, seed=0)])[0].text == transcript.text


def test_dropout_is_off(waveforms: list[Waveform]) -> None:
    recognizer = recognizer_of().train()
    transcriber = Transcriber(recognizer)
    assert not recognizer.training
    assert transcriber.transcribe(waveforms) == transcriber.transcribe(waveforms)


def test_files_and_their_bytes_say_the_same(transcriber: Transcriber, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    samples = np.clip(waveform(1.0, seed=5), -0.99, 0.99)
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    expected = transcriber.transcribe([samples])[0]
    assert expected.text
    assert transcriber.transcribe_file(path) == expected
    assert transcriber.transcribe_file(str(path)) == expected
    assert transcriber.transcribe_file(path.read_bytes()) == expected


def test_a_model_file_is_all_it_takes(waveforms: list[Waveform], tmp_path: Path) -> None:
    recognizer = recognizer_of()
    save_model(tmp_path / "m.safetensors", recognizer, {})
    expected = Transcriber(recognizer).transcribe(waveforms)
    loaded = Transcriber.load(str(tmp_path / "m.safetensors"), device="cpu")
    assert isinstance(loaded.decoder, Greedy)
    assert loaded.sample_rate == RATE
    assert loaded.transcribe(waveforms) == expected


@pytest.mark.parametrize("name", ["cuda:77", "warp", ""])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(ValueError, match=f"device '{name}' is not available on this machine"):
        choose_device(name)


def test_devices_that_are_there() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")


def test_what_memory_does_not_hold_is_refused_by_name(
    transcriber: Transcriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", waveform(2.0, 0), RATE)
    monkeypatch.setattr("asr.recognizer.available_memory", lambda: 1_000_000)
    with pytest.raises(ValueError, match=r"a\.wav: 2 s of audio: needs 0\.07 GB of memory, expec"):
        transcriber.transcribe_file(tmp_path / "a.wav")
    every = Transcriber(transcriber.recognizer, detector=whole)
    with pytest.raises(ValueError, match=r"^2 recordings of up to 3 s of audio: needs 0\.07 GB"):
        every.transcribe([waveform(3.0, 0), waveform(1.0, 1)])


def test_a_recording_with_pauses_is_transcribed_as_its_parts(transcriber: Transcriber) -> None:
    parts = [waveform(seconds, seed) for seed, seconds in enumerate((1.0, 2.5, 1.7, 3.1))]
    pause = np.zeros(2 * RATE, np.float32)
    recording = np.concatenate([pause, *(each for part in parts for each in (part, pause))])
    spans = find_segments(recording, RATE)
    assert len(spans) == len(parts)
    (transcript,) = transcriber.transcribe([recording])
    alone = Transcriber(transcriber.recognizer, detector=whole)
    pieces = alone.transcribe([recording[span.start : span.end] for span in spans])
    assert transcript.text == " ".join(piece.text for piece in pieces if piece.text)
    times = [
        (word.word, word.start + span.start / RATE, word.end + span.start / RATE)
        for piece, span in zip(pieces, spans, strict=True)
        for word in piece.words
    ]
    assert [word for word, _, _ in times] == [word.word for word in transcript.words]
    for word, (_, start, end) in zip(transcript.words, times, strict=True):
        assert (word.start, word.end) == pytest.approx((start, end), abs=2e-3)
    assert transcriber.transcribe([pause, np.zeros(0, np.float32)]) == [
        Transcript("", (), 2.0), Transcript("", (), 0.0),
    ]  # fmt: skip


def test_segments_go_through_the_network_in_batches_of_like_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths = [3, 50, 1, 40, 2, 60, 25, 90]  # [s]
    transcriber = Transcriber(recognizer_of(), detector=whole)
    batches: list[tuple[list[int], float | None]] = []

    def log_probs(parts: list[Waveform], chunk_s: float | None = None) -> tuple[Tensor, Tensor]:
        batches.append(([len(part) // RATE for part in parts], chunk_s))
        return torch.zeros(len(parts), 1, 5), torch.ones(len(parts), dtype=torch.int64)

    monkeypatch.setattr(transcriber.recognizer, "log_probs", log_probs)
    transcriber.transcribe([np.zeros(length * RATE, np.float32) for length in lengths])
    assert batches == [
        ([90], CHUNK_S), ([60], CHUNK_S), ([50], CHUNK_S), ([40], CHUNK_S), ([25, 3, 2, 1], None),
    ]  # fmt: skip
    assert all(len(parts) * parts[0] <= BATCH_S for parts, _ in batches)


def test_the_memory_needed_grows_with_the_recording_and_the_model() -> None:
    # By hand: 80,000 samples, 1001 frames of 12 mels, 501 steps of 32 channels of 6 mels, which
    # are the widest: the input of the LSTM layers, normalised and masked.
    small = recognizer_of()
    numbers = 2 * 80_000 + 1001 * 12 + 501 * 3 * 32 * 6
    assert small.memory_needed(80_000) == int(SPARE * 4 * numbers) + FIXED_BYTES
    hour = small.memory_needed(3600 * RATE) - FIXED_BYTES
    assert small.memory_needed(3600 * RATE, 2) - FIXED_BYTES == pytest.approx(2 * hour)
    assert small.memory_needed(3600 * RATE, num_seen=1000) - FIXED_BYTES < hour
