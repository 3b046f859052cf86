"""The doctor: everything that can be found wrong with manifests and their audio."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from asr.data.doctor.audio_checks import check_audio
from asr.data.doctor.checks import (
    check_characters,
    check_duration,
    check_file,
    check_frames,
    check_text,
)
from asr.data.doctor.examined import Examined, ExaminedManifest
from asr.data.doctor.measure import Audio, measure_audio
from asr.data.doctor.outliers import find_misfits, find_outliers
from asr.data.doctor.overlap import Overlap, find_duplicates, find_overlaps, overlap_findings
from asr.data.manifest import Utterance, findings, scan_manifest, utterances
from asr.finding import Finding, Kind, Severity, describe_error
from asr.text import CharTokenizer, TextNormalizer

CHUNK = 1024  # utterances handed to the threads at a time

Measured = Audio | Finding


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
        shortfall: by how much a normalised text is behind what a model hears in an utterance that
            nothing stands in the way of [nats a frame]; None where no model is to listen.
        max_shortfall: what is further behind is a finding, unless the rest is, too: see
            `find_misfits` [nats a frame].
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


@dataclass(frozen=True)
class Examination:
    """What the doctor found out.

    Attributes:
        manifests: one by one, in the order given.
        alphabet: that texts were held against; empty where no text has a character.
        findings: by manifest and line.
        overlaps: of every two manifests.
    """

    manifests: tuple[ExaminedManifest, ...]
    alphabet: str
    findings: tuple[Finding, ...]
    overlaps: tuple[Overlap, ...]


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
    tokenizer = _tokenizer(rules.alphabet, texts[0])
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
            audio = next(measured)
            each = _examined(one, text, audio, rules, tokenizer)
            faults = list(_findings(each, audio, rules, tokenizer, is_whole))
            if not headers_only and all(f.kind.severity is not Severity.ERROR for f in faults):
                each, misfits = _listened(each, rules)
                faults += misfits
            found += faults
            examined.append(each)
        found += chain(find_outliers(examined), find_duplicates(examined))
        found += find_misfits(examined, rules.max_shortfall)
        manifests.append(ExaminedManifest(path, len(own_rows), examined))
    overlaps = find_overlaps(manifests)
    found += overlap_findings(manifests, overlaps)
    alphabet = tokenizer.alphabet if tokenizer else ""
    return Examination(tuple(manifests), alphabet, _in_order(paths, found), tuple(overlaps))


def _tokenizer(alphabet: str | None, texts: Sequence[str]) -> CharTokenizer | None:
    """None where the alphabet is that of texts without characters: they are all findings."""
    if alphabet is not None:
        return CharTokenizer(alphabet)
    return CharTokenizer.from_texts(texts) if any(texts) else None


def _measure_all(
    rows: Sequence[Utterance],
    decode_up_to_s: float,
    jobs: int,
    progress: Callable[[int, int], None],
) -> Iterator[Measured]:
    def measure(utterance: Utterance) -> Measured:
        try:
            return check_file(utterance) or measure_audio(utterance, decode_up_to_s)
        except (ValueError, OSError) as error:
            return utterance.finding(Kind.UNREADABLE_AUDIO, describe_error(error))

    with ThreadPoolExecutor(jobs) as pool:
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            for number, result in enumerate(pool.map(measure, chunk), start + 1):
                progress(number, len(rows))
                yield result


def _examined(
    utterance: Utterance,
    text: str,
    measured: Measured,
    rules: Rules,
    tokenizer: CharTokenizer | None,
) -> Examined:
    audio = measured if isinstance(measured, Audio) else None
    duration_s = audio.duration_s if audio else utterance.duration
    known = tokenizer is not None and text and not tokenizer.unknown_characters(text)
    return Examined(
        utterance,
        text,
        audio,
        duration_s,
        None if duration_s is None else rules.output_frames(duration_s / rules.speed),
        rules.required_frames(tokenizer.encode(text)) if tokenizer and known else None,
    )


def _findings(
    each: Examined,
    measured: Measured,
    rules: Rules,
    tokenizer: CharTokenizer | None,
    is_whole: bool,
) -> Iterator[Finding]:
    if isinstance(measured, Finding):
        yield measured
    else:
        yield from check_audio(each.utterance, measured, rules.sample_rate, is_whole)
    normal = replace(each.utterance, text=each.text)
    limits = rules.min_duration_s, rules.max_duration_s
    checks = [
        check_text(normal),
        check_characters(normal, tokenizer) if tokenizer else None,
        None if each.duration_s is None else check_duration(normal, each.duration_s, *limits),
    ]
    if tokenizer and each.needed and each.frames is not None and each.duration_s is not None:
        tokens = tokenizer.encode(each.text)
        checks.append(
            check_frames(
                normal, tokens, each.duration_s, each.frames, rules.required_frames, rules.speed
            )
        )
    yield from filter(None, checks)


def _listened(each: Examined, rules: Rules) -> tuple[Examined, list[Finding]]:
    """The utterance with what a model makes of its text, or what keeps it from that."""
    if rules.shortfall is None:
        return each, []
    try:
        shortfall = rules.shortfall(each.utterance, each.text)
    except ValueError as error:
        return each, [each.utterance.finding(Kind.TEXT_MISFIT, describe_error(error))]
    return replace(each, shortfall=shortfall), []


def _in_order(paths: Sequence[Path], found: Sequence[Finding]) -> tuple[Finding, ...]:
    """By manifest and line, whole manifests last; by kind within a line."""
    place = {path: number for number, path in enumerate(paths)}
    kinds = list(Kind)

    def key(finding: Finding) -> tuple[int, float, int]:
        assert finding.manifest is not None
        line = float("inf") if finding.line is None else finding.line
        return place[finding.manifest], line, kinds.index(finding.kind)

    return tuple(sorted(found, key=key))
