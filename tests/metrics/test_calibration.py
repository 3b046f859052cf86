"""Calibration: bins and error by hand, a known distortion found again, monotone, finite."""

import math

import numpy as np
import pytest

from asr.metrics.calibration import Calibration, fit_calibration, reliability


def test_bins_and_expected_error_by_hand():
    # Guo et al., eq. 3: bins of width 0.25, words weighted.
    found = reliability([0.1, 0.2, 0.6, 0.7, 0.8, 1.0], [0, 1, 1, 0, 1, 1], num_bins=4)
    assert [(each.low, each.high, each.count) for each in found.bins] == [
        (0, 0.25, 2), (0.25, 0.5, 0), (0.5, 0.75, 2), (0.75, 1, 2),
    ]  # fmt: skip
    assert [each.accuracy for each in found.bins] == [0.5, None, 0.5, 1]
    assert [each.confidence for each in found.bins] == pytest.approx([0.15, 0.375, 0.65, 0.9])
    assert found.ece == pytest.approx((2 * 0.35 + 2 * 0.15 + 2 * 0.1) / 6)
    assert found.num_words == 6


def test_a_bound_belongs_to_the_bin_above_it():
    found = reliability([0.0, 0.5, 1.0], [1, 1, 1], num_bins=2)
    assert [each.count for each in found.bins] == [1, 2]


def test_confidence_that_is_right_has_no_error():
    found = reliability([0.75] * 4 + [0.25] * 4, [1, 1, 1, 0, 1, 0, 0, 0])
    assert found.ece == 0


def words_of(slope, offset, count, seed):
    """Confidences, and words that are right as often as the stretched log-odds say."""
    generator = np.random.default_rng(seed)
    confidences = np.clip(generator.beta(4, 1, size=count), 1e-4, 1 - 1e-4)
    odds = slope * np.log(confidences / (1 - confidences)) + offset
    return confidences.tolist(), (generator.random(count) < 1 / (1 + np.exp(-odds))).tolist()


@pytest.mark.parametrize(("slope", "offset"), [(1, 0), (0.4, -0.7), (2, 1)])
def test_a_known_distortion_is_found_and_undone(slope, offset):
    found = fit_calibration(*words_of(slope, offset, 20_000, seed=1))
    assert found.slope == pytest.approx(slope, abs=0.1)
    assert found.offset == pytest.approx(offset, abs=0.15)
    confidences, is_correct = words_of(slope, offset, 20_000, seed=2)  # other words
    before = reliability(confidences, is_correct).ece
    after = reliability([found.apply(each) for each in confidences], is_correct).ece
    assert after < 0.015
    assert after < before / 4 or (slope, offset) == (1, 0)


def test_the_fit_is_where_the_gradient_vanishes():
    confidences, is_correct = words_of(0.5, 0.3, 300, seed=4)
    found = fit_calibration(confidences, is_correct)
    right = sum(is_correct)
    wrong = len(is_correct) - right
    gradient = np.zeros(2)
    for confidence, correct in zip(confidences, is_correct, strict=True):
        target = (right + 1) / (right + 2) if correct else 1 / (wrong + 2)
        odds = math.log(confidence / (1 - confidence))
        gradient += (found.apply(confidence) - target) * np.array([odds, 1])
    assert gradient == pytest.approx([0, 0], abs=1e-3)


def test_monotone_and_inside_the_bounds_even_at_0_and_1():
    calibration = Calibration(slope=50.0, offset=-3.0)
    values = [calibration.apply(each) for each in np.linspace(0, 1, 101)]
    assert values == sorted(values)
    assert 0 <= values[0] < values[-1] <= 1


def test_identity():
    same = Calibration(slope=1.0, offset=0.0)
    assert [same.apply(each) for each in (0.01, 0.5, 0.9)] == pytest.approx([0.01, 0.5, 0.9])


def test_words_parted_without_an_error_have_a_finite_slope():
    found = fit_calibration([0.2, 0.3, 0.8, 0.9], [False, False, True, True])
    assert 0 < found.slope < 10
    assert found.apply(0.9) > 0.5 > found.apply(0.2)


@pytest.mark.parametrize(
    ("confidences", "is_correct", "message"),
    [
        ([], [], "got no words"),
        ([0.5], [True, False], "got 2, expected one for each of 1 words"),
        ([0.5, 1.5], [True, False], "confidence is 1.5, expected 0 to 1"),
        ([0.5, math.nan], [True, False], "confidence is nan"),
        ([0.5, 0.6], [True, True], "2 words are right and 0 wrong, expected both kinds"),
        ([0.9, 0.8, 0.1, 0.2], [False, False, True, True], "not higher for words that are right"),
    ],
)
def test_what_cannot_be_fitted_is_refused(confidences, is_correct, message):
    with pytest.raises(ValueError, match=message):
        fit_calibration(confidences, is_correct)


@pytest.mark.parametrize(("slope", "offset"), [(0, 0), (-1, 0), (math.nan, 0), (1, math.inf)])
def test_a_calibration_that_turns_the_order_is_refused(slope, offset):
    with pytest.raises(ValueError, match="expected a slope above 0 and finite numbers"):
        Calibration(slope, offset)
