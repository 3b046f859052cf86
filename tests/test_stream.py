"""Recordings that come block by block: the same words for any blocks, and as of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from asr.decoder import BeamSearch
from asr.recognizer import ModelSpec, Part, Recognizer, Waveform
from asr.stream import BEHIND_S, LONGEST_S, PAUSE_S, WINDOW_S, Forwards, Windows, emissions_of
from asr.transcriber import Transcriber
from asr.transcript import Segment

RATE = 8000  # [Hz]
ALPHABET = " ab'"
LIVE = {"remove_mean": False, "remove_dc_offset": True, "normalizer": "pcen"}


def recognizer_of(is_live: bool, **settings: Any) -> Recognizer:
    """A model that was never trained but says many things where it is loud, and nothing else."""
    torch.manual_seed(60)
    features = {"sample_rate": RATE, "n_mels": 12} | (LIVE if is_live else {})
    model = {"hidden_size": 8, "num_layers": 2, "subsampling": 4, "bidirectional": not is_live}
    recognizer = Recognizer(
        ModelSpec(
            features=Part("LogMel", features), model=Part("BiLstmCtc", model | settings),
            alphabet=ALPHABET, text={},
        )
    )  # fmt: skip
    for parameter in recognizer.parameters():
        nn.init.normal_(parameter)
    if is_live:
        recognizer.features.normalizer.is_measured.fill_(True)
    return recognizer.eval()


def waveform(seconds: float, seed: int = 0) -> Waveform:
    """Noise whose loudness and colour change all the time."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal(round(seconds * RATE))
    steps = np.repeat(generator.uniform(-1, 1, len(noise) // 400 + 1), 400)[: len(noise)]
    return (noise * steps).astype(np.float32)


def heard(transcriber: Transcriber, samples: Waveform, size: int) -> list[Segment]:
    stream, segments = transcriber.stream(), []
    for start in range(0, len(samples), size):
        segments += stream.push(samples[start : start + size])
    return segments + stream.finish()


@pytest.mark.parametrize("settings", [{}, {"lookahead": 5}, {"upsampling": 2, "lookahead": 3}])
@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.1, 1.0, 3.37])
def test_step_by_step_is_the_whole(settings: dict[str, Any], seconds: float) -> None:
    recognizer, samples = recognizer_of(True, **settings), waveform(seconds)
    emissions = emissions_of(recognizer)
    assert isinstance(emissions, Forwards)
    parts = [emissions.push(samples[k : k + 700]) for k in range(0, len(samples), 700)]
    found = np.concatenate([*parts, emissions.finish()])
    expected, lengths = recognizer.log_probs([samples])
    assert len(found) == lengths[0]
    np.testing.assert_allclose(found, expected[0, : lengths[0]], atol=1e-4, rtol=1e-4)


def test_words_forwards_come_soon() -> None:
    recognizer = recognizer_of(True)
    emissions, samples = emissions_of(recognizer), waveform(2.0)
    given = 0
    for k in range(0, len(samples), 80):
        given += len(emissions.push(samples[k : k + 80]))
        come = (k + 80) / RATE
        assert given * recognizer.frame_shift_s >= come - 0.25


@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.44, 1.45, 4.0])
def test_windows_give_each_frame_once(seconds: float) -> None:
    recognizer, samples = recognizer_of(False), waveform(seconds)
    emissions = emissions_of(recognizer)
    assert isinstance(emissions, Windows)
    parts = [emissions.push(samples[k : k + 700]) for k in range(0, len(samples), 700)]
    found = np.concatenate([*parts, emissions.finish()])
    expected, lengths = recognizer.log_probs([samples])
    assert len(found) == lengths[0]
    if seconds < WINDOW_S + BEHIND_S:  # one window
        np.testing.assert_allclose(found, expected[0, : lengths[0]], atol=1e-5)


def test_a_window_sees_what_lies_around_it() -> None:
    recognizer, samples = recognizer_of(False), waveform(20.0)
    emissions = emissions_of(recognizer)
    given = [len(emissions.push(samples[k : k + 80])) for k in range(0, len(samples), 80)]
    first = next(k for k, count in enumerate(given) if count)
    assert (first + 1) * 80 / RATE == pytest.approx(WINDOW_S + BEHIND_S, abs=0.03)
    assert {count for count in given if count} == {round(WINDOW_S / recognizer.frame_shift_s)}


