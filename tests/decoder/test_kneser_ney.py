"""Estimated models: by hand, by another way of computing them, and what must hold of any."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from asr.decoder import kneser_ney
from asr.decoder.kneser_ney import Trained, encode, train
from asr.decoder.ngram import END, START, UNKNOWN, NgramModel
from asr.decoder.ngram_file import load_ngram_model
from tests.decoder.plain_ngram import DictionaryModel
from tests.decoder.random_text import random_sentences

GOLDEN = Path(__file__).parents[1] / "golden"
FALLBACK = (0.5, 1.0, 1.5)  # also lmplz's
TOY = [["a", "b"], ["a"]]


def probability(model: NgramModel, word: str, *context: str) -> float:
    """P(word | context), exactly as the model's n-grams give it."""
    return math.exp(DictionaryModel(model).log_prob(word, context))


def same(one: NgramModel, other: NgramModel) -> bool:
    """Whether two models are the same to the bit."""
    return one.words == other.words and all(
        np.array_equal(a, b) for a, b in zip(one.ngrams, other.ngrams, strict=True)
    )


def test_a_bigram_model_worked_by_hand() -> None:
    # <s> a b </s>, <s> a </s>; discounts 0.5, 1, 1.5.
    # Words by how many come before: a 1 (<s>), b 1 (a), </s> 2 (a, b), <unk> 0: together 4.
    # gamma = (0.5 + 0.5 + 1) / 4 = 1/2, over <unk>, </s>, a, b: 1/8 for each.
    model = train(encode(TOY), 2, fallback=FALLBACK).model
    assert model.words == (UNKNOWN, START, END, "a", "b")
    assert probability(model, "a") == pytest.approx(0.5 / 4 + 1 / 8)
    assert probability(model, "b") == pytest.approx(0.5 / 4 + 1 / 8)
    assert probability(model, END) == pytest.approx(1 / 4 + 1 / 8)
    assert probability(model, UNKNOWN) == pytest.approx(1 / 8)
    # After <s>: a 2 times of 2, discount 1, so gamma 1/2.
    assert probability(model, "a", START) == pytest.approx((2 - 1) / 2 + 1 / 2 * 1 / 4)
    assert probability(model, "b", START) == pytest.approx(1 / 2 * 1 / 4)
    # After a: b and </s> once each, gamma (0.5 + 0.5) / 2. After b: </s> once, gamma 1/2.
    assert probability(model, "b", "a") == pytest.approx(0.5 / 2 + 1 / 2 * 1 / 4)
    assert probability(model, END, "a") == pytest.approx(0.5 / 2 + 1 / 2 * 3 / 8)
    assert probability(model, END, "b") == pytest.approx(0.5 / 1 + 1 / 2 * 3 / 8)
    assert model.counts == [5, 4]


def test_lower_orders_count_what_comes_before_but_not_before_a_sentence() -> None:
    # Trigrams over <s> a b </s> twice and <s> b </s> once. Of the bigrams, "a b" occurs twice but
    # only after <s>: 1; "b </s>" after a and after <s>: 2; "<s> a" keeps its 2, "<s> b" its 1.
    text = [["a", "b"], ["a", "b"], ["b"]]
    model = train(encode(text), 3, fallback=FALLBACK).model
    # Words by how many come before: a 1, b 2, </s> 1: together 4; gamma (0.5 + 1 + 0.5) / 4.
    b = (2 - 1) / 4 + 1 / 2 * 1 / 4
    end = 0.5 / 4 + 1 / 2 * 1 / 4
    assert probability(model, "b", "a") == pytest.approx((1 - 0.5) / 1 + 0.5 * b)
    assert probability(model, END, "b") == pytest.approx((2 - 1) / 2 + 1 / 2 * end)
    assert probability(model, "b", START) == pytest.approx((1 - 0.5) / 3 + 1.5 / 3 * b)


def test_pruned_counts_go_to_shorter_contexts() -> None:
    # Of the toy's bigrams only "<s> a" occurs more than once; after a nothing is left.
    model = train(encode(TOY), 2, prune=[0, 1], fallback=FALLBACK).model
    assert model.counts == [5, 1]
    assert probability(model, "a", START) == pytest.approx(0.625)
    assert probability(model, "b", "a") == pytest.approx(0.25)
    assert probability(model, END, "a") == pytest.approx(0.375)


