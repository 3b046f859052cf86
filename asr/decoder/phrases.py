"""Phrases that alone may be said: read from a file, with slots, and as a grammar for the search."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.decoder.ngram import END, MARKS, START, UNKNOWN, Ngrams, check_words
from asr.decoder.token_trie import ROOT, build_trie, child
from asr.untrusted import open_regular, shown, whole_lines

MAX_PHRASES = 100_000
MAX_WORDS = 64  # of a phrase
SLOT = re.compile(r"\{([^{}]*)\}")
LIST = re.compile(r"(\w+)\s*:\s*(.*)")  # room: kitchen, living room
# The words of a grammar are the characters of a trie: their numbers, past what is no character.
FIRST = 0x10000


def read_phrases(path: Path, rules: Callable[[str], str]) -> list[str]:
    """Read phrases, one a line, and write out their slots.

    `turn {on,off} the {light,radio}` is four phrases; `{please,} stop` is two. A line
    `room: kitchen, living room` gives `{room}` in the phrases these choices. A line that begins
    with # is passed over.

    Args:
        path: a regular file.
        rules: what a transcript goes through.

    Returns:
        As the rules write them, each once.

    Raises:
        ValueError: `file:line: what is wrong`; no phrases, or too many.
        OSError: missing or unreadable.
    """
    lists: dict[str, list[str]] = {}
    written: list[tuple[int, str]] = []
    with open_regular(path, "phrases") as file:
        for number, raw in whole_lines(file, path):
            try:
                line = raw.decode().strip().removeprefix("\ufeff")
            except ValueError as error:
                raise ValueError(f"{path}:{number}: not UTF-8, expected a phrase") from error
            if found := LIST.fullmatch(line):
                lists[found[1]] = _choices(found[2])
            elif line and not line.startswith("#"):
                written.append((number, line))
    phrases: dict[str, None] = {}
    for number, line in written:
        if line.count("{") != len(SLOT.findall(line)) or line.count("}") != line.count("{"):
            raise ValueError(f"{path}:{number}: {shown(line)}, expected slots such as {{on,off}}")
        for each in _written_out(line, lists):
            words = rules(each).split()
            if not words:
                raise ValueError(f"{path}:{number}: {shown(each)} has no words, expected some")
            if len(words) > MAX_WORDS:
                raise ValueError(
                    f"{path}:{number}: a phrase of {len(words)} words, expected at most {MAX_WORDS}"
                )
            phrases[" ".join(words)] = None
            if len(phrases) > MAX_PHRASES:
                raise ValueError(
                    f"{path}:{number}: more than {MAX_PHRASES:,} phrases, expected fewer"
                )
    if not phrases:
        raise ValueError(f"{path}: no phrases, expected one a line")
    return list(phrases)


def _choices(text: str) -> list[str]:
    return [choice.strip() for choice in text.split(",")]


def _written_out(line: str, lists: dict[str, list[str]]) -> Iterator[str]:
    """Every phrase that a line with slots stands for."""
    parts = SLOT.split(line)  # text, what stands in a slot, text, ...
    slots = [lists.get(slot.strip(), _choices(slot)) for slot in parts[1::2]]
    for chosen in itertools.product(*slots):
        yield "".join(itertools.chain(*zip(parts[::2], (*chosen, ""), strict=True)))


class Grammar:
    """Phrases as what a search takes for a language model: one of them is as likely as another.

    A phrase is an n-gram as long as it is, from `<s>` to `</s>`, and nothing backs off.

    Args:
        phrases: with single spaces, at least one.

    Attributes:
        words: of the phrases, behind the marks.
        log_probs: `(1 + words,)` float32, all 0 [nats].
        ngrams: for compiled code.
        start: the node at the beginning of a phrase.
        most_words: of a phrase.
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        split = [phrase.split() for phrase in phrases]
        for words in split:
            check_words(words)
        self.most_words = max(map(len, split))
        self.words = (*MARKS, *sorted({word for words in split for word in words}))
        self._ids = {word: number for number, word in enumerate(self.words)}
        singles = [chr(FIRST + number) for number in range(len(self.words))]
        rows = [
            "".join(singles[self._ids[word]] for word in (START, *words, END)) for words in split
        ]
        trie, _ = build_trie([*singles, *rows])
        nodes = len(trie.tokens)
        # float32 has an infinity, which is what nothing but the phrases is worth.
        backoffs = np.full(nodes, -math.inf, np.float32)
        self.ngrams = Ngrams(
            np.zeros(nodes, np.float32), backoffs, trie.tokens - np.int32(FIRST),
            trie.first_children.astype(np.int64), np.zeros(nodes, np.int32),
        )  # fmt: skip
        self.start = int(child(trie, ROOT, FIRST + self._ids[START]))
        self.log_probs = np.zeros(1 + len(self.words), np.float32)

    def word_id(self, word: str) -> int:
        """Find the id of a word, that of `<unk>` for one that no phrase has."""
        return self._ids.get(word, self._ids[UNKNOWN])

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    def followers(self, words: Sequence[str]) -> tuple[NDArray[np.int32], list[tuple[int, ...]]]:
        """List which words may follow what was said.

        Args:
            words: at least those of the phrases; a set has their places.

        Returns:
            `(nodes,)` int32, of each node of `ngrams` the place of its set; -1 where no word may
            follow. And the sets, each once.
        """
        places = {self._ids[word]: place for place, word in enumerate(words) if word in self}
        first, ids = self.ngrams.first_children.tolist(), self.ngrams.word_ids.tolist()
        sets: dict[tuple[int, ...], int] = {}
        which = np.full(len(ids), -1, np.int32)
        waiting = [self.start]
        while waiting:
            node = waiting.pop()
            below = [each for each in range(first[node], first[node + 1]) if ids[each] in places]
            if below:
                own = tuple(places[ids[each]] for each in below)
                which[node] = sets.setdefault(own, len(sets))
                waiting += below
        return which, list(sets)
