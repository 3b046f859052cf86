"""Folders of noises and impulse responses: every audio file in order, and errors by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio import list_recordings


def write(path: Path, rate: int = 8_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(rate // 2), rate)


def test_audio_is_found_in_order_whatever_lies_beside_it(tmp_path: Path) -> None:
    for name in ("street/b.wav", "a.FLAC", "street/a.wav", "c.ogg"):
        write(tmp_path / name)
    (tmp_path / "LICENCE").write_text("free")
    (tmp_path / "street" / "sources.csv").write_text("name,place")
    found = list_recordings(str(tmp_path))
    names = [recording.path.relative_to(tmp_path).as_posix() for recording in found]
    assert names == ["a.FLAC", "c.ogg", "street/a.wav", "street/b.wav"]
    assert {recording.info.duration for recording in found} == {0.5}


def test_a_folder_without_audio(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(ValueError, match=r"test_a_folder\S+: no audio files, expected \.wav \."):
        list_recordings(tmp_path)


@pytest.mark.parametrize(("name", "what"), [("gone", "missing"), ("file", "a file")])
def test_no_folder_at_all(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=rf"/{name}: {what}, expected a folder of audio files"):
        list_recordings(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "what"), [(b"", "empty file"), (b"no audio at all", "cannot be read as audio")]
)
def test_a_file_that_is_no_audio_is_named(tmp_path: Path, content: bytes, what: str) -> None:
    write(tmp_path / "good.wav")
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(ValueError, match=rf"/bad\.wav: {what}"):
        list_recordings(tmp_path)
