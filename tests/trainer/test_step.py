"""One step: split where memory is short, alike on any layout of the gradients, and told to all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asr.data.dataset import Batch, batch_loader
from asr.finding import Finding, Kind
from asr.recognizer import Recognizer
from asr.trainer.distributed import join_world
from asr.trainer.step import Gradients, Incidents, Stepper
from tests.data.loading import requests_of
from tests.trainer.fitting import RATE, MakeRecognizer, MakeSplits


@pytest.fixture
def batch(make_splits: MakeSplits, make_recognizer: MakeRecognizer) -> Batch:
    """Five utterances."""
    utterances = make_splits().train[:5]
    tokens = [make_recognizer().tokenizer.encode(utterance.text) for utterance in utterances]
    (batch,) = batch_loader(RATE).load(requests_of(utterances, tokens, 0, [range(5)]))
    assert len(batch.utterances) == 5
    return batch


@pytest.fixture
def joined(batch: Batch) -> Batch:
    """The same utterances, the last three in one row, and a row in which nobody speaks."""
    labels, lengths = batch.tokens, batch.token_lengths
    waveform = torch.cat([batch.waveforms[row, : batch.num_samples[row]] for row in (2, 3, 4)])
    label = torch.cat([labels[row, : lengths[row]] for row in (2, 3, 4)])
    silence = torch.zeros(RATE)
    sounds = [*batch.waveforms[:2], waveform, silence]
    ids = [*labels[:2], label, labels[0, :0]]
    rows = batch.rows
    return Batch(
        waveforms=torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True),
        num_samples=torch.tensor([*batch.num_samples[:2], len(waveform), RATE]),
        tokens=torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
        token_lengths=torch.tensor([*lengths[:2], len(label), 0]),
        seeds=batch.seeds[:4],
        rows=(rows[0], rows[1], rows[2] + rows[3] + rows[4], ()),
    )


def stepper_of(recognizer: Recognizer, clip_norm: float = 0.0) -> Stepper:
    optimizer = torch.optim.SGD(recognizer.model.parameters(), lr=0.1)
    world = join_world("cpu", 1, 1, "32-true")
    return Stepper(world, recognizer.train(), optimizer, None, clip_norm)


def weights_after(stepper: Stepper, batches: list[Batch]) -> dict[str, Tensor]:
    num_tokens = int(sum(batch.token_lengths.sum() for batch in batches))
    stepper.step(batches, num_tokens)
    return dict(stepper.model.state_dict())


class Shortage:
    """Memory for batches of so many utterances and no more."""

    def __init__(self, most: int, patch: pytest.MonkeyPatch) -> None:
        self.tried: list[int] = []
        losses = Stepper._finite_losses

        def scarce(stepper: Stepper, batch: Batch, incidents: Any) -> Any:
            self.tried.append(len(batch.utterances))
            if len(batch.utterances) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return losses(stepper, batch, incidents)

        patch.setattr(Stepper, "_finite_losses", scarce)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_batch_that_memory_is_too_small_for_is_split_and_the_step_is_the_same(
    make_recognizer: MakeRecognizer, batch: Batch, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    whole = weights_after(stepper_of(make_recognizer()), [batch])
    shortage = Shortage(most, monkeypatch)
    stepper = stepper_of(make_recognizer())
    result = stepper.step([batch], int(batch.token_lengths.sum()))
    for name, value in stepper.model.state_dict().items():
        torch.testing.assert_close(value, whole[name], rtol=1e-5, atol=1e-6)
    assert shortage.tried[:3] == [5, 3, {1: 2, 2: 2, 3: 2}[most]]
    assert result.incidents.left_out == []
    ids = ", ".join(utterance.id for utterance in batch.utterances)
    assert result.incidents.notes[0] == f"out of memory, batch split in two: {ids}"


def test_an_utterance_that_does_not_fit_alone_is_left_out(
    make_recognizer: MakeRecognizer, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    Shortage(0, monkeypatch)
    start = {name: value.clone() for name, value in make_recognizer().model.state_dict().items()}
    stepper = stepper_of(make_recognizer())
    result = stepper.step([batch], int(batch.token_lengths.sum()))
    assert [fault.kind for fault in result.incidents.left_out] == [Kind.OUT_OF_MEMORY] * 5
    assert {fault.id for fault in result.incidents.left_out} == {u.id for u in batch.utterances}
    for name, value in stepper.model.state_dict().items():
        assert torch.equal(value, start[name]), "nothing was learnt from, so nothing moves"


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    make_recognizer: MakeRecognizer, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Stepper, "_finite_losses", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        stepper_of(make_recognizer()).step([batch], 1)


def test_faults_of_the_loader_are_told_with_the_step(
    make_recognizer: MakeRecognizer, batch: Batch
) -> None:
    fault = Finding(Kind.UNREADABLE_AUDIO, "cut", "lost")
    dataset_batch = Batch(**{**batch.__dict__, "faults": (fault,)})
    result = stepper_of(make_recognizer()).step([dataset_batch], 99)
    assert result.incidents.left_out == [fault]
    assert len(result.losses) == 5
    assert result.is_stop is False


def test_without_batches_nothing_moves(make_recognizer: MakeRecognizer, batch: Batch) -> None:
    stepper = stepper_of(make_recognizer(norm="batch"))
    stepper.step([batch], 99)
    before = {name: value.clone() for name, value in stepper.model.state_dict().items()}
    assert stepper.step(None, 99) is None
    for name, value in stepper.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_loss_of_each_utterance_is_told(make_recognizer: MakeRecognizer, batch: Batch) -> None:
    num_tokens = int(batch.token_lengths.sum())
    together = stepper_of(make_recognizer()).step([batch], num_tokens)
    for row, utterance in enumerate(batch.utterances):
        alone = stepper_of(make_recognizer()).step(
            [batch.keep(torch.arange(5) == row).trimmed()], int(batch.token_lengths[row])
        )
        assert dict(together.losses)[utterance.id] == pytest.approx(alone.loss, rel=1e-5)
    assert 0 <= together.blank_share <= 1


def test_the_norms_of_the_blocks_are_parts_of_the_whole(
    make_recognizer: MakeRecognizer, batch: Batch
) -> None:
    stepper = stepper_of(make_recognizer())
    result = stepper.step([batch], int(batch.token_lengths.sum()))
    assert stepper.block_names == ("subsampling", "layer1", "head")
    squares = sum(norm**2 for norm in result.block_norms)
    assert squares**0.5 == pytest.approx(result.grad_norm, rel=1e-5)
    assert all(norm > 0 for norm in result.block_norms)


def test_halves_hold_all_rows_each_padded_to_its_own_longest(batch: Batch) -> None:
    first, second = batch.halves()
    assert [*first.utterances, *second.utterances] == list(batch.utterances)
    for half, rows in ((first, slice(0, 3)), (second, slice(3, 5))):
        longest = int(batch.num_samples[rows].max())
        assert half.waveforms.shape == (rows.stop - rows.start, longest)
        assert torch.equal(half.waveforms, batch.waveforms[rows, :longest])
        assert torch.equal(half.tokens, batch.tokens[rows])


LAYOUTS: list[Callable[[], Tensor]] = [
    partial(torch.randn, 3, 5),
    partial(torch.randn, 7),
    lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    lambda: torch.randn(5, 3).t(),
]


@pytest.mark.parametrize("make", LAYOUTS)
def test_gradients_in_one_buffer_are_autograds(make: Callable[[], Tensor]) -> None:
    torch.manual_seed(3)
    ours, theirs = nn.Parameter(make()), nn.Parameter(torch.empty(0))
    theirs = nn.Parameter(ours.detach().clone())
    other = nn.Parameter(torch.randn(4))
    gradients = Gradients([ours, other])
    for factor in (1.0, 2.0):  # they add up
        (ours.sin() * factor).sum().backward()
        (theirs.sin() * factor).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert ours.grad.stride() == ours.stride()
    assert ours.grad.untyped_storage().data_ptr() == gradients.flat.untyped_storage().data_ptr()
    assert gradients.norm() == pytest.approx(float(theirs.grad.norm()), rel=1e-6)
    assert gradients.norms([[ours], [other]]) == pytest.approx([gradients.norm(), 0.0])
    gradients.zero()
    assert not gradients.flat.any()


def test_a_step_of_joined_and_empty_rows_is_finite_and_names_only_utterances_alone(
    make_recognizer: MakeRecognizer, joined: Batch
) -> None:
    stepper = stepper_of(make_recognizer())
    before = {name: value.clone() for name, value in stepper.model.state_dict().items()}
    result = stepper.step([joined], int(joined.token_lengths.sum()))
    assert result.loss > 0
    assert result.incidents == Incidents()
    assert [name for name, _ in result.losses] == [row[0].id for row in joined.rows[:2]]
    after = stepper.model.state_dict()
    assert all(bool(torch.isfinite(value).all()) for value in after.values())
    assert any(not torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize("row", [2, 3])
def test_what_is_left_out_is_named_one_by_one(
    make_recognizer: MakeRecognizer, joined: Batch, row: int
) -> None:
    joined.waveforms[row, 5] = torch.nan
    result = stepper_of(make_recognizer()).step([joined], int(joined.token_lengths.sum()))
    left_out = [(each.id, each.reason) for each in result.incidents.left_out]
    reason = "features are not finite, joined with 2 others"
    assert left_out == [(each.id, reason) for each in joined.rows[row]]


def test_a_joined_row_without_memory_leaves_its_utterances_out(
    make_recognizer: MakeRecognizer, joined: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    Shortage(2, monkeypatch)
    result = stepper_of(make_recognizer()).step([joined], int(joined.token_lengths.sum()))
    assert {each.id for each in result.incidents.left_out} == {u.id for u in joined.rows[2]}
    assert {each.kind for each in result.incidents.left_out} == {Kind.OUT_OF_MEMORY}
