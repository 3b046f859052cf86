"""Evaluations and comparisons on the terminal: totals, tables, the utterances with most errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from asr.metrics.error_rate import Confusion, WordPair, confusions
from asr.report.comparison import FEW_SEGMENTS, Comparison, Pair, verdict
from asr.report.evaluation import Evaluation, cut, worst
from asr.report.wording import (
    NOT_GIVEN,
    Gap,
    Setting,
    between,
    bounds,
    counted,
    excerpt,
    number,
    p_value,
    percent,
    setting_text,
    shortened,
    told,
    visible,
)

NAME_WIDTH = 14  # cells of the first column of a table of slices, at least
LONGEST = 60  # characters of a setting, a thousand hotwords for instance
MOST_COLUMNS = 2  # of settings beside the rates; more have a table of their own
STYLES = {"substitute": ("S", "yellow"), "delete": ("D", "cyan"), "insert": ("I", "green")}
LINES = ("ref  ", "hyp  ", "     ")  # what the lines of an alignment begin with


# --- an evaluation ------------------------------------------------------------------------------


def summary(evaluation: Evaluation) -> Text:
    """Tell the totals with their intervals, how sure the words are, and the text rules."""
    intervals = evaluation.intervals
    completeness = evaluation.completeness
    lines = [Text(completeness, "bold yellow")] if completeness else []
    rates = [
        ("WER", "word", evaluation.words, intervals.words),
        ("CER", "character", evaluation.characters, intervals.characters),
    ]
    for name, noun, counts, interval in rates if evaluation.unit == "word" else rates[1:]:
        errors = (
            f"{counted(counts.errors, 'error')} against {counted(counts.reference_length, noun)}: "
            f"{number(counts.substitutions)} substituted, {number(counts.deletions)} deleted, "
            f"{number(counts.insertions)} inserted"
        )
        rate = (f"{name} {percent(counts.rate, 2)}", "bold")
        lines.append(Text.assemble(rate, f"  {between(interval, 2)}  {errors}"))
    if intervals.words is not None:
        lines.append(Text(f"[ ]: {told(intervals.words)}", "dim"))
    found = evaluation.reliability
    if found is not None:
        words = counted(found.num_words, f"recognised {evaluation.unit}")
        lines.append(Text(f"confidence: off by {percent(found.ece)} on average, of {words}"))
    if evaluation.text_rules:
        lines.append(Text("both texts: " + "; ".join(map(visible, evaluation.text_rules))))
    return Text("\n").join(lines)


def slice_table(evaluation: Evaluation, by: str, limit: int | None = None) -> Table:
    """Show errors by speaker, duration, reference length, signal-to-noise ratio or a field.

    Args:
        evaluation: the scored evaluation.
        by: what to cut by, see `asr.report.evaluation.cut`.
        limit: how many rows at most; a last line says how many were left out. None: all.

    Raises:
        ValueError: nothing is known by this name.
    """
    known = {slices.by: slices for slices in evaluation.slices}
    slices = known[by] if by in known else cut(evaluation, by)
    unit = f" [{slices.unit}]" if slices.unit else ""
    table = Table(
        title=Text(f"By {visible(by)}{unit}"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_footer=True,
        pad_edge=False,
    )
    total, has_words = evaluation.words, evaluation.unit == "word"
    table.add_column("", "All", overflow="fold", min_width=NAME_WIDTH)
    for name, footer in (
        ("Utt.", number(len(evaluation.utterances))),
        (f"{evaluation.unit.capitalize()}s", number(total.reference_length)),
        ("S", number(total.substitutions)),
        ("D", number(total.deletions)),
        ("I", number(total.insertions)),
        (evaluation.rate_name, percent(total.rate)),
        ("95 %", between(evaluation.intervals.words)),
        *([("CER", percent(evaluation.characters.rate))] if has_words else []),
    ):
        table.add_column(name, Text(footer), justify="right", no_wrap=True)
    for row in slices.rows[:limit]:
        words, name = row.words, NOT_GIVEN if row.value is None else visible(row.value)
        if row.low is not None and row.high is not None:
            name = bounds(row.low, row.high, last=row.high == slices.highest)
        table.add_row(
            Text(name),
            Text(number(row.num_utterances)),
            Text(number(words.reference_length)),
            Text(number(words.substitutions)),
            Text(number(words.deletions)),
            Text(number(words.insertions)),
            Text(percent(words.rate), "bold"),
            Text(between(row.interval)),
            *([Text(percent(row.characters.rate))] if has_words else []),
        )
    left_out = len(slices.rows) - len(slices.rows[:limit])
    if left_out:
        table.caption = f"{counted(left_out, 'row')} more in evaluation.json"
    return table


def confusion_table(evaluation: Evaluation, limit: int = 10) -> Table:
    """Show the most frequent substitutions, deletions and insertions side by side.

    Args:
        evaluation: the scored evaluation.
        limit: how many of each at most.
    """
    found = confusions((each.errors for each in evaluation.utterances), limit)
    table = Table(title="Most frequent errors", title_justify="left")
    for name in ("Reference", "Hypothesis", "Times", "Deleted", "Times", "Inserted", "Times"):
        table.add_column(name, justify="right" if name == "Times" else "left", overflow="fold")

    def cells(found: Confusion | None, columns: int) -> list[Text]:
        if found is None:
            return [Text("")] * columns
        words = [word for word in (found.reference, found.hypothesis) if word is not None]
        return [*(Text(visible(word)) for word in words), Text(number(found.count))]

    for row in zip_longest(found.substitutions, found.deletions, found.insertions):
        table.add_row(*cells(row[0], 3), *cells(row[1], 2), *cells(row[2], 2))
    return table


def worst_utterances(evaluation: Evaluation, limit: int = 10) -> Group:
    """Show the utterances with the most errors, word by word.

    Args:
        evaluation: the scored evaluation.
        limit: how many utterances at most.
    """
    if not evaluation.words.errors:
        return Group(Text("Every utterance is entirely right."))
    parts: list[Text | AlignedLines] = []
    for utterance in worst(evaluation, limit):
        words = utterance.errors.words
        length = counted(words.reference_length, evaluation.unit)
        rest = f"  {counted(words.errors, 'error')} in {length}, {percent(words.rate)}"
        parts.append(Text.assemble((visible(utterance.id), "bold"), rest))
        steps = tuple(excerpt(utterance.errors.alignment))
        parts.append(AlignedLines(steps, evaluation.unit))
    return Group(*parts)


@dataclass(frozen=True, slots=True)
class AlignedLines:
    """A rich renderable: reference over hypothesis, each error marked S, D or I below.

    Words stay in their columns; a line is broken between two columns where the console ends.
    """

    words: Sequence[WordPair | Gap]
    unit: str = "word"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        groups: list[list[list[Text]]] = [[]]
        used = len(LINES[0])
        for column in (_column(word, self.unit) for word in self.words):
            if groups[-1] and used + column[0].cell_len > options.max_width:
                groups.append([])
                used = len(LINES[0])
            groups[-1].append(column)
            used += column[0].cell_len
        for group in groups if self.words else ():
            for row, name in enumerate(LINES):
                yield Text.assemble((name, "dim"), *(column[row] for column in group))


def _column(word: WordPair | Gap, unit: str) -> list[Text]:
    """Make the three lines of an aligned pair, padded to one width in cells, a space after them."""
    if isinstance(word, Gap):
        cut_words = (f"({word.num_words} {unit}s)", "dim")
        cells = [cut_words, cut_words, ("", "")]
    else:
        mark, style = STYLES.get(word.kind, ("", ""))
        reference, hypothesis = visible(word.reference or ""), visible(word.hypothesis or "")
        if word.reference is None:
            reference = "*" * cell_len(hypothesis)
        if word.hypothesis is None:
            hypothesis = "*" * cell_len(reference)
        cells = [(reference, style), (hypothesis, style or "dim"), (mark, style)]
    width = max(cell_len(text) for text, _ in cells)
    return [Text(text + " " * (width - cell_len(text) + 1), style) for text, style in cells]


# --- a comparison -------------------------------------------------------------------------------


def comparison_table(comparison: Comparison) -> Table:
    """Show a line a system, those after the first with what parts them from it."""
    first = comparison.systems[0].evaluation
    table = Table(
        title=f"{counted(len(first.utterances), 'utterance')}, "
        f"{counted(first.words.reference_length, first.unit)}",
        title_justify="left",
    )
    table.add_column("")
    settings = comparison.differing if len(comparison.differing) <= MOST_COLUMNS else {}
    for name in settings:
        table.add_column(Text(visible(name)))
    is_corrected = len(comparison.pairs) > 1
    has_words = first.unit == "word"
    for name in (
        *(first.rate_name, "95 %", *(["CER"] if has_words else []), "Difference", "95 %", "p"),
        *(["p (Holm)"] if is_corrected else []),
        *("P(better)", "Utterances better", "worse"),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    pairs: list[Pair | None] = [None, *comparison.pairs]
    for place, (system, pair) in enumerate(zip(comparison.systems, pairs, strict=True)):
        evaluation, against_first = system.evaluation, []
        if pair is not None:
            words, ends = pair.words, "—"
            if words.interval:
                ends = f"[{100 * words.interval.low:+.2f}, {100 * words.interval.high:+.2f}]"
            against_first = [
                Text(f"{100 * words.difference:+.2f}", "bold"),
                Text(ends),
                Text(p_value(pair.matched.p, 3)),
                *([Text(p_value(pair.p_holm, 3))] if is_corrected else []),
                Text("—" if words.probability is None else percent(words.probability)),
                Text(number(pair.better)),
                Text(number(pair.worse)),
            ]
        table.add_row(
            Text(visible(system.name)),
            *(Text(_setting(values[place])) for values in settings.values()),
            Text(percent(evaluation.words.rate, 2), "bold"),
            Text(between(evaluation.intervals.words, 2)),
            *([Text(percent(evaluation.characters.rate, 2))] if has_words else []),
            *against_first,
        )
    return table


def settings_table(comparison: Comparison) -> Table | None:
    """Show a line a setting that differs; None where they stand beside the rates."""
    if len(comparison.differing) <= MOST_COLUMNS:
        return None
    table = Table(title="What differs", title_justify="left")
    for name in ("", *(system.name for system in comparison.systems)):
        table.add_column(Text(visible(name)), overflow="fold")
    for name, values in comparison.differing.items():
        table.add_row(Text(visible(name)), *(Text(_setting(value)) for value in values))
    return table


def _setting(value: Setting) -> str:
    return visible(shortened(setting_text(value, absent="—"), LONGEST))


def comparison_notes(comparison: Comparison) -> Text:
    """Say which differences count, and what the numbers of the table are."""
    first = comparison.systems[0].evaluation
    interval, unit = first.intervals.words, first.unit
    names = [visible(system.name) for system in comparison.systems]
    lines = [Text(verdict(pair, names[0], names[pair.system])) for pair in comparison.pairs]
    notes = [
        f"Differences, p and probabilities: against {names[0]}; below 0 is better.",
        f"p: matched-pair sentence-segment {unit} error test, two-tailed"
        + ("; Holm: corrected for all lines." if len(comparison.pairs) > 1 else "."),
        "P(better): bootstrap probability of improvement.",
    ]
    if interval is not None:
        notes.append(f"[ ]: {told(interval)}.")
    notes += [
        f"{name}: {system.evaluation.completeness}."
        for name, system in zip(names, comparison.systems, strict=True)
        if system.evaluation.completeness
    ]
    notes += [
        f"{names[pair.system]}: p is coarse, from "
        f"{counted(pair.matched.num_segments, 'segment')} with an error; {FEW_SEGMENTS} are wanted."
        for pair in comparison.pairs
        if pair.matched.num_segments < FEW_SEGMENTS
    ]
    return Text("\n").join([*lines, *(Text(note, "dim") for note in notes)])
