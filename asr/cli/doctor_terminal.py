"""An examination on the terminal: totals, histograms, findings by kind, overlaps."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from asr.data.doctor.examine import Examination
from asr.data.doctor.quantity import Quantity, bar_line, count_bins, edges
from asr.finding import Finding, Kind, Severity
from asr.report.number import counted, length, number, percent
from asr.report.visible import visible

BINS = 20  # of a histogram, one character each
EXAMPLES = 3  # findings shown of each kind
STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow"}


def examination_view(
    examination: Examination, quantities: Sequence[Quantity]
) -> Iterator[RenderableType]:
    """The parts of the report, from the whole to the details, the verdict last."""
    yield _manifests(examination)
    shown = visible(examination.alphabet)
    yield Text(f"alphabet of {counted(len(examination.alphabet), 'character')}: {shown!r}\n")
    names = _names([each.manifest for each in examination.manifests])
    yield _distributions(examination, quantities, names)
    if examination.overlaps:
        yield _overlaps(examination, names)
    if examination.findings:
        yield _findings(examination.findings, names)
    yield verdict(examination)


def verdict(examination: Examination) -> Text:
    """`3 errors, 5 warnings in 1,024 lines`."""
    counts = Counter(finding.kind.severity for finding in examination.findings)
    parts = [
        (counted(counts[severity], severity.value), STYLES[severity] if counts[severity] else "")
        for severity in Severity
    ]
    lines = sum(manifest.lines for manifest in examination.manifests)
    return Text.assemble(parts[0], ", ", parts[1], f" in {counted(lines, 'line')}")


def _names(manifests: Sequence[Path]) -> dict[Path, str]:
    """A name for each: of the file, with as many folders in front as tell it from the others."""
    names = {}
    for path in manifests:
        others = [other.absolute() for other in manifests if other != path]
        parts = path.absolute().parts
        length = next(
            (n for n in range(1, len(parts)) if all(o.parts[-n:] != parts[-n:] for o in others)),
            len(parts),
        )
        names[path] = visible("/".join(parts[-length:]))
    return names


def _manifests(examination: Examination) -> Table:
    found = Counter((each.manifest, each.kind.severity) for each in examination.findings)
    table = _table("Manifests", "manifest")
    for heading in ("lines", "audio", "speakers", "sample rate", "errors", "warnings"):
        table.add_column(heading, justify="right")
    for manifest in examination.manifests:
        rates = sorted(manifest.sample_rates)
        table.add_row(
            Text(visible(str(manifest.manifest))),
            number(manifest.lines),
            length(manifest.seconds),
            number(len(manifest.speakers)) if manifest.speakers else "not named",
            ", ".join(f"{rate}" for rate in rates) + " Hz" if rates else "unknown",
            *(_count(found[manifest.manifest, severity], severity) for severity in Severity),
        )
    return table


def _distributions(
    examination: Examination, quantities: Sequence[Quantity], names: Mapping[Path, str]
) -> Table:
    table = _table("Utterances", "")
    if len(examination.manifests) > 1:
        table.add_column("manifest", overflow="fold")
    table.add_column("lowest", justify="right")
    table.add_column(" " * BINS, no_wrap=True)
    for heading in ("highest", "median"):
        table.add_column(heading, justify="right")
    for quantity in quantities:
        values = [quantity.values(manifest) for manifest in examination.manifests]
        together = [value for each in values for value in each]
        if not together:
            continue
        bounds = edges(min(together), max(together), BINS, quantity.is_log)
        label = quantity.label
        for manifest, own in zip(examination.manifests, values, strict=True):
            if own:
                name = [names[manifest.manifest]] if len(values) > 1 else []
                bars = Text(bar_line(count_bins(own, bounds)), "cyan")
                low, middle, high = own[0], statistics.median(own), own[-1]
                head = map(Text, [label, *name])
                table.add_row(*head, _short(low), bars, _short(high), _short(middle))
                label = ""
    return table


def _overlaps(examination: Examination, names: Mapping[Path, str]) -> Table:
    table = _table("In two manifests", "")
    table.add_column("of", overflow="fold")
    table.add_column("also in", overflow="fold")
    table.add_column("shared", justify="right", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("such as", overflow="fold")
    for each in examination.overlaps:
        table.add_row(
            each.what,
            Text(names[each.second]),
            Text(names[each.first]),
            f"{number(each.shared)} of {number(each.total)}",
            Text(percent(each.share), "yellow" if each.shared else ""),
            Text(visible(", ".join(each.examples))),
        )
    return table


def _findings(findings: Sequence[Finding], names: Mapping[Path, str]) -> Table:
    table = _table("Findings", "")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("kind")
    table.add_column("the first of them", overflow="fold", ratio=1)
    by_kind: dict[Kind, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    for kind in sorted(by_kind, key=lambda kind: (kind.severity.value, -len(by_kind[kind]))):
        own = by_kind[kind]
        table.add_row(
            Text(kind.severity.value, STYLES[kind.severity]),
            number(len(own)),
            Text(kind.plural),
            _examples(own, names),
        )
    return table


def _examples(findings: Iterable[Finding], names: Mapping[Path, str]) -> Text:
    lines = []
    shown = list(findings)
    for finding in shown[:EXAMPLES]:
        place = "" if finding.manifest is None else names[finding.manifest]
        place += "" if finding.line is None else f":{finding.line}"
        name = "" if finding.id is None else f" {visible(finding.id)}"
        reason = Text(f": {visible(finding.reason)}")
        lines.append(Text.assemble((place, "bold"), (name, "dim"), reason))
    if len(shown) > EXAMPLES:
        lines.append(Text(f"and {number(len(shown) - EXAMPLES)} more", "dim"))
    return Text("\n").join(lines)


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column(first, overflow="fold")
    return table


def _count(count: int, severity: Severity) -> Text:
    return Text(number(count), STYLES[severity] if count else "")


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
