"""Common Voice: Mozilla's tables, with the faults that releases and downloads have."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.data.corpora.common_voice import CommonVoice
from tests.data.corpora.conftest import Made

HEADER = "client_id\tpath\tsentence_id\tsentence\tup_votes\tage\tlocale\n"


def row(speaker: str, clip: str, sentence: str, age: str = "") -> str:
    return f"{speaker}\t{clip}\tx\t{sentence}\t2\t{age}\tde\n"


def test_the_splits_of_mozilla(made: Made) -> None:
    made.audio(*(f"clips/cv_{number}.mp3" for number in range(4)))
    made.text("validated.tsv", HEADER + row("a", "cv_0.mp3", "Not read."))
    made.text("train.tsv", HEADER + row("a", "cv_0.mp3", '"Ja", sagte er.', "twenties") +
              row("b", "cv_1", "Ohne Endung"))  # fmt: skip
    made.text("dev.tsv", HEADER + row("c", "cv_2.mp3", "ja"))
    made.text("test.tsv", HEADER + row("d", "cv_3.mp3", "ja"))
    made.prepare(CommonVoice())
    assert made.texts() == {"cv_0": "ja sagte er", "cv_1": "ohne endung"}
    assert (made.texts("dev"), made.texts("test")) == ({"cv_2": "ja"}, {"cv_3": "ja"})
    first = made.written()["cv_0"]
    assert (first.speaker, first.extra["age"]) == ("a", "twenties")
    assert "age" not in made.written()["cv_1"].extra


def test_one_language_of_a_release_without_splits(made: Made) -> None:
    made.audio(*(f"de/clips/cv_{number}.wav" for number in range(4)))
    lines = [row(f"s{number}", f"cv_{number}.mp3", "ja") for number in range(4)]
    made.text("de/validated.tsv", HEADER + "".join(lines))
    corpus = made.prepare(CommonVoice(), dev_fraction=0.25, test_fraction=0.25)
    assert [each.utterances for each in corpus.splits] == [2, 1, 1]
    made.text("fr/validated.tsv", HEADER)
    with pytest.raises(ValueError, match="source: holds 2 languages, expected one of them"):
        made.prepare(CommonVoice())


def test_faults_are_named_by_line(made: Made) -> None:
    made.audio("clips/a.mp3")
    rows = [
        row("a", "a.mp3", "ja"), row("a", "lost.mp3", "ja"), row("a", "a2.mp3", ""),
        row("a", "../../x.mp3", "ja"), "cut\toff\n",
    ]  # fmt: skip
    content = "".join(["\ufeff", HEADER, *rows]).replace("\n", "\r\n")
    table = made.text("validated.tsv", content)
    with pytest.raises(ValueError, match=f"{table}:5: '../../x.mp3' leads out of the corpus"):
        made.prepare(CommonVoice())
    made.prepare(CommonVoice(), skip_bad=True)
    assert made.texts() == {"a": "ja"}
    reasons = made.rejected()
    assert reasons[1] == "2 fields, expected 7 as in the header"
    assert "the text rules leave empty" in reasons[2]
    assert reasons[3].endswith("clips/lost.mp3: no such file, expected audio")


def test_something_else_is_refused(made: Made) -> None:
    with pytest.raises(ValueError, match=r"holds neither train\.tsv nor validated\.tsv"):
        made.prepare(CommonVoice())


def test_the_copy_of_a_release(speech_cases: Path, made: Made) -> None:
    made.prepare(CommonVoice(), source=speech_cases / "import-formats" / "cv")
    assert made.texts()["common_voice_en_1001"] == "the twenties"
    assert len({each.speaker for each in made.written().values()}) == 6
