"""What a training reads: train and dev of manifests, text rules and alphabet."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.data.splits import Splits, load_splits
from asr.finding import Finding, Kind
from asr.text import TextNormalizer

Line = dict[str, object]


def write(path: Path, *lines: Line, audio: bool = True) -> str:
    """A manifest, and a file for each of its recordings: nobody looks into them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for each in lines if audio else ():
        (path.parent / str(each["audio_filepath"])).touch()
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
    with pytest.raises(ValueError, match="the alphabet is empty, expected at least one character"):
        load(train, dev, alphabet="")


UNKNOWN = (
    "character 'c' (U+0063 LATIN SMALL LETTER C) and 2 more not in the alphabet, "
    "expected only 'ab '"
)


def test_an_unknown_character_in_train_leaves_the_utterance_out(tmp_path: Path, dev: str) -> None:
    strange = write(tmp_path / "strange.jsonl", line("fine", "a"), line("odd", "caf\u00e9"))
    splits = load(strange, dev, alphabet="ab ", notice=Notices())
    assert [u.id for u in splits.train] == ["fine"]
    assert splits.left_out == (
        Finding(Kind.UNKNOWN_CHARACTER, UNKNOWN, "odd", Path(strange), line=2),
    )


def test_an_unknown_character_in_dev_is_an_error(tmp_path: Path, dev: str) -> None:
    train = write(tmp_path / "train.jsonl", line("t1", "ab"))
    strange = write(tmp_path / "strange.jsonl", line("fine", "a"), line("odd", "caf\u00e9"))
    message = f"dev: {strange}:2: odd: {UNKNOWN}; correct the text, its rules (data.text) or "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        load(train, strange, alphabet="ab ")


def test_a_character_that_only_dev_has(tmp_path: Path, dev: str) -> None:
    train = write(tmp_path / "train.jsonl", line("t1", "ab"))
    with pytest.raises(
        ValueError, match=r"^dev: .*dev\.jsonl:2: d2: character ' ' \(U\+0020 SPACE\)"
    ):
        load(train, dev)


def test_what_is_too_short_or_too_long_to_train_on_is_left_out_and_told(
    tmp_path: Path, dev: str
) -> None:
    seconds = [0.09, 0.1, 1.0, 2.0, 2.01]
    train = write(tmp_path / "train.jsonl", *(line(f"t{s}", "a b", duration=s) for s in seconds))
    notices = Notices()
    splits = load(train, dev, min_duration_s=0.1, max_duration_s=2.0, notice=notices)
    assert [u.duration for u in splits.train] == [0.1, 1.0, 2.0]
    assert notices == ["2 of 5 training utterances left out: 1 too short, 1 too long"]
    assert [finding.reason for finding in splits.left_out] == [
        "0.09 s, expected 0.1 to 2 s",
        "2.01 s, expected 0.1 to 2 s",
    ]


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
    message = (
        r"^no training utterance left of 2: 2 too short \(data\.min_duration_s, "
        r"data\.max_duration_s\); first: .*train\.jsonl:1: t1: 1\.00 s, expected 5 to 9 s$"
    )
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
    splits = load(trains, dev, notice=Notices())
    assert [u.id for u in splits.train] == ["data/t1"]
    (left_out,) = splits.left_out
    assert str(left_out).startswith(
        f"{trains[1]}:1: data/t1: id 'data/t1' is that of {trains[0]}:1 already: folders of "
    )
    with pytest.raises(ValueError, match=r"^dev: .*b\.jsonl:1: data/t1: id 'data/t1' is that of "):
        load(dev, trains, alphabet="ab ")


def test_durations_that_the_manifest_lacks_are_read_off_the_files(tmp_path: Path, dev: str) -> None:
    soundfile.write(tmp_path / "t1.wav", np.zeros(4000), 8000)
    part = line("t1", "a b", duration=None) | {"offset": 0.125}
    splits = load(write(tmp_path / "train.jsonl", part), dev)
    assert splits.train[0].duration == 0.375


FAULTY_LINES = [
    ({"audio_filepath": "x.wav"}, "bad_line", "text is missing, expected a text"),
    (line("t1"), "duplicate_id", "id 't1' is that of line 1 already"),
    (line("gone"), "missing_audio", "gone.wav: no such file, expected audio"),
    (line("folder"), "missing_audio", "folder.wav: not a regular file, expected audio"),
    (line("no_audio", duration=None), "unreadable_audio", "no_audio.wav: empty file, expected "),
    (line("dots", "..."), "empty_text", "empty text, expected at least one character"),
    (
        line("half", duration=None) | {"offset": 0.5},
        "unreadable_audio",
        "offset 0.5 s, expected less than the file's 0.5 s",
    ),
]


