"""The LSTM's loop over time, forward and backward, compiled by Numba.

The functions here run without the interpreter's lock, each on its share of the utterances. One loop
serves every cell: what a cell lacks is an empty array. N packed frames, D directions, B utterances,
H units, R the width of h (H, or the projection's), W the G * H sums of a frame, rounded up to 16.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from asr.model.kernels.compiled import compiled
from asr.model.kernels.pointwise import (
    cell,
    cell_backward,
    copy,
    mix,
    multiply,
    normalized_sums,
    normalized_sums_backward,
)
from asr.model.kernels.tile import add_product

ROWS = 96  # of frames whose inputs are multiplied at once where it is done within the loop
Array = Any  # in compiled code a NumPy array, outside of it the tensor that it is a view of


class Kind(NamedTuple):
    """Of the cell.

    Attributes:
        gates: G, 4, or 3 when i = 1 - f.
        reads_c: whether the recurrent matrix reads c instead of h.
        epsilon: added to the variance where the cell normalises.
    """

    gates: int
    reads_c: bool
    epsilon: float


class Parameters(NamedTuple):
    """Of the recurrence, for each direction.

    Attributes:
        panels_ih: the input's matrix in panels of `add_product`, `(D, W / 16, in, 16)`, where its
            product is taken within the loop.
        panels: the recurrent matrix, `(D, W / 16, R, 16)`; on the way back its transpose,
            `(D, ceil(R / 16), G * H, 16)`.
        panels_hr: the projection, `(D, ceil(R / 16), H, 16)`; back `(D, ceil(H / 16), R, 16)`.
        weight_ch: peepholes, `(D, G - 1, H)`.
        norm_ih: gain of the normalised input's share of the sums, `(D, G * H)`.
        norm_hh: likewise of the recurrent share.
        bias: of the sums, `(D, G * H)`.
        norm_c: gain of the normalised cell state, `(D, H)`.
        bias_c: its bias, `(D, H)`.
    """

    panels_ih: Array
    panels: Array
    panels_hr: Array
    weight_ch: Array
    norm_ih: Array
    norm_hh: Array
    bias: Array
    norm_c: Array
    bias_c: Array


class Drawn(NamedTuple):
    """Of recurrent dropout and zoneout.

    Attributes:
        mask: factors on what the recurrent matrix reads, `(D, B, R)`.
        zone_h: share of the former h that stays, `(N, D, R)`.
        zone_c: likewise of c, `(N, D, H)`.
    """

    mask: Array
    zone_h: Array
    zone_c: Array


class Kept(NamedTuple):
    """What the backward pass reads; no rows where none follows.

    Attributes:
        gates: values of the gates, `(N, D, W)`; before, the input's share of the sums, unless that
            is computed within the loop.
        recurrent: what the recurrent matrix read at each frame, `(N, D, R)`.
        c: before each frame, `(N, D, H)`.
        unprojected: o * tanh(c), `(N, D, H)`, where there is a projection.
        normed_ih: the input's share before its gain, `(N, D, W)`, where the cell normalises.
        normed_hh: the recurrent share likewise.
        scales: 1 over the deviation that each had, `(N, D, 2)`.
    """

    gates: Array
    recurrent: Array
    c: Array
    unprojected: Array
    normed_ih: Array
    normed_hh: Array
    scales: Array


class Gradients(NamedTuple):
    """Of each frame's sums, and of the parameters by utterance, still to be added up.

    Attributes:
        input: of the input's share of the sums, `(N, D, W)`.
        recurrent: of the recurrent share, `(N, D, W)`; empty where it is the same.
        projected: of the projection's output, `(N, D, R)`.
        weight_ch: `(D, B, G - 1, H)`.
        norm_ih: `(D, B, G * H)`.
        norm_hh: `(D, B, G * H)`.
        bias: `(D, B, G * H)`.
        norm_c: `(D, B, H)`.
        bias_c: `(D, B, H)`.
    """

    input: Array
    recurrent: Array
    projected: Array
    weight_ch: Array
    norm_ih: Array
    norm_hh: Array
    bias: Array
    norm_c: Array
    bias_c: Array


@compiled
def _sum_inputs(sums, offsets, t, gathered, inputs, parameters, starts, direction, low, high):
    """The input's share of the sums of some frames from `t` on, one frame below the other.

    Args:
        sums: `(n, 1, W)`, written.
        offsets: first row of each frame, written.
        t: first frame.
        gathered: `(n, in)`, room for their inputs.
        inputs: `(N, in)`, packed.
        parameters: of the recurrence.
        starts: first packed row of each frame.
        direction: 0 or 1.
        low: first utterance.
        high: the one after the last.
    """
    bias = parameters.bias[direction]
    has_norm = len(parameters.norm_ih) > 0  # then the bias comes after it
    count = 0
    for k in range(min(len(offsets), len(starts) - 1 - t)):
        start = starts[t + k]
        offsets[k] = count
        for b in range(low, min(starts[t + k + 1] - start, high)):
            copy(gathered[count], inputs[start + b])
            row = sums[count, 0]
            row[:] = 0
            if not has_norm:
                copy(row[: len(bias)], bias)
            count += 1
    add_product(sums[:count, 0], gathered[:count], parameters.panels_ih[direction], False)


@compiled
def run_forward(
    kind, parameters, drawn, kept, inputs, h, c, recurrent, output,
    starts, rows, direction, low, high,
):  # fmt: skip
    """The time loop of one direction for the utterances `low` to `high`, as sorted.

    Args:
        kind: of the cell.
        parameters: of the recurrence.
        drawn: for dropout and zoneout.
        kept: `gates` holds the input's share of the sums; all else is written.
        inputs: `(N, in)` packed, where that share is still to be computed, some frames at a time so
            that it stays in the cache; else no rows.
        h: `(D, B, R)` state, at the end the final one; an utterance's row is left alone before
            its first frame and after its last.
        c: `(D, B, H)`, likewise.
        recurrent: `(D, B, R)`, what the recurrent matrix is to read first.
        output: `(B * T, D, R)`, h of each frame at its padded place.
        starts: `(T + 1,)` int64, first packed row of each frame.
        rows: `(N,)` int64, padded place of each packed row.
        direction: 0, or 1 for the one in which time runs backwards.
        low: first utterance.
        high: the one after the last.
    """
    frames, units = len(starts) - 1, c.shape[2]
    keep = len(kept.c) > 0
    has_norm, has_projection = len(parameters.norm_hh) > 0, len(parameters.panels_hr) > 0
    dtype = c.dtype
    i, c_next = np.empty(units, dtype), np.empty((high - low, units), dtype)
    unprojected = np.empty((high - low, units), dtype)
    columns = parameters.panels_hr.shape[1] * 16 if has_projection else 0
    projected = np.empty((high - low, columns), dtype)
    width = 16 * parameters.panels.shape[1]
    products = np.empty((high - low if has_norm else 0, width), dtype)
    span = max(1, ROWS // (high - low)) if len(inputs) > 0 else 1
    offsets, t_summed = np.zeros(span, np.int64), -1
    space = span * (high - low) if len(inputs) > 0 else 0
    summed = np.empty((space, 1, width), dtype)
    gathered = np.empty((space, inputs.shape[1]), dtype)
    for step in range(frames):
        t = frames - 1 - step if direction else step
        start = starts[t]
        running = min(starts[t + 1] - start, high)
        if running <= low:
            continue
        count = running - low
        first = start + low
        gates, place, slot = kept.gates, first, direction
        if len(inputs) > 0:
            if t_summed != t // span:
                t_summed = t // span
                _sum_inputs(
                    summed, offsets, t_summed * span, gathered, inputs, parameters, starts,
                    direction, low, high,
                )  # fmt: skip
            gates, place, slot = summed, offsets[t - t_summed * span], 0
        read = recurrent[direction, low:running]
        if keep:
            for b in range(count):
                copy(kept.recurrent[first + b, direction], recurrent[direction, low + b])
                copy(kept.c[first + b, direction], c[direction, low + b])
        if has_norm:
            products[:count] = 0
            add_product(products[:count], read, parameters.panels[direction], t % 2 == 1)
            for b in range(count):
                frame = gates[place + b, slot]
                normalized_sums(
                    frame, products[b], kind, parameters, direction, kept, first + b, keep
                )  # fmt: skip
        else:
            sums = gates[place : place + count, slot]
            add_product(sums, read, parameters.panels[direction], t % 2 == 1)
        for b in range(count):
            frame, c_b = gates[place + b, slot], c[direction, low + b]
            cell(frame, c_b, kind, parameters, direction, i, c_next[b], unprojected[b])
        if has_projection:
            projected[:count] = 0
            panels = parameters.panels_hr[direction]
            add_product(projected[:count], unprojected[:count], panels, t % 2 == 1)
        for b in range(count):
            h_b, c_b = h[direction, low + b], c[direction, low + b]
            h_next = projected[b] if has_projection else unprojected[b]
            if len(drawn.zone_h) > 0:
                mix(h_b, h_next, drawn.zone_h[first + b, direction])
                mix(c_b, c_next[b], drawn.zone_c[first + b, direction])
            else:
                copy(h_b, h_next)
                copy(c_b, c_next[b])
            copy(output[rows[first + b], direction], h_b)
            read_b = recurrent[direction, low + b]
            copy(read_b, c_b if kind.reads_c else h_b)
            if len(drawn.mask) > 0:
                multiply(read_b, drawn.mask[direction, low + b])
            if keep and has_projection:
                copy(kept.unprojected[first + b, direction], unprojected[b])


@compiled
def run_backward(
    kind, parameters, drawn, kept, gradients, d_output, d_h, d_c, starts, rows, direction, low, high
):
    """The time loop's gradients, in the opposite order of `run_forward`.

    Args:
        kind: of the cell.
        parameters: of the recurrence, on the way back.
        drawn: as in the forward pass.
        kept: as it left them.
        gradients: written, those of parameters added to.
        d_output: `(B * T, D, R)`, gradient of h at its padded place.
        d_h: `(D, B, R)`, gradient of the final h, at the end that of the initial.
        d_c: `(D, B, H)`, likewise.
        starts: as in the forward pass, and the following too.
        rows: padded places.
        direction: 0, or 1 where the forward pass ran backwards in time.
        low: first utterance.
        high: the one after the last.
    """
    frames, units, width = len(starts) - 1, d_c.shape[2], d_h.shape[2]
    has_norm, has_projection = len(parameters.norm_hh) > 0, len(parameters.panels_hr) > 0
    has_zones = len(drawn.zone_h) > 0
    dtype = d_c.dtype
    read = kept.recurrent.shape[2]
    rounded = parameters.panels.shape[1] * 16
    d_fresh = np.empty((high - low, width), dtype)
    columns = parameters.panels_hr.shape[1] * 16 if has_projection else 0
    d_unprojected = np.empty((high - low, columns), dtype)
    d_read = np.empty((high - low, rounded), dtype)
    scratch = np.empty((4, units), dtype)
    stay = np.zeros(units, dtype)
    one = dtype.type(1)
    for step in range(frames):
        t = step if direction else frames - 1 - step
        start = starts[t]
        running = min(starts[t + 1] - start, high)
        if running <= low:
            continue
        count = running - low
        first = start + low
        for b in range(count):
            fresh, d_h_b = d_fresh[b], d_h[direction, low + b]
            d_out = d_output[rows[first + b], direction]
            for j in range(width):
                fresh[j] = d_h_b[j] + d_out[j]
                d_h_b[j] = 0
            if has_zones:
                zone = drawn.zone_h[first + b, direction]
                for j in range(width):
                    d_h_b[j] = zone[j] * fresh[j]
                    fresh[j] *= one - zone[j]
            if has_projection:
                copy(gradients.projected[first + b, direction], fresh)
        if has_projection:
            d_unprojected[:count] = 0
            panels = parameters.panels_hr[direction]
            add_product(d_unprojected[:count], d_fresh[:count], panels, t % 2 == 1)
        for b in range(count):
            d_c_b = d_c[direction, low + b]
            if has_zones:
                zone = drawn.zone_c[first + b, direction]
                for j in range(units):
                    stay[j] = zone[j] * d_c_b[j]
                    d_c_b[j] *= one - zone[j]
            d_h_b = d_unprojected[b] if has_projection else d_fresh[b]
            cell_backward(
                kept.gates[first + b, direction], kept.c[first + b, direction], d_h_b, d_c_b,
                kind, parameters, gradients, first + b, low + b, direction, scratch,
            )  # fmt: skip
            if has_zones:
                for j in range(units):
                    d_c_b[j] += stay[j]
        d_sums = gradients.input[first : first + count, direction, : kind.gates * units]
        if has_norm:
            d_sums = gradients.recurrent[first : first + count, direction, : kind.gates * units]
            for b in range(count):
                place = first + b
                normalized_sums_backward(place, low + b, parameters, kept, gradients, direction)
        d_read[:count] = 0
        add_product(d_read[:count], d_sums, parameters.panels[direction], t % 2 == 1)
        for b in range(count):
            d_read_b = d_read[b][:read]
            if len(drawn.mask) > 0:
                multiply(d_read_b, drawn.mask[direction, low + b])
            d_state = d_c[direction, low + b] if kind.reads_c else d_h[direction, low + b]
            for j in range(read):
                d_state[j] += d_read_b[j]
