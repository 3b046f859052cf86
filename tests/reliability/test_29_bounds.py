"""Check 29: what is no file, a bomb or without end is told in one line, soon, in little memory."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.data.manifest import read_manifest
from asr.data.shar import INDEX_FILE
from asr.data.shar_writer import SharSettings, SharWriter
from asr.decoder.kneser_ney import encode, train
from asr.decoder.ngram_file import save_ngram_model
from tests.reliability.attack import CLOSED, HUNG_S, MORE_BYTES, Attacker, attacker
from tests.reliability.corpus import save_untrained_model, write_corpus

Survived = Callable[[str, int, int], None]

MANY = 100_000_000  # bytes: 100 MB
BOMB = 300_000_000  # bytes that come out of 291 kB


def _line(path: Path) -> None:
    path.write_bytes(b"x" * MANY)


@cache
def _bomb(content: bytes) -> bytes:
    return gzip.compress(content * BOMB, 6)


@cache
def _xz_bomb() -> bytes:
    return lzma.compress(b"\n" * BOMB, preset=0)


def _packed(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(_bomb(content)) and None


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _holes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 38)  # 256 GiB


# What lies where a file is expected.
HOSTILE: Mapping[str, Callable[[Path], None]] = {
    "a FIFO": os.mkfifo,
    "/dev/zero": _link("/dev/zero"),
    "/dev/stdin, closed": _link("/dev/stdin"),
    "a folder": Path.mkdir,
    "an empty file": Path.touch,
    "a line of 100 MB": _line,
    "100 MB of empty lines": lambda path: path.write_bytes(b"\n" * MANY) and None,
    "a bomb of empty lines": _packed(b"\n"),
    "a bomb of zeros": _packed(b"\0"),
    "a bomb of empty lines by xz": lambda path: path.write_bytes(_xz_bomb()) and None,
    "values 100,000 deep": lambda path: path.write_bytes(b"[" * 100_000) and None,
    "values 100,000 deep, by name": lambda path: path.write_bytes(b'{"text":' * 100_000) and None,
    "256 GiB of holes": _holes,
}


# Of these a text may be made, which is what is wrong then, and no fault of the file.
TEXTS = {kind for kind in HOSTILE if kind.startswith("values")} | {"an empty file"}
TEXTS.add("a bomb of zeros")  # a tar of nothing


class House:
    """Good files of every kind, and a place for the bad one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = write_corpus(folder / "corpus", 3, seed=29)
        self.audio = folder / "corpus" / "train0.wav"
        self.model = folder / "model.safetensors"
        save_untrained_model(self.model)
        self.lm = folder / "lm.arpa"
        self.words = folder / "words.txt"
        self.words.write_text("a\nb\n")
        save_ngram_model(self.lm, train(encode([["a"], ["b"]]), 1, fallback=(0.5, 1, 1.5)).model)
        self.shards = folder / "shards"
        list(SharWriter(read_manifest(self.manifest), self.shards, SharSettings()).write())
        (self.shards / INDEX_FILE).unlink()  # as shards of another program come
        self.run = folder / "runs" / "mine"
        (self.run / ".hydra").mkdir(parents=True)
        (self.run / ".hydra" / "config.yaml").write_text("trainer: {}\n")

    def bad_file(self, name: str, make: Callable[[Path], None]) -> Path:
        """Make the bad file, among others of its kind where it is one of several."""
        place = self.folder / "bad"
        shutil.rmtree(place, ignore_errors=True)
        others = {INDEX_FILE: self.shards, "validations.csv": self.run}
        others |= {path.name: self.shards for path in self.shards.iterdir()}
        if name in others:
            shutil.copytree(others[name], place)
            (place / name).unlink(missing_ok=True)
        else:
            place.mkdir()
        make(place / name)
        return place / name


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def asr() -> Iterator[Attacker]:
    with attacker() as process:
        yield process


Arguments = Callable[[House, Path], Sequence[object]]


def _train(house: House, *more: object) -> list[object]:
    return [
        "train", "features=log_mel_40_8k", "model=bilstm_ctc_small", "trainer.max_epochs=1",
        "trainer.num_workers=0", f"hydra.run.dir={house.folder / 'run'}", "overwrite=true",
        f"data.dev={house.manifest}", *more,
    ]  # fmt: skip


def _prepare(house: House, *more: object) -> list[object]:
    return ["prepare", f"paths.data_dir={house.folder / 'data'}",
            f"hydra.run.dir={house.folder / 'run'}", *more]  # fmt: skip


def _evaluate(house: House, *more: object) -> list[object]:
    return [
        "evaluate", f"model_file={house.model}", f"hydra.run.dir={house.folder / 'run'}",
        f"manifest={house.manifest}", *more,
    ]  # fmt: skip