@pytest.mark.parametrize(("faulty", "kind", "reason"), FAULTY_LINES)
def test_what_is_left_out_of_train_is_an_error_in_dev(
    faulty: Line, kind: str, reason: str, tmp_path: Path, dev: str
) -> None:
    for name in ("t1", "no_audio", "dots", "t2"):
        (tmp_path / f"{name}.wav").touch()
    (tmp_path / "folder.wav").mkdir()
    soundfile.write(tmp_path / "half.wav", np.zeros(4000), 8000)
    lines = (line("t1", "a b"), faulty, line("t2", "ab"))
    manifest = write(tmp_path / "train.jsonl", *lines, audio=False)
    splits = load(manifest, dev, notice=Notices())
    assert [u.id for u in splits.train] == ["t1", "t2"]
    (left_out,) = splits.left_out
    assert left_out.kind.value == kind
    assert reason in left_out.reason
    assert left_out.place == f"{manifest}:2"
    assert left_out.id == (None if kind == "bad_line" else faulty["id"])
    with pytest.raises(ValueError, match=rf"^dev: {re.escape(manifest)}:2: .*{re.escape(reason)}"):
        load(dev, manifest, alphabet="ab ")


def test_several_faults_of_dev_are_told_in_one_line(tmp_path: Path, dev: str) -> None:
    faults = [line(f"e{number}", "") for number in range(3)]
    manifest = write(tmp_path / "bad.jsonl", *faults, {"audio_filepath": "x.wav"})
    message = (
        r"^dev: .*bad\.jsonl:1: e0: empty .* \(and 3 more in dev: 2 empty texts, 1 bad line\)$"
    )
    with pytest.raises(ValueError, match=message):
        load(dev, manifest)


def test_a_limit_leaves_nothing_out_that_comes_after_it(tmp_path: Path, dev: str) -> None:
    lines = [line("t1", "a b"), line("e1", ""), line("t2", "a b"), line("e2", "")]
    train = write(tmp_path / "train.jsonl", *lines)
    splits = load(train, dev, limit=2, notice=Notices())
    assert [u.id for u in splits.train] == ["t1", "t2"]
    assert [finding.id for finding in splits.left_out] == ["e1"]


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


def prepared(folder: Path, **rules: object) -> str:
    """A manifest of a prepared corpus, with the rules on record."""
    path = write(folder / "train.jsonl", {"audio_filepath": "a.wav", "text": "Ab", "duration": 1.0})
    record = {
        "splits": {"train": {"manifest": "train.jsonl"}},
        "text": asdict(TextNormalizer(**rules)),  # type: ignore[arg-type]
    }
    (folder / "corpus.json").write_text(json.dumps(record))
    return path


def test_a_training_takes_the_rules_of_the_preparation(tmp_path: Path) -> None:
    path = prepared(tmp_path / "mine", lowercase=False)
    told: list[str] = []
    splits = load_splits(path, path, TextNormalizer(), notice=told.append)
    rules = TextNormalizer(lowercase=False, unit="word")
    assert (splits.text, splits.train[0].text) == (rules, "Ab")
    assert told == [f"text rules are those that {tmp_path}/mine was prepared with: lowercase=false"]
    same = load_splits(path, path, TextNormalizer(lowercase=False), notice=told.append)
    assert (same.text, len(told)) == (rules, 1)
    by_character = load_splits(path, path, TextNormalizer(unit="character"), notice=told.append)
    assert by_character.text == replace(rules, unit="character")


def test_rules_that_contradict_the_preparation_are_refused(tmp_path: Path) -> None:
    path, other = prepared(tmp_path / "mine", language="tr"), prepared(tmp_path / "other")
    with pytest.raises(
        ValueError, match=r'data\.text\.language="lt", and .*mine was prepared with language="tr"'
    ):
        load_splits(path, path, TextNormalizer(language="lt"))
    with pytest.raises(ValueError, match=r'other: prepared with language="", and .*mine'):
        load_splits([path, other], path, TextNormalizer())
    strange = tmp_path / "other" / "corpus.json"
    for content in ("[]", '{"text": 7, "splits": {}}', '{"text": {}, "splits": {"train": {}}}'):
        strange.write_text(content)
        assert load_splits([path, other], path, TextNormalizer()).text.language == "tr"
    strange.write_text('{"text": {"lower": 1}, "splits": {"train": {"manifest": "train.jsonl"}}}')
    with pytest.raises(ValueError, match=r"corpus\.json: text: content has 'lower'"):
        load_splits(other, other, TextNormalizer())


def test_only_what_is_asked_for_can_contradict(tmp_path: Path) -> None:
    path = prepared(tmp_path / "mine", language="tr", lowercase=False)
    told: list[str] = []
    asked = TextNormalizer(language="tr")
    assert load_splits(path, path, asked, notice=told.append).text.lowercase is False
    assert told[0].endswith("was prepared with: lowercase=false")
    with pytest.raises(ValueError, match=r'^data\.text\.keep="-", and '):
        load_splits(path, path, TextNormalizer(keep="-"))


def test_what_to_expect_is_said_of_the_training_utterances(tmp_path: Path) -> None:
    path = prepared(tmp_path / "mine")
    (space, amount) = load_splits(path, path, TextNormalizer()).remarks()
    assert (space[:16], amount[:17]) == ("No text of train", "train has 0.0 min")
