"""Words with times as CTM, the form that NIST's scoring tools read."""

from __future__ import annotations

from collections.abc import Sequence

from asr.report.timed_word import TimedWord

CHANNEL = "1"


def ctm(name: str, words: Sequence[TimedWord]) -> str:
    """A line a word: name, channel, start [s], duration [s], word, confidence.

    (NIST, SCTK's "ctm: time marked conversation input file format".)

    Args:
        name: of the recording; without white space, which separates the fields.
        words: in order.

    Raises:
        ValueError: a name or a word that is no field.
    """
    for field in (name, *(word.word for word in words)):
        if field.split() != [field]:
            raise ValueError(f"{field!r} cannot stand in a CTM file, expected no white space")
    return "".join(
        f"{name} {CHANNEL} {word.start:.3f} {word.end - word.start:.3f} {word.word} "
        f"{word.confidence:.4f}\n"
        for word in words
    )
