"""Manifests and their audio examined before a training, and what that draws and writes."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.atomic_file import replace_bytes
from asr.data.checks import (
    PLAUSIBLE_RATE,
    SILENT_DB,
    Audio,
    Examined,
    ExaminedManifest,
    Overlap,
    check_audio,
    check_characters,
    check_duration,
    check_file,
    check_frames,
    check_text,
    check_words,
    find_duplicates,
    find_misfits,
    find_outliers,
    find_overlaps,
    measure_audio,
    overlap_findings,
)
from asr.data.manifest import Utterance, findings, scan_manifest, utterances, write_manifest
from asr.data.remarks import amount_remark, figure_remark, space_remark, tag_remark
from asr.finding import Finding, Kind, Severity, describe_error, row_of
from asr.lexicon import Lexicon
from asr.picture import png
from asr.text import CharTokenizer, TextNormalizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHUNK = 1024  # utterances handed to the threads at a time
FORMAT = "asr doctor"  # of the JSON file
VERSION = 1
BINS = 40  # of a histogram in the picture
# Blue, orange, green, purple: told apart by the colour-blind too (Okabe and Ito, 2008).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
BAD = "#c0392b"
MARGIN = 1.08  # of an axis around the values


@dataclass(frozen=True)
class Rules:
    """What manifests are held against.

    Attributes:
        text: rules for every transcript.
        alphabet: characters that texts may have; None takes those of the first manifest.
        sample_rate: of the model [Hz].
        output_frames: output frames of so many seconds of audio.
        required_frames: fewest output frames for label ids.
        speed: fastest that the augmentation plays an utterance.
        min_duration_s: of an utterance to train on [s].
        max_duration_s: of an utterance to train on [s]; longer ones are not decoded either.
        shortfall: by how much a normalised text is behind a model's own path, for an utterance
            without an error [nats a frame]; None where no model is to run.
        max_shortfall: what is further behind is a finding, unless the rest is, too: see
            `find_misfits` [nats a frame].
        lexicon: of a model of phones, whose words alone texts may have, of any characters.
    """

    text: TextNormalizer
    alphabet: str | None
    sample_rate: int
    output_frames: Callable[[float], int]
    required_frames: Callable[[Sequence[int]], int]
    speed: float = 1.0
    min_duration_s: float = 0.1
    max_duration_s: float = 40.0
    shortfall: Callable[[Utterance, str], float] | None = None
    max_shortfall: float = math.inf
    lexicon: Lexicon | None = None


@dataclass(frozen=True)
class Examination:
    """What the doctor found out.

    Attributes:
        manifests: one by one, in the order given.
        alphabet: that texts were held against; empty where no text has a character.
        findings: by manifest and line.
        overlaps: of every two manifests.
        notes: what to know of the texts and of how much there is, a sentence or two each.
    """

    manifests: tuple[ExaminedManifest, ...]
    alphabet: str
    findings: tuple[Finding, ...]
    overlaps: tuple[Overlap, ...]
    notes: tuple[str, ...] = ()


def examine(
    paths: Sequence[Path],
    rules: Rules,
    headers_only: bool = False,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Examination:
    """Examine manifests and their audio.

    Args:
        paths: manifests, train before what is measured on: for overlaps the order counts.
        rules: what they are held against.
        headers_only: read the headers of the audio, not the samples.
        jobs: threads that decode.
        progress: told how many utterances of how many are measured, very often.

    Returns:
        Everything found; damaged audio is a finding as anything else.

    Raises:
        ValueError: something that is no manifest, or one without lines.
        OSError: a missing or unreadable manifest.
    """
    rows = [scan_manifest(path) for path in paths]
    texts = [[rules.text(one.text) for one in utterances(each)] for each in rows]
    tokenizer: CharTokenizer | None = None  # where no text has a character: all are findings
    if rules.alphabet is not None and rules.lexicon is None:
        tokenizer = CharTokenizer(rules.alphabet)
    elif any(texts[0]):
        tokenizer = CharTokenizer.from_texts(texts[0])
    labels = CharTokenizer(rules.lexicon.alphabet) if rules.lexicon else tokenizer
    everything = [one for each in rows for one in utterances(each)]
    decode_up_to_s = 0.0 if headers_only else rules.max_duration_s
    measured = _measure_all(everything, decode_up_to_s, jobs, progress)
    num_of_path = Counter(one.audio_filepath for one in everything)
    found: list[Finding] = []
    manifests: list[ExaminedManifest] = []
    for path, own_rows, own_texts in zip(paths, rows, texts, strict=True):
        found += findings(own_rows)
        examined: list[Examined] = []
        for one, text in zip(utterances(own_rows), own_texts, strict=True):
            is_whole = num_of_path[one.audio_filepath] == 1 and not one.offset
            each, own = _examine_one(one, text, next(measured), rules, labels, is_whole)
            is_usable = all(finding.kind.severity is not Severity.ERROR for finding in own)
            if rules.shortfall is not None and is_usable and not headers_only:
                try:
                    each = replace(each, shortfall=rules.shortfall(one, text))
                except ValueError as error:
                    own.append(one.finding(Kind.TEXT_MISFIT, describe_error(error)))
            found += own
            examined.append(each)
        found += chain(find_outliers(examined), find_duplicates(examined))
        found += find_misfits(examined, rules.max_shortfall)
        manifests.append(ExaminedManifest(path, len(own_rows), examined))
    overlaps = find_overlaps(manifests)
    found += overlap_findings(manifests, overlaps)
    alphabet = tokenizer.alphabet if tokenizer else ""
    everything_said = [text for each in texts for text in each]
    first = paths[0].name
    notes = (
        tag_remark([each.text for each in everything], rules.text),
        figure_remark(everything_said) if rules.alphabet is None else None,
        space_remark(first, texts[0]),
        amount_remark(first, manifests[0].seconds, texts[0]),
    )
    return Examination(
        tuple(manifests), alphabet, _in_order(paths, found), tuple(overlaps),
        tuple(filter(None, notes)),
    )  # fmt: skip


def _measure_all(
    everything: Sequence[Utterance],
    decode_up_to_s: float,
    jobs: int,
    progress: Callable[[int, int], None],
) -> Iterator[Audio | Finding]:
    def measure(utterance: Utterance) -> Audio | Finding:
        try:
            return check_file(utterance) or measure_audio(utterance, decode_up_to_s)
        except (ValueError, OSError) as error:
            return utterance.finding(Kind.UNREADABLE_AUDIO, describe_error(error))

    with ThreadPoolExecutor(jobs) as pool:
        for start in range(0, len(everything), CHUNK):
            chunk = everything[start : start + CHUNK]
            for number, result in enumerate(pool.map(measure, chunk), start + 1):
                progress(number, len(everything))
                yield result


def _examine_one(
    utterance: Utterance,
    text: str,
    measured: Audio | Finding,
    rules: Rules,
    tokenizer: CharTokenizer | None,
    is_whole: bool,
) -> tuple[Examined, list[Finding]]:
    """An utterance as far as it is known, and what is wrong with it by itself."""
    normal = replace(utterance, text=text)
    lexicon = rules.lexicon
    if lexicon is not None:
        fault = check_words(normal, lexicon)
    else:
        fault = check_characters(normal, tokenizer) if tokenizer else None
    needed = frames = audio = None
    if tokenizer and text and fault is None:
        needed = rules.required_frames(tokenizer.encode(lexicon.spell(text) if lexicon else text))
    if isinstance(measured, Finding):
        found: list[Finding | None] = [measured]
        duration_s = utterance.duration
    else:
        found = [*check_audio(utterance, measured, rules.sample_rate, is_whole)]
        audio, duration_s = measured, measured.duration_s
    found += [check_text(normal), fault]
    if duration_s is not None:
        frames = rules.output_frames(duration_s / rules.speed)
        found.append(check_duration(normal, duration_s, rules.min_duration_s, rules.max_duration_s))
        if needed:
            found.append(check_frames(normal, duration_s, frames, needed, rules.speed))
    examined = Examined(utterance, text, audio, duration_s, frames, needed)
    return examined, [each for each in found if each is not None]


def _in_order(paths: Sequence[Path], found: Sequence[Finding]) -> tuple[Finding, ...]:
    """By manifest and line, whole manifests last; by kind within a line."""
    place = {path: number for number, path in enumerate(paths)}
    kinds = {kind: number for number, kind in enumerate(Kind)}

    def key(finding: Finding) -> tuple[int, float, int]:
        assert finding.manifest is not None
        line = math.inf if finding.line is None else finding.line
        return place[finding.manifest], line, kinds[finding.kind]

    return tuple(sorted(found, key=key))


# --- distributions -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Quantity:
    """A number that an utterance has, and whose distribution tells about a corpus.

    Attributes:
        name: for people.
        unit: "" for a ratio.
        note: what to look for.
        value: of an utterance; None where it has none.
        is_log: whether equal ratios are shown at equal distances.
        low: below it something is wrong; None for no bound.
        high: above it something is wrong; None for no bound.
    """

    name: str
    unit: str
    note: str
    value: Callable[[Examined], float | None]
    is_log: bool
    low: float | None = None
    high: float | None = None

    @property
    def label(self) -> str:
        """Name and unit."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name

    def values(self, manifest: ExaminedManifest) -> list[float]:
        """Of the utterances that have one, sorted; on a logarithmic scale those above 0."""
        found = (self.value(each) for each in manifest.utterances)
        return sorted(v for v in found if v is not None and (v > 0 or not self.is_log))


