"""An LSTM layer on a CPU: each core runs the whole time loop of its share, compiled by Numba.

Padding is never computed. The product with the input and the gradients of the weights are taken
over all packed frames at once, cut up for the threads; in inference the former is part of the loop.
Arrays and letters are those of `cpu_launch`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from asr.model.kernels.cpu_backward import input_gradients, run_backward, sum_outer_products
from asr.model.kernels.cpu_forward import run_forward, sum_inputs
from asr.model.kernels.cpu_launch import (
    CellKind,
    LayerGradients,
    LayerState,
    Packing,
    Parameters,
    Saved,
    run_tasks,
    spans,
    task,
)
from asr.model.kernels.cpu_tile import COLUMNS
from asr.model.kernels.memory import empty
from asr.model.kernels.operator import Passes, register
from asr.model.lstm_cell import Cell, Masks, Weights

FRAMES = 512  # about, of a thread's span in a product over all frames
GATES = 640  # about, of one in a weight's gradient


def to_list(layer: Sequence[Weights]) -> list[Tensor]:
    """All parameters, one direction after the other; what the cell lacks is an empty tensor."""
    return [
        weights.weight_ih.new_empty(0) if value is None else value
        for weights in layer
        for value in weights
    ]


def of_list(parameters: Sequence[Tensor]) -> list[Weights]:
    """The directions that `to_list` took."""
    values = [value if len(value) else None for value in parameters]
    count = len(Weights._fields)
    return [Weights(*values[k : k + count]) for k in range(0, len(values), count)]  # type: ignore[arg-type]


def saved_shapes(
    layer: Sequence[Weights], rows: int, reads_c: bool, keep: bool
) -> list[tuple[int, ...]]:
    """Of a `Saved`; only gates, of so many rows, where no backward pass follows."""
    first, directions, saved = layer[0], len(layer), rows if keep else 0
    units, (sums, width) = first.units, first.weight_hh.shape
    columns, normed = sums + -sums % COLUMNS, 0 if first.norm_hh is None else saved

    def panels(columns: int) -> tuple[int, int, int]:
        return -(-columns // COLUMNS), saved, COLUMNS

    return list(
        Saved(
            inputs=panels(first.weight_ih.shape[1]),
            gates=(rows, directions, columns),
            recurrent=(directions, *panels(units if reads_c else width)),
            c=(saved, directions, units),
            unprojected=(directions if keep and first.weight_hr is not None else 0, *panels(units)),
            normed_ih=(normed, directions, columns),
            normed_hh=(normed, directions, columns),
            scales=(normed, directions, 2),
        )
    )


def packed_masks(masks: Sequence[Tensor], packing: Packing, batch: int, frames: int) -> Masks:
    """Masks `(D, B, R)`, zone_h `(N, D, R)` and zone_c `(N, D, H)`, or empty; see `_forward`."""
    recurrent, *zones = masks
    zones = [
        zone.flatten(1, 2)[:, packing.rows].transpose(0, 1).contiguous()
        if len(zone)
        else zone.new_empty(0, 1, 1)
        for zone in zones
    ]
    recurrent = recurrent[:, packing.order] if len(recurrent) else recurrent.new_empty(0, 1, 1)
    return Masks(recurrent, *zones)


def padded_output(rows: int, shape: tuple[int, ...], packing: Packing, like: Tensor) -> Tensor:
    """`(B * T, ...)`, its values not set where a frame is, and zero in the padding."""
    output = empty((rows, *shape), like)
    return output if len(packing.rows) == rows else output.zero_()


def _forward(
    x: Tensor, lengths: Tensor, weights: list[Tensor], masks: list[Tensor],
    h_0: Tensor, c_0: Tensor, reads_c: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:  # fmt: skip
    """One layer.

    Args:
        x: `(B, T, in)`, float32 or float64, as all the following.
        lengths: `(B,)` int64.
        weights: of `to_list`.
        masks: recurrent `(D, B, R)`, zone_h `(D, B, T, R)` and zone_c `(D, B, T, H)`, or empty.
        h_0: `(D, B, R)`.
        c_0: `(D, B, H)`.
        reads_c: whether the recurrent matrix reads c.
        keep: whether a backward pass follows.

    Returns:
        output `(B, T, D * R)`, h_n and c_n; and a `Saved` if a backward pass follows.
    """
    layer = of_list(weights)
    batch, frames, _ = x.shape
    directions, _, width = h_0.shape
    packing = Packing.of(lengths, frames)
    shares = packing.shares(directions)
    # Where every thread has a share of the loop, it can take the product with the input as well.
    is_within = not keep and len(shares) >= torch.get_num_threads()
    parameters, inputs = Parameters.of(layer), x.contiguous().flatten(0, 1)
    rows = 0 if is_within else len(packing.rows)
    saved = Saved(*(empty(shape, x) for shape in saved_shapes(layer, rows, reads_c, keep)))
    if not is_within:
        run_tasks(
            task(sum_inputs, saved, inputs, packing.rows, parameters, *span)
            for span in spans(rows, FRAMES)
        )
        inputs = inputs[:0]
    packed = packed_masks(masks, packing, batch, frames)
    h, c = h_0[:, packing.order], c_0[:, packing.order]
    recurrent = (c if reads_c else h).clone()
    if packed.recurrent is not None and len(packed.recurrent):
        recurrent *= packed.recurrent
    output = padded_output(batch * frames, (directions, width), packing, x)
    loop = task(
        run_forward, CellKind.of(layer[0], reads_c), parameters, packed, saved, inputs,
        LayerState(h, c, recurrent), output, packing.starts, packing.rows,
    )  # fmt: skip
    run_tasks(partial(loop, share) for share in shares)
    h_n, c_n = torch.empty_like(h), torch.empty_like(c)
    h_n[:, packing.order], c_n[:, packing.order] = h, c
    return output.view(batch, frames, -1), h_n, c_n, list(saved) if keep else []


def gradient_arrays(parameters: Parameters, saved: Saved, d_h: Tensor) -> LayerGradients:
    """Where the backward pass writes, and adds up from zero."""
    frames, directions, _ = saved.gates.shape
    has_norm, has_projection = len(parameters.norm_hh) > 0, len(parameters.panels_hr) > 0

    def by_utterance(parameter: Tensor) -> Tensor:
        shape = len(parameter), d_h.shape[1], *parameter.shape[1:]
        return parameter.new_zeros(shape)

    return LayerGradients(
        input=empty(saved.gates.shape, d_h),
        recurrent=empty(saved.gates.shape if has_norm else (0, 1, 1), d_h),
        projected=empty((frames if has_projection else 0, directions, d_h.shape[2]), d_h),
        weight_ch=by_utterance(parameters.weight_ch),
        norm_ih=by_utterance(parameters.norm_ih),
        norm_hh=by_utterance(parameters.norm_hh),
        bias=by_utterance(parameters.bias),
        norm_c=by_utterance(parameters.norm_c),
        bias_c=by_utterance(parameters.bias_c),
    )


def _backward(
    d_output: Tensor, d_h_n: Tensor, d_c_n: Tensor, lengths: Tensor, weights: list[Tensor],
    masks: list[Tensor], tensors: list[Tensor], reads_c: bool,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:  # fmt: skip
    """Gradients of x, the weights, h_0 and c_0 of `_forward`, which saved these tensors."""
    layer, saved = of_list(weights), Saved(*tensors)
    batch, frames, _ = d_output.shape
    packing = Packing.of(lengths, frames)
    parameters = Parameters.of(layer, backward=True)
    d_outputs = d_output.contiguous().view(batch * frames, len(layer), -1)
    d_h, d_c = d_h_n[:, packing.order], d_c_n[:, packing.order]
    gradients = gradient_arrays(parameters, saved, d_h)
    loop = task(
        run_backward, CellKind.of(layer[0], reads_c), parameters,
        packed_masks(masks, packing, batch, frames), saved, gradients, d_outputs, d_h, d_c,
        packing.starts, packing.rows,
    )  # fmt: skip
    run_tasks(partial(loop, share) for share in packing.shares(len(layer)))
    d_x = padded_output(batch * frames, weights[0].shape[1:], packing, d_output)
    d_weights, tasks = _weight_gradients(layer, saved, gradients)
    tasks += [
        task(input_gradients, d_x, gradients.input, parameters.panels_ih, packing.rows, *span)
        for span in spans(len(packing.rows), FRAMES)
    ]
    run_tasks(tasks)
    d_h_0, d_c_0 = torch.empty_like(d_h), torch.empty_like(d_c)
    d_h_0[:, packing.order], d_c_0[:, packing.order] = d_h, d_c
    return d_x.view(batch, frames, -1), d_weights, d_h_0, d_c_0


def _weight_gradients(
    layer: Sequence[Weights], saved: Saved, gradients: LayerGradients
) -> tuple[list[Tensor], list[Callable[[], None]]]:
    """Those of `to_list`, and the tasks that fill the matrices among them."""
    found, tasks = list[Weights](), list[Callable[[], None]]()

    def products(left: Tensor, k: int, *right: tuple[Tensor, Tensor]) -> list[Tensor]:
        """`left[:, k].T @ right` for one or two matrices in panels, each beside its own weight."""
        outs = [empty((len(weight), len(panels) * COLUMNS), weight) for panels, weight in right]
        none = left.new_empty(0, 0), left.new_empty(0, 0, COLUMNS)
        pairs = [*zip(outs, (panels for panels, _ in right), strict=True), none]
        tasks.extend(
            task(sum_outer_products, *pairs[0], *pairs[1], left, k, *span)
            for span in spans(len(outs[0]), GATES)
        )
        return [out[:, : weight.shape[1]] for out, (_, weight) in zip(outs, right, strict=True)]

    for k, weights in enumerate(layer):
        ih, hh = (saved.inputs, weights.weight_ih), (saved.recurrent[k], weights.weight_hh)
        if weights.norm_hh is None:  # then both shares of the sums have one gradient
            d_ih, d_hh = products(gradients.input, k, ih, hh)
        else:
            (d_ih,) = products(gradients.input, k, ih)
            (d_hh,) = products(gradients.recurrent, k, hh)
        d_hr = None
        if weights.weight_hr is not None:
            (d_hr,) = products(gradients.projected, k, (saved.unprojected[k], weights.weight_hr))
        sums = gradients._asdict() | {"bias_ih": gradients.bias, "bias_hh": gradients.bias}
        d_vectors = {
            name: sums[name][k].sum(dim=0)
            for name in (
                "bias_ih",
                "bias_hh",
                "weight_ch",
                "norm_ih",
                "norm_hh",
                "norm_c",
                "bias_c",
            )
            if getattr(weights, name) is not None
        }
        found.append(Weights(d_ih, d_hh, weight_hr=d_hr, **d_vectors))
    return to_list(found), tasks


def _forward_shapes(
    x: Tensor, lengths: Tensor, weights: list[Tensor], masks: list[Tensor],
    h_0: Tensor, c_0: Tensor, reads_c: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:  # fmt: skip
    output = x.new_empty(*x.shape[:2], len(h_0) * h_0.shape[2])
    states = torch.empty_like(h_0), torch.empty_like(c_0)
    if not keep:
        return output, *states, []
    rows: Any = torch.library.get_ctx().new_dynamic_size()
    shapes = saved_shapes(of_list(weights), rows, reads_c, keep)
    return output, *states, [x.new_empty(shape) for shape in shapes]


def _backward_shapes(
    d_output: Tensor, d_h_n: Tensor, d_c_n: Tensor, lengths: Tensor, weights: list[Tensor],
    masks: list[Tensor], saved: list[Tensor], reads_c: bool,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:  # fmt: skip
    d_x = d_output.new_empty(*d_output.shape[:2], weights[0].shape[1])
    d_weights = [torch.empty_like(weight) for weight in weights]
    return d_x, d_weights, torch.empty_like(d_h_n), torch.empty_like(d_c_n)


_layer = register(
    "lstm_fused_cpu", ("cpu",), Passes(_forward, _backward, _forward_shapes, _backward_shapes),
    switches=("reads_c",),
)  # fmt: skip


def run(
    x: Tensor, lengths: Tensor, cell: Cell, weights: Sequence[Weights], masks: Sequence[Masks],
    h_0: Tensor, c_0: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One layer in its D directions, see `lstm.Run`."""
    stacked = [
        x.new_empty(0) if part[0] is None else torch.stack(part)
        for part in zip(*masks, strict=True)
    ]
    x = x.to(weights[0].weight_ih.dtype)
    return _layer(x, lengths.cpu(), to_list(weights), stacked, h_0, c_0, cell.reads_c)
