"""Folds: no shared speaker, like durations, the same on every machine, and what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from asr.data.folds import Fold, cut_fold
from asr.data.manifest import Utterance
from asr.data.splits import Splits, load_splits
from asr.finding import Kind
from asr.text import TextNormalizer

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
