"""Comparisons: numbers by hand, other utterances refused, corrected for several pairs."""

import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from asr.metrics.error_rate import score_utterance
from asr.report.comparison import compare_evaluations, comparison_to_json
from asr.report.evaluation import EvaluatedUtterance, Evaluation, ModelDescription
from asr.report.terminal import comparison_notes, comparison_table, settings_table

REFERENCES = ("a b c", "d e f", "g h i", "j k l")


def evaluation(*hypotheses, references=REFERENCES, model="m", **settings):
    return Evaluation(
        "t",
        ModelDescription(model, 1),
        "f.jsonl",
        None,
        tuple(
            EvaluatedUtterance(f"u{k}", f"s{k}", 1.0, "a.wav", score_utterance(f"u{k}", *pair))
            for k, pair in enumerate(zip(references, hypotheses, strict=True))
        ),
        settings,
    )


FIRST = evaluation("a b x", "d e f", "g h", "j k l", beam_size=1)
SECOND = evaluation("a b c", "d e f", "g h i", "j x l", beam_size=8)


def printed(comparison):
    console = Console(file=io.StringIO(), width=200)
    console.print(comparison_table(comparison), comparison_notes(comparison))
    return console.file.getvalue()


def test_two_by_hand():
    comparison = compare_evaluations([("one", FIRST), ("two", SECOND)])
    (pair,) = comparison.pairs
    assert (pair.system, pair.better, pair.worse) == (1, 2, 1)
    assert pair.words.difference == pytest.approx(-1 / 12)
    assert (pair.matched.num_segments, pair.matched.mean) == (3, pytest.approx(1 / 3))
    assert pair.p_holm == pair.matched.p
    assert 0.5 < pair.words.probability < 1
    assert pair.words.interval.block == "speaker"
    assert comparison.differing == {"beam_size": (1, 8)}


def test_order_of_the_utterances_does_not_matter():
    turned = replace(SECOND, utterances=SECOND.utterances[::-1])
    one = compare_evaluations([("one", FIRST), ("two", SECOND)])
    assert compare_evaluations([("one", FIRST), ("two", turned)]) == one


def test_holm_for_several_pairs_and_none_where_there_is_no_p():
    third = evaluation(*REFERENCES, model="other")  # one error less in both segments: no p
    comparison = compare_evaluations([("one", FIRST), ("two", SECOND), ("three", third)])
    first, second = comparison.pairs
    assert second.matched.p is None
    assert second.p_holm is None
    assert first.p_holm == first.matched.p  # the only test there is
    again = compare_evaluations([("one", FIRST), ("two", SECOND), ("twice", replace(SECOND))])
    assert [pair.p_holm for pair in again.pairs] == [min(1, 2 * first.matched.p)] * 2
    assert comparison.differing["model"] == ("m", "m", "other")
    assert comparison.differing["beam_size"] == (1, 8, None)


def test_table_and_notes():
    text = printed(compare_evaluations([("[bold]one", FIRST), ("two\x1b[2J", SECOND)]))
    assert "4 utterances, 12 words" in text
    assert "[bold]one" in text
    assert "\x1b" not in text
    assert "16.67\u202f%" in text
    assert "-8.33" in text
    assert "p (Holm)" not in text
    assert "p is coarse, from 3 segments with an error; 50 are wanted" in text
    assert "resampled by speaker (4)" in text
    three = printed(compare_evaluations([("1", FIRST), ("2", SECOND), ("3", replace(SECOND))]))
    assert "p (Holm)" in three


def test_many_settings_that_differ_have_a_table_of_their_own():
    other = replace(SECOND, settings={"beam_size": 8, "lm_weight": 0.5, "[red]file": "\x1b" * 400})
    few = compare_evaluations([("one", FIRST), ("two", SECOND)])
    assert settings_table(few) is None
    many = compare_evaluations([("one", FIRST), ("two", other)])
    console = Console(file=io.StringIO(), width=60)
    console.print(settings_table(many))
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert text.count("␛") == 59
    assert text.count("…") == 1
    assert "[red]file" in text
    assert re.search(r"beam_size +│ 1 +│ 8 ", text)
    assert re.search(r"lm_weight +│ — +│ 0\.5 ", text)
    assert "lm_weight" not in printed(many)
    assert "beam_size" in printed(few)


def test_json_has_all_numbers():
    comparison = compare_evaluations([("one", FIRST), ("two", SECOND)])
    content = json.loads(comparison_to_json(comparison), parse_constant=pytest.fail)
    assert [each["name"] for each in content["systems"]] == ["one", "two"]
    assert content["systems"][0]["wer"] == 2 / 12
    assert content["systems"][1]["settings"] == {"beam_size": 8}
    (pair,) = content["pairs"]
    assert (pair["first"], pair["second"]) == ("one", "two")
    assert pair["matched_pairs"]["p"] == comparison.pairs[0].matched.p
    assert pair["probability_of_improvement"] == comparison.pairs[0].words.probability
    assert (pair["utterances_better"], pair["utterances_worse"]) == (2, 1)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            replace(SECOND, utterances=SECOND.utterances[:3]),
            "two: 1 utterances of one are missing and 0 are further ones ('u3'), expected the "
            "same utterances",
        ),
        (
            evaluation("a", "d", "g", "j", references=("a b c", "d e", "g h i", "j k l")),
            "two: 1 references differ from those of one, the first of utterance 'u1': 'd e', "
            "expected 'd e f'",
        ),
        (
            replace(SECOND, text_rules=("lower case",)),
            "two: text rules are lower case, expected those of one: not told",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(second, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        compare_evaluations([("one", FIRST), ("two", second)])


def test_two_different_ones_are_wanted():
    with pytest.raises(ValueError, match="got 1 evaluations to compare, expected two or more"):
        compare_evaluations([("one", FIRST)])
    with pytest.raises(ValueError, match="'one' is compared with itself"):
        compare_evaluations([("one", FIRST), ("one", SECOND)])
