"""A corpus that a tiny model learns in seconds: every letter is a tone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice, product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr.data.manifest import Utterance
from asr.data.splits import Splits
from asr.recognizer import ModelSpec, Part, Recognizer
from asr.text import TextNormalizer
from asr.trainer.diagnostics import draw_alignments, draw_curves

RATE = 8000  # [Hz]
TONES = {"a": 400.0, "b": 900.0, "c": 1700.0, "d": 2900.0}  # [Hz]
LETTER_S, GAP_S = 0.1, 0.03

MakeUtterance = Callable[..., Utterance]
MakeSplits = Callable[..., Splits]
MakeRecognizer = Callable[..., Recognizer]


@pytest.fixture(scope="session")
def make_utterance(tmp_path_factory: pytest.TempPathFactory) -> MakeUtterance:
    """Writes a recording of a text, a tone a letter."""
    folder = tmp_path_factory.mktemp("tones")

    def make(name: str, text: str, letter_s: float = LETTER_S) -> Utterance:
        times = np.arange(round(letter_s * RATE)) / RATE
        gap = np.zeros(round(GAP_S * RATE))
        parts = [gap]
        for letter in text:
            tone = 0.3 * np.hanning(len(times)) * np.sin(2 * np.pi * TONES[letter] * times)
            parts += [tone, gap]
        noise = np.random.default_rng(len(text)).standard_normal(sum(map(len, parts)))
        waveform = np.concatenate(parts) + 0.001 * noise
        path = folder / f"{name}_{text}_{letter_s:g}.wav"
        soundfile.write(path, waveform, RATE, subtype="FLOAT")
        return Utterance(path, text, len(waveform) / RATE, name)

    return make


@pytest.fixture(scope="session")
def make_splits(make_utterance: MakeUtterance) -> MakeSplits:
    """Twelve utterances of two to four letters to learn from and six others to validate on."""

    def make(train: Sequence[Utterance] = (), lengths: Sequence[int] = (2, 3, 4)) -> Splits:
        words = {n: ["".join(letters) for letters in product("abcd", repeat=n)] for n in lengths}
        sizes = islice(cycle(lengths), 18)
        texts = [words[size][(7 * k + 3) % len(words[size])] for k, size in enumerate(sizes)]
        made = [make_utterance(f"u{k}", text) for k, text in enumerate(texts)]
        return Splits((*train, *made[:12]), tuple(made[12:]), TextNormalizer(), "abcd")

    return make


@pytest.fixture(scope="session")
def make_recognizer() -> MakeRecognizer:
    """A tiny model, always the same one for the same arguments."""

    def make(
        seed: int = 0, features: dict[str, object] | None = None, **model: object
    ) -> Recognizer:
        torch.manual_seed(seed)
        sizes = {"subsampling": 2, "channels": 4, "hidden_size": 24, "num_layers": 1}
        return Recognizer(
            ModelSpec(
                Part("LogMel", {"sample_rate": RATE, "n_mels": 20} | (features or {})),
                Part("BiLstmCtc", sizes | {"dropout": 0.0} | model),
                "abcd",
                {},
            )
        )

    return make


@pytest.fixture(scope="module", autouse=True)
def _no_pictures() -> Iterator[None]:
    """Drawing would take two seconds of a training of a tenth of one."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_curves", "draw_alignments"):
            patch.setattr(f"asr.trainer.diagnostics.{name}", lambda *_, **__: None)
        yield


@pytest.fixture
def _pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are drawn."""
    monkeypatch.setattr("asr.trainer.diagnostics.draw_curves", draw_curves)
    monkeypatch.setattr("asr.trainer.diagnostics.draw_alignments", draw_alignments)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder
