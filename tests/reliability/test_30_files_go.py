"""Check 30: nothing is deleted or overwritten but what the program itself wrote.

A corpus folder may come from anybody: its journal, by which stale audio is deleted, may name any
file, and whatever lies in it may be a link to elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from asr.cli.main import main
from asr.data.corpora.fsdd import prepare_fsdd
from asr.data.corpora.manifest import prepare_manifest
from asr.data.corpus_folder import audio_name
from tests.reliability.corpus import write_corpus

Survived = Callable[[str, int, int], None]
OURS = audio_name("train", "gone", "wav")  # a name that a preparation might have written
STEM = Path(OURS).stem
SIZES = {"fingerprint": "f" * 64, "num_samples": 1, "num_clipped": 0, "num_bytes": 1}


class World:
    """A corpus that was prepared once, and files around it that are none of its business."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = write_corpus(folder / "source", 1, seed=30)
        self.corpus = folder / "data" / "mine"
        self.outside = folder / "outside"
        (self.outside / "train").mkdir(parents=True)
        self.prepare()
        for path in self.mine():
            path.write_text("precious")

    def mine(self) -> list[Path]:
        """The user's own files."""
        own = [self.folder / "thesis.txt", self.corpus / "audio" / "train" / "mine.wav"]
        inside = [self.outside / name for name in ("a.wav", f"train/{STEM}.wav", f"{STEM}.wav")]
        return [*own, *inside, self.outside / ".0123456789abcdef.part"]

    def prepare(self) -> str:
        """Prepare the corpus, once more; what was wrong with it, if anything."""
        try:
            prepare_manifest("mine", self.folder / "data", train=self.manifest, num_workers=1)
        except ValueError as error:
            return str(error)
        return ""

    def journal(self, *lines: str | bytes) -> None:
        """Add lines to the journal."""
        path = self.corpus / ".prepare" / "audio.jsonl"
        with path.open("ab") as file:
            file.writelines(
                (line.encode() if isinstance(line, str) else line) + b"\n" for line in lines
            )

    def is_whole(self) -> bool:
        """Whether everything of the user's is as it was."""
        return all(path.is_file() and path.read_text() == "precious" for path in self.mine())

    def replace(self, name: str, target: Path) -> None:
        """Put a link into the corpus folder, in place of what is there."""
        path = self.corpus / name
        if path.exists() and not path.is_symlink():
            path.rename(self.folder / f"moved-{path.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)


def entry(name: object, **changes: object) -> str:
    return json.dumps({"file": name, **SIZES, **changes})


JOURNALS: Mapping[str, Callable[[World], str | bytes]] = {
    "an absolute path": lambda world: entry(str(world.folder / "thesis.txt")),
    "a path upwards": lambda world: entry("../../thesis.txt"),
    "upwards from audio": lambda world: entry("audio/../../../thesis.txt"),
    "upwards from a split": lambda world: entry("audio/train/../../../../thesis.txt"),
    "upwards through a file": lambda world: entry(f"{OURS}/../../../../../thesis.txt"),
    "another folder's audio": lambda world: entry("../../outside/a.wav"),
    "the user's audio in the folder": lambda world: entry("audio/train/mine.wav"),
    "the same, spelt otherwise": lambda world: entry("audio//train/./mine.wav"),
    "a manifest": lambda world: entry("train.jsonl"),
    "the corpus's description": lambda world: entry("corpus.json"),
    "the lock": lambda world: entry(".prepare/lock"),
    "the journal itself": lambda world: entry(".prepare/audio.jsonl"),
    "no name": lambda world: entry(""),
    "the folder itself": lambda world: entry("."),
    "the audio folder": lambda world: entry("audio"),
    "a split's folder": lambda world: entry("audio/train"),
    "a line feed behind the name": lambda world: entry(f"{OURS}\n"),
    "a NUL behind the name": lambda world: entry(f"{OURS}\0"),
    "another split": lambda world: entry(OURS.replace("train", "other")),
    "another suffix": lambda world: entry(OURS.replace(".wav", ".mp3")),
    "capital letters": lambda world: entry(OURS.upper()),
    "backslashes": lambda world: entry("..\\..\\thesis.txt"),
    "a home folder": lambda world: entry("~/thesis.txt"),
    "a URL": lambda world: entry(f"file://{world.folder}/thesis.txt"),
    "10,000 characters": lambda world: entry(f"audio/train/{'x' * 10_000}-{'0' * 16}.wav"),
    "a number": lambda world: entry(7),
    "null": lambda world: entry(None),
    "a list": lambda world: entry([str(world.folder / "thesis.txt")]),
    "a mapping": lambda world: entry({"file": str(world.folder / "thesis.txt")}),
    "sizes that are texts": lambda world: entry("audio/train/mine.wav", num_bytes="1"),
    "a field too many": lambda world: entry("audio/train/mine.wav", more=1),
    "no mapping": lambda world: json.dumps([str(world.folder / "thesis.txt")]),
    "values 100,000 deep": lambda world: "[" * 100_000,
    "no UTF-8": lambda world: b'{"file": "../../thesis.txt\xff"}',
    "a line of 3 MB": lambda world: entry("x" * 3_000_000),
    "20,000 empty lines": lambda world: "\n" * 20_000,
}


def test_a_journal_names_no_file_but_its_own(tmp_path: Path, survived: Survived) -> None:
    kept = 0
    for number, line in enumerate(JOURNALS.values()):
        world = World(tmp_path / str(number))
        world.journal(line(world))
        before = sorted(world.folder.rglob("*"))
        assert "\n" not in world.prepare()
        kept += world.is_whole() and sorted(world.folder.rglob("*")) == before
    assert len(JOURNALS) >= 30
    survived("files that a journal names", kept, len(JOURNALS))


LINKS: Mapping[str, Callable[[World], None]] = {
    "audio": lambda world: world.replace("audio", world.outside),
    "a split of audio": lambda world: world.replace("audio/train", world.outside),
    "a split that is not prepared": lambda world: world.replace("audio/dev", world.outside),
    "an audio file": lambda world: world.replace(OURS, world.outside / "a.wav"),
    "the notes": lambda world: world.replace(".prepare", world.outside),
    "the lock": lambda world: world.replace(".prepare/lock", world.folder / "thesis.txt"),
    "the journal": lambda world: world.replace(".prepare/audio.jsonl", world.outside / "a.wav"),
    "a manifest": lambda world: world.replace("train.jsonl", world.folder / "thesis.txt"),
    "a manifest of before": lambda world: world.replace("dev.jsonl", world.folder / "thesis.txt"),
    "the description": lambda world: world.replace("corpus.json", world.folder / "thesis.txt"),
    "the list of what was bad": lambda world: world.replace(
        "rejected.jsonl", world.folder / "thesis.txt"
    ),
    "a file of a killed writer": lambda world: world.replace(
        ".0123456789abcdef.part", world.folder / "thesis.txt"
    ),
    "a folder beside": lambda world: world.replace("more", world.outside),
}


def test_a_link_in_a_corpus_folder_leads_nowhere(tmp_path: Path, survived: Survived) -> None:
    kept = 0
    for number, link in enumerate(LINKS.values()):
        world = World(tmp_path / str(number))
        world.journal(entry(OURS), entry(OURS.replace("train", "dev")))
        mine = world.corpus / "audio" / "train" / "mine.wav"
        mine.rename(world.folder / "mine.wav")  # links to folders take its place
        link(world)
        wrong = world.prepare()
        assert not wrong or "a symbolic link, expected" in wrong
        others = [path for path in world.mine() if path != mine]
        kept += all(path.is_file() and path.read_text() == "precious" for path in others)
    survived("links in a corpus folder", kept, len(LINKS))


def test_recordings_behind_a_link_are_not_deleted(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "0_jackson_0.wav").write_text("precious")
    downloads = tmp_path / "data" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / "fsdd-26eb9aa").symlink_to(elsewhere)
    with pytest.raises(ValueError, match="holds 1 recordings, expected 3000"):
        prepare_fsdd(tmp_path / "data")
    assert (elsewhere / "0_jackson_0.wav").read_text() == "precious"


def test_what_is_skipped_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(tmp_path)
    world.journal(entry(str(tmp_path / "thesis.txt")), entry("../../thesis.txt"))
    arguments = ["corpus=manifest", "corpus.name=mine", f"paths.data_dir={tmp_path / 'data'}"]
    run_dir = f"hydra.run.dir={tmp_path / 'run'}"
    assert main(["prepare", *arguments, f"corpus.train={world.manifest}", run_dir]) == 0
    assert world.is_whole()
    told = [line for line in capsys.readouterr().out.splitlines() if "skipped, " in line]
    assert len(told) == 1
    assert "audio.jsonl:2: file is '" in told[0]
    assert told[0].endswith("expected one that asr prepare writes (and 1 more)")
