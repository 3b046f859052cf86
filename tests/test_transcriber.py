"""Waveforms to transcripts: alone as in a batch, and word times by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from asr.audio_array import AudioArray
from asr.decoder import BeamSearch, Greedy, Hypothesis
from asr.emission import BATCH_S, CHUNK_S
from asr.model_file import save_model
from asr.recognizer import FIXED_BYTES, SPARE, ModelSpec, Part, Recognizer, Waveform, choose_device
from asr.segment import Span, find_segments
from asr.transcriber import Transcriber
from asr.transcript import Transcript
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
    assert transcript.text == "ab b"
    assert transcript.words == (
        Word("ab", start=0.06, end=0.16, confidence=0.6325),  # sqrt(0.5 * 0.8)
        Word("b", start=0.24, end=0.28, confidence=0.9),
    )
    assert transcript.duration == 1.0
    (segment,) = transcript.segments
    assert (segment.start, segment.end, segment.words) == (0.0, 1.0, transcript.words)
    assert [(each.text, each.log_prob) for each in segment.alternatives] == [
        ("ab b", 0.0), ("a", -99.0),
    ]  # fmt: skip


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
    assert transcript_of(text, frames, 0.5) == Transcript((), 0.5)


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
    assert transcriber.transcribe(waveforms) == transcriber.transcribe(waveforms)
    assert not recognizer.training


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
    with pytest.raises(ValueError, match=r"array of 8000 samples>: 1 s of audio: needs 0\.07 GB"):
        transcriber.transcribe([waveform(1.0, 1)])


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
        Transcript((), 2.0), Transcript((), 0.0),
    ]  # fmt: skip


def test_a_phrase_is_not_cut_where_somebody_hesitates(transcriber: Transcriber) -> None:
    pause = np.zeros(round(0.5 * RATE), np.float32)
    recording = np.concatenate([waveform(1.0, 0), pause, waveform(2.0, 1)])
    phrases = Transcriber(
        transcriber.recognizer, BeamSearch(alphabet=ALPHABET, phrases=["ab a", "b"])
    )
    for each, count in ((transcriber, 2), (phrases, 1)):
        (*pieces, _) = each.pieces(AudioArray(recording, RATE), 0)
        assert len(pieces) == count
    apart = np.concatenate([waveform(1.0, 0), pause, pause, waveform(2.0, 1)])
    assert len(list(phrases.pieces(AudioArray(apart, RATE), 0))) == 2 + 1


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
        ([90], CHUNK_S), ([60], CHUNK_S), ([50], CHUNK_S), ([40], CHUNK_S),
        ([25, 3], None), ([2, 1], None),
    ]  # fmt: skip
    assert all(len(parts) * parts[0] <= BATCH_S for parts, chunk_s in batches if chunk_s is None)


def test_the_memory_needed_grows_with_the_recording_and_the_model() -> None:
    # By hand: 80,000 samples, 1001 frames of 12 mels, 501 steps of 32 channels of 6 mels, which
    # are the widest: the input of the LSTM layers, normalised and masked.
    small = recognizer_of()
    numbers = 2 * 80_000 + 1001 * 12 + 501 * 3 * 32 * 6
    assert small.memory_needed(80_000) == int(SPARE * 4 * numbers) + FIXED_BYTES
    hour = small.memory_needed(3600 * RATE) - FIXED_BYTES
    assert small.memory_needed(3600 * RATE, 2) - FIXED_BYTES == pytest.approx(2 * hour)
    assert small.memory_needed(3600 * RATE, num_seen=1000) - FIXED_BYTES < hour


# --- files of any length, and many of them ------------------------------------------------------


def write(path: Path, samples: Waveform) -> Path:
    soundfile.write(path, np.clip(samples, -0.99, 0.99), RATE, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def talk() -> Waveform:
    """Half a minute with pauses, whose segments are found before its end."""
    parts: list[Waveform] = []
    for seed in range(12):
        parts += [0.1 * waveform(0.5 + seed % 5 / 2, seed), np.zeros(RATE, np.float32)]
    return np.concatenate(parts)


def test_a_file_is_transcribed_while_it_is_read(
    transcriber: Transcriber, talk: Waveform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "talk.wav", talk)
    whole = Transcriber(transcriber.recognizer, detector=find_segments).transcribe(
        np.clip(talk, -0.99, 0.99)
    )
    assert len(whole.segments) == 12
    monkeypatch.setattr("asr.audio_file.BLOCK_VALUES", 3_000)
    monkeypatch.setattr("asr.audio.BLOCK_SAMPLES", 5_000)
    told: list[tuple[float, float | None]] = []
    monkeypatch.setattr("asr.emission.POOL_S", 3.0)
    transcript = transcriber.transcribe_file(
        path, progress=lambda done, total: told.append((done, total))
    )
    assert transcript.text == whole.text
    assert [(w.word, w.start, w.end) for w in transcript.words] == [
        (w.word, w.start, w.end) for w in whole.words
    ]
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (len(talk) / RATE, len(talk) / RATE)


def test_files_side_by_side_say_what_they_say_alone(
    transcriber: Transcriber, talk: Waveform, tmp_path: Path
) -> None:
    paths: list[Path | str | bytes] = [
        write(tmp_path / f"{seed}.wav", waveform(0.4 + seed / 7, seed)) for seed in range(9)
    ]
    paths.insert(2, write(tmp_path / "talk.wav", talk))
    paths.append(paths[0].read_bytes())  # type: ignore[union-attr]
    (tmp_path / "bad.wav").write_text("no audio")
    told: list[tuple[float, float | None]] = []
    found = dict(
        transcriber.transcribe_files(
            [*paths, tmp_path / "bad.wav", tmp_path / "gone.wav"],
            progress=lambda done, total: told.append((done, total)),
        )
    )
    assert "cannot be read as audio" in str(found.pop(tmp_path / "bad.wav"))
    assert isinstance(found.pop(tmp_path / "gone.wav"), FileNotFoundError)
    for path in paths:
        alone, beside = transcriber.transcribe_file(path), found[path]
        assert isinstance(beside, Transcript)
        assert beside.text == alone.text
        assert [(w.word, w.start, w.end) for w in beside.words] == [
            (w.word, w.start, w.end) for w in alone.words
        ]
    assert told[-1][0] == pytest.approx(told[-1][1])


def test_anything_that_is_audio(transcriber: Transcriber, tmp_path: Path) -> None:
    samples = np.clip(waveform(1.0, 0), -0.99, 0.99)
    path = write(tmp_path / "a.wav", samples)
    expected = transcriber.transcribe(samples)
    assert expected.text
    with path.open("rb") as file:
        for audio in (
            path, str(path), path.read_bytes(), bytearray(path.read_bytes()), file,
            torch.from_numpy(samples), samples.astype(np.float64), np.stack([samples] * 2),
            np.stack([samples] * 2, axis=1), [samples][0],
        ):  # fmt: skip
            assert transcriber.transcribe(audio) == expected, type(audio)
    assert transcriber.transcribe([samples, path]) == [expected, expected]
    fine = np.repeat(samples, 2)  # twice the rate
    assert transcriber.transcribe(fine, sample_rate=2 * RATE).duration == 1.0
    coarse = transcriber.transcribe(np.round(samples * 32768).astype(np.int16))
    assert coarse.duration == 1.0
    for bad, message in (
        (0.5, "audio of type float, expected a path, bytes, an open file, an array or a tensor"),
        (np.array([np.nan] * 99), "NaN or Inf among the samples"),
        ([[0.1, 0.2]], "audio of type list, expected a path"),
    ):
        with pytest.raises(ValueError, match=message):
            transcriber.transcribe(bad)
    with path.open(encoding="latin1") as text, pytest.raises(ValueError, match="opened as text"):
        transcriber.transcribe(text)


def test_each_channel_by_itself(transcriber: Transcriber, tmp_path: Path) -> None:
    pause = np.zeros(RATE, np.float32)
    left = np.concatenate([waveform(1.5, 0), pause, pause, waveform(1.0, 2), pause])
    right = np.concatenate([pause, pause, waveform(1.0, 1), pause, pause, pause[: RATE // 2]])
    left, right = np.clip(left, -0.9, 0.9), np.clip(right, -0.9, 0.9)
    path = write(tmp_path / "call.wav", np.stack([left, right], axis=1))
    call = transcriber.transcribe_file(path, channel="each", speakers=("Anna", "Bert"))
    assert {(each.channel, each.speaker) for each in call.segments} == {(0, "Anna"), (1, "Bert")}
    for channel, samples in enumerate((left, right)):
        alone = transcriber.transcribe(samples)
        own = [each for each in call.segments if each.channel == channel]
        assert [each.text for each in own] == [each.text for each in alone.segments]
        assert [each.start for each in own] == [each.start for each in alone.segments]
        assert transcriber.transcribe_file(path, channel=channel).text == alone.text
    starts = [word.start for word in call.words]
    assert starts == sorted(starts)
    assert [turn.speaker for turn in call.turns] == ["Anna", "Bert", "Anna"]
    plain = transcriber.transcribe_file(path, channel="each")
    assert {each.speaker for each in plain.segments} == {"channel 0", "channel 1"}
    for options, message in (
        ({"channel": 2}, "channel 2, expected 0 to 1"),
        ({"channel": "both"}, "channel 'both', expected a number from 0, 'each' or None"),
        ({"speakers": ("Anna", "Bert")}, "speakers are named, expected channel='each'"),
        ({"channel": "each", "speakers": ("Anna",)}, "call.wav: 2 channels, expected 1, a speaker"),
    ):
        with pytest.raises(ValueError, match=message):
            transcriber.transcribe_file(path, **options)
