"""Synthesise the corpus of connected digits and spoken commands."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import librosa
import numpy as np
import soundfile
from opus_file import write_opus

SEED = 1997
SAMPLE_RATE = 16_000  # Hz
SPLITS = ("train", "dev", "test")

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MAX_DIGITS = 7  # sequences have 1 to 7 digits, each length equally often
UNIQUE_FROM = 3  # a sequence of at least this many digits occurs once in the whole corpus
NUM_DIGIT_SEQUENCES = {"train": 1050, "dev": 114, "test": 128}
COMMANDS = """
    stop, start, pause, continue, yes, no, go back, help me, thank you, good morning, good night,
    turn the light on, turn the light off, open the door, close the window, turn left, turn right,
    go straight ahead, play some music, next song, louder please, volume down, what time is it,
    what is the weather today, set a timer for five minutes, set an alarm for seven,
    cancel the alarm, call home, send a message, read the news, take a picture, show me the map,
    how far is the station, add milk to the list, start the coffee machine, where are my keys
"""
NUM_COMMAND_ROUNDS = {"train": 18, "dev": 1, "test": 2}  # every command once a round

ESPEAK_ACCENTS = "en-us en-us-nyc en-gb en-gb-scotland en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd"
# One family a line: variants made from one another, or whose lower formants differ by 2 % at most.
ESPEAK_FAMILIES = """
    adam benjamin croak grandpa john klatt2 klatt4 klatt6 m6 m7
    Diogo Henrique michel
    m1 m3 Nguyen
    Andy AnxiousAndy
    Mike pedro
    steph steph3
    f1
    f2
    f3
    linda
    Annie
    Andrea
    grandma
    shelby
    Alex
    Denis
    Gene
    Jacky
    Lee
    Marco
    Mario
    Michael
    Storm
    boris
    david
    ed
    edward
    gustave
    kaukovalta
    m2
    m4
    m5
    marcelo
    max
    norbert
    pablo
    paul
    robert
    sandro
    travis
    victor
"""
# Voices made from the recordings of a person: speaker, then what each engine calls that voice.
RECORDED_VOICES: dict[str, tuple[tuple[str, str], ...]] = {
    "awb": (("flite", "awb"),),
    "kal": (("flite", "kal16"), ("festival", "kal_diphone")),
    "ked": (("festival", "ked_diphone"),),
    "rms": (("flite", "rms"),),
    "slt": (("flite", "slt"), ("festival", "cmu_us_slt_arctic_hts")),
}
HELD_OUT_VARIANTS = 5  # at least, in each of dev and test, from whole families
RECORDED_SHARE = {"train": 0.4, "dev": 1 / 6, "test": 1 / 6}  # of the utterances

STRETCH = (0.9, 1.3)  # of the engine's own duration
MAX_SCALING = {"espeak-ng": 0.08, "flite": 0.2, "festival": 0.2}  # of pitch and formants, +-
PAUSE_SHARE = 0.25  # of the sequences of four digits and more have a pause
NOISE_SHARE = 0.5  # of the utterances have white or pink noise
SNR_DB = (20.0, 40.0)
PEAK_DBFS = (-12.0, -3.0)
SILENCE_S = 0.15  # on either side of the speech
TRIM_DB = 40.0  # frames this far below the loudest are silence
TRIM_FRAME = SAMPLE_RATE // 100  # samples: 10 ms
COMPRESSION_LEVEL = 0.984  # 10 kbit/s: just enough for Opus to keep the band up to 8 kHz


@dataclass(frozen=True)
class Voice:
    """A voice of an engine; all voices of one speaker are in one split."""

    speaker: str
    engine: str
    name: str


@dataclass(frozen=True)
class Item:
    """An utterance to make: `spoken` is `text` with a comma where the speaker pauses."""

    id: str
    split: str
    voice: Voice
    text: str
    spoken: str


def require(condition: bool, message: str) -> None:
    """Leave with one line on stderr unless the condition holds."""
    if not condition:
        raise SystemExit(f"generate.py: error: {message}")


def digit_sequences(
    count: int, taken: set[tuple[int, ...]], rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """Cut a shuffled pool of equally many of each digit into new sequences, added to `taken`."""
    lengths = np.arange(count) % MAX_DIGITS + 1
    ends = np.cumsum(lengths)
    pool = rng.permutation(np.arange(ends[-1]) % len(DIGITS))
    while True:
        sequences = [tuple(part.tolist()) for part in np.split(pool, ends[:-1])]
        seen, clashes = set(taken), []
        for start, sequence in zip(ends - lengths, sequences, strict=True):
            if len(sequence) >= UNIQUE_FROM and sequence in seen:
                clashes.append(start)
            seen.add(sequence)
        if not clashes:
            taken.update(sequences)
            return sequences
        for start in clashes:
            other = rng.integers(len(pool))
            pool[start], pool[other] = pool[other], pool[start]


def speak_digits(sequence: tuple[int, ...], rng: np.random.Generator) -> str:
    """Spell digits as words, some long sequences in two groups with a comma between."""
    words = [DIGITS[digit] for digit in sequence]
    if len(words) >= 4 and rng.random() < PAUSE_SHARE:
        words[int(rng.integers(1, len(words) - 2))] += ","
    return " ".join(words)


def draw_voices(rng: np.random.Generator) -> dict[str, tuple[list[str], list[str]]]:
    """Draw each split's espeak-ng variants, by whole families, and recorded speakers."""
    families = [line.split() for line in ESPEAK_FAMILIES.strip().splitlines()]
    families = [families[i] for i in rng.permutation(len(families))]
    speakers = rng.permutation(list(RECORDED_VOICES)).tolist()
    drawn = {}
    for split in ("test", "dev"):
        variants: list[str] = []
        while len(variants) < HELD_OUT_VARIANTS:
            variants += families.pop()
        drawn[split] = (variants, [speakers.pop()])
    return {"train": (list(chain.from_iterable(families)), speakers), **drawn}


