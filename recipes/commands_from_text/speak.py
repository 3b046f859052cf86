"""Have commands spoken by synthetic voices: a corpus to train on, from text alone."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import soundfile
import soxr
from kokoro import Kokoro
from numpy.typing import NDArray
from voices import Command, Engine, Espeak, Speaker, Waveform

from asr.atomic_file import replace_bytes, replace_text
from asr.audio import encode_audio
from asr.cli.options import Parser
from asr.cli.terminal import one_line, say, track
from asr.decoder.phrases import read_phrases
from asr.untrusted import open_regular, read_json, shown, whole_lines

MAX_UTTERANCES = 200_000
MAX_OTHERS = 100_000
MAX_JOBS = 256
MAX_OTHER_CHARACTERS = 200
MAX_LEFT_OUT = 0.05  # share of the utterances in which nothing is heard
SETTINGS = "speak.json"  # in the folder of the corpus
MAX_SETTINGS_BYTES = 64 << 20

MOST_JOINED = 4  # phrases that are said in a row
EDGE_S = (0.0, 0.15)  # range of the silence before and behind the speech [s]
SILENCE_DB = 38.0  # frames so far below the loudest are silence
FRAME_S = 0.005
PEAK_DBFS = (-15.0, -1.0)


@dataclass(frozen=True)
class Item:
    """An utterance to be spoken.

    Attributes:
        id: with its split, and its number.
        split: train or dev.
        speaker: who says it.
        phrases: what is said, in a row.
        edges_s: silence before and behind [s].
        peak_dbfs: how loud [dBFS].
    """

    id: str
    split: str
    speaker: Speaker
    phrases: tuple[str, ...]
    edges_s: tuple[float, float]
    peak_dbfs: float

    def path(self, out: Path) -> Path:
        """Name its file in the folder of a corpus."""
        return out / "audio" / self.speaker.engine / f"{self.id}.flac"


def main(arguments: list[str]) -> int:
    """Speak a corpus, or go on with one that was begun."""
    options = make_parser().parse_args(arguments)
    phrases = read_phrases(options.phrases, lambda text: text)
    others = read_others(options.others) if options.others else []
    engines = make_engines(options)
    items = plan(options, engines, phrases, others)
    options.output.mkdir(parents=True, exist_ok=True)
    begin(options, phrases, others)
    speak_all(items, options.output, options.sample_rate, options.jobs)
    rows: dict[str, list[str]] = {"train": [], "dev": []}
    for item in items:
        path = item.path(options.output)
        if path.is_file():
            row = {
                "audio_filepath": str(path.relative_to(options.output)),
                "duration": round(soundfile.info(path).duration, 4),
                "text": " ".join(item.phrases), "id": item.id,
                "speaker": f"{item.speaker.engine}_{item.speaker.name}",
            }  # fmt: skip
            rows[item.split].append(json.dumps(row, ensure_ascii=False))
    silent = len(items) - sum(map(len, rows.values()))
    if silent > MAX_LEFT_OUT * len(items):
        raise ValueError(f"nothing is heard in {silent} of {len(items)} utterances, expected fewer")
    for split, lines in rows.items():
        replace_text(options.output / f"{split}.jsonl", "".join(f"{line}\n" for line in lines))
    report(options.output, rows, silent)
    return 0


def speak_all(items: Sequence[Item], out: Path, sample_rate: int, jobs: int) -> None:
    """Speak what is not there yet; every utterance is a file as soon as it is spoken.

    Args:
        items: all of them.
        out: folder of the corpus.
        sample_rate: [Hz].
        jobs: processes; each takes its part.

    Raises:
        ValueError: a voice failed.
    """

    def speak(part: Sequence[Item], is_first: bool) -> None:
        for item in track(part, "speaking", "utterances") if is_first else part:
            path = item.path(out)
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                waveform = finished(item, sample_rate)
                if waveform is not None:
                    content, _ = encode_audio(waveform, sample_rate, "FLAC")
                    replace_bytes(path, content, durable=False)

    # Forked, so that items with their voices need no pickling; models are loaded behind the fork.
    context = multiprocessing.get_context("fork")
    others = [
        context.Process(
            target=guarded, args=(lambda k=k: speak(items[k::jobs], False),), daemon=True
        )
        for k in range(1, jobs)
    ]
    for process in others:
        process.start()
    speak(items[::jobs], True)
    for process in others:
        process.join()
        if process.exitcode:
            raise ValueError("another process of --jobs failed, as it told; expected none to")


def make_engines(options: argparse.Namespace) -> dict[str, tuple[Engine, float]]:
    """Make what --voices names, each with its share of the utterances."""
    engines: dict[str, tuple[Engine, float]] = {}
    for word in options.voices:
        name, _, number = word.partition(":")
        try:
            share = float(number or 1)
        except ValueError:
            share = 0.0
        if not 0 < share < float("inf"):
            raise ValueError(f"--voices has {shown(word)}, expected NAME or NAME:SHARE")
        if name == "kokoro":
            if options.kokoro is None:
                raise ValueError("--voices has kokoro, expected --kokoro FOLDER as well")
            engines[name] = Kokoro(options.kokoro, options.language), share
        elif name == "espeak":
            engines[name] = Espeak(options.language), share
        elif name == "command":
            if options.command is None:
                raise ValueError("--voices has command, expected --command as well")
            engines[name] = Command(options.command, options.command_voices), share
        else:
            raise ValueError(f"--voices has {shown(word)}, expected kokoro, espeak or command")
    return engines


def read_others(path: Path) -> list[str]:
    """Read sentences that are none of the phrases, one a line."""
    others: dict[str, None] = {}
    with open_regular(path, "sentences") as file:
        for number, raw in whole_lines(file, path):
            try:
                line = " ".join(raw.decode().removeprefix("\ufeff").split())
            except ValueError as error:
                raise ValueError(f"{path}:{number}: not UTF-8, expected a sentence") from error
            if len(line) > MAX_OTHER_CHARACTERS:
                raise ValueError(
                    f"{path}:{number}: {len(line)} characters, expected at most "
                    f"{MAX_OTHER_CHARACTERS}"
                )
            if line:
                others[line] = None
            if len(others) > MAX_OTHERS:
                raise ValueError(f"{path}: more than {MAX_OTHERS:,} sentences, expected fewer")
    if not others:
        raise ValueError(f"{path}: no sentences, expected one a line")
    return list(others)


def plan(
    options: argparse.Namespace,
    engines: dict[str, tuple[Engine, float]],
    phrases: Sequence[str],
    others: Sequence[str],
) -> list[Item]:
    """Draw every utterance from the seed and its number alone: a longer corpus begins the same.

    Raises:
        ValueError: a number out of range, or too few voices to hold some back for dev.
    """
    if not 1 <= options.utterances <= MAX_UTTERANCES:
        raise ValueError(f"--utterances is {options.utterances}, expected 1 to {MAX_UTTERANCES:,}")
    if not 1 <= options.jobs <= MAX_JOBS:
        raise ValueError(f"--jobs is {options.jobs}, expected 1 to {MAX_JOBS}")
    if not 4_000 <= options.sample_rate <= 48_000:
        raise ValueError(f"--sample-rate is {options.sample_rate}, expected 4000 to 48000 Hz")
    for name in ("dev", "joined", "others_share"):
        if not 0 <= getattr(options, name) < 1:
            raise ValueError(
                f"--{name.replace('_', '-')} is {getattr(options, name)}, expected 0 to below 1"
            )
    voices = {
        (name, split): group
        for name, (engine, _) in engines.items()
        for split, group in split_voices(engine.voices, options.seed).items()
    }
    if not any(voices[name, "dev"] for name in engines):
        raise ValueError("there is 1 voice, expected at least 2, of which dev gets one")
    return list(_draw_all(options, engines, voices, phrases, others))


def split_voices(voices: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Hold a seventh of the voices back for dev, at least one where there are two."""
    shuffled = list(np.random.default_rng([seed, len(voices)]).permutation(voices))
    held_out = max(len(voices) // 7, 1) if len(voices) > 1 else 0
    return {"dev": sorted(shuffled[:held_out]), "train": sorted(shuffled[held_out:])}


def _draw_all(
    options: argparse.Namespace,
    engines: dict[str, tuple[Engine, float]],
    voices: dict[tuple[str, str], list[str]],
    phrases: Sequence[str],
    others: Sequence[str],
) -> Iterator[Item]:
    order: NDArray[np.int64] = np.arange(len(phrases))
    for number in range(options.utterances):
        if number % len(phrases) == 0:  # every phrase once, then every phrase again
            order = np.random.default_rng([options.seed, 1, number]).permutation(len(phrases))
        generator = np.random.default_rng([options.seed, 0, number])
        split = "dev" if generator.random() < options.dev else "train"
        names = [name for name in engines if voices[name, split]]
        shares = np.array([engines[name][1] for name in names])
        name = str(generator.choice(names, p=shares / shares.sum()))
        speaker = engines[name][0].draw(voices[name, split], generator)
        said = [phrases[order[number % len(phrases)]]]
        if others and generator.random() < options.others_share:
            said = [str(generator.choice(others))]
        elif generator.random() < options.joined:
            more = generator.integers(1, MOST_JOINED)
            said += [phrases[k] for k in generator.integers(len(phrases), size=more)]
        before, behind = generator.uniform(*EDGE_S, size=2)
        yield Item(
            f"{split}-{number:06d}", split, speaker, tuple(said), (before, behind),
            generator.uniform(*PEAK_DBFS),
        )  # fmt: skip


def begin(options: argparse.Namespace, phrases: Sequence[str], others: Sequence[str]) -> None:
    """Note what the corpus is made of, or make sure that one that was begun is the same.

    Raises:
        ValueError: the folder has a corpus of other settings.
    """
    settings = {
        "phrases": list(phrases), "others": list(others),
        **{
            name: getattr(options, name)
            for name in (
                "language", "voices", "command", "command_voices", "others_share", "joined", "dev",
                "sample_rate", "seed",
            )
        },
    }  # fmt: skip
    path = options.output / SETTINGS
    if path.is_file():
        known = read_json(path, "the settings of a corpus", MAX_SETTINGS_BYTES)
        known = known if isinstance(known, dict) else {}
        for name, value in settings.items():
            if known.get(name) != value:
                raise ValueError(
                    f"{options.output}: begun with other {name.replace('_', ' ')}, expected the "
                    "same, or another --output"
                )
    else:
        replace_text(path, json.dumps(settings, ensure_ascii=False, indent=1) + "\n")


def finished(item: Item, sample_rate: int) -> NDArray[np.float32] | None:
    """Speak an utterance, cut the silence at its ends, and set its level.

    Returns:
        `(num_samples,)` float32; None where nothing is heard.
    """
    spoken: Waveform = item.speaker.say(item.phrases)
    waveform = soxr.resample(spoken.samples, spoken.sample_rate, sample_rate, "HQ")
    length = round(FRAME_S * sample_rate)
    frames = waveform[: len(waveform) // length * length].reshape(-1, length)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    if not power.size or not 0 < power.max() < np.inf:
        return None
    loud = np.flatnonzero(power >= power.max() * 10 ** (-SILENCE_DB / 10))
    before, behind = (round(edge * sample_rate) for edge in item.edges_s)
    begin_, end = loud[0] * length - before, (loud[-1] + 1) * length + behind
    cut = waveform[max(begin_, 0) : max(end, 0)]
    cut = np.pad(cut, (max(-begin_, 0), max(end - len(waveform), 0)))
    return np.asarray(cut * (10 ** (item.peak_dbfs / 20) / np.abs(cut).max()), np.float32)


def report(out: Path, rows: dict[str, list[str]], silent: int) -> None:
    """Say what was written, and what was not."""
    for split, lines in rows.items():
        parsed = [json.loads(line) for line in lines]
        minutes = sum(row["duration"] for row in parsed) / 60
        voices = len({row["speaker"] for row in parsed})
        say(f"{out / split}.jsonl: {len(lines):,} utterances, {minutes:.1f} min, {voices} voices")
    if silent:
        say(f"nothing is heard in {silent:,} utterances, which are left out")


def make_parser() -> Parser:
    """Define the arguments."""
    parser = Parser(
        prog="speak.py",
        description="Have commands spoken by synthetic voices, and write manifests to train on. "
        "Started again, it goes on where it was stopped; with more utterances, it adds them.",
    )
    parser.add_argument(
        "--phrases", type=Path, required=True, metavar="FILE",
        help="the commands, one a line, with slots: turn {on,off} the {light,radio}",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="of the corpus"
    )
    parser.add_argument("--language", default="en", help="of the commands; default: en")
    parser.add_argument(
        "--voices", nargs="+", default=["kokoro", "espeak"], metavar="NAME[:SHARE]",
        help="kokoro, espeak, command, and each one's share; default: kokoro espeak",
    )  # fmt: skip
    parser.add_argument(
        "--kokoro", type=Path, metavar="FOLDER", help="with Kokoro's files, as they are downloaded"
    )
    parser.add_argument(
        "--command", metavar="WORDS",
        help="a program that speaks {text}, or else its standard input, into the file {out}",
    )  # fmt: skip
    parser.add_argument(
        "--command-voices", nargs="+", default=[], metavar="NAME",
        help="for {voice} in the command, one after the other",
    )  # fmt: skip
    parser.add_argument(
        "--others", type=Path, metavar="FILE",
        help="sentences that are none of the commands, one a line, so that they are told apart",
    )  # fmt: skip
    parser.add_argument(
        "--others-share", type=float, default=0.2, help="of the utterances; default: 0.2"
    )
    parser.add_argument(
        "--joined", type=float, default=0.4,
        help="share of the utterances with several commands in a row; default: 0.4",
    )  # fmt: skip
    parser.add_argument("--utterances", type=int, default=4000, help="in all; default: 4000")
    parser.add_argument("--dev", type=float, default=0.1, help="share of dev; default: 0.1")
    parser.add_argument("--sample-rate", type=int, default=16_000, help="[Hz]; default: 16000")
    parser.add_argument("--jobs", type=int, default=1, help="processes; default: 1")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn; default: 0")
    return parser


def guarded(work: Callable[[], int | None], is_debug: bool = False) -> NoReturn:
    """Do something, and leave: with one line where it is a user's to mend."""
    try:
        sys.exit(work())
    except (ValueError, OSError) as error:
        if is_debug:
            raise
        print(f"speak.py: error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    guarded(lambda: main(sys.argv[1:]), "--debug" in sys.argv)
