"""Check 10: bad and odd audio: the right text or a line by three commands, soon, in bounds.

Each file is given alone, and to a server, in the quick tier all of them together: one that is bad
stops no other.
"""

from __future__ import annotations

import io
import json
import struct
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.audio_files import riff, with_data_size, with_flac_length
from tests.cli.conftest import RATE, TINY, tones, write_corpus
from tests.reliability.attack import MORE_S, Attacker, Outcome, attacker
from tests.serve.running import running
from tests.test_audio_file import encode_media

Survived = Callable[[str, int, int], None]

TEXT = "abc"
SOUND = tones(TEXT)
SAMPLES = np.rint(SOUND * 32767).astype("<i2")
WAV = riff(SAMPLES.tobytes(), RATE)
MORE_BYTES = 256_000_000
WHOLE, BAD, SHORT, EITHER = "the text", "a line", "no text, or a line", "the text, or a line"


def written(format: str, subtype: str, samples: NDArray = SOUND) -> bytes:
    """What libsndfile makes of the sound."""
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=format, subtype=subtype)
    return file.getvalue()


def short(num_samples: int) -> bytes:
    """A wav file of so many samples."""
    return riff(SAMPLES[:num_samples].tobytes(), RATE)


def archive() -> bytes:
    """A zip file with a recording in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("a.wav", WAV)
    return file.getvalue()


def with_value(value: float) -> bytes:
    """A float wav of which one sample is something else."""
    samples = SOUND.astype("<f4")
    samples[100] = value
    return riff(samples.tobytes(), RATE, kind=3, bits=32)


def with_bytes(place: int, content: bytes) -> bytes:
    """The wav file with other bytes in its header."""
    return WAV[:place] + content + WAV[place + len(content) :]


PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + bytes(17)
STEREO = np.stack([SAMPLES, SAMPLES], 1)
FLAC = written("FLAC", "PCM_16")

# By the file's name, its bytes, and what is right.
FILES: Mapping[str, tuple[bytes, str]] = {
    "rate_0.wav": (riff(SAMPLES.tobytes(), 0), BAD),
    "rate_1.wav": (riff(SAMPLES.tobytes(), 1), BAD),
    "rate_10M.wav": (riff(SAMPLES.tobytes(), 10_000_000), BAD),
    "rate_most.wav": (riff(SAMPLES.tobytes(), 2**32 - 1), BAD),
    "channels_0.wav": (riff(SAMPLES.tobytes(), RATE, channels=0), BAD),
    "channels_2.wav": (riff(STEREO.tobytes(), RATE, channels=2), WHOLE),
    "channels_64.wav": (riff(np.stack([SAMPLES] * 64, 1).tobytes(), RATE, channels=64), WHOLE),
    "channels_1024.wav": (riff(np.stack([SAMPLES] * 1024, 1).tobytes(), RATE, channels=1024), BAD),
    "samples_0.wav": (short(0), BAD),
    "samples_1.wav": (short(1), SHORT),
    "samples_2.wav": (short(2), SHORT),
    "samples_257.wav": (short(257), SHORT),
    "size_0.wav": (with_data_size(WAV, 0), WHOLE),
    "size_2G.wav": (with_data_size(WAV, 2**31 - 1), EITHER),
    "size_most.wav": (with_data_size(WAV, 2**32 - 1), WHOLE),
    "size_beyond.wav": (with_data_size(WAV, 10 * len(WAV)), BAD),
    "riff_size_0.wav": (with_bytes(4, bytes(4)), EITHER),
    "fmt_size_2G.wav": (with_bytes(16, b"\xff\xff\xff\x7f"), BAD),
    "align_0.wav": (with_bytes(32, bytes(2)), EITHER),
    "bits_0.wav": (with_bytes(34, bytes(2)), BAD),
    "flac_length_0.flac": (with_flac_length(FLAC, 0), WHOLE),
    "flac_length_most.flac": (with_flac_length(FLAC, 2**36 - 1), BAD),
    "cut_header.wav": (WAV[:20], BAD),
    "cut_half.wav": (WAV[: len(WAV) // 2], BAD),
    "cut_half.flac": (FLAC[: len(FLAC) // 2], BAD),
    "cut_half.opus": (encode_media(SOUND, "ogg", "libopus", RATE)[:900], BAD),
    "nan.wav": (with_value(np.nan), BAD),
    "infinite.wav": (with_value(np.inf), BAD),
    "mu_law.wav": (written("WAV", "ULAW"), WHOLE),
    "ima_adpcm.wav": (written("WAV", "IMA_ADPCM"), WHOLE),
    "ms_adpcm.wav": (written("WAV", "MS_ADPCM"), WHOLE),
    "bits_24.wav": (written("WAV", "PCM_24"), WHOLE),
    "bits_32.wav": (written("WAV", "PCM_32"), WHOLE),
    "float_64.wav": (written("WAV", "DOUBLE"), WHOLE),
    "text.wav": (b"This is no audio.\n" * 50, BAD),
    "picture.wav": (PNG, BAD),
    "archive.wav": (archive(), BAD),
    "empty.wav": (b"", BAD),
    "is_flac.wav": (FLAC, WHOLE),
    "is_mp3.flac": (written("MP3", "MPEG_LAYER_III"), WHOLE),
}
# A model of pure tones hears what these change: the text is that of what libsndfile makes of them.
LOSSY = ("mu_law.wav", "ima_adpcm.wav", "ms_adpcm.wav", "is_mp3.flac")


@pytest.fixture(scope="module")
def asr() -> Iterator[Attacker]:
    with attacker() as process:
        yield process


@pytest.fixture(scope="module")
def model(asr: Attacker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes what letters the tones are."""
    folder = tmp_path_factory.mktemp("trained")
    corpus = write_corpus(folder)
    done = asr.run(
        "train", *TINY, f"data.train={corpus}", f"data.dev={corpus}", f"paths.run_dir={folder}",
        "name=tones", "trainer.max_epochs=40", "trainer.validate_every=40",
        folder=folder, more_bytes=None,
    )  # fmt: skip
    assert done.status == 0, done.errors
    return folder / "train" / "tones" / "best.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them, and a manifest beside each."""
    folder = tmp_path_factory.mktemp("bad")
    for name, (content, _) in FILES.items():
        (folder / name).write_bytes(content)
        row = {"audio_filepath": name, "text": TEXT}
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    for name in LOSSY:
        samples, rate = soundfile.read(io.BytesIO(FILES[name][0]))
        soundfile.write(folder / f"decoded_{name}.wav", samples, rate, subtype="DOUBLE")
    lines = [(folder / f"{name}.jsonl").read_text() for name in FILES]
    (folder / "all.jsonl").write_text("".join(lines))
    return folder