# By what the file should be: its name, and the command that is given it.
PLACES: Mapping[str, tuple[str, Arguments]] = {
    "prepare: a manifest": (
        "m.jsonl",
        lambda h, bad: _prepare(h, "corpus=manifest", "corpus.name=x", f"corpus.train={bad}"),
    ),
    "prepare: a table": (
        "m.csv",
        lambda h, bad: _prepare(h, "corpus=manifest", "corpus.name=x", f"corpus.train={bad}"),
    ),
    "prepare: a zip": (
        "a.zip",
        lambda h, bad: _prepare(h, "corpus=fsdd", f"corpus.source={bad}"),
    ),
    "prepare: a tar": (
        "a.tar.gz",
        lambda h, bad: _prepare(h, "corpus=fsdd", f"corpus.source={bad}"),
    ),
    "prepare: a recording": (
        "0_jackson_0.wav",
        lambda h, bad: _prepare(
            h, "corpus=fsdd", "corpus.verify=false", f"corpus.source={bad.parent}"
        ),
    ),
    "doctor: a manifest": ("m.jsonl", lambda h, bad: ["doctor", bad]),
    "shar: a manifest": ("m.jsonl", lambda h, bad: ["shar", bad, h.folder / "new"]),
    "train: a manifest": ("m.jsonl", lambda h, bad: _train(h, f"data.train={bad}")),
    "train: a noise": (
        "noise.wav",
        lambda h, bad: _train(
            h, f"data.train={h.manifest}", "augment=full", "augment/noise=folder",
            f"augment.waveform.noise.source.folder={bad.parent}",
        ),
    ),
    "train: a room": (
        "room.wav",
        lambda h, bad: _train(
            h, f"data.train={h.manifest}", "augment=full", "augment/room=folder",
            f"augment.waveform.room.source.folder={bad.parent}",
        ),
    ),
    "train: an index of shards": (
        "cuts.index.json", lambda h, bad: _train(h, "data=shar", f"data.train={bad.parent}"),
    ),
    "train: the texts of a shard": (
        "cuts.000000.jsonl.gz", lambda h, bad: _train(h, "data=shar", f"data.train={bad.parent}"),
    ),
    "train: the audio of a shard": (
        "recording.000000.tar", lambda h, bad: _train(h, "data=shar", f"data.train={bad.parent}"),
    ),
    "evaluate: a manifest": ("m.jsonl", lambda h, bad: _evaluate(h, f"manifest={bad}")),
    "evaluate: a language model": (
        "lm.arpa.gz",
        lambda h, bad: _evaluate(h, "decoder=beam_ngram", f"decoder.language_model={bad}"),
    ),
    "transcribe: a recording": (
        "a.wav", lambda h, bad: ["transcribe", "--model", h.model, bad],
    ),
    "transcribe: an ARPA file": (
        "lm.arpa.gz",
        lambda h, bad: [
            "transcribe", "--model", h.model, "--decoder", "beam", "--lm", bad, h.audio
        ],
    ),
    "transcribe: a .ngram file": (
        "lm.ngram",
        lambda h, bad: [
            "transcribe", "--model", h.model, "--decoder", "beam", "--lm", bad, h.audio
        ],
    ),
    "align: a recording": ("a.wav", lambda h, bad: ["align", "--model", h.model, bad, "a"]),
    "align: a text": (
        "text.txt", lambda h, bad: ["align", "--model", h.model, h.audio, "--text-file", bad],
    ),
    "align: a manifest": (
        "m.tsv", lambda h, bad: ["align", "--model", h.model, "--manifest", bad],
    ),
    "lm train: a text": ("text.txt", lambda h, bad: ["lm", "train", bad, "--output", "new.arpa"]),
    "lm train: a manifest": (
        "m.jsonl", lambda h, bad: ["lm", "train", bad, "--output", "new.arpa"]
    ),
    "lm query: a model": ("lm.arpa", lambda h, bad: ["lm", "query", bad, "a"]),
    "lm perplexity: a text": ("text.gz", lambda h, bad: ["lm", "perplexity", h.lm, bad]),
    "lm convert: a model": ("lm.ngram", lambda h, bad: ["lm", "convert", bad, "new.arpa"]),
    "transcribe: a model": (
        "m.safetensors", lambda h, bad: ["transcribe", "--model", bad, h.audio],
    ),
    "transcribe: a decoder file": (
        "decoder.yaml",
        lambda h, bad: ["transcribe", "--model", h.model, "--decoder-config", bad, h.audio],
    ),
    "transcribe: a calibration": (
        "c.json",
        lambda h, bad: [
            "transcribe", "--model", h.model, "--format", "json", "--calibration", bad, h.audio
        ],
    ),
    "compare: an evaluation": ("e.json", lambda h, bad: ["compare", bad, h.manifest]),
    "average: a model": (
        "m.safetensors", lambda h, bad: ["average", h.model, bad, "--output", "new.safetensors"],
    ),
    "train: a model to start from": (
        "m.safetensors", lambda h, bad: _train(h, f"data.train={h.manifest}", f"init_from={bad}"),
    ),
    "runs: validations": ("validations.csv", lambda h, bad: ["runs", bad.parent]),
    "tune-decoder: a manifest": (
        "m.jsonl",
        lambda h, bad: [
            "tune-decoder", "--model", h.model, "--manifest", bad, "--lm", h.lm, "--output", "tuned"
        ],
    ),
    "tune-decoder: a language model": (
        "lm.arpa",
        lambda h, bad: [
            "tune-decoder", "--model", h.model, "--manifest", h.manifest, "--lm", bad,
            "--output", "tuned",
        ],
    ),
    "transcribe: a lexicon": (
        "words.txt", lambda h, bad: ["transcribe", "--model", h.model, "--lexicon", bad, h.audio]
    ),
}  # fmt: skip

