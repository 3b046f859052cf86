"""Batches: padding, taking rows out, and loading a plan with and without workers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr.augment import WaveformAugment
from asr.data.batch import Batch, BatchLoader, collate
from asr.data.dataset import Example, SpeechDataset
from asr.data.manifest import Utterance
from asr.finding import Finding, Kind

RATE = 8000  # [Hz]


def utterance(name: str) -> Utterance:
    return Utterance(Path(f"{name}.wav"), "text", 1.0, name)


def example(name: str, samples: list[float], tokens: tuple[int, ...]) -> Example:
    return Example(np.array(samples, dtype=np.float32), tokens, len(samples), utterance(name))


@pytest.fixture
def batch() -> Batch:
    return collate(
        [example("a", [0.5, -0.5], (3,)), example("b", [0.25], ()), example("c", [1.0] * 3, (1, 2))]
    )


def assert_same(left: Batch, right: Batch) -> None:
    for name in ("waveforms", "num_samples", "tokens", "token_lengths"):
        assert torch.equal(getattr(left, name), getattr(right, name)), name
    assert left.seeds == right.seeds
    assert left.utterances == right.utterances


def test_collate_by_hand(batch: Batch) -> None:
    assert batch.waveforms.tolist() == [[0.5, -0.5, 0.0], [0.25, 0.0, 0.0], [1.0, 1.0, 1.0]]
    assert batch.waveforms.dtype == torch.float32
    assert batch.num_samples.tolist() == [2, 1, 3]
    assert batch.num_samples.dtype == torch.int64
    assert batch.tokens.tolist() == [[3, 0], [0, 0], [1, 2]]
    assert batch.tokens.dtype == torch.int64
    assert batch.token_lengths.tolist() == [1, 0, 2]
    assert batch.seeds == (2, 1, 3)
    assert [u.id for u in batch.utterances] == ["a", "b", "c"]


def test_collate_of_empty_transcripts_alone() -> None:
    batch = collate([example("a", [0.5], ()), example("b", [0.25], ())])
    assert batch.tokens.shape == (2, 0)
    assert batch.tokens.dtype == torch.int64
    assert batch.token_lengths.tolist() == [0, 0]


def test_collate_of_nothing() -> None:
    batch = collate([])
    assert batch.waveforms.shape == (0, 0)
    assert batch.tokens.shape == (0, 0)
    assert batch.token_lengths.dtype == batch.num_samples.dtype == torch.int64
    assert batch.utterances == ()


def test_keep_takes_rows_out_of_everything(batch: Batch) -> None:
    kept = batch.keep(torch.tensor([True, False, True]))
    assert kept.waveforms.tolist() == [[0.5, -0.5, 0.0], [1.0, 1.0, 1.0]]
    assert kept.num_samples.tolist() == [2, 3]
    assert kept.tokens.tolist() == [[3, 0], [1, 2]]
    assert kept.token_lengths.tolist() == [1, 2]
    assert kept.seeds == (2, 3)
    assert [u.id for u in kept.utterances] == ["a", "c"]
    assert_same(batch.keep(torch.tensor([True] * 3)), batch)
    assert batch.keep(torch.tensor([False] * 3)).waveforms.shape == (0, 3)


def test_to_another_device_keeps_everything(batch: Batch) -> None:
    assert_same(batch.to(torch.device("cpu")), batch)
    moved = batch.to(torch.device("meta"))
    tensors = (moved.waveforms, moved.num_samples, moved.tokens, moved.token_lengths)
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.fixture
def dataset(tmp_path: Path) -> SpeechDataset:
    generator = np.random.default_rng(0)
    utterances = []
    for index in range(6):
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, generator.uniform(-0.5, 0.5, 800 + 100 * index), RATE)
        utterances.append(Utterance(path, "ab", 0.1 + index / 80, f"u{index}"))
    augment = WaveformAugment(speeds=(0.9, 1.0, 1.1), gain_db=(-6.0, 6.0))
    return SpeechDataset(utterances, [[1, 2]] * 6, RATE, seed=3, augment=augment)


PLAN = [(4, 1), (0,), (5, 2, 3)]


def test_the_loader_loads_the_plan_in_order(dataset: SpeechDataset) -> None:
    loader = BatchLoader(dataset)
    for epoch in (0, 1):
        batches = list(loader.batches(epoch, PLAN))
        assert [tuple(int(u.id[1:]) for u in b.utterances) for b in batches] == PLAN
        for batch, positions in zip(batches, PLAN, strict=True):
            assert_same(batch, collate([dataset[epoch, position] for position in positions]))


def test_workers_change_nothing(dataset: SpeechDataset) -> None:
    alone, helped = BatchLoader(dataset), BatchLoader(dataset, num_workers=2)
    abandoned = helped.batches(0, PLAN)
    next(abandoned)  # an epoch left in its middle must not leak into the next one
    for epoch in (1, 2):
        expected = list(alone.batches(epoch, PLAN))
        for found, batch in zip(helped.batches(epoch, PLAN), expected, strict=True):
            assert_same(found, batch)


def test_the_loader_pins_the_tensors(
    dataset: SpeechDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    (batch,) = BatchLoader(dataset).batches(0, PLAN[:1])
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    for workers in (0, 1):
        (pinned,) = BatchLoader(dataset, workers, pin_memory=True).batches(0, PLAN[:1])
        for name in ("waveforms", "num_samples", "tokens", "token_lengths"):
            assert torch.equal(getattr(pinned, name), getattr(batch, name) + 1), name
        assert pinned.utterances == batch.utterances


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failure_is_raised_once_its_batch_is_asked_for(
    dataset: SpeechDataset, workers: int
) -> None:
    class Failing(SpeechDataset):
        def __getitem__(self, key: tuple[int, int]) -> Example | Finding:
            if key[1] == 0:
                return self.utterances[0].finding(Kind.NOT_VARIED, "no noise")
            return super().__getitem__(key)

    loader = BatchLoader(Failing(dataset.utterances, dataset.tokens, RATE), workers)
    batches = loader.batches(0, PLAN)
    assert [u.id for u in next(batches).utterances] == ["u4", "u1"]
    with pytest.raises(ValueError, match=r"^no noise$"):
        next(batches)


def test_an_utterance_that_ends_its_worker_is_named(dataset: SpeechDataset) -> None:
    class Deadly(SpeechDataset):
        def __getitem__(self, key: tuple[int, int]) -> Example | Finding:
            os._exit(4)

    loader = BatchLoader(Deadly(dataset.utterances, dataset.tokens, RATE), 1)
    with pytest.raises(ValueError, match=r"^the batch of u4, u1 cannot be loaded: .* status 4 "):
        next(loader.batches(0, PLAN))


def test_the_rest_of_a_plan_is_the_end_of_the_whole(dataset: SpeechDataset) -> None:
    loader = BatchLoader(dataset)
    whole = list(loader.batches(4, PLAN))
    rest = list(loader.batches(4, PLAN[1:]))
    for found, batch in zip(rest, whole[1:], strict=True):
        assert_same(found, batch)
    assert list(loader.batches(4, [])) == []