def quantities(min_duration_s: float, max_duration_s: float) -> tuple[Quantity, ...]:
    """What the doctor shows, with the bounds of a training's durations [s]."""
    slowest, fastest = PLAUSIBLE_RATE
    return (
        Quantity(
            "duration", "s", "a training takes those between the limits",
            lambda each: each.duration_s, True, min_duration_s, max_duration_s,
        ),
        Quantity(
            "characters a second", "", "far from the rest: wrong text, or cut audio",
            lambda each: each.characters_per_second, True, slowest, fastest,
        ),
        Quantity(
            "level", "dBFS", "at the left: hardly audible",
            lambda each: each.level_db, False, SILENT_DB,
        ),
        Quantity(
            "output frames per frame needed", "", "below 1 CTC has no path",
            lambda each: each.slack, True, 1.0,
        ),
    )  # fmt: skip


def shortfall_quantity(max_shortfall: float) -> Quantity:
    """What is shown besides where a model has run: by how much texts are behind its own path."""
    return Quantity(
        "text behind the hypothesis", "nats a frame", "at the right: the text is likely wrong",
        lambda each: each.shortfall, False, None, max_shortfall,
    )  # fmt: skip


def edges(low: float, high: float, count: int, is_log: bool) -> list[float]:
    """`count + 1` edges of bins of equal width, or of equal ratio.

    Args:
        low: the first edge; above 0 for equal ratios.
        high: the last edge; where it is no higher than the first, one a little higher is taken.
        count: of bins.
        is_log: equal ratios.
    """
    # NumPy gives just the first and the last edge: no value is outside of them.
    if is_log:
        bounds = np.geomspace(low, max(high, low * (1 + 1e-6)), count + 1)
    else:
        bounds = np.linspace(low, max(high, low + 1e-6), count + 1)
    return [float(edge) for edge in bounds]


