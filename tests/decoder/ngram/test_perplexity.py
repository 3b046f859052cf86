"""Perplexity by hand, and as another program computes it from the same ARPA file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from asr.decoder.ngram import save_ngram_model
from asr.decoder.ngram.counts import encode
from asr.decoder.ngram.kneser_ney import train
from asr.decoder.ngram.perplexity import measure_perplexity
from tests.decoder.ngram.random_text import random_sentences

FALLBACK = (0.5, 1.0, 1.5)


def test_worked_by_hand() -> None:
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
def test_the_same_as_kenlm_from_the_same_file(
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
