"""Long recordings beside their parts: time, memory, WER, and when words are spoken.

    python -m benchmarks.long MODEL MANIFEST [--minutes 1 10 60 300] [--pause S]

Utterances are joined to recordings of each length, with quiet noise between them, and transcribed
and aligned to their texts in processes of their own. Their CPU time and peak memory stand beside
those of ten minutes. Words are compared with those that the same model finds in each utterance
alone: how many begin and end within 0.1 s of there. The last table is 200 short files, one by one
and side by side.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from asr.aligner import Aligner
from asr.data.dataset import load_utterance
from asr.data.manifest import read_manifest
from asr.metrics.error_rate import word_errors
from asr.transcriber import Transcriber
from asr.word import Word

NOISE = 10 ** (-60 / 20)  # full scale is 1
COMPARED = 600.0  # [s] whose time and memory the others stand beside
NEAR_S = 0.1


@dataclass(frozen=True)
class Spoken:
    """An utterance of a long recording.

    Attributes:
        start: in the recording [s].
        end: [s].
        text: normalised.
        alone: the words that the model finds in it alone.
    """

    start: float
    end: float
    text: str
    alone: tuple[Word, ...]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10, 60, 300])
    parser.add_argument("--pause", type=float, default=0.6, help="between utterances [s]")
    parser.add_argument("--child", choices=("transcribe", "align", "one", "many"))
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.model, options.manifest)))
        return
    rows: dict[tuple[str, float], tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        for minutes in sorted(options.minutes, key=lambda m: (60 * m != COMPARED, m)):
            spoken = write(path, options.model, options.manifest, minutes, options.pause)
            for command in ("transcribe", "align"):
                found = run(command, options.model, path)
                words = [Word(*each) for each in found["words"]]
                rows[command, minutes] = found["seconds"], found["bytes"]
                seconds, size = rows[command, COMPARED / 60]
                print(
                    f"{command:10} {minutes:4g} min: {found['seconds']:7.1f} s "
                    f"({found['seconds'] / seconds:5.2f} times), {found['bytes'] / 1e6:4.0f} MB "
                    f"({found['bytes'] / size:4.2f} times); {compare(words, spoken)}",
                    flush=True,
                )
    for how in ("one", "many"):
        found = run(how, options.model, options.manifest)
        print(f"200 files, {how:4}: {found['seconds']:.1f} s, {found['wall']:.1f} s by the clock")


def write(path: Path, model: Path, manifest: Path, minutes: float, pause_s: float) -> list[Spoken]:
    """Write a recording and its text, utterance by utterance; return what is said in it."""
    transcriber = Transcriber.load(model, "cpu")
    rate, rules = transcriber.sample_rate, transcriber.recognizer.text
    utterances = read_manifest(manifest)
    waveforms = [load_utterance(each, rate) for each in utterances]
    alone = transcriber.transcribe(waveforms)
    draws = np.random.default_rng(0)
    spoken: list[Spoken] = []
    place = 0
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        for k in itertools.cycle(draws.permutation(len(utterances)).tolist()):
            if place >= 60 * minutes * rate:
                break
            for samples in (NOISE * draws.standard_normal(round(pause_s * rate)), waveforms[k]):
                file.write(samples)
                place += len(samples)
            start, end = (place - len(waveforms[k])) / rate, place / rate
            spoken.append(Spoken(start, end, rules(utterances[k].text), alone[k].words))
    path.with_suffix(".txt").write_text(" ".join(each.text for each in spoken))
    return spoken


def run(command: str, *arguments: object) -> dict[str, Any]:
    """Do a command's work in a process of its own; return what it says."""
    words = [sys.executable, "-m", "benchmarks.long", *map(str, arguments), "--child", command]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(command: str, model: Path, source: Path) -> dict[str, Any]:
    """Work on a recording, or the recordings of a manifest; tell CPU time, memory and words."""
    words: Iterable[Word] = ()
    if command == "align":
        aligner = Aligner.load(model, "cpu")
        start, clock = time.process_time(), time.monotonic()
        words = aligner.align_file(source, source.with_suffix(".txt").read_text()).words
    else:
        transcriber = Transcriber.load(model, "cpu")
        start, clock = time.process_time(), time.monotonic()
        if command == "transcribe":
            words = transcriber.transcribe_file(source).words
        else:
            paths = [each.audio_filepath for each in read_manifest(source)][:200]
            if command == "many":
                list(transcriber.transcribe_files(paths))
            else:
                for path in paths:
                    transcriber.transcribe_file(path)
    return {
        "seconds": time.process_time() - start,
        "wall": time.monotonic() - clock,
        "bytes": peak_bytes(),
        "words": [(word.word, word.start, word.end, word.confidence) for word in words],
    }


def peak_bytes() -> int:
    """The most memory that this process has held; ru_maxrss has that of its parent in it."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def compare(words: list[Word], spoken: list[Spoken]) -> str:
    """WER of a long recording beside that of its utterances, and how near its words are."""
    hypotheses = [" ".join(word.word for word in own) for own in within(words, spoken)]
    references = [each.text for each in spoken]
    alone = [" ".join(word.word for word in each.alone) for each in spoken]
    apart = [
        max(abs(word.start - s.start - other.start), abs(word.end - s.start - other.end))
        for s, own in zip(spoken, within(words, spoken), strict=True)
        if [word.word for word in own] == [word.word for word in s.alone]
        for word, other in zip(own, s.alone, strict=True)
    ]
    return (
        f"WER {100 * word_errors(references, hypotheses).rate:.2f} % (alone "
        f"{100 * word_errors(references, alone).rate:.2f} %); of {len(apart):,} words in "
        f"utterances with the same text {100 * np.mean(np.array(apart) <= NEAR_S + 1e-6):.2f} % "
        f"within {NEAR_S:g} s, median {np.median(apart):.3f} s, largest {max(apart):.2f} s"
    )


def within(words: list[Word], spoken: list[Spoken]) -> Iterator[list[Word]]:
    """The words whose middle lies in each utterance, or in the pause behind it."""
    edges = [each.start for each in spoken[1:]] + [float("inf")]
    place = 0
    for edge in edges:
        own = []
        while place < len(words) and (words[place].start + words[place].end) / 2 < edge:
            own.append(words[place])
            place += 1
        yield own


if __name__ == "__main__":
    main()
