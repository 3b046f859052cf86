"""Systems on the same utterances, each held against the first: figures, JSON, a page's data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from asr.metrics.significance import (
    Improvement,
    MatchedPairs,
    holm,
    improvement,
    matched_pairs,
)
from asr.report.evaluation import Evaluation
from asr.report.evaluation_file import counts_to_json, dump_json, interval_to_json
from asr.report.wording import NOT_GIVEN, Setting, compact, percent, visible

FORMAT, VERSION = "asr comparison", 1
SIGNIFICANT = 0.05  # a p-value below it
FEW_SEGMENTS = 50  # below that the test's normal approximation is coarse


@dataclass(frozen=True, slots=True)
class System:
    """One of the compared.

    Attributes:
        name: as the user gave it.
        evaluation: its hypotheses, scored; utterances in the order of the first system's.
    """

    name: str
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Pair:
    """A system held against the first one.

    Attributes:
        system: its place among the systems, from 1.
        words: difference of the WER (below 0: better than the first) and probability that it is
            better.
        matched: the matched-pair test of the first (A) and this one (B).
        p_holm: its p-value with Holm's correction for all pairs; None where it has none.
        differences: of word errors, this one's less the first one's, with their utterances.
    """

    system: int
    words: Improvement
    matched: MatchedPairs
    p_holm: float | None
    differences: Mapping[int, int]

    @property
    def better(self) -> int:
        """Utterances with fewer word errors than the first has."""
        return sum(count for errors, count in self.differences.items() if errors < 0)

    @property
    def worse(self) -> int:
        """Utterances with more."""
        return sum(count for errors, count in self.differences.items() if errors > 0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Systems on the same utterances.

    Attributes:
        systems: at least two; the first is what the others are held against.
        pairs: of every further system with the first.
        differing: by name the settings that are not the same for all, a value a system.
    """

    systems: tuple[System, ...]
    pairs: tuple[Pair, ...]
    differing: Mapping[str, tuple[Setting, ...]]


def compare_evaluations(evaluations: Sequence[tuple[str, Evaluation]]) -> Comparison:
    """Hold evaluations against the first of them.

    Args:
        evaluations: names and evaluations, at least two, of the same utterances in any order.

    Raises:
        ValueError: fewer than two, a name that comes twice, other utterances, other references or
            other text rules than the first has.
    """
    if len(evaluations) < 2:
        raise ValueError(f"got {len(evaluations)} evaluations to compare, expected two or more")
    names = [name for name, _ in evaluations]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is compared with itself, expected different evaluations")
    first_name, first = evaluations[0]
    ours = [each.errors for each in first.utterances]
    speakers = [each.speaker for each in first.utterances]
    systems, pairs = [System(first_name, first)], []
    for name, evaluation in evaluations[1:]:
        _check_same(first_name, first, name, evaluation)
        order = {each.id: each for each in evaluation.utterances}
        utterances = tuple(order[each.id] for each in first.utterances)
        if utterances != evaluation.utterances:
            evaluation = replace(evaluation, utterances=utterances)
        theirs = [each.errors for each in utterances]
        pair = Pair(
            system=len(systems),
            words=improvement([a.words for a in ours], [b.words for b in theirs], speakers),
            matched=matched_pairs([a.alignment for a in ours], [b.alignment for b in theirs]),
            p_holm=None,
            differences=Counter(
                b.words.errors - a.words.errors for a, b in zip(ours, theirs, strict=True)
            ),
        )
        systems.append(System(name, evaluation))
        pairs.append(pair)
    tested = [(place, pair.matched.p) for place, pair in enumerate(pairs)]
    known = [(place, p) for place, p in tested if p is not None]
    for (place, _), p in zip(known, holm([p for _, p in known]), strict=True):
        pairs[place] = replace(pairs[place], p_holm=p)
    settings: list[dict[str, Setting]] = [
        {"model": each.evaluation.model.name, **each.evaluation.settings} for each in systems
    ]
    values = {
        name: tuple(of_system.get(name) for of_system in settings)
        for name in dict.fromkeys(name for of_system in settings for name in of_system)
    }
    differing = {name: value for name, value in values.items() if len(set(value)) > 1}
    return Comparison(tuple(systems), tuple(pairs), differing)


