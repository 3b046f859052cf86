"""What a training reads: splits of manifests, folds, and dev taken from train."""

from __future__ import annotations

import json
import random
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.data.manifest import Utterance
from asr.data.splits import Draw, Fold, Splits, carve, cut_fold, draw_splits, load_splits
from asr.finding import Finding, Kind
from asr.text import TextNormalizer

Line = dict[str, object]
TEXT = TextNormalizer()


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


# Folds: no shared speaker, like durations, the same on every machine, and what is refused.


# Speaker and duration [s] of each utterance: the totals are a 9, b 7, c 6, d 5, e 5.
SPOKEN = (("a", 4.0), ("b", 7.0), ("c", 6.0), ("d", 2.0), ("a", 5.0), ("e", 5.0), ("d", 3.0))


def utterance(number: int, speaker: str | None, duration: float) -> Utterance:
    return Utterance(Path(f"{number}.wav"), "ab", duration, f"u{number}", speaker)


def spoken() -> list[Utterance]:
    return [utterance(number, *said) for number, said in enumerate(SPOKEN)]


def all_folds(utterances: list[Utterance], folds: int, seed: int = 0) -> list[Fold]:
    return [cut_fold(utterances, folds, fold, seed, pytest.fail) for fold in range(folds)]


def speakers(utterances: tuple[Utterance, ...]) -> set[str | None]:
    return {each.speaker for each in utterances}


def seconds(utterances: tuple[Utterance, ...]) -> float:
    return sum(each.duration or 0.0 for each in utterances)


def test_the_longest_speaker_left_goes_into_the_shortest_fold() -> None:
    """By hand: a 9 | b 7; c 6 to b, 13; d or e 5 to a, 14; the other 5 to b, 18."""
    first, second = all_folds(spoken(), 2)
    assert {seconds(first.dev), seconds(second.dev)} == {14.0, 18.0}
    assert speakers(first.dev) in ({"a", "d"}, {"a", "e"})
    assert speakers(second.dev) == set("abcde") - speakers(first.dev)


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_every_utterance_is_in_dev_once_and_no_speaker_on_both_sides(folds: int) -> None:
    cut = all_folds(spoken(), folds)
    in_dev = [each.id for fold in cut for each in fold.dev]
    assert sorted(in_dev) == [each.id for each in spoken()]
    for fold in cut:
        assert not speakers(fold.train) & speakers(fold.dev)
        assert sorted([*fold.train, *fold.dev], key=lambda each: each.id) == spoken()
        assert [*fold.train] == sorted(fold.train, key=lambda each: each.id)  # order kept


def test_the_order_of_the_manifest_does_not_matter() -> None:
    shuffled = spoken()
    random.Random(7).shuffle(shuffled)
    for fold, other in zip(all_folds(spoken(), 3), all_folds(shuffled, 3), strict=True):
        assert {each.id for each in fold.dev} == {each.id for each in other.dev}


def test_the_seed_decides_between_speakers_of_equal_duration_alone() -> None:
    same = [utterance(number, f"s{number}", 1.0) for number in range(12)]
    cuts = {tuple(each.id for each in all_folds(same, 3, seed)[0].dev) for seed in range(8)}
    assert len(cuts) > 4
    assert all(len(cut) == 4 for cut in cuts)
    apart = [utterance(number, f"s{number}", 1.0 + number) for number in range(12)]
    assert all_folds(apart, 3, seed=0) == all_folds(apart, 3, seed=1)


def test_the_longest_fold_is_within_a_third_of_the_mean_and_a_speaker() -> None:
    draw = random.Random(3)
    many = [utterance(n, f"s{n % 40}", draw.uniform(0.5, 12.0)) for n in range(400)]
    lengths = [seconds(fold.dev) for fold in all_folds(many, 5)]
    assert max(lengths) / min(lengths) < 1.03


def test_utterances_without_a_speaker_count_as_their_own_and_are_told() -> None:
    told: list[str] = []
    some = [utterance(0, "u1", 1.0), utterance(1, None, 1.0), utterance(2, None, 1.0)]
    cut = [cut_fold(some, 3, fold, notice=told.append) for fold in range(3)]
    assert sorted(len(fold.dev) for fold in cut) == [1, 1, 1]
    assert told[0].startswith("2 of 3 utterances name no speaker: each counts as a speaker")


