"""What all layouts have in common: names of splits, paths inside, splits that are not there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from asr.data.corpora.folder import Folder
from asr.data.corpora.kaldi import Kaldi
from asr.data.corpora.layout import Content, inner, split_of
from asr.data.corpora.manifest import prepare_manifest
from asr.data.manifest import Row, Utterance
from asr.data.records import BadLineError
from tests.data.corpora.conftest import Made


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"), ("train-clean-100", "train"), ("train_960", "train"),
        ("Training", "train"), ("dev-other", "dev"), ("validation", "dev"), ("valid", "dev"),
        ("val2", "dev"),
        ("test", "test"), ("eval2000", "test"),
        ("trained", None), ("developers", None), ("validated", None), ("my-train", None),
        ("", None),
    ],
)  # fmt: skip
def test_names_of_splits(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_paths_stay_in_the_corpus() -> None:
    assert inner("a\\b.wav ") == "a/b.wav"
    for outside in ("../a", "a/../../b", "/etc/passwd", "..\\a"):
        with pytest.raises(BadLineError, match="leads out of the corpus"):
            inner(outside)


@dataclass(frozen=True)
class Given:
    """Splits as they are given."""

    splits: dict[str, list[Row]]

    def read(self, source: Path) -> Content:
        return Content(self.splits, ("Read.",))


def rows(made: Made, names: str, speaker: str = "") -> list[Row]:
    made.audio(*(f"{name}.wav" for name in names))
    return [
        Utterance(made.source / f"{name}.wav", name, None, name, f"{speaker}{n // 2}")
        for n, name in enumerate(names)
    ]


def test_own_splits_stay_and_others_are_drawn(made: Made) -> None:
    letters = [
        Utterance(each.audio_filepath, "x", None, each.id, each.speaker)
        for each in rows(made, "abcdefghij")
        if isinstance(each, Utterance)
    ]
    given = Given({"train": letters[:8], "dev": letters[8:]})
    corpus = made.prepare(given, dev_fraction=0.1, test_fraction=0.25)
    assert [(each.name, each.utterances) for each in corpus.splits] == [
        ("train", 6), ("dev", 2), ("test", 2),
    ]  # fmt: skip
    assert corpus.notes[:2] == (
        "Read.",
        "test was taken from train by speaker: 25.0% of its utterances.",
    )
    speakers = [{each.speaker for each in made.written(s).values()} for s in ("train", "test")]
    assert not speakers[0] & speakers[1]


def test_a_corpus_without_train_is_split_anew(made: Made) -> None:
    corpus = made.prepare(Given({"dev": rows(made, "ab")}))
    assert [each.name for each in corpus.splits] == ["train"]
    assert "There is no train split: dev are split anew." in corpus.notes


def test_another_corpus_is_not_written_over(made: Made, tmp_path: Path) -> None:
    given = Given({"train": rows(made, "ab")})
    made.prepare(given)
    made.prepare(given)
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"made: holds the corpus of .*source, expected another"):
        made.prepare(given, source=tmp_path / "other")


def test_no_source_and_no_utterances(made: Made) -> None:
    with pytest.raises(FileNotFoundError, match="expected a corpus"):
        made.prepare(Given({}), source=made.source / "gone")
    with pytest.raises(ValueError, match="source: holds no utterances, expected at least one"):
        made.prepare(Given({"train": []}))
    assert not (made.data / "made").exists()


def test_a_source_above_the_corpora_does_not_read_what_was_written(made: Made) -> None:
    made.audio("a.wav", "b.wav")
    for name in "ab":
        made.text(f"{name}.txt", "one")
    made.data = made.source / "data"
    made.prepare(Folder())
    assert len(list((made.data / "made" / "audio").rglob("*.wav"))) == 2
    assert made.prepare(Folder()).splits[0].utterances == 2


@pytest.mark.parametrize(
    ("files", "layout"),
    [
        (["de/validated.tsv"], "common_voice"),
        (["wavs/a.wav", "metadata.csv"], "ljspeech"),
        (["train/metadata.jsonl"], "huggingface"),
        (["train-clean-5/1/2/1-2.trans.txt"], "librispeech"),
        (["cuts_train.jsonl.gz"], "lhotse"),
        (["a.wav", "a.txt"], "folder"),
    ],
)
def test_who_asks_for_another_layout_is_told(made: Made, files: list[str], layout: str) -> None:
    for name in files:
        made.text(name, "")
    with pytest.raises(ValueError, match=rf"holds no wav\.scp.*; it looks like corpus={layout}$"):
        made.prepare(Kaldi())
    with pytest.raises(
        ValueError, match=rf"no manifest for training.*; it looks like corpus={layout}"
    ):
        prepare_manifest("made", made.data, source=made.source)