def test_discounts_worked_by_hand() -> None:
    # One sentence: 9 words and </s> once, 4 words twice, 2 three times, 1 four times.
    # Y = 10 / (10 + 2 * 4) = 5/9; D = 1 - 2 Y 4/10, 2 - 3 Y 2/4, 3 - 4 Y 1/2.
    times = [1] * 9 + [2] * 4 + [3] * 2 + [4]
    sentence = [f"w{k}" for k, count in enumerate(times) for _ in range(count)]
    (found,) = train(encode([sentence]), 1).discounts
    assert (found.one, found.two, found.more) == pytest.approx((5 / 9, 7 / 6, 17 / 9))
    assert found.estimated


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("prune", [[0], [0, 0, 1], [0, 1, 2]])
def test_the_same_as_computed_with_dictionaries(order: int, prune: list[int]) -> None:
    sentences = random_sentences(300, 60)
    prune = prune[:order]
    trained = train(encode(sentences, min_count=2), order, prune=prune, fallback=FALLBACK)
    model = DictionaryModel(trained.model)
    slow = SlowModel(sentences, order, 2, prune, trained)
    assert {len(n): 0 for n in model.log_probs if n}.keys() == set(range(1, order + 1))
    for ngram, log_prob in model.log_probs.items():
        if ngram and ngram != (START,):
            expected = slow.probability(ngram[-1], ngram[:-1])
            assert math.exp(log_prob) == pytest.approx(expected, rel=2e-6)
    listed = {ngram for k in range(order) for ngram in slow.kept(k + 1)}
    assert listed == set(model.log_probs) - {(), (UNKNOWN,), (START,)}


class SlowModel:
    """The formulas of `train`, read once more: recursive, with dictionaries of words."""

    def __init__(
        self,
        sentences: Iterable[Sequence[str]],
        order: int,
        min_count: int,
        prune: Sequence[int],
        trained: Trained,
    ) -> None:
        often = Counter(word for words in sentences for word in words)
        self.order = order
        self.prune = [*prune, *[prune[-1]] * order]
        self.raw: Counter[tuple[str, ...]] = Counter()
        for words in sentences:
            marked = [START, *(w if often[w] >= min_count else UNKNOWN for w in words), END]
            for n in range(1, order + 1):
                self.raw.update(tuple(marked[k : k + n]) for k in range(len(marked) - n + 1))
        before = defaultdict(set)
        for ngram in self.raw:
            before[ngram[1:]].add(ngram[0])
        self.counts = {
            ngram: count if len(ngram) == order or ngram[0] == START else len(before[ngram])
            for ngram, count in self.raw.items()
            if ngram != (START,)
        }
        self.vocabulary = {n[0] for n in self.raw if len(n) == 1} - {START} | {UNKNOWN}
        self.following = defaultdict(list)
        for ngram in self.counts:
            self.following[ngram[:-1]].append(ngram)
        self.fallback = [not d.estimated for d in trained.discounts]
        self.discounts = [self._discounts(n) for n in range(1, order + 1)]
        for mine, its in zip(self.discounts, trained.discounts, strict=True):
            assert mine == pytest.approx((its.one, its.two, its.more))

    def _discounts(self, n: int) -> tuple[float, ...]:
        if self.fallback[n - 1]:
            return FALLBACK
        t = Counter(count for ngram, count in self.counts.items() if len(ngram) == n)
        return tuple(k - (k + 1) * t[1] / (t[1] + 2 * t[2]) * t[k + 1] / t[k] for k in (1, 2, 3))

    def kept(self, n: int) -> set[tuple[str, ...]]:
        return {g for g in self.counts if len(g) == n and self._is_kept(g)}

    def _is_kept(self, ngram: tuple[str, ...]) -> bool:
        return len(ngram) == 1 or self.raw[ngram] > self.prune[len(ngram) - 1]

    def _discount(self, ngram: tuple[str, ...]) -> float:
        count = self.counts[ngram]
        return self.discounts[len(ngram) - 1][min(count, 3) - 1] if self._is_kept(ngram) else count

    def probability(self, word: str, context: tuple[str, ...]) -> float:
        shorter = self.probability(word, context[1:]) if context else 1 / len(self.vocabulary)
        following = self.following[context]
        if not following:
            return shorter
        total = sum(self.counts[ngram] for ngram in following)
        gamma = sum(self._discount(ngram) for ngram in following) / total
        ngram = (*context, word)
        own = self.counts[ngram] - self._discount(ngram) if ngram in self.counts else 0.0
        return own / total + gamma * shorter


