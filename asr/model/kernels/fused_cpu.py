"""An LSTM layer on a CPU: each core runs the whole time loop of its share, compiled by Numba.

Padding is never computed. The product with the input and the gradients of the weights are taken
over all packed frames at once, cut up for the threads; in inference the former is part of the loop.

D directions, 1 or 2; B utterances; N frames inside the lengths; H units; R the width of h; G gates;
W = G * H rounded up to 16. What a cell lacks is an empty tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from asr.model.kernels.cpu_arrays import Drawn, Gradients, Kept, Parameters, State
from asr.model.kernels.cpu_backward import run_backward
from asr.model.kernels.cpu_forward import run_forward
from asr.model.kernels.cpu_parameters import Direction, for_loops, of_list, to_list
from asr.model.kernels.cpu_products import (
    input_gradients,
    sum_inputs,
    sum_outer_products,
)
from asr.model.kernels.cpu_tile import COLUMNS
from asr.model.kernels.memory import empty
from asr.model.kernels.operator import Passes, register
from asr.model.kernels.packing import Packing, run_tasks, spans, task
from asr.model.lstm_cell import Cell, Masks, Weights

FRAMES = 512  # about, of a thread's span in a product over all frames
GATES = 640  # about, of one in a weight's gradient


def _forward(
    x: Tensor, lengths: Tensor, weights: list[Tensor], drawn: list[Tensor],
    h_0: Tensor, c_0: Tensor, reads_c: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:  # fmt: skip
    """One layer.

    Args:
        x: `(B, T, in)`, float32 or float64, as all the following.
        lengths: `(B,)` int64.
        weights: of `cpu_parameters.to_list`.
        drawn: mask `(D, B, R)`, zone_h `(D, B, T, R)` and zone_c `(D, B, T, H)`.
        h_0: `(D, B, R)`.
        c_0: `(D, B, H)`.
        reads_c: whether the recurrent matrix reads c.
        keep: whether a backward pass follows.

    Returns:
        output `(B, T, D * R)`, h_n and c_n; and a `Kept` if a backward pass follows.
    """
    layer = of_list(weights)
    batch, frames, _ = x.shape
    directions, _, width = h_0.shape
    packing = Packing.of(lengths, frames)
    shares = packing.shares(directions)
    # Where every thread has a share of the loop, it can take the product with the input as well.
    is_within = not keep and len(shares) >= torch.get_num_threads()
    parameters, inputs = for_loops(layer), x.contiguous().flatten(0, 1)
    rows = 0 if is_within else len(packing.rows)
    kept = Kept(*(empty(shape, x) for shape in _kept_shapes(layer, rows, reads_c, keep)))
    if not is_within:
        run_tasks(
            task(sum_inputs, kept, inputs, packing.rows, parameters, *span)
            for span in spans(rows, FRAMES)
        )
        inputs = inputs[:0]
    noise = _packed_noise(drawn, packing, batch, frames)
    h, c = h_0[:, packing.order], c_0[:, packing.order]
    recurrent = (c if reads_c else h).clone()
    if len(noise.mask):
        recurrent *= noise.mask
    output = _empty_output(batch * frames, (directions, width), packing, x)
    loop = task(
        run_forward, layer[0].kind(reads_c), parameters, noise, kept, inputs,
        State(h, c, recurrent), output, packing.starts, packing.rows,
    )  # fmt: skip
    run_tasks(partial(loop, share) for share in shares)
    h_n, c_n = torch.empty_like(h), torch.empty_like(c)
    h_n[:, packing.order], c_n[:, packing.order] = h, c
    return output.view(batch, frames, -1), h_n, c_n, list(kept) if keep else []


def _empty_output(rows: int, shape: tuple[int, ...], packing: Packing, like: Tensor) -> Tensor:
    """`(B * T, ...)`, its values not set where a frame is, and zero in the padding."""
    output = empty((rows, *shape), like)
    return output if len(packing.rows) == rows else output.zero_()


def _packed_noise(drawn: list[Tensor], packing: Packing, batch: int, frames: int) -> Drawn:
    mask, *zones = drawn
    mask = mask[:, packing.order] if len(mask) else mask.new_empty(0, 1, 1)
    packed = [
        zone.flatten(1, 2)[:, packing.rows].transpose(0, 1).contiguous()  # (N, D, R or H)
        if len(zone)
        else zone.new_empty(0, 1, 1)
        for zone in zones
    ]
    return Drawn(mask, *packed)


def _kept_shapes(
    layer: Sequence[Direction], rows: int, reads_c: bool, keep: bool
) -> list[tuple[int, ...]]:
    """Of a `Kept`; only gates, of so many rows, where no backward pass follows."""
    first, directions, kept = layer[0], len(layer), rows if keep else 0
    units, sums = first.units, len(first.weight_hh)
    width, normed = sums + -sums % COLUMNS, kept if len(first.norm_hh) else 0
    has_projection = keep and len(first.weight_hr) > 0

    def panels(columns: int) -> tuple[int, int, int]:
        return -(-columns // COLUMNS), kept, COLUMNS

    return list(
        Kept(
            inputs=panels(first.weight_ih.shape[1]),
            gates=(rows, directions, width),
            recurrent=(directions, *panels(units if reads_c else first.weight_hh.shape[1])),
            c=(kept, directions, units),
            unprojected=(directions if has_projection else 0, *panels(units)),
            normed_ih=(normed, directions, width),
            normed_hh=(normed, directions, width),
            scales=(normed, directions, 2),
        )
    )


def _backward(
    d_output: Tensor, d_h_n: Tensor, d_c_n: Tensor, lengths: Tensor, weights: list[Tensor],
    drawn: list[Tensor], kept: list[Tensor], reads_c: bool,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:  # fmt: skip
    """Gradients of x, the weights, h_0 and c_0 of `_forward`, shaped like these."""
    layer, saved = of_list(weights), Kept(*kept)
    batch, frames, _ = d_output.shape
    packing = Packing.of(lengths, frames)
    parameters = for_loops(layer, backward=True)
    d_outputs = d_output.contiguous().view(batch * frames, len(layer), -1)
    d_h, d_c = d_h_n[:, packing.order], d_c_n[:, packing.order]
    gradients = _gradient_room(parameters, saved, d_h)
    noise = _packed_noise(drawn, packing, batch, frames)
    loop = task(
        run_backward, layer[0].kind(reads_c), parameters, noise, saved, gradients, d_outputs, d_h,
        d_c, packing.starts, packing.rows,
    )  # fmt: skip
    run_tasks(partial(loop, share) for share in packing.shares(len(layer)))
    d_x = _empty_output(batch * frames, weights[0].shape[1:], packing, d_output)
    d_weights, tasks = _weight_gradients(layer, saved, gradients)
    tasks += [
        task(input_gradients, d_x, gradients.input, parameters.panels_ih, packing.rows, *span)
        for span in spans(len(packing.rows), FRAMES)
    ]
    run_tasks(tasks)
    d_h_0, d_c_0 = torch.empty_like(d_h), torch.empty_like(d_c)
    d_h_0[:, packing.order], d_c_0[:, packing.order] = d_h, d_c
    return d_x.view(batch, frames, -1), d_weights, d_h_0, d_c_0


def _gradient_room(parameters: Parameters, saved: Kept, d_h: Tensor) -> Gradients:
    """Where the backward pass writes, and adds up from zero."""
    frames, directions, _ = saved.gates.shape
    has_norm, has_projection = len(parameters.norm_hh) > 0, len(parameters.panels_hr) > 0

    def by_utterance(parameter: Tensor) -> Tensor:
        shape = len(parameter), d_h.shape[1], *parameter.shape[1:]
        return parameter.new_zeros(shape)

    return Gradients(
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


def _weight_gradients(
    layer: list[Direction], saved: Kept, gradients: Gradients
) -> tuple[list[Tensor], list[Callable[[], None]]]:
    """Room for them, as in `to_list`, and the tasks that fill those of the matrices."""
    found, tasks = list[Tensor](), list[Callable[[], None]]()

    def products(left: Tensor, k: int, right: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """`left[:, k].T @ right` for one or two matrices, each with what it is shaped like."""
        outs = [empty((len(like), len(panels) * COLUMNS), like) for panels, like in right]
        none = left.new_empty(0, 0), left.new_empty(0, 0, COLUMNS)
        pairs = [*zip(outs, (panels for panels, _ in right), strict=True), none]
        spanned = spans(len(outs[0]), GATES)
        tasks.extend(
            task(sum_outer_products, *pairs[0], *pairs[1], left, k, *span) for span in spanned
        )
        return [out[:, : like.shape[1]] for out, (_, like) in zip(outs, right, strict=True)]

    for k, direction in enumerate(layer):
        ih, hh = (saved.inputs, direction.weight_ih), (saved.recurrent[k], direction.weight_hh)
        matrices = {}
        if len(gradients.recurrent):
            (matrices["weight_ih"],) = products(gradients.input, k, [ih])
            (matrices["weight_hh"],) = products(gradients.recurrent, k, [hh])
        else:
            both = products(gradients.input, k, [ih, hh])
            matrices["weight_ih"], matrices["weight_hh"] = both
        if len(direction.weight_hr):
            hr = saved.unprojected[k], direction.weight_hr
            (matrices["weight_hr"],) = products(gradients.projected, k, [hr])
        vectors = {"bias_ih": gradients.bias, "bias_hh": gradients.bias} | {
            name: getattr(gradients, name)
            for name in ("weight_ch", "norm_ih", "norm_hh", "norm_c", "bias_c")
        }
        vectors = {
            name: value[k].sum(dim=0)
            for name, value in vectors.items()
            if len(getattr(direction, name))
        }
        absent = {name: torch.empty_like(value) for name, value in direction._asdict().items()}
        found += (absent | matrices | vectors).values()
    return found, tasks


def _forward_shapes(
    x: Tensor, lengths: Tensor, weights: list[Tensor], drawn: list[Tensor],
    h_0: Tensor, c_0: Tensor, reads_c: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:  # fmt: skip
    output = x.new_empty(*x.shape[:2], len(h_0) * h_0.shape[2])
    states = torch.empty_like(h_0), torch.empty_like(c_0)
    if not keep:
        return output, *states, []
    rows: Any = torch.library.get_ctx().new_dynamic_size()
    shapes = _kept_shapes(of_list(weights), rows, reads_c, keep)
    return output, *states, [x.new_empty(shape) for shape in shapes]


def _backward_shapes(
    d_output: Tensor, d_h_n: Tensor, d_c_n: Tensor, lengths: Tensor, weights: list[Tensor],
    drawn: list[Tensor], kept: list[Tensor], reads_c: bool,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:  # fmt: skip
    d_x = d_output.new_empty(*d_output.shape[:2], weights[0].shape[1])
    d_weights = [torch.empty_like(weight) for weight in weights]
    return d_x, d_weights, torch.empty_like(d_h_n), torch.empty_like(d_c_n)


_passes = Passes(_forward, _backward, _forward_shapes, _backward_shapes)
_layer = register("lstm_fused_cpu", ("cpu",), _passes, switches=("reads_c",))


def run(
    x: Tensor, lengths: Tensor, cell: Cell, weights: Sequence[Weights], masks: Sequence[Masks],
    h_0: Tensor, c_0: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One layer in its D directions, see `lstm.Run`."""
    drawn = [
        x.new_empty(0) if part[0] is None else torch.stack(part)
        for part in zip(*masks, strict=True)
    ]
    x = x.to(weights[0].weight_ih.dtype)
    return _layer(x, lengths.cpu(), to_list(weights), drawn, h_0, c_0, cell.reads_c)