def is_bounded(outcome: Outcome) -> bool:
    """Whether it ended soon, in little memory and without a traceback."""
    told = "\n".join(outcome.errors) + outcome.output
    return (
        outcome.is_bounded and outcome.num_bytes <= MORE_BYTES and "Traceback" not in told
        and outcome.status in (0, 1, 2)
    )  # fmt: skip


def is_right(name: str, texts: Mapping[str, str], errors: tuple[str, ...]) -> bool:
    """Whether a transcript, or the line that tells why there is none, is what is right."""
    expected, text = FILES[name][1], texts.get(name)
    lines = [line for line in errors if line.startswith(f"asr: error: {name}: ")]
    if text is None:
        return len(lines) == 1 and len(lines[0]) < 1000 and expected != WHOLE
    if lines:
        return False
    wanted = "" if expected == SHORT else texts.get(f"decoded_{name}.wav", TEXT)
    return text == wanted and (text != "" or expected == SHORT) and expected != BAD


def transcribe(asr: Attacker, model: Path, files: Path, *names: str) -> tuple[Outcome, set[str]]:
    """Transcribe files together; which of them came out right."""
    decoded = [f"decoded_{name}.wav" for name in names if name in LOSSY]
    done = asr.run("transcribe", "--model", str(model), *names, *decoded, folder=files)
    lines = done.output.splitlines()
    texts = dict(line.split("\t") for line in lines)
    return done, {name for name in names if is_right(name, texts, done.errors)}


def prepare(asr: Attacker, files: Path, out: Path, name: str, *more: str) -> Outcome:
    """Prepare a manifest."""
    return asr.run(
        "prepare", "corpus=manifest", "corpus.name=x", f"corpus.train={files / name}",
        "corpus.sample_rate=8000", f"paths.data_dir={out}", f"hydra.run.dir={out}", *more,
        folder=files,
    )  # fmt: skip


