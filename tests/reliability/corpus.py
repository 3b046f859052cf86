"""A corpus of tones, a letter each, of any size, written in a second; a model that is of no use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

from asr.model_file import save_model
from asr.recognizer import ModelSpec, Part, Recognizer

RATE = 8000  # [Hz]
TONES = {"a": 400.0, "b": 900.0, "c": 1700.0, "d": 2900.0}  # [Hz]
LETTER_S, GAP_S = 0.1, 0.03


def tones(text: str) -> np.ndarray:
    """The waveform of a text, float64."""
    times = np.arange(round(LETTER_S * RATE)) / RATE
    gap = np.zeros(round(GAP_S * RATE))
    parts = [gap]
    for letter in text:
        parts += [0.3 * np.hanning(len(times)) * np.sin(2 * np.pi * TONES[letter] * times), gap]
    return np.concatenate(parts)


def write_corpus(
    folder: Path, count: int, seed: int, name: str = "train", letters: tuple[int, int] = (2, 4)
) -> Path:
    """Write `count` utterances of so many letters, least and most; returns their manifest."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        text = "".join(
            generator.choice(list(TONES), size=generator.integers(letters[0], letters[1] + 1))
        )
        waveform = tones(text) + 0.001 * generator.standard_normal(len(tones(text)))
        soundfile.write(folder / f"{name}{number}.wav", waveform, RATE, subtype="FLOAT")
        row = {"audio_filepath": f"{name}{number}.wav", "text": text, "id": f"{name}{number}"}
        rows.append(row | {"duration": len(waveform) / RATE})
    manifest = folder / f"{name}.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def save_untrained_model(path: Path, alphabet: str = "abcd ", sample_rate: int = RATE) -> None:
    """Write a small model that learnt nothing, where it does not matter what it writes."""
    spec = ModelSpec(
        Part("LogMel", {"sample_rate": sample_rate, "n_mels": 40}),
        Part("BiLstmCtc", {"hidden_size": 16, "num_layers": 1, "channels": 4}),
        alphabet, {},
    )  # fmt: skip
    save_model(path, Recognizer(spec), {})
