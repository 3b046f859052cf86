"""Beam search for the words of a lexicon: the best of all that it can write, found by trying all.

A spelling may be that of several words, and a word may have several spellings.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from asr.decoder import BeamSearch
from asr.decoder.ngram import NgramModel
from asr.text import CharTokenizer
from tests.decoder.searches import ALPHABET, NO_PRUNING, bigram_model, decode, random_log_probs

LEXICON = {"one": ("a", "ab"), "two": ("a",), "three": ("cab",), "four": ("ab", "ba")}
WORDS = tuple(LEXICON)
WIDE = {"beam_size": 2000, **NO_PRUNING}
Found = tuple[float, tuple[str, ...], str]


def ctc_log_prob(log_probs: np.ndarray, tokens: Sequence[int]) -> float:
    """All alignments summed, by torch."""
    return -float(
        torch.nn.functional.ctc_loss(
            torch.from_numpy(log_probs)[:, None], torch.tensor([list(tokens)]),
            torch.tensor([len(log_probs)]), torch.tensor([len(tokens)]), reduction="sum",
        )
    )  # fmt: skip


def by_trying_all(
    log_probs: np.ndarray,
    model: NgramModel | None,
    lm_weight: float,
    word_bonus: float,
    hotwords: Mapping[str, float],
) -> list[Found]:
    """Every text of at most three words and its spelling, the best first."""
    found: list[Found] = []
    spoken: dict[str, float] = {}
    ways = [(word, way) for word, own in LEXICON.items() for way in own]
    for count in range(4):
        for chosen in itertools.product(ways, repeat=count):
            words, spelt = tuple(w for w, _ in chosen), " ".join(way for _, way in chosen)
            tokens = CharTokenizer(ALPHABET).encode(spelt)
            if len(tokens) > len(log_probs):
                continue
            if spelt not in spoken:
                spoken[spelt] = ctc_log_prob(log_probs, tokens)
            score = spoken[spelt] + word_bonus * count
            score += lm_weight * math.fsum(model.score(words)) if model else 0.0
            text = f" {' '.join(words)} "
            score += sum(
                weight * sum(text.startswith(f" {hot} ", at) for at in range(len(text)))
                for hot, weight in hotwords.items()
            )
            found.append((score, words, spelt))
    return sorted((each for each in found if each[0] > -math.inf), reverse=True)


@pytest.mark.parametrize("hotwords", [{}, {"two": 3.0, "four one": 2.0}])
@pytest.mark.parametrize("lm_weight", [0.0, 0.8])
def test_the_best_words_are_found(lm_weight: float, hotwords: dict[str, float]) -> None:
    generator = np.random.default_rng(0)
    model = bigram_model(WORDS) if lm_weight else None
    search = BeamSearch(
        **WIDE, nbest=50, alphabet=ALPHABET, language_model=model, lm_weight=lm_weight,
        word_bonus=0.3, lexicon=LEXICON, hotwords=hotwords,
    )  # fmt: skip
    for frames in (3, 4, 5, 5, 6):
        log_probs = random_log_probs(generator, frames, 5)
        # A text with two spaces in a row, or one at an end, is another path of the same words.
        own = {}
        for each in decode(search, log_probs):
            written = CharTokenizer(ALPHABET).decode(each.tokens)
            assert each.words is not None
            assert all(
                spelling in LEXICON[word]
                for word, spelling in zip(each.words, written.split(), strict=True)
            )
            if written == " ".join(written.split()):
                own[each.words, written] = each.score
        expected = by_trying_all(log_probs, model, lm_weight, 0.3, hotwords)
        plain = {(words, spelt): score for score, words, spelt in expected}
        assert own
        for key, score in own.items():
            if key in plain and score > -1e3:
                assert score == pytest.approx(plain[key], abs=1e-4)
        best = expected[0]
        assert max(own.values()) >= best[0] - 1e-4


def test_the_language_model_tells_words_apart_that_are_spelt_alike() -> None:
    log_probs = np.full((4, 5), -9.0)
    for frame, label in enumerate((2, 0, 2, 2)):  # a, blank, then something of a
        log_probs[frame, label] = -0.01
    text = {}
    for seed in range(6):
        model = bigram_model(("one", "two"), seed=seed)
        search = BeamSearch(
            alphabet=ALPHABET, language_model=model, lm_weight=2.0, word_bonus=0.0,
            lexicon={"one": ["a"], "two": ["a"]},
        )  # fmt: skip
        words = decode(search, log_probs[:1])[0].words
        scores = {word: math.fsum(model.score([word])) for word in ("one", "two")}
        assert words == (max(scores, key=scores.__getitem__),)
        text[words] = seed
    assert len(text) == 2


def test_a_hotword_is_told_from_a_word_that_is_spelt_alike() -> None:
    log_probs = np.log(np.full((2, 5), 0.1) + 0.5 * np.eye(5)[[2, 0]])
    lexicon = {"one": ["a"], "two": ["a"]}
    for hot in lexicon:
        search = BeamSearch(alphabet=ALPHABET, lexicon=lexicon, hotwords={hot: 2.0})
        assert decode(search, log_probs)[0].words == (hot,)
    with pytest.raises(ValueError, match="hotword 'three' is not in the lexicon"):
        BeamSearch(alphabet=ALPHABET, lexicon=lexicon, hotwords={"three": 2.0})


def test_a_word_that_is_not_whole_is_left_out() -> None:
    log_probs = np.full((3, 5), -20.0)
    for frame, label in enumerate((2, 1, 4)):  # "a c", and no word is a c
        log_probs[frame, label] = -0.001
    search = BeamSearch(
        3, alphabet=ALPHABET, lexicon={"one": ["a"], "three": ["cab"]}, beam_threshold=5.0
    )
    (found, *_) = decode(search, log_probs)
    assert found.words == ("one",)
    assert CharTokenizer(ALPHABET).decode(found.tokens) == "a "
    assert len(found.tokens) == len(found.starts) == len(found.log_probs)
    assert math.isfinite(found.score)


def test_nothing_but_blanks_is_no_word() -> None:
    log_probs = np.log(np.full((5, 5), 0.001) + 0.995 * np.eye(5)[[0] * 5])
    (found, *_) = decode(BeamSearch(alphabet=ALPHABET, lexicon=LEXICON), log_probs)
    assert (found.tokens, found.words) == ((), ())


def test_a_word_that_the_language_model_has_not_costs() -> None:
    log_probs = np.log(np.full((1, 5), 0.1) + 0.5 * np.eye(5)[[2]])
    lexicon = {"zzz": ["a"], "one": ["a"]}
    model = bigram_model(("one",))
    rare = BeamSearch(alphabet=ALPHABET, language_model=model, lexicon=lexicon, unk_score=-50.0)
    assert decode(rare, log_probs)[0].words == ("one",)
    free = BeamSearch(
        alphabet=ALPHABET, language_model=model, lexicon={"zzz": ["a"]}, word_bonus=20.0
    )
    assert decode(free, log_probs)[0].words == ("zzz",)


def test_what_a_lexicon_needs() -> None:
    with pytest.raises(ValueError, match="hotwords, lexicon and phrases need the alphabet"):
        BeamSearch(lexicon=LEXICON)
    with pytest.raises(ValueError, match="alphabet has no space, which words need"):
        BeamSearch(alphabet="abc", lexicon=LEXICON)
