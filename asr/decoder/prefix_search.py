"""The prefix search of CTC, frame by frame: its arrays, and code that Numba compiles.

`BeamSearch` calls `begin`, then `search` as often as frames come, `rank` and `trace` to read what
was found; after that the search may go on.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from asr.compiled import compiled, inlined
from asr.decoder.hotword import hot_with
from asr.decoder.token_trie import NONE
from asr.decoder.word_model import (
    num_alike,
    root_of,
    spell,
    word_ended,
    words_at_end,
    words_with,
)
from asr.text import BLANK_ID

# --- the arrays of a search --------------------------------------------------------------------

EMPTY = 0  # the empty prefix
PREFIXES, SPANS, NOW, COUNT = range(4)  # places in `sizes`

INT, LONG, REAL = np.int32, np.int64, np.float64

# A prefix: tokens in a row, and what is known of them whatever the frames say.
PREFIX = np.dtype(
    [
        ("parent", INT),
        ("token", INT),  # the last one: a label, or another way to end a word
        ("first_child", INT),
        ("sibling", INT),  # the next child of the same parent
        ("place", INT),  # in the beam, or NONE
        ("spelt", INT),  # node of the word begun in the vocabulary's trie, NONE if no word does so
        ("hot", INT),  # state of the hotwords
        ("closed", INT),  # which of the words spelt alike the two `closed_` fields are of, or NONE
        ("context", LONG),  # node of the language model after the words ended
        ("closed_context", LONG),  # the same, if the word begun ended here
        ("words", REAL),  # what the words ended are worth [nats]
        ("closed_words", REAL),
        ("gained", REAL),  # what the hotwords ended are worth [nats]
        ("extra", REAL),  # all that is added to the log-probability [nats]
    ],
    align=True,
)

# A prefix in the beam: log-probabilities [nats] of all its alignments to the frames so far, and
# the best alignment that ends in a blank or in the last token.
ENTRY = np.dtype(
    [
        ("prefix", INT),
        ("spans", INT),  # of all tokens, on the best alignment that ends in a blank
        ("before", INT),  # spans of all but the last token, on the best one that ends in the token
        ("start", INT),  # frame at which the last token began on that one
        ("ended", INT),  # its spans, were it to end now; NONE while nobody asked
        ("blank", REAL),  # sum over the alignments that end in a blank
        ("label", REAL),  # sum over those that end in the last token
        ("total", REAL),  # both
        ("best_blank", REAL),  # the best one that ends in a blank
        ("best_label", REAL),  # the best one that ends in the last token
    ],
    align=True,
)

# Where a token lies, and the span of the token before it.
SPAN = np.dtype([("start", INT), ("end", INT), ("before", INT)], align=True)

CANDIDATE = np.dtype([("score", REAL), ("order", LONG)], align=True)


class Limits(NamedTuple):
    """What the search leaves out, see `BeamSearch`."""

    min_token_log_prob: float
    beam_threshold: float
    skip_above: float  # log-probability of the blank


class Workspace(NamedTuple):
    """Memory for one utterance; what is not touched costs nothing.

    Attributes:
        prefixes: `(1 + T * beam,)` PREFIX, a tree.
        spans: `((T + 1) * (beam + nbest),)` SPAN, chains.
        sizes: `(4,)` int64: how many there are of both, which of the beams is the last, and how
            many prefixes it has.
        beams: `(2, beam)` ENTRY, before and after a frame.
        stays: `(beam,)` ENTRY, the prefixes of the beam as they would be after the frame.
        is_inside: `(beam, V + alike - 1)` bool, whether a prefix longer by that token is in the
            beam too. Tokens are the labels, and behind them the further ways to end a word of which
            several are spelt alike.
        labels: `(max_tokens,)` int64, the labels that may extend a prefix in this frame.
        heap: `(beam,)` CANDIDATE, the best so far, the worst of them first.
        ranked: `(beam,)` CANDIDATE, the best first.
    """

    prefixes: np.ndarray
    spans: np.ndarray
    sizes: np.ndarray
    beams: np.ndarray
    stays: np.ndarray
    is_inside: np.ndarray
    labels: np.ndarray
    heap: np.ndarray
    ranked: np.ndarray


def workspace(
    num_frames: int, vocab_size: int, alike: int, beam_size: int, max_tokens: int, nbest: int
) -> Workspace:
    """Take memory for an utterance, nothing of it set but the sizes.

    It lasts for so many frames, and for `trace` of so many hypotheses after each.
    """
    return Workspace(
        prefixes=np.empty(1 + num_frames * beam_size, PREFIX),
        spans=np.empty((num_frames + 1) * (beam_size + nbest), SPAN),
        sizes=np.zeros(4, LONG),
        beams=np.empty((2, beam_size), ENTRY),
        stays=np.empty(beam_size, ENTRY),
        is_inside=np.zeros((beam_size, vocab_size + alike - 1), np.bool_),
        labels=np.empty(max(1, min(max_tokens, vocab_size - 1)), LONG),
        heap=np.empty(beam_size, CANDIDATE),
        ranked=np.empty(beam_size, CANDIDATE),
    )


# --- the search, frame by frame ----------------------------------------------------------------


@compiled
def begin(words, hotwords, space):  # type: ignore[no-untyped-def]
    """Begin an utterance: the empty prefix is the only one, and the only one in the beam."""
    space.sizes[PREFIXES], space.sizes[SPANS] = 1, 0
    space.sizes[NOW], space.sizes[COUNT] = 0, 1
    empty = space.prefixes[EMPTY]
    empty.parent = empty.token = empty.first_child = empty.sibling = NONE
    empty.place = 0
    empty.hot = hotwords.start
    empty.closed = NONE
    empty.context = words.start
    empty.spelt = root_of(empty.context, words)
    empty.words = empty.gained = 0.0
    empty.extra = hotwords.credits[empty.hot]
    first = space.beams[0, 0]
    first.prefix, first.ended, first.start = EMPTY, NONE, 0
    first.spans = first.before = NONE
    first.blank = first.total = first.best_blank = 0.0
    first.label = first.best_label = -np.inf


@compiled
def search(log_probs, first, limits, words, hotwords, space):  # type: ignore[no-untyped-def]
    """Search through the next frames of an utterance; the beam after them is in `space.beams`.

    Args:
        log_probs: `(T, V)` float64, no NaN.
        first: frames that were searched before.
        limits: what to leave out.
        words: a `WordModel`; without nodes if there is no language model.
        hotwords: a `HotwordAutomaton`; of one state if there are no hotwords.
        space: a `Workspace`.
    """
    now, count = space.sizes[NOW], space.sizes[COUNT]
    for t in range(len(log_probs)):
        beam, row, frame = space.beams[now], log_probs[t], first + t
        if row[BLANK_ID] > limits.skip_above:
            for place in range(count):
                entry = beam[place]
                _add_blank(entry, entry, row[BLANK_ID], frame, space)
                entry.total, entry.label, entry.best_label = entry.blank, -np.inf, -np.inf
                entry.ended = NONE
            continue
        _stay(beam, count, row, frame, words.space, space)
        size = _offer(beam, count, row, limits, words, hotwords, space)
        size = _rank(size, limits.beam_threshold, space)
        _take(beam, count, space.beams[1 - now], size, row, frame, words, hotwords, space)
        now, count = 1 - now, size
    space.sizes[NOW], space.sizes[COUNT] = now, count


@compiled
def rank(num_labels, words, hotwords, space):  # type: ignore[no-untyped-def]
    """Rank the beam as if the utterance ended here, in `space.ranked`.

    Returns:
        How many hypotheses there are.
    """
    beam, size = space.beams[space.sizes[NOW]], LONG(0)
    for place in range(space.sizes[COUNT]):
        prefix = space.prefixes[beam[place].prefix]
        worth, _ = _worth_at_end(prefix, num_labels, words, hotwords)
        size = _offer_one(space.heap, size, beam[place].total + worth, place)
    return _rank(size, np.inf, space)


@compiled
def _stay(beam, count, row, frame, word_end, space):  # type: ignore[no-untyped-def]
    """Score the prefixes of the beam after this frame, to `space.stays`.

    Such a prefix has a blank more, or its last token goes on, or the last token is new: then it is
    another prefix of the beam that became longer.
    """
    for place in range(count):
        entry, after = beam[place], space.stays[place]
        prefix = space.prefixes[entry.prefix]
        after.prefix, after.ended = entry.prefix, NONE
        _add_blank(entry, after, row[BLANK_ID], frame, space)
        after.label = after.best_label = -np.inf
        after.start, after.before = entry.start, entry.before
        if entry.prefix != EMPTY:
            label = label_of(prefix.token, len(row), word_end)
            log_prob = row[label]
            after.label = entry.label + log_prob
            after.best_label = entry.best_label + log_prob
            parent = space.prefixes[prefix.parent]
            if parent.place != NONE:
                space.is_inside[parent.place, prefix.token] = True
                added, best, before = _extended(
                    beam[parent.place],
                    label_of(parent.token, len(row), word_end) == label,
                    log_prob,
                    frame,
                    space,
                )
                after.label = _log_sum(after.label, added)
                if best > after.best_label:
                    after.best_label, after.start, after.before = best, frame, before
        after.total = _log_sum(after.blank, after.label)


@compiled
def _offer(beam, count, row, limits, words, hotwords, space):  # type: ignore[no-untyped-def]
    """Offer `space.heap` all that could be in the next beam; returns how many are kept.

    The order of candidates, which decides between equal scores: those that stay, then the longer
    ones by the place of what they are longer than, then by token.
    """
    heap, size, width = space.heap, LONG(0), len(space.heap)
    stride = space.is_inside.shape[1]
    is_fused = len(words.entries) > 0 or len(hotwords.fails) > 1
    for place in range(count):
        stay = space.stays[place]
        score = stay.total + space.prefixes[stay.prefix].extra
        size = _offer_one(heap, size, score, place)
    num_labels = _choose_labels(row, limits.min_token_log_prob, space.labels)
    for place in range(count):
        entry = beam[place]
        prefix = space.prefixes[entry.prefix]
        within, behind = _most_with(prefix, words, hotwords)
        last = label_of(prefix.token, len(row), words.space)
        for j in range(num_labels):
            label = space.labels[j]
            most = entry.total + row[label] + (behind if label == words.space else within)
            if size == width and most < heap[0].score:
                if entry.total + row[label] + behind < heap[0].score:
                    break  # and so would be all labels that follow
                continue
            log_prob = (entry.blank if label == last else entry.total) + row[label]
            ways = num_alike(prefix, words) if label == words.space else 1
            for which in range(ways):
                token = label if which == 0 else len(row) + which - 1
                score = log_prob
                if space.is_inside[place, token] or score == -np.inf:
                    continue
                if is_fused:
                    score += _worth_with(prefix, token, len(row), words, hotwords)
                    if score == -np.inf:
                        continue
                size = _offer_one(heap, size, score, width + place * stride + token)
    return size


@compiled
def _take(beam, count, following, size, row, frame, words, hotwords, space):  # type: ignore[no-untyped-def]
    """Make the next beam of the best candidates."""
    width = len(space.heap)
    for place in range(count):
        space.prefixes[beam[place].prefix].place = NONE
    space.is_inside[:count] = False
    for place in range(size):
        order, entry = space.ranked[place].order, following[place]
        if order < width:
            following[place] = space.stays[order]
            continue
        source = beam[(order - width) // space.is_inside.shape[1]]
        token = (order - width) % space.is_inside.shape[1]
        label = label_of(token, len(row), words.space)
        last = label_of(space.prefixes[source.prefix].token, len(row), words.space)
        entry.label, entry.best_label, entry.before = _extended(
            source, last == label, row[label], frame, space
        )
        entry.prefix = _longer_by(source.prefix, token, len(row), words, hotwords, space)
        entry.start, entry.ended, entry.spans = frame, NONE, NONE
        entry.blank = entry.best_blank = -np.inf
        entry.total = entry.label
    for place in range(size):
        space.prefixes[following[place].prefix].place = place


@inlined
def which_of(token, num_labels):  # type: ignore[no-untyped-def]
    """Which of the words spelt alike a token ends, 0 for the first of them."""
    return 0 if token < num_labels else token - num_labels + 1


@inlined
def label_of(token, num_labels, word_end):  # type: ignore[no-untyped-def]
    """The label that a token is written by."""
    return token if token < num_labels else word_end


@compiled
def _choose_labels(row, min_log_prob, labels):  # type: ignore[no-untyped-def]
    """Choose the labels that may extend a prefix, the likeliest first, equal ones by id."""
    top, count = row[BLANK_ID], 0
    for label in range(1, len(row)):
        top = max(top, row[label])
    least = min(min_log_prob, top)
    for label in range(1, len(row)):
        if row[label] < least or row[label] == -np.inf:
            continue
        place = count
        if count == len(labels):
            if row[label] <= row[labels[count - 1]]:
                continue
            place -= 1
        else:
            count += 1
        while place > 0 and row[labels[place - 1]] < row[label]:
            labels[place] = labels[place - 1]
            place -= 1
        labels[place] = label
    return count


@compiled
def trace(place, log_probs, words, hotwords, space, tokens, starts, ends, means, said):  # type: ignore[no-untyped-def]
    """Write down a prefix of the last beam; returns how many labels it has.

    Args:
        place: in the beam, of `space.ranked`.
        log_probs: `(T, V)` of all frames so far.
        words: of the search, as the next two.
        hotwords: a `HotwordAutomaton`.
        space: a `Workspace`.
        tokens: `(T + 1,)` int64, the labels, filled from the front, as the next four.
        starts: `(T,)` int64, first frame of each token.
        ends: `(T,)` int64, frame after its last one.
        means: `(T,)` float64, mean log-probability of its frames [nats].
        said: `(T + 1,)` int64, the number of the word that ends before each label, and behind the
            last one; NONE where none does, or none is known.
    """
    num_labels = log_probs.shape[1]
    entry = space.beams[space.sizes[NOW], place]
    is_label = entry.best_label > entry.best_blank
    span = _ended(entry, len(log_probs), space) if is_label else entry.spans
    length, number = 0, entry.prefix
    while number != EMPTY:
        length, number = length + 1, space.prefixes[number].parent
    number = entry.prefix
    _, which = _worth_at_end(space.prefixes[number], num_labels, words, hotwords)
    said[length] = word_ended(space.prefixes[number], which, words)
    for place in range(length - 1, -1, -1):
        token = label_of(space.prefixes[number].token, num_labels, words.space)
        parent = space.prefixes[space.prefixes[number].parent]
        said[place] = NONE
        if token == words.space:
            which = which_of(space.prefixes[number].token, num_labels)
            said[place] = word_ended(parent, which, words)
        found = space.spans[span]
        total = 0.0
        for frame in range(found.start, found.end):
            total += log_probs[frame, token]
        tokens[place], starts[place], ends[place] = token, found.start, found.end
        means[place] = total / (found.end - found.start)
        number, span = space.prefixes[number].parent, found.before
    return length


# --- alignments --------------------------------------------------------------------------------


@compiled
def _log_sum(a, b):  # type: ignore[no-untyped-def]
    """Compute ln(e^a + e^b)."""
    if a < b:
        a, b = b, a
    return a if b == -np.inf else a + math.log1p(math.exp(b - a))


@compiled
def _ended(entry, frame, space):  # type: ignore[no-untyped-def]
    """Find the spans of an entry whose last token lasts until before this frame."""
    if entry.ended == NONE:
        number = space.sizes[SPANS]
        space.sizes[SPANS] += 1
        span = space.spans[number]
        span.start, span.end, span.before = entry.start, frame, entry.before
        entry.ended = number
    return entry.ended


@compiled
def _add_blank(entry, after, log_prob, frame, space):  # type: ignore[no-untyped-def]
    """Give `after` what it gets from a blank behind the entry."""
    after.blank = entry.total + log_prob
    if entry.best_label > entry.best_blank:
        after.spans, best = _ended(entry, frame, space), entry.best_label
    else:
        after.spans, best = entry.spans, entry.best_blank
    after.best_blank = best + log_prob


@compiled
def _extended(entry, is_repeat, log_prob, frame, space):  # type: ignore[no-untyped-def]
    """Compute what a prefix longer by a token gets: its sum, its best alignment, the spans of that.

    The same token again is another one only behind a blank.
    """
    if is_repeat:
        return entry.blank + log_prob, entry.best_blank + log_prob, entry.spans
    if entry.best_label > entry.best_blank:
        before = _ended(entry, frame, space)
        return entry.total + log_prob, entry.best_label + log_prob, before
    return entry.total + log_prob, entry.best_blank + log_prob, entry.spans


# --- the best candidates: a heap whose first is the worst --------------------------------------


@compiled
def _offer_one(heap, size, score, order):  # type: ignore[no-untyped-def]
    """Keep a candidate if it is among the best; returns how many there are."""
    if size < len(heap):
        heap[size].score, heap[size].order = score, order
        if size + 1 == len(heap):
            for place in range(len(heap) // 2 - 1, -1, -1):
                _sink(heap, len(heap), place)
        return size + 1
    worst = heap[0]
    if score > worst.score or (score == worst.score and order < worst.order):
        worst.score, worst.order = score, order
        _sink(heap, size, LONG(0))
    return size


@compiled
def _sink(heap, size, place):  # type: ignore[no-untyped-def]
    """Let a candidate sink until none below it is worse."""
    score, order = heap[place].score, heap[place].order
    while True:
        below = 2 * place + 1
        if below >= size:
            break
        if below + 1 < size:
            left, right = heap[below], heap[below + 1]
            if right.score < left.score or (right.score == left.score and right.order > left.order):
                below += 1
        found = heap[below]
        if found.score > score or (found.score == score and found.order < order):
            break
        heap[place] = found
        place = below
    heap[place].score, heap[place].order = score, order


@compiled
def _rank(size, threshold, space):  # type: ignore[no-untyped-def]
    """Sort the candidates to `space.ranked`; returns how many are within the threshold.

    At least the best one is, even if it is impossible.
    """
    heap = space.heap
    if size < len(heap):
        for place in range(size // 2 - 1, -1, -1):
            _sink(heap, size, place)
    for left in range(size - 1, -1, -1):
        space.ranked[left] = heap[0]
        heap[0] = heap[left]
        _sink(heap, left, LONG(0))
    least = space.ranked[0].score - threshold
    while size > 1 and (
        space.ranked[size - 1].score < least or space.ranked[size - 1].score == -np.inf
    ):
        size -= 1
    return size


# --- prefixes, and what they are worth for their words and hotwords ----------------------------

ROUNDING = 1e-6  # [nats], far more than sums in another order differ by


@compiled
def _longer_by(parent_number, token, num_labels, words, hotwords, space):  # type: ignore[no-untyped-def]
    """Find the number of the prefix that is longer by a token; a new one if there was none."""
    parent = space.prefixes[parent_number]
    number = parent.first_child
    while number != NONE and space.prefixes[number].token != token:
        number = space.prefixes[number].sibling
    if number != NONE:
        return number
    number = np.int32(space.sizes[PREFIXES])
    space.sizes[PREFIXES] += 1
    prefix = space.prefixes[number]
    prefix.parent, prefix.token = parent_number, token
    prefix.first_child, prefix.sibling = NONE, parent.first_child
    parent.first_child = number
    label, which = label_of(token, num_labels, words.space), which_of(token, num_labels)
    prefix.extra = _worth_with(parent, token, num_labels, words, hotwords)
    spell(prefix, parent, label, words)
    prefix.hot, prefix.gained = hot_with(parent, label, which, num_labels, hotwords)
    return number


@compiled
def _most_with(prefix, words, hotwords):  # type: ignore[no-untyped-def]
    """Bound `_worth_with` of labels within a word, and of its end: words only cost.

    The second bound is never below the first.
    """
    most = prefix.words + prefix.gained + hotwords.reach[prefix.hot] + ROUNDING
    if prefix.spelt == NONE:
        most += words.unk_score
    ahead = words.ahead[prefix.spelt] if prefix.spelt != NONE else 0.0
    return most + ahead, most + max(0.0, words.word_bonus)


@compiled
def _worth_with(prefix, token, num_labels, words, hotwords):  # type: ignore[no-untyped-def]
    """Compute `extra` of the prefix that is longer by a token."""
    label, which = label_of(token, num_labels, words.space), which_of(token, num_labels)
    worth = words_with(prefix, label, which, words)
    if worth == -np.inf:
        return worth
    state, gained = hot_with(prefix, label, which, num_labels, hotwords)
    return worth + (gained + hotwords.credits[state])


@compiled
def _worth_at_end(prefix, num_labels, words, hotwords):  # type: ignore[no-untyped-def]
    """Compute `extra` if the utterance ends here: last word, sentence and hotwords end, too.

    Returns:
        [nats], and which of the words that are spelt alike the last one is.
    """
    most, best = -np.inf, 0
    for which in range(num_alike(prefix, words)):
        worth, gained = words_at_end(prefix, which, words), prefix.gained
        if hotwords.space != NONE:
            _, gained = hot_with(prefix, hotwords.space, which, num_labels, hotwords)
        if worth + gained > most:
            most, best = worth + gained, which
    return most, best
