"""The arrays of a beam search: prefixes as a tree, alignments as chains, all of one utterance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NONE = -1
EMPTY = 0  # the empty prefix
PREFIXES, SPANS = 0, 1  # places in `sizes`

INT, LONG, REAL = np.int32, np.int64, np.float64

# A prefix: tokens in a row, and what is known of them whatever the frames say.
PREFIX = np.dtype(
    [
        ("parent", INT),
        ("token", INT),  # the last one
        ("first_child", INT),
        ("sibling", INT),  # the next child of the same parent
        ("place", INT),  # in the beam, or NONE
        ("spelt", INT),  # node of the word begun in the vocabulary's trie, NONE if no word does so
        ("hot", INT),  # state of the hotwords
        ("is_closed", INT),  # 1 where the two `closed_` fields are known
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


class Workspace(NamedTuple):
    """Memory for one utterance; what is not touched costs nothing.

    Attributes:
        prefixes: `(1 + T * beam,)` PREFIX.
        spans: `(T * beam,)` SPAN.
        sizes: `(2,)` int64, how many there are of both.
        beams: `(2, beam)` ENTRY, before and after a frame.
        stays: `(beam,)` ENTRY, the prefixes of the beam as they would be after the frame.
        is_inside: `(beam, V)` bool, whether a prefix longer by that token is in the beam too.
        tokens: `(max_tokens,)` int64, the labels that may extend a prefix in this frame.
        heap: `(beam,)` CANDIDATE, the best so far, the worst of them first.
        ranked: `(beam,)` CANDIDATE, the best first.
    """

    prefixes: np.ndarray
    spans: np.ndarray
    sizes: np.ndarray
    beams: np.ndarray
    stays: np.ndarray
    is_inside: np.ndarray
    tokens: np.ndarray
    heap: np.ndarray
    ranked: np.ndarray


def workspace(num_frames: int, vocab_size: int, beam_size: int, max_tokens: int) -> Workspace:
    """Memory for an utterance, nothing of it set but the sizes."""
    return Workspace(
        prefixes=np.empty(1 + num_frames * beam_size, PREFIX),
        spans=np.empty(num_frames * beam_size + beam_size, SPAN),
        sizes=np.zeros(2, LONG),
        beams=np.empty((2, beam_size), ENTRY),
        stays=np.empty(beam_size, ENTRY),
        is_inside=np.zeros((beam_size, vocab_size), np.bool_),
        tokens=np.empty(max(1, min(max_tokens, vocab_size - 1)), LONG),
        heap=np.empty(beam_size, CANDIDATE),
        ranked=np.empty(beam_size, CANDIDATE),
    )
