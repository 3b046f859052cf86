"""How a word is said that no lexicon has: learnt from the words of one, or by espeak-ng's rules."""

from __future__ import annotations

import itertools
import re
import subprocess
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import compiled
from asr.decoder.kneser_ney import encode, train
from asr.decoder.ngram import END, MARKS, NgramModel, advance
from asr.lexicon import Lexicon
from asr.untrusted import shown

ORDER = 6  # letters, with their phones, of which each depends on those before it
PASSES = 6  # of the alignment of letters and phones
LONGEST = 40  # letters or phones of a word that is learnt from or said
BEAM = 20  # beginnings that are kept from letter to letter
MOST_WAYS = 30  # in which a letter is said, the usual ones
FALLBACK = (0.5, 1.0, 1.5)  # discounts where a small lexicon has too few counts to estimate them
FEWEST_WORDS = 100  # from which something can be learnt
NAMED = 5  # words in a message

ESPEAK = "espeak-ng"
ESPEAK_S = 600  # [s] for all words
IPA_MARKS = str.maketrans(
    "", "", "\u02c8\u02cc-"
)  # of stress in the IPA; a hyphen where it has none
LANGUAGE_CHANGE = re.compile(r"\([a-z-]+\)")  # espeak-ng's note where a word is foreign

Said = dict[str, tuple[str, ...]]  # words and their phones


class Pairs(NamedTuple):
    """Words and their pronunciations, one behind the other.

    Attributes:
        letters: `(all letters,)` int32.
        letter_starts: `(words + 1,)` int64, where each word begins.
        phones: `(all phones,)` int32, from 1.
        phone_starts: `(words + 1,)` int64.
    """

    letters: NDArray[np.int32]
    letter_starts: NDArray[np.int64]
    phones: NDArray[np.int32]
    phone_starts: NDArray[np.int64]


