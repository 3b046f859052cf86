"""Utterances unlike the rest of their manifest: duration, characters a second, sample rate."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from asr.data.doctor.examined import Examined
from asr.finding import Finding, Kind

PLAUSIBLE_RATE = (0.5, 40.0)  # [characters/s] no script is spoken slower or faster for a whole clip
MIN_UTTERANCES = 20  # fewer have no median to speak of
DEVIATIONS = 5.0  # a normal distribution has one of two million beyond that
RATE_FACTOR = 3.0  # and so far from the median, for corpora whose utterances are all alike
DURATION_FACTOR = 4.0
MISFIT_DEVIATIONS = 3.0  # of texts from what a model hears: there are more in between
MISFIT_FACTOR = 2.0  # times the shortfall of a good model's texts, however bad the rest is


def usual_range(values: Sequence[float], factor: float) -> tuple[float, float] | None:
    """Where nearly all of positive, skewed values lie: robust, so that outliers do not widen it.

    Median times or over the exponential of DEVIATIONS standard deviations of the logarithm,
    estimated from the median absolute deviation (1.4826 of them for a normal distribution).

    Args:
        values: above 0.
        factor: the range goes at least so far to both sides.

    Returns:
        Lowest and highest; None for fewer than MIN_UTTERANCES values.
    """
    if len(values) < MIN_UTTERANCES:
        return None
    logs = [math.log(value) for value in values]
    middle = statistics.median(logs)
    deviation = 1.4826 * statistics.median(abs(each - middle) for each in logs)
    width = max(DEVIATIONS * deviation, math.log(factor))
    return math.exp(middle - width), math.exp(middle + width)


def find_outliers(examined: Sequence[Examined]) -> Iterator[Finding]:
    """The utterances of one manifest that are unlike the rest of it."""
    yield from _unusual_durations(examined)
    yield from _unusual_text_rates(examined)
    yield from _unusual_sample_rates(examined)


def find_misfits(examined: Sequence[Examined], max_shortfall: float) -> Iterator[Finding]:
    """Texts of one manifest that are unlike what a model hears.

    A model that hears little is behind with right texts, too: where there are MIN_UTTERANCES, the
    limit is raised to the median and MISFIT_DEVIATIONS standard deviations (as in `usual_range`),
    but never beyond MISFIT_FACTOR times itself, so that a manifest full of wrong texts shows.

    Args:
        examined: the utterances; those that no model has heard are left alone.
        max_shortfall: of a good model's right texts [nats a frame].
    """
    heard = [each.shortfall for each in examined if each.shortfall is not None]
    limit, of_whom = max_shortfall, "of a right text"
    if len(heard) >= MIN_UTTERANCES:
        middle = statistics.median(heard)
        deviation = 1.4826 * statistics.median(abs(each - middle) for each in heard)
        usual = min(middle + MISFIT_DEVIATIONS * deviation, MISFIT_FACTOR * max_shortfall)
        if usual > limit:
            limit, of_whom = usual, "as the rest"
    for each in examined:
        if each.shortfall is not None and each.shortfall > limit:
            reason = (
                f"{each.shortfall:.2f} nats a frame behind what the model hears, expected at most "
                f"{limit:.2f} {of_whom}"
            )
            yield each.utterance.finding(Kind.TEXT_MISFIT, reason)


def _unusual_durations(examined: Sequence[Examined]) -> Iterator[Finding]:
    usual = usual_range([each.duration_s for each in examined if each.duration_s], DURATION_FACTOR)
    for each in examined:
        duration_s = each.duration_s
        if usual and duration_s and not usual[0] <= duration_s <= usual[1]:
            reason = f"{duration_s:.2f} s, expected {usual[0]:.2f} to {usual[1]:.2f} s as the rest"
            yield each.utterance.finding(Kind.DURATION_OUTLIER, reason)


def _unusual_text_rates(examined: Sequence[Examined]) -> Iterator[Finding]:
    rates = [rate for each in examined if (rate := each.characters_per_second)]
    usual = usual_range(rates, RATE_FACTOR)
    for each in examined:
        rate = each.characters_per_second
        if not rate:
            continue
        if not PLAUSIBLE_RATE[0] <= rate <= PLAUSIBLE_RATE[1]:
            expected = f"{PLAUSIBLE_RATE[0]:g} to {PLAUSIBLE_RATE[1]:g} of any speech"
        elif usual and not usual[0] <= rate <= usual[1]:
            expected = f"{usual[0]:.1f} to {usual[1]:.1f} as the rest"
        else:
            continue
        reason = (
            f"{len(each.text)} characters in {each.duration_s:.2f} s, {rate:.1f} a second, "
            f"expected {expected}"
        )
        yield each.utterance.finding(Kind.TEXT_RATE, reason)


def _unusual_sample_rates(examined: Sequence[Examined]) -> Iterator[Finding]:
    rates = Counter(each.audio.sample_rate for each in examined if each.audio)
    if len(rates) < 2:
        return
    usual, count = rates.most_common(1)[0]
    for each in examined:
        if each.audio and each.audio.sample_rate != usual:
            reason = (
                f"{each.audio.sample_rate} Hz, expected {usual} Hz as {count} of {rates.total()}"
            )
            yield each.utterance.finding(Kind.MIXED_RATE, reason)
