"""Phrases: slots written out, one of them found or none, of characters and of phones."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from asr.decoder import BeamSearch
from asr.decoder.beam_search import shortfall
from asr.decoder.phrases import read_phrases
from asr.text import CharTokenizer, TextNormalizer
from tests.decoder.searches import ALPHABET, NO_PRUNING, decode, random_log_probs
from tests.decoder.test_closed_vocabulary import ctc_log_prob

RULES = TextNormalizer()


def phrases_of(folder: Path, content: str) -> list[str]:
    path = folder / "phrases.txt"
    path.write_text(content)
    return read_phrases(path, RULES)


def test_slots_are_written_out(tmp_path: Path) -> None:
    assert phrases_of(
        tmp_path,
        "# the house\nroom: kitchen, living room\nTurn {on,off} the light.\n{please,} stop\n"
        "light in the {room}\n{room} {on, off}\nstop\n",
    ) == [
        "turn on the light", "turn off the light", "please stop", "stop", "light in the kitchen",
        "light in the living room", "kitchen on", "kitchen off", "living room on",
        "living room off",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no phrases, expected one a line"),
        ("# nothing\nroom: a, b\n", "no phrases, expected one a line"),
        ("go\nturn {on\n", ":2: 'turn {on', expected slots such as {on,off}"),
        ("turn on}\n", ":1: 'turn on}', expected slots"),
        ("turn {{on,off}}\n", ":1: 'turn {{on,off}}', expected slots"),
        ("{,} ...\n", r":1: ' ...' has no words, expected some"),
        (" ".join("a" * 70), "a phrase of 70 words, expected at most 64"),
        ("{" + ",".join(map(str, range(400))) + "} {" + ",".join(map(str, range(400))) + "}",
         "more than 100,000 phrases"),
    ],
)  # fmt: skip
def test_what_is_no_phrase_is_told(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"phrases.txt.*{message}"):
        phrases_of(tmp_path, content)


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    path = tmp_path / "phrases.txt"
    path.write_bytes(b"go\n\xff\n")
    with pytest.raises(ValueError, match=r"phrases.txt:2: not UTF-8"):
        read_phrases(path, RULES)


def test_the_likeliest_phrase_is_found() -> None:
    generator = np.random.default_rng(0)
    phrases = ["a", "a b", "b a", "cab", "ab c a", "c"]
    search = BeamSearch(
        2000, 3, **NO_PRUNING, alphabet=ALPHABET, phrases=phrases, max_shortfall=math.inf
    )
    for frames in (3, 5, 6, 8, 8, 9):
        log_probs = random_log_probs(generator, frames, 5)
        scores = {
            phrase: ctc_log_prob(log_probs, CharTokenizer(ALPHABET).encode(phrase))
            for phrase in phrases
            if len(phrase) <= frames
        }
        best = max(scores, key=scores.__getitem__)
        found = decode(search, log_probs)[0]
        assert found.words is not None
        # Spaces at the ends and in a row are other paths of the same words.
        assert " ".join(found.words) in phrases
        assert found.score >= scores[best] - 1e-6
        clean = CharTokenizer(ALPHABET).decode(found.tokens)
        if clean in scores:
            assert clean == best
            assert found.score == pytest.approx(scores[best], abs=1e-6)


def frames_of(text: str, sure: float = 0.999) -> np.ndarray:
    """Log-probabilities of a model that hears a text, a blank behind each character."""
    rows = []
    for token in itertools.chain(*((each, 0) for each in CharTokenizer(ALPHABET).encode(text))):
        row = np.full(5, (1 - sure) / 4)
        row[token] = sure
        rows.append(np.log(row))
    return np.array(rows)


def test_something_else_is_none_of_them() -> None:
    search = BeamSearch(alphabet=ALPHABET, phrases=["cab a", "b"])
    assert decode(search, frames_of("cab a"))[0].words == ("cab", "a")
    assert decode(search, frames_of("b"))[0].words == ("b",)
    for text in ("abc abc", "cab", "cab a abc", "a"):
        (found,) = decode(search, frames_of(text))
        assert (found.words, found.tokens) == ((), ())
        assert math.isfinite(found.score)
    always = BeamSearch(alphabet=ALPHABET, phrases=["cab a", "b"], max_shortfall=math.inf,
                        beam_threshold=200.0)  # fmt: skip
    assert decode(always, frames_of("cab b"))[0].words == ("cab", "a")


def test_pauses_change_nothing_about_what_is_none_of_them() -> None:
    search = BeamSearch(alphabet=ALPHABET, phrases=["cab a", "b"], beam_threshold=200.0)
    pause = np.log(np.tile([0.9996, 1e-4, 1e-4, 1e-4, 1e-4], (60, 1)))
    for text, words in (("cab a", ("cab", "a")), ("abc b", ()), ("ac", ())):
        heard = frames_of(text, sure=0.97)
        assert decode(search, heard)[0].words == words
        assert decode(search, np.concatenate([pause, heard, pause]))[0].words == words
    assert decode(search, pause)[0].words == ()


def test_the_shortfall_counts_labels() -> None:
    log_probs = np.log([[0.1, 0.9], [0.8, 0.2], [0.2, 0.8], [0.3, 0.7], [0.9, 0.1]])
    own = math.log(0.9 * 0.8 * 0.8 * 0.7 * 0.9)  # two labels
    assert shortfall(log_probs, own - 6.0, 1) == pytest.approx(3.0)
    assert shortfall(log_probs, own - 6.0, 4) == pytest.approx(1.5)
    assert shortfall(log_probs[1:2], math.log(0.2), 0) == pytest.approx(math.log(4))


def test_phrases_of_phones() -> None:
    lexicon = {"see": ["ca"], "sea": ["ca"], "bee": ["ba", "bc"]}
    search = BeamSearch(alphabet=ALPHABET, lexicon=lexicon, phrases=["sea bee", "bee see"])
    assert decode(search, frames_of("ca bc"))[0].words == ("sea", "bee")
    assert decode(search, frames_of("ba ca"))[0].words == ("bee", "see")
    with pytest.raises(ValueError, match="word 'tree' not in the lexicon, expected its words in"):
        BeamSearch(alphabet=ALPHABET, lexicon=lexicon, phrases=["see tree"])


def test_single_words_need_no_space() -> None:
    """A model that has heard single words alone has no space in its alphabet."""
    without = BeamSearch(alphabet="abc", phrases=["ab", "cab", "ca"])
    for word in ("ab", "cab"):
        log_probs = np.log(np.full((2 * len(word), 4), 0.05) + 0.8 * np.eye(4)[
            [label for each in word for label in (" abc".index(each), 0)]
        ])  # fmt: skip
        assert decode(without, log_probs)[0].words == (word,)
    with pytest.raises(ValueError, match="alphabet has no space, which words need"):
        BeamSearch(alphabet="abc", phrases=["ab ca", "cab"])


def test_hotwords_weigh_phrases() -> None:
    log_probs = np.log(np.full((1, 5), 0.1) + 0.5 * np.eye(5)[[2]])
    both = {"phrases": ["a", "b"], "max_shortfall": math.inf}
    assert decode(BeamSearch(alphabet=ALPHABET, **both), log_probs)[0].words == ("a",)
    hot = BeamSearch(alphabet=ALPHABET, hotwords={"b": 9.0}, **both)
    assert decode(hot, log_probs)[0].words == ("b",)


def test_what_does_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'x' .*not in the alphabet"):
        BeamSearch(alphabet=ALPHABET, phrases=["ax"])
    with pytest.raises(ValueError, match="phrases and a language model, expected one of them"):
        BeamSearch(alphabet=ALPHABET, phrases=["a"], language_model=tmp_path / "lm.arpa")
    with pytest.raises(ValueError, match="max_shortfall -1, expected nats a label from 0 up"):
        BeamSearch(alphabet=ALPHABET, phrases=["a"], max_shortfall=-1)


def test_a_beam_that_holds_the_beginnings_of_all_phrases_misses_none() -> None:
    # Words that no phrase has in this place, and further spaces, take no place in it.
    phrases = ["a b c", "a c b", "b a c", "b c a", "c a b", "c b a"]
    beginnings = {f"{phrase} "[:length] for phrase in phrases for length in range(7)}
    search = BeamSearch(
        len(beginnings), 1, **NO_PRUNING, alphabet=ALPHABET, phrases=phrases, max_shortfall=math.inf
    )
    generator = np.random.default_rng(1)
    for _ in range(40):
        log_probs = random_log_probs(generator, 9, 5)
        scores = [
            max(ctc_log_prob(log_probs, CharTokenizer(ALPHABET).encode(each)) for each in ways)
            for ways in ((phrase, f"{phrase} ") for phrase in phrases)
        ]
        (found,) = decode(search, log_probs)
        assert found.words == tuple(phrases[int(np.argmax(scores))].split())