# --- what is written ---------------------------------------------------------------------------


def examination_to_json(
    examination: Examination, min_duration_s: float, max_duration_s: float
) -> str:
    """Everything, for programs; ASCII, so that no name in it does anything to a terminal.

    Args:
        examination: what was found.
        min_duration_s: of a training [s].
        max_duration_s: of a training [s].
    """

    def totals(manifest: ExaminedManifest) -> dict[str, Any]:
        shown = quantities(min_duration_s, max_duration_s)
        values = {quantity.label: quantity.values(manifest) for quantity in shown}
        return {
            "manifest": str(manifest.manifest),
            "lines": manifest.lines,
            "utterances": len(manifest.utterances),
            "seconds": manifest.seconds,
            "speakers": len(manifest.speakers),
            "sample_rates": {str(rate): count for rate, count in manifest.sample_rates.items()},
            "distributions": {
                label: {"lowest": own[0], "median": statistics.median(own), "highest": own[-1]}
                for label, own in values.items()
                if own
            },
        }

    severities = Counter(finding.kind.severity for finding in examination.findings)
    kinds = Counter(finding.kind for finding in examination.findings)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "alphabet": examination.alphabet,
        "errors": severities[Severity.ERROR],
        "warnings": severities[Severity.WARNING],
        "kinds": {kind.value: count for kind, count in kinds.most_common()},
        "manifests": [totals(each) for each in examination.manifests],
        "overlaps": [
            asdict(each) | {"first": str(each.first), "second": str(each.second)}
            for each in examination.overlaps
        ],
        "notes": list(examination.notes),
        "findings": [row_of(finding) for finding in examination.findings],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def clean_utterances(
    examination: Examination, manifest: ExaminedManifest, also: Collection[Kind] = ()
) -> list[Utterance]:
    """The utterances of a manifest, as it has them, without those with an error.

    Args:
        examination: what was found.
        manifest: one of its manifests.
        also: kinds of warnings whose utterances go as well.
    """
    dropped = {
        finding.line
        for finding in examination.findings
        if finding.manifest == manifest.manifest
        and (finding.kind.severity is Severity.ERROR or finding.kind in also)
    }
    return [each.utterance for each in manifest.utterances if each.utterance.line not in dropped]


