"""The parts of the page that go into detail: speakers, durations, confusions, utterances."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from asr.metrics.error_rate import AlignedWord, Confusion, confusions
from asr.report.alignment import Gap, excerpt
from asr.report.chart import duration_chart, plain_bar, stacked_bar
from asr.report.evaluation import (
    DurationErrors,
    EvaluatedUtterance,
    Evaluation,
    SpeakerErrors,
    by_duration,
    by_speaker,
    worst,
)
from asr.report.json_file import dump_json
from asr.report.markup import Content, Markup, element, join, raw_element
from asr.report.number import counted, length, number, percent
from asr.report.visible import visible

NO_SPEAKER = "(none given)"
_CONFUSIONS = 12
_WORST = 20

_MARKS = {"substitute": ("sub", "S", "ubstituted"), "delete": ("del", "D", "eleted")} | {
    "insert": ("ins", "I", "nserted")
}


def speaker_section(evaluation: Evaluation) -> Markup:
    """The table by speaker, the highest WER first."""
    rows = by_speaker(evaluation)
    everyone = SpeakerErrors(
        None,
        len(evaluation.utterances),
        evaluation.duration_s,
        evaluation.words,
        evaluation.characters,
    )
    highest = max((row.words.rate for row in rows if math.isfinite(row.words.rate)), default=0.0)
    head = ("Speaker", "WER", "By kind of error", "S", "D", "I", "CER", "Words", "Utterances")
    return _section(
        "speakers",
        "By speaker",
        _note("Highest word error rate first. The bars share one scale."),
        _table(
            "Errors by speaker",
            (*head, "Audio"),
            [_speaker_row(row, _name(row.speaker), highest) for row in rows],
            _speaker_row(everyone, "All", highest),
        ),
    )


def duration_section(evaluation: Evaluation) -> Markup:
    """WER by duration of the utterance, as a chart and as its numbers."""
    rows = by_duration(evaluation)
    head = ("Duration", "WER", "S", "D", "I", "Words", "Utterances")
    table = _table("Errors by duration", head, [_duration_row(row) for row in rows])
    return _section(
        "durations",
        "By duration",
        _note(
            "Upper columns: word error rate in per cent, split as above, of the utterances of that "
            "duration. Lower columns: how many these are. The last takes all longer ones as well."
        ),
        duration_chart(rows),
        element("details", element("summary", "The numbers"), table),
    )


def confusion_section(evaluation: Evaluation) -> Markup:
    """The most frequent substitutions, deletions and insertions."""
    found = confusions((each.errors for each in evaluation.utterances), _CONFUSIONS)
    return _section(
        "confusions",
        "Most frequent confusions",
        element(
            "div",
            _confusion_table("Substituted", "sub", ("Said", "Heard"), found.substitutions),
            _confusion_table("Deleted", "del", ("Said",), found.deletions),
            _confusion_table("Inserted", "ins", ("Heard",), found.insertions),
            class_="columns",
        ),
    )


def worst_section(evaluation: Evaluation) -> Markup:
    """The utterances with the most errors, reference over hypothesis."""
    shown = worst(evaluation, _WORST)
    if not shown:
        return _section("worst", "Most errors", _note("Every utterance is entirely right."))
    legend = _note(
        "Upper line: what was said. Lower line: what was heard, ",
        *(
            element("span", element("b", letter), f"\u00a0{letter.lower()}{rest}, ", class_=class_)
            for class_, letter, rest in _MARKS.values()
        ),
        "long stretches without an error cut.",
    )
    return _section("worst", "Most errors", legend, *map(_worst_utterance, shown))


def utterance_section(evaluation: Evaluation) -> Markup:
    """The place for the list of all utterances and, as JSON, what the script fills it with."""
    head = (
        ("id", "Utterance"),
        ("speaker", "Speaker"),
        ("duration", "Seconds"),
        ("words", "Words"),
        ("errors", "Errors"),
        ("rate", "WER"),
        ("text", "Transcript"),
    )
    sorting = [
        element(
            "th",
            element("button", label, type="button", data_key=key),
            scope="col",
            role="columnheader",
        )
        for key, label in head
    ]
    table = element(
        "table",
        element("caption", "All utterances", class_="aside"),
        element("thead", element("tr", *sorting, role="row"), role="rowgroup"),
        element("tbody", role="rowgroup"),
        class_="list",
        role="table",
    )
    pager = element(
        "div",
        element("button", "Previous", type="button", id="previous"),
        element("span", id="range", role="status"),
        element("button", "Next", type="button", id="next"),
        class_="pager",
    )
    note = _note(
        element("del", "said"),
        " ",
        element("ins", "heard"),
        " in place of it; ",
        element("del", "deleted", class_="del"),
        "; ",
        element("ins", "+inserted", class_="ins"),
        ".",
    )
    return _section(
        "utterances",
        "All utterances",
        element("noscript", _note("This list needs JavaScript; evaluation.json has all of it.")),
        element("div", note, _filters(), table, pager, id="browser", hidden="hidden"),
        raw_element(
            "script", embed_json(_embedded(evaluation)), type="application/json", id="data"
        ),
    )


def embed_json(value: object) -> str:
    """JSON that is safe inside a script element: nothing in it can end the element or a line."""
    text = dump_json(value)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _filters() -> Markup:
    anyone = element("option", "All speakers", value="")
    return element(
        "div",
        element("label", "Search ", element("input", type="search", id="search")),
        element("label", "Speaker ", element("select", anyone, id="speaker")),
        element("label", element("input", type="checkbox", id="wrong"), " Only with errors"),
        class_="filters",
    )


def _embedded(evaluation: Evaluation) -> object:
    speakers = sorted(
        {each.speaker for each in evaluation.utterances},
        key=lambda speaker: (speaker is None, speaker or ""),
    )
    places = {speaker: place for place, speaker in enumerate(speakers)}
    return {
        "speakers": [NO_SPEAKER if name is None else visible(name) for name in speakers],
        "utterances": [
            [
                visible(each.id),
                visible(each.audio_filepath),
                places[each.speaker],
                round(each.duration_s, 3),
                each.errors.words.reference_length,
                each.errors.words.errors,
                _steps(each.errors.alignment.words),
            ]
            for each in evaluation.utterances
        ],
    }


def _steps(words: Iterable[AlignedWord]) -> list[list[str]]:
    """Steps as [right word], [said, heard], with an empty text for what is absent."""
    return [
        [visible(word.reference or "")]
        if word.kind == "equal"
        else [visible(word.reference or ""), visible(word.hypothesis or "")]
        for word in words
    ]


def _name(speaker: str | None) -> Content:
    return NO_SPEAKER if speaker is None else element("bdi", speaker)


def _speaker_row(row: SpeakerErrors, name: Content, highest: float) -> Markup:
    words = row.words
    bar = stacked_bar(words, highest * words.reference_length)
    return _row(
        name,
        element("strong", percent(words.rate)),
        bar,
        *map(number, (words.substitutions, words.deletions, words.insertions)),
        percent(row.characters.rate),
        number(words.reference_length),
        number(row.num_utterances),
        length(row.duration_s),
    )


def _duration_row(row: DurationErrors) -> Markup:
    words = row.words
    last = math.isinf(row.end_s)
    bounds = (
        f"{row.start_s:g}\u202fs or more" if last else f"{row.start_s:g} to {row.end_s:g}\u202fs"
    )
    return _row(
        bounds,
        percent(words.rate),
        *map(number, (words.substitutions, words.deletions, words.insertions)),
        number(words.reference_length),
        number(row.num_utterances),
    )


def _confusion_table(
    title: str, class_: str, head: Sequence[str], found: Sequence[Confusion]
) -> Markup:
    heading = element("h3", title, class_=class_)
    if not found:
        return element("div", heading, _note("None."))
    rows = []
    for each in found:
        words = [element("bdi", word) for word in (each.reference, each.hypothesis) if word]
        rows.append(_row(*words, number(each.count), plain_bar(each.count / found[0].count)))
    table = _table(f"{title} words", (*head, "Times", "Bar"), rows)
    return element("div", heading, table, class_=class_)


def _worst_utterance(utterance: EvaluatedUtterance) -> Markup:
    words = utterance.errors.words
    meta: list[Content] = [
        element("strong", counted(words.errors, "error")),
        f" in {counted(words.reference_length, 'word')}, {percent(words.rate)} · "
        f"{length(utterance.duration_s)} · ",
        _name(utterance.speaker),
        " · ",
        element("bdi", utterance.audio_filepath, class_="path"),
    ]
    return element(
        "article",
        element("h3", element("bdi", utterance.id)),
        element("p", *meta, class_="meta"),
        element(
            "div",
            *map(_pair, excerpt(utterance.errors.alignment.words)),
            class_="alignment",
            dir="auto",
        ),
    )


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


def _section(id: str, title: str, *content: Content) -> Markup:
    heading = element("h2", title, id=f"{id}-title")
    return element("section", heading, *content, id=id, aria_labelledby=f"{id}-title")


def _note(*content: Content) -> Markup:
    return element("p", *content, class_="note")


def _table(
    caption: str, head: Sequence[str], rows: Sequence[Markup], foot: Markup | None = None
) -> Markup:
    """A table whose first column names the row; it scrolls by itself where it is too wide."""
    titles = element("tr", *(element("th", title, scope="col") for title in head))
    table = element(
        "table",
        element("caption", caption, class_="aside"),
        element("thead", titles),
        element("tbody", *rows),
        element("tfoot", foot) if foot else "",
    )
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _row(name: Content, *cells: Content) -> Markup:
    return element(
        "tr", element("th", name, scope="row"), join(element("td", cell) for cell in cells)
    )
