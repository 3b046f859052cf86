"""CTC prefix beam search, with a language model of words and with hotwords."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.decoder.frames import utterances_of
from asr.decoder.greedy import Hypothesis
from asr.decoder.hotword import HotwordAutomaton, build_automaton
from asr.decoder.ngram import NgramModel, Ngrams
from asr.decoder.ngram_file import load_ngram_model
from asr.decoder.prefix_search import Limits, search, trace
from asr.decoder.prefix_tree import workspace
from asr.decoder.token_trie import build_trie
from asr.decoder.word_model import (
    WordModel,
    build_word_model,
)
from asr.text import CharTokenizer


class BeamSearch:
    """Finds the label sequences whose alignments together are likeliest.

    Of every prefix it sums up the alignments that end in a blank and those that end in a label
    (Graves & Jaitly, ICML 2014; Hannun et al., 2014, arXiv:1408.2873). A language model and
    hotwords take part at every frame: score = log P(tokens | audio) + lm_weight * log P(words) +
    word_bonus * words + unk_score * unknown words + weights of the hotwords [nats].

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
        hotwords: to words and phrases the nats that each occurrence adds.

    Attributes:
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
        hotwords: Mapping[str, float] | None = None,
    ) -> None:
        for name, value, is_good, expected in (
            ("beam_size", beam_size, beam_size >= 1, "1 or more"),
            ("nbest", nbest, 1 <= nbest <= beam_size, f"1 to beam_size {beam_size}"),
            ("min_token_log_prob", min_token_log_prob, min_token_log_prob <= 0, "0 or less"),
            ("max_tokens", max_tokens, max_tokens >= 1, "1 or more"),
            ("beam_threshold", beam_threshold, beam_threshold > 0, "nats above 0"),
            ("skip_blank", skip_blank, 0 < skip_blank <= 1, "a probability above 0, or 1"),
            ("lm_weight", lm_weight, 0 <= lm_weight < math.inf, "0 or more"),
            ("word_bonus", word_bonus, math.isfinite(word_bonus), "nats"),
            ("unk_score", unk_score, -math.inf < unk_score <= 0, "0 or less"),
        ):
            if not is_good:
                raise ValueError(f"{name} {value}, expected {expected}")
        self.beam_size, self.nbest, self.max_tokens = beam_size, nbest, max_tokens
        self.limits = Limits(
            float(min_token_log_prob),
            float(beam_threshold),
            math.log(skip_blank),
        )
        self.alphabet = alphabet
        if not alphabet and (language_model is not None or hotwords):
            raise ValueError("a language model and hotwords need the model's alphabet")
        self.words, self.hotwords = NO_WORDS, NO_HOTWORDS
        self.unwritable: list[str] = []
        hotwords = hotwords or {}
        if hotwords:
            self.hotwords = build_automaton(hotwords, CharTokenizer(alphabet))
        if language_model is not None:
            if not isinstance(language_model, NgramModel):
                language_model = load_ngram_model(Path(language_model))
            tokenizer = CharTokenizer(alphabet)
            written, self.unwritable = language_model.written_in(alphabet)
            words = {word for phrase in hotwords for word in phrase.split()}.union(written)
            self.words = build_word_model(
                language_model, sorted(words), tokenizer, lm_weight, word_bonus, unk_score
            )

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """Decode a batch, on as many threads as torch uses.

        Args:
            log_probs: `(B, T, V)` [nats].
            lengths: `(B,)` int64 [output frames].

        Returns:
            For each utterance its hypotheses, best first, no two of them with the same tokens.

        Raises:
            ValueError: log_probs that are not a number or infinite, or a frame in which no label is
                possible; an alphabet that is not the model's.
        """
        utterances = utterances_of(log_probs, lengths, self.alphabet)
        threads = min(torch.get_num_threads(), len(utterances))
        if threads < 2:
            return [self._decode(utterance) for utterance in utterances]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self._decode, utterances))

    def _decode(self, log_probs: NDArray[np.float64]) -> list[Hypothesis]:
        num_frames, vocab_size = log_probs.shape
        space = workspace(num_frames, vocab_size, self.beam_size, self.max_tokens)
        final, count = search(log_probs, self.limits, self.words, self.hotwords, space)
        found = []
        for candidate in space.ranked[: min(count, self.nbest)]:
            tokens, starts, ends = np.empty((3, len(log_probs)), np.int64)
            means = np.empty(len(log_probs))
            entry = space.beams[final][candidate["order"]]
            length = trace(entry, log_probs, space, tokens, starts, ends, means)
            found.append(
                Hypothesis(
                    tokens=tuple(tokens[:length].tolist()),
                    starts=tuple(starts[:length].tolist()),
                    ends=tuple(ends[:length].tolist()),
                    log_probs=tuple(means[:length].tolist()),
                    score=float(candidate["score"]),
                )
            )
        return found


def _no_words() -> WordModel:
    """No language model, in the types of one: so there is one compiled search for both."""
    trie, _ = build_trie([])
    real, number = np.empty(0, np.float32), np.empty(0, np.int32)
    ngrams = Ngrams(real, real, number, np.empty(0, np.int64), number)
    return WordModel(trie, number, ngrams, 0, 0, 0, 0.0, 0.0, 0.0, -1)


def _no_hotwords() -> HotwordAutomaton:
    trie, _ = build_trie([])
    return HotwordAutomaton(
        trie, np.zeros(1, np.int32), np.zeros(1), np.zeros(1), np.zeros(1), 0, -1
    )


NO_WORDS, NO_HOTWORDS = _no_words(), _no_hotwords()
