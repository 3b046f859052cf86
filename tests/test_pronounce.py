"""Words that no lexicon has: said as its words teach, or by espeak-ng (here a stand-in)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from asr.lexicon import Lexicon
from asr.pronounce import Pairs, Pronouncer, align, fill, pronounce_by_rules

LETTERS = "abcdeghix"


def say(word: str) -> str:
    """A language of rules: c before e and i is s, gh is one phone, x two, a last e none."""
    said = []
    for place, letter in enumerate(word):
        following = word[place + 1 : place + 2]
        if letter == "c":
            said.append("s" if following in ("e", "i") else "k")
        elif letter == "x":
            said.append("ks")
        elif (letter == "h" and word[place - 1 : place] == "g") or (
            letter == "e" and place == len(word) - 1
        ):
            said.append("")
        else:
            said.append(letter)
    return "".join(said)


def words(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    made = {
        "".join(generator.choice(list(LETTERS), generator.integers(2, 9))) for _ in range(count)
    }
    return sorted(word for word in made if say(word))


def lexicon_of(known: list[str]) -> Lexicon:
    return Lexicon({each: each for each in "abdeghiksx"}, {word: (say(word),) for word in known})


@pytest.fixture(scope="module")
def pronouncer() -> Pronouncer:
    return Pronouncer(lexicon_of(words(1500, seed=0)))


def test_new_words_are_said_by_the_rules_that_the_known_ones_follow(pronouncer: Pronouncer) -> None:
    new = sorted(set(words(600, seed=1)) - set(words(1500, seed=0)))
    right = [word for word in new if pronouncer(word) == say(word)]
    assert len(new) > 300
    assert len(right) / len(new) > 0.97
    assert [pronouncer(word) for word in ("cig", "cag", "axe")] == ["sig", "kag", "aks"]


def test_what_cannot_be_said(pronouncer: Pronouncer) -> None:
    assert pronouncer("caz") is None  # no word has a z
    assert pronouncer("") is None
    assert pronouncer("a" * 41) is None
    with pytest.raises(ValueError, match="a lexicon of 3 words, expected at least 100"):
        Pronouncer(lexicon_of(["ab", "ba", "cab"]))


def test_letters_are_aligned_with_their_phones() -> None:
    known = ["abc", "xa", "ghad", "bade"] * 10 + words(200, seed=2)
    letters = {each: number for number, each in enumerate(LETTERS)}
    phones = {each: number for number, each in enumerate("abdeghiksx", 1)}
    pairs = Pairs(
        np.array([letters[each] for word in known for each in word], np.int32),
        np.cumsum([0, *map(len, known)]),
        np.array([phones[each] for word in known for each in say(word)], np.int32),
        np.cumsum([0, *(len(say(word)) for word in known)]),
    )
    spans = align(pairs, len(letters), len(phones))
    assert spans[:13].tolist() == [1, 1, 1, 2, 1, 1, 0, 1, 1, 1, 1, 1, 0]


def test_known_pronunciations_stay_and_others_are_guessed(pronouncer: Pronouncer) -> None:
    lexicon = Lexicon({"k": "K", "s": "S"}, {"cab": ("kab", "sab")})
    made, missing = fill(lexicon, ["cab", "cib", "zzz"], pronouncer)
    assert made.pronunciations == {"cab": ("kab", "sab"), "cib": ("sib",)}
    assert missing == ["zzz"]


@pytest.fixture
def espeak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name that spells what it is given, and writes down how it was called."""
    program = tmp_path / "espeak-ng"
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/called\n'
        "tr -d '.' | grep . | grep -v ^mute | "
        "sed -e 's/^zebra$/(en)z\u02c8_\u025b(fr)/' -e 's/^ab$/\u02c8a-_b/'\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "called"


def test_rules_of_espeak(espeak: Path) -> None:
    said, foreign = pronounce_by_rules(["ab", "zebra", "[[x]]", "<b>", "1"], "fr")
    assert said == {"ab": ("a", "b")}
    assert foreign == {"zebra": ("z", "\u025b")}
    assert "-v fr" in espeak.read_text()


def test_words_that_espeak_has_no_sound_for_are_passed_over(espeak: Path) -> None:
    words = ["mute", *["ab"] * 3, "zebra", "mutely", "zebra"]
    said, foreign = pronounce_by_rules(words, "fr")
    assert (said, foreign) == ({"ab": ("a", "b")}, {"zebra": ("z", "\u025b")})
    assert pronounce_by_rules(["mute"], "fr") == ({}, {})


def test_faults_of_espeak_are_one_line(
    espeak: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="voice '-f /etc/passwd', expected one of espeak-ng"):
        pronounce_by_rules(["ab"], "-f /etc/passwd")
    program = tmp_path / "espeak-ng"
    program.write_text("#!/bin/sh\necho 'no such voice' >&2\nexit 1\n")
    with pytest.raises(ValueError, match="espeak-ng -v xx: 'no such voice'"):
        pronounce_by_rules(["ab"], "xx")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="espeak-ng is not installed: apt-get install espeak-ng"):
        pronounce_by_rules(["ab"], "xx")
