"""Pages: an evaluation, or systems compared, as one HTML file that needs nothing beside it.

The templates escape every value that they write, and make visible what would act in it; a value
that is not there is an error. Style and script are known to the page's policy by their hashes, and
nothing else may run, or be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from asr.metrics.error_rate import Confusion, confusions
from asr.metrics.interval import Interval
from asr.report import plots, wording
from asr.report.clips import Clips, embedded_clip
from asr.report.comparison import Comparison, page_data, verdict
from asr.report.evaluation import SPEAKER, Evaluation, Slice, by_speaker, worst
from asr.report.evaluation_file import dump_json
from asr.report.wording import NOT_GIVEN, compact, percent, visible

STYLES = ("page", "utterances")
SCRIPTS = {  # in the order in which they run
    "evaluation": ("page", "alignment", "player", "list", "evaluation"),
    "comparison": ("page", "alignment", "player", "list", "comparison"),
}
SLICE_TITLES = {
    SPEAKER: "By speaker",
    "duration": "By duration",
    "reference_length": "By length of the reference",
    "snr": "By signal-to-noise ratio",
}
MAX_LEFT_OUT = 5  # named at the top
MAX_CONFUSIONS = 12  # of each kind
MAX_WORST = 10
ENOUGH_WORDS = 20  # a speaker with fewer is no finding


def render_evaluation(evaluation: Evaluation, clips: Clips | None = None) -> str:
    """Render the report of an evaluation.

    Args:
        evaluation: the scored evaluation.
        clips: utterances to hear and see; None for none.

    Returns:
        A whole document, to be written as UTF-8.
    """
    clips = clips or Clips()
    data = embed_json(_evaluation_data(evaluation, clips))
    overall = evaluation.words.rate
    slices = []
    for each in evaluation.slices:
        described = (
            f"Columns of {evaluation.unit} error rate by {each.by}; "
            "the table below has the numbers."
        )
        rows = [(row.words, row.interval) for row in each.rows]
        picture = (
            plots.rates(rows, overall)
            if each.highest is None
            else plots.columns(each, overall, described, evaluation.rate_name)
        )
        slices.append((each, Markup(picture)))
    pictures = {
        "words": Markup(plots.stack(evaluation.words)),
        "characters": Markup(plots.stack(evaluation.characters)),
        "slices": slices,
        "reliability": evaluation.reliability and Markup(plots.diagram(evaluation.reliability)),
    }
    return _render(
        "evaluation",
        data,
        title=f"{percent(overall, 2)} {evaluation.rate_name}, {evaluation.heading}",
        heading=evaluation.heading,
        evaluation=evaluation,
        findings=_findings(evaluation),
        pictures=pictures,
        confused=confusions((each.errors for each in evaluation.utterances), MAX_CONFUSIONS),
        worst=worst(evaluation, MAX_WORST),
        places={each.id: place for place, each in enumerate(evaluation.utterances)},
        clips=clips,
        num_data_bytes=len(data.encode()),
    )


def render_comparison(comparison: Comparison, pages: Sequence[str | None]) -> str:
    """Render the page of a comparison.

    Args:
        comparison: of two systems or more.
        pages: for each system the address of its own report, seen from this page and already
            percent-encoded; None where there is none to link to.

    Returns:
        A whole document, to be written as UTF-8.
    """
    systems = comparison.systems
    if len(pages) != len(systems):
        raise ValueError(f"pages: got {len(pages)}, expected {len(systems)}")
    # Names without the folders that all of them lie in.
    paths = [system.name.split("/") for system in systems]
    while len({path[0] for path in paths}) == 1 and min(map(len, paths)) > 1:
        paths = [path[1:] for path in paths]
    names = ["/".join(path) for path in paths]
    rates = [(each.evaluation.words, each.evaluation.intervals.words) for each in systems]
    first = systems[0].evaluation
    return _render(
        "comparison",
        embed_json(page_data(comparison, pages)),
        title=f"{' against '.join(names)}, {first.corpus}",
        heading=first.corpus,
        comparison=comparison,
        names=names,
        pages=pages,
        rates=Markup(plots.rates(rates, first.words.rate)),
        histograms=[Markup(plots.histogram(pair.differences)) for pair in comparison.pairs],
    )


def embed_json(value: object) -> str:
    """Write JSON that is safe inside a script element: nothing in it can end that or a line."""
    text = dump_json(value)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


# --- what templates write ----------------------------------------------------------------------


def _render(name: str, data: str, **values: Any) -> str:
    style = "\n".join(_own(f"{each}.css") for each in STYLES)
    script = "\n".join(_own(f"{each}.js") for each in SCRIPTS[name])
    policy = (
        f"default-src 'none'; style-src '{_sha256(style)}'; script-src '{_sha256(script)}'; "
        "img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    )
    # A lone surrogate in data has been made visible by now, so that UTF-8 holds everything.
    return (
        environment()
        .get_template(f"{name}.html")
        .render(
            policy=policy, style=Markup(style), script=Markup(script), data=Markup(data), **values
        )
    )


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """Make what renders the templates: every value visible and escaped, none left out."""

    def finalized(value: object) -> object:
        # Markup as it is, a text visible; it is escaped after that.
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    def ends(interval: Interval) -> str:
        low = percent(interval.low, 2).removesuffix("\u202f%")
        return f"{low} to {percent(interval.high, 2)}"

    def points(difference: float) -> str:
        sign = "\u2212" if difference < 0 else "+" if difference > 0 else "±"
        return f"{sign}{100 * abs(difference):.2f}\u202fpoints"

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("asr.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "audio_length": wording.length,
        "between": wording.between,
        "counted": wording.counted,
        "ends": ends,
        "excerpt": wording.excerpt,
        "megabytes": lambda size: f"{size / 1e6:.{1 if size >= 1e5 else 2}f}\u202fMB",
        "minus": lambda text: text.replace("-", "\u2212"),
        "number": wording.number,
        "p_value": wording.p_value,
        "percent": percent,
        "points": points,
        "setting": wording.setting_text,
        "told": wording.told,
        "verdict": verdict,
    }
    made.globals |= {
        "MAX_LEFT_OUT": MAX_LEFT_OUT,
        "NOT_GIVEN": NOT_GIVEN,
        "SLICE_TITLES": SLICE_TITLES,
        "bounds": wording.bounds,
    }
    return made


def _own(name: str) -> str:
    """Read a style sheet or script of this package, which HTML does not escape."""
    source = (files("asr.report") / "templates" / name).read_text(encoding="utf-8")
    assert not any(end in source for end in ("</", "<!--")), f"{name} would end its element"
    return source


def _sha256(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


# --- what the page of an evaluation tells -------------------------------------------------------


@dataclass(frozen=True)
class _Findings:
    """Where the errors are: what the top of the page says in words.

    Attributes:
        num_right: utterances without an error.
        num_speakers: that are given.
        kind: of most errors.
        num_half: the fewest utterances that hold half of the errors.
        speakers: with enough words to tell, the highest rate first; empty where there are not two.
        confusions: the most frequent one; empty where it came once.
    """

    num_right: int
    num_speakers: int
    kind: str
    num_half: int
    speakers: tuple[Slice, ...]
    confusions: tuple[Confusion, ...]


def _findings(evaluation: Evaluation) -> _Findings:
    words, wrong = evaluation.words, worst(evaluation)
    num_half = errors = 0
    while errors < words.errors / 2:
        errors += wrong[num_half].errors.words.errors
        num_half += 1
    enough = tuple(
        row
        for row in by_speaker(evaluation)
        if row.words.reference_length >= ENOUGH_WORDS and math.isfinite(row.words.rate)
    )
    found = confusions((each.errors for each in evaluation.utterances), 1).substitutions
    return _Findings(
        num_right=len(evaluation.utterances) - len(wrong),
        num_speakers=len({each.speaker for each in evaluation.utterances} - {None}),
        kind=max((name for name, _ in plots.KINDS), key=lambda name: int(getattr(words, name))),
        num_half=num_half,
        speakers=enough if len(enough) > 1 else (),
        confusions=tuple(each for each in found if each.count > 1),
    )


def _evaluation_data(evaluation: Evaluation, clips: Clips) -> dict[str, object]:
    """Make what the script fills the list with, every text visible."""
    utterances = evaluation.utterances
    speakers = sorted(
        {each.speaker for each in utterances},
        key=lambda speaker: (speaker is None, speaker or ""),
    )
    speaker_places = {speaker: place for place, speaker in enumerate(speakers)}
    names = sorted({name for each in utterances for name in each.fields})
    # A field's values are few and come often, so that each stands here once.
    values = [Counter(each.fields[name] for each in utterances if name in each.fields)
              for name in names]  # fmt: skip
    places = [{value: place for place, value in enumerate(sorted(each))} for each in values]
    return {
        "gap": "" if evaluation.unit == "character" else " ",
        "speakers": [NOT_GIVEN if name is None else visible(name) for name in speakers],
        "noSpeaker": NOT_GIVEN,
        "fields": [
            {"name": visible(name), "values": [visible(value) for value in of_name]}
            for name, of_name in zip(names, places, strict=True)
        ],
        "utterances": [
            [
                visible(each.id),
                visible(each.audio_filepath),
                speaker_places[each.speaker],
                round(each.duration_s, 3),
                None if each.snr_db is None else round(each.snr_db, 1),
                [
                    of_name[each.fields[name]] if name in each.fields else None
                    for name, of_name in zip(names, places, strict=True)
                ],
                compact(each.errors.alignment, evaluation.unit),
            ]
            for each in utterances
        ],
        "clips": {
            str(place): embedded_clip(clips.by_id[each.id])
            for place, each in enumerate(utterances)
            if each.id in clips.by_id
        },
    }
