"""Pictures as PNG, in fonts that have their letters: installed ones, or the package to install."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:
    from matplotlib.figure import Figure

USUAL = "DejaVu Sans"  # matplotlib brings it along: Latin, Greek, Cyrillic, Arabic, Hebrew and more
NO_LETTERS = "LastResort"  # in the file's name: a font of a box for each script
CJK = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Hangul}]")
CJK_PACKAGE, OTHER_PACKAGE = "fonts-noto-cjk", "fonts-noto-core"  # of Debian and Ubuntu


def png(figure: Figure) -> bytes:
    """Encode a figure, its texts in fonts that have their letters; boxes where none is installed.

    Texts that are drawn anew with each picture, as numbers along an axis are, keep the usual font.
    """
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    families, _ = choose_fonts(_letters(text.get_text() for text in texts))
    for text in texts:
        text.set_fontfamily(families)
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(image, format="png", dpi=120)
    return image.getvalue()


def tell_missing(texts: Iterable[str]) -> str:
    """Tell which letters of texts no installed font has, and the package that does; else ""."""
    _, missing = choose_fonts(_letters(texts))
    if not missing:
        return ""
    package = CJK_PACKAGE if CJK.search(missing) else OTHER_PACKAGE
    shown = missing if len(missing) <= 10 else f"{missing[:10]}..."
    return (
        f"no font here has {shown}: pictures have boxes there; on Debian and Ubuntu, apt-get "
        f"install {package}"
    )


def _letters(texts: Iterable[str]) -> str:
    """Each character of texts once."""
    return "".join(sorted(set().union(*texts)))


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
