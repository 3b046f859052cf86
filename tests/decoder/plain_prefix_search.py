"""CTC prefix beam search in plain Python: what the compiled search must equal, ties included.

Prefixes are tuples of tokens, and nothing is kept but dictionaries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from asr.decoder.greedy import Hypothesis
from asr.decoder.ngram import END, UNKNOWN, NgramModel
from asr.text import BLANK_ID

Prefix = tuple[int, ...]
Spans = tuple[tuple[int, int], ...]  # first frame of each token, and the frame after its last one
IMPOSSIBLE = -math.inf


@dataclass(frozen=True)
class Alignment:
    """The best alignment of a prefix to the frames so far that ends in one way.

    Attributes:
        score: its log-probability [nats].
        spans: of the tokens that have ended.
        start: first frame of the last token where that goes on.
    """

    score: float
    spans: Spans = ()
    start: int = 0

    def plus(self, log_prob: float) -> Alignment:
        return Alignment(self.score + log_prob, self.spans, self.start)

    def end(self, frame: int) -> Alignment:
        """The last token ended before this frame."""
        return Alignment(self.score, (*self.spans, (self.start, frame)))


@dataclass
class Entry:
    """A prefix in the beam, its alignments apart by what they end in: a blank, or the last token.

    (Hannun et al., 2014, arXiv:1408.2873, algorithm 1.)
    """

    blank: float = IMPOSSIBLE
    label: float = IMPOSSIBLE
    best_blank: Alignment = Alignment(IMPOSSIBLE)
    best_label: Alignment = Alignment(IMPOSSIBLE)

    @property
    def total(self) -> float:
        return log_sum(self.blank, self.label)

    def best_ended(self, frame: int) -> Alignment:
        """The best alignment, its last token ended before this frame."""
        if self.best_label.score > self.best_blank.score:
            return self.best_label.end(frame)
        return self.best_blank

    def after_blank(self, log_prob: float, frame: int) -> Entry:
        """With a blank in this frame."""
        best = self.best_ended(frame).plus(log_prob)
        return Entry(blank=self.total + log_prob, best_blank=best)

    def after_label(self, log_prob: float, is_repeat: bool, frame: int) -> Entry:
        """With one more token, the same as the last one or another."""
        best = self.best_blank if is_repeat else self.best_ended(frame)
        mass = self.blank if is_repeat else self.total
        return Entry(
            label=mass + log_prob, best_label=Alignment(best.score + log_prob, best.spans, frame)
        )


def log_sum(a: float, b: float) -> float:
    """ln(e^a + e^b)."""
    a, b = max(a, b), min(a, b)
    return a if b == IMPOSSIBLE else a + math.log1p(math.exp(b - a))


@dataclass
class Worth:
    """What is added to a prefix's log-probability for its words and hotwords.

    Args:
        language_model: or None.
        spellings: the tokens of each word that can be written.
        hotwords: the tokens of each phrase, and its weight [nats].
        space: the token between words; -1 if there is none.
        lm_weight, word_bonus, unk_score: see `BeamSearch`.
    """

    language_model: NgramModel | None = None
    spellings: Mapping[Prefix, str] = field(default_factory=dict)
    hotwords: Mapping[Prefix, float] = field(default_factory=dict)
    space: int = -1
    lm_weight: float = 0.0
    word_bonus: float = 0.0
    unk_score: float = 0.0

    def __post_init__(self) -> None:
        # Words of hotwords are no unknown words, even where the language model has them not.
        self._known = {
            *self.spellings,
            *(w for phrase in self.hotwords for w in self._split(phrase)),
        }
        self._begun = {word[:length] for word in self._known for length in range(len(word) + 1)}

    def __call__(self, prefix: Prefix) -> float:
        """Of a prefix that may go on."""
        share = self._hot_gain(prefix) + self._hot_credit(prefix) if self.hotwords else 0.0
        return self._words(prefix) + share

    def at_end(self, prefix: Prefix) -> float:
        """Of a prefix at the end of the utterance, where the last word and the sentence end."""
        closed = (*prefix, self.space) if self.space >= 0 else prefix
        word_share = 0.0
        if self.language_model is not None:
            context, word_share = self._ended_words(closed)
            end_id = self.language_model.word_id(END)
            if self.lm_weight > 0:
                log_prob, _ = self.language_model.advance(context, end_id)
                word_share += self.lm_weight * log_prob
        return word_share + self._hot_gain(closed)

    def _split(self, prefix: Prefix) -> list[Prefix]:
        """The words that have ended, and the one begun."""
        words: list[Prefix] = [()]
        for token in prefix:
            if token != self.space:
                words[-1] += (token,)
            elif words[-1]:
                words.append(())
        return words

    def _words(self, prefix: Prefix) -> float:
        if self.language_model is None:
            return 0.0
        score = self._ended_words(prefix)[1]
        # A word that the vocabulary has not costs from the first letter on that shows it.
        return score if self._split(prefix)[-1] in self._begun else score + self.unk_score

    def _ended_words(self, prefix: Prefix) -> tuple[int, float]:
        """Node of the language model after the words that have ended, and what they are worth."""
        assert self.language_model is not None
        context, score = self.language_model.start, 0.0
        for word in self._split(prefix)[:-1]:
            own = self.word_bonus
            if word not in self._known:
                own += self.unk_score
            text = self.spellings.get(word, UNKNOWN)
            log_prob, context = self.language_model.advance(
                context, self.language_model.word_id(text)
            )
            score += own + self.lm_weight * log_prob if self.lm_weight > 0 else own
        return context, score

    def _heard(self, prefix: Prefix) -> Prefix:
        """With a space in front and none twice in a row."""
        if self.space < 0:
            return prefix
        heard: Prefix = (self.space,)
        for token in prefix:
            if token != self.space or heard[-1] != self.space:
                heard += (token,)
        return heard

    def _patterns(self) -> dict[Prefix, float]:
        edge = (self.space,) if self.space >= 0 else ()
        return {(*edge, *phrase, *edge): weight for phrase, weight in self.hotwords.items()}

    def _hot_gain(self, prefix: Prefix) -> float:
        """Of the phrases that have ended, one occurrence after the other."""
        heard, gained = self._heard(prefix), 0.0
        for end in range(1, len(heard) + 1):
            here = 0.0
            for pattern, weight in sorted(self._patterns().items(), key=lambda one: len(one[0])):
                if heard[:end][-len(pattern) :] == pattern:
                    here = weight + here
            gained += here
        return gained

    def _hot_credit(self, prefix: Prefix) -> float:
        """Of the phrase begun that is worth most: its weight by the share that has matched."""
        heard, credit = self._heard(prefix), 0.0
        lead = 1 if self.space >= 0 else 0
        for pattern, weight in self._patterns().items():
            for length in range(1, len(pattern)):
                if heard[-length:] == pattern[:length]:
                    share = weight * (length - lead) / (len(pattern) - 2 * lead)
                    credit = max(credit, share)
        return credit


@dataclass(frozen=True)
class PlainSearch:
    """The search of one utterance.

    Args:
        beam_size, nbest, max_tokens, min_token_log_prob, beam_threshold: see `BeamSearch`.
        skip_above: log-probability of the blank [nats] above which a frame is a blank and no more.
        worth: of words and hotwords.
    """

    beam_size: int
    nbest: int
    max_tokens: int
    min_token_log_prob: float
    beam_threshold: float
    skip_above: float
    worth: Worth

    def __call__(self, log_probs: Sequence[Sequence[float]]) -> list[Hypothesis]:
        """The best hypotheses for log-probabilities `(T, V)`, best first."""
        beam: dict[Prefix, Entry] = {(): Entry(blank=0.0, best_blank=Alignment(0.0))}
        for frame, row in enumerate(log_probs):
            if row[BLANK_ID] > self.skip_above:
                beam = {
                    prefix: entry.after_blank(row[BLANK_ID], frame)
                    for prefix, entry in beam.items()
                }
            else:
                beam = self._step(beam, row, frame)
        ranked = self._best([
            (entry.total + self.worth.at_end(prefix), place, prefix, entry)
            for place, (prefix, entry) in enumerate(beam.items())
        ], math.inf)  # fmt: skip
        return [
            self._hypothesis(score, prefix, entry, log_probs)
            for score, _, prefix, entry in ranked[: self.nbest]
        ]

    def _step(
        self, beam: dict[Prefix, Entry], row: Sequence[float], frame: int
    ) -> dict[Prefix, Entry]:
        candidates = []
        for place, (prefix, entry) in enumerate(beam.items()):
            after = self._stay(beam, prefix, entry, row, frame)
            score = after.total + self.worth(prefix)
            candidates.append((score, place, prefix, after))
        for place, (prefix, entry) in enumerate(beam.items()):
            for token in self._tokens(row):
                longer = (*prefix, token)
                after = entry.after_label(row[token], prefix[-1:] == (token,), frame)
                if longer in beam or after.label == IMPOSSIBLE:
                    continue
                score = after.label + self.worth(longer)
                order = self.beam_size + place * len(row) + token
                if score > IMPOSSIBLE:
                    candidates.append((score, order, longer, after))
        return {
            prefix: entry for _, _, prefix, entry in self._best(candidates, self.beam_threshold)
        }

    def _tokens(self, row: Sequence[float]) -> list[int]:
        """The labels that may extend a prefix: likely ones, and the frame's likeliest always."""
        least = min(self.min_token_log_prob, max(row))
        likely = [k for k in range(1, len(row)) if row[k] >= least and row[k] > IMPOSSIBLE]
        return sorted(likely, key=lambda k: (-row[k], k))[: self.max_tokens]

    def _stay(
        self,
        beam: dict[Prefix, Entry],
        prefix: Prefix,
        entry: Entry,
        row: Sequence[float],
        frame: int,
    ) -> Entry:
        """The same prefix after this frame: a blank, or its last token, again or anew.

        What comes from the prefix that is shorter by a token counts even where the token is too
        unlikely to make a new prefix.
        """
        after = entry.after_blank(row[BLANK_ID], frame)
        if prefix:
            after.label = entry.label + row[prefix[-1]]
            after.best_label = entry.best_label.plus(row[prefix[-1]])
        if prefix and prefix[:-1] in beam:
            is_repeat = prefix[-2:-1] == prefix[-1:]
            fresh = beam[prefix[:-1]].after_label(row[prefix[-1]], is_repeat, frame)
            after.label = log_sum(after.label, fresh.label)
            if fresh.best_label.score > after.best_label.score:
                after.best_label = fresh.best_label
        return after

    def _best(
        self, candidates: list[tuple[float, int, Prefix, Entry]], threshold: float
    ) -> list[tuple[float, int, Prefix, Entry]]:
        """The best candidates, best first; the lower order wins a tie."""
        ranked = sorted(candidates, key=lambda one: (-one[0], one[1]))[: self.beam_size]
        least = ranked[0][0] - threshold
        good = [one for one in ranked if one[0] >= least and one[0] > IMPOSSIBLE]
        return good or ranked[:1]

    @staticmethod
    def _hypothesis(
        score: float, prefix: Prefix, entry: Entry, log_probs: Sequence[Sequence[float]]
    ) -> Hypothesis:
        spans = entry.best_ended(len(log_probs)).spans
        means = []
        for token, (start, end) in zip(prefix, spans, strict=True):
            total = 0.0
            for frame in range(start, end):
                total += log_probs[frame][token]
            means.append(total / (end - start))
        starts, ends = tuple(start for start, _ in spans), tuple(end for _, end in spans)
        return Hypothesis(prefix, starts, ends, tuple(means), score)
