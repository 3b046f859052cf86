"""Word and character errors: an utterance and its alignment, a corpus and its totals.

The minimum edit distance with equal costs for substitution, deletion and insertion, counted by
jiwer. Texts are compared as they are, apart from white space: they are normalised before. Several
alignments can have the same number of errors; the one jiwer chooses decides how the errors split
into kinds, never how many there are. NIST sclite weighs a substitution 4 and the others 3, so its
totals can exceed these by a little.

In a language without spaces between words the unit is the character: there each character counts as
a word, spaces are left out, and the WER is the CER.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import jiwer

Unit = Literal["word", "character"]
PairKind = Literal["equal", "substitute", "delete", "insert"]


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """How many words (or characters) of the references were found, and how many were not."""

    hits: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        """Words (or characters) in the references."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Errors over reference length, a fraction: 0.05 is 5 %, and above 1 is possible.

        With an empty reference it is 0 where nothing was inserted and infinite otherwise.
        """
        if self.reference_length:
            return self.errors / self.reference_length
        return math.inf if self.errors else 0.0

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


NO_COUNTS = ErrorCounts(hits=0, substitutions=0, deletions=0, insertions=0)


@dataclass(frozen=True, slots=True)
class WordPair:
    """A word of a reference and the hypothesis's word in its place: one step of an alignment.

    An insertion has no reference (None), a deletion no hypothesis.
    """

    kind: PairKind
    reference: str | None
    hypothesis: str | None


@dataclass(frozen=True, slots=True)
class UtteranceErrors:
    """One utterance, scored; its texts have single spaces between words and none at the ends.

    Where the unit is the character, `words` and `alignment` are of characters too.
    """

    id: str
    reference: str
    hypothesis: str
    words: ErrorCounts
    characters: ErrorCounts
    alignment: tuple[WordPair, ...]
    unit: Unit = "word"


@dataclass(frozen=True, slots=True)
class Confusion:
    """A reference word, the hypothesis's word in its place, how often; None as in `WordPair`."""

    reference: str | None
    hypothesis: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Confusions:
    """The most frequent errors of each kind, the most frequent first."""

    substitutions: tuple[Confusion, ...]
    deletions: tuple[Confusion, ...]
    insertions: tuple[Confusion, ...]


def total(counts: Iterable[ErrorCounts]) -> ErrorCounts:
    """Add counts up; the sum of none is zero."""
    return sum(counts, start=NO_COUNTS)


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    """Count word errors over a corpus.

    Args:
        references: one normalised text an utterance; may be empty.
        hypotheses: of the same utterances, in the same order.

    Returns:
        Counts in words, summed over the utterances; `.rate` is the WER.

    Raises:
        ValueError: the two have different lengths.
    """
    _check_lengths(references, hypotheses)
    found = jiwer.process_words(_single_spaced(references), _single_spaced(hypotheses))
    return _counts(found)


def character_errors(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    """Count character errors over a corpus, as `word_errors`.

    A character is a Unicode code point, and the space between two words is one.
    """
    _check_lengths(references, hypotheses)
    found = jiwer.process_characters(_single_spaced(references), _single_spaced(hypotheses))
    return _counts(found)


def unit_errors(
    references: Sequence[str], hypotheses: Sequence[str], unit: Unit
) -> tuple[ErrorCounts, ErrorCounts]:
    """Count word and character errors over a corpus; both of characters where these are the unit.

    Args:
        references: one normalised text an utterance; may be empty.
        hypotheses: of the same utterances, in the same order.
        unit: with "character", spaces are left out.

    Raises:
        ValueError: the two have different lengths.
    """
    if unit == "word":
        return word_errors(references, hypotheses), character_errors(references, hypotheses)
    counts = character_errors(*(list(map(_unspaced, each)) for each in (references, hypotheses)))
    return counts, counts


def score_utterance(
    id: str, reference: str, hypothesis: str, unit: Unit = "word"
) -> UtteranceErrors:
    """Count word and character errors of one utterance, and align its words.

    Args:
        id: name of the utterance.
        reference: normalised. Where it is empty, every word of the hypothesis is an insertion.
        hypothesis: normalised; may be empty.
        unit: with "character", characters without the spaces are counted and aligned.
    """
    reference, hypothesis = _single_spaced([reference, hypothesis])
    words: jiwer.WordOutput | jiwer.CharacterOutput
    if unit == "word":
        words = jiwer.process_words(reference, hypothesis)
        characters = jiwer.process_characters(reference, hypothesis)
    else:
        words = characters = jiwer.process_characters(_unspaced(reference), _unspaced(hypothesis))
    (ours,), (theirs,), (chunks,) = words.references, words.hypotheses, words.alignments
    alignment: list[WordPair] = []
    for chunk in chunks:
        left: Sequence[str | None] = ours[chunk.ref_start_idx : chunk.ref_end_idx]
        right: Sequence[str | None] = theirs[chunk.hyp_start_idx : chunk.hyp_end_idx]
        pairs = zip(left or [None] * len(right), right or [None] * len(left), strict=True)
        alignment.extend(WordPair(cast(PairKind, chunk.type), *pair) for pair in pairs)
    counts = _counts(words), _counts(characters)
    return UtteranceErrors(id, reference, hypothesis, *counts, tuple(alignment), unit)


def confusions(utterances: Iterable[UtteranceErrors], limit: int = 20) -> Confusions:
    """Find the most frequent substitutions, deletions, insertions; equal counts in word order.

    Args:
        utterances: scored utterances.
        limit: how many of each kind at most.
    """
    found: dict[PairKind, Counter[tuple[str | None, str | None]]] = {
        "substitute": Counter(),
        "delete": Counter(),
        "insert": Counter(),
    }
    for utterance in utterances:
        for word in utterance.alignment:
            if word.kind != "equal":
                found[word.kind][word.reference, word.hypothesis] += 1
    return Confusions(
        _most_frequent(found["substitute"], limit),
        _most_frequent(found["delete"], limit),
        _most_frequent(found["insert"], limit),
    )


def _most_frequent(
    found: Counter[tuple[str | None, str | None]], limit: int
) -> tuple[Confusion, ...]:
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0][0] or "", item[0][1] or ""))
    return tuple(Confusion(*pair, count) for pair, count in ordered[:limit])


def _check_lengths(references: Sequence[str], hypotheses: Sequence[str]) -> None:
    for name, texts in (("references", references), ("hypotheses", hypotheses)):
        if isinstance(texts, str):
            raise ValueError(f"{name}: got one text, expected a list of texts")
    if len(references) != len(hypotheses):
        raise ValueError(
            f"hypotheses: got {len(hypotheses)}, expected one for each of "
            f"{len(references)} references"
        )


def _single_spaced(texts: Iterable[str]) -> list[str]:
    """White space only separates words; a doubled space is no character error."""
    return [" ".join(text.split()) for text in texts]


def _unspaced(text: str) -> str:
    return "".join(text.split())


def _counts(found: jiwer.WordOutput | jiwer.CharacterOutput) -> ErrorCounts:
    return ErrorCounts(found.hits, found.substitutions, found.deletions, found.insertions)