# What may well end otherwise: a file of many words is a text, and findings are no mistake.
GOOD = {
    ("lm perplexity: a text", "values 100,000 deep, by name"): 0,
    **{("doctor: a manifest", kind): 1 for kind in HOSTILE},
    **{("runs: validations", kind): 0 for kind in HOSTILE},
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_every_command_ends_in_one_line(
    place: str, house: House, asr: Attacker, survived: Survived
) -> None:
    name, arguments = PLACES[place]
    kept = 0
    for kind, make in HOSTILE.items():
        bad = house.bad_file(name, make)
        stdin = CLOSED if "closed" in kind else os.devnull
        outcome = asr.run(*map(str, arguments(house, bad)), folder=house.folder, stdin=stdin)
        ends_well = outcome.is_bounded and outcome.status == GOOD.get((place, kind))
        ends_well |= outcome.is_one_line("" if kind in TEXTS else str(bad.parent))
        kept += ends_well
        if not ends_well:
            print(f"{place}, {kind}: {outcome}")
    survived(place, kept, len(HOSTILE))


STREAMS: Mapping[str, Callable[[House], Sequence[object]]] = {
    "transcribe -": lambda h: ["transcribe", "--model", h.model, "-"],
    "align -": lambda h: ["align", "--model", h.model, "-", "a"],
    "lm train -": lambda h: ["lm", "train", "-", "--output", "new.arpa"],
    "lm perplexity -": lambda h: ["lm", "perplexity", h.lm, "-"],
}
STREAM_KINDS = (
    "/dev/zero", "closed", "an empty file", "a line of 100 MB", "a bomb of empty lines",
    "a bomb of zeros",
)  # fmt: skip


@pytest.mark.slow
def test_standard_input_is_bounded(house: House, asr: Attacker, survived: Survived) -> None:
    kept = 0
    for command, arguments in STREAMS.items():
        for kind in STREAM_KINDS:
            stdin = CLOSED if kind == "closed" else str(house.bad_file("stdin", HOSTILE[kind]))
            # Audio is read up to a gigabyte; what is free of it bounds the rest.
            more = None if command.endswith("e -") or command == "align -" else MORE_BYTES
            outcome = asr.run(
                *map(str, arguments(house)), folder=house.folder, stdin=stdin, more_bytes=more
            )
            told = [line for line in outcome.errors if line.startswith("asr: error: ")]
            ends_well = outcome.status == 2 and len(told) == 1 and outcome.seconds < HUNG_S
            kept += ends_well
            if not ends_well:
                print(f"{command}, {kind}: {outcome}")
    survived("standard input", kept, len(STREAMS) * len(STREAM_KINDS))


@pytest.mark.slow
def test_hours_take_no_more_than_minutes(
    house: House, asr: Attacker, tmp_path: Path, survived: Survived
) -> None:
    hours = tmp_path / "hours.flac"  # 363 kB
    soundfile.write(hours, np.zeros(int(3.9 * 3600 * 8000), np.int16), 8000)
    good = [house.folder / "corpus" / f"train{number}.wav" for number in (0, 1)]
    out = tmp_path / "out"
    outcome = asr.run(
        "transcribe", "--model", str(house.model), "--output-dir", str(out),
        str(good[0]), str(hours), str(good[1]),
        folder=house.folder, more_bytes=MORE_BYTES,
    )  # fmt: skip
    assert outcome.status == 0, outcome
    assert (out / "hours.txt").read_text() == "\n"
    survived("recordings beside hours of silence", len(list(out.glob("*.txt"))), 3)
