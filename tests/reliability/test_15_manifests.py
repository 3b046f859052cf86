"""Check 15: hostile manifests and settings: a line says where; no shell, no network, no leak."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.reliability.attack import Attacker, Outcome, attacker
from tests.reliability.corpus import save_untrained_model, write_corpus

Survived = Callable[[str, int, int], None]

SECRET = "abracadabra-7f3a"  # stands in a file and in the environment, and must not be told
MANY = 100_000_000  # bytes: 100 MB


class Yard:
    """A folder to be attacked: a good corpus, a model, a canary, and a server that nobody asks.

    Args:
        folder: where.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.good = json.loads(write_corpus(folder, 1, seed=15).read_text().splitlines()[0])
        self.canary = folder / "canary"
        self.canary.mkdir()
        (self.canary / "secret.txt").write_text(SECRET)
        self.model = folder / "model.safetensors"
        save_untrained_model(self.model)
        os.mkfifo(folder / "fifo.wav")
        (folder / "zero.wav").symlink_to("/dev/zero")
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.setblocking(False)
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}/a.wav"
        self.before = self.digest()

    def digest(self) -> str:
        """Names and contents of the canary."""
        content = [(path.name, path.read_bytes()) for path in sorted(self.canary.iterdir())]
        return hashlib.sha256(repr(content).encode()).hexdigest()

    def was_asked(self) -> bool:
        """Whether anybody connected to the server."""
        try:
            self.server.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def line(self, **fields: object) -> bytes:
        """A line of a manifest, like the good one but for some fields."""
        return json.dumps({**self.good, "id": "bad", **fields}).encode() + b"\n"


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    made = Yard(tmp_path_factory.mktemp("yard"))
    with made.server:
        yield made


@pytest.fixture(scope="module")
def asr() -> Iterator[Attacker]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", SECRET)
        with attacker() as process:
            yield process


# The second line of a manifest whose first is good.
MANIFESTS: Mapping[str, Callable[[Yard], bytes]] = {
    "a path to a secret": lambda y: y.line(audio_filepath="canary/../canary/secret.txt"),
    "a path out of all folders": lambda y: y.line(audio_filepath="../" * 40 + "etc/passwd"),
    "a pipe of Kaldi": lambda y: y.line(audio_filepath=f"touch {y.canary}/pipe |"),
    "a command": lambda y: y.line(audio_filepath=f"$(touch {y.canary}/command).wav"),
    "a URL": lambda y: y.line(audio_filepath=y.url),
    "a protocol of FFmpeg": lambda y: y.line(audio_filepath=f"concat:{y.good['audio_filepath']}"),
    "/dev/zero": lambda y: y.line(audio_filepath="zero.wav"),
    "a FIFO": lambda y: y.line(audio_filepath="fifo.wav"),
    "a zero byte in a name": lambda y: y.line(audio_filepath="a\0.wav"),
    "half a surrogate pair": lambda y: y.line(audio_filepath="\ud800.wav"),
    "NaN for a duration": lambda y: y.line(duration=float("nan")),
    "a duration without end": lambda y: y.line(duration=0.3).replace(b"0.3", b"1e999"),
    "a duration below 0": lambda y: y.line(duration=-1),
    "a list for a text": lambda y: y.line(text=["a", "b"]),
    "bad UTF-8 after a BOM": lambda y: y.line(text="m\u00fc").replace(b"\\u00fc", b"\xfc"),
    "a line of 100 MB": lambda y: b'{"text": "' + b"x" * MANY + b'"}\n',
}
# A decoder's settings, as a user may have them of somebody else.
SETTINGS: Mapping[str, Callable[[Yard], str]] = {
    "a tag that runs": lambda y: (
        f"_target_: asr.decoder.BeamSearch\nnbest: !!python/object/apply:os.system\n"
        f"  - touch {y.canary}/tag\n"
    ),
    "aliases of aliases": lambda y: (
        "a0: &a0 [x, x]\n"
        + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
        + "_target_: asr.decoder.BeamSearch\nhotwords: *a59\n"
    ),
    "a target that runs": lambda y: f"_target_: os.system\ncommand: touch {y.canary}/target\n",
    "a variable of the environment": lambda y: (
        "_target_: asr.decoder.BeamSearch\nlanguage_model: ${oc.env:SECRET}\n"
    ),
}


def is_right(yard: Yard, outcome: Outcome, where: str) -> bool:
    """Whether it was told where, in one line, and nothing was run, asked or leaked."""
    told = "\n".join(outcome.errors) + outcome.output
    return (
        outcome.is_one_line(where) and SECRET not in told and "Traceback" not in told
        and yard.digest() == yard.before and not yard.was_asked()
    )  # fmt: skip


def test_hostile_manifests(yard: Yard, asr: Attacker, survived: Survived) -> None:
    faults = []
    for name, line in MANIFESTS.items():
        manifest = yard.folder / "bad.jsonl"
        bom = b"\xef\xbb\xbf" if "BOM" in name else b""
        manifest.write_bytes(bom + json.dumps(yard.good).encode() + b"\n" + line(yard))
        out = yard.folder / "out"
        done = asr.run(
            "prepare", "corpus=manifest", "corpus.name=x", f"corpus.train={manifest}",
            f"paths.data_dir={out}", f"hydra.run.dir={out}", folder=yard.folder,
        )  # fmt: skip
        if not is_right(yard, done, "bad.jsonl:2"):
            faults.append(f"{name}: {done}")
    assert not faults, faults[:3]
    survived("15 hostile manifests", len(MANIFESTS) - len(faults), len(MANIFESTS))


def test_hostile_settings(yard: Yard, asr: Attacker, survived: Survived) -> None:
    faults = []
    audio = yard.folder / yard.good["audio_filepath"]
    for name, text in SETTINGS.items():
        settings = yard.folder / "bad.yaml"
        settings.write_text(text(yard))
        done = asr.run("transcribe", "--model", str(yard.model), "--decoder-config",
                       str(settings), str(audio), folder=yard.folder)  # fmt: skip
        about = "${oc.env:SECRET}" if "environment" in name else "bad.yaml"
        if not is_right(yard, done, about):
            faults.append(f"{name}: {done}")
    assert not faults, faults[:3]
    survived("15 hostile settings", len(SETTINGS) - len(faults), len(SETTINGS))


def test_there_are_twenty() -> None:
    assert len(MANIFESTS) + len(SETTINGS) == 20
