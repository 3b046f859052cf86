"""The parts of the page that show utterances: those with most errors, and the list of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from asr.metrics.error_rate import AlignedWord
from asr.report.alignment import Gap, excerpt
from asr.report.clip import Clips, embedded_clip
from asr.report.evaluation import EvaluatedUtterance, Evaluation, worst
from asr.report.markup import Content, Markup, element
from asr.report.number import counted, length, percent
from asr.report.section import note, paged_table, section
from asr.report.visible import visible

NO_SPEAKER = "(none given)"
_WORST = 10

_MARKS = {"substitute": ("sub", "S", "ubstituted"), "delete": ("del", "D", "eleted")} | {
    "insert": ("ins", "I", "nserted")
}
_COLUMNS = (
    ("id", "Utterance"),
    ("speaker", "Speaker"),
    ("duration", "Seconds"),
    ("words", "Words"),
    ("errors", "Errors"),
    ("rate", "WER"),
    ("text", "Transcript"),
)
_KINDS = (
    ("", "All"),
    ("wrong", "With errors"),
    ("right", "Entirely right"),
    ("sub", "With substitutions"),
    ("del", "With deletions"),
    ("ins", "With insertions"),
)


def worst_section(evaluation: Evaluation, clips: Clips) -> Markup:
    """The utterances with the most errors, reference over hypothesis, with room for a player."""
    shown = worst(evaluation, _WORST)
    if not shown:
        return section("worst", "Most errors", note("Every utterance is entirely right."))
    legend = note(
        "Upper line: what was said. Lower line: what was heard, ",
        *(
            element("span", element("b", letter), f"\u00a0{letter.lower()}{rest}, ", class_=class_)
            for class_, letter, rest in _MARKS.values()
        ),
        "long stretches without an error cut.",
        _picture_legend() if clips.by_id else "",
    )
    places = {each.id: place for place, each in enumerate(evaluation.utterances)}
    articles = (
        _worst_utterance(each, places[each.id] if each.id in clips.by_id else None)
        for each in shown
    )
    return section("worst", "Most errors", legend, *articles)


def error_marks() -> tuple[Content, ...]:
    """How errors look in an aligned text, for a legend."""
    return (
        element("del", "said"),
        " ",
        element("ins", "heard"),
        " in place of it; ",
        element("del", "deleted", class_="del"),
        "; ",
        element("ins", "+inserted", class_="ins"),
    )


def list_section(clips: Clips) -> Markup:
    """The place for the list of all utterances, which the script fills."""
    table = paged_table("All utterances", _COLUMNS)
    legend = note(
        *error_marks(),
        ". A click on an utterance's name opens it",
        ", and those with ♪ can be heard" if clips.by_id else "",
        ". Keys: / searches, ↑ and ↓ go from name to name, Enter opens.",
    )
    return section(
        "utterances",
        "All utterances",
        element("noscript", note("This list needs JavaScript; evaluation.json has all of it.")),
        element("div", legend, _filters(bool(clips.by_id)), table, id="browser", hidden="hidden"),
    )


def embedded_utterances(evaluation: Evaluation, clips: Clips) -> dict[str, object]:
    """What the script fills the list with, every text visible."""
    utterances = evaluation.utterances
    speakers = sorted(
        {each.speaker for each in utterances},
        key=lambda speaker: (speaker is None, speaker or ""),
    )
    places = {speaker: place for place, speaker in enumerate(speakers)}
    names = sorted({name for each in utterances for name in each.fields})
    # A field's values are few and come often, so that each stands here once.
    values = [sorted({each.fields[name] for each in utterances if name in each.fields})
              for name in names]  # fmt: skip
    value_places = [{value: place for place, value in enumerate(each)} for each in values]
    return {
        "speakers": [NO_SPEAKER if name is None else visible(name) for name in speakers],
        "noSpeaker": NO_SPEAKER,
        "fields": [
            {"name": visible(name), "values": [visible(value) for value in of_name]}
            for name, of_name in zip(names, values, strict=True)
        ],
        "utterances": [
            [
                visible(each.id),
                visible(each.audio_filepath),
                places[each.speaker],
                round(each.duration_s, 3),
                None if each.snr_db is None else round(each.snr_db, 1),
                [
                    of_name[each.fields[name]] if name in each.fields else None
                    for name, of_name in zip(names, value_places, strict=True)
                ],
                embedded_steps(each.errors.alignment.words),
            ]
            for each in utterances
        ],
        "clips": {
            str(place): embedded_clip(clips.by_id[each.id])
            for place, each in enumerate(utterances)
            if each.id in clips.by_id
        },
    }


def embedded_steps(words: Iterable[AlignedWord]) -> list[list[str]]:
    """Steps as [right words], [said, heard], with an empty text for what is absent."""
    steps: list[list[str]] = []
    for equal, run in groupby(words, lambda word: word.kind == "equal"):
        if equal:
            steps.append([" ".join(visible(word.reference or "") for word in run)])
        else:
            steps.extend(
                [visible(word.reference or ""), visible(word.hypothesis or "")] for word in run
            )
    return steps


def speaker_name(speaker: str | None) -> Content:
    """A speaker in a direction of writing of its own, or that none is given."""
    return NO_SPEAKER if speaker is None else element("bdi", speaker)


def _picture_legend() -> str:
    return (
        " The picture is what the model hears: time to the right, pitch upwards, loud sounds far "
        "from the colour of the page. Below it are the characters of both texts, those said on "
        "their likeliest path, those heard where the decoder has them, on bars as tall as the "
        "model was sure. A click in the picture goes there; so do the arrow keys."
    )


def _filters(audible: bool) -> Markup:
    anyone = element("option", "All speakers", value="")
    kinds = [element("option", label, value=value) for value, label in _KINDS]
    rate = [
        element(
            "input", type="number", id=id, min="0", step="any", placeholder=hint, aria_label=label
        )
        for id, hint, label in (
            ("low", "0", "Lowest WER in per cent"),
            ("high", "any", "Highest WER in per cent"),
        )
    ]
    sound = [
        element("label", element("input", type="checkbox", id="audible"), " With sound")
        for _ in range(audible)
    ]
    return element(
        "div",
        element("label", "Search ", element("input", type="search", id="search")),
        element("label", "Speaker ", element("select", anyone, id="speaker")),
        element("label", "Errors ", element("select", *kinds, id="kind")),
        element("span", "WER ", rate[0], " to ", rate[1], "\u202f%", class_="range"),
        *sound,
        element("button", type="button", id="pair", hidden="hidden", class_="chip"),
        element("button", "Clear", type="button", id="clear"),
        class_="filters",
        role="search",
    )


def _worst_utterance(utterance: EvaluatedUtterance, clip: int | None) -> Markup:
    words = utterance.errors.words
    meta: list[Content] = [
        element("strong", counted(words.errors, "error")),
        f" in {counted(words.reference_length, 'word')}, {percent(words.rate)} · "
        f"{length(utterance.duration_s)} · ",
        speaker_name(utterance.speaker),
        " · ",
        element("bdi", utterance.audio_filepath, class_="path"),
    ]
    return element(
        "article",
        element("h3", element("bdi", utterance.id)),
        element("p", *meta, class_="meta"),
        aligned(tuple(excerpt(utterance.errors.alignment.words))),
        "" if clip is None else element("div", data_clip=str(clip)),
    )


def aligned(words: Sequence[AlignedWord | Gap]) -> Markup:
    """Reference over hypothesis, each error with its letter."""
    return element("div", *map(_pair, words), class_="alignment", dir="auto")


def _pair(word: AlignedWord | Gap) -> Markup:
    if isinstance(word, Gap):
        return element("span", f"… {counted(word.num_words, 'word')} …", class_="cut")
    class_, letter, rest = _MARKS.get(word.kind, ("hit", "", ""))
    mark = [element("b", letter, element("span", rest, class_="aside"))] if letter else []
    return element(
        "span",
        element("span", word.reference or "—", class_="said"),
        element("span", word.hypothesis or "—", class_="heard"),
        *mark,
        class_=f"pair {class_}",
    )
