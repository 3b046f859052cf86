"""A layer's kernel as an operator of torch: autograd, fake tensors and torch.compile know it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

ARGUMENTS = "Tensor x, Tensor lengths, Tensor[] weights, Tensor[] drawn, Tensor h_0, Tensor c_0"
# x, lengths, weights, what is drawn, h_0, c_0, then the switches, to output, h_n and c_n.
Layer = Callable[..., tuple[Tensor, Tensor, Tensor]]


class Passes(NamedTuple):
    """A layer's kernel, there and back, and what each way gives for fake tensors.

    Attributes:
        forward: the arguments of `Layer`, and whether a backward pass follows, to output, h_n, c_n
            and a list of what that pass needs.
        backward: gradients of output, h_n and c_n, then lengths, weights, what was drawn, what was
            kept, and the switches, to gradients of x, weights, h_0 and c_0.
        forward_shapes: `forward` for fake tensors.
        backward_shapes: `backward`, likewise.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    forward_shapes: Callable[..., Any]
    backward_shapes: Callable[..., Any]


def register(name: str, devices: Sequence[str], passes: Passes, switches: Sequence[str]) -> Layer:
    """Register `asr::<name>` and `asr::<name>_backward`.

    Args:
        name: of the operator.
        devices: torch's names of those it runs on.
        passes: the kernel.
        switches: names of what else is on or off, the last arguments of `Layer`.

    Returns:
        the layer, differentiable.
    """
    run, run_back = _operators(name, devices, passes, switches)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        _, lengths, weights, drawn, _, _, *on, _ = inputs
        kept = output[3]
        ctx.mark_non_differentiable(*kept)
        ctx.set_materialize_grads(False)  # they would be zeros for all that is kept
        ctx.save_for_backward(lengths, *weights, *drawn, *kept)
        ctx.counts, ctx.on = (len(weights), len(drawn)), on
        ctx.like = [(value.shape, value.dtype, value.device) for value in output[:3]]

    def gradients(ctx: Any, *given: Any) -> Any:
        lengths, *tensors = ctx.saved_tensors
        weights, drawn = ctx.counts
        d_output, d_h_n, d_c_n = (
            torch.zeros(shape, dtype=dtype, device=device) if gradient is None else gradient
            for gradient, (shape, dtype, device) in zip(given, ctx.like, strict=False)
        )
        d_x, d_weights, d_h_0, d_c_0 = run_back(
            d_output, d_h_n, d_c_n, lengths, tensors[:weights], tensors[weights : weights + drawn],
            tensors[weights + drawn :], *ctx.on,
        )  # fmt: skip
        return d_x, None, d_weights, [None] * drawn, d_h_0, d_c_0, *(None for _ in ctx.on), None

    torch.library.register_autograd(f"asr::{name}", gradients, setup_context=setup_context)

    def layer(
        x: Tensor, lengths: Tensor, weights: Sequence[Tensor], drawn: Sequence[Tensor],
        h_0: Tensor, c_0: Tensor, *on: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        tensors = (x, *weights, h_0, c_0)
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        output, h_n, c_n, _ = run(x, lengths, weights, drawn, h_0, c_0, *on, keep)
        return output, h_n, c_n

    return layer


def _operators(
    name: str, devices: Sequence[str], passes: Passes, switches: Sequence[str]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The two of `register`, which know nothing of each other yet."""
    there, back = f"asr::{name}", f"asr::{name}_backward"
    on = ", ".join(f"bool {switch}" for switch in switches)
    torch.library.define(
        there, f"({ARGUMENTS}, {on}, bool keep) -> (Tensor, Tensor, Tensor, Tensor[])"
    )
    torch.library.define(
        back,
        "(Tensor d_output, Tensor d_h_n, Tensor d_c_n, Tensor lengths, Tensor[] weights, "
        f"Tensor[] drawn, Tensor[] kept, {on}) -> (Tensor, Tensor[], Tensor, Tensor)",
    )
    torch.library.impl(there, tuple(devices), passes.forward)
    torch.library.impl(back, tuple(devices), passes.backward)
    torch.library.register_fake(there, passes.forward_shapes)
    torch.library.register_fake(back, passes.backward_shapes)
    return getattr(torch.ops.asr, name), getattr(torch.ops.asr, f"{name}_backward")
