"""Significance: segments by hand, NIST's sc_stats on the same alignments, symmetry, Holm."""

import math
import re
import shutil
import statistics
import subprocess

import numpy as np
import pytest

from asr.metrics.error_rate import ErrorCounts, score_utterance
from asr.metrics.significance import holm, improvement, matched_pairs, segments
from tests.metrics.noisy_texts import noisy_pairs

SC_STATS = shutil.which("sc_stats", path="/usr/lib/sctk/bin") or shutil.which("sc_stats")


def alignment(reference, hypothesis):
    return score_utterance("u", reference, hypothesis).alignment


def cut(reference, first, second):
    return list(segments(alignment(reference, first), alignment(reference, second)))


@pytest.mark.parametrize(
    ("reference", "first", "second", "expected"),
    [
        pytest.param("a b c", "a b c", "a b c", [], id="nothing wrong"),
        pytest.param("a b c d e", "x b c d e", "a b c d y", [(1, 0), (0, 1)], id="three between"),
        pytest.param("a b c d", "x b c d", "a b c y", [(1, 0), (0, 1)], id="two between"),
        pytest.param("a b c", "x b c", "a b y", [(1, 1)], id="one between"),
        pytest.param("a b c d", "x b c d", "a b q c d", [(1, 1)], id="insertion between"),
        pytest.param("a b c d", "a b c d z", "y b c d", [(0, 1), (1, 0)], id="insertion last"),
        pytest.param("a b", "q a b", "a b", [(1, 0)], id="insertion first"),
        pytest.param("a b c", "", "a b c", [(3, 0)], id="all deleted"),
        pytest.param("", "x y", "z", [(2, 1)], id="empty reference"),
        pytest.param("a b c d e f", "a x c y e f", "a b c d e f", [(2, 0)], id="runs together"),
        # Gillick & Cox's figure 1 has this shape: two segments with errors in a sentence of which
        # the middle is right in both.
        pytest.param(
            "it was the best of times it was the worst of times",
            "it was best of times it was worst of times",
            "it was the best of times it is the worst of times",
            [(1, 0), (1, 1)],
            id="a sentence",
        ),
    ],
)
def test_segments_by_hand(reference, first, second, expected):
    assert cut(reference, first, second) == expected
    assert cut(reference, second, first) == [(b, a) for a, b in expected]


def test_statistic_by_hand():
    # Differences 1, 1, 1, -1, 2: mean 0.8, deviation sqrt(4.8/4), z = 0.8 / (1.0954 / sqrt 5).
    references = ["a b c", "a b c", "a b c", "a b c", "a b c"]
    first = ["x b c", "a x c", "a b x", "a b c", "x y c"]
    second = ["a b c", "a b c", "a b c", "a b y", "a b c"]
    found = matched_pairs(
        list(map(alignment, references, first)), list(map(alignment, references, second))
    )
    assert found.num_segments == 5
    assert found.mean == pytest.approx(0.8)
    assert found.deviation == pytest.approx(statistics.stdev([1, 1, 1, -1, 2]))
    assert found.z == pytest.approx(1.63299, abs=1e-5)
    assert found.p == pytest.approx(0.10247, abs=1e-5)  # 2 * (1 - Phi(1.63299)), from a table


def test_nothing_to_tell():
    same = [alignment("a b", "a x")]
    found = matched_pairs(same, same)
    assert (found.num_segments, found.mean, found.z, found.p) == (1, 0, 0, 1)
    one = matched_pairs([alignment("a b", "a x")], [alignment("a b", "a b")])
    assert (one.num_segments, one.mean, one.z, one.p) == (1, 1, None, None)
    assert matched_pairs([], []).p == 1


def systems(seed, count=300, rates=(0.1, 0.14)):
    """Two noisy copies of the same made-up sentences, by utterance."""
    first, second = (noisy_pairs(seed, count, rate=rate, salt=k) for k, rate in enumerate(rates))
    return [(a[0], a[1], b[1]) for a, b in zip(first, second, strict=True)]


def test_symmetric_under_swap():
    made = systems(3)
    a = [alignment(reference, first) for reference, first, _ in made]
    b = [alignment(reference, second) for reference, _, second in made]
    one, two = matched_pairs(a, b), matched_pairs(b, a)
    assert one.z == -two.z
    assert (one.p, one.num_segments, one.deviation) == (two.p, two.num_segments, two.deviation)
    counts_a = [score_utterance("u", reference, first).words for reference, first, _ in made]
    counts_b = [score_utterance("u", reference, second).words for reference, _, second in made]
    speakers = [f"s{k % 20}" for k in range(len(made))]
    one, two = (
        improvement(counts_a, counts_b, speakers),
        improvement(counts_b, counts_a, speakers),
    )
    assert one.difference == -two.difference
    assert one.probability + two.probability == pytest.approx(1)
    assert one.interval.low == pytest.approx(-two.interval.high, abs=1e-3)
    assert one == improvement(counts_a, counts_b, speakers)
    assert one.interval.block == "speaker"
    assert one.difference > 0 > one.probability - 0.5  # 14 % of errors are more than 10 %


