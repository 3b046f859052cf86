"""Fonts of pictures: the usual one where it does, an installed one, or the package to install."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from asr.picture import USUAL, choose_fonts, png, tell_missing

LETTERS = "\U0002a700\U0002a701"  # Han of a plane that hardly a font has


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[str]:
    """The name of a font that has these letters, installed for a test."""
    glyphs = {letter: f"glyph{number}" for number, letter in enumerate(LETTERS)}
    names = [".notdef", *glyphs.values()]
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 500), (500, 500), (500, 0)):
        pen.lineTo(point)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): glyph for letter, glyph in glyphs.items()})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Made Han", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path / "made.ttf"
    builder.save(path)
    before = list(fontManager.ttflist)
    fontManager.addfont(path)
    choose_fonts.cache_clear()
    yield "Made Han"
    fontManager.ttflist[:] = before
    choose_fonts.cache_clear()


def test_the_usual_font_where_it_has_all() -> None:
    assert choose_fonts("aéßЖλשب ␣") == ((USUAL,), "")


def test_a_font_that_is_installed_is_found(installed: str) -> None:
    assert choose_fonts("a" + LETTERS) == ((USUAL, installed), "")
    assert tell_missing(["a", LETTERS]) == ""
    figure = Figure()
    axes = figure.subplots()
    axes.set_yticks([0, 1], ["plain", LETTERS])
    title = axes.set_title(LETTERS[0])
    assert png(figure).startswith(b"\x89PNG")
    for text in (title, *axes.get_yticklabels()):
        assert text.get_fontfamily() == [USUAL, installed]


def test_letters_of_a_font_are_drawn_and_not_boxes(installed: str) -> None:
    def drawn(text: str) -> bytes:
        figure = Figure(figsize=(1, 1))
        figure.text(0.2, 0.5, text, fontsize=30)
        return png(figure)

    boxes = {drawn(letter) for letter in ("\U0002a702", "\U0002a703")}
    assert len(boxes) == 1
    assert drawn(LETTERS[0]) not in boxes


@pytest.mark.parametrize(
    ("letters", "package"), [(LETTERS, "fonts-noto-cjk"), ("\U00011d60", "fonts-noto-core")]
)
def test_what_no_font_has_is_told_with_the_package(letters: str, package: str) -> None:
    families, missing = choose_fonts(letters)
    assert (families, missing) == ((USUAL,), letters)
    note = tell_missing([letters * 20])
    assert note.startswith(f"no font here has {letters}: pictures have boxes there")
    assert note.endswith(f"apt-get install {package}")
