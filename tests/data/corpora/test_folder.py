"""A folder of recordings with a text each: partners, speakers, splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.data.corpora.folder import Folder
from tests.data.corpora.conftest import Made


def test_partners_lie_beside_or_in_a_folder_beside(made: Made) -> None:
    made.audio("wav/ada/1.wav", "wav/bob/1.flac", "both/2.wav")
    made.text("txt/ada/1.txt", "Yes,\r\nsir.\r\n".encode("utf-8-sig"))
    made.text("txt/bob/1.lab", "yes")
    made.text("both/2.txt", "größer".encode("cp1252"))
    made.text("README.txt", "About.")
    corpus = made.prepare(Folder())
    assert made.texts() == {
        "both/2.wav": "größer",
        "wav/ada/1.wav": "yes sir",
        "wav/bob/1.flac": "yes",
    }
    assert corpus.notes[:3] == (
        "1 texts were read as cp1252.",
        "Speakers are the names of 2 folders, as 'both'.",
        "1 texts have no recording of their name: README.txt.",
    )


def test_folders_are_speakers_and_splits(made: Made) -> None:
    for path in ("train/wav/ada", "train/wav/bob", "dev/wav/eve"):
        made.audio(f"{path}/1.wav", f"{path}/day2/2.wav")
        for name in ("1", "day2/2"):
            made.text(f"{path}/{name}.txt", "yes")
    made.prepare(Folder())
    assert {each.speaker for each in made.written().values()} == {"ada", "bob"}
    assert len(made.texts("dev")) == 2


def test_names_of_speakers_may_begin_as_those_of_splits(made: Made) -> None:
    for speaker in ("devi", "testa", "dev"):
        made.audio(f"{speaker}/1.wav")
        made.text(f"{speaker}/1.txt", "yes")
    corpus = made.prepare(Folder())
    assert [each.name for each in corpus.splits] == ["train"]
    assert {each.speaker for each in made.written().values()} == {"devi", "testa", "dev"}


def test_names_in_another_unicode_form_are_the_same(made: Made) -> None:
    made.audio("u\u0308.wav")
    made.text("\u00fc.txt", "yes")
    made.prepare(Folder())
    assert list(made.texts().values()) == ["yes"]


def test_missing_partners_are_listed(made: Made) -> None:
    made.audio("a.wav", "a.mp3", "b.wav", "c.wav", "d.wav", "x/e.wav")
    made.text("a.txt", "yes")
    made.text("c.txt", "  \n")
    made.text("d.txt", b"\xff\xfe\x00")
    made.text("y/e.txt", "yes")
    made.text("z/e.txt", "yes")
    with pytest.raises(ValueError, match=r"a\.wav:1: .*a\.txt is the text of another recording"):
        made.prepare(Folder())
    made.prepare(Folder(), skip_bad=True)
    assert list(made.texts()) == ["a.mp3"]
    reasons = made.rejected()
    assert reasons[1] == "no text, expected b.txt beside it or in a folder beside"
    assert "not utf-16" in reasons[2]
    assert reasons[3].startswith("2 texts, as ")
    assert "the text rules leave empty" in reasons[4]


def test_no_recordings(made: Made) -> None:
    with pytest.raises(ValueError, match="no audio files"):
        made.prepare(Folder())


def test_the_copy_of_a_folder(speech_cases: Path, made: Made) -> None:
    made.prepare(Folder(), source=speech_cases / "import-formats" / "pairs")
    assert made.texts()["01.wav"] == "the twenties"
