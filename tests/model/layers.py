"""LSTM layers in float64 with weights of order one, their twins, inputs and states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from asr.model.lstm import LSTM

INPUT, HIDDEN, BATCH, FRAMES = 3, 5, 4, 6
# Those fast enough here for every test of a layer; fused_triton's own are in kernels/.
BACKENDS = ("reference", "native", "fused_cpu")


def layer_of(backend: str, **arguments: object) -> LSTM:
    """A layer in float64 with weights of order one."""
    layer = LSTM(INPUT, HIDDEN, backend=backend, **arguments).double()  # type: ignore[arg-type]
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def shape_of(layer: LSTM) -> dict[str, Any]:
    """The arguments that torch's layer has too."""
    names = (
        "input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional",
        "proj_size",
    )  # fmt: skip
    return {name: getattr(layer, name) for name in names}


def torch_twin(layer: LSTM) -> nn.LSTM:
    """torch's layer of the same shape and weights."""
    twin = nn.LSTM(**shape_of(layer)).double()
    twin.load_state_dict(layer.state_dict())
    return twin


def twin_of(layer: LSTM, backend: str) -> LSTM:
    """A layer of the same shape and weights on another backend."""
    options = ("cell", "recurrent_dropout", "zoneout", "coupled_gates")
    arguments = shape_of(layer) | {name: getattr(layer, name) for name in options}
    twin = LSTM(**arguments, backend=backend).to(next(layer.parameters()).dtype)
    twin.load_state_dict(layer.state_dict())
    return twin


def random_state(layer: LSTM, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    count = layer.num_layers * layer.num_directions
    widths = (layer.recurrent_size, layer.hidden_size)
    h_0, c_0 = (torch.randn(count, batch, width).double() for width in widths)
    return h_0, c_0


def random_input(layer: LSTM) -> Tensor:
    x = torch.randn(BATCH, FRAMES, INPUT).double()
    return x if layer.batch_first else x.transpose(0, 1).contiguous()


def alone(x: Tensor, row: int, length: int) -> Tensor:
    """One sequence of a batch-first batch without its padding."""
    return x[row : row + 1, :length]


def assert_equal(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def forward_and_gradients(
    layer: nn.Module, x: Tensor, state: tuple[Tensor, Tensor], **arguments: Tensor
) -> dict[str, Tensor]:
    """Outputs, and gradients of everything for random weights on all outputs."""
    generator = torch.Generator().manual_seed(3)
    leaves = {"input": x, "h_0": state[0], "c_0": state[1]}
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in leaves.items()}
    output, (h_n, c_n) = layer(leaves["input"], (leaves["h_0"], leaves["c_0"]), **arguments)
    outputs = {"output": output, "h_n": h_n, "c_n": c_n}
    total = sum(
        (value * torch.randn(value.shape, generator=generator).to(value)).sum()
        for value in outputs.values()
    )
    leaves |= dict(layer.named_parameters())
    gradients = torch.autograd.grad(total, list(leaves.values()))
    named = zip(leaves, gradients, strict=True)
    return outputs | {f"gradient of {name}": gradient for name, gradient in named}
