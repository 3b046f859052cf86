"""The CTC loss against the sum over all paths, and the rule of how many frames labels need."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from asr.model.ctc import BLANK, ctc_loss, required_frames

Labels = tuple[int, ...]

pytestmark = pytest.mark.usefixtures("_gradient")


@pytest.fixture(params=["torch", "ordered"])
def _gradient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of torch, and of a GPU, which has its own here."""
    is_torch = request.param == "torch"
    monkeypatch.setattr("asr.model.ctc.repeats_itself", lambda device: is_torch)


def collapse(path: Labels) -> Labels:
    """Merge repeats, then drop blanks (Graves et al., 2006, equation 1)."""
    merged = [label for label, _ in itertools.groupby(path)]
    return tuple(label for label in merged if label != BLANK)


def brute_force(log_probs: Tensor, tokens: Labels) -> float:
    """Minus the logarithm of the summed probability of every path that collapses to `tokens`."""
    frames, vocab = log_probs.shape
    rows = log_probs.tolist()
    likelihood = math.fsum(
        math.exp(sum(rows[frame][label] for frame, label in enumerate(path)))
        for path in itertools.product(range(vocab), repeat=frames)
        if collapse(path) == tokens
    )
    return -math.log(likelihood) if likelihood else math.inf


def log_probs_of(frames: int, vocab: int) -> Tensor:
    generator = torch.Generator().manual_seed(10 * frames + vocab)
    logits = 2 * torch.randn(frames, vocab, generator=generator, dtype=torch.float64)
    return logits.log_softmax(-1)


def labelings(vocab: int, longest: int) -> list[Labels]:
    return [
        labels
        for length in range(longest + 1)
        for labels in itertools.product(range(1, vocab), repeat=length)
    ]


def loss_of(log_probs: Tensor, tokens: Labels) -> Tensor:
    """Of one utterance `(T, V)`."""
    return ctc_loss(
        log_probs[None],
        torch.tensor([len(log_probs)]),
        torch.tensor([tokens], dtype=torch.int64),
        torch.tensor([len(tokens)]),
    )[0]


@pytest.mark.parametrize("vocab", [2, 3, 4])
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
def test_loss_is_the_sum_over_all_paths(frames: int, vocab: int) -> None:
    log_probs = log_probs_of(frames, vocab)
    for tokens in labelings(vocab, longest=3):
        expected = brute_force(log_probs, tokens)
        assert loss_of(log_probs, tokens).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)
        found = loss_of(log_probs.float(), tokens)
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_all_labelings_together_have_probability_one() -> None:
    log_probs = log_probs_of(4, 3)
    losses = [loss_of(log_probs, tokens).item() for tokens in labelings(3, longest=4)]
    assert math.fsum(math.exp(-loss) for loss in losses) == pytest.approx(1, abs=1e-12)


def test_required_frames_is_the_shortest_path_there_is() -> None:
    for tokens in labelings(4, longest=3):
        shortest = next(
            frames
            for frames in range(7)
            if any(collapse(path) == tokens for path in itertools.product(range(4), repeat=frames))
        )
        assert required_frames(list(tokens)) == shortest


@pytest.mark.parametrize(
    ("tokens", "frames"), [([], 0), ([1], 1), ([1, 2], 2), ([1, 1], 3), ([2, 2, 2, 1, 1], 8)]
)
def test_required_frames_by_hand(tokens: list[int], frames: int) -> None:
    assert required_frames(tokens) == frames


def test_infinite_exactly_where_there_are_too_few_frames() -> None:
    for frames, tokens in itertools.product((1, 2, 3, 4), labelings(3, longest=3)):
        is_feasible = required_frames(list(tokens)) <= frames
        assert loss_of(log_probs_of(frames, 3), tokens).isfinite() == is_feasible


