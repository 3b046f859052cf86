"""A resume tells of audio that is not what it was."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from asr.data.manifest import Utterance
from asr.trainer.audio_stamps import AudioStamps


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """Four files, the last one with two segments."""
    made = []
    for name in "abcd":
        path = tmp_path / f"{name}.wav"
        path.write_bytes(name.encode())
        made.append(Utterance(path, "text", 1.0, name))
    return [*made, replace(made[-1], id="e", offset=0.5)]


def told(utterances: list[Utterance], saved: AudioStamps, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    AudioStamps(utterances).load_state_dict(saved.state_dict())
    return "".join(caplog.messages)


def test_files_that_are_the_same_are_not_told(
    utterances: list[Utterance], caplog: pytest.LogCaptureFixture
) -> None:
    saved = AudioStamps(utterances)
    assert saved.state_dict()["stamps"].shape == (5,)
    assert saved.state_dict()["stamps"].dtype == torch.int32
    assert told(utterances, saved, caplog) == ""


@pytest.mark.parametrize("change", ["size", "time", "gone"])
def test_files_that_changed_are_counted_and_the_first_is_named(
    utterances: list[Utterance], change: str, caplog: pytest.LogCaptureFixture
) -> None:
    saved = AudioStamps(utterances)
    for utterance in utterances[1::2]:
        path = utterance.audio_filepath
        before = path.stat()
        if change == "gone":
            path.unlink()
        elif change == "size":
            path.write_bytes(b"another")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        else:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    line = told(utterances, saved, caplog)
    assert line.startswith("resumed on other audio than before: 2 of 4 files have another size or")
    assert f", {utterances[1].audio_filepath} first; it goes on with them as they are" in line
    assert told(utterances, AudioStamps(utterances), caplog) == ""  # those that are saved now


def test_each_file_is_looked_at_once_and_by_one_rank(
    utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked: list[Path] = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path: looked.append(path) or stat(path))
    saved = AudioStamps(utterances)
    assert looked == [utterance.audio_filepath for utterance in utterances[:4]]
    looked.clear()
    other_rank = AudioStamps(utterances, is_writer=False)
    other_rank.load_state_dict(saved.state_dict())
    assert looked == []
    assert caplog.messages == []
    assert other_rank.stamps.shape == saved.stamps.shape