class Pronouncer:
    """Says words as those of a lexicon are said.

    Each letter is aligned with none, one or two phones by expectation maximisation; letters with
    their phones are the words of an n-gram model, and the likeliest row of them that spells a word
    says it (Bisani and Ney, "Joint-sequence models for grapheme-to-phoneme conversion", 2008).

    Args:
        lexicon: to learn from.

    Raises:
        ValueError: a lexicon of too few words.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        known = [
            (word, own) for word, all_ways in lexicon.pronunciations.items() for own in all_ways
            if max(len(word), len(own)) <= LONGEST and len(own) <= 2 * len(word)
        ]  # fmt: skip
        if len(known) < FEWEST_WORDS:
            raise ValueError(
                f"a lexicon of {len(known)} words, expected at least {FEWEST_WORDS} to learn from"
            )
        letters = {each: k for k, each in enumerate(sorted(set("".join(w for w, _ in known))))}
        phones = {each: k for k, each in enumerate(sorted(set("".join(p for _, p in known))), 1)}
        pairs = Pairs(
            np.array([letters[each] for word, _ in known for each in word], np.int32),
            np.cumsum([0, *(len(word) for word, _ in known)]),
            np.array([phones[each] for _, own in known for each in own], np.int32),
            np.cumsum([0, *(len(own) for _, own in known)]),
        )
        spans = align(pairs, len(letters), len(phones))
        rows = []
        for number, (word, own) in enumerate(known):
            place, row = 0, []
            first = pairs.letter_starts[number]
            for letter, span in zip(word, spans[first : first + len(word)].tolist(), strict=True):
                row.append(f"{letter}|{own[place : place + span]}")
                place += span
            rows.append(row)
        self.model: NgramModel = train(encode(rows), ORDER, fallback=FALLBACK).model
        ways: dict[str, list[int]] = {}
        for number, pair in enumerate(self.model.words):
            if pair not in MARKS:
                ways.setdefault(pair[0], []).append(number)
        usual = self.model.log_probs[1:]
        self._ways = {
            letter: sorted(own, key=lambda number: -usual[number])[:MOST_WAYS]
            for letter, own in ways.items()
        }

    def __call__(self, word: str) -> str | None:
        """Say a word, in characters of the lexicon; None where it has a letter that no word had."""
        if not 0 < len(word) <= LONGEST or not self._ways.keys() >= set(word):
            return None
        own = [self._ways[letter] for letter in word]
        candidates = np.array([*itertools.chain.from_iterable(own)], np.int64)
        starts = np.cumsum([0, *map(len, own)])
        model = self.model
        best = _say(candidates, starts, model.start, model.word_id(END), model.ngrams)
        return "".join(model.words[number][2:] for number in best) or None


def align(pairs: Pairs, num_letters: int, num_phones: int) -> NDArray[np.int8]:
    """Find how many phones each letter is said by: 0, 1 or 2.

    Returns:
        `(all letters,)` int8.
    """
    # Of each letter: no phone, one, two. None and two are to be the exceptions.
    shape = num_letters, num_phones + 1, num_phones + 1
    probs = np.full(shape, 0.1 / num_phones**2)
    probs[:, :, 0] = 1 / num_phones
    probs[:, 0, 0] = 0.1
    for _ in range(PASSES):
        counts = np.zeros(shape)
        _expect(pairs, probs, counts)
        probs = counts / np.maximum(counts.sum(axis=(1, 2), keepdims=True), 1e-30)
    spans = np.zeros(len(pairs.letters), np.int8)
    _best_spans(pairs, probs, spans)
    return spans


@compiled
def _prob(pairs, probs, letter, phone, span):  # type: ignore[no-untyped-def]
    """The probability that a letter is said by so many phones, from one on."""
    first = pairs.phones[phone] if span > 0 else 0
    second = pairs.phones[phone + 1] if span > 1 else 0
    return probs[pairs.letters[letter], first, second]


@compiled
def _expect(pairs, probs, counts):  # type: ignore[no-untyped-def]
    """Add up how often each letter is expected to be said by each phones."""
    before = np.zeros((LONGEST + 1, 2 * LONGEST + 3))
    behind = np.zeros((LONGEST + 1, 2 * LONGEST + 3))
    for number in range(len(pairs.letter_starts) - 1):
        letter, phone = pairs.letter_starts[number], pairs.phone_starts[number]
        rows = pairs.letter_starts[number + 1] - letter
        columns = pairs.phone_starts[number + 1] - phone
        before[: rows + 1, : columns + 3] = 0
        behind[: rows + 1, : columns + 3] = 0
        before[0, 0] = behind[rows, columns] = 1
        for i in range(rows):
            for j in range(columns + 1):
                for span in range(min(2, columns - j) + 1):
                    if before[i, j] > 0:
                        prob = _prob(pairs, probs, letter + i, phone + j, span)
                        before[i + 1, j + span] += before[i, j] * prob
        for i in range(rows - 1, -1, -1):
            for j in range(columns + 1):
                for span in range(min(2, columns - j) + 1):
                    if behind[i + 1, j + span] > 0:
                        prob = _prob(pairs, probs, letter + i, phone + j, span)
                        behind[i, j] += prob * behind[i + 1, j + span]
        total = before[rows, columns]
        if total <= 0:
            continue
        for i in range(rows):
            for j in range(columns + 1):
                for span in range(min(2, columns - j) + 1):
                    prob = _prob(pairs, probs, letter + i, phone + j, span)
                    share = before[i, j] * prob * behind[i + 1, j + span] / total
                    if share > 0:
                        first = pairs.phones[phone + j] if span > 0 else 0
                        second = pairs.phones[phone + j + 1] if span > 1 else 0
                        counts[pairs.letters[letter + i], first, second] += share


@compiled
def _best_spans(pairs, probs, spans):  # type: ignore[no-untyped-def]
    """Write down the likeliest number of phones of each letter."""
    best = np.zeros((LONGEST + 1, 2 * LONGEST + 3))
    came = np.zeros((LONGEST + 1, 2 * LONGEST + 3), np.int8)
    for number in range(len(pairs.letter_starts) - 1):
        letter, phone = pairs.letter_starts[number], pairs.phone_starts[number]
        rows = pairs.letter_starts[number + 1] - letter
        columns = pairs.phone_starts[number + 1] - phone
        best[: rows + 1, : columns + 3] = -1
        best[0, 0] = 1
        for i in range(rows):
            for j in range(columns + 1):
                for span in range(min(2, columns - j) + 1):
                    score = best[i, j] * _prob(pairs, probs, letter + i, phone + j, span)
                    if best[i, j] >= 0 and score > best[i + 1, j + span]:
                        best[i + 1, j + span], came[i + 1, j + span] = score, span
        j = columns
        for i in range(rows, 0, -1):
            span = came[i, j]
            spans[letter + i - 1] = span
            j -= span


@compiled
def _say(candidates, starts, node, end_id, ngrams):  # type: ignore[no-untyped-def]
    """Find the likeliest row of pairs, one of each letter's candidates: beam search."""
    length = len(starts) - 1
    chosen = np.zeros((length + 1, BEAM), np.int64)
    parents = np.zeros((length + 1, BEAM), np.int64)
    nodes, scores = np.zeros(BEAM, np.int64), np.full(BEAM, -np.inf)
    nodes[0], scores[0], count = node, 0.0, 1
    for place in range(length):
        own = candidates[starts[place] : starts[place + 1]]
        total = count * len(own)
        offered, to = np.empty(total), np.empty(total, np.int64)
        for k in range(count):
            for j in range(len(own)):
                log_prob, following = advance(nodes[k], own[j], ngrams)
                offered[k * len(own) + j] = -(scores[k] + log_prob)
                to[k * len(own) + j] = following
        order = np.argsort(offered, kind="mergesort")[:BEAM]
        count = len(order)
        for k in range(count):
            chosen[place + 1, k] = own[order[k] % len(own)]
            parents[place + 1, k] = order[k] // len(own)
            nodes[k], scores[k] = to[order[k]], -offered[order[k]]
    best, k = -np.inf, 0
    for j in range(count):
        log_prob, _ = advance(nodes[j], end_id, ngrams)
        if scores[j] + log_prob > best:
            best, k = scores[j] + log_prob, j
    row = np.zeros(length, np.int64)
    for place in range(length, 0, -1):
        row[place - 1] = chosen[place, k]
        k = parents[place, k]
    return row


