"""What asr doctor prints: an examination of manifests as a person reads it."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from asr.data.doctor import Examination, Quantity, edges
from asr.finding import Finding, Kind, Severity
from asr.report.wording import counted, length, number, percent, visible

BINS = 20  # of a histogram, one character each
BLOCKS = " ▁▂▃▄▅▆▇█"
EXAMPLES = 3  # findings shown of each kind
STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow"}


def examination_view(
    examination: Examination, shown: Sequence[Quantity]
) -> Iterator[RenderableType]:
    """Give the parts of the report, from the whole to the details, the verdict last."""
    found = examination.findings
    names = _names([each.manifest for each in examination.manifests])
    yield _manifests(examination)
    alphabet = visible(examination.alphabet)
    yield Text(f"alphabet of {counted(len(examination.alphabet), 'character')}: {alphabet!r}\n")
    yield _distributions(examination, shown, names)
    if examination.overlaps:
        yield _overlaps(examination, names)
    if found:
        yield _findings(found, names)
    for note in examination.notes:
        yield Text(f"note: {visible(note)}\n")
    counts = Counter(finding.kind.severity for finding in found)
    errors, warnings = (
        (counted(counts[severity], severity.value), STYLES[severity] if counts[severity] else "")
        for severity in Severity
    )
    lines = sum(manifest.lines for manifest in examination.manifests)
    yield Text.assemble(errors, ", ", warnings, f" in {counted(lines, 'line')}")


def _names(manifests: Sequence[Path]) -> dict[Path, str]:
    """Name each by its file, with as many folders in front as tell it from the others."""
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


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column(first, overflow="fold")
    return table


def _manifests(examination: Examination) -> Table:
    found = Counter((each.manifest, each.kind.severity) for each in examination.findings)
    table = _table("Manifests", "manifest")
    for heading in ("lines", "audio", "speakers", "sample rate", "errors", "warnings"):
        table.add_column(heading, justify="right")
    for manifest in examination.manifests:
        rates = sorted(manifest.sample_rates)
        counts = {severity: found[manifest.manifest, severity] for severity in Severity}
        table.add_row(
            Text(visible(str(manifest.manifest))),
            number(manifest.lines),
            length(manifest.seconds),
            number(len(manifest.speakers)) if manifest.speakers else "not named",
            ", ".join(f"{rate}" for rate in rates) + " Hz" if rates else "unknown",
            *(Text(number(count), STYLES[kind] if count else "") for kind, count in counts.items()),
        )
    return table


def _distributions(
    examination: Examination, shown: Sequence[Quantity], names: Mapping[Path, str]
) -> Table:
    table = _table("Utterances", "")
    if len(examination.manifests) > 1:
        table.add_column("manifest", overflow="fold")
    table.add_column("lowest", justify="right")
    table.add_column(" " * BINS, no_wrap=True)
    for heading in ("highest", "median"):
        table.add_column(heading, justify="right")
    for quantity in shown:
        values = [quantity.values(manifest) for manifest in examination.manifests]
        together = [value for each in values for value in each]
        if not together:
            continue
        bounds = edges(min(together), max(together), BINS, quantity.is_log)
        label = quantity.label
        for manifest, own in zip(examination.manifests, values, strict=True):
            if own:
                name = [names[manifest.manifest]] if len(values) > 1 else []
                bars = Text(bar_line(np.histogram(own, bounds)[0].tolist()), "cyan")
                low, high, middle = (
                    f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
                    for value in (own[0], own[-1], statistics.median(own))
                )
                table.add_row(*map(Text, [label, *name]), low, bars, high, middle)
                label = ""
    return table


def bar_line(counts: Sequence[int]) -> str:
    """Draw a histogram in a line of text: a bar an eighth of it high for any bin with a value."""
    most = max(counts, default=0) or 1
    return "".join(BLOCKS[math.ceil(8 * count / most)] for count in counts)


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


def _findings(found: Sequence[Finding], names: Mapping[Path, str]) -> Table:
    table = _table("Findings", "")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("kind")
    table.add_column("the first of them", overflow="fold", ratio=1)
    by_kind: dict[Kind, list[Finding]] = {}
    for finding in found:
        by_kind.setdefault(finding.kind, []).append(finding)
    for kind in sorted(by_kind, key=lambda kind: (kind.severity.value, -len(by_kind[kind]))):
        own = by_kind[kind]
        examples = []
        for finding in own[:EXAMPLES]:
            place = "" if finding.manifest is None else names[finding.manifest]
            place += "" if finding.line is None else f":{finding.line}"
            name = "" if finding.id is None else f" {visible(finding.id)}"
            reason = Text(f": {visible(finding.reason)}")
            examples.append(Text.assemble((place, "bold"), (name, "dim"), reason))
        if len(own) > EXAMPLES:
            examples.append(Text(f"and {number(len(own) - EXAMPLES)} more", "dim"))
        severity = Text(kind.severity.value, STYLES[kind.severity])
        table.add_row(severity, number(len(own)), Text(kind.plural), Text("\n").join(examples))
    return table