@pytest.mark.parametrize("is_live", [True, False])
@pytest.mark.parametrize("decoder", ["greedy", "beam"])
def test_the_text_does_not_depend_on_the_blocks(is_live: bool, decoder: str) -> None:
    search = BeamSearch(8, alphabet=ALPHABET, hotwords={"ab": 3.0}) if decoder == "beam" else None
    transcriber = Transcriber(recognizer_of(is_live), search)
    samples = np.concatenate([waveform(2.0), np.zeros(RATE, np.float32), waveform(1.5, seed=1)])
    whole = heard(transcriber, samples, len(samples))
    assert whole
    for size in (160, 801, 5000):
        assert heard(transcriber, samples, size) == whole


def test_pauses_end_segments_and_every_frame_is_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = recognizer_of(True)
    transcriber = Transcriber(recognizer)
    shift = recognizer.frame_shift_s
    # "a" for 0.2 s, a short pause, "b", a pause, "a b" and so on: as log-probabilities.
    labels = [0] * 5 + [2] * 5 + [0] * 5 + [3] * 5 + [0] * round(PAUSE_S / shift + 5) + [2, 1, 3]
    rows = torch.full((len(labels), 5), -20.0)
    rows[torch.arange(len(labels)), torch.tensor(labels)] = 0.0
    stream = transcriber.stream()
    place = 0

    def push(_: Waveform) -> torch.Tensor:
        nonlocal place
        place += 1
        return rows[place - 1 : place]

    monkeypatch.setattr(stream._emissions, "push", push)
    monkeypatch.setattr(stream._emissions, "finish", lambda: rows[:0])
    said, seen = [], []
    for _ in labels:
        said += stream.push(np.zeros(round(shift * RATE), np.float32))
        partial = stream.partial
        seen.append("" if partial is None else partial.text)
    assert [segment.text for segment in said] == ["ab"]
    assert said[0].start == pytest.approx(5 * shift)
    assert said[0].end == pytest.approx(20 * shift)
    assert seen[4:6] == ["", "a"]
    assert seen[-1] == "a b"
    (last,) = stream.finish()
    assert last.text == "a b"
    assert last.start == pytest.approx((len(labels) - 3) * shift)
    assert stream.finish() == []


def test_what_has_no_pause_is_cut_where_it_is_quietest() -> None:
    transcriber = Transcriber(recognizer_of(True))
    frames = round(LONGEST_S / transcriber.recognizer.frame_shift_s)
    rows = torch.full((2 * frames, 5), -20.0)
    rows[torch.arange(2 * frames), torch.tensor([2, 3] * frames)] = -0.1
    quiet = frames - 100
    rows[quiet] = torch.tensor([-0.1, -20.0, -3.0, -20.0, -20.0])
    stream = transcriber.stream()
    stream._num_samples = 10**9
    segments = stream._hear(rows) + stream.finish()
    joined = "".join(segment.text for segment in segments)
    assert len(segments) == 3
    assert len(segments[0].text) == quiet
    assert len(joined) == 2 * frames - 1  # all but the quiet one, none twice


def test_other_rates_numbers_and_channels() -> None:
    transcriber = Transcriber(recognizer_of(True))
    samples = 0.3 * waveform(1.0)
    plain = heard(transcriber, samples, 800)
    whole = np.round(samples * 32768).clip(-32768, 32767).astype(np.int16)
    stream = transcriber.stream(RATE)
    stereo = stream.push(torch.from_numpy(np.stack([whole, whole]))) + stream.finish()
    assert [s.text for s in stereo] == [s.text for s in plain]
    stream = transcriber.stream(3 * RATE)
    found = stream.push(np.repeat(samples, 3)) + stream.finish()
    assert found
    assert found[-1].end <= 1.0
    with pytest.raises(ValueError, match="sample_rate 0, expected at least 1 Hz"):
        transcriber.stream(0)
    with pytest.raises(ValueError, match="samples that are NaN or infinite, expected audio"):
        transcriber.stream().push(np.full(10, np.nan, np.float32))
    with pytest.raises(ValueError, match="after the end of a stream"):
        stream.push(samples)
