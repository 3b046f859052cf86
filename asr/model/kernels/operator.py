"""A layer's kernel as an operator of torch: autograd, fake tensors and torch.compile know it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

# x, lengths, weights, masks, h_0, c_0, then the switches, to output, h_n and c_n.
Layer = Callable[..., tuple[Tensor, Tensor, Tensor]]


class Passes(NamedTuple):
    """The forward and the backward pass of a layer's kernel, and both for fake tensors.

    Attributes:
        forward: the arguments of `Layer`, and whether a backward pass follows, to output, h_n, c_n
            and a list of what that pass needs.
        backward: gradients of output, h_n and c_n, then lengths, weights, masks, what was saved,
            and the switches, to gradients of x, weights, h_0 and c_0.
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
    forward, backward = f"asr::{name}", f"asr::{name}_backward"
    on = ", ".join(f"bool {switch}" for switch in switches)
    torch.library.define(
        forward,
        "(Tensor x, Tensor lengths, Tensor[] weights, Tensor[] masks, Tensor h_0, Tensor c_0, "
        f"{on}, bool keep) -> (Tensor, Tensor, Tensor, Tensor[])",
    )
    torch.library.define(
        backward,
        "(Tensor d_output, Tensor d_h_n, Tensor d_c_n, Tensor lengths, Tensor[] weights, "
        f"Tensor[] masks, Tensor[] saved, {on}) -> (Tensor, Tensor[], Tensor, Tensor)",
    )
    torch.library.impl(forward, tuple(devices), passes.forward)
    torch.library.impl(backward, tuple(devices), passes.backward)
    torch.library.register_fake(forward, passes.forward_shapes)
    torch.library.register_fake(backward, passes.backward_shapes)
    run, run_backward = (getattr(torch.ops.asr, each) for each in (name, f"{name}_backward"))

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        _, lengths, weights, masks, _, _, *on, _ = inputs
        saved = output[3]
        ctx.mark_non_differentiable(*saved)
        ctx.set_materialize_grads(False)  # they would be zeros for all that is saved
        ctx.save_for_backward(lengths, *weights, *masks, *saved)
        ctx.counts, ctx.on = (len(weights), len(masks)), on
        ctx.like = [(value.shape, value.dtype, value.device) for value in output[:3]]

    def gradients(ctx: Any, *given: Any) -> Any:
        lengths, *tensors = ctx.saved_tensors
        weights, masks = ctx.counts
        d_output, d_h_n, d_c_n = (
            torch.zeros(shape, dtype=dtype, device=device) if gradient is None else gradient
            for gradient, (shape, dtype, device) in zip(given, ctx.like, strict=False)
        )
        d_x, d_weights, d_h_0, d_c_0 = run_backward(
            d_output, d_h_n, d_c_n, lengths, tensors[:weights], tensors[weights : weights + masks],
            tensors[weights + masks :], *ctx.on,
        )  # fmt: skip
        return d_x, None, d_weights, [None] * masks, d_h_0, d_c_0, *(None for _ in ctx.on), None

    torch.library.register_autograd(forward, gradients, setup_context=setup_context)

    def layer(
        x: Tensor, lengths: Tensor, weights: Sequence[Tensor], masks: Sequence[Tensor],
        h_0: Tensor, c_0: Tensor, *on: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        tensors = (x, *weights, h_0, c_0)
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        output, h_n, c_n, _ = run(x, lengths, weights, masks, h_0, c_0, *on, keep)
        return output, h_n, c_n

    return layer
