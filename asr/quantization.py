"""Weights in fewer bytes: half precision, or whole numbers of 8 bits with a scale a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

Storage = Literal["float32", "float16", "int8"]
LARGEST = 127  # of int8; -128 is left out, so that rows are symmetric
SCALE = ".scale"  # after the name of a weight: the name of its scales
# Of float32 for one byte of each.
EXPANSION: Mapping[Storage, int] = {"float32": 1, "float16": 2, "int8": 4}


def quantized(weights: Mapping[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Store weights in fewer bytes.

    Matrices alone are, nearly all of a model. Convolutions, biases, norms and feature statistics
    are few, and each acts on all that follows: convolutions are a hundredth of the weights, and in
    int8 made more than half of the error of a whole model (benchmarks/shrink.py). In int8 a row w
    of a matrix, the weights of one output, becomes round(w / s) with the scale s = max |w| / 127,
    so that no weight moves by more than s / 2.

    Args:
        weights: float32, by name.
        storage: of the matrices.

    Returns:
        By name the weights, and in int8 for each matrix its scales `(rows,)` float32 under its name
        and SCALE. Those beyond the range of float16 are infinite.
    """
    stored: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.ndim != 2 or storage == "float32":
            stored[name] = weight
        elif storage == "float16":
            stored[name] = weight.half()
        else:
            scale = weight.abs().amax(1) / LARGEST  # (rows,)
            divisor = torch.where(scale > 0, scale, 1.0)[:, None]  # a row of zeros has scale 0
            stored[name] = (weight / divisor).round().clamp(-LARGEST, LARGEST).to(torch.int8)
            stored[name + SCALE] = scale
    return stored


def like_quantized(weights: Mapping[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Tell what `quantized` makes of weights: tensors of its shapes and dtypes, without content.

    Nothing is computed: a sum on the meta device has torch import its compiler, for seconds.
    """
    stored: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.ndim != 2 or storage == "float32":
            stored[name] = weight
            continue
        dtype = torch.float16 if storage == "float16" else torch.int8
        stored[name] = torch.empty(weight.shape, dtype=dtype, device="meta")
        if storage == "int8":
            stored[name + SCALE] = torch.empty(len(weight), device="meta")
    return stored


def dequantized(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `quantized`: the weights in float32, but for what is rounded off."""
    weights: dict[str, Tensor] = {}
    for name, weight in stored.items():
        if weight.dtype == torch.int8:
            weights[name] = weight.float() * stored[name + SCALE][:, None]
        elif not (name.endswith(SCALE) and name.removesuffix(SCALE) in stored):
            weights[name] = weight.float() if weight.dtype == torch.float16 else weight
    return weights
