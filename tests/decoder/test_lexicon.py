"""Lexicon-constrained decoding: words of the lexicon only, with a language model's weights."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from asr.decoder import Hypothesis, LexiconBeamSearch
from asr.decoder.ngram import NgramModel
from asr.decoder.ngram_file import save_ngram_model
from asr.text import CharTokenizer
from tests.decoder.searches import ALPHABET, bigram_model, random_log_probs

pytest.importorskip("flashlight.lib.text", reason="flashlight-text is an extra")
WORDS = ("a", "ab", "cab")
WIDE = {"beam_size": 500, "beam_threshold": 1e6}


@pytest.fixture
def lexicon(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("".join(f"{word}\n" for word in WORDS))
    return path


@pytest.fixture
def model() -> NgramModel:
    return bigram_model(WORDS)


def decode(decoder: LexiconBeamSearch, log_probs: np.ndarray) -> list[Hypothesis]:
    return decoder(torch.from_numpy(log_probs)[None], torch.tensor([len(log_probs)]))[0]


def words_of(tokens: tuple[int, ...]) -> list[str]:
    return CharTokenizer(ALPHABET).decode(tokens).split()


def best_by_hand(
    log_probs: np.ndarray, model: NgramModel | None, lm_weight: float, word_bonus: float
) -> tuple[float, list[str]]:
    """The best path that writes words of WORDS, by trying all."""
    frames, vocab = log_probs.shape
    best: tuple[float, list[str]] = (-math.inf, [])
    for path in itertools.product(range(vocab), repeat=frames):
        words = words_of(tuple(k for k, _ in itertools.groupby(path) if k))
        if any(word not in WORDS for word in words):
            continue
        score = float(log_probs[np.arange(frames), path].sum()) + word_bonus * len(words)
        score += lm_weight * math.fsum(model.score(words)) if model else 0.0
        best = max(best, (score, words))
    return best


def test_the_best_words_of_a_lexicon_are_found(lexicon: Path) -> None:
    generator = np.random.default_rng(0)
    decoder = LexiconBeamSearch(ALPHABET, lexicon, word_bonus=0.3, **WIDE)
    for _ in range(10):
        log_probs = random_log_probs(generator, int(generator.integers(2, 7)), 5)
        score, words = best_by_hand(log_probs, None, 0.0, 0.3)
        found = decode(decoder, log_probs)[0]
        assert words_of(found.tokens) == words
        assert found.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz", "lm.ngram"])
def test_a_language_model_counts_in_nats(model: NgramModel, tmp_path: Path, name: str) -> None:
    generator = np.random.default_rng(1)
    save_ngram_model(tmp_path / name, model)
    decoder = LexiconBeamSearch(
        ALPHABET, language_model=tmp_path / name, lm_weight=0.8, word_bonus=-0.5, **WIDE
    )
    for _ in range(5):
        log_probs = random_log_probs(generator, 5, 5)
        score, words = best_by_hand(log_probs, model, 0.8, -0.5)
        found = decode(decoder, log_probs)[0]
        assert words_of(found.tokens) == words
        assert found.score == pytest.approx(score, abs=1e-4)


def test_frames_are_those_of_the_path(lexicon: Path) -> None:
    path = [2, 2, 0, 3, 1, 1, 0, 4, 2, 0, 3]  # ab cab
    log_probs = np.full((len(path), 5), math.log(0.001))
    log_probs[np.arange(len(path)), path] = math.log(0.996)
    (found,) = decode(LexiconBeamSearch(ALPHABET, lexicon, word_bonus=0.0), log_probs)
    assert found.tokens == (2, 3, 1, 4, 2, 3)
    assert found.starts == (0, 3, 4, 7, 8, 10)
    assert found.ends == (2, 4, 6, 8, 9, 11)
    assert found.log_probs == pytest.approx([math.log(0.996)] * 6)
    assert found.score == pytest.approx(len(path) * math.log(0.996), abs=1e-5)


def test_batches_padding_and_nothing(lexicon: Path) -> None:
    generator = np.random.default_rng(2)
    log_probs = torch.from_numpy(np.stack([random_log_probs(generator, 8, 5) for _ in range(3)]))
    lengths = torch.tensor([8, 5, 0])
    decoder = LexiconBeamSearch(ALPHABET, lexicon, nbest=4)
    log_probs[1, 5:] = math.nan
    together = decoder(log_probs, lengths)
    assert together[0] == decode(decoder, log_probs[0].numpy())
    assert together[1] == decode(decoder, log_probs[1, :5].numpy())
    assert together[2][0].tokens == ()
    for hypotheses in together:
        assert len({h.tokens for h in hypotheses}) == len(hypotheses) <= 4
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)


def test_where_no_word_fits_the_hypothesis_is_empty(lexicon: Path) -> None:
    log_probs = np.full((3, 5), -math.inf)
    log_probs[:, 4] = 0.0  # "c" alone is no word
    assert decode(LexiconBeamSearch(ALPHABET, lexicon), log_probs)[0].tokens == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ab\nxyz\n", r"words\.txt:2: character 'x' .* not in the alphabet"),
        ("a b\n", r"words\.txt:1: 'a b', expected one word a line"),
        ("\n", r"words\.txt: no words"),
    ],
)
def test_lexicons_that_cannot_be_are_refused(lexicon: Path, text: str, message: str) -> None:
    lexicon.write_text(text)
    with pytest.raises(ValueError, match=message):
        LexiconBeamSearch(ALPHABET, lexicon)


def test_words_must_come_from_somewhere(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a lexicon or a language model"):
        LexiconBeamSearch(ALPHABET)
    binary = tmp_path / "lm.bin"
    binary.write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0")
    with pytest.raises(ValueError, match=r"lm\.bin: a binary of KenLM"):
        LexiconBeamSearch(ALPHABET, language_model=binary)


def test_what_kenlm_cannot_read_is_one_line(lexicon: Path, tmp_path: Path) -> None:
    broken = tmp_path / "lm.arpa"
    broken.write_text("no language model")
    with pytest.raises(ValueError, match=r"lm\.arpa: KenLM cannot read it"):
        LexiconBeamSearch(ALPHABET, lexicon, broken)


def test_settings_out_of_range_are_refused(lexicon: Path) -> None:
    for name, value in (("beam_size", 0), ("nbest", 51), ("max_tokens", 0), ("lm_weight", -1)):
        with pytest.raises(ValueError, match=rf"^{name} {value}, expected"):
            LexiconBeamSearch(ALPHABET, lexicon, **{name: value})
    with pytest.raises(ValueError, match="alphabet has no space"):
        LexiconBeamSearch("abc", lexicon)


def test_without_the_package_a_line_says_what_to_install(
    lexicon: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flashlight.lib.text", None)
    with pytest.raises(ValueError, match=r"^flashlight-text is not installed: pip install"):
        LexiconBeamSearch(ALPHABET, lexicon)
