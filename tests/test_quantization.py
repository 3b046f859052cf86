"""Weights in fewer bytes: examples by hand, bounds of the error, and what stays as it is."""

from __future__ import annotations

import pytest
import torch

from asr.quantization import Storage, dequantized, like_quantized, quantized


def test_int8_by_hand() -> None:
    # Scales 2.54 / 127 = 0.02, 0, and 127 / 127 = 1, halves to even.
    weight = torch.tensor([[2.54, -1.0, 0.011], [0.0, 0.0, 0.0], [127.0, 0.5, -1.5]])
    stored = quantized({"w": weight}, "int8")
    assert stored["w"].tolist() == [[127, -50, 1], [0, 0, 0], [127, 0, -2]]
    assert stored["w"].dtype == torch.int8
    torch.testing.assert_close(stored["w.scale"], torch.tensor([0.02, 0.0, 1.0]))
    expected = torch.tensor([[2.54, -1.0, 0.02], [0.0, 0.0, 0.0], [127.0, 0.0, -2.0]])
    torch.testing.assert_close(dequantized(stored), {"w": expected})


@pytest.mark.parametrize(("storage", "bound"), [("float16", 2.0**-11), ("int8", 0.5 / 127)])
def test_no_weight_moves_further_than_it_may(storage: Storage, bound: float) -> None:
    torch.manual_seed(3)
    weight = torch.randn(40, 30) * torch.logspace(-3, 2, 40)[:, None]  # rows of all scales
    (found,) = dequantized(quantized({"w": weight}, storage)).values()
    assert found.dtype == torch.float32
    largest = weight.abs().amax(1, keepdim=True)
    assert not torch.equal(found, weight)
    assert bool(((found - weight).abs() <= 1.001 * bound * largest).all())


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_all_but_matrices_stays_and_meta_tells_shapes(storage: Storage) -> None:
    weights = {
        "bias": torch.randn(4),
        "convolution": torch.randn(4, 2, 3, 3),
        "is_measured": torch.tensor(True),
        "steps": torch.tensor(7),
        "x.scale": torch.randn(4),  # a weight of that name is no scale of another
        "matrix": torch.randn(4, 5),
    }
    stored = quantized(weights, storage)
    for name, weight in weights.items():
        is_same = stored[name].dtype == weight.dtype
        assert is_same == (name != "matrix" or storage == "float32")
    back = dequantized(stored)
    assert back.keys() == weights.keys()
    for name in weights.keys() - {"matrix"}:
        assert torch.equal(back[name], weights[name])
    shapes = like_quantized({k: weight.to("meta") for k, weight in weights.items()}, storage)
    assert [(k, v.shape, v.dtype) for k, v in shapes.items()] == [
        (k, v.shape, v.dtype) for k, v in stored.items()
    ]
