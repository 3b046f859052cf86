"""Check 12: mutants of audio files: a waveform or a line each, soon, in little memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asr.audio import load_audio
from tests.audio_files import (
    RATE,
    encode,
    noise,
    sine,
    with_data_size,
    with_flac_length,
    with_serial_number,
)
from tests.test_audio_file import MEDIA, encode_media, without_count

Survived = Callable[[str, int, int], None]
QUICK, ALL = 1_000, 10_000  # mutants
MAX_S = 5.0  # [s] of a processor that one may take
MAX_BYTES = 1 << 30  # that the child may have in memory at most
EXTREMES = (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0")


def seed_files() -> dict[str, bytes]:
    """One file of each way in which audio is opened and counted."""
    files = {name: encode_media(sine(440, 1.0), *form[:2]) for name, form in MEDIA.items()}
    for name in ("wav", "flac", "mp3"):
        files[name] = encode(noise(RATE), name=name)
    for name in ("opus", "vorbis"):  # libsndfile draws a serial number
        files[name] = with_serial_number(encode(noise(RATE), name=name), 7)
    files["mp3 from a pipe"] = without_count(files["mp3"])
    files["joined opus"] = 2 * files["opus"]
    files["joined vorbis"] = 2 * files["vorbis"]
    files["flac from a pipe"] = with_flac_length(files["flac"], 0)
    files["wav of a recorder that died"] = with_data_size(files["wav"], 0)
    return files


def mutate(content: bytes, draws: random.Random) -> bytes:
    """Bytes changed, cut out, put in, set to extremes, or the end cut off: most in the header."""
    file = bytearray(content)
    for _ in range(draws.choice((1, 1, 3, 10, 50))):
        place = draws.randrange(draws.choice((len(file), min(len(file), 400))))
        kind, length = draws.random(), draws.randrange(1, 64)
        if kind < 0.6:
            file[place] = draws.randrange(256)
        elif kind < 0.7:
            del file[place : place + length]
        elif kind < 0.8:
            file[place:place] = draws.randbytes(length)
        elif kind < 0.9:
            file[place : place + 4] = draws.choice(EXTREMES)
        else:
            del file[place + 1 :]
        file = file or bytearray(b"x")
    return bytes(file)


def mutants(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Drawn files, each a mutant of one of the seeds."""
    draws, files = random.Random(seed), seed_files()
    for number in range(count):
        name = draws.choice(sorted(files))
        yield f"{number} {name}", mutate(files[name], draws)


def main(seed: int, count: int, last: str) -> None:
    """Read every mutant in this process; a line of JSON says what became of it.

    Args:
        seed: of the mutants.
        count: of them.
        last: path of the mutant that is read, for whoever finds the process dead.
    """
    for name, content in mutants(seed, count):
        Path(last).write_bytes(content)
        start, fault = time.process_time(), ""
        try:
            waveform = load_audio(content, RATE)
        except (ValueError, OSError) as error:
            if "\n" in str(error) or not str(error):
                fault = f"not one line: {error!r}"
        except BaseException as error:
            fault = f"no user's error: {error!r}"
        else:
            if not len(waveform):
                fault = "no samples and no error"
        seconds = time.process_time() - start
        if seconds > MAX_S:
            fault = f"{seconds:.1f} s"
        print(json.dumps([name, fault]), flush=True)


@pytest.mark.parametrize(
    "count", [QUICK, pytest.param(ALL, marks=pytest.mark.slow)], ids=["quick", "all"]
)
def test_mutants_of_audio_files(count: int, seed: int, survived: Survived, tmp_path: Path) -> None:
    last = tmp_path / "last.bin"
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({MAX_BYTES}, {MAX_BYTES}))\n"
        f"from {__name__} import main; main({seed}, {count}, {str(last)!r})"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2],
        timeout=600, check=False,
    )  # fmt: skip
    rows = [json.loads(line) for line in child.stdout.splitlines()]
    faults = [f"{name}: {fault}" for name, fault in rows if fault]
    if child.returncode:  # the mutant that it died of wrote no row
        faults.append(f"died with {child.returncode} of {last}: {child.stderr[-500:]}")
    assert not faults, faults[:10]
    survived("12 mutants of audio files", len(rows) - len(faults), count)
