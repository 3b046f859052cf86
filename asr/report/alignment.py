"""Alignments made short: the errors and the words around them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from asr.metrics.error_rate import AlignedWord

_CONTEXT = 4


@dataclass(frozen=True, slots=True)
class Gap:
    """Words left out of a shown alignment, all of them right."""

    num_words: int


def excerpt(words: Iterable[AlignedWord]) -> Iterator[AlignedWord | Gap]:
    """The alignment with every long run of right words cut to the four at each end.

    Args:
        words: A whole alignment.

    Yields:
        Its words in order, and a gap wherever five or more were left out.
    """
    for equal, run in groupby(words, lambda word: word.kind == "equal"):
        group = list(run)
        if equal and len(group) > 3 * _CONTEXT:
            yield from group[:_CONTEXT]
            yield Gap(len(group) - 2 * _CONTEXT)
            yield from group[-_CONTEXT:]
        else:
            yield from group