def _check_same(first_name: str, first: Evaluation, name: str, evaluation: Evaluation) -> None:
    if first.unit != evaluation.unit:
        raise ValueError(
            f"{name}: its unit is the {evaluation.unit}, expected the {first.unit} as of "
            f"{first_name}: evaluate one again with unit={first.unit}"
        )
    if first.text_rules != evaluation.text_rules:
        raise ValueError(
            f"{name}: text rules are {'; '.join(evaluation.text_rules) or 'not told'}, expected "
            f"those of {first_name}: {'; '.join(first.text_rules) or 'not told'}"
        )
    ours = {each.id: each.errors.reference for each in first.utterances}
    theirs = {each.id: each.errors.reference for each in evaluation.utterances}
    missing, further = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
    if missing or further:
        # That audio is the reason is told where it is.
        unread = {each.id for each in (*first.left_out, *evaluation.left_out)}
        unread &= missing | further
        why = f"; the audio of {len(unread)} of them could not be read" if unread else ""
        raise ValueError(
            f"{name}: {len(missing)} utterances of {first_name} are missing and {len(further)} "
            f"are further ones ({min(missing | further)!r}), expected the same utterances{why}"
        )
    other = [id for id, reference in ours.items() if theirs[id] != reference]
    if other:
        raise ValueError(
            f"{name}: {len(other)} references differ from those of {first_name}, the first of "
            f"utterance {other[0]!r}: {theirs[other[0]]!r}, expected {ours[other[0]]!r}"
        )


def verdict(pair: Pair, first: str = "A", second: str = "B") -> str:
    """Say whether one system of a pair is better, and what it means where that may be chance.

    Args:
        pair: of two systems.
        first: name of the one that the other is held against.
        second: name of the other.
    """
    if not pair.better and not pair.worse:
        return f"Every utterance has as many errors in {second} as in {first}."
    if pair.p_holm is None:
        return "Nothing to test: the errors do not vary."
    if pair.p_holm >= SIGNIFICANT:
        return (
            f"May well be chance: were {first} and {second} equally good, "
            f"{percent(pair.p_holm)} of all test sets like this one would show a difference as "
            f"large or larger (p = {pair.p_holm:.3f}; evidence begins below {SIGNIFICANT:g})."
        )
    better = f"{second if pair.words.difference < 0 else first} is better"
    if pair.matched.num_segments < FEW_SEGMENTS:
        return f"{better}, but the test is coarse with fewer than {FEW_SEGMENTS} segments."
    return f"{better}."


def comparison_to_json(comparison: Comparison) -> str:
    """Write the whole comparison as strict JSON; texts stay in the evaluations' own files."""
    unit = comparison.systems[0].evaluation.unit
    content = {
        "format": FORMAT,
        "version": VERSION,
        **({"unit": unit} if unit != "word" else {}),
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
        "pairs": [
            {
                "first": comparison.systems[0].name,
                "second": comparison.systems[pair.system].name,
                "wer_difference": pair.words.difference,
                "wer_difference_interval": interval_to_json(pair.words.interval),
                "probability_of_improvement": pair.words.probability,
                "matched_pairs": {
                    "num_segments": pair.matched.num_segments,
                    "mean": pair.matched.mean,
                    "deviation": pair.matched.deviation,
                    "z": pair.matched.z,
                    "p": pair.matched.p,
                    "p_holm": pair.p_holm,
                },
                "utterances_better": pair.better,
                "utterances_worse": pair.worse,
            }
            for pair in comparison.pairs
        ],
    }
    return dump_json(content, indent=1) + "\n"


def page_data(comparison: Comparison, pages: Sequence[str | None]) -> dict[str, object]:
    """Make what the script of the page fills its list with, every text visible.

    Args:
        comparison: of two systems or more.
        pages: for each system the address of its own report; None where there is none.
    """
    systems = comparison.systems
    every = zip(*(each.evaluation.utterances for each in systems), strict=True)
    return {
        "gap": "" if systems[0].evaluation.unit == "character" else " ",
        "systems": [
            {"name": visible(each.name), "page": page}
            for each, page in zip(systems, pages, strict=True)
        ],
        "utterances": [
            [
                visible(group[0].id),
                NOT_GIVEN if group[0].speaker is None else visible(group[0].speaker),
                round(group[0].duration_s, 3),
                group[0].errors.words.reference_length,
                [each.errors.words.errors for each in group],
                [compact(each.errors.alignment, each.errors.unit) for each in group],
            ]
            for group in every
        ],
    }
