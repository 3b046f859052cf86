"""Recordings of a manifest joined into rows, as people say digits one after the other.

    python -m benchmarks.joined MANIFEST OUT [--count 10] [--pause 0.1] [--seed 0]

Each speaker's recordings in an order that is drawn, COUNT at a time, PAUSE seconds of silence
between them; OUT gets the audio and `rows.jsonl`, a manifest. What is left at a speaker's end is a
shorter row.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile

from asr.data.dataset import load_utterance
from asr.data.manifest import Utterance, read_manifest, write_manifest


def main() -> None:
    """Write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--count", type=int, default=10, help="recordings of a row; default: 10")
    parser.add_argument("--pause", type=float, default=0.1, help="between them [s]; default: 0.1")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(options.seed)
    of_speaker = defaultdict(list)
    for utterance in read_manifest(options.manifest):
        of_speaker[utterance.speaker].append(utterance)
    rows = list[Utterance]()
    for _, own in sorted(of_speaker.items(), key=lambda item: str(item[0])):
        order = draws.permutation(len(own))
        for first in range(0, len(own), options.count):
            chosen = [own[k] for k in order[first : first + options.count]]
            file = options.output / f"{len(rows):04d}.wav"
            rows.append(joined(chosen, file, options.pause))
    write_manifest(options.output / "rows.jsonl", rows)
    print(f"{len(rows)} rows of {sum(map(len, of_speaker.values()))} recordings: {options.output}")


def joined(utterances: list[Utterance], file: Path, pause_s: float) -> Utterance:
    """Write some recordings of a speaker as one."""
    rate = soundfile.info(utterances[0].audio_filepath).samplerate
    silence = np.zeros(round(pause_s * rate), np.float32)
    parts = [part for each in utterances for part in (load_utterance(each, rate), silence)][:-1]
    waveform = np.concatenate(parts)
    soundfile.write(file, waveform, rate)
    text = " ".join(each.text for each in utterances)
    duration = len(waveform) / rate
    return Utterance(file, text, duration, file.stem, utterances[0].speaker)


if __name__ == "__main__":
    main()