def test_probability_of_improvement_by_hand():
    def counts(*errors):
        return [ErrorCounts(10 - e, e, 0, 0) for e in errors]

    # Two utterances, draws aa, ab, ba, bb: B better by 2, 1, 1 or 0 errors; the last counts half.
    found = improvement(counts(2, 1), counts(1, 1), [None, None], replicates=20_000)
    assert found.difference == pytest.approx(-1 / 20)
    assert found.probability == pytest.approx(0.75 + 0.25 / 2, abs=0.01)
    equal = improvement(counts(2, 1), counts(2, 1), [None, None])
    assert (equal.difference, equal.probability) == (0, 0.5)
    assert (equal.interval.low, equal.interval.high) == (0, 0)
    alone = improvement(counts(2), counts(1), ["s"])
    assert (alone.interval, alone.probability) == (None, None)


def test_false_alarms_are_as_frequent_as_p_says():
    # Two systems of the same error rate: p below 0.1 in about a tenth of the test sets.
    below = sum(matched_p(systems(seed, 50, (0.12, 0.12))) < 0.1 for seed in range(100))
    assert 2 <= below <= 19  # 10 expected, with a deviation of 3


def matched_p(made):
    return matched_pairs(
        [alignment(reference, first) for reference, first, _ in made],
        [alignment(reference, second) for reference, _, second in made],
    ).p


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never falling: Holm's own procedure.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_user_mistakes_are_named():
    with pytest.raises(ValueError, match="references are 'a' and 'b', expected the same"):
        matched_pairs([alignment("a", "a")], [alignment("b", "b")])
    with pytest.raises(ValueError, match="got 0, expected 1"):
        matched_pairs([alignment("a", "a")], [])
    one, two = [ErrorCounts(1, 0, 0, 0)], [ErrorCounts(2, 0, 0, 0)]
    with pytest.raises(ValueError, match="expected the same references"):
        improvement(one, two, [None])
    nothing = [ErrorCounts(0, 0, 0, 0)]
    with pytest.raises(ValueError, match="no word in 1 utterances"):
        improvement(nothing, nothing, [None])


def sgml(title, alignments):
    """Alignments as sclite's SGML, so that NIST's program cuts and tests the same ones."""
    letters = {"equal": "C", "substitute": "S", "delete": "D", "insert": "I"}
    lines = [
        f'<SYSTEM title="{title}" ref_fname="r" hyp_fname="{title}" creation_date="none" '
        'format="2.4" frag_corr="FALSE" opt_del="FALSE" weight_ali="FALSE" weight_filename="">',
        '<SPEAKER id="s">',
    ]
    for k, each in enumerate(alignments):
        steps = [
            f"{letters[word.kind]},"
            + ",".join(f'"{text}"' if text else "" for text in (word.reference, word.hypothesis))
            for word in each
        ]
        lines.append(f'<PATH id="(s-{k})" word_cnt="{len(steps)}" sequence="{k}">')
        lines += [":".join(steps), "</PATH>"]
    return "\n".join([*lines, "</SPEAKER>", "</SYSTEM>", ""])


@pytest.mark.skipif(SC_STATS is None, reason="NIST sc_stats (Debian: sctk) is not installed")
@pytest.mark.parametrize("seed", range(4))
def test_equals_nist_sc_stats(seed, tmp_path):
    made = systems(seed, 200)
    # A last word that both have right: sc_stats overlooks what only its second system inserts
    # behind the last word, which would part the two by the order of the systems.
    a = [alignment(f"{reference} end", f"{first} end") for reference, first, _ in made]
    b = [alignment(f"{reference} end", f"{second} end") for reference, _, second in made]
    ends = ("equal", "end", "end")
    for each in (*a, *b):
        assert (each[-1].kind, each[-1].reference, each[-1].hypothesis) == ends
    subprocess.run(
        [SC_STATS, "-p", "-t", "mapsswe", "-v", "-n", "out"],
        input=sgml("one", a) + sgml("two", b),
        cwd=tmp_path,
        text=True,
        check=True,
        capture_output=True,
    )
    (report,) = tmp_path.glob("out*.mapsswe")
    told = report.read_text(encoding="latin-1")
    result = re.search(
        r"\(# segs: (\d+)\).*\(mean: +(-?[\d.]+)\) \(std dev: +([\d.]+)\) "
        r"\(Z Stat: +(-?[\d.]+)\) \(Stat Diff: (\w+)\)",
        told,
    )
    assert result, told
    found = matched_pairs(a, b)
    assert found.num_segments == int(result[1])
    for ours, theirs in (
        (found.mean, result[2]),
        (found.deviation, result[3]),
        (found.z, result[4]),
    ):
        assert ours == pytest.approx(float(theirs), abs=6e-4)
    assert (found.p < 0.05) == (result[5] == "Yes")


def test_p_is_the_normal_distributions_tail():
    made = systems(1, 60)
    a = [alignment(reference, first) for reference, first, _ in made]
    b = [alignment(reference, second) for reference, _, second in made]
    found = matched_pairs(a, b)
    steps = np.linspace(-abs(found.z), abs(found.z), 20_001)
    density = np.exp(-(steps**2) / 2) / math.sqrt(2 * math.pi)
    inside = float(np.sum((density[1:] + density[:-1]) / 2) * (steps[1] - steps[0]))
    assert found.p == pytest.approx(1 - inside, abs=1e-6)