def pronounce_by_rules(words: Sequence[str], voice: str) -> tuple[Said, Said]:
    """Ask espeak-ng, which is to be installed, how words are said.

    Args:
        words: letters, marks and apostrophes; others are passed over.
        voice: of espeak-ng, a language or an accent: en-us, fr, tr.

    Returns:
        The phones of each word that it says, in the IPA, without stress: of those that it says by
        the rules of this language, and of those that it takes for another's, whose phones they
        have: French "meeting", or a name, as if English.

    Raises:
        ValueError: it is not installed, has no such voice, or fails.
    """
    if not re.fullmatch(r"[A-Za-z0-9+_-]{1,40}", voice):
        raise ValueError(f"voice {shown(voice)}, expected one of espeak-ng: fr, en-us")
    # Nothing that is a mark of espeak-ng's own.
    asked = [word for word in words if _is_plain(word)]
    said: Said = {}
    foreign: Said = {}
    for word, line in _lines_of_espeak(asked, voice):
        plain, changes = LANGUAGE_CHANGE.subn("", line.translate(IPA_MARKS))
        if phones := tuple(each for each in re.split(r"[_\s]+", plain) if each):
            (foreign if changes else said)[word] = phones
    return said, foreign


def _lines_of_espeak(words: Sequence[str], voice: str) -> list[tuple[str, str]]:
    """What espeak-ng writes of each word; without those that it has not a sound for."""
    command = [ESPEAK, "-q", "--ipa", "--sep=_", "-v", voice, "-b", "1", "--stdin"]
    text = "".join(f"{word}.\n\n" for word in words)  # each a sentence, so that it has a line
    try:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, timeout=ESPEAK_S, check=False
        )
    except FileNotFoundError as error:
        raise ValueError(
            f"{ESPEAK} is not installed: apt-get install {ESPEAK}, or `brew install {ESPEAK}`"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{ESPEAK} took more than {ESPEAK_S} s for {len(words)} words") from error
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise ValueError(f"{ESPEAK} -v {voice}: {shown(message)}")
    lines = [line for line in done.stdout.decode().splitlines() if line.strip()]
    if len(lines) == len(words):
        return list(zip(words, lines, strict=True))
    if len(words) == 1:
        return []
    half = len(words) // 2  # some letter of some word: found in a few calls
    return _lines_of_espeak(words[:half], voice) + _lines_of_espeak(words[half:], voice)


def _is_plain(word: str) -> bool:
    categories = {unicodedata.category(each)[0] for each in word if each not in "'\u2019-"}
    return categories <= {"L", "M"} and "L" in categories


def fill(
    lexicon: Lexicon, words: Sequence[str], say: Callable[[str], str | None]
) -> tuple[Lexicon, list[str]]:
    """Give the lexicon of some words: known pronunciations, and those that are guessed.

    Args:
        lexicon: of the known ones.
        words: of the new lexicon, in its order.
        say: characters of a word that is not known; None where it cannot tell.

    Returns:
        The lexicon, and the words that have no pronunciation.
    """
    pronunciations: dict[str, tuple[str, ...]] = {}
    missing = []
    for word in words:
        own = lexicon.pronunciations.get(word)
        if own is None and (guess := say(word)) is not None:
            own = (guess,)
        if own is None:
            missing.append(word)
        else:
            pronunciations[word] = own
    return Lexicon(lexicon.phones, pronunciations), missing


def completed(
    lexicon: Lexicon, texts: Iterable[str], say: Callable[[str], str | None] | None = None
) -> tuple[Lexicon, list[str]]:
    """Give a lexicon the words of texts that it has not, said as its own words teach.

    Args:
        lexicon: of any size; a small one teaches nothing.
        texts: normalised.
        say: what it teaches; None learns it, which takes seconds.

    Returns:
        The lexicon, and the words that it was given; what cannot be said is not among them.
    """
    missing = sorted({word for text in texts for word in lexicon.missing(text)})
    if not missing or len(lexicon.pronunciations) < FEWEST_WORDS:
        return lexicon, []
    words = [*lexicon.pronunciations, *missing]
    made, unsaid = fill(lexicon, words, say or Pronouncer(lexicon))
    return made, [word for word in missing if word not in unsaid]


def describe_said(words: Sequence[str]) -> str:
    """Tell of words that a lexicon was given: the first of them, and how many."""
    more = ", ..." if len(words) > NAMED else ""
    named = ", ".join(map(shown, words[:NAMED]))
    return f"words that the lexicon has not are said as its own are ({len(words)}): {named}{more}"
