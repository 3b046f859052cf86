"""One small evaluation, counted by hand, whose every text a test can set."""

import pytest

from asr.metrics.error_rate import score_utterance
from asr.report.evaluation import EvaluatedUtterance, Evaluation, ModelDescription


@pytest.fixture
def make_evaluation():
    """A function of the texts that come from data; words must hold no white space."""

    def make(text="plain", word="plain"):
        scored = (
            # id, speaker, duration [s], reference, hypothesis
            (f"1{text}", f"s1{text}", 2.5, f"the cat {word}1 on mats", f"the {word}2 on big mats"),
            (f"2{text}", f"s1{text}", 3.5, "all right", "all right"),
            (f"3{text}", None, 0.5, "", f"{word}3"),
        )
        return Evaluation(
            title=f"Title {text}",
            model=ModelDescription(f"model {text}", 1234567, {f"data {text}": text, "epochs": 3}),
            manifest=f"{text}.jsonl",
            real_time_factor=0.25,
            utterances=tuple(
                EvaluatedUtterance(
                    id, speaker, duration, f"{id}.wav", score_utterance(id, reference, hypothesis)
                )
                for id, speaker, duration, reference, hypothesis in scored
            ),
            settings={f"decoder {text}": text, "beam": 8, "greedy": False, "nothing": None},
        )

    return make
