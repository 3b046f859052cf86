"""An evaluation on the terminal: totals, a table by speaker, the utterances with most errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from asr.metrics.error_rate import AlignedWord, ErrorCounts
from asr.report.alignment import Gap, excerpt
from asr.report.evaluation import (
    EvaluatedUtterance,
    Evaluation,
    SpeakerErrors,
    by_speaker,
    worst,
)
from asr.report.number import counted, length, number, percent
from asr.report.visible import visible

_NO_SPEAKER = "(none given)"
_STYLES = {"substitute": ("S", "yellow"), "delete": ("D", "cyan"), "insert": ("I", "green")}


@dataclass(frozen=True, slots=True)
class AlignedLines:
    """A rich renderable: reference over hypothesis, each error marked S, D or I below.

    Words stay in their columns; a line is broken between two columns where the console ends.
    """

    words: Sequence[AlignedWord | Gap]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = [_column(word) for word in self.words]
        for group in _broken(columns, options.max_width):
            for row, name in enumerate(("said   ", "heard  ", "       ")):
                yield Text.assemble((name, "dim"), *(column.lines[row] for column in group))


@dataclass(frozen=True, slots=True)
class _Column:
    """One aligned pair, its three lines padded to one width in cells."""

    lines: tuple[Text, ...]
    width: int


def summary(evaluation: Evaluation) -> Text:
    """The totals in two lines."""
    lines = [
        Text.assemble((f"{name} {percent(counts.rate, 2)}", "bold"), f"  {_counts(counts, noun)}")
        for name, noun, counts in (
            ("WER", "word", evaluation.words),
            ("CER", "character", evaluation.characters),
        )
    ]
    return Text("\n").join(lines)


def speaker_table(evaluation: Evaluation, limit: int | None = None) -> Table:
    """Errors by speaker, the highest WER first.

    Args:
        evaluation: The scored evaluation.
        limit: How many speakers at most; a last line says how many were left out. None: all.
    """
    table = Table(title="By speaker", title_justify="left", show_footer=True)
    total = evaluation.words
    table.add_column("Speaker", "All", overflow="fold")
    for name, footer in (
        ("Utterances", number(len(evaluation.utterances))),
        ("Audio", length(evaluation.duration_s)),
        ("Words", number(total.reference_length)),
        ("S", number(total.substitutions)),
        ("D", number(total.deletions)),
        ("I", number(total.insertions)),
        ("WER", percent(total.rate)),
        ("CER", percent(evaluation.characters.rate)),
    ):
        table.add_column(name, footer, justify="right", no_wrap=True)
    rows = by_speaker(evaluation)
    for row in rows[:limit]:
        table.add_row(*_speaker_cells(row))
    left_out = len(rows) - len(rows[:limit])
    if left_out:
        table.caption = f"{counted(left_out, 'speaker')} with a lower WER left out"
    return table


def worst_utterances(evaluation: Evaluation, limit: int = 10) -> Group:
    """The utterances with the most errors, word by word.

    Args:
        evaluation: The scored evaluation.
        limit: How many utterances at most.
    """
    shown = worst(evaluation, limit)
    if not shown:
        return Group(Text("Every utterance is entirely right."))
    parts: list[Text | AlignedLines] = []
    for utterance in shown:
        parts.append(_title(utterance))
        parts.append(AlignedLines(tuple(excerpt(utterance.errors.alignment.words))))
    return Group(*parts)


def _counts(counts: ErrorCounts, noun: str) -> str:
    return (
        f"{counted(counts.errors, 'error')} against {counted(counts.reference_length, noun)}: "
        f"{number(counts.substitutions)} substituted, {number(counts.deletions)} deleted, "
        f"{number(counts.insertions)} inserted"
    )


def _speaker_cells(row: SpeakerErrors) -> list[Text]:
    words = row.words
    return [
        Text(_NO_SPEAKER if row.speaker is None else visible(row.speaker)),
        Text(number(row.num_utterances)),
        Text(length(row.duration_s)),
        Text(number(words.reference_length)),
        Text(number(words.substitutions)),
        Text(number(words.deletions)),
        Text(number(words.insertions)),
        Text(percent(words.rate), "bold"),
        Text(percent(row.characters.rate)),
    ]


def _title(utterance: EvaluatedUtterance) -> Text:
    words = utterance.errors.words
    rest = (
        f"  {counted(words.errors, 'error')} in {counted(words.reference_length, 'word')}, "
        f"{percent(words.rate)}"
    )
    return Text.assemble((visible(utterance.id), "bold"), rest)


def _column(word: AlignedWord | Gap) -> _Column:
    if isinstance(word, Gap):
        cells: tuple[tuple[str, str], ...] = ((f"({word.num_words} words)", "dim"),) * 2 + (
            ("", ""),
        )
    else:
        mark, style = _STYLES.get(word.kind, ("", ""))
        said, heard = (
            "*" * _width(other) if text is None else visible(text)
            for text, other in (
                (word.reference, word.hypothesis),
                (word.hypothesis, word.reference),
            )
        )
        cells = (said, style), (heard, style or "dim"), (mark, style)
    width = max(cell_len(text) for text, _ in cells)
    lines = tuple(Text(text + " " * (width - cell_len(text) + 1), style) for text, style in cells)
    return _Column(lines, width + 1)


def _width(text: str | None) -> int:
    return cell_len(visible(text or ""))


def _broken(columns: Iterable[_Column], max_width: int) -> Iterable[list[_Column]]:
    """Columns in groups that fit beside the names of the lines."""
    group: list[_Column] = []
    used = len("heard  ")
    for column in columns:
        if group and used + column.width > max_width:
            yield group
            group, used = [], len("heard  ")
        group.append(column)
        used += column.width
    if group:
        yield group
