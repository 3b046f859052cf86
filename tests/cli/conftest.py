"""A corpus that trains in seconds, letters as tones, and a model trained on it by the command."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.cli import terminal
from asr.cli.main import main

RATE = 8000  # [Hz]
TONES = {"a": 500.0, "b": 1200.0, "c": 2400.0, " ": 0.0}  # [Hz]
LETTER_S = 0.16
TEXTS = ("ab", "ba", "c a", "abc", "cab", "b c", "ac", "bac", "ca", "a b", "cb", "bca")

# Overrides that make every training of these tests small.
TINY = (
    "features=log_mel_40_8k", "augment=none", "schedule=constant", "optim.lr=0.01",
    "model.subsampling=2", "model.channels=4", "model.hidden_size=24", "model.num_layers=1",
    "model.dropout=0", "trainer.num_workers=0", "trainer.batch_duration_s=3",
    "trainer.accelerator=cpu",
)  # fmt: skip


def tones(text: str) -> np.ndarray:
    """The waveform of a text: a tone a letter."""
    time = np.arange(int(LETTER_S * RATE)) / RATE
    window = np.hanning(len(time))
    parts = [0.5 * window * np.sin(2 * np.pi * TONES[letter] * time) for letter in text]
    return np.concatenate(parts).astype(np.float32)


def write_corpus(
    folder: Path, texts: Sequence[str] = TEXTS, spoken: Sequence[str] | None = None
) -> Path:
    """Write the tone corpus; returns its manifest.

    Args:
        folder: of its files.
        texts: of the utterances.
        spoken: the tones of each; None for the letters of the texts.
    """
    rows = []
    for number, (text, said) in enumerate(zip(texts, spoken or texts, strict=True)):
        name = f"{number:02}.wav"
        soundfile.write(folder / name, tones(said), RATE)
        duration = len(said) * int(LETTER_S * RATE) / RATE
        rows.append(
            {"audio_filepath": name, "duration": duration, "text": text, "speaker": name[1]}
        )
    manifest = folder / "train.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of the tone corpus."""
    return write_corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="session")
def run_dir(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished `asr train` on the tone corpus."""
    runs = tmp_path_factory.mktemp("runs")
    status = main(
        ["train", *TINY, f"data.train={corpus}", f"data.dev={corpus}", f"paths.run_dir={runs}",
         "name=tones", "trainer.max_epochs=60", "trainer.validate_every=15"]
    )  # fmt: skip
    assert status == 0
    return runs / "train" / "tones"


@pytest.fixture(scope="session")
def model_file(run_dir: Path) -> Path:
    """The best model of that training."""
    return run_dir / "best.safetensors"


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Overrides of `asr train` for a model that fits the tone corpus."""
    return TINY


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a second for each validation, in trainings of this process."""
    monkeypatch.setattr("asr.trainer.diagnostics.draw_curves", lambda run_dir, has_words: None)
    monkeypatch.setattr("asr.trainer.diagnostics.draw_alignments", lambda path, decoded: None)


@pytest.fixture(autouse=True)
def _no_plain_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine takes longer than the interval; what is told then is tested by itself."""
    monkeypatch.setattr(terminal, "PLAIN_INTERVAL_S", math.inf)


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail as a user's mistake does; returns its one line."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        status = main(list(arguments))
        captured = capsys.readouterr()
        assert status == 2
        errors = [line for line in captured.err.splitlines() if line.startswith("asr: error: ")]
        assert captured.err.splitlines() == errors
        assert len(errors) == 1
        assert "Traceback" not in captured.out
        return errors[0].removeprefix("asr: error: ")

    return run
