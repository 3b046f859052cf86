"""Validation: corpus totals by hand, whatever the batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from asr.data.dataset import Batch, batch_loader
from asr.data.manifest import Utterance
from asr.data.splits import Splits
from asr.metrics.error_rate import ErrorCounts
from asr.model.ctc import ctc_loss
from asr.recognizer import Recognizer
from asr.trainer.distributed import World
from asr.trainer.validation import Validation, check_readable, validate
from tests.data.loading import requests_of

RATE = 8000  # [Hz]


@pytest.fixture
def world() -> World:
    return World(torch.device("cpu"))


@pytest.fixture
def recognizer(make_recognizer: Callable[..., Recognizer]) -> Recognizer:
    return make_recognizer(dropout=0.5)


def batches_of(
    recognizer: Recognizer, utterances: tuple[Utterance, ...], plan: list[tuple[int, ...]]
) -> list[Batch]:
    tokens = [recognizer.tokenizer.encode(utterance.text) for utterance in utterances]
    return list(batch_loader(RATE).load(requests_of(utterances, tokens, 0, plan)))


class Scripted(Recognizer):
    """A recogniser that writes a given text for each utterance, told apart by its length."""

    def __init__(self, recognizer: Recognizer, texts: dict[int, str]) -> None:
        super().__init__(recognizer.spec)
        self.texts = texts

    def forward(self, waveforms: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        log_probs = torch.full((len(num_samples), 16, self.tokenizer.vocab_size), -9.0)
        for row, samples in enumerate(num_samples.tolist()):
            log_probs[row, :, 0] = -5.0
            for position, token in enumerate(self.tokenizer.encode(self.texts[samples])):
                log_probs[row, 2 * position, token] = 0.0
        return log_probs.log_softmax(-1), torch.full_like(num_samples, 16)


def test_word_and_character_errors_by_hand(
    recognizer: Recognizer, make_utterance: Callable[..., Utterance], world: World
) -> None:
    truth = {"x": "abcd", "y": "ab", "z": "bbb"}
    said = {"x": "abcd", "y": "acd", "z": ""}  # all right; b -> c and a d too much; three missing
    utterances = tuple(make_utterance(name, text) for name, text in truth.items())
    texts = {round((u.duration or 0) * RATE): said[u.id] for u in utterances}
    scripted = Scripted(recognizer, texts)
    result = validate(scripted, batches_of(recognizer, utterances, [(2, 0), (1,)]), world)
    assert result.words == ErrorCounts(hits=1, substitutions=1, deletions=1, insertions=0)
    assert result.words.rate == pytest.approx(2 / 3)
    assert result.characters == ErrorCounts(hits=5, substitutions=1, deletions=3, insertions=1)
    assert [(s.id, s.reference, s.hypothesis) for s in result.samples] == [
        ("z", "bbb", ""), ("x", "abcd", "abcd"), ("y", "ab", "acd"),
    ]  # fmt: skip


def test_the_loss_is_nats_a_character(
    recognizer: Recognizer, make_splits: Callable[..., Splits], world: World
) -> None:
    dev = make_splits().dev
    batches = batches_of(recognizer, dev, [tuple(range(len(dev)))])
    total = 0.0
    with torch.no_grad():
        for batch in batches_of(recognizer, dev, [(k,) for k in range(len(dev))]):
            output = recognizer.eval()(batch.waveforms, batch.num_samples)
            total += ctc_loss(*output, batch.tokens, batch.token_lengths).item()
    expected = total / sum(len(utterance.text) for utterance in dev)
    assert validate(recognizer, batches, world).loss == pytest.approx(expected, rel=1e-5)


def test_the_batches_do_not_matter(
    recognizer: Recognizer, make_splits: Callable[..., Splits], world: World
) -> None:
    dev = make_splits().dev

    def result(plan: list[tuple[int, ...]]) -> Validation:
        return validate(recognizer, batches_of(recognizer, dev, plan), world)

    whole, parts = result([(0, 1, 2, 3, 4, 5)]), result([(5, 0), (3,), (1, 4, 2)])
    assert (whole.words, whole.characters) == (parts.words, parts.characters)
    assert whole.loss == pytest.approx(parts.loss, rel=1e-6)
    assert whole.words.reference_length == len(dev)


@pytest.mark.parametrize("training", [True, False])
def test_it_runs_without_dropout_and_leaves_the_mode_as_it_was(
    recognizer: Recognizer, make_splits: Callable[..., Splits], world: World, training: bool
) -> None:
    batches = batches_of(recognizer, make_splits().dev, [(0, 1, 2)])
    recognizer.train(training)
    first, second = (validate(recognizer, batches, world) for _ in range(2))
    assert first == second
    assert recognizer.training is training
    assert recognizer.model.training is training


def test_samples_are_a_few_spread_over_the_split(
    recognizer: Recognizer, make_splits: Callable[..., Splits], world: World
) -> None:
    dev = make_splits().dev
    batches = batches_of(recognizer, dev, [(0, 1, 2), (3, 4, 5)])
    chosen = validate(recognizer, batches, world, num_samples=2).samples
    assert [sample.id for sample in chosen] == [dev[0].id, dev[3].id]
    few = validate(recognizer, batches[:1], world, num_samples=9).samples
    assert [sample.id for sample in few] == [utterance.id for utterance in dev[:3]]


def test_an_utterance_without_a_path_makes_the_loss_infinite_not_the_rates(
    recognizer: Recognizer, make_utterance: Callable[..., Utterance], world: World
) -> None:
    short = make_utterance("short", "abcdabcd", letter_s=0.001)
    assert (short.duration or 0) < 0.3
    cut = Utterance(short.audio_filepath, short.text, 0.05, short.id)
    result = validate(recognizer, batches_of(recognizer, (cut,), [(0,)]), world)
    assert result.loss == float("inf")
    assert 0 <= result.words.rate <= 1


def damaged(utterance: Utterance, content: bytes | None, tmp_path: Path) -> Utterance:
    path = tmp_path / utterance.audio_filepath.name
    if content is not None:
        path.write_bytes(content)
    return replace(utterance, audio_filepath=path)


def test_a_split_that_cannot_be_read_names_its_first_utterance_and_how_many(
    recognizer: Recognizer,
    make_splits: Callable[..., Splits],
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("asr.trainer.validation.TELL_EVERY_S", -1.0)
    caplog.set_level("INFO")
    dev = list(make_splits().dev)
    plan = [(5, 4, 3), (2, 1, 0)]  # the shortest first, say
    check_readable(batches_of(recognizer, tuple(dev), plan), dev, world)
    assert caplog.messages == [
        f"reading dev audio, before the first step: {percent} %" for percent in (50, 100)
    ]
    dev[1] = damaged(dev[1], dev[1].audio_filepath.read_bytes()[:999], tmp_path)
    dev[4] = damaged(dev[4], None, tmp_path)
    with pytest.raises(ValueError, match="2 of 6 dev utterances cannot be used, exp") as told:
        check_readable(batches_of(recognizer, tuple(dev), plan), dev, world)
    first = f"; first: {dev[1].id}: {dev[1].audio_filepath}: cut short, "
    assert first in str(told.value)
    assert "\n" not in str(told.value)