def is_named(name: str, told: str | set[str], is_kept: bool) -> bool:
    """Whether a file that is bad is told by name, and one that is whole is kept."""
    expected = FILES[name][1]
    return expected in (SHORT, EITHER) or (is_kept if expected == WHOLE else name in told)


def test_all_together(
    asr: Attacker, model: Path, files: Path, survived: Survived, tmp_path: Path
) -> None:
    names = list(FILES)
    done, right = transcribe(asr, model, files, *names)
    assert sorted(set(names) - right) == [], done.errors
    assert is_bounded(done)
    assert done.status == 2
    survived("10 bad audio, transcribed together", len(right), len(names))

    done = prepare(asr, files, tmp_path, "all.jsonl", "corpus.skip_bad=true")
    assert is_bounded(done), done.errors
    assert done.status == 0
    kept = (tmp_path / "x" / "train.jsonl").read_text()
    told = (tmp_path / "x" / "rejected.jsonl").read_text()
    named = [name for name in names if is_named(name, told, f'"id": "{name}"' in kept)]
    assert sorted(set(names) - set(named)) == []
    survived("10 bad audio, prepared together", len(named), len(names))

    report = tmp_path / "findings.json"
    done = asr.run("doctor", "all.jsonl", "--sample-rate", "8000", "--json", str(report),
                   folder=files)  # fmt: skip
    assert is_bounded(done), done.errors
    assert done.status == 1
    found = json.loads(report.read_text())["findings"]
    bad = {each["id"] for each in found if each["severity"] == "error"}
    named = [name for name in names if is_named(name, bad, name not in bad)]
    assert sorted(set(names) - set(named)) == []
    survived("10 bad audio, examined together", len(named), len(names))


@pytest.mark.slow
def test_by_http(model: Path, files: Path, survived: Survived, tmp_path: Path) -> None:
    right, faults = 0, []
    limits = "--max-upload-mb", "56", "--max-decoding-mb", "200"  # 256 MB for a file
    with running(model, tmp_path / "log.txt", *limits) as server:
        texts = {}
        for name in LOSSY:
            decoded = (files / f"decoded_{name}.wav").read_bytes()
            texts[f"decoded_{name}.wav"] = server.transcribe(decoded).json["text"]
        for name, (content, _) in FILES.items():
            start = time.monotonic()
            answer = server.transcribe(content)
            seconds = time.monotonic() - start
            errors: tuple[str, ...] = ()
            if answer.status == 200:
                texts[name] = answer.json["text"]
            else:
                errors = (f"asr: error: {name}: {answer.message.removeprefix('file: ')}",)
            is_told = answer.status == 200 or answer.message.startswith("file: ")
            is_good = is_right(name, texts, errors) and is_told and "\n" not in "".join(errors)
            if is_good and answer.status in (200, 400) and seconds < MORE_S:
                right += 1
            else:
                faults.append(f"{name}: {answer}, {seconds:.1f} s")
        assert server.ask("GET", "/ready").status == 200
        assert "Traceback" not in server.log.read_text()
    assert not faults, faults[:3]
    survived("10 bad audio by HTTP", right, len(FILES))


@pytest.mark.slow
def test_each_alone(
    asr: Attacker, model: Path, files: Path, survived: Survived, tmp_path: Path
) -> None:
    commands: Mapping[str, Callable[[str], Outcome]] = {
        "prepared": lambda name: prepare(asr, files, tmp_path / name, f"{name}.jsonl"),
        "examined": lambda name: asr.run("doctor", f"{name}.jsonl", folder=files),
    }
    faults = []
    good = 0
    for name in FILES:
        done, right = transcribe(asr, model, files, name)
        if is_bounded(done) and right:
            good += 1
        else:
            faults.append(f"{name} transcribed: {done}")
    survived("10 bad audio, transcribed", good, len(FILES))
    for what, command in commands.items():
        good = 0
        for name, (_, expected) in FILES.items():
            done = command(name)
            told = "\n".join(done.errors) + done.output
            status = {WHOLE: {0}, BAD: {1, 2}}.get(expected, {0, 1, 2})
            is_told = done.status == 0 or name in told.replace("\n", "")
            if is_bounded(done) and done.status in status and is_told:
                good += 1
            else:
                faults.append(f"{name} {what}: {done}")
        survived(f"10 bad audio, {what}", good, len(FILES))
    assert not faults, faults[:5]


def test_there_are_forty() -> None:
    assert len(FILES) == 40
