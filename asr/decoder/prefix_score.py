"""What a prefix is worth beside its log-probability: words and hotwords, in compiled code."""

from __future__ import annotations

import numpy as np

from asr.compiled import compiled
from asr.decoder.hotword import follow
from asr.decoder.ngram import advance
from asr.decoder.prefix_tree import EMPTY, NONE, PREFIXES
from asr.decoder.token_trie import ROOT, child
from asr.decoder.word_model import NO_WORD

ROUNDING = 1e-6  # [nats], far more than sums in another order differ by


@compiled
def begin(space, words, hotwords):  # type: ignore[no-untyped-def]
    """Make the empty prefix the only one."""
    space.sizes[:] = 0
    space.sizes[PREFIXES] = 1
    empty = space.prefixes[EMPTY]
    empty.parent = empty.token = empty.first_child = empty.sibling = NONE
    empty.place = 0
    empty.spelt = ROOT
    empty.hot = hotwords.start
    empty.is_closed = 0
    empty.context = words.start
    empty.words = empty.gained = 0.0
    empty.extra = hotwords.credits[empty.hot]


@compiled
def worth_with(prefix, token, words, hotwords):  # type: ignore[no-untyped-def]
    """`extra` of the prefix that is longer by a token."""
    word_share = hot_share = 0.0
    if len(words.word_ids) > 0:
        if token != words.space:
            word_share = prefix.words
            if _spelt_with(prefix, token, words) == NONE:
                word_share += words.unk_score
        elif prefix.spelt == ROOT:
            word_share = prefix.words
        else:
            _close(prefix, words)
            word_share = prefix.closed_words
    if len(hotwords.fails) > 1:
        state = _hot_with(prefix, token, hotwords)
        hot_share = _gained_with(prefix, token, state, hotwords) + hotwords.credits[state]
    return word_share + hot_share


@compiled
def most_with(prefix, words, hotwords):  # type: ignore[no-untyped-def]
    """What `worth_with` is at most, whatever the token: words and sentences only cost."""
    most = prefix.words + max(0.0, words.word_bonus) + prefix.gained + hotwords.reach[prefix.hot]
    if prefix.spelt == NONE:
        most += words.unk_score
    return most + ROUNDING


@compiled
def _spelt_with(prefix, token, words):  # type: ignore[no-untyped-def]
    return child(words.trie, prefix.spelt, token) if prefix.spelt != NONE else np.int32(NONE)


@compiled
def _hot_with(prefix, token, hotwords):  # type: ignore[no-untyped-def]
    """The hotwords' state after a token; a second space in a row changes nothing."""
    if token == hotwords.space and (prefix.token == token or prefix.token == NONE):
        return prefix.hot
    return follow(hotwords.trie, hotwords.fails, prefix.hot, token)


@compiled
def _gained_with(prefix, token, state, hotwords):  # type: ignore[no-untyped-def]
    if token == hotwords.space and (prefix.token == token or prefix.token == NONE):
        return prefix.gained
    return prefix.gained + hotwords.gains[state]


@compiled
def _close(prefix, words):  # type: ignore[no-untyped-def]
    """Find out what the words are worth if the word begun ends here; once a prefix."""
    if prefix.is_closed:
        return
    word_id = words.word_ids[prefix.spelt] if prefix.spelt != NONE else np.int32(NO_WORD)
    score = words.word_bonus
    if word_id == NO_WORD:
        word_id = np.int32(words.unknown_id)
        score += words.unk_score
    log_prob, prefix.closed_context = advance(prefix.context, word_id, words.ngrams)
    prefix.closed_words = prefix.words + _weighted(log_prob, score, words)
    prefix.is_closed = 1


@compiled
def _weighted(log_prob, score, words):  # type: ignore[no-untyped-def]
    """Without weight nothing counts, not even what is impossible."""
    return score + words.lm_weight * log_prob if words.lm_weight > 0 else score


@compiled
def longer_by(parent_number, token, space, words, hotwords):  # type: ignore[no-untyped-def]
    """The number of the prefix that is longer by a token; a new one if there was none."""
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
    prefix.is_closed = 0
    prefix.context, prefix.words, prefix.spelt = parent.context, parent.words, ROOT
    prefix.hot, prefix.gained, prefix.extra = parent.hot, parent.gained, 0.0
    if len(words.word_ids) > 0:
        if token != words.space:
            prefix.spelt = _spelt_with(parent, token, words)
        elif parent.spelt != ROOT:
            prefix.context, prefix.words = parent.closed_context, parent.closed_words
    if len(hotwords.fails) > 1:
        prefix.hot = _hot_with(parent, token, hotwords)
        prefix.gained = _gained_with(parent, token, prefix.hot, hotwords)
    prefix.extra = worth_with(parent, token, words, hotwords)
    return number


@compiled
def worth_at_end(prefix, words, hotwords):  # type: ignore[no-untyped-def]
    """`extra` if the utterance ends here: the last word and the sentence end, so do hotwords."""
    word_share, gained = 0.0, prefix.gained
    if len(words.word_ids) > 0:
        context, word_share = prefix.context, prefix.words
        if prefix.spelt != ROOT:
            _close(prefix, words)
            context, word_share = prefix.closed_context, prefix.closed_words
        log_prob, _ = advance(context, words.end_id, words.ngrams)
        word_share = _weighted(log_prob, word_share, words)
    if hotwords.space != NONE and len(hotwords.fails) > 1:
        state = _hot_with(prefix, hotwords.space, hotwords)
        gained = _gained_with(prefix, hotwords.space, state, hotwords)
    return word_share + gained