def clean_paths(manifests: Sequence[Path], target: Path) -> list[Path]:
    """Where the cleaned manifests go: one to the target itself, several into it as a folder.

    Raises:
        ValueError: a name that is not a JSONL file's, two manifests of one name, or a file that
            would overwrite a manifest that is examined.
    """
    if len(manifests) == 1:
        if target.suffix != ".jsonl":
            raise ValueError(f"{target}: not a name for a manifest, expected one ending in .jsonl")
        paths = [target]
    else:
        paths = [target / f"{path.stem}.jsonl" for path in manifests]
        twice = next((path for path in paths if paths.count(path) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice}: two manifests would be written to it, expected one each")
    read = {path.resolve() for path in manifests}
    over = next((path for path in paths if path.resolve() in read), None)
    if over is not None:
        raise ValueError(f"{over}: is examined, expected another file to write what is left of it")
    return paths


def write_clean(
    examination: Examination, paths: Sequence[Path], also: Collection[Kind] = ()
) -> list[int]:
    """Write the cleaned manifests; returns the number of utterances of each.

    Raises:
        ValueError: a manifest of which nothing is left; nothing is written then.
        OSError: from writing.
    """
    cleaned = [clean_utterances(examination, each, also) for each in examination.manifests]
    for manifest, left in zip(examination.manifests, cleaned, strict=True):
        if not left:
            raise ValueError(f"{manifest.manifest}: no utterance is left, expected at least one")
    for path, left in zip(paths, cleaned, strict=True):
        write_manifest(path, left)
    return [len(left) for left in cleaned]


def draw_examination(
    examination: Examination, path: Path, min_duration_s: float, max_duration_s: float
) -> None:
    """Draw the histograms of durations, characters a second, levels and CTC's slack.

    Every manifest is a line of its own colour, in per cent of its utterances; what a training
    cannot use is on red ground.

    Args:
        examination: what was found.
        path: of the picture, a PNG.
        min_duration_s: of a training [s].
        max_duration_s: of a training [s].

    Raises:
        OSError: from writing.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    grid: Any = figure.subplots(2, 2)
    for axes, quantity in zip(grid.flat, quantities(min_duration_s, max_duration_s), strict=True):
        _draw(axes, quantity, examination)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside upper left", ncols=3, frameon=False, fontsize=11
        )
    replace_bytes(path, png(figure))


def _draw(axes: Axes, quantity: Quantity, examination: Examination) -> None:
    values = [quantity.values(manifest) for manifest in examination.manifests]
    together = [value for each in values for value in each]
    axes.set_title(quantity.label, loc="left", fontsize=11, fontweight="bold")
    axes.set_title(quantity.note, loc="right", fontsize=9, color="0.45")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(which="both", length=0, colors="0.35")
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    if not together:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color="0.5")
        axes.set(xticks=[], yticks=[])
        return
    bounds = edges(min(together), max(together), BINS, quantity.is_log)
    for number, (manifest, own) in enumerate(zip(examination.manifests, values, strict=True)):
        colour, path = COLOURS[number % len(COLOURS)], manifest.manifest
        # Its folder and name, as much as fits a legend; `$` would begin a formula.
        name = f"{path.absolute().parent.name}/{path.name}".replace("$", r"\$")
        axes.hist(
            own, bins=bounds, weights=[100 / len(own)] * len(own) if own else None,
            histtype="stepfilled", facecolor=(colour, 0.05 if number else 0.3), edgecolor=colour,
            linewidth=1.6, label=f"{name}, {len(own):,} utterances",
        )  # fmt: skip
    _scale(axes, quantity, min(together), max(together))
    axes.yaxis.set_major_formatter(lambda share, position: f"{share:g} %")


def _scale(axes: Axes, quantity: Quantity, low: float, high: float) -> None:
    """The axis around the values, and red ground beyond the bounds that lie near them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if quantity.is_log:
        axes.set_xscale("log")
        # 1, 1.5, 2, 3, 5, 7 and their tenfolds, as far as they are on the axis.
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        if quantity.low is not None and quantity.low < low < 2 * quantity.low:
            low = quantity.low / MARGIN  # how near is it?
        low, high = low / MARGIN, high * MARGIN
    else:
        margin = (high - low) * (MARGIN - 1) + 1e-3
        low, high = low - margin, high + margin
    axes.set_xlim(low, high)
    if quantity.low is not None and quantity.low > low:
        axes.axvspan(low, quantity.low, color=BAD, alpha=0.12, linewidth=0)
    if quantity.high is not None and quantity.high < high:
        axes.axvspan(quantity.high, high, color=BAD, alpha=0.12, linewidth=0)
