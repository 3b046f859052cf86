"""Detectors of speech side by side: WER with pauses and noise, words without speech, their time.

    OMP_NUM_THREADS=1 python -m benchmarks.detectors MODEL MANIFEST [--limit N]

`whole` cuts nothing; `energy` is `asr.segment.find_segments`; `blanks` takes for a pause where the
network itself gives no label half of the probability; `silero` is the network of the package
silero-vad (pip install silero-vad), left out where that is not installed. All cut at the same
pauses and keep the same margins. The conditions are those of benchmarks/pauses.py. Processor time
is that of the detector alone, and how many times that of `energy` it is.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asr.data.dataset import load_utterance
from asr.data.manifest import read_manifest
from asr.recognizer import Recognizer
from asr.segment import LONG_PAUSE_S, MARGIN_S, PAUSE_S, UTTERANCE_S, Span, find_segments
from asr.transcriber import Transcriber
from benchmarks.pauses import WITHOUT_SPEECH_S, conditions, without_speech, word_error_rate

Waveform = NDArray[np.float32]
Detector = Callable[[Waveform, int], list[Span]]
WINDOW_S, AROUND_S = 20.0, 2.0  # [s] that the network sees at once, and beside it
LABEL_S = 0.1  # [s] a label is said at one frame of its sound: so much on either side is of it


class Timed:
    """A detector, with the processor time that it has taken [s] for how much audio [s]."""

    def __init__(self, detect: Detector) -> None:
        self._detect = detect
        self.seconds = self.audio_s = 0.0

    def __call__(self, waveform: Waveform, rate: int) -> list[Span]:
        """Find the segments of a waveform."""
        start = time.process_time()
        spans = self._detect(waveform, rate)
        self.seconds += time.process_time() - start
        self.audio_s += len(waveform) / rate
        return spans


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--limit", type=int, help="utterances, drawn")
    options = parser.parse_args()
    transcriber = Transcriber.load(options.model, "cpu")
    rate, rules = transcriber.sample_rate, transcriber.recognizer.text
    utterances = read_manifest(options.manifest)
    order = np.random.default_rng(0).permutation(len(utterances))[: options.limit]
    plain = [(load_utterance(utterances[k], rate), rules(utterances[k].text)) for k in order]
    detectors = {
        "whole": Timed(lambda waveform, rate: [Span(0, len(waveform))]),
        "energy": Timed(find_segments),
        "blanks": Timed(blanks(transcriber.recognizer)),
    }
    try:
        detectors["silero"] = Timed(silero())
    except ImportError:
        print("silero is left out: pip install silero-vad")
    print(f"{'':48}" + "".join(f"{name:>9}" for name in detectors))

    def row(name: str, measure: Callable[[], float]) -> None:
        cells = []
        for detector in detectors.values():
            transcriber.detector = detector
            cells.append(f"{measure():9.1f}")
        print(f"{name:48}" + "".join(cells), flush=True)

    for name, recordings in conditions(plain, rate).items():
        row(f"WER {name} [%]", lambda of=recordings: 100 * word_error_rate(transcriber, of()))
    for name, waveform in without_speech(rate).items():
        row(
            f"words a minute of {name}",
            lambda of=waveform: len(transcriber.transcribe([of])[0].words) * 60 / WITHOUT_SPEECH_S,
        )
    audio_s = detectors["energy"].audio_s
    print(f"{f'processor time for {audio_s:.0f} s of audio [s]':48}"
          + "".join(f"{each.seconds:9.1f}" for each in detectors.values()))  # fmt: skip
    print(f"{'times that of energy':48}"
          + "".join(f"{each.seconds / detectors['energy'].seconds:9.1f}"
                    for each in detectors.values()))  # fmt: skip


def silero() -> Detector:
    """The detector of silero-vad, by its own settings but for what it merges.

    Raises:
        ImportError: it is not installed.
    """
    package: Any = importlib.import_module("silero_vad")
    network = package.load_silero_vad()

    def detect(waveform: Waveform, rate: int) -> list[Span]:
        with torch.inference_mode():
            found = package.get_speech_timestamps(
                torch.from_numpy(np.ascontiguousarray(waveform)), network, sampling_rate=rate
            )
        return segments([(each["start"], each["end"]) for each in found], len(waveform), rate)

    return detect


def blanks(recognizer: Recognizer) -> Detector:
    """A detector by the blanks of the model itself, window by window."""

    def detect(waveform: Waveform, rate: int) -> list[Span]:
        size, around, label = (round(s * rate) for s in (WINDOW_S, AROUND_S, LABEL_S))
        speech: list[tuple[int, int]] = []
        for start in range(0, len(waveform), size):
            first = max(0, start - around)
            log_probs, _ = recognizer.log_probs([waveform[first : start + size + around]])
            frame = recognizer.frame_shift_s * rate  # samples
            for number in np.flatnonzero(np.exp(log_probs[0, :, 0]) < 0.5):
                at = first + round(number * frame)
                if start <= at < start + size:
                    end = min(len(waveform), round(at + frame) + label)
                    speech.append((max(0, at - label), end))
        return segments(speech, len(waveform), rate)

    return detect


def segments(speech: Sequence[tuple[int, int]], size: int, rate: int) -> list[Span]:
    """Make segments of stretches of speech by the rules of `find_segments`."""
    runs: list[list[int]] = []
    for start, end in speech:
        if runs and start - runs[-1][1] < PAUSE_S * rate:
            runs[-1][1] = max(end, runs[-1][1])
        else:
            runs.append([start, end])
    edges = [0, *(each for run in runs for each in run), size]
    pauses = [end - start for start, end in zip(edges[::2], edges[1::2], strict=True)]
    if runs and size <= UTTERANCE_S * rate and max(pauses) < LONG_PAUSE_S * rate:
        return [Span(0, size)]
    margin, spans = round(MARGIN_S * rate), []
    for number, (start, end) in enumerate(runs):
        lowest = (runs[number - 1][1] + start) // 2 if number else 0
        highest = (end + runs[number + 1][0]) // 2 if number + 1 < len(runs) else size
        spans.append(Span(max(start - margin, lowest), min(end + margin, highest)))
    return spans


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
