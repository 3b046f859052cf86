"""A comparison of systems on the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from asr.metrics.interval import Interval
from asr.report.comparison import Comparison, Pair
from asr.report.number import between, counted, number, percent, told
from asr.report.visible import visible

FEW_SEGMENTS = 50  # below that the test's normal approximation is coarse
LONGEST = 60  # characters of a setting, a thousand hotwords for instance
MOST_COLUMNS = 2  # of settings beside the rates; more have a table of their own


def comparison_table(comparison: Comparison) -> Table:
    """A line a system, those after the first with what parts them from it."""
    first = comparison.systems[0].evaluation
    table = Table(
        title=f"{counted(len(first.utterances), 'utterance')}, "
        f"{counted(first.words.reference_length, 'word')}",
        title_justify="left",
    )
    table.add_column("")
    settings = comparison.differing if len(comparison.differing) <= MOST_COLUMNS else {}
    for name in settings:
        table.add_column(Text(visible(name)))
    corrected = len(comparison.pairs) > 1
    for name in (
        *("WER", "95 %", "CER", "Difference", "95 %", "p"),
        *(["p (Holm)"] if corrected else []),
        *("P(better)", "Utterances better", "worse"),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    pairs: list[Pair | None] = [None, *comparison.pairs]
    for place, (system, pair) in enumerate(zip(comparison.systems, pairs, strict=True)):
        evaluation = system.evaluation
        table.add_row(
            Text(visible(system.name)),
            *(Text(_shown(values[place])) for values in settings.values()),
            Text(percent(evaluation.words.rate, 2), "bold"),
            Text(between(evaluation.intervals.words, 2)),
            Text(percent(evaluation.characters.rate, 2)),
            *([] if pair is None else _pair_cells(pair, corrected)),
        )
    return table


def settings_table(comparison: Comparison) -> Table | None:
    """A line a setting that differs, a column a system; None where they stand beside the rates."""
    if len(comparison.differing) <= MOST_COLUMNS:
        return None
    table = Table(title="What differs", title_justify="left")
    for name in ("", *(system.name for system in comparison.systems)):
        table.add_column(Text(visible(name)), overflow="fold")
    for name, values in comparison.differing.items():
        table.add_row(Text(visible(name)), *(Text(_shown(value)) for value in values))
    return table


def _shown(value: object) -> str:
    if value is None:
        return "—"
    text = str(value)
    return visible(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…")


def comparison_notes(comparison: Comparison) -> Text:
    """What the numbers of the table are."""
    interval = comparison.systems[0].evaluation.intervals.words
    first = visible(comparison.systems[0].name)
    lines = [
        f"Differences, p and probabilities: against {first}; below 0 is better.",
        "p: matched-pair sentence-segment word error test, two-tailed"
        + ("; Holm: corrected for all lines." if len(comparison.pairs) > 1 else "."),
        "P(better): bootstrap probability of improvement.",
    ]
    if interval is not None:
        lines.append(f"[ ]: {told(interval)}.")
    lines += [
        f"{visible(system.name)}: {system.evaluation.completeness}."
        for system in comparison.systems
        if system.evaluation.completeness
    ]
    few = [pair for pair in comparison.pairs if pair.matched.num_segments < FEW_SEGMENTS]
    for pair in few:
        name = visible(comparison.systems[pair.system].name)
        lines.append(
            f"{name}: p is coarse, from {counted(pair.matched.num_segments, 'segment')} with an "
            f"error; {FEW_SEGMENTS} are wanted."
        )
    return Text("\n".join(lines), "dim")


def _pair_cells(pair: Pair, corrected: bool) -> list[Text]:
    return [
        Text(_signed(pair.words.difference), "bold"),
        Text(_signed_interval(pair.words.interval)),
        Text(_p_value(pair.matched.p)),
        *([Text(_p_value(pair.p_holm))] if corrected else []),
        Text("—" if pair.words.probability is None else percent(pair.words.probability)),
        Text(number(pair.better)),
        Text(number(pair.worse)),
    ]


def _signed(difference: float) -> str:
    """A difference of rates in points of per cent."""
    return f"{100 * difference:+.2f}"


def _signed_interval(interval: Interval | None) -> str:
    return "—" if interval is None else f"[{_signed(interval.low)}, {_signed(interval.high)}]"


def _p_value(p: float | None) -> str:
    if p is None:
        return "—"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
