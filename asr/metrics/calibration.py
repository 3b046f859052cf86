"""Do words of confidence 0.8 turn out right 80 times in a hundred? And how to make it so.

A reliability diagram and the expected calibration error (Guo et al., "On calibration of modern
neural networks", ICML 2017), and Platt's calibrator on the confidence's log-odds ("Probabilistic
outputs for support vector machines", 1999). A word's confidence is the mean probability of its
characters, not of the word, so that it is off in level and in slope: the calibrator has these two
parameters, which a few hundred words of dev settle. It is monotone: what is surer before is surer
after. (A temperature alone leaves 0.5 at 0.5; isotonic regression has as many parameters as steps.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 10
SMALLEST = 1e-4  # confidences are told to four digits, and 0 and 1 have no log-odds
TOLERANCE = 1e-9  # of the gradient, where the fit ends


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Words of low <= confidence < high (<= in the last bin) together.

    Attributes:
        low: lower bound of the confidence.
        high: upper bound of the confidence.
        count: how many words.
        confidence: their mean confidence; the bin's middle where there are none.
        accuracy: share of them that is right; None where there are none.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability diagram and what it adds up to.

    Attributes:
        bins: of equal width from 0 to 1.
        num_words: in all bins.
        ece: expected calibration error: the mean of |accuracy - confidence| over the bins, each
            with the weight of its words.
    """

    bins: tuple[ReliabilityBin, ...]
    num_words: int
    ece: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """A confidence's log-odds, stretched and moved: `sigmoid(slope * logit(c) + offset)`.

    Attributes:
        slope: above 0, so that the order of confidences stays; below 1 where they are too sure.
        offset: [nats of log-odds].
    """

    slope: float
    offset: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and self.slope > 0 and math.isfinite(self.offset)):
            raise ValueError(
                f"calibration: slope is {self.slope} and offset {self.offset}, expected a slope "
                "above 0 and finite numbers"
            )

    def apply(self, confidence: float) -> float:
        """Calibrate the confidence of one word, 0 to 1."""
        clipped = min(max(confidence, SMALLEST), 1 - SMALLEST)
        odds = self.slope * math.log(clipped / (1 - clipped)) + self.offset
        # Either form overflows on its own side.
        return 1 / (1 + math.exp(-odds)) if odds > 0 else math.exp(odds) / (1 + math.exp(odds))


def reliability(
    confidences: Sequence[float], is_correct: Sequence[bool], num_bins: int = NUM_BINS
) -> Reliability:
    """Make the reliability diagram of some words.

    Args:
        confidences: of each word, 0 to 1.
        is_correct: whether each word is right.
        num_bins: of equal width.

    Raises:
        ValueError: no words, different numbers of both, or a confidence outside 0 to 1.
    """
    values, right = _checked(confidences, is_correct)
    place = np.minimum((values * num_bins).astype(np.int64), num_bins - 1)
    counts = np.bincount(place, minlength=num_bins)
    confidence = np.bincount(place, values, num_bins) / np.maximum(counts, 1)
    accuracy = np.bincount(place, right, num_bins) / np.maximum(counts, 1)
    bins = tuple(
        ReliabilityBin(
            low=k / num_bins,
            high=(k + 1) / num_bins,
            count=int(count),
            confidence=float(confidence[k]) if count else (k + 0.5) / num_bins,
            accuracy=float(accuracy[k]) if count else None,
        )
        for k, count in enumerate(counts)
    )
    ece = float(np.sum(counts * np.abs(accuracy - confidence)) / len(values))
    return Reliability(bins, len(values), ece)


def fit_calibration(confidences: Sequence[float], is_correct: Sequence[bool]) -> Calibration:
    """Fit the calibration of the highest likelihood, with Platt's targets.

    The targets are a little inside 0 and 1, so that words which are parted without an error have a
    finite slope.

    Args:
        confidences: of each word of a set that is not reported on, 0 to 1.
        is_correct: whether each word is right.

    Raises:
        ValueError: no words, only right or only wrong ones, or confidences that are not higher for
            right words than for wrong ones.
    """
    values, right = _checked(confidences, is_correct)
    num_right = int(right.sum())
    num_wrong = len(right) - num_right
    if not (num_right and num_wrong):
        raise ValueError(
            f"calibration: {num_right} words are right and {num_wrong} wrong, expected both kinds"
        )
    clipped = np.clip(values, SMALLEST, 1 - SMALLEST)
    odds = np.log(clipped / (1 - clipped))
    targets = np.where(right > 0, (num_right + 1) / (num_right + 2), 1 / (num_wrong + 2))
    # Imported here: seconds, and only where something is fitted.
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    # A word of target t is t of a right one and 1 - t of a wrong one.
    fit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=TOLERANCE).fit(
        np.concatenate([odds, odds])[:, np.newaxis],
        np.repeat([True, False], len(odds)),
        np.concatenate([targets, 1 - targets]),
    )
    slope, offset = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    if slope <= 0:
        raise ValueError(
            f"calibration: fitted slope is {slope:.3g}, expected above 0: these confidences are "
            "not higher for words that are right"
        )
    return Calibration(slope, offset)


def _checked(
    confidences: Sequence[float], is_correct: Sequence[bool]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if len(confidences) != len(is_correct):
        raise ValueError(
            f"is_correct: got {len(is_correct)}, expected one for each of {len(confidences)} words"
        )
    if not confidences:
        raise ValueError("calibration: got no words, expected at least one")
    values = np.array(confidences, dtype=np.float64)
    if not np.all((values >= 0) & (values <= 1)):  # NaN fails
        culprit = values[~((values >= 0) & (values <= 1))][0]
        raise ValueError(f"confidence is {culprit}, expected 0 to 1")
    return values, np.array(is_correct, dtype=np.float64)
