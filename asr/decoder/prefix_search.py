"""The frames of a CTC prefix beam search, compiled; its twin is in `prefix_search_reference`."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from asr.compiled import compiled
from asr.decoder.greedy import BLANK
from asr.decoder.prefix_score import begin, longer_by, most_with, worth_at_end, worth_with
from asr.decoder.prefix_tree import EMPTY, NONE, SPANS


class Limits(NamedTuple):
    """What the search leaves out, see `BeamSearch`."""

    min_token_log_prob: float
    beam_threshold: float
    skip_above: float  # log-probability of the blank


@compiled
def search(log_probs, limits, words, hotwords, space):  # type: ignore[no-untyped-def]
    """Search an utterance; the final beam is in `space.beams`, its ranking in `space.ranked`.

    Args:
        log_probs: `(T, V)` float64, no NaN.
        limits: what to leave out.
        words: a `WordModel`; without nodes if there is no language model.
        hotwords: a `HotwordAutomaton`; of one state if there are no hotwords.
        space: a `Workspace`.

    Returns:
        Which of the two beams is the final one, and how many hypotheses it has.
    """
    begin(space, words, hotwords)
    first = space.beams[0, 0]
    first.prefix, first.ended, first.start = EMPTY, NONE, 0
    first.spans = first.before = NONE
    first.blank = first.total = first.best_blank = 0.0
    first.label = first.best_label = -np.inf
    now, count = 0, 1
    for frame in range(len(log_probs)):
        row = log_probs[frame]
        if row[BLANK] > limits.skip_above:
            _only_blank(space.beams[now], count, row[BLANK], frame, space)
            continue
        num_tokens = _choose_tokens(row, limits, space.tokens)
        _stay(space.beams[now], count, row, frame, space)
        size = _offer(space.beams[now], count, row, num_tokens, words, hotwords, space)
        size = _rank(size, limits, space)
        _take(
            space.beams[now], count, space.beams[1 - now], size, row, frame, space, words, hotwords
        )
        now, count = 1 - now, size
    return now, _finish(space.beams[now], count, words, hotwords, space)


@compiled
def _log_sum(a, b):  # type: ignore[no-untyped-def]
    """ln(e^a + e^b)."""
    if a < b:
        a, b = b, a
    return a if b == -np.inf else a + math.log1p(math.exp(b - a))


@compiled
def _choose_tokens(row, limits, tokens):  # type: ignore[no-untyped-def]
    """The labels that may extend a prefix, the likeliest first, lower ids before equal ones."""
    top, count = row[BLANK], 0
    for label in range(1, len(row)):
        top = max(top, row[label])
    least = min(limits.min_token_log_prob, top)
    for label in range(1, len(row)):
        if row[label] < least or row[label] == -np.inf:
            continue
        place = count
        if count == len(tokens):
            if row[label] <= row[tokens[count - 1]]:
                continue
            place -= 1
        else:
            count += 1
        while place > 0 and row[tokens[place - 1]] < row[label]:
            tokens[place] = tokens[place - 1]
            place -= 1
        tokens[place] = label
    return count


@compiled
def _ended(entry, frame, space):  # type: ignore[no-untyped-def]
    """The spans of an entry whose last token lasts until before this frame."""
    if entry.ended == NONE:
        number = space.sizes[SPANS]
        space.sizes[SPANS] += 1
        span = space.spans[number]
        span.start, span.end, span.before = entry.start, frame, entry.before
        entry.ended = number
    return entry.ended


@compiled
def _add_blank(entry, after, log_prob, frame, space):  # type: ignore[no-untyped-def]
    """What `after` gets from a blank behind the entry."""
    after.blank = entry.total + log_prob
    if entry.best_label > entry.best_blank:
        after.spans, best = _ended(entry, frame, space), entry.best_label
    else:
        after.spans, best = entry.spans, entry.best_blank
    after.best_blank = best + log_prob


@compiled
def _only_blank(beam, count, log_prob, frame, space):  # type: ignore[no-untyped-def]
    for place in range(count):
        entry = beam[place]
        _add_blank(entry, entry, log_prob, frame, space)
        entry.total = entry.blank
        entry.label = entry.best_label = -np.inf
        entry.ended = NONE


@compiled
def _extended(entry, is_repeat, log_prob, frame, space):  # type: ignore[no-untyped-def]
    """What a prefix that is longer by a token gets: its sum, its best alignment and that's spans.

    The same token again is another one only behind a blank.
    """
    if is_repeat:
        return entry.blank + log_prob, entry.best_blank + log_prob, entry.spans
    if entry.best_label > entry.best_blank:
        before = _ended(entry, frame, space)
        return entry.total + log_prob, entry.best_label + log_prob, before
    return entry.total + log_prob, entry.best_blank + log_prob, entry.spans


@compiled
def _stay(beam, count, row, frame, space):  # type: ignore[no-untyped-def]
    """The prefixes of the beam after this frame, to `space.stays`."""
    for place in range(count):
        entry, after = beam[place], space.stays[place]
        prefix = space.prefixes[entry.prefix]
        after.prefix, after.ended = entry.prefix, NONE
        _add_blank(entry, after, row[BLANK], frame, space)
        after.label = after.best_label = -np.inf
        after.start, after.before = entry.start, entry.before
        if entry.prefix != EMPTY:
            log_prob = row[prefix.token]
            after.label = entry.label + log_prob
            after.best_label = entry.best_label + log_prob
            parent = space.prefixes[prefix.parent]
            if parent.place != NONE:
                space.is_inside[parent.place, prefix.token] = True
                added, best, before = _extended(
                    beam[parent.place], parent.token == prefix.token, log_prob, frame, space
                )
                after.label = _log_sum(after.label, added)
                if best > after.best_label:
                    after.best_label, after.start, after.before = best, frame, before
        after.total = _log_sum(after.blank, after.label)


@compiled
def _is_worse(one, other):  # type: ignore[no-untyped-def]
    return one.score < other.score or (one.score == other.score and one.order > other.order)


@compiled
def _sink(heap, size, place):  # type: ignore[no-untyped-def]
    """Let a candidate sink until none below it is worse."""
    score, order = heap[place].score, heap[place].order
    while True:
        below = 2 * place + 1
        if below >= size:
            break
        if below + 1 < size and _is_worse(heap[below + 1], heap[below]):
            below += 1
        found = heap[below]
        if found.score > score or (found.score == score and found.order < order):
            break
        heap[place] = found
        place = below
    heap[place].score, heap[place].order = score, order


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
        _sink(heap, size, 0)
    return size


@compiled
def _offer(beam, count, row, num_tokens, words, hotwords, space):  # type: ignore[no-untyped-def]
    """Every prefix that could be in the next beam; returns how many candidates are kept.

    The order of candidates, which decides between equal scores: those that stay, then the longer
    ones by the place of what they are longer than, then by token.
    """
    heap, size, width = space.heap, 0, len(space.heap)
    is_fused = len(words.word_ids) > 0 or len(hotwords.fails) > 1
    for place in range(count):
        stay = space.stays[place]
        score = stay.total + space.prefixes[stay.prefix].extra
        size = _offer_one(heap, size, score, place)
    for place in range(count):
        entry = beam[place]
        prefix = space.prefixes[entry.prefix]
        most = entry.total + most_with(prefix, words, hotwords)
        for j in range(num_tokens):
            token = space.tokens[j]
            if size == width and most + row[token] < heap[0].score:
                break  # and so would be all tokens that follow
            score = entry.total + row[token]
            if token == prefix.token:
                score = entry.blank + row[token]
            if space.is_inside[place, token] or score == -np.inf:
                continue
            if is_fused:
                score += worth_with(prefix, token, words, hotwords)
                if score == -np.inf:
                    continue
            size = _offer_one(heap, size, score, width + place * len(row) + token)
    return size


@compiled
def _rank(size, limits, space):  # type: ignore[no-untyped-def]
    """The candidates in order, to `space.ranked`; returns how many are within the threshold."""
    heap = space.heap
    if size < len(heap):
        for place in range(size // 2 - 1, -1, -1):
            _sink(heap, size, place)
    for left in range(size - 1, -1, -1):
        space.ranked[left] = heap[0]
        heap[0] = heap[left]
        _sink(heap, left, 0)
    least = space.ranked[0].score - limits.beam_threshold
    while size > 1 and (
        space.ranked[size - 1].score < least or space.ranked[size - 1].score == -np.inf
    ):
        size -= 1
    return size


@compiled
def _take(beam, count, following, size, row, frame, space, words, hotwords):  # type: ignore[no-untyped-def]
    """Make the next beam of the best candidates."""
    width = len(space.heap)
    for place in range(count):
        prefix = space.prefixes[beam[place].prefix]
        prefix.place = NONE
    space.is_inside[:count] = False
    for place in range(size):
        order, entry = space.ranked[place].order, following[place]
        if order < width:
            following[place] = space.stays[order]
            continue
        source = beam[(order - width) // len(row)]
        token = (order - width) % len(row)
        is_repeat = space.prefixes[source.prefix].token == token
        entry.label, entry.best_label, entry.before = _extended(
            source, is_repeat, row[token], frame, space
        )
        entry.prefix = longer_by(source.prefix, token, space, words, hotwords)
        entry.start, entry.ended, entry.spans = frame, NONE, NONE
        entry.blank = entry.best_blank = -np.inf
        entry.total = entry.label
    for place in range(size):
        space.prefixes[following[place].prefix].place = place


@compiled
def _finish(beam, count, words, hotwords, space):  # type: ignore[no-untyped-def]
    """Rank the final beam; returns how many hypotheses are possible, or 1."""
    size = 0
    for place in range(count):
        prefix = space.prefixes[beam[place].prefix]
        score = beam[place].total + worth_at_end(prefix, words, hotwords)
        size = _offer_one(space.heap, size, score, place)
    return _rank(size, Limits(0.0, np.inf, 0.0), space)


@compiled
def trace(entry, log_probs, space, tokens, starts, ends, means):  # type: ignore[no-untyped-def]
    """Write down an entry of the final beam; returns how many tokens it has.

    Args:
        entry: ENTRY.
        log_probs: `(T, V)`.
        space: of the search.
        tokens, starts, ends, means: `(T,)`, filled from the front.
    """
    is_label = entry.best_label > entry.best_blank
    span = _ended(entry, len(log_probs), space) if is_label else entry.spans
    length, number = 0, entry.prefix
    while number != EMPTY:
        length, number = length + 1, space.prefixes[number].parent
    number = entry.prefix
    for place in range(length - 1, -1, -1):
        token = space.prefixes[number].token
        found = space.spans[span]
        total = 0.0
        for frame in range(found.start, found.end):
            total += log_probs[frame, token]
        tokens[place], starts[place], ends[place] = token, found.start, found.end
        means[place] = total / (found.end - found.start)
        number, span = space.prefixes[number].parent, found.before
    return length