def share_out(
    variants: list[str], speakers: list[str], share: float, count: int, rng: np.random.Generator
) -> list[Voice]:
    """Return the voices of `count` utterances in random order, a share of them recorded ones."""
    num_recorded = round(share * count)
    voices = []
    for i in range(num_recorded):
        speaker = speakers[i % len(speakers)]
        names = RECORDED_VOICES[speaker]
        voices.append(Voice(speaker, *names[i // len(speakers) % len(names)]))
    for i in range(count - num_recorded):
        name = variants[i % len(variants)]
        voices.append(Voice(f"espeak_{name.lower()}", "espeak-ng", name))
    return [voices[i] for i in rng.permutation(count)]


def plan(seed: int) -> list[Item]:
    """List every utterance of the corpus, a pure function of the seed."""
    rng = np.random.default_rng(seed)
    drawn = draw_voices(rng)
    commands = " ".join(COMMANDS.split()).split(", ")
    taken: set[tuple[int, ...]] = set()
    items = []
    for split in SPLITS:
        sequences = digit_sequences(NUM_DIGIT_SEQUENCES[split], taken, rng)
        lines = [speak_digits(sequence, rng) for sequence in sequences]
        lines += commands * NUM_COMMAND_ROUNDS[split]
        variants, speakers = drawn[split]
        voices = share_out(variants, speakers, RECORDED_SHARE[split], len(lines), rng)
        for number, (spoken, voice) in enumerate(zip(lines, voices, strict=True)):
            text = spoken.replace(",", "")
            items.append(Item(f"{split}-{number:04d}", split, voice, text, spoken))
    return items


def command_line(
    item: Item, wav: Path, stretch: float, pitch: float, rng: np.random.Generator
) -> list[str]:
    """Return the command that speaks an item; pitch is -1 to 1, and not every voice heeds it."""
    f0_mean = 105 + 20 * pitch  # Hz
    if item.voice.engine == "espeak-ng":
        voice = f"{rng.choice(ESPEAK_ACCENTS.split())}+{item.voice.name}"
        words_per_minute, height = str(round(175 / stretch)), str(round(50 + 20 * pitch))
        options = ["-v", voice, "-s", words_per_minute, "-p", height]
        return ["espeak-ng", *options, "-w", str(wav), item.spoken]
    if item.voice.engine == "flite":
        options = ["--setf", f"duration_stretch={stretch:.3f}"]
        options += ["--setf", f"int_f0_target_mean={f0_mean:.1f}"]
        return ["flite", "-voice", item.voice.name, *options, "-t", item.spoken, "-o", str(wav)]
    f0_model = f"(target_f0_mean {f0_mean:.1f}) (target_f0_std 14)"
    options = ["-eval", f"(voice_{item.voice.name})"]
    options += ["-eval", f"(Parameter.set 'Duration_Stretch {stretch:.3f})"]
    options += [
        "-eval",
        f"(set! int_lr_params '({f0_model} (model_f0_mean 170) (model_f0_std 34)))",
    ]
    return ["text2wave", *options, "-o", str(wav)]


def synthesise(item: Item, rng: np.random.Generator) -> np.ndarray:
    """Return the speech `(num_samples,)` at 16 kHz, in train with pitch and formants scaled."""
    limit = MAX_SCALING[item.voice.engine] if item.split == "train" else 0.0
    scaling = 1 + rng.uniform(-limit, limit)
    stretch, pitch = rng.uniform(*STRETCH) * scaling, rng.uniform(-1, 1)
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        command = command_line(item, wav, stretch, pitch, rng)
        result = subprocess.run(command, input=item.spoken, capture_output=True, text=True)
        made = result.returncode == 0 and wav.exists()
        require(made, f"{' '.join(command)} made no audio: {' '.join(result.stderr.split())}")
        waveform, sample_rate = soundfile.read(wav)
    resampled: np.ndarray = librosa.resample(
        waveform, orig_sr=sample_rate * scaling, target_sr=SAMPLE_RATE
    )
    return resampled


def trim(waveform: np.ndarray) -> np.ndarray:
    """Cut the silence around the speech and put zeros of a fixed length there."""
    num_frames = len(waveform) // TRIM_FRAME
    frames = waveform[: num_frames * TRIM_FRAME].reshape(num_frames, TRIM_FRAME)
    power = np.square(frames).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (-TRIM_DB / 10))
    speech = waveform[loud[0] * TRIM_FRAME : (loud[-1] + 1) * TRIM_FRAME]
    return np.pad(speech, round(SILENCE_S * SAMPLE_RATE))


def noise(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return white or pink (power falls as 1/f) noise `(num_samples,)` of power 1."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    if rng.random() < 0.5:
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    samples: np.ndarray = np.fft.irfft(spectrum, num_samples)
    samples /= samples.std()
    return samples


def render(item: Item, rng: np.random.Generator) -> np.ndarray:
    """Return the finished waveform: trimmed, some with noise, at a random level."""
    waveform = trim(synthesise(item, rng))
    if rng.random() < NOISE_SHARE:
        level = waveform.std() * 10 ** (-rng.uniform(*SNR_DB) / 20)
        waveform = waveform + level * noise(len(waveform), rng)
    peak = 10 ** (rng.uniform(*PEAK_DBFS) / 20)
    waveform *= peak / np.abs(waveform).max()
    return waveform


def check_synthesisers() -> None:
    """Look for programs and voices first: espeak-ng and flite take any name for a voice."""
    packages = {"espeak-ng": "espeak-ng", "flite": "flite", "text2wave": "festival"}
    for program, package in packages.items():
        found = shutil.which(program) is not None
        require(found, f"program {program} not found, install the package {package}")
    variants = subprocess.check_output(["espeak-ng", "--voices=variant"], text=True)
    for name in ESPEAK_FAMILIES.split():
        require(f"!v/{name} " in variants, f"espeak-ng has no variant {name}")
    flite_voices = subprocess.check_output(["flite", "-lv"], text=True).split()
    for names in RECORDED_VOICES.values():
        for engine, name in names:
            require(engine != "flite" or name in flite_voices, f"flite has no voice {name}")


def print_totals(split: str, rows: list[dict[str, str | float]]) -> None:
    """Print the number of utterances and their duration for each voice of a split."""
    durations: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        durations[str(row["speaker"])].append(float(row["duration"]))
    for speaker, seconds in sorted(durations.items()):
        print(f"{split:5}  {speaker:18} {len(seconds):5} utterances {sum(seconds):7.1f} s")
    total = sum(sum(seconds) for seconds in durations.values())
    print(f"{split:5}  {len(durations):3} voices in all  {len(rows):5} utterances {total:7.1f} s")


def main() -> None:
    """Write audio/ and the three manifests, and print what they hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder, without audio/ as yet")
    out = parser.parse_args().out
    require(not (out / "audio").exists(), f"{out / 'audio'} exists, expected a fresh folder")
    check_synthesisers()
    rows: dict[str, list[dict[str, str | float]]] = {split: [] for split in SPLITS}
    for index, item in enumerate(plan(SEED)):
        path = f"audio/{item.split}/{item.voice.speaker}/{item.id}.opus"
        waveform = render(item, np.random.default_rng((SEED, index)))
        seconds = write_opus(out / path, waveform, SAMPLE_RATE, COMPRESSION_LEVEL, serial=index)
        row: dict[str, str | float] = {"audio_filepath": path, "duration": seconds}
        row |= {"text": item.text, "id": item.id}
        row |= {"speaker": item.voice.speaker, "engine": item.voice.engine}
        rows[item.split].append(row)
    for split in SPLITS:
        lines = [json.dumps(row) + "\n" for row in rows[split]]
        (out / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        print_totals(split, rows[split])


if __name__ == "__main__":
    main()
