"""Bootstrap intervals: small cases by hand, coverage by simulation, the same for the same seed."""

import itertools
import math
import time
import tracemalloc

import numpy as np
import pytest

from asr.metrics.error_rate import ErrorCounts
from asr.metrics.interval import make_blocks, rate_intervals, rates, resampled_sums


def counts(errors, length):
    return ErrorCounts(hits=length - errors, substitutions=errors, deletions=0, insertions=0)


def wer_interval(pairs, speakers=None, **options):
    rows = [counts(*pair) for pair in pairs]
    (interval,) = rate_intervals([rows], speakers or [None] * len(rows), **options)
    return interval


@pytest.mark.parametrize(
    ("speakers", "kind", "index"),
    [
        ([None, None], "utterance", [0, 1]),
        (["a", "a", "a"], "utterance", [0, 1, 2]),
        (["a", None, "a"], "utterance", [0, 1, 2]),
        (["b", "a", "b"], "speaker", [0, 1, 0]),
        (["a", None, "b", None, "a"], "speaker", [0, 1, 2, 3, 0]),
    ],
)
def test_blocks(speakers, kind, index):
    blocks = make_blocks(speakers)
    assert (blocks.kind, blocks.index.tolist()) == (kind, index)
    assert blocks.count == len(set(index))


def test_replicates_are_all_draws_of_two_blocks():
    # Blocks of 1 error in 4 and 6 in 8: drawn twice they sum to one of these, 1 to 2 to 1.
    values = np.array([[1, 4], [2, 3], [4, 5]])
    sums = resampled_sums(values, make_blocks(["a", "b", "b"]), 4000, seed=1)
    found, times = np.unique(sums, axis=0, return_counts=True)
    assert found.tolist() == [[2, 8], [7, 12], [12, 16]]
    assert times / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_sums_equal_a_plain_loop():
    generator = np.random.default_rng(5)
    values = generator.integers(0, 9, size=(7, 3))
    speakers = ["x", "y", "x", "z", "z", "y", "w"]
    drawn = np.random.default_rng(2).integers(4, size=(50, 4))
    place = {name: k for k, name in enumerate("xyzw")}
    expected = [
        sum(values[k] for block in row for k in range(7) if place[speakers[k]] == block)
        for row in drawn
    ]
    assert np.array_equal(resampled_sums(values, make_blocks(speakers), 50, seed=2), expected)


def test_percentiles_equal_the_exact_distribution():
    # Five utterances: the bootstrap's 3,125 equally likely draws can be enumerated.
    pairs = [(0, 3), (1, 5), (2, 4), (0, 6), (5, 7)]
    exact = sorted(
        sum(e for e, _ in drawn) / sum(n for _, n in drawn)
        for drawn in itertools.product(pairs, repeat=5)
    )
    interval = wer_interval(pairs)
    places = [math.ceil(share * len(exact)) - 1 for share in (0.025, 0.975)]
    for end, place in zip((interval.low, interval.high), places, strict=True):
        # Monte Carlo with 10,000 draws: the percentile is right to some thousandths.
        assert exact[place - 15] <= end <= exact[place + 15]
    assert (interval.level, interval.block, interval.num_blocks) == (0.95, "utterance", 5)


def test_speakers_that_differ_widen_the_interval():
    # Ten speakers, half of them at 40 %, half at 0 %: by utterance this looks like plenty of data.
    pairs = [(4 if speaker % 2 else 0, 10) for speaker in range(10) for _ in range(50)]
    speakers = [str(speaker) for speaker in range(10) for _ in range(50)]
    blocked, single = wer_interval(pairs, speakers), wer_interval(pairs)
    assert blocked.block == "speaker"
    assert blocked.num_blocks == 10
    assert (blocked.high - blocked.low) > 5 * (single.high - single.low)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_for_the_same_seed_and_order_of_speakers_names(seed):
    pairs = [(k % 3, 5 + k % 4) for k in range(40)]
    first = wer_interval(pairs, [f"s{k % 8}" for k in range(40)], seed=seed)
    assert first == wer_interval(pairs, [f"t{k % 8}" for k in range(40)], seed=seed)
    other = wer_interval(pairs, [f"s{k % 8}" for k in range(40)], seed=seed + 1)
    assert other.low == pytest.approx(first.low, abs=0.01)


def coverage(num_speakers, trials=400):
    """Share of simulated test sets whose interval holds the true rate, speakers being different."""
    generator = np.random.default_rng(num_speakers)
    hits = 0
    for _ in range(trials):
        # Speakers' rates are beta distributed with mean 0.15; 8 utterances of 10 words each.
        rate = generator.beta(3, 17, size=num_speakers)
        errors = generator.binomial(10, np.repeat(rate, 8))
        speakers = [str(k) for k in range(num_speakers) for _ in range(8)]
        interval = wer_interval([(int(e), 10) for e in errors], speakers, replicates=1000)
        hits += interval.low <= 0.15 <= interval.high
    return hits / trials


def test_coverage_of_forty_speakers_is_what_is_promised():
    assert 0.91 <= coverage(40) <= 0.98


def test_coverage_of_five_speakers_falls_short_as_the_text_says():
    assert 0.75 <= coverage(5) <= 0.93


def test_several_rates_share_their_draws():
    rows = [counts(k % 3, 6) for k in range(20)]
    twice = [counts(2 * (k % 3), 6) for k in range(20)]
    words, doubled = rate_intervals([rows, twice], [None] * 20)
    assert (doubled.low, doubled.high) == (2 * words.low, 2 * words.high)


def test_no_interval_of_one_block():
    assert wer_interval([(1, 5)]) is None


def test_empty_references_have_the_rate_of_error_counts():
    found = rates(np.array([0.0, 2.0, 2.0]), np.array([0.0, 0.0, 4.0]))
    assert found.tolist() == [0, math.inf, 0.5]
    inserted = ErrorCounts(0, 0, 0, insertions=1)
    (interval,) = rate_intervals([[inserted, inserted]], [None, None])
    assert (interval.low, interval.high) == (math.inf, math.inf)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="counts are of 1 utterances, expected 2"):
        rate_intervals([[counts(0, 1)]], [None, None])


def test_ten_thousand_utterances_in_seconds_and_bounded_memory():
    generator = np.random.default_rng(0)
    pairs = generator.binomial(20, 0.1, size=10_000)
    tracemalloc.start()
    start = time.perf_counter()
    interval = wer_interval([(int(e), 20) for e in pairs])
    seconds = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert interval.num_blocks == 10_000
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * math.sqrt(0.09 / 2e5), rel=0.1)
    assert seconds < 30  # 2 on an idle core
    assert peak < 100e6
