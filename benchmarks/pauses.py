"""WER of one model on utterances with pauses, noise, an offset or another gain around and in them.

    python -m benchmarks.pauses MODEL MANIFEST [--limit N] [--whole]

Each row changes the same utterances in one way, transcribes them as `asr transcribe` does, and
gives the WER beside that of the utterances as they are. `--whole` runs each recording through the
network without looking for speech in it, to see what the search for it brings. The last rows count
words in recordings without speech.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.data.dataset import load_utterance
from asr.data.manifest import read_manifest
from asr.metrics.error_rate import word_errors
from asr.segment import Span
from asr.transcriber import Transcriber

Waveform = NDArray[np.float32]
Recording = tuple[Waveform, str]  # with its reference
JOINED = 10  # utterances of a joined recording
WITHOUT_SPEECH_S = 600.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--limit", type=int, help="utterances, drawn")
    parser.add_argument("--whole", action="store_true", help="look for no speech")
    options = parser.parse_args()
    transcriber = Transcriber.load(options.model)
    if options.whole:
        transcriber.detector = lambda waveform, rate: [Span(0, len(waveform))]
    rate, rules = transcriber.sample_rate, transcriber.recognizer.text
    utterances = read_manifest(options.manifest)
    order = np.random.default_rng(0).permutation(len(utterances))[: options.limit]
    plain = [(load_utterance(utterances[k], rate), rules(utterances[k].text)) for k in order]
    print(f"{len(plain)} utterances, {sum(len(w) for w, _ in plain) / rate:.0f} s")
    first = None
    for name, recordings in conditions(plain, rate).items():
        wer = word_error_rate(transcriber, recordings())
        first = wer if first is None else first
        print(f"{name:44}{100 * wer:7.1f} %{wer / max(first, 1e-9):8.2f} times", flush=True)
    for name, waveform in without_speech(rate).items():
        words = len(transcriber.transcribe([waveform])[0].words)
        minutes = WITHOUT_SPEECH_S / 60
        print(f"{name:44}{words / minutes:7.1f} words a minute", flush=True)


def word_error_rate(transcriber: Transcriber, recordings: Sequence[Recording]) -> float:
    """Corpus WER of recordings, as a ratio."""
    hypotheses = [transcriber.transcribe([waveform])[0].text for waveform, _ in recordings]
    return word_errors([reference for _, reference in recordings], hypotheses).rate


def conditions(
    plain: Sequence[Recording], rate: int
) -> dict[str, Callable[[], Sequence[Recording]]]:
    """Name each change of the utterances, the first of which is none."""

    def each(change: Callable[[Waveform], Waveform]) -> Callable[[], Sequence[Recording]]:
        return lambda: [(change(waveform), text) for waveform, text in plain]

    def around(seconds: float, dbfs: float | None) -> Callable[[], Sequence[Recording]]:
        draws = np.random.default_rng(1)
        return each(
            lambda waveform: np.concatenate([
                noise(draws, seconds, dbfs, rate), waveform, noise(draws, seconds, dbfs, rate),
            ])
        )  # fmt: skip

    def joined(pause_s: float, dbfs: float, count: int) -> Callable[[], Sequence[Recording]]:
        def join() -> Sequence[Recording]:
            draws = np.random.default_rng(2)
            recordings = []
            for start in range(0, len(plain), count):
                group = plain[start : start + count]
                parts = [each for w, _ in group for each in (noise(draws, pause_s, dbfs, rate), w)]
                recordings.append((np.concatenate(parts), " ".join(text for _, text in group)))
            return recordings

        return join

    return {
        "as they are": each(lambda waveform: waveform),
        **{f"{s:g} s of digital silence around": around(s, None) for s in (0.5, 1, 2, 5)},
        **{f"1 s of noise at {db} dBFS around": around(1, db) for db in (-60, -50)},
        **{
            f"{JOINED} joined, pauses of {s:g} s at -80 dBFS": joined(s, -80, JOINED)
            for s in (0.3, 0.6, 1.5)
        },
        "all joined, pauses of 0.6 s at -80 dBFS": joined(0.6, -80, len(plain)),
        f"{JOINED} joined, pauses of 1.5 s at -50 dBFS": joined(1.5, -50, JOINED),
        f"{JOINED} joined without pauses": joined(0, -80, JOINED),
        **{
            f"an offset of {100 * offset:g} % of full scale": each(
                lambda waveform, offset=offset: waveform + np.float32(offset)
            )
            for offset in (0.03, 0.1)
        },
        **{
            f"{db:+d} dB": each(lambda waveform, db=db: waveform * np.float32(10 ** (db / 20)))
            for db in (-30, 20)
        },
    }


def noise(draws: np.random.Generator, seconds: float, dbfs: float | None, rate: int) -> Waveform:
    """White noise of a level, or digital silence."""
    if dbfs is None:
        return np.zeros(round(seconds * rate), np.float32)
    samples = draws.standard_normal(round(seconds * rate), dtype=np.float32)
    return samples * np.float32(10 ** (dbfs / 20))


def without_speech(rate: int) -> dict[str, Waveform]:
    """Ten minutes each of what nobody says anything in."""
    draws = np.random.default_rng(3)
    seconds = np.arange(round(WITHOUT_SPEECH_S * rate)) / rate
    # Notes of a second with a beginning and an end, three at a time.
    notes = 220 * 2 ** (draws.integers(0, 24, (3, len(seconds) // rate + 1)) / 12)
    fade = np.minimum(1, np.minimum(seconds % 1 / 0.02, (1 - seconds % 1) / 0.2))
    music = sum(np.sin(2 * np.pi * line[(seconds).astype(int)] * seconds) for line in notes)
    return {
        "digital silence": noise(draws, WITHOUT_SPEECH_S, None, rate),
        "white noise at -20 dBFS": noise(draws, WITHOUT_SPEECH_S, -20, rate),
        "white noise at -60 dBFS": noise(draws, WITHOUT_SPEECH_S, -60, rate),
        "hum at 50 Hz": (0.1 * np.sin(2 * np.pi * 50 * seconds)).astype(np.float32),
        "chords of a second": (0.1 * fade * music).astype(np.float32),
    }


if __name__ == "__main__":
    main()
