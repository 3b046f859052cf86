"""Who speaks: espeak-ng with its variants, or a program of the user's."""

from __future__ import annotations

import functools
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from asr.untrusted import shown

ESPEAK = "espeak-ng"
SPEAKING_S = 60.0  # [s] for one utterance, of a program
LONGEST_S = 120.0  # [s] that a program may speak
WORDS_PER_MINUTE = (120, 240)
PITCH = (15, 85)  # of 0 to 99
SCALE = (0.92, 1.08)  # of pitch and formants


class Waveform(NamedTuple):
    """What was spoken.

    Attributes:
        samples: `(num_samples,)` float32.
        sample_rate: to play it at [Hz]; not a whole number where the pitch is changed by it.
    """

    samples: NDArray[np.float32]
    sample_rate: float


@dataclass(frozen=True)
class Speaker:
    """Who speaks an utterance, and how.

    Attributes:
        name: of the voice.
        engine: that it is of.
        say: speaks phrases in a row.
    """

    name: str
    engine: str
    say: Callable[[Sequence[str]], Waveform]


class Engine(Protocol):
    """What speaks.

    Attributes:
        name: in a manifest.
        voices: that a split may have; no voice is in two splits.
    """

    name: str
    voices: list[str]

    def draw(self, voices: Sequence[str], generator: np.random.Generator) -> Speaker:
        """Draw a speaker of these voices."""
        ...


class Espeak:
    """Speaks by the rules of espeak-ng, in its accents of a language and its variants of a voice.

    Args:
        language: as en, fr or tr.

    Raises:
        ValueError: espeak-ng is not installed, or does not speak it.
    """

    name = "espeak"

    def __init__(self, language: str) -> None:
        rows = [line.split() for line in run([ESPEAK, f"--voices={language}"]).splitlines()[1:]]
        self._accents = sorted(
            {
                row[1] for row in rows
                if not row[4].startswith("mb/")  # voices of another program, that are not free
                and (row[1] == language or row[1].startswith(f"{language}-"))
            }
        )  # fmt: skip
        if not self._accents:
            raise ValueError(f"espeak-ng does not speak {shown(language)}, expected en, fr, tr ...")
        variants = run([ESPEAK, "--voices=variant"]).splitlines()[1:]
        self.voices = sorted({line.split()[4].removeprefix("!v/") for line in variants})

    def draw(self, voices: Sequence[str], generator: np.random.Generator) -> Speaker:
        """Draw who speaks an utterance: a variant, an accent, rate and pitch."""
        name = str(generator.choice(list(voices)))
        command = [
            ESPEAK, "-v", f"{generator.choice(self._accents)}+{name}",
            "-s", str(generator.integers(*WORDS_PER_MINUTE)),
            "-p", str(generator.integers(*PITCH)), "--stdin", "-w", "{out}",
        ]  # fmt: skip
        scale = float(generator.uniform(*SCALE))
        return Speaker(name, self.name, functools.partial(spoken_by, command, scale=scale))


class Command:
    """Speaks by a program of the user's, which writes an audio file.

    Args:
        template: the program and its arguments: {out} is the file to write; {text} what is to be
            said, which without it goes to standard input; {voice} one of `voices`.
        voices: what is put in the place of {voice}.

    Raises:
        ValueError: a template without {out} or with quotes that do not end, or voices without
            {voice}.
    """

    name = "command"

    def __init__(self, template: str, voices: Sequence[str]) -> None:
        try:
            self._words = shlex.split(template)
        except ValueError as error:
            raise ValueError(f"--command is {shown(template)}: {error}") from error
        if "{out}" not in template:
            raise ValueError(f"--command is {shown(template)}, expected {{out}} in it")
        if ("{voice}" in template) != bool(voices):
            raise ValueError("expected both {voice} in --command and --command-voices, or neither")
        if shutil.which(self._words[0]) is None:
            raise ValueError(f"--command: no program {shown(self._words[0])}, expected one")
        self.voices = sorted(voices) or ["command"]

    def draw(self, voices: Sequence[str], generator: np.random.Generator) -> Speaker:
        """Draw a voice and a pitch."""
        name = str(generator.choice(list(voices)))
        command = [word.replace("{voice}", name) for word in self._words]
        scale = float(generator.uniform(*SCALE))
        return Speaker(name, self.name, functools.partial(spoken_by, command, scale=scale))


def spoken_by(command: Sequence[str], phrases: Sequence[str], scale: float) -> Waveform:
    """Let a program speak into a file, and read it.

    Args:
        command: with {out}, and maybe {text}.
        phrases: to be said in a row.
        scale: of pitch and formants.

    Raises:
        ValueError: it failed, took too long, or wrote no audio.
    """
    text = ", ".join(phrases)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "spoken.wav"
        words = [word.replace("{text}", text).replace("{out}", str(out)) for word in command]
        run(words, "" if any("{text}" in word for word in command) else text)
        try:
            with soundfile.SoundFile(out) as file:
                samples = file.read(int(LONGEST_S * file.samplerate), "float32", always_2d=True)
                return Waveform(samples.mean(axis=1), file.samplerate * scale)
        except (OSError, soundfile.LibsndfileError) as error:
            raise ValueError(f"{command[0]} wrote no audio for {shown(text)}: {error}") from error


def run(command: Sequence[str], text: str = "") -> str:
    """Run a program in bounded time and give what it prints.

    Raises:
        ValueError: it is not there, failed, or took too long.
    """
    try:
        done = subprocess.run(
            list(command), input=text.encode(), capture_output=True, timeout=SPEAKING_S, check=False
        )
    except FileNotFoundError as error:
        raise ValueError(f"no program {shown(command[0])}, expected it to be installed") from error
    except subprocess.TimeoutExpired as error:
        raise ValueError(
            f"{command[0]} took more than {SPEAKING_S:g} s for {shown(text)}, expected less"
        ) from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing said"]
        raise ValueError(f"{command[0]} failed with {done.returncode}: {shown(said[-1])}")
    return done.stdout.decode(errors="replace")
