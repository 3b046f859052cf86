"""Files for other programs: TextGrids, CTM, sclite's; and the folder of a report.

    sclite -r ref.trn trn -h hyp.trn trn -i spu_id -e utf-8 -s
    sclite -r ref.stm stm -h hyp.ctm ctm -e utf-8 -s

NIST's sclite gives a meaning to some characters: parentheses around ids and optional words, braces
and slashes for alternatives, `@` for no word, two semicolons for a comment, and it takes the part
of an id before its first hyphen or underscore for the speaker. So these become `%` and their two
hexadecimal digits, the same in both texts, which changes no word's equality.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from asr.atomic_file import replace_text
from asr.word import Character, Word

if TYPE_CHECKING:  # TextGrids and CTM need no NumPy
    from asr.report.clips import Clips
    from asr.report.evaluation import EvaluatedUtterance, Evaluation

# All that the folder of a report may hold.
REPORT_FILES = ("evaluation.json", "report.html", "ref.trn", "hyp.trn", "ref.stm", "hyp.ctm")

CHANNEL = "1"
SHORTEST_S = 0.01  # of a word [s]: sclite refuses a duration of 0
UNKNOWN_SPEAKER = "unknown"
_IN_WORDS = re.compile(r"[%(){}/@;<>*\"\x00-\x20\x7f-\x9f\ud800-\udfff]")
_IN_IDS = re.compile(r"[^A-Za-z0-9._-]")
_IN_SPEAKERS = re.compile(r"[^A-Za-z0-9.]")


# --- Praat --------------------------------------------------------------------------------------


def textgrid(duration: float, tiers: Mapping[str, Sequence[Word | Character]]) -> str:
    """Write words and characters as a TextGrid, which Praat and most tools of phoneticians read.

    The form is the long text format (Praat manual, "TextGrid file formats").

    Args:
        duration: of the recording [s].
        tiers: words or characters by the tier's name, in order and without overlap; what lies
            between them becomes intervals without text.

    Raises:
        ValueError: words that have no length, overlap or go beyond the recording.
    """
    lines = [
        'File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0 ",
        f"xmax = {_seconds(duration)} ", "tiers? <exists> ", f"size = {len(tiers)} ", "item []: ",
    ]  # fmt: skip
    for number, (name, words) in enumerate(tiers.items(), start=1):
        intervals = list(_without_gaps(name, words, duration))
        lines += [
            f"    item [{number}]:", '        class = "IntervalTier" ',
            f"        name = {_quoted(name)} ", "        xmin = 0 ",
            f"        xmax = {_seconds(duration)} ",
            f"        intervals: size = {len(intervals)} ",
        ]  # fmt: skip
        for place, (start, end, text) in enumerate(intervals, start=1):
            lines += [
                f"        intervals [{place}]:", f"            xmin = {_seconds(start)} ",
                f"            xmax = {_seconds(end)} ", f"            text = {_quoted(text)} ",
            ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _without_gaps(
    name: str, words: Sequence[Word | Character], duration: float
) -> Iterator[tuple[float, float, str]]:
    """Give start, end and text of intervals that fill the recording."""
    end = 0.0
    for word in words:
        text = word.word if isinstance(word, Word) else word.character
        if not end <= word.start < word.end <= duration:
            raise ValueError(
                f"tier {name}: {text!r} from {word.start:g} to {word.end:g} s, expected a length, "
                f"and within {end:g} to {duration:g} s"
            )
        if word.start > end:
            yield end, word.start, ""
        yield word.start, word.end, text
        end = word.end
    if end < duration:
        yield end, duration, ""


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _seconds(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


# --- NIST ---------------------------------------------------------------------------------------


def ctm(name: str, words: Sequence[Word]) -> str:
    """Write a line a word: name, channel, start [s], duration [s], word, confidence.

    (NIST, SCTK's "ctm: time marked conversation input file format".)

    Args:
        name: of the recording; without white space, which separates the fields.
        words: in order.

    Raises:
        ValueError: a name or a word that is no field.
    """
    for field in (name, *(word.word for word in words)):
        if field.split() != [field]:
            raise ValueError(f"{field!r} cannot stand in a CTM file, expected no white space")
    return "".join(
        f"{name} {CHANNEL} {word.start:.3f} {max(word.end - word.start, SHORTEST_S):.3f} "
        f"{word.word} {word.confidence:.4f}\n"
        for word in words
    )


def hypothesis_ctm(utterances: Iterable[EvaluatedUtterance]) -> str:
    """Write the words of hypotheses with their times, a file an utterance, as `ctm` does.

    Args:
        utterances: `has_times` says whether their hypotheses have times.
    """
    return "".join(
        ctm(_id(each), [replace(word, word=_words(word.word)) for word in _timed(each)])
        for each in sorted(utterances, key=_id)  # the order of names, which sclite goes by
    )


def reference_stm(utterances: Iterable[EvaluatedUtterance]) -> str:
    """Write references as one segment an utterance: `file channel speaker begin end words`."""
    lines = []
    for each in sorted(utterances, key=_id):
        end = max([each.duration_s, SHORTEST_S, *(word.end for word in each.words)])
        lines.append(
            f"{_id(each)} {CHANNEL} {_speaker(each)} 0.00 {end:.3f} "
            f"{_words(each.errors.reference, each.errors.unit)}\n"
        )
    return "".join(lines)


def reference_trn(utterances: Iterable[EvaluatedUtterance]) -> str:
    """Write references, one an utterance: `words (speaker-id)`."""
    return "".join(
        f"{_words(each.errors.reference, each.errors.unit)} ({_id(each)})\n" for each in utterances
    )


def hypothesis_trn(utterances: Iterable[EvaluatedUtterance]) -> str:
    """Write hypotheses, likewise; an empty one is the id alone."""
    return "".join(
        f"{_words(each.errors.hypothesis, each.errors.unit)} ({_id(each)})\n" for each in utterances
    )


def has_times(utterances: Iterable[EvaluatedUtterance]) -> bool:
    """Tell whether every hypothesis has the times of its words."""
    return all(each.words or not each.errors.hypothesis for each in utterances)


def _id(utterance: EvaluatedUtterance) -> str:
    return f"{_speaker(utterance)}-{_escaped(_IN_IDS, utterance.id)}"


def _speaker(utterance: EvaluatedUtterance) -> str:
    speaker = utterance.speaker
    return UNKNOWN_SPEAKER if speaker is None else _escaped(_IN_SPEAKERS, speaker)


def _timed(utterance: EvaluatedUtterance) -> Iterator[Word]:
    """What sclite is to take for words: each, or its characters, which share its time evenly."""
    if utterance.errors.unit == "word":
        yield from utterance.words
        return
    for word in utterance.words:
        share = (word.end - word.start) / len(word.word)
        for place, character in enumerate(word.word):
            start = word.start + place * share
            yield replace(word, word=character, start=start, end=start + share)


def _words(text: str, unit: str = "word") -> str:
    words = "".join(text.split()) if unit == "character" else text.split()
    return " ".join(_escaped(_IN_WORDS, word) for word in words)


def _escaped(acting: re.Pattern[str], text: str) -> str:
    return acting.sub(
        lambda match: "".join(
            f"%{byte:02x}" for byte in match[0].encode("utf-8", errors="surrogatepass")
        ),
        text,
    )


# --- the folder of a report ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Where a report lies.

    Attributes:
        json: all of it, for programs.
        html: the page.
        sclite: texts as NIST's sclite scores them.
    """

    json: Path
    html: Path
    sclite: tuple[Path, ...]


def write_report(evaluation: Evaluation, folder: Path, clips: Clips | None = None) -> ReportPaths:
    """Write `evaluation.json`, `report.html` and files for sclite, in place of earlier ones.

    `ref.trn` and `hyp.trn` are always written, `ref.stm` and `hyp.ctm` where every hypothesis has
    the times of its words.

    Args:
        evaluation: the scored evaluation.
        folder: where to; made if it is not there.
        clips: utterances to hear and see in the page; None for none.

    Returns:
        The paths of all files.

    Raises:
        OSError: the folder cannot be made or written to; what was there before stays.
    """
    from asr.report.evaluation_file import evaluation_to_json
    from asr.report.html import render_evaluation

    utterances = evaluation.utterances
    sclite = {"ref.trn": reference_trn(utterances), "hyp.trn": hypothesis_trn(utterances)}
    if has_times(utterances):
        sclite |= {"ref.stm": reference_stm(utterances), "hyp.ctm": hypothesis_ctm(utterances)}
    texts = {
        "evaluation.json": evaluation_to_json(evaluation),
        "report.html": render_evaluation(evaluation, clips),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (texts | sclite).items():
        replace_text(folder / name, text)
    return ReportPaths(
        folder / "evaluation.json", folder / "report.html", tuple(folder / name for name in sclite)
    )
