"""Manifests to splits: text rules, alphabet, lengths, ids, and what is said and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.data.splits import Splits, load_splits
from asr.text.normalize import TextNormalizer

Line = dict[str, object]


def write(path: Path, *lines: Line) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def line(name: str, text: str = "ab", duration: float | None = 1.0) -> Line:
    return {"audio_filepath": f"{name}.wav", "text": text, "duration": duration, "id": name}


class Notices(list[str]):
    """Collects what `load_splits` says."""

    def __call__(self, message: str) -> None:
        self.append(message)


def load(train: str | list[str], dev: str | list[str], **arguments: object) -> Splits:
    silent = Notices()
    splits = load_splits(train, dev, TextNormalizer(), **{"notice": silent, **arguments})  # type: ignore[arg-type]
    if arguments.get("notice") is None:
        assert silent == []
    return splits


@pytest.fixture
def dev(tmp_path: Path) -> str:
    return write(tmp_path / "dev.jsonl", line("d1", "b"), line("d2", "a b"))


def test_texts_are_normalised_and_the_alphabet_is_that_of_training(
    tmp_path: Path, dev: str
) -> None:
    train = write(tmp_path / "train.jsonl", line("t1", "  B,  a! "), line("t2", "AC"))
    splits = load(train, dev)
    assert [u.text for u in splits.train] == ["b a", "ac"]
    assert [u.id for u in splits.train] == ["t1", "t2"]
    assert [u.text for u in splits.dev] == ["b", "a b"]
    assert splits.alphabet == " abc"
    assert splits.train[0].audio_filepath == tmp_path / "t1.wav"


def test_a_given_alphabet_keeps_its_order_and_may_have_more(tmp_path: Path, dev: str) -> None:
    train = write(tmp_path / "train.jsonl", line("t1", "ab"))
    assert load(train, dev, alphabet="zba ").alphabet == "zba "


@pytest.mark.parametrize("split", ["train", "dev"])
def test_an_unknown_character_names_utterance_and_character(
    split: str, tmp_path: Path, dev: str
) -> None:
    train = write(tmp_path / "train.jsonl", line("t1", "ab"))
    strange = write(tmp_path / "strange.jsonl", line("fine", "a"), line("odd", "caf\u00e9"))
    message = rf"^{split} utterance odd: character 'c' \(U\+0063\) is not in the alphabet 'ab '"
    manifests = (strange, dev) if split == "train" else (train, strange)
    with pytest.raises(ValueError, match=message):
        load(*manifests, alphabet="ab ")


def test_a_character_that_only_dev_has(tmp_path: Path, dev: str) -> None:
    train = write(tmp_path / "train.jsonl", line("t1", "ab"))
    with pytest.raises(ValueError, match=r"^dev utterance d2: character ' ' \(U\+0020\)"):
        load(train, dev)


def test_what_is_too_short_or_too_long_to_train_on_is_left_out_and_told(
    tmp_path: Path, dev: str
) -> None:
    seconds = [0.09, 0.1, 1.0, 2.0, 2.01]
    train = write(tmp_path / "train.jsonl", *(line(f"t{s}", "a b", duration=s) for s in seconds))
    notices = Notices()
    splits = load(train, dev, min_duration_s=0.1, max_duration_s=2.0, notice=notices)
    assert [u.duration for u in splits.train] == [0.1, 1.0, 2.0]
    assert notices == ["2 of 5 training utterances left out: not 0.1 to 2 s long"]


def test_characters_of_utterances_left_out_are_no_part_of_the_alphabet(
    tmp_path: Path, dev: str
) -> None:
    train = write(tmp_path / "train.jsonl", line("t1", "a b"), line("long", "xyz", duration=99.0))
    assert load(train, dev, notice=Notices()).alphabet == " ab"


def test_dev_keeps_every_length(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", line("t1", "ab"))
    dev = write(tmp_path / "dev.jsonl", line("s", "a", duration=0.01), line("l", "b", duration=99))
    assert [u.id for u in load(train, dev).dev] == ["s", "l"]


def test_no_utterance_left(tmp_path: Path, dev: str) -> None:
    train = write(tmp_path / "train.jsonl", line("t1"), line("t2"))
    message = r"no training utterance left of 2, expected some of 5 to 9 s \(data\.min_duration_s"
    with pytest.raises(ValueError, match=message):
        load(train, dev, min_duration_s=5, max_duration_s=9, notice=Notices())


def test_no_manifest_at_all(dev: str) -> None:
    with pytest.raises(ValueError, match="no manifest given, expected at least one path"):
        load([], dev)


def test_limit_takes_the_first_of_each_split(tmp_path: Path, dev: str) -> None:
    train = write(tmp_path / "train.jsonl", *(line(f"t{index}", "a b") for index in range(5)))
    splits = load(train, dev, limit=1)
    assert [u.id for u in splits.train] == ["t0"]
    assert [u.id for u in splits.dev] == ["d1"]
    assert len(load(train, dev, limit=99).train) == 5


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one(limit: int, tmp_path: Path, dev: str) -> None:
    train = write(tmp_path / "train.jsonl", line("t1", "a b"))
    with pytest.raises(ValueError, match=f"limit {limit}, expected at least 1 utterance"):
        load(train, dev, limit=limit)


def test_ids_of_several_manifests_carry_their_folder(tmp_path: Path, dev: str) -> None:
    trains = [
        write(tmp_path / name / "train.jsonl", line("t1", f"a {letter}"))
        for name, letter in (("one", "b"), ("two", "c"))
    ]
    splits = load(trains, [dev])
    assert [u.id for u in splits.train] == ["one/t1", "two/t1"]
    assert [u.text for u in splits.train] == ["a b", "a c"]
    assert [u.id for u in splits.dev] == ["d1", "d2"]


def test_ids_that_several_manifests_share(tmp_path: Path, dev: str) -> None:
    trains = [
        write(tmp_path / folder / name, line("t1", "a b"))
        for folder, name in (("x/data", "a.jsonl"), ("y/data", "b.jsonl"))
    ]
    with pytest.raises(ValueError, match="id 'data/t1' occurs 2 times in the manifests"):
        load(trains, dev)


def test_durations_that_the_manifest_lacks_are_read_off_the_files(tmp_path: Path, dev: str) -> None:
    soundfile.write(tmp_path / "t1.wav", np.zeros(4000), 8000)
    part = line("t1", "a b", duration=None) | {"offset": 0.125}
    splits = load(write(tmp_path / "train.jsonl", part), dev)
    assert splits.train[0].duration == 0.375


def test_a_missing_file_whose_duration_is_needed(tmp_path: Path, dev: str) -> None:
    train = write(tmp_path / "train.jsonl", line("t1", "a b", duration=None))
    with pytest.raises(FileNotFoundError, match=r"t1\.wav"):
        load(train, dev)


def test_the_fingerprint_moves_with_ids_durations_texts_and_sides(tmp_path: Path, dev: str) -> None:
    base = [line("t1", "a b"), line("t2", "b a")]

    def fingerprint(*lines: Line) -> str:
        return load(write(tmp_path / "train.jsonl", *lines), dev).fingerprint()

    prints = [
        fingerprint(*base),
        fingerprint(base[0], line("t3", "b a")),
        fingerprint(base[0], line("t2", "b b a")),
        fingerprint(base[0], line("t2", "b a", duration=1.5)),
        fingerprint(base[0], base[1] | {"offset": 0.5}),
        fingerprint(*base[::-1]),
        fingerprint(base[0]),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(*base) == prints[0]
    # The same utterances in the same order, but one of them on the other side.
    splits = load(str(tmp_path / "train.jsonl"), dev)
    moved = replace(splits, train=splits.train[:-1], dev=(splits.train[-1], *splits.dev))
    assert moved.fingerprint() != prints[0]
