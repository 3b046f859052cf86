"""What a person should know of a corpus as a whole: how much it is, and what its texts hold."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import chain

from asr.text import CHARACTER, TextNormalizer, unit_of
from asr.untrusted import shown

ENOUGH_S = 3600.0  # [s] of training speech; measured with less and with more: docs/results.md
MAX_FIXED_WORDS = 100  # a task of so few words, each said often, is learnt from minutes
TIMES_EACH = 10.0  # that each of them is said, on average
SHOWN_CHARACTERS = 8  # in a remark
# Marks that transcribers put around what is not said, and what stands in them.
TAGS = {
    "[]": re.compile(r"\[[^\[\]]*\w[^\[\]]*\]"),
    "<>": re.compile(r"</?[^\W\d][^<>]*>"),
    "{}": re.compile(r"\{[^{}]*\w[^{}]*\}"),
    "()": re.compile(r"\([^()]*\w[^()]*\)"),
    "**": re.compile(r"\*\w[^*]*\*"),
}


def amount_remark(name: str, seconds: float, texts: Sequence[str]) -> str | None:
    """Say what to expect of too little to train on.

    Args:
        name: of the split or its manifest.
        seconds: of speech [s].
        texts: normalised.
    """
    if not 0 < seconds < ENOUGH_S:
        return None
    words = [word for text in texts for word in text.split()]
    if len(set(words)) <= MAX_FIXED_WORDS and len(words) >= TIMES_EACH * len(set(words)):
        return None
    return (
        f"{name} has {seconds / 60:.1f} min of speech. To train on, that is too little for "
        "sentences of any words: expect a WER above 90 %; 4 hours bring it to about 80 %. "
        "More speech helps, and a start from another model (init_from=MODEL)."
    )


def space_remark(name: str, texts: Sequence[str]) -> str | None:
    """Say that texts are not parted into words, but for recordings of single words, said often.

    Of scripts that put no spaces there the characters are counted, and nothing is to be said.

    Args:
        name: of the split or its manifest.
        texts: normalised.
    """
    if not texts or any(" " in text for text in texts) or len(set(texts)) < len(texts) / 2:
        return None
    if unit_of(Counter(chain.from_iterable(texts))) == CHARACTER:
        return None
    return (
        f"No text of {name} has a space: each counts as one word, right as a whole or wrong. Put "
        "spaces between the words, or look at the CER in place of the WER."
    )


def tag_remark(written: Sequence[str], rules: TextNormalizer) -> str | None:
    """Say that texts have tags, whose words would be learnt as if they were said.

    Args:
        written: texts before the rules.
        rules: that they go through.
    """
    dropped = {first + last for first, last in zip(*[iter(rules.drop_in)] * 2, strict=True)}
    found = {
        marks: [text for text in written if tag.search(text)]
        for marks, tag in TAGS.items()
        if marks not in dropped
    }
    found = {marks: texts for marks, texts in found.items() if texts}
    if not found or not rules.remove_punctuation:
        return None
    tagged = sum(any(TAGS[marks].search(text) for marks in found) for text in written)
    example = max(found.values(), key=len)[0]
    setting = rules.drop_in + "".join(found)
    return (
        f"{tagged} of {len(written)} texts have tags in {' '.join(found)}, as {shown(example)}: "
        "what stands in them becomes words, as if it were said. "
        f"\"corpus.text.drop_in='{setting}'\" takes it away."
    )


def figure_remark(texts: Sequence[str]) -> str | None:
    """Say that texts have figures and signs that are read as words.

    Args:
        texts: normalised.
    """
    alphabet = sorted(set().union(*texts))
    unspelt = [c for c in alphabet if unicodedata.category(c)[0] in "NS" or c in "%&@#"]
    if not unspelt:
        return None
    those = [text for text in texts if not set(unspelt).isdisjoint(text)]
    more = f" and {len(unspelt) - SHOWN_CHARACTERS} more" if len(unspelt) > SHOWN_CHARACTERS else ""
    return (
        f"The alphabet has {', '.join(unspelt[:SHOWN_CHARACTERS])}{more}: {len(those)} of "
        f"{len(texts)} texts, as {shown(those[0])}. Spell out what is read as words: "
        "corpus.text.numbers=en (de, fr ...) does it for numbers, corpus.text.replace for others."
    )
