"""Files that NIST's sclite scores: trn (texts alone), and ctm with stm (words with times).

    sclite -r ref.trn trn -h hyp.trn trn -i spu_id -e utf-8 -s
    sclite -r ref.stm stm -h hyp.ctm ctm -e utf-8 -s

sclite gives a meaning to some characters: parentheses around ids and optional words, braces and
slashes for alternatives, `@` for no word, two semicolons for a comment, and it takes the part of an
id before its first hyphen or underscore for the speaker. So these become `%` and their two
hexadecimal digits, the same in both texts, which changes no word's equality.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from asr.report.evaluation import EvaluatedUtterance

UNKNOWN_SPEAKER = "unknown"
CHANNEL = "1"
# A shortest word: sclite refuses a duration of 0.
_SHORTEST_S = 0.01
_IN_WORDS = re.compile(r"[%(){}/@;<>*\"\x00-\x20\x7f-\x9f\ud800-\udfff]")
_IN_IDS = re.compile(r"[^A-Za-z0-9._-]")
_IN_SPEAKERS = re.compile(r"[^A-Za-z0-9.]")


def reference_trn(utterances: Iterable[EvaluatedUtterance]) -> str:
    """References, one an utterance: `words (speaker-id)`."""
    return "".join(f"{_words(each.errors.reference)} ({_id(each)})\n" for each in utterances)


def hypothesis_trn(utterances: Iterable[EvaluatedUtterance]) -> str:
    """Hypotheses, likewise; an empty one is the id alone."""
    return "".join(f"{_words(each.errors.hypothesis)} ({_id(each)})\n" for each in utterances)


def reference_stm(utterances: Iterable[EvaluatedUtterance]) -> str:
    """References as segments of one file an utterance: `file channel speaker begin end words`."""
    return "".join(
        f"{_id(each)} {CHANNEL} {_speaker(each)} 0.00 {_end(each):.3f} "
        f"{_words(each.errors.reference)}\n"
        for each in _sorted(utterances)
    )


def hypothesis_ctm(utterances: Iterable[EvaluatedUtterance]) -> str:
    """Heard words with their times: `file channel begin duration word confidence`.

    Args:
        utterances: `has_times` says whether their hypotheses have times.
    """
    return "".join(
        f"{_id(each)} {CHANNEL} {word.start:.3f} {max(word.end - word.start, _SHORTEST_S):.3f} "
        f"{_words(word.word)} {word.confidence:.4f}\n"
        for each in _sorted(utterances)
        for word in each.words
    )


def has_times(utterances: Iterable[EvaluatedUtterance]) -> bool:
    """Whether every hypothesis has the times of its words."""
    return all(each.words or not each.errors.hypothesis for each in utterances)


def _sorted(utterances: Iterable[EvaluatedUtterance]) -> Sequence[EvaluatedUtterance]:
    """In the order of the files' names, which sclite goes by."""
    return sorted(utterances, key=_id)


def _end(utterance: EvaluatedUtterance) -> float:
    """End of the segment [s], after its last word."""
    return max([utterance.duration_s, _SHORTEST_S, *(word.end for word in utterance.words)])


def _id(utterance: EvaluatedUtterance) -> str:
    return f"{_speaker(utterance)}-{_escaped(_IN_IDS, utterance.id)}"


def _speaker(utterance: EvaluatedUtterance) -> str:
    speaker = utterance.speaker
    return UNKNOWN_SPEAKER if speaker is None else _escaped(_IN_SPEAKERS, speaker)


def _words(text: str) -> str:
    return " ".join(_escaped(_IN_WORDS, word) for word in text.split())


def _escaped(acting: re.Pattern[str], text: str) -> str:
    return acting.sub(
        lambda match: "".join(
            f"%{byte:02x}" for byte in match[0].encode("utf-8", errors="surrogatepass")
        ),
        text,
    )