def test_a_batch_of_ragged_rows_is_its_rows_and_padding_may_hold_anything() -> None:
    log_probs = torch.stack([log_probs_of(5, 4), log_probs_of(5, 4).flip(0), log_probs_of(5, 4)])
    lengths = torch.tensor([5, 3, 2])
    texts: list[Labels] = [(1, 2, 2), (3,), ()]
    log_probs[1, 3:] = float("nan")
    log_probs[2, 2:] = 1e9
    tokens = torch.tensor([[1, 2, 2], [3, 0, -7], [99, 4, -1]])
    losses = ctc_loss(log_probs, lengths, tokens, torch.tensor([3, 1, 0]))
    for row, text in enumerate(texts):
        own = log_probs[row, : lengths[row]]
        assert losses[row].item() == pytest.approx(brute_force(own, text), rel=1e-9)


def test_padding_gets_no_gradient() -> None:
    log_probs = torch.stack([log_probs_of(4, 3), log_probs_of(4, 3)]).requires_grad_()
    losses = ctc_loss(
        log_probs, torch.tensor([4, 2]), torch.tensor([[1, 2], [1, 0]]), torch.tensor([2, 1])
    )
    losses.sum().backward()
    assert log_probs.grad is not None
    assert torch.count_nonzero(log_probs.grad[1, 2:]) == 0
    assert torch.count_nonzero(log_probs.grad[1, :2]) > 0


def test_gradcheck_through_the_softmax() -> None:
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    tokens, token_lengths = torch.tensor([[1, 1], [2, 0]]), torch.tensor([2, 1])

    def run(logits: Tensor) -> Tensor:
        return ctc_loss(logits.log_softmax(-1), torch.tensor([4, 3]), tokens, token_lengths)

    assert torch.autograd.gradcheck(run, logits.requires_grad_())


def test_an_empty_transcript_is_all_blanks() -> None:
    log_probs = log_probs_of(3, 4)
    expected = -log_probs[:, BLANK].sum().item()
    assert loss_of(log_probs, ()).item() == pytest.approx(expected, abs=1e-12)


def test_half_precision_is_computed_in_float32() -> None:
    log_probs = log_probs_of(5, 4).half()
    loss = loss_of(log_probs, (1, 2))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, loss_of(log_probs.float(), (1, 2)))


@pytest.mark.parametrize("label", [BLANK, -1, 4, 1000])
def test_labels_that_are_none_are_refused_with_their_place(label: int) -> None:
    log_probs = log_probs_of(5, 4)[None].expand(3, -1, -1)
    tokens = torch.tensor([[1, 2, 3], [3, 2, 0], [1, 2, label]])
    message = rf"^label {label} at position 2 of row 2 of the batch, expected 1 to 3 \(0 is"
    with pytest.raises(ValueError, match=message):
        ctc_loss(log_probs, torch.tensor([5, 5, 5]), tokens, torch.tensor([3, 2, 3]))


def long_utterances() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits `(B, T, V)`, their lengths, labels with many repeats, and theirs."""
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(4, 300, 5, generator=generator)
    tokens = torch.randint(1, 5, (4, 60), generator=generator)
    return logits, torch.tensor([300, 299, 150, 7]), tokens, torch.tensor([60, 41, 60, 0])


def gradient_of(logits: Tensor, *others: Tensor) -> Tensor:
    logits = logits.detach().requires_grad_()
    ctc_loss(logits.log_softmax(-1), *others).sum().backward()
    assert logits.grad is not None
    return logits.grad


def test_gradients_of_long_utterances_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, *others = long_utterances()
    found = gradient_of(logits.double(), *others)
    monkeypatch.setattr("asr.model.ctc.repeats_itself", lambda device: True)
    torch.testing.assert_close(found, gradient_of(logits.double(), *others), rtol=0, atol=1e-10)


@pytest.mark.cuda
def test_a_gpu_gives_the_same_bits_each_time() -> None:
    here = [value.cuda() for value in long_utterances()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asr.model.ctc.repeats_itself", lambda device: device.type != "cuda")
        runs = [gradient_of(*here) for _ in range(20)]
    assert all(torch.equal(run, runs[0]) for run in runs)
    torch.testing.assert_close(runs[0].cpu(), gradient_of(*long_utterances()), rtol=0, atol=1e-4)