@pytest.mark.parametrize(
    ("name", "order", "prune"),
    [("lmplz_order3", 3, [0]), ("lmplz_order4_pruned", 4, [0, 0, 1])],
)
def test_the_same_as_kenlms_lmplz(name: str, order: int, prune: list[int]) -> None:
    # See tests/golden/make_lmplz.sh.
    sentences = [line.split() for line in (GOLDEN / "lmplz.txt").read_text().splitlines()]
    ours = DictionaryModel(train(encode(sentences), order, prune=prune, fallback=FALLBACK).model)
    theirs = DictionaryModel(load_ngram_model(GOLDEN / f"{name}.arpa.gz"))
    assert ours.log_probs.keys() == theirs.log_probs.keys()
    for ngram, log_prob in ours.log_probs.items():
        if ngram != (START,):  # written as -99 here, as 0 there
            assert log_prob == pytest.approx(theirs.log_probs[ngram], abs=2e-6)
        assert ours.backoffs[ngram] == pytest.approx(theirs.backoffs[ngram], abs=2e-6)


@pytest.mark.parametrize("prune", [[0], [0, 0, 1], [0, 3]])
def test_probabilities_after_every_context_sum_to_1(prune: list[int]) -> None:
    text = encode(random_sentences(400, 80), max_words=50)
    model = train(text, 3, prune=prune, fallback=FALLBACK).model
    ids = [k for k, word in enumerate(model.words) if word != START]
    contexts = [n for n in range(len(model.log_probs)) if n == 0 or model.backoffs[n] != 0]
    assert len(contexts) > 50
    for node in contexts:
        total = math.fsum(math.exp(model.advance(node, word_id)[0]) for word_id in ids)
        assert total == pytest.approx(1.0, abs=1e-6)


def test_the_order_of_sentences_and_the_size_of_blocks_make_no_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sentences = random_sentences(300, 60)
    expected = train(encode(sentences, max_words=40), 4, fallback=FALLBACK).model
    random.Random(3).shuffle(sentences)
    assert same(train(encode(sentences, max_words=40), 4, fallback=FALLBACK).model, expected)
    for block in (1, 7, 100):
        monkeypatch.setattr(kneser_ney, "BLOCK", block)
        assert same(train(encode(sentences, max_words=40), 4, fallback=FALLBACK).model, expected)


def test_a_limited_vocabulary_keeps_the_most_frequent_words() -> None:
    text = [["d", "c", "c", "b", "b", "a"]]
    assert encode(text, max_words=3).words[3:] == ("a", "b", "c")
    assert encode(text, max_words=1).words[3:] == ("b",)
    limited = encode(text, min_count=2)
    assert limited.words[3:] == ("b", "c")
    assert [limited.words[k] for k in limited.ids] == [
        START, UNKNOWN, "c", "c", "b", "b", UNKNOWN, END,
    ]  # fmt: skip


def test_an_order_beyond_every_sentence_has_no_n_grams() -> None:
    model = train(encode([["a"]]), 5, fallback=FALLBACK).model
    assert model.counts == [4, 2, 1, 0, 0]
    assert sum(math.exp(model.advance(model.start, k)[0]) for k in (0, 2, 3)) == pytest.approx(1)


def test_mistakes() -> None:
    text = encode(TOY)
    with pytest.raises(ValueError, match=r"no 1-gram has a count of 3 .* 2, 1, 0 times") as found:
        train(text, 2)
    assert "\n" not in str(found.value)
    with pytest.raises(ValueError, match="order 0, expected 1 to 10"):
        train(text, 0)
    for prune in ([1], [0, 2, 1], [], [0, 0, 0]):
        with pytest.raises(ValueError, match="expected 1 to 2 numbers that begin with 0"):
            train(text, 2, prune=prune, fallback=FALLBACK)
    with pytest.raises(ValueError, match="no words in 2 sentences"):
        encode([[], []])
    with pytest.raises(ValueError, match="no words in 0 sentences"):
        encode([])
    with pytest.raises(ValueError, match="no word occurs 5 times"):
        encode(TOY, min_count=5)
    with pytest.raises(ValueError, match="min_count 0"):
        encode(TOY, min_count=0)
    for mark in (START, END, UNKNOWN):
        with pytest.raises(ValueError, match=f"the word {mark} is a mark"):
            encode([["a", mark]])


def test_discounts_that_make_no_sense_are_refused() -> None:
    # Words once, twice, 3 and 4 times: 2 (w0 and </s>), 1, 9, 1. D(2) = 2 - 3 * 2/4 * 9 < 0.
    times = [1, 2, *[3] * 9, 4]
    sentence = [f"w{k}" for k, count in enumerate(times) for _ in range(count)]
    with pytest.raises(ValueError, match=r"those of 1-grams come out as 0\.5, -11\.5, 2\.78"):
        train(encode([sentence]), 1)
    assert not train(encode([sentence]), 1, fallback=FALLBACK).discounts[0].estimated