def test_fewer_speakers_than_folds() -> None:
    with pytest.raises(ValueError, match=r"^5 speakers, expected at least 6 for data\.folds"):
        cut_fold(spoken(), 6, 0, notice=pytest.fail)


# Through load_splits.


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Five speakers; only d, whose utterance is too long to train on, says z."""
    rows = [
        {"audio_filepath": f"{n}.wav", "text": text, "duration": duration, "speaker": speaker}
        for n, (speaker, text, duration) in enumerate(
            [("a", "ab", 1.0), ("b", "b a", 1.5), ("c", "ca", 2.0), ("d", "z", 50.0), ("e", "a", 3)]
        )
    ]
    for row in rows:
        (tmp_path / str(row["audio_filepath"])).touch()
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load_folds(manifest: Path, dev: str | None = None, **arguments: int) -> Splits:
    notice = list[str]().append
    return load_splits(str(manifest), dev, TextNormalizer(), notice=notice, **arguments)


def test_every_fold_has_the_alphabet_of_all_texts(manifest: Path) -> None:
    splits = [load_folds(manifest, folds=5, fold=fold) for fold in range(5)]
    assert {each.alphabet for each in splits} == {" abcz"}
    assert len({each.fingerprint() for each in splits}) == 5


def test_dev_keeps_every_length_and_train_does_not(manifest: Path) -> None:
    splits = [load_folds(manifest, folds=5, fold=fold) for fold in range(5)]
    assert sorted(each.dev[0].speaker or "" for each in splits) == list("abcde")
    assert sorted(len(each.train) for each in splits) == [3, 3, 3, 3, 4]


def test_what_cannot_be_used_is_left_out_of_every_fold(manifest: Path) -> None:
    """Silence is no text, and ab is all that the given alphabet has."""
    with manifest.open("a") as file:
        file.write('{"audio_filepath": "1.wav", "text": " ", "id": "empty", "duration": 1.0}\n')
    folds = [
        load_splits(str(manifest), None, TextNormalizer(), "ab", folds=2, fold=fold)
        for fold in (0, 1)
    ]
    for splits in folds:
        assert sorted(u.speaker or "" for u in (*splits.train, *splits.dev)) == ["a", "e"]
        kinds = [each.kind for each in splits.left_out]
        assert kinds == [*[Kind.UNKNOWN_CHARACTER] * 3, Kind.EMPTY_TEXT]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 1}, r"data\.folds 1, expected 0 \(off\) or 2 and more"),
        ({"folds": -2}, r"data\.folds -2, expected"),
        ({"folds": 3, "fold": 3}, r"data\.fold 3, expected 0 to 2 of data\.folds 3"),
        ({"folds": 3, "fold": -1}, r"data\.fold -1, expected 0 to 2"),
        ({"fold": 2}, r"data\.fold 2 of data\.folds 0, expected data\.folds of 2"),
        ({"folds": 6}, r"5 speakers, expected at least 6"),
        ({}, r"data\.dev is missing, expected data\.dev=MANIFEST"),
        ({"folds": 3, "dev": "dev.jsonl"}, r"data\.dev dev\.jsonl beside data\.folds 3, which"),
    ],
)
def test_what_is_refused(manifest: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        load_folds(manifest, **arguments)


# The dev split that is taken from train.


def items(sizes: dict[str | None, int]) -> list[Utterance]:
    return [
        Utterance(Path("/a.wav"), "x", 1.0, f"{speaker}-{i}", speaker, manifest=Path("m"), line=i)
        for speaker, size in sizes.items()
        for i in range(size)
    ]


def test_by_speaker_no_speaker_is_in_both() -> None:
    everything = items({f"s{i}": 10 for i in range(20)})
    train, dev = carve(everything, "dev", 0.1, "speaker", 0, TEXT)
    assert len(dev) == 20
    assert not {i.speaker for i in train} & {i.speaker for i in dev}
    assert sorted(train + dev, key=everything.index) == everything
    assert train == [item for item in everything if item in train]


def test_the_draw_depends_on_the_seed_and_not_on_the_order() -> None:
    everything = items({f"s{i}": 10 for i in range(20)})
    draws = {
        seed: frozenset(i.id for i in carve(everything, "dev", 0.1, "speaker", seed, TEXT)[1])
        for seed in range(5)
    }
    assert len(set(draws.values())) > 1
    backwards = carve(everything[::-1], "dev", 0.1, "speaker", 3, TEXT)[1]
    assert {item.id for item in backwards} == draws[3]


def test_speakers_too_large_for_the_fraction_are_passed_over() -> None:
    everything = items({"large": 1000, "small": 10, "middle": 90})
    for seed in range(10):
        _, dev = carve(everything, "dev", 0.01, "speaker", seed, TEXT)
        assert {item.speaker for item in dev} == {"small"}


def test_there_is_always_something_on_both_sides() -> None:
    for fraction in (0.001, 0.999):
        train, dev = carve(items({"a": 5, "b": 5}), "dev", fraction, "speaker", 0, TEXT)
        assert (len(train), len(dev)) == (5, 5)
        train, dev = carve(items({"a": 2}), "dev", fraction, "utterance", 0, TEXT)
        assert (len(train), len(dev)) == (1, 1)


def test_by_utterance_the_share_is_met() -> None:
    train, dev = carve(items({None: 100}), "dev", 0.25, "utterance", 1, TEXT)
    assert (len(train), len(dev)) == (75, 25)


@pytest.mark.parametrize(
    ("sizes", "fraction", "by", "message"),
    [
        ({"a": 5, None: 1}, 0.1, "speaker", "m:0: speaker is missing, expected one; or split_by="),
        ({"a": 5}, 0.1, "speaker", "dev by speaker: train has 1 of them, expected at least 2"),
    ],
)
def test_what_cannot_be_carved(
    sizes: dict[str | None, int], fraction: float, by: str, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        carve(items(sizes), "dev", fraction, by, 0, TEXT)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        ({"dev_fraction": 1.0}, "dev_fraction is 1.0, expected from 0 to below 1"),
        ({"test_fraction": "half"}, "test_fraction is 'half', expected from 0 to below 1"),
        ({"dev_fraction": 0.5, "test_fraction": 0.5}, "are 0.5 and 0.5, expected less than all"),
        ({"split_by": "voice"}, "split_by is 'voice', expected one of auto, speaker, utterance"),
    ],
)
def test_draws_that_cannot_be(draw: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Draw(**draw)  # type: ignore[arg-type]


def test_splits_that_are_not_there_are_drawn_by_speaker() -> None:
    everything = items({f"s{i}": 10 for i in range(20)})
    splits, notes = draw_splits({"train": everything}, Draw(0.1, 0.2), TEXT)
    assert {split: len(own) for split, own in splits.items()} == {
        "train": 140,
        "dev": 20,
        "test": 40,
    }
    voices = [{each.speaker for each in own} for own in splits.values()]
    assert len(set.union(*voices)) == sum(map(len, voices)) == 20
    assert notes == [
        "test was taken from train by speaker: 20.0% of its utterances.",
        "dev was taken from train by speaker: 10.0% of its utterances.",
    ]
    own, notes = draw_splits({"train": everything, "dev": items({"d": 3})}, Draw(0.1, 0.0), TEXT)
    assert (len(own["dev"]), notes) == (3, [])


def test_one_voice_is_drawn_by_utterance_and_that_is_told() -> None:
    for everything, what in (
        (items({"a": 50}), "there are 1 speakers"),
        (items({None: 50}), "no speaker is named"),
        (items({"a": 25, None: 25}), "not all speakers are named"),
    ):
        splits, notes = draw_splits({"train": everything}, Draw(0.1), TEXT)
        assert (len(splits["train"]), len(splits["dev"])) == (45, 5)
        assert notes == [
            f"dev was taken from train by utterance: 10.0% of its utterances, as {what}: error "
            "rates are those of known voices."
        ]
    with pytest.raises(ValueError, match="speaker is missing, expected one; or split_by=utterance"):
        draw_splits({"train": everything}, Draw(0.1, split_by="speaker"), TEXT)


def test_who_alone_has_a_character_stays_in_train() -> None:
    letters = "abcdefghij"
    everything = [
        replace(each, text=f"z{letters[number // 2]}")
        for number, each in enumerate(items({None: 20}))
    ]
    for seed in range(5):
        train, dev = carve(everything, "dev", 0.4, "utterance", seed, TEXT)
        assert len(dev) == 8
        assert {letter for each in dev for letter in each.text} <= {
            letter for each in train for letter in each.text
        }


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
