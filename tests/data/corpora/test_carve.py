"""The dev split that is taken from train."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asr.data.corpora.carve import carve_dev
from asr.data.manifest import Utterance


def items(sizes: dict[str | None, int]) -> list[Utterance]:
    return [
        Utterance(Path("/a.wav"), "x", 1.0, f"{speaker}-{i}", speaker, manifest=Path("m"), line=i)
        for speaker, size in sizes.items()
        for i in range(size)
    ]


def test_by_speaker_no_speaker_is_in_both() -> None:
    everything = items({f"s{i}": 10 for i in range(20)})
    train, dev = carve_dev(everything, 0.1, "speaker", seed=0)
    assert len(dev) == 20
    assert not {i.speaker for i in train} & {i.speaker for i in dev}
    assert sorted(train + dev, key=everything.index) == everything
    assert train == [item for item in everything if item in train]


def test_the_draw_depends_on_the_seed_and_not_on_the_order() -> None:
    everything = items({f"s{i}": 10 for i in range(20)})
    draws = {
        seed: frozenset(i.id for i in carve_dev(everything, 0.1, "speaker", seed)[1])
        for seed in range(5)
    }
    assert len(set(draws.values())) > 1
    backwards = carve_dev(everything[::-1], 0.1, "speaker", seed=3)[1]
    assert {item.id for item in backwards} == draws[3]


def test_speakers_too_large_for_the_fraction_are_passed_over() -> None:
    everything = items({"large": 1000, "small": 10, "middle": 90})
    for seed in range(10):
        _, dev = carve_dev(everything, 0.01, "speaker", seed)
        assert {item.speaker for item in dev} == {"small"}


def test_there_is_always_something_on_both_sides() -> None:
    for fraction in (0.001, 0.999):
        train, dev = carve_dev(items({"a": 5, "b": 5}), fraction, "speaker", seed=0)
        assert (len(train), len(dev)) == (5, 5)
        train, dev = carve_dev(items({"a": 2}), fraction, "utterance", seed=0)
        assert (len(train), len(dev)) == (1, 1)


def test_by_utterance_the_share_is_met() -> None:
    train, dev = carve_dev(items({None: 100}), 0.25, "utterance", seed=1)
    assert (len(train), len(dev)) == (75, 25)


@pytest.mark.parametrize(
    ("sizes", "fraction", "by", "message"),
    [
        ({"a": 5, None: 1}, 0.1, "speaker", "m:0: speaker is missing, expected one; or dev_by="),
        ({"a": 5}, 0.1, "speaker", "dev_by=speaker: train has 1 of them, expected at least 2"),
        ({"a": 5, "b": 5}, 1.0, "speaker", "dev_fraction is 1.0, expected between 0 and 1"),
        ({"a": 5, "b": 5}, "half", "speaker", "dev_fraction is 'half', expected between 0 and 1"),
        ({"a": 5}, 0.1, "voice", "dev_by is 'voice', expected one of speaker, utterance"),
    ],
)
def test_what_cannot_be_carved(
    sizes: dict[str | None, int], fraction: float, by: str, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        carve_dev(items(sizes), fraction, by, seed=0)
