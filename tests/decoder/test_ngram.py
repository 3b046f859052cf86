"""N-gram models: the walk through the tree, arrays that are no tree, perplexity."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asr.decoder.kneser_ney import encode, train
from asr.decoder.ngram import END, START, UNKNOWN, NgramModel, Rows, build_tree, measure_perplexity
from asr.decoder.ngram_file import save_ngram_model
from tests.decoder.plain_ngram import DictionaryModel
from tests.decoder.random_text import random_sentences

FALLBACK = (0.5, 1.0, 1.5)


def small_model() -> NgramModel:
    """A trigram model with numbers that tell the n-grams apart."""
    words = (UNKNOWN, START, END, "a", "b")

    def rows(length: int, ngrams: list[str], probs: list[float], weights: list[float]) -> Rows:
        ids = [[words.index(word) for word in ngram.split()] for ngram in ngrams]
        return Rows(
            np.array(ids, np.int32).reshape(-1, length),
            np.array(probs, np.float32),
            np.array(weights, np.float32),
        )

    return build_tree(
        words,
        [
            rows(1, list(words), [-5, -99, -1, -2, -3], [0, -0.5, 0, -0.25, -0.125]),
            rows(2, ["b a", "<s> a", "a b"], [-1.5, -1.25, -0.75], [-0.0625, -0.03125, -0.015625]),
            rows(3, ["<s> a b", "b a </s>"], [-0.5, -0.25], [0, 0]),
        ],
    )


def test_a_walk_worked_by_hand() -> None:
    model = small_model()
    # a after <s>; b after <s> a; a after a b, which backs off to b a; </s> after b a.
    assert model.score(["a", "b", "a"]) == [-1.25, -0.5, -0.015625 - 1.5, -0.25]
    # b after <s> is backed off; an unknown word after b as well; nothing follows an unknown one.
    scores, lengths = model.found(["b", "x", "a"])
    assert scores.tolist() == [-0.5 - 3, -0.125 - 5, -2, -0.25 - 1]
    assert lengths.tolist() == [1, 1, 1, 1]
    assert model.found(["a", "b"], end=False)[1].tolist() == [2, 3]
    assert model.counts == [5, 3, 2]


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("prune", [[0], [0, 1]])
def test_the_walk_equals_the_definition(order: int, prune: list[int]) -> None:
    text = encode(random_sentences(300, 50), min_count=3)
    model = train(text, order, prune=prune[:order], fallback=FALLBACK).model
    reference = DictionaryModel(model)
    sentences = random_sentences(100, 70, seed=1)
    assert any(word not in model for words in sentences for word in words)
    for words in sentences:
        expected = reference.score(words)
        assert model.score(words) == pytest.approx(expected, abs=1e-9)
        node = model.start
        for word, log_prob in zip([*words, END], expected, strict=True):
            found, node = model.advance(node, model.word_id(word))
            assert found == pytest.approx(log_prob, abs=1e-9)


def test_a_context_has_fewer_words_than_the_order() -> None:
    model = train(encode(random_sentences(300, 50)), 3, fallback=FALLBACK).model
    longest = model.level_starts[3]
    for words in random_sentences(50, 50, seed=1):
        node = model.start
        for word in words:
            _, node = model.advance(node, model.word_id(word))
            assert node < longest


def test_a_suffix_that_is_missing_is_passed_over() -> None:
    # "x y z" without "y z": after it the context is z alone.
    words = (UNKNOWN, START, END, "x", "y", "z")
    zeros = np.zeros
    model = build_tree(
        words,
        [
            Rows(np.arange(6, dtype=np.int32)[:, None], -np.arange(1, 7, dtype=np.float32),
                 np.full(6, -0.5, np.float32)),
            Rows(np.array([[3, 4], [5, 3]], np.int32), np.full(2, -0.25, np.float32),
                 zeros(2, np.float32)),
            Rows(np.array([[3, 4, 5]], np.int32), np.full(1, -0.125, np.float32),
                 zeros(1, np.float32)),
        ],
    )  # fmt: skip
    assert model.score(["x", "y", "z", "x"])[1:4] == [-0.25, -0.125, -0.25]


def test_advance_refuses_what_is_not_in_the_model() -> None:
    model = small_model()
    for node, word_id in ((-1, 0), (11, 0), (0, 5), (0, -1)):
        with pytest.raises(IndexError, match="the model has no such"):
            model.advance(node, word_id)


@pytest.mark.parametrize(
    ("name", "place", "value", "fault"),
    [
        ("word_ids", 7, 9, "word ids out of range"),
        ("word_ids", 3, 1, "the words' ids are not"),
        ("word_ids", 10, -1, "word ids out of range"),
        ("first_children", 3, 100, "places do not go up"),
        ("first_children", 0, 0, "places do not go up"),
        ("first_children", 11, 12, "places do not go up"),
        ("first_children", 9, 10, "more levels than its order"),
        ("suffixes", 7, 7, "a suffix is not shorter"),
        ("suffixes", 7, -1, "a suffix is not shorter"),
        ("suffixes", 0, 1, "a suffix is not shorter"),
        ("log_probs", 4, 0.5, "a probability above 1"),
        ("log_probs", 4, np.nan, "a probability above 1"),
        ("backoffs", 4, np.inf, "not finite"),
    ],
)
def test_arrays_that_are_no_tree_are_refused(
    name: str, place: int, value: float, fault: str
) -> None:
    model = small_model()
    array = getattr(model, name).copy()
    array[place] = value
    with pytest.raises(ValueError, match=fault):
        replace(model, **{name: array})


def test_words_and_sizes_that_do_not_fit_are_refused() -> None:
    model = small_model()
    for changed, fault in (
        ({"order": 2}, "more levels"),
        ({"order": 0}, "order 0, 5 words"),
        ({"order": 11}, "order 11, 5 words"),
        ({"words": (UNKNOWN, START, END, "a", "a")}, "a word occurs twice"),
        ({"words": (UNKNOWN, START, END, "a", "b c")}, "holds white space"),
        ({"words": (UNKNOWN, START, END, "a", "")}, "is empty"),
        ({"words": (UNKNOWN, START, "c", "a", "b")}, "no word </s>"),
        ({"words": (UNKNOWN, START, END, "a")}, "places do not go up"),
        ({"backoffs": model.backoffs[1:]}, "11 nodes, but"),
    ):
        with pytest.raises(ValueError, match=fault):
            replace(model, **changed)  # type: ignore[arg-type]


def test_children_out_of_order_are_refused() -> None:
    words = (UNKNOWN, START, END, "a")
    ids = np.array([-1, 0, 1, 2, 3, 3, 2], np.int32)
    with pytest.raises(ValueError, match="children are not sorted"):
        NgramModel(
            2, words, np.zeros(7, np.float32), np.zeros(7, np.float32), ids,
            np.array([1, 5, 5, 5, 5, 7, 7, 7]), np.zeros(7, np.int32),
        )  # fmt: skip


def test_a_perplexity_worked_by_hand() -> None:
    # The toy of test_kneser_ney: P(a | <s>) 5/8, P(</s> | a) 7/16, P(b | a) 3/8; an unknown word
    # after <s> 1/2 * 1/8, then </s> after it 3/8.
    model = train(encode([["a", "b"], ["a"]]), 2, fallback=FALLBACK).model
    found = measure_perplexity(model, [["a"], ["x"]])
    assert (found.sentences, found.words, found.oov_words) == (2, 2, 1)
    known = 5 / 8 * 7 / 16 * 3 / 8
    assert found.log10_known == pytest.approx(math.log10(known))
    assert found.log10_total == pytest.approx(math.log10(known / 16))
    assert found.without_oov == pytest.approx(known ** (-1 / 3))
    assert found.with_oov == pytest.approx((known / 16) ** (-1 / 4))
    assert found.hits == (2, 2)


def test_no_text_is_refused_and_the_order_of_sentences_does_not_matter() -> None:
    sentences = random_sentences(200, 60)
    model = train(encode(sentences, min_count=2), 3, fallback=FALLBACK).model
    assert measure_perplexity(model, sentences) == measure_perplexity(model, sentences[::-1])
    with pytest.raises(ValueError, match="no sentences"):
        measure_perplexity(model, [])


@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("prune", [[0], [0, 1]])
def test_the_perplexity_is_kenlms_from_the_same_file(
    order: int, prune: list[int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kenlm = pytest.importorskip("kenlm")
    path = tmp_path / "model.arpa"
    text = encode(random_sentences(500, 80), min_count=2)
    model = train(text, order, prune=prune, fallback=FALLBACK).model
    save_ngram_model(path, model)
    other = kenlm.Model(str(path))
    sentences = random_sentences(300, 120, seed=1)
    found = measure_perplexity(model, sentences)
    scores = [score for words in sentences for score in other.full_scores(" ".join(words))]
    known = [log10 for log10, _, is_oov in scores if not is_oov]
    assert found.oov_words == len(scores) - len(known) > 0
    assert found.with_oov == pytest.approx(10 ** -(sum(s[0] for s in scores) / len(scores)), 1e-4)
    assert found.without_oov == pytest.approx(10 ** -(sum(known) / len(known)), 1e-4)
    lengths = [length for _, length, _ in scores]
    assert found.hits == tuple(lengths.count(n) for n in range(1, order + 1))
