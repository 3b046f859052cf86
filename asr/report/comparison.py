"""Systems on the same utterances, each held against the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from asr.metrics.significance import (
    Improvement,
    MatchedPairs,
    holm,
    improvement,
    matched_pairs,
)
from asr.report.evaluation import Evaluation, Setting
from asr.report.json_file import counts_to_json, dump_json, interval_to_json

FORMAT = "asr comparison"
VERSION = 1


@dataclass(frozen=True, slots=True)
class System:
    """One of the compared.

    Attributes:
        name: As the user gave it.
        evaluation: Its transcripts, scored; utterances in the order of the first system's.
    """

    name: str
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Pair:
    """A system held against the first one.

    Attributes:
        system: Its place among the systems, from 1.
        words: Difference of the WER (below 0: better than the first) and probability that it is
            better.
        matched: The matched-pair test of the first (A) and this one (B).
        p_holm: Its p-value with Holm's correction for all pairs; None where it has none.
        better: Utterances with fewer word errors than the first has.
        worse: Utterances with more.
    """

    system: int
    words: Improvement
    matched: MatchedPairs
    p_holm: float | None
    better: int
    worse: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Systems on the same utterances.

    Attributes:
        systems: At least two; the first is what the others are held against.
        pairs: Of every further system with the first.
        differing: By name the settings that are not the same for all, a value a system.
    """

    systems: tuple[System, ...]
    pairs: tuple[Pair, ...]
    differing: Mapping[str, tuple[Setting, ...]]


def compare_evaluations(evaluations: Sequence[tuple[str, Evaluation]]) -> Comparison:
    """Hold evaluations against the first of them.

    Args:
        evaluations: Names and evaluations, at least two, of the same utterances in any order.

    Raises:
        ValueError: Fewer than two, a name that comes twice, other utterances, other references or
            other text rules than the first has.
    """
    if len(evaluations) < 2:
        raise ValueError(f"got {len(evaluations)} evaluations to compare, expected two or more")
    names = [name for name, _ in evaluations]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is compared with itself, expected different evaluations")
    first_name, first = evaluations[0]
    systems = [System(first_name, first)]
    for name, evaluation in evaluations[1:]:
        _check_same(first_name, first, name, evaluation)
        systems.append(System(name, _reordered(evaluation, first)))
    raw = [_pair(place, first, each.evaluation) for place, each in enumerate(systems[1:], 1)]
    return Comparison(tuple(systems), _corrected(raw), _differing(systems))


def comparison_to_json(comparison: Comparison) -> str:
    """The whole comparison as strict JSON; texts stay in the evaluations' own files."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "systems": [
            {
                "name": each.name,
                "manifest": each.evaluation.manifest,
                "wer": each.evaluation.words.rate,
                "wer_interval": interval_to_json(each.evaluation.intervals.words),
                "cer": each.evaluation.characters.rate,
                "cer_interval": interval_to_json(each.evaluation.intervals.characters),
                "words": counts_to_json(each.evaluation.words),
                "settings": {name: values[k] for name, values in comparison.differing.items()},
            }
            for k, each in enumerate(comparison.systems)
        ],
        "pairs": [_pair_to_json(comparison, pair) for pair in comparison.pairs],
    }
    return dump_json(content, indent=1) + "\n"


def _pair_to_json(comparison: Comparison, pair: Pair) -> dict[str, object]:
    matched = pair.matched
    return {
        "first": comparison.systems[0].name,
        "second": comparison.systems[pair.system].name,
        "wer_difference": pair.words.difference,
        "wer_difference_interval": interval_to_json(pair.words.interval),
        "probability_of_improvement": pair.words.probability,
        "matched_pairs": {
            "num_segments": matched.num_segments,
            "mean": matched.mean,
            "deviation": matched.deviation,
            "z": matched.z,
            "p": matched.p,
            "p_holm": pair.p_holm,
        },
        "utterances_better": pair.better,
        "utterances_worse": pair.worse,
    }


def _check_same(first_name: str, first: Evaluation, name: str, evaluation: Evaluation) -> None:
    if first.text_rules != evaluation.text_rules:
        raise ValueError(
            f"{name}: text rules are {'; '.join(evaluation.text_rules) or 'not told'}, expected "
            f"those of {first_name}: {'; '.join(first.text_rules) or 'not told'}"
        )
    ours = {each.id: each.errors.reference for each in first.utterances}
    theirs = {each.id: each.errors.reference for each in evaluation.utterances}
    missing, further = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
    if missing or further:
        raise ValueError(
            f"{name}: {len(missing)} utterances of {first_name} are missing and {len(further)} "
            f"are further ones ({min(missing | further)!r}), expected the same utterances"
            f"{_unread(first, evaluation, missing | further)}"
        )
    other = [id for id, reference in ours.items() if theirs[id] != reference]
    if other:
        raise ValueError(
            f"{name}: {len(other)} references differ from those of {first_name}, the first of "
            f"utterance {other[0]!r}: {theirs[other[0]]!r}, expected {ours[other[0]]!r}"
        )


def _unread(first: Evaluation, evaluation: Evaluation, differing: set[str]) -> str:
    """That audio is the reason, where it is."""
    unread = differing & {each.id for each in (*first.left_out, *evaluation.left_out)}
    return f"; the audio of {len(unread)} of them could not be read" if unread else ""


def _reordered(evaluation: Evaluation, like: Evaluation) -> Evaluation:
    """The same evaluation with its utterances in another one's order."""
    order = {each.id: each for each in evaluation.utterances}
    utterances = tuple(order[each.id] for each in like.utterances)
    return (
        evaluation
        if utterances == evaluation.utterances
        else replace(evaluation, utterances=utterances)
    )


def _pair(place: int, first: Evaluation, second: Evaluation) -> Pair:
    ours = [each.errors for each in first.utterances]
    theirs = [each.errors for each in second.utterances]
    fewer = [b.words.errors - a.words.errors for a, b in zip(ours, theirs, strict=True)]
    return Pair(
        place,
        improvement(
            [each.words for each in ours],
            [each.words for each in theirs],
            [each.speaker for each in first.utterances],
        ),
        matched_pairs([each.alignment for each in ours], [each.alignment for each in theirs]),
        None,
        sum(each < 0 for each in fewer),
        sum(each > 0 for each in fewer),
    )


def _corrected(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The pairs with Holm's correction for all that have a p-value."""
    tested = [(place, pair.matched.p) for place, pair in enumerate(pairs)]
    known = [(place, p) for place, p in tested if p is not None]
    adjusted = holm([p for _, p in known])
    by_place = {place: p for (place, _), p in zip(known, adjusted, strict=True)}
    return tuple(replace(pair, p_holm=by_place.get(k)) for k, pair in enumerate(pairs))


def _differing(systems: Sequence[System]) -> dict[str, tuple[Setting, ...]]:
    every: list[dict[str, Setting]] = [
        {"model": each.evaluation.model.name, **each.evaluation.settings} for each in systems
    ]
    names = dict.fromkeys(name for settings in every for name in settings)
    values = {name: tuple(settings.get(name) for settings in every) for name in names}
    return {name: value for name, value in values.items() if len(set(value)) > 1}
