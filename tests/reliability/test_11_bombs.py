"""Check 11: small files that stand for hours, or for a filter of gigabytes; and hours that are."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.audio_files import riff
from tests.cli.conftest import RATE, tones
from tests.reliability.attack import MORE_S, ROOT, Attacker, Outcome, attacker
from tests.reliability.corpus import save_untrained_model

Survived = Callable[[str, int, int], None]

MORE_BYTES = 300_000_000
QUICK = 1 / 1000  # of a recording that is read whole: the share of its length that it may take
HOUR_S = 3600


def _two_hours(path: Path) -> None:
    minute = np.zeros(60 * 16_000, np.int16)
    with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16") as file:
        for _ in range(120):
            file.write(minute)


def _one_hertz(path: Path) -> None:
    path.write_bytes(riff(np.zeros(100_000, "<i2").tobytes(), 1))


def _odd_rate(path: Path) -> None:
    """A rate that shares no factor with the model's: a filter of every phase is 2.7 GB."""
    samples = np.random.default_rng(11).integers(-3000, 3000, 44_101 * 20)
    path.write_bytes(riff(samples.astype("<i2").tobytes(), 44_101))


def _five_hours(path: Path) -> None:
    num_bytes = 2 * 5 * HOUR_S * 16_000
    head = riff(b"", 16_000)[:40] + struct.pack("<I", num_bytes)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + num_bytes)  # a hole: no byte on the disk


# By name, what writes it, how long it says it is [s], and whether it may be transcribed.
BOMBS: Mapping[str, tuple[Callable[[Path], None], float, bool]] = {
    "two_hours.flac": (_two_hours, 2 * HOUR_S, True),
    "one_hertz.wav": (_one_hertz, 100_000, False),
    "odd_rate.wav": (_odd_rate, 20, True),
    "five_hours.wav": (_five_hours, 5 * HOUR_S, True),
}


@pytest.fixture(scope="module")
def asr() -> Iterator[Attacker]:
    with attacker() as process:
        yield process


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was never trained: what it writes is no matter here."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_untrained_model(path, "abc ", RATE)
    return path


def is_bounded(outcome: Outcome, seconds: float) -> bool:
    """Whether it took little memory, and soon was at its end."""
    took = min(outcome.seconds, outcome.computed)
    told = "\n".join(outcome.errors) + outcome.output
    return (
        outcome.status in (0, 1, 2) and outcome.num_bytes <= MORE_BYTES
        and took <= max(MORE_S, QUICK * seconds) and "Traceback" not in told
    )  # fmt: skip


def _refuses(name: str, outcome: Outcome) -> bool:
    told = [line for line in outcome.errors if line.startswith("asr: error: ")]
    return outcome.status == 2 and len(told) == 1 and name in told[0] and len(told[0]) < 1000


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["one_hertz.wav", "odd_rate.wav"], id="quick"),
        pytest.param(list(BOMBS), id="all", marks=pytest.mark.slow),
    ],
)
def test_bombs(
    names: list[str], asr: Attacker, model: Path, survived: Survived, tmp_path: Path
) -> None:
    faults: list[str] = []
    tried = 0
    for name in names:
        write, seconds, may_be_read = BOMBS[name]
        write(tmp_path / name)
        assert (tmp_path / name).stat().st_blocks * 512 < 4_000_000
        manifest = tmp_path / f"{name}.jsonl"
        manifest.write_text(json.dumps({"audio_filepath": name, "text": "a b"}) + "\n")
        out = tmp_path / f"{name}.out"
        commands: Sequence[Sequence[str]] = (
            ["transcribe", "--model", str(model), name],
            ["doctor", str(manifest)],
            ["prepare", "corpus=manifest", "corpus.name=x", f"corpus.train={manifest}",
             f"paths.data_dir={out}", f"hydra.run.dir={out}"],
        )  # fmt: skip
        for command in commands:
            tried += 1
            done = asr.run(*command, folder=tmp_path, more_bytes=MORE_BYTES)
            # doctor writes a table, in which long names are folded.
            is_told = command[0] == "doctor" or _refuses(name, done)
            is_read = may_be_read and done.status == 0
            if not (is_bounded(done, seconds) and (is_told or is_read)):
                faults.append(f"{command[0]} {name}: {done}")
    assert not faults, faults[:3]
    survived("11 bombs", tried - len(faults), tried)


@pytest.mark.slow
def test_two_hours_take_the_memory_of_ten_minutes(
    model: Path, survived: Survived, tmp_path: Path
) -> None:
    """The sound of words with pauses between, at the model's rate; text grows, memory does not."""
    pause = np.zeros(RATE // 2, np.float32)
    words = np.concatenate([np.concatenate([tones(text), pause]) for text in ("abc", "ba", "cab")])
    minute = np.resize(words, 60 * RATE)
    taken = {}
    for minutes in (10, 120):
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
            for _ in range(minutes):
                file.write(minute)
        child = subprocess.Popen(
            [sys.executable, "-m", "asr", "transcribe", "--model", str(model), str(path)],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        taken[minutes] = usage.ru_maxrss
    assert taken[120] <= 1.2 * taken[10], taken
    survived("11 two hours in the memory of ten minutes", 1, 1)
