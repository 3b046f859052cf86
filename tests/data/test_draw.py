"""Dev and test that are taken from train: whole speakers or utterances, by a seeded chance."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from asr.data.draw import Draw, carve, draw_splits
from asr.data.manifest import Utterance
from asr.text import TextNormalizer

TEXT = TextNormalizer()


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
