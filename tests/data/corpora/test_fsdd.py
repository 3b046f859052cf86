"""Free Spoken Digit Dataset: its splits, and that it is what it should be."""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.data.corpora import fsdd
from asr.data.corpora.fsdd import (
    NUM_RECORDINGS,
    SPEAKERS,
    content_sha256,
    prepare_fsdd,
    verify_recordings,
)
from asr.data.manifest import Utterance, read_manifest


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two digits of two speakers, twelve times each."""
    folder = tmp_path / "source" / "recordings"
    folder.mkdir(parents=True)
    for digit in (0, 7):
        for speaker in ("theo", "lucas"):
            for index in range(12):
                noise = np.random.default_rng(index).uniform(-0.1, 0.1, 1000 + index)
                soundfile.write(folder / f"{digit}_{speaker}_{index}.wav", noise, 8_000)
    return folder


def split(folder: Path, name: str) -> list[Utterance]:
    return read_manifest(folder / f"{name}.jsonl")


def indices(utterances: list[Utterance]) -> set[int]:
    return {int(u.id.rsplit("_", 1)[1]) for u in utterances}


def test_the_official_split(small: Path, tmp_path: Path) -> None:
    corpus = prepare_fsdd(tmp_path / "data", source=small.parent, verify=False)
    assert corpus.name == "fsdd"
    assert [(s.name, s.utterances, s.speakers) for s in corpus.splits] == [
        ("train", 8, 2),
        ("dev", 20, 2),
        ("test", 20, 2),
    ]
    assert indices(split(corpus.folder, "test")) == set(range(5))
    assert indices(split(corpus.folder, "dev")) == set(range(5, 10))
    assert indices(split(corpus.folder, "train")) == {10, 11}
    first = split(corpus.folder, "test")[0]
    assert (first.id, first.text, first.speaker) == ("0_lucas_0", "zero", "lucas")
    assert first.duration == 1000 / 8000
    assert corpus.alphabet == "enorsvz"


def test_one_speaker_held_out(small: Path, tmp_path: Path) -> None:
    corpus = prepare_fsdd(
        tmp_path / "data", source=small, verify=False, held_out_speaker="theo", dev_indices=[0, 11]
    )
    assert corpus.name == "fsdd_without_theo"
    speakers = {s.name: {u.speaker for u in split(corpus.folder, s.name)} for s in corpus.splits}
    assert speakers == {"train": {"lucas"}, "dev": {"lucas"}, "test": {"theo"}}
    assert indices(split(corpus.folder, "test")) == set(range(12))
    assert indices(split(corpus.folder, "dev")) == {0, 11}
    assert indices(split(corpus.folder, "train")) == set(range(1, 11))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"held_out_speaker": "bob"}, "held_out_speaker is 'bob', expected one of george, jackson"),
        ({"dev_indices": [4]}, "dev_indices has 4, expected whole numbers 5 to 49"),
        ({"dev_indices": []}, "dev_indices is empty, expected whole numbers 5 to 49"),
        ({"dev_indices": [50], "held_out_speaker": "theo"}, "dev_indices has 50, expected .* 0 to"),
        ({"dev_indices": range(5, 50)}, "fsdd: no train utterance is left"),
        ({"verify": True}, "holds 48 recordings, expected 3000"),
        ({"sample_rate": 0}, "sample_rate is 0, expected"),
    ],
)
def test_wrong_arguments(
    small: Path, tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare_fsdd(tmp_path / "data", source=small, **{"verify": False, **arguments})  # type: ignore[arg-type]


def test_sources_that_are_none(small: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no wav files, expected them there or in recordi"):
        prepare_fsdd(tmp_path / "data", source=tmp_path / "empty")
    with pytest.raises(NotADirectoryError, match="not a folder"):
        prepare_fsdd(tmp_path / "data", source=tmp_path / "missing")
    (small / "seven.wav").write_bytes(b"")
    with pytest.raises(ValueError, match=r"seven\.wav: not a recording's name, expected like 7_"):
        prepare_fsdd(tmp_path / "data", source=small, verify=False)


def pack(recordings: Path, archive: Path) -> Path:
    """As GitHub packs it: everything in one folder, with other files beside the recordings."""
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("free-spoken-digit-dataset-26eb9aa/README.md", "x")
        for path in recordings.iterdir():
            file.write(path, f"free-spoken-digit-dataset-26eb9aa/recordings/{path.name}")
    return archive


def test_an_archive_of_the_user_is_unpacked_once(small: Path, tmp_path: Path) -> None:
    archive = pack(small, tmp_path / "mine.zip")
    lines: list[str] = []
    for _ in range(2):
        corpus = prepare_fsdd(
            tmp_path / "data", source=archive, verify=False, audio_format="keep", say=lines.append
        )
    audio = split(corpus.folder, "train")[0].audio_filepath
    assert audio.is_file()
    assert audio.is_relative_to(tmp_path / "data" / "downloads")
    assert sum("files unpacked" in line for line in lines) == 1
    assert sum("already unpacked" in line for line in lines) == 1
    assert archive.is_file()


def test_a_download_is_unpacked_verified_and_not_repeated(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fake_download(url: str, target: Path, **options: object) -> None:
        asked.append(url)
        shutil.copy(pack(small, tmp_path / "github.zip"), target)

    monkeypatch.setattr(fsdd, "download", fake_download)
    monkeypatch.setattr(fsdd, "NUM_RECORDINGS", 48)
    with pytest.raises(ValueError, match=r"the content has sha256 .*, expected dbd573d7"):
        prepare_fsdd(tmp_path / "data")
    downloads = tmp_path / "data" / "downloads"
    assert [path.name for path in downloads.iterdir()] == ["fsdd.lock"]
    monkeypatch.setattr(fsdd, "CONTENT_SHA256", content_sha256(list(small.iterdir())))
    for _ in range(2):
        prepare_fsdd(tmp_path / "data")
    assert asked == [fsdd.ARCHIVE_URL] * 2
    assert sorted(path.name for path in downloads.iterdir()) == ["fsdd-26eb9aa", "fsdd.lock"]


def test_the_real_recordings_are_those_of_the_commit(speech_data: Path, tmp_path: Path) -> None:
    recordings = speech_data / "fsdd" / "recordings"
    if not recordings.is_dir():
        pytest.skip(f"no {recordings}")
    verify_recordings(recordings)
    copy = tmp_path / "recordings"
    copy.mkdir()
    for path in recordings.iterdir():
        (copy / path.name).symlink_to(path)
    one = copy / "3_theo_7.wav"
    content = bytearray(one.read_bytes())
    content[-1] ^= 1
    one.unlink()
    one.write_bytes(content)
    with pytest.raises(ValueError, match="the content has sha256"):
        verify_recordings(copy)
    one.unlink()
    with pytest.raises(ValueError, match="holds 2999 recordings, expected 3000"):
        verify_recordings(copy)


def test_the_real_official_split(speech_data: Path, tmp_path: Path) -> None:
    source = speech_data / "fsdd"
    if not source.is_dir():
        pytest.skip(f"no {source}")
    corpus = prepare_fsdd(tmp_path, source=source, audio_format="keep")
    assert [s.utterances for s in corpus.splits] == [2400, 300, 300]
    assert sum(s.utterances for s in corpus.splits) == NUM_RECORDINGS
    counts = Counter((u.text, u.speaker) for u in split(corpus.folder, "test"))
    assert set(counts.values()) == {5}
    assert {speaker for _, speaker in counts} == set(SPEAKERS)
    assert corpus.alphabet == "efghinorstuvwxz"
