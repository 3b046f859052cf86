"""Error counts: cases counted by hand, and agreement with a plain Levenshtein distance."""

import math
import random

import pytest

from asr.metrics.error_rate import (
    Confusion,
    ErrorCounts,
    WordPair,
    character_errors,
    confusions,
    score_utterance,
    total,
    word_errors,
)

# Aligned by hand: reference, hypothesis, hits, substitutions, deletions, insertions in words.
WORD_CASES = [
    ("the cat sat", "the cat sat", 3, 0, 0, 0),
    ("the cat sat", "the dog sat", 2, 1, 0, 0),
    ("the cat sat", "the sat", 2, 0, 1, 0),
    ("the cat sat", "the big cat sat", 3, 0, 0, 1),
    ("the cat sat on the mat", "a cat sat the mat today", 4, 1, 1, 1),
    ("one", "two three four", 0, 1, 0, 2),
    ("one two three", "four", 0, 1, 2, 0),
    ("one two three", "", 0, 0, 3, 0),
    ("", "one two", 0, 0, 0, 2),
    ("", "", 0, 0, 0, 0),
]

# Aligned by hand; `kitten` to `sitting` is the standing example of the Levenshtein distance:
# k/s, e/i, and g inserted.
CHARACTER_CASES = [
    ("kitten", "sitting", 4, 2, 0, 1),
    ("a b", "ab", 2, 0, 1, 0),
    ("", "ab", 0, 0, 0, 2),
    ("ab", "", 0, 0, 2, 0),
    ("größe", "große", 4, 1, 0, 0),
]


@pytest.mark.parametrize(("reference", "hypothesis", "hits", "sub", "dele", "ins"), WORD_CASES)
def test_words_by_hand(reference, hypothesis, hits, sub, dele, ins):
    expected = ErrorCounts(hits, sub, dele, ins)
    assert word_errors([reference], [hypothesis]) == expected
    assert score_utterance("u", reference, hypothesis).words == expected


@pytest.mark.parametrize(("reference", "hypothesis", "hits", "sub", "dele", "ins"), CHARACTER_CASES)
def test_characters_by_hand(reference, hypothesis, hits, sub, dele, ins):
    expected = ErrorCounts(hits, sub, dele, ins)
    assert character_errors([reference], [hypothesis]) == expected
    assert score_utterance("u", reference, hypothesis).characters == expected


def test_alignment_by_hand():
    alignment = score_utterance("u", "the cat sat on the mat", "a cat sat the mat today").alignment
    assert alignment == (
        WordPair("substitute", "the", "a"),
        WordPair("equal", "cat", "cat"),
        WordPair("equal", "sat", "sat"),
        WordPair("delete", "on", None),
        WordPair("equal", "the", "the"),
        WordPair("equal", "mat", "mat"),
        WordPair("insert", None, "today"),
    )


def test_white_space_only_separates():
    scored = score_utterance("u", "  the\tcat\u00a0 sat\n", "the cat sat")
    assert scored.reference == "the cat sat"
    assert scored.words == ErrorCounts(3, 0, 0, 0)
    assert scored.characters == ErrorCounts(11, 0, 0, 0)
    assert word_errors([" the  cat "], ["the cat"]).errors == 0
    assert character_errors([" the  cat "], ["the cat"]).errors == 0


def test_rates():
    assert ErrorCounts(hits=16, substitutions=2, deletions=2, insertions=1).rate == 5 / 20
    assert ErrorCounts(hits=0, substitutions=1, deletions=0, insertions=2).rate == 3.0
    assert ErrorCounts(hits=0, substitutions=0, deletions=0, insertions=0).rate == 0.0
    assert ErrorCounts(hits=0, substitutions=0, deletions=0, insertions=1).rate == math.inf


def test_corpus_rate_is_not_a_mean_of_rates():
    # One word wrong of one (100 %), none of nine (0 %): 1/10, where the mean would be 1/2.
    counts = word_errors(["a", "b c d e f g h i j"], ["x", "b c d e f g h i j"])
    assert counts == ErrorCounts(9, 1, 0, 0)
    assert counts.rate == 0.1


def test_empty_reference_counts_its_insertions_in_the_corpus():
    counts = word_errors(["a b", ""], ["a b", "c d e"])
    assert counts == ErrorCounts(2, 0, 0, 3)
    assert counts.rate == 1.5


def plain_distance(a, b):
    """Levenshtein 1966 by the table of Wagner & Fischer 1974, whole and unhurried."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a) + 1):
        for j in range(len(b) + 1):
            if i == 0 or j == 0:
                table[i][j] = i + j
            else:
                table[i][j] = min(
                    table[i - 1][j] + 1,
                    table[i][j - 1] + 1,
                    table[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
                )
    return table[len(a)][len(b)]


def random_pairs(count):
    rng = random.Random(20240229)
    words = ["a", "b", "ab", "ba", "abc", "ä", "don't"]
    for _ in range(count):
        yield tuple(" ".join(rng.choices(words, k=rng.choice([0, 1, 2, 5, 9]))) for _ in "rh")


def test_agrees_with_plain_levenshtein():
    references, hypotheses = zip(*random_pairs(300), strict=True)
    assert any(not reference and hypothesis for reference, hypothesis in random_pairs(300))
    utterances = [score_utterance("u", *pair) for pair in zip(references, hypotheses, strict=True)]
    for scored, reference, hypothesis in zip(utterances, references, hypotheses, strict=True):
        for counts, spoken, heard in (
            (scored.words, reference.split(), hypothesis.split()),
            (scored.characters, reference, hypothesis),
        ):
            assert counts.errors == plain_distance(spoken, heard)
            assert counts.reference_length == len(spoken)
            assert counts.hits + counts.substitutions + counts.insertions == len(heard)
        words = scored.alignment
        assert [word.reference for word in words if word.reference] == reference.split()
        assert [word.hypothesis for word in words if word.hypothesis] == hypothesis.split()
        assert all((word.reference == word.hypothesis) == (word.kind == "equal") for word in words)
        kinds = [word.kind for word in words]
        assert scored.words == ErrorCounts(
            *map(kinds.count, ("equal", "substitute", "delete", "insert"))
        )
    assert total(each.words for each in utterances) == word_errors(references, hypotheses)
    characters = total(each.characters for each in utterances)
    assert characters == character_errors(references, hypotheses)


def test_confusions_by_frequency_then_word():
    pairs = [("a b c", "x b c"), ("a b c", "x b"), ("b c", "y c"), ("c", "c z")]
    utterances = [score_utterance("u", *pair) for pair in pairs]
    found = confusions(utterances)
    assert found.substitutions == (Confusion("a", "x", 2), Confusion("b", "y", 1))
    assert found.deletions == (Confusion("c", None, 1),)
    assert found.insertions == (Confusion(None, "z", 1),)
    assert confusions(utterances, limit=1).substitutions == (Confusion("a", "x", 2),)


def test_user_mistakes_are_named():
    with pytest.raises(ValueError, match="hypotheses: got 1, expected one for each of 2"):
        word_errors(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="hypotheses: got 1, expected one for each of 2"):
        character_errors(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="references: got one text"):
        word_errors("a", ["a"])


def test_no_utterances_have_no_errors():
    assert word_errors([], []) == ErrorCounts(0, 0, 0, 0)
    assert total([]) == ErrorCounts(0, 0, 0, 0)
