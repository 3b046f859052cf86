"""Beam search: by hand, batches, what it refuses, language model and hotwords; its plain twin.

The compiled search equals the twin, ties included, and enumeration where nothing is left out.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr.decoder import BeamSearch, Greedy, Hypothesis, prefix_search
from asr.decoder.label_prior import label_prior
from asr.decoder.ngram import END
from asr.decoder.ngram_file import save_ngram_model
from asr.decoder.prefix_search import search
from asr.text import CharTokenizer
from tests.decoder.searches import (
    ALPHABET,
    NO_PRUNING,
    bigram_model,
    decode,
    random_log_probs,
    twin_of,
)

INF = math.inf


def batch(count: int = 6, frames: int = 20, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    rows = [random_log_probs(generator, frames, len(ALPHABET) + 1) for _ in range(count)]
    lengths = torch.from_numpy(generator.integers(0, frames + 1, count))
    return torch.from_numpy(np.stack(rows)), lengths


def text_of(hypothesis: Hypothesis, alphabet: str = ALPHABET) -> str:
    return CharTokenizer(alphabet).decode(hypothesis.tokens)


def test_the_likeliest_labels_need_not_lie_on_the_likeliest_path() -> None:
    # Two frames of blank 0.6 and a 0.4: the best path is empty (0.36), but a has 0.64.
    log_probs = np.log([[0.6, 0.4], [0.6, 0.4]])
    one, other = decode(BeamSearch(2, 2), log_probs)
    assert one.tokens == (1,)
    assert one.score == pytest.approx(math.log(0.64))
    assert other == Hypothesis((), (), (), (), pytest.approx(math.log(0.36)))
    assert Greedy()(torch.from_numpy(log_probs)[None], torch.tensor([2]))[0][0].tokens == ()


def test_a_repeat_needs_a_blank_between() -> None:
    log_probs = np.log([[0.1, 0.9], [0.8, 0.2], [0.1, 0.9]])
    scores = {h.tokens: h.score for h in decode(BeamSearch(9, 9, **NO_PRUNING), log_probs)}
    assert scores[1, 1] == pytest.approx(math.log(0.9 * 0.8 * 0.9))
    assert math.fsum(map(math.exp, scores.values())) == pytest.approx(1)


def test_a_sure_model_gets_what_greedy_says() -> None:
    path = [0, 2, 2, 0, 0, 2, 1, 1, 0, 3]
    log_probs = np.full((len(path), 4), math.log(1e-6))
    log_probs[np.arange(len(path)), path] = math.log(1 - 3e-6)
    tensor, length = torch.from_numpy(log_probs)[None], torch.tensor([len(path)])
    ((found,),), ((greedy,),) = BeamSearch()(tensor, length), Greedy()(tensor, length)
    assert (found.tokens, found.starts, found.ends) == (greedy.tokens, greedy.starts, greedy.ends)
    assert found.log_probs == pytest.approx(greedy.log_probs)
    assert found.score == pytest.approx(greedy.score, abs=1e-4)


def test_a_batch_is_its_utterances_and_padding_may_hold_anything() -> None:
    log_probs, lengths = batch()
    dirty = log_probs.clone()
    for row, length in zip(dirty, lengths.tolist(), strict=True):
        row[length:] = math.nan
    decoder = BeamSearch(8, 4, alphabet=ALPHABET, language_model=bigram_model())
    together = decoder(dirty, lengths)
    for number, length in enumerate(lengths.tolist()):
        alone = decoder(log_probs[number : number + 1, :length], torch.tensor([length]))
        assert alone == [together[number]]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs, lengths = batch()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert BeamSearch(8, 4)(log_probs, lengths) == [
        decode(BeamSearch(8, 4), row[:length].numpy())
        for row, length in zip(log_probs, lengths.tolist(), strict=True)
    ]


def test_half_precision_is_taken() -> None:
    log_probs, lengths = batch()
    expected = BeamSearch()(log_probs.half().double(), lengths)
    assert BeamSearch()(log_probs.half(), lengths) == expected


def test_no_frames_are_the_empty_hypothesis_and_the_end_of_the_sentence() -> None:
    nothing, lengths = torch.empty(1, 0, len(ALPHABET) + 1), torch.tensor([0])
    assert BeamSearch()(nothing, lengths) == [[Hypothesis((), (), (), (), 0.0)]]
    assert BeamSearch()(nothing[:0], lengths[:0]) == []
    model = bigram_model()
    decoder = BeamSearch(alphabet=ALPHABET, language_model=model, lm_weight=0.7)
    log_prob, _ = model.advance(model.start, model.word_id(END))
    assert decoder(nothing, lengths)[0][0].score == pytest.approx(0.7 * log_prob)


def test_all_blank() -> None:
    log_probs = np.full((4, 3), -INF)
    log_probs[:, 0] = 0.0
    assert decode(BeamSearch(5, 5), log_probs) == [Hypothesis((), (), (), (), 0.0)]


def test_what_is_impossible_is_never_found() -> None:
    log_probs = np.log(np.array([[0.5, 0.5, 1e-300], [0.5, 1e-300, 0.5]]))
    log_probs[log_probs < -100] = -INF
    found = decode(BeamSearch(50, 50, **NO_PRUNING), log_probs)
    assert {h.tokens for h in found} == {(), (1,), (2,), (1, 2)}
    assert math.fsum(math.exp(h.score) for h in found) == pytest.approx(1)


@pytest.mark.parametrize("value", [math.nan, INF])
def test_what_is_no_log_probability_is_refused_with_its_place(value: float) -> None:
    log_probs, _ = batch(3)
    log_probs[1, 4, 2] = value
    with pytest.raises(ValueError, match=rf"^log_probs of utterance 1, frame 4, label 2: {value}"):
        BeamSearch()(log_probs, torch.tensor([20, 20, 20]))
    BeamSearch()(log_probs, torch.tensor([20, 4, 20]))


def test_a_frame_in_which_nothing_is_possible_is_refused() -> None:
    log_probs, _ = batch(2)
    log_probs[0, 3] = -INF
    with pytest.raises(ValueError, match=r"^log_probs of utterance 0, frame 3: -inf for every"):
        BeamSearch()(log_probs, torch.tensor([20, 20]))


def test_hypotheses_are_distinct_and_sorted() -> None:
    log_probs, lengths = batch(10)
    for hypotheses in BeamSearch(30, 30)(log_probs, lengths):
        scores = [h.score for h in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({h.tokens for h in hypotheses}) == len(hypotheses)
        for h in hypotheses:
            edges = [edge for span in zip(h.starts, h.ends, strict=True) for edge in span]
            assert edges == sorted(edges)
            assert all(start < end for start, end in zip(h.starts, h.ends, strict=True))


def test_equal_scores_are_ranked_by_the_order_of_prefixes() -> None:
    log_probs = np.log(np.full((1, 4), 0.25))
    assert [h.tokens for h in decode(BeamSearch(3, 3), log_probs)] == [(), (1,), (2,)]


def test_skipped_blanks_cost_what_a_blank_costs() -> None:
    log_probs = np.log([[0.02, 0.98], [0.95, 0.05], [0.02, 0.98]])
    (found,) = decode(BeamSearch(skip_blank=0.9), log_probs)
    assert found.tokens == (1, 1)
    assert found.score == pytest.approx(math.log(0.98 * 0.95 * 0.98))


def written(text: str, alphabet: str = ALPHABET, *, sure: float = 0.9) -> np.ndarray:
    """Frames that say a text, a label and a blank for each character."""
    tokens = [label for token in CharTokenizer(alphabet).encode(text) for label in (token, 0)]
    log_probs = np.full((len(tokens), len(alphabet) + 1), math.log((1 - sure) / len(alphabet)))
    log_probs[np.arange(len(tokens)), tokens] = math.log(sure)
    return log_probs


@pytest.mark.parametrize("text", ["ab a", "cab b", "a  b", "bc a", "b", " "])
def test_the_score_is_the_sum_of_its_parts(text: str) -> None:
    model, log_probs = bigram_model(), written(text)[::2]
    hotwords = {"ab": 3.0, "cab": 1.0}
    plain = {h.tokens: h.score for h in decode(BeamSearch(3000, 3000, **NO_PRUNING), log_probs)}
    decoder = BeamSearch(
        3000, 3000, alphabet=ALPHABET, language_model=model, lm_weight=0.7, word_bonus=1.5,
        unk_score=-2.0, hotwords=hotwords, **NO_PRUNING,
    )  # fmt: skip
    found = decode(decoder, log_probs)
    assert len(found) == len(plain)
    for hypothesis in found:
        words = text_of(hypothesis).split()
        unknown = sum(word not in model and word not in hotwords for word in words)
        expected = 0.7 * math.fsum(model.score(words)) + 1.5 * len(words) - 2.0 * unknown
        expected += 3.0 * words.count("ab") + 1.0 * words.count("cab")
        assert hypothesis.score == pytest.approx(plain[hypothesis.tokens] + expected)


def test_the_language_model_decides_between_words_that_sound_alike() -> None:
    model = bigram_model(("ab", "cab"))
    log_probs = written("bb", sure=0.5)
    log_probs[0, 2] = log_probs[0, 3] - 0.7  # an "a" is half as likely as the first "b"
    assert text_of(decode(BeamSearch(), log_probs)[0]) == "bb"
    decoder = BeamSearch(alphabet=ALPHABET, language_model=model)
    assert text_of(decode(decoder, log_probs)[0]) == "ab"


def test_all_settings_share_one_compiled_search(tmp_path: Path) -> None:
    save_ngram_model(tmp_path / "lm.ngram", bigram_model())
    lm = {"alphabet": ALPHABET, "language_model": tmp_path / "lm.ngram"}
    for decoder in (
        BeamSearch(skip_blank=1, beam_threshold=3),
        BeamSearch(alphabet=ALPHABET, hotwords={"ab": 1}),
        BeamSearch(lm_weight=1, word_bonus=2, unk_score=-3, **lm),
        BeamSearch(lm_weight=0.5, **lm),
        BeamSearch(alphabet=ALPHABET, lexicon={"x": ["ab"], "y": ["ab"]}, hotwords={"y": 1}),
        BeamSearch(alphabet=ALPHABET, phrases=["ab", "ba ab"]),
    ):
        decode(decoder, written("ab"))
    assert len(search.signatures) == 1
    # Nor is a part of it compiled twice, for an argument that is a literal in one place say.
    parts = [each for each in vars(prefix_search).values() if hasattr(each, "signatures")]
    assert {len(each.signatures) for each in parts} <= {0, 1}


def test_a_model_file_is_read(tmp_path: Path) -> None:
    log_probs, model = written("ab cab"), bigram_model()
    expected = decode(BeamSearch(9, 9, alphabet=ALPHABET, language_model=model), log_probs)
    for name in ("lm.arpa", "lm.arpa.gz", "lm.ngram"):
        save_ngram_model(tmp_path / name, model)
        decoder = BeamSearch(9, 9, alphabet=ALPHABET, language_model=tmp_path / name)
        assert [h.tokens for h in decode(decoder, log_probs)] == [h.tokens for h in expected]


def test_words_that_the_alphabet_cannot_write_are_told() -> None:
    decoder = BeamSearch(alphabet=ALPHABET, language_model=bigram_model(("ab", "xyz", "caf\u00e9")))
    assert decoder.unwritable == ["caf\u00e9", "xyz"]
    with pytest.raises(ValueError, match=r"^none of the language model's 1 words can be written"):
        BeamSearch(alphabet=ALPHABET, language_model=bigram_model(("xyz",)))


def test_a_hotword_is_found_and_given_back_where_it_breaks() -> None:
    log_probs = written("cb", sure=0.6)
    plain = BeamSearch(200, 200, **NO_PRUNING)
    hot = BeamSearch(200, 200, alphabet=ALPHABET, hotwords={"cab": 4.0}, **NO_PRUNING)
    before = {text_of(h): h.score for h in decode(plain, log_probs)}
    after = {text_of(h): h.score for h in decode(hot, log_probs)}
    assert text_of(decode(hot, log_probs)[0]) == "cab"
    for text, score in after.items():
        gained = 4.0 * text.split().count("cab")
        assert score == pytest.approx(before[text] + gained, abs=1e-3), text


def test_a_word_of_a_hotword_is_no_unknown_word() -> None:
    log_probs, model = written("cab", sure=0.9999999), bigram_model(("a", "b"))
    scores = []
    for hotwords in ({}, {"cab": 4.0}, {"ba cab": 4.0}, {"ca": 4.0}):
        decoder = BeamSearch(
            alphabet=ALPHABET, language_model=model, unk_score=-7.0, hotwords=hotwords
        )
        (best, *_) = decode(decoder, log_probs)
        assert text_of(best) == "cab"
        scores.append(best.score)
    gains = [score - scores[0] for score in scores[1:]]
    assert gains == pytest.approx([7.0 + 4.0, 7.0, 0.0], abs=1e-6)


def test_a_hotword_begins_and_ends_at_word_boundaries() -> None:
    log_probs = written("cab", sure=0.999)
    plain = decode(BeamSearch(), log_probs)[0]
    for hotword, gained in (("cab", 4.0), ("ab", 0.0), ("ca", 0.0), ("cab a", 0.0)):
        decoder = BeamSearch(alphabet=ALPHABET, hotwords={hotword: 4.0})
        assert decode(decoder, log_probs)[0].score == pytest.approx(plain.score + gained)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam_size": 0}, r"^beam_size 0, expected 1 or more"),
        ({"nbest": 51}, r"^nbest 51, expected 1 to beam_size 50"),
        ({"max_tokens": 0}, r"^max_tokens 0"),
        ({"beam_threshold": 0}, r"^beam_threshold 0, expected nats above 0"),
        ({"skip_blank": 0}, r"^skip_blank 0"),
        ({"skip_blank": 1.5}, r"^skip_blank 1.5"),
        ({"min_token_log_prob": math.nan}, r"^min_token_log_prob nan"),
        ({"lm_weight": -1}, r"^lm_weight -1, expected 0 or more"),
        ({"word_bonus": INF}, r"^word_bonus inf"),
        ({"unk_score": 1}, r"^unk_score 1, expected 0 or less"),
        ({"hotwords": {"ab": 1.0}}, r"and phrases need the alphabet"),
        ({"hotwords": {"xb": 1.0}, "alphabet": ALPHABET}, r"^character 'x' .* not in the alphabet"),
        ({"hotwords": {"ab": 0.0}, "alphabet": ALPHABET}, r"^hotword 'ab': weight 0.0"),
        ({"hotwords": {" ab": 1.0}, "alphabet": ALPHABET}, r"^hotword ' ab', expected words"),
        ({"language_model": bigram_model(), "alphabet": "abc"}, r"alphabet has no space"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        BeamSearch(**settings)
    assert "\n" not in str(caught.value)


def test_another_alphabet_than_the_models_is_refused() -> None:
    decoder = BeamSearch(alphabet="abcdefg ", hotwords={"a": 1.0})
    with pytest.raises(ValueError, match=r"^log_probs of 5 labels, expected 9"):
        decode(decoder, written("ab"))


# --- the plain twin ---

HOTWORDS = ({}, {"ab": 2.0, "cab ab": 3.5, "b": 1.0, "a b": 0.7}, {"ba": 1.5, "bab": 4.0})


def random_settings(generator: np.random.Generator) -> dict[str, Any]:
    """Of all settings that leave something out, or of none of them."""
    if generator.random() < 0.5:
        return NO_PRUNING
    return {
        "min_token_log_prob": float(generator.choice([-1, -2, -10])),
        "max_tokens": int(generator.integers(1, 5)),
        "beam_threshold": float(generator.choice([1, 3, 25])),
        "skip_blank": float(generator.choice([0.5, 0.8, 0.999, 1])),
    }


@pytest.mark.parametrize("has_ties", [False, True])
@pytest.mark.parametrize("has_words", [False, True])
@pytest.mark.parametrize("hotwords", HOTWORDS)
def test_it_equals_its_plain_twin(
    has_ties: bool, has_words: bool, hotwords: dict[str, float]
) -> None:
    generator = np.random.default_rng([has_ties, has_words, len(hotwords)])
    model = bigram_model() if has_words else None
    several = 0
    for _ in range(40):
        beam_size = int(generator.choice([1, 2, 3, 8, 50]))
        decoder = BeamSearch(
            beam_size, min(beam_size, 10), alphabet=ALPHABET, language_model=model,
            lm_weight=float(generator.choice([0, 0.5, 1.3])), hotwords=hotwords,
            word_bonus=float(generator.choice([-1, 0, 1.5])), **random_settings(generator),
        )  # fmt: skip
        frames, vocab = int(generator.integers(0, 14)), len(ALPHABET) + 1
        log_probs = random_log_probs(generator, frames, vocab, ties=has_ties)
        found = decode(decoder, log_probs)
        assert found == twin_of(decoder, model, hotwords)(log_probs.tolist())
        several += len(found) > 1
    assert several > 10


def test_long_utterances_equal_the_twin() -> None:
    generator = np.random.default_rng(5)
    for _ in range(3):
        log_probs = random_log_probs(generator, 120, 5)
        decoder = BeamSearch(12, 5, alphabet=ALPHABET, language_model=bigram_model())
        twin = twin_of(decoder, bigram_model())
        assert decode(decoder, log_probs) == twin(log_probs.tolist())


def test_an_alphabet_without_spaces_has_hotwords_anywhere() -> None:
    generator = np.random.default_rng(6)
    hotwords = {"ab": 2.0, "bca": 1.0, "c": 0.5}
    for _ in range(40):
        decoder = BeamSearch(6, 6, alphabet="abc", hotwords=hotwords)
        log_probs = random_log_probs(generator, int(generator.integers(1, 9)), 4)
        twin = twin_of(decoder, None, hotwords)
        assert decode(decoder, log_probs) == twin(log_probs.tolist())


def best_alignment(log_probs: np.ndarray, tokens: tuple[int, ...]) -> float:
    """Log-probability of the best path that collapses to the tokens, by trying all."""
    frames, vocab = log_probs.shape
    return max(
        math.fsum(log_probs[frame, label] for frame, label in enumerate(path))
        for path in itertools.product(range(vocab), repeat=frames)
        if tuple(k for k, _ in itertools.groupby(path) if k) == tokens
    )


def test_frames_are_those_of_the_best_alignment() -> None:
    generator = np.random.default_rng(7)
    for _ in range(30):
        log_probs = random_log_probs(generator, int(generator.integers(1, 6)), 3)
        for hypothesis in decode(BeamSearch(1000, 5, **NO_PRUNING), log_probs):
            path = np.zeros(len(log_probs), np.int64)
            spans = zip(hypothesis.tokens, hypothesis.starts, hypothesis.ends, strict=True)
            for (token, start, end), mean in zip(spans, hypothesis.log_probs, strict=True):
                path[start:end] = token
                assert mean == pytest.approx(log_probs[start:end, token].mean())
            own = log_probs[np.arange(len(path)), path].sum()
            assert own == pytest.approx(best_alignment(log_probs, hypothesis.tokens))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"nbest": 8, "skip_blank": 0.5},
        {"hotwords": {"ab": 2.0}},
        {"language_model": bigram_model(), "nbest": 8},
        {"lexicon": {"x": ["ab"], "y": ["ab"], "z": ["ca"]}, "language_model": bigram_model()},
        {"phrases": ["ab", "ba ab"]},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_frames_may_come_one_after_the_other(settings: dict[str, Any]) -> None:
    decoder = BeamSearch(8, alphabet=ALPHABET, **settings)
    for seed in range(20):
        generator = np.random.default_rng(seed)
        log_probs = random_log_probs(generator, 20, len(ALPHABET) + 1)
        stream, done = decoder.stream(len(ALPHABET) + 1, 20), 0
        while done < 20:
            new = int(generator.integers(1, 6))
            stream.push(log_probs[done : done + new])
            done = min(done + new, 20)
            # What was said so far is what it is of these frames alone, and asking changes nothing.
            assert stream.hypotheses() == decode(decoder, log_probs[:done])


def test_a_label_is_cleared_of_its_frequency_in_the_language_model() -> None:
    model = bigram_model(("a", "ab", "b"))
    prior = label_prior(model, None, ALPHABET)
    shares = {word: math.exp(model.log_probs[1 + model.word_id(word)]) for word in ("a", "ab", "b")}
    counts = np.array(
        [sum(shares.values()), shares["a"] + shares["ab"], shares["b"] + shares["ab"], 0.0]
    )
    counts[3] = counts[1:3].min()  # `c`, which no word has, counts as the rarest
    assert prior == pytest.approx([0.0, *np.log(counts / counts.sum())])
    spoken = label_prior(model, {"a": ("c", "cc"), "x": ("b",)}, ALPHABET)
    assert spoken[4] - spoken[1] == pytest.approx(math.log(1.5))  # three in two ways
    log_probs = random_log_probs(np.random.default_rng(3), 12, len(ALPHABET) + 1)
    weights: dict[str, Any] = {"alphabet": ALPHABET, "language_model": model, **NO_PRUNING}
    cleared = log_probs - 0.7 * prior
    cleared -= np.log(np.exp(cleared).sum(1, keepdims=True))
    expected = decode(BeamSearch(40, 5, **weights), cleared)
    found = decode(BeamSearch(40, 5, **weights, prior_weight=0.7), log_probs)
    assert [each.tokens for each in found] == [each.tokens for each in expected]
    assert [each.score for each in found] == pytest.approx([each.score for each in expected])
    best, span = found[0], slice(found[0].starts[0], found[0].ends[0])
    heard = log_probs[span, best.tokens[0]].mean()  # confidence is of what was heard
    assert best.log_probs[0] == pytest.approx(heard)
    with pytest.raises(ValueError, match=r"prior_weight 0\.5 needs a language model"):
        BeamSearch(alphabet=ALPHABET, prior_weight=0.5)
    with pytest.raises(ValueError, match=r"prior_weight 1\.5, expected 0 to 1"):
        BeamSearch(prior_weight=1.5, **weights)
    with pytest.raises(ValueError, match="none of 6 words can be written"):
        label_prior(model, {}, ALPHABET)
