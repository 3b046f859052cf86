"""Which utterances CTC can learn from, against the loss itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from asr.augment.waveform import change_speed
from asr.data.dataset import label
from asr.data.manifest import Utterance
from asr.finding import Finding
from asr.model.ctc import ctc_loss
from asr.recognizer import Recognizer
from asr.trainer.left_out import check_feasible

RATE = 8000  # [Hz]


def utterance(text: str, seconds: float, name: str = "u") -> Utterance:
    return Utterance(Path("a.wav"), text, seconds, name)


def split_feasible(
    utterances: list[Utterance], recognizer: Recognizer, fastest: float = 1.0
) -> tuple[list[Utterance], list[Finding]]:
    """As a training does: those that are kept, and the others."""
    labels = label(
        utterances,
        recognizer.tokenizer,
        lambda some, tokens: check_feasible(some, tokens, recognizer, fastest),
    )
    rows = zip(utterances, labels, strict=True)
    kept = [each for each, tokens in rows if not isinstance(tokens, Finding)]
    return kept, [each for each in labels if isinstance(each, Finding)]


def is_feasible(recognizer: Recognizer, text: str, num_samples: int) -> bool:
    """What the loss says of a clip of silence."""
    with torch.no_grad():
        log_probs, lengths = recognizer(torch.zeros(1, num_samples), torch.tensor([num_samples]))
    tokens = torch.tensor([recognizer.tokenizer.encode(text)])
    loss = ctc_loss(log_probs, lengths, tokens, torch.tensor([len(text)]))
    return bool(loss.isfinite())


@pytest.mark.parametrize("text", ["a", "abcd", "aabb", "dddd"])
def test_exactly_those_with_a_finite_loss_are_kept(
    make_recognizer: Callable[..., Recognizer], text: str
) -> None:
    recognizer = make_recognizer()
    verdicts = set()
    for num_samples in range(1, 1300, 80):
        kept, misfits = split_feasible([utterance(text, num_samples / RATE)], recognizer)
        assert len(kept) + len(misfits) == 1
        assert bool(kept) == is_feasible(recognizer, text, num_samples)
        verdicts.add(bool(kept))
    assert verdicts == ({True} if text == "a" else {True, False})


def test_reasons_by_hand(make_recognizer: Callable[..., Recognizer]) -> None:
    # 10 ms a frame and one more, every second one kept: 0.1 s give 6 output frames.
    fine = [utterance("abcd", 0.1, "four"), utterance("aabb", 0.1, "six")]
    bad = [utterance("aaabc", 0.1, "seven"), utterance("", 1.0, "empty")]
    kept, misfits = split_feasible([bad[0], *fine, bad[1]], make_recognizer())
    assert kept == fine
    assert [misfit.id for misfit in misfits] == ["seven", "empty"]
    assert [misfit.reason for misfit in misfits] == [
        "0.10 s give 6 output frames, expected at least 7 for its 5 characters",
        "empty text, expected at least one character",
    ]


@pytest.mark.parametrize("speed", [1.1, 1.5, 2.0])
def test_the_fastest_speed_decides(
    make_recognizer: Callable[..., Recognizer], speed: float
) -> None:
    recognizer = make_recognizer()
    for num_samples in range(600, 2600, 133):
        kept, _ = split_feasible([utterance("abcdabcd", num_samples / RATE)], recognizer, speed)
        fast = len(change_speed(torch.zeros(num_samples).numpy(), speed, RATE))
        assert bool(kept) == is_feasible(recognizer, "abcdabcd", fast)


def test_the_speed_is_part_of_the_reason(make_recognizer: Callable[..., Recognizer]) -> None:
    _, (misfit,) = split_feasible([utterance("abcdab", 0.1)], make_recognizer(), fastest=2.0)
    assert misfit.reason == (
        "0.10 s give 3 output frames at speed 2, expected at least 6 for its 6 characters"
    )
