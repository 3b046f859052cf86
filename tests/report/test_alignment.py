"""Long right stretches are cut, errors never."""

from asr.metrics.error_rate import score_utterance
from asr.report.alignment import Gap, excerpt


def shown(reference, hypothesis):
    words = score_utterance("u", reference, hypothesis).alignment.words
    return [each.num_words if isinstance(each, Gap) else each.reference for each in excerpt(words)]


def test_short_stretches_stay_whole():
    reference = "a b c d e f g h i j k l x"
    assert shown(reference, reference.replace("x", "y")) == reference.split()


def test_long_stretches_keep_both_ends():
    reference = "a b c d e f g h i j k l m x"
    expected = ["a", "b", "c", "d", 5, "j", "k", "l", "m", "x"]
    assert shown(reference, reference.replace("x", "y")) == expected
