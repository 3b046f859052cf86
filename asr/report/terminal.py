"""An evaluation on the terminal: totals, tables by slice, the utterances with most errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from asr.metrics.error_rate import AlignedWord, Confusion, ErrorCounts, confusions
from asr.report.alignment import Gap, excerpt
from asr.report.evaluation import EvaluatedUtterance, Evaluation, worst
from asr.report.number import between, bounds, counted, number, percent, told
from asr.report.slices import Slice, Slices, cut
from asr.report.visible import visible

_NOT_GIVEN = "(none given)"
_NAME_WIDTH = 14  # cells of the first column, at least
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
    """The totals with their intervals, how sure the words are, and the text rules."""
    intervals = evaluation.intervals
    completeness = evaluation.completeness
    lines = [Text(completeness, "bold yellow")] if completeness else []
    for name, noun, counts, interval in (
        ("WER", "word", evaluation.words, intervals.words),
        ("CER", "character", evaluation.characters, intervals.characters),
    ):
        lines.append(
            Text.assemble(
                (f"{name} {percent(counts.rate, 2)}", "bold"),
                f"  {between(interval, 2)}  {_counts(counts, noun)}",
            )
        )
    if intervals.words is not None:
        lines.append(Text(f"[ ]: {told(intervals.words)}", "dim"))
    found = evaluation.reliability
    if found is not None:
        words = counted(found.num_words, "heard word")
        lines.append(Text(f"confidence: off by {percent(found.ece)} on average, of {words}"))
    if evaluation.text_rules:
        lines.append(Text("both texts: " + "; ".join(map(visible, evaluation.text_rules))))
    return Text("\n").join(lines)


def slice_table(evaluation: Evaluation, by: str, limit: int | None = None) -> Table:
    """Errors by speaker, duration, reference length, signal-to-noise ratio or a field.

    Args:
        evaluation: The scored evaluation.
        by: What to cut by, see `asr.report.slices`.
        limit: How many rows at most; a last line says how many were left out. None: all.

    Raises:
        ValueError: Nothing is known by this name.
    """
    slices = cut(evaluation, by)
    unit = f" [{slices.unit}]" if slices.unit else ""
    table = Table(
        title=Text(f"By {visible(by)}{unit}"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_footer=True,
        pad_edge=False,
    )
    total = evaluation.words
    table.add_column("", "All", overflow="fold", min_width=_NAME_WIDTH)
    for name, footer in (
        ("Utt.", number(len(evaluation.utterances))),
        ("Words", number(total.reference_length)),
        ("S", number(total.substitutions)),
        ("D", number(total.deletions)),
        ("I", number(total.insertions)),
        ("WER", percent(total.rate)),
        ("95 %", between(evaluation.intervals.words)),
        ("CER", percent(evaluation.characters.rate)),
    ):
        table.add_column(name, Text(footer), justify="right", no_wrap=True)
    for row in slices.rows[:limit]:
        table.add_row(*_slice_cells(row, slices))
    left_out = len(slices.rows) - len(slices.rows[:limit])
    if left_out:
        table.caption = f"{counted(left_out, 'row')} more in evaluation.json"
    return table


def confusion_table(evaluation: Evaluation, limit: int = 10) -> Table:
    """The most frequent substitutions, deletions and insertions side by side.

    Args:
        evaluation: The scored evaluation.
        limit: How many of each at most.
    """
    found = confusions((each.errors for each in evaluation.utterances), limit)
    table = Table(title="Most frequent errors", title_justify="left")
    for name in ("Said", "Heard", "Times", "Deleted", "Times", "Inserted", "Times"):
        table.add_column(name, justify="right" if name == "Times" else "left", overflow="fold")
    columns = (found.substitutions, found.deletions, found.insertions)
    for substitution, deletion, insertion in zip_longest(*columns):
        table.add_row(
            *_confusion_cells(substitution, 3),
            *_confusion_cells(deletion, 2),
            *_confusion_cells(insertion, 2),
        )
    return table


def worst_utterances(evaluation: Evaluation, limit: int = 10) -> Group:
    """The utterances with the most errors, word by word.

    Args:
        evaluation: The scored evaluation.
        limit: How many utterances at most.
    """
    if not evaluation.words.errors:
        return Group(Text("Every utterance is entirely right."))
    parts: list[Text | AlignedLines] = []
    for utterance in worst(evaluation, limit):
        parts.append(_title(utterance))
        parts.append(AlignedLines(tuple(excerpt(utterance.errors.alignment.words))))
    return Group(*parts)


def _counts(counts: ErrorCounts, noun: str) -> str:
    return (
        f"{counted(counts.errors, 'error')} against {counted(counts.reference_length, noun)}: "
        f"{number(counts.substitutions)} substituted, {number(counts.deletions)} deleted, "
        f"{number(counts.insertions)} inserted"
    )


def _slice_cells(row: Slice, slices: Slices) -> list[Text]:
    words = row.words
    return [
        Text(_slice_name(row, slices)),
        Text(number(row.num_utterances)),
        Text(number(words.reference_length)),
        Text(number(words.substitutions)),
        Text(number(words.deletions)),
        Text(number(words.insertions)),
        Text(percent(words.rate), "bold"),
        Text(between(row.interval)),
        Text(percent(row.characters.rate)),
    ]


def _slice_name(row: Slice, slices: Slices) -> str:
    if row.low is not None and row.high is not None:
        return bounds(row.low, row.high, last=row.high == slices.highest)
    return _NOT_GIVEN if row.value is None else visible(row.value)


def _confusion_cells(found: Confusion | None, columns: int) -> list[Text]:
    if found is None:
        return [Text("")] * columns
    words = [word for word in (found.reference, found.hypothesis) if word is not None]
    return [*(Text(visible(word)) for word in words), Text(number(found.count))]


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
