"""CTC prefix beam search: with a language model, hotwords, a lexicon or phrases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.decoder.greedy import Greedy, Hypothesis
from asr.decoder.hotword import NO_HOTWORDS, build_automaton, build_spoken_automaton
from asr.decoder.label_prior import label_prior
from asr.decoder.ngram import NgramModel
from asr.decoder.ngram_file import load_ngram_model
from asr.decoder.phrases import Grammar
from asr.decoder.prefix_search import NOW, Limits, begin, rank, search, trace, workspace
from asr.decoder.token_trie import NONE
from asr.decoder.word_model import BROKEN_OFF, NO_WORDS, WordModel, build_word_model
from asr.lexicon import describe_missing
from asr.text import CharTokenizer
from asr.threads import num_threads

# [nats a label] Of a phrase that was said, and of other words: docs/results.md, "Phrases".
MAX_SHORTFALL = 2.0
NEVER = BROKEN_OFF / 2  # [nats] of what is no whole phrase


class BeamSearch:
    """Finds the label sequences whose alignments together are likeliest.

    Of every prefix it sums up the alignments that end in a blank and those that end in a label
    (Graves & Jaitly, ICML 2014; Hannun et al., 2014, arXiv:1408.2873). A language model and
    hotwords take part at every frame: score = log P(tokens | audio) + lm_weight * log P(words) +
    word_bonus * words + unk_score * unknown words + weights of the hotwords [nats]. With a
    `prior_weight` the log-probabilities of labels are first cleared of how frequent each is.

    Args:
        beam_size: prefixes that are kept from frame to frame.
        nbest: hypotheses for an utterance, at most.
        min_token_log_prob: a label below makes no new prefix in that frame, the likeliest
            label excepted [nats]; -inf for all.
        max_tokens: nor do others than so many of the likeliest labels.
        beam_threshold: prefixes that are so much worse than the best one are dropped [nats]; inf
            for none.
        skip_blank: a frame whose blank has a higher probability is taken for a blank and no more;
            1 for none.
        alphabet: of the model; needed by the language model and by hotwords.
        language_model: an n-gram model of words, or the path of one. The end of the sentence is
            scored too.
        lm_weight: what its log-probabilities count, at least 0.
        word_bonus: for each word [nats]; the language model alone prefers few words.
        unk_score: for each word that neither the language model nor the hotwords have, beside its
            P(<unk>) [nats, at most 0]. A word costs it from the first letter on that shows it.
        prior_weight: how much of a label's frequency in the language model is taken out of its
            log-probability, 0 to 1; those of a frame are then made to sum to one again.
        hotwords: to words and phrases the nats that each occurrence adds.
        lexicon: the only words that there are, and how each is spelt in characters of the alphabet;
            words may be spelt alike, and one in several ways. None for any words.
        phrases: one of which alone an utterance may be, each as likely as another; None for any
            words.
        max_shortfall: where the best phrase is so much less likely than what the model itself would
            write, none of them is said, and the hypothesis is empty [nats a label, see
            `shortfall`]; inf takes the best that the beam has.

    Attributes:
        has_phrases: whether an utterance is one of some phrases or nothing.
        unwritable: words of the language model that the alphabet cannot write.

    Raises:
        ValueError: a setting that is out of range, or a word that the alphabet cannot write.
        OSError: a language model that cannot be read.
    """

    def __init__(
        self,
        beam_size: int = 50,
        nbest: int = 1,
        min_token_log_prob: float = -10.0,
        max_tokens: int = 40,
        beam_threshold: float = 25.0,
        skip_blank: float = 0.999,
        alphabet: str = "",
        language_model: NgramModel | Path | str | None = None,
        lm_weight: float = 0.5,
        word_bonus: float = 1.0,
        unk_score: float = -5.0,
        prior_weight: float = 0.0,
        hotwords: Mapping[str, float] | None = None,
        lexicon: Mapping[str, Sequence[str]] | None = None,
        phrases: Sequence[str] | None = None,
        max_shortfall: float = MAX_SHORTFALL,
    ) -> None:
        check_beam(beam_size, nbest, max_tokens, beam_threshold, lm_weight)
        _refuse_bad(
            ("min_token_log_prob", min_token_log_prob, min_token_log_prob <= 0, "0 or less"),
            ("skip_blank", skip_blank, 0 < skip_blank <= 1, "a probability above 0, or 1"),
            ("word_bonus", word_bonus, math.isfinite(word_bonus), "nats"),
            ("unk_score", unk_score, -math.inf < unk_score <= 0, "0 or less"),
            ("prior_weight", prior_weight, 0 <= prior_weight <= 1, "0 to 1"),
            ("max_shortfall", max_shortfall, max_shortfall >= 0, "nats a label from 0 up"),
        )
        if not alphabet and (language_model or hotwords or lexicon or phrases):
            raise ValueError("language model, hotwords, lexicon and phrases need the alphabet")
        if phrases is not None:
            if language_model is not None:
                raise ValueError("phrases and a language model, expected one of them")
            lexicon = _spellings_of(phrases, lexicon, alphabet)
        self.beam_size, self.nbest, self.max_tokens = beam_size, nbest, max_tokens
        # Whole numbers would be of another type, here and below, and the search compiled for it.
        self.limits = Limits(float(min_token_log_prob), float(beam_threshold), math.log(skip_blank))
        self.alphabet = alphabet
        self.has_phrases = phrases is not None
        self.max_shortfall = max_shortfall if self.has_phrases else math.inf
        hotwords = hotwords or {}
        if isinstance(language_model, Path | str):
            language_model = load_ngram_model(Path(language_model))
        model: Grammar | NgramModel | None = language_model
        weights = lm_weight if language_model is not None else 0.0, word_bonus, unk_score
        if phrases is not None:
            model, weights = Grammar(phrases), (1.0, 0.0, unk_score)
        self.vocabulary = tuple(lexicon or ())  # by the numbers of the words
        self.words, self.unwritable = _build_words(lexicon, alphabet, model, weights, hotwords)
        self.shift: NDArray[np.float64] | None = None  # (V,), taken from what a frame says [nats]
        if prior_weight:
            if language_model is None:
                raise ValueError(f"prior_weight {prior_weight} needs a language model")
            self.shift = prior_weight * label_prior(language_model, lexicon, alphabet)
        self.hotwords = NO_HOTWORDS
        if hotwords and lexicon is None:
            self.hotwords = build_automaton(hotwords, CharTokenizer(alphabet))
        elif hotwords:
            self.hotwords = build_spoken_automaton(
                hotwords, self.words, self.vocabulary, len(alphabet) + 1
            )

    def __call__(
        self, log_probs: NDArray[np.floating], lengths: NDArray[np.int64]
    ) -> list[list[Hypothesis]]:
        """Decode a batch, on as many threads as `num_threads` says.

        Args:
            log_probs: `(B, T, V)` [nats].
            lengths: `(B,)` int64 [output frames].

        Returns:
            For each utterance its hypotheses, best first, no two of them with the same tokens; with
            a lexicon, with the same words and spellings.

        Raises:
            ValueError: log_probs that are not a number or infinite, or a frame in which no label is
                possible; an alphabet that is not the model's.
        """
        utterances = utterances_of(log_probs, lengths, self.alphabet)
        threads = min(num_threads(), len(utterances))
        if threads < 2:
            return [self._decode(utterance) for utterance in utterances]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self._decode, utterances))

    def stream(self, vocab_size: int, max_frames: int) -> SearchStream:
        """Begin an utterance whose frames come one after the other.

        Args:
            vocab_size: V of the log-probabilities.
            max_frames: of the utterance; memory is taken as they come.
        """
        return SearchStream(self, vocab_size, max_frames)

    def _decode(self, log_probs: NDArray[np.float64]) -> list[Hypothesis]:
        stream = self.stream(log_probs.shape[1], len(log_probs))
        stream.push(log_probs)
        return stream.hypotheses()


class SearchStream:
    """A beam search of one utterance, whose frames come one after the other.

    Args:
        decoder: whose settings it takes.
        vocab_size: V of the log-probabilities.
        max_frames: that may come.
    """

    def __init__(self, decoder: BeamSearch, vocab_size: int, max_frames: int) -> None:
        self._of = decoder
        self._space = workspace(
            max_frames, vocab_size, decoder.words.most_alike, decoder.beam_size,
            decoder.max_tokens, decoder.nbest,
        )  # fmt: skip
        begin(decoder.words, decoder.hotwords, self._space)
        self._blocks, self._num_frames = [np.empty((0, vocab_size))], 0

    def push(self, log_probs: NDArray[np.float64]) -> None:
        """Take the next frames, `(t, V)` float64 [nats], checked by `utterances_of`."""
        of, heard = self._of, log_probs
        if of.shift is not None:
            heard = log_probs - of.shift
            heard -= np.logaddexp.reduce(heard, axis=1, keepdims=True)
        search(heard, self._num_frames, of.limits, of.words, of.hotwords, self._space)
        self._blocks.append(log_probs)
        self._num_frames += len(log_probs)

    def hypotheses(self) -> list[Hypothesis]:
        """Tell what was said, if the utterance ends here, best first; it may go on."""
        of, space = self._of, self._space
        self._blocks = [np.concatenate(self._blocks)]
        (log_probs,) = self._blocks
        num_frames, vocab_size = log_probs.shape
        count = rank(vocab_size, of.words, of.hotwords, space)
        hypotheses = []
        for candidate in space.ranked[: min(count, of.nbest)]:
            tokens, starts, ends, words = np.empty((4, num_frames + 1), np.int64)
            means = np.empty(num_frames)
            length = trace(
                candidate["order"], log_probs, of.words, of.hotwords, space, tokens, starts, ends,
                means, words,
            )  # fmt: skip
            said: list[str] | None = None
            if of.vocabulary:
                said = [of.vocabulary[word] for word in words[: length + 1] if word != NONE]
                if words[length] == NONE:  # the last word is not whole
                    while length and tokens[length - 1] != of.words.space:
                        length -= 1
            hypotheses.append(
                Hypothesis(
                    tokens=tuple(tokens[:length].tolist()),
                    starts=tuple(starts[:length].tolist()),
                    ends=tuple(ends[:length].tolist()),
                    log_probs=tuple(means[:length].tolist()),
                    score=float(candidate["score"]),
                    words=None if said is None else tuple(said),
                )
            )
        if of.max_shortfall < math.inf:
            best = space.beams[space.sizes[NOW]][space.ranked[0]["order"]]["total"]
            behind = shortfall(log_probs, best, len(hypotheses[0].tokens))
            if behind > of.max_shortfall or space.ranked[0]["score"] < NEVER:
                return [Hypothesis((), (), (), (), float(log_probs.max(axis=1).sum()), ())]
        return hypotheses


def shortfall(log_probs: NDArray[np.floating], score: float, num_labels: int) -> float:
    """By how much a text is behind what the model itself would write, for each label [nats].

    A frame would be another measure, but pauses have many of them and say nothing: they would make
    what is wrong in a short sentence small.

    Args:
        log_probs: `(T, V)` of an utterance [nats].
        score: log-probability of the text.
        num_labels: of the text; counted are they, or those of the model's own best path where it
            has more.
    """
    ((own,),) = Greedy()(log_probs[None], np.array([len(log_probs)]))
    return (own.score - score) / max(num_labels, len(own.tokens), 1)


def _build_words(
    lexicon: Mapping[str, Sequence[str]] | None,
    alphabet: str,
    model: NgramModel | Grammar | None,
    weights: tuple[float, float, float],
    hotwords: Mapping[str, float],
) -> tuple[WordModel, list[str]]:
    """The words of a lexicon, else any words and what is known of them by a language model.

    Returns:
        Them, and the words of the language model that the alphabet cannot write.
    """
    if lexicon is not None:
        return build_word_model(lexicon, alphabet, model, *weights, is_closed=True), []
    if not isinstance(model, NgramModel):
        return NO_WORDS, []
    written, unwritable = model.written_in(alphabet)
    words = {word for phrase in hotwords for word in phrase.split()}.union(written)
    spellings = {word: (word,) for word in sorted(words)}
    return build_word_model(spellings, alphabet, model, *weights), unwritable


def _spellings_of(
    phrases: Sequence[str], lexicon: Mapping[str, Sequence[str]] | None, alphabet: str
) -> dict[str, Sequence[str]]:
    """The words of phrases, and how each is spelt.

    Raises:
        ValueError: a word that the alphabet cannot write, or that the lexicon has not.
    """
    words = {word for phrase in phrases for word in phrase.split()}
    if lexicon is None:
        for word in sorted(words):
            CharTokenizer(alphabet).encode(word)
        return {word: (word,) for word in sorted(words)}
    if missing := sorted(words - lexicon.keys()):
        raise ValueError(f"{describe_missing(missing)}, expected its words in phrases")
    return {word: lexicon[word] for word in sorted(words)}


def check_beam(
    beam_size: int, nbest: int, max_tokens: int, beam_threshold: float, lm_weight: float
) -> None:
    """Refuse settings out of range that every beam search has; see `BeamSearch`.

    Raises:
        ValueError: one of them is.
    """
    _refuse_bad(
        ("beam_size", beam_size, beam_size >= 1, "1 or more"),
        ("nbest", nbest, 1 <= nbest <= beam_size, f"1 to beam_size {beam_size}"),
        ("max_tokens", max_tokens, max_tokens >= 1, "1 or more"),
        ("beam_threshold", beam_threshold, beam_threshold > 0, "nats above 0"),
        ("lm_weight", lm_weight, 0 <= lm_weight < math.inf, "0 or more"),
    )


def _refuse_bad(*settings: tuple[str, float, bool, str]) -> None:
    """Refuse the first setting that is not good: its name, value, whether it is, and what is."""
    for name, value, is_good, expected in settings:
        if not is_good:
            raise ValueError(f"{name} {value}, expected {expected}")


def utterances_of(
    log_probs: NDArray[np.floating], lengths: NDArray[np.int64], alphabet: str
) -> list[NDArray[np.float64]]:
    """Take the frames of each utterance out of a batch, without padding, `(T, V)` float64.

    Args:
        log_probs: `(B, T, V)` [nats].
        lengths: `(B,)` int64 [output frames].
        alphabet: that the labels must fit; empty for any.

    Raises:
        ValueError: log_probs that are not a number or infinite, or a frame in which no label is
            possible; an alphabet that is not the model's.
    """
    if alphabet and len(alphabet) + 1 != log_probs.shape[-1]:
        raise ValueError(
            f"log_probs of {log_probs.shape[-1]} labels, expected {len(alphabet) + 1}: the blank "
            "and the decoder's alphabet"
        )
    rows = np.ascontiguousarray(log_probs, np.float64)
    utterances = [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]
    for number, utterance in enumerate(utterances):
        bad = np.isnan(utterance) | (utterance == np.inf)
        if bad.any():
            frame, label = np.argwhere(bad)[0]
            raise ValueError(
                f"log_probs of utterance {number}, frame {frame}, label {label}: "
                f"{utterance[frame, label]}, expected a number below inf"
            )
        dead = np.all(utterance == -np.inf, axis=1)
        if dead.any():
            raise ValueError(
                f"log_probs of utterance {number}, frame {int(dead.argmax())}: -inf for every "
                "label, expected one that is possible"
            )
    return utterances
