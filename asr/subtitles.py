"""Subtitles: words with times to cues that can be read, as SubRip and WebVTT."""

from __future__ import annotations

import html
import itertools
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from asr.word import Word

# What broadcasters and video services ask for, nearly all with these numbers.
LINE_COLUMNS = 42  # of a line at most; a wide character, as of Chinese, takes two
SHORTEST_S, LONGEST_S = 1.0, 7.0  # [s] of a cue, where the words leave it room
CHARACTERS_PER_S = 20.0  # that a reader follows
PAUSE_S = 0.8  # [s] a silence after which a new cue starts


@dataclass(frozen=True)
class Cue:
    """What is shown at a time.

    Attributes:
        start: [s].
        end: [s].
        lines: one or two.
    """

    start: float
    end: float
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Piece:
    """A word, or a character of one that is too long for a line.

    Attributes:
        text: its characters.
        start: [s].
        end: [s].
        space: what stands before it: nothing within a word.
    """

    text: str
    start: float
    end: float
    space: str = " "


# Words in order, or those of each speaker by name.
Voices = Sequence[Word] | Mapping[str | None, Sequence[Word]]


def cues(words: Sequence[Word], indent: int = 0) -> list[Cue]:
    """Group words into cues.

    A cue has at most two lines of 42 columns and lasts at most 7 s; a pause of 0.8 s ends it. A
    word that is longer than a line, as a whole recording is in a language without spaces, is cut
    between characters, its time shared out evenly. A cue is shown for at least a second and slowly
    enough to be read, as far as the next one leaves time for it.

    Args:
        words: in order.
        indent: columns of the first line that are left free, for a name.

    Returns:
        In order; they do not overlap.
    """
    groups: list[list[_Piece]] = []
    for piece in (piece for word in words for piece in _pieces(word, LINE_COLUMNS - indent)):
        group = groups[-1] if groups else []
        if (
            group
            and piece.start - group[-1].end <= PAUSE_S
            and piece.end - group[0].start <= LONGEST_S
            and _lines([*group, piece], indent) is not None
        ):
            group.append(piece)
        else:
            groups.append([piece])
    found = []
    for number, group in enumerate(groups):
        start, end = group[0].start, group[-1].end
        read_s = sum(len(piece.text) for piece in group) / CHARACTERS_PER_S
        wanted = start + min(max(SHORTEST_S, read_s), LONGEST_S)
        following = groups[number + 1][0].start if number + 1 < len(groups) else wanted
        lines = _lines(group, indent)
        assert lines is not None, "no piece is wider than a line"
        found.append(Cue(start, max(end, min(wanted, following)), lines))
    return found


def srt(words: Voices) -> str:
    """Write words as SubRip text, the speaker's name before each cue; empty for no words."""
    blocks = []
    for number, (speaker, cue) in enumerate(_spoken(words, has_names=True), start=1):
        name = f"{speaker}: " if speaker else ""
        blocks.append(f"{number}\n{_times(cue, ',')}\n{name}" + "\n".join(cue.lines) + "\n")
    return "\n".join(blocks)


def vtt(words: Voices) -> str:
    """Write words as WebVTT text (W3C, "WebVTT: The Web Video Text Tracks Format").

    Speakers are voices (`<v NAME>`), which players may show or not.
    """
    blocks = []
    for speaker, cue in _spoken(words, has_names=False):
        # A cue's text is markup there, as HTML is.
        voice = f"<v {html.escape(speaker, quote=False)}>" if speaker else ""
        blocks.append(
            f"{_times(cue, '.')}\n{voice}{html.escape(chr(10).join(cue.lines), quote=False)}\n"
        )
    return "\n".join(["WEBVTT\n", *blocks])


def _spoken(words: Voices, has_names: bool) -> list[tuple[str | None, Cue]]:
    """Cues and their speakers in the order in which they begin; those of several may overlap."""
    found: list[tuple[str | None, Cue]] = []
    for name, own in (words if isinstance(words, Mapping) else {None: words}).items():
        speaker = None if name is None else " ".join(name.split())
        indent = columns(f"{speaker}: ") if speaker and has_names else 0
        found += [(speaker, cue) for cue in cues(own, min(indent, LINE_COLUMNS // 2))]
    return sorted(found, key=lambda each: each[1].start)


def columns(text: str) -> int:
    """Count the columns of a text: two for a wide character, none for a mark on another one."""
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _pieces(word: Word, width: int) -> Iterator[_Piece]:
    """A word, or its characters with their marks where it is longer than a line."""
    parts = [word.word]
    if columns(word.word) > width:
        parts = []
        for character in word.word:
            if parts and not _columns(character):
                parts[-1] += character
            else:
                parts.append(character)
    share = (word.end - word.start) / max(len(word.word), 1)
    place = 0
    for part in parts:
        space = "" if place or word.is_joined else " "
        start, place = word.start + place * share, place + len(part)
        yield _Piece(part, start, word.start + place * share, space)


def _lines(group: Sequence[_Piece], indent: int) -> tuple[str, ...] | None:
    """The text in one line, or in two of like length; None where it does not fit."""
    texts = [piece.space + piece.text for piece in group]
    # Columns up to each piece, without the space in front of all.
    first = indent - len(group[0].space)
    ends = list(itertools.accumulate(map(columns, texts), initial=first))
    if ends[-1] <= LINE_COLUMNS:
        return ("".join(texts).removeprefix(" "),)
    splits = []
    for number in range(1, len(group)):
        longest = max(ends[number], ends[-1] - ends[number] - len(group[number].space))
        splits.append((longest, number))
    longest, number = min(splits, default=(LINE_COLUMNS + 1, 0))
    if longest > LINE_COLUMNS:
        return None
    return tuple("".join(part).removeprefix(" ") for part in (texts[:number], texts[number:]))


def _times(cue: Cue, separator: str) -> str:
    return f"{_clock(cue.start, separator)} --> {_clock(cue.end, separator)}"


def _clock(seconds: float, separator: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{separator}{rest % 1000:03}"
