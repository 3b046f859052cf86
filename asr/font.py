"""Fonts that have the letters of a picture: installed ones, or the package to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path

import regex

USUAL = "DejaVu Sans"  # matplotlib brings it along: Latin, Greek, Cyrillic, Arabic, Hebrew and more
NO_LETTERS = "LastResort"  # in the file's name: a font of a box for each script
CJK = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Hangul}]")
CJK_PACKAGE, OTHER_PACKAGE = "fonts-noto-cjk", "fonts-noto-core"  # of Debian and Ubuntu


@contextmanager
def fonts_for(text: str) -> Iterator[str]:
    """Draw with fonts that have all letters of a text, as far as such are installed.

    Args:
        text: what the picture will show.

    Yields:
        A line on what no font has, and the package that does; empty where there is nothing to tell.
    """
    from matplotlib import rc_context

    families, missing = choose_fonts("".join(sorted(set(text))))
    note = ""
    if missing:
        package = CJK_PACKAGE if CJK.search(missing) else OTHER_PACKAGE
        shown = missing if len(missing) <= 10 else f"{missing[:10]}..."
        note = (
            f"no font here has {shown}: pictures have boxes there; on Debian and Ubuntu, apt-get "
            f"install {package}"
        )
    with rc_context({"font.family": list(families)}):
        yield note


@lru_cache(maxsize=8)
def choose_fonts(letters: str) -> tuple[tuple[str, ...], str]:
    """Choose as few fonts as have all letters, the usual one first.

    Args:
        letters: each once.

    Returns:
        Their names, and the letters that no installed font has.
    """
    from matplotlib.font_manager import fontManager

    families = [USUAL]
    missing = {letter for letter in letters if letter.isprintable() and not letter.isspace()}
    missing -= _letters_of(USUAL)
    others = {
        entry.name
        for entry in fontManager.ttflist
        if entry.name != USUAL and NO_LETTERS not in Path(entry.fname).name
    }
    while missing and others:
        best = max(sorted(others), key=lambda name: len(missing & _letters_of(name)))
        others.remove(best)
        if not missing & _letters_of(best):
            break
        families.append(best)
        missing -= _letters_of(best)
    return tuple(families), "".join(sorted(missing))


@cache
def _letters_of(family: str) -> frozenset[str]:
    """The characters that a font has pictures of; none of a file that cannot be read."""
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(findfont(family)).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()
