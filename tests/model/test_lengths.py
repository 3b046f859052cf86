"""Masks, frame counts and reversal by length, on examples worked out by hand."""

from __future__ import annotations

import pytest
import torch

from asr.model.lengths import length_mask, mask_padding, reverse_by_length, subsampled_length

NAN = float("nan")


def test_length_mask_by_hand() -> None:
    mask = length_mask(torch.tensor([2, 0, 3]), 3)
    assert mask.tolist() == [[True, True, False], [False, False, False], [True, True, True]]


def test_mask_padding_takes_nan_out_of_values_and_gradient() -> None:
    x = torch.tensor([[[1.0, 2.0], [NAN, NAN]], [[3.0, 4.0], [5.0, 6.0]]], requires_grad=True)
    masked = mask_padding(x, torch.tensor([1, 2]))
    assert masked.tolist() == [[[1.0, 2.0], [0.0, 0.0]], [[3.0, 4.0], [5.0, 6.0]]]
    masked.square().sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[[2.0, 4.0], [0.0, 0.0]], [[6.0, 8.0], [10.0, 12.0]]]


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_subsampled_length_counts_every_factorth_frame(factor: int) -> None:
    lengths = torch.arange(65)
    counted = [len(range(0, length, factor)) for length in range(65)]
    assert subsampled_length(lengths, factor).tolist() == counted
    assert subsampled_length(lengths, factor).dtype == torch.int64


def test_reverse_by_length_by_hand() -> None:
    # Rows a b c, d e - and f - -, each frame one number; 0 is padding and stays at the end.
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 0.0], [6.0, 0.0, 0.0]])[..., None]
    reversed_rows = reverse_by_length(x, torch.tensor([3, 2, 1]))[..., 0]
    assert reversed_rows.tolist() == [[3.0, 2.0, 1.0], [5.0, 4.0, 0.0], [6.0, 0.0, 0.0]]


def test_reverse_by_length_leaves_padding_and_empty_rows_in_place() -> None:
    x = torch.arange(12.0).reshape(2, 3, 2)
    reversed_rows = reverse_by_length(x, torch.tensor([2, 0]))
    assert reversed_rows[0].tolist() == [[2.0, 3.0], [0.0, 1.0], [4.0, 5.0]]
    assert torch.equal(reversed_rows[1], x[1])


def test_reverse_by_length_is_its_own_inverse() -> None:
    x = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([7, 4, 1, 0, 2])
    assert torch.equal(reverse_by_length(reverse_by_length(x, lengths), lengths), x)
    assert not torch.equal(reverse_by_length(x, lengths), x)


def test_reverse_by_length_keeps_nan_in_the_padding() -> None:
    x = torch.tensor([[1.0, 2.0, NAN]])[..., None]
    reversed_row = reverse_by_length(x, torch.tensor([2]))[0, :, 0]
    assert reversed_row[:2].tolist() == [2.0, 1.0]
    assert reversed_row[2].isnan()


def test_gradient_of_reverse_by_length() -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, 4, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    lengths = torch.tensor([4, 2, 0])
    assert torch.autograd.gradcheck(lambda value: reverse_by_length(value, lengths), x)
    assert torch.autograd.gradgradcheck(lambda value: reverse_by_length(value, lengths), x)
