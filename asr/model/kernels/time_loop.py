"""The LSTM's loop over time, forward and backward, compiled by Numba.

The functions here run without the interpreter's lock, each on its share of the utterances. One loop
serves every cell: what a cell lacks is an empty array. N packed frames, D directions, B utterances,
H units, R the width of h (H, or the projection's), W the G * H sums of a frame, rounded up to 16.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from asr.model.kernels.compiled import compiled, compiled_sum
from asr.model.kernels.tile import add_product

Array = Any  # in compiled code a NumPy array, outside of it the tensor that it is a view of

TANH_NUMERATOR = (
    4.89352455891786e-3, 6.37261928876435e-4, 1.48572235717979e-5, 5.12229709037114e-8,
    -8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16,
)  # fmt: skip
TANH_DENOMINATOR = (
    4.89352518554385e-3, 2.26843463243900e-3, 1.18534705686654e-4, 1.19825839466702e-6,
)  # fmt: skip


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
        panels: the recurrent matrix in panels of `add_product`, `(D, W / 16, R, 16)`; on the way
            back its transpose, `(D, ceil(R / 16), G * H, 16)`.
        panels_hr: the projection, `(D, ceil(R / 16), H, 16)`; back `(D, ceil(H / 16), R, 16)`.
        weight_ch: peepholes, `(D, G - 1, H)`.
        norm_ih: gain of the normalised input's share of the sums, `(D, G * H)`.
        norm_hh: likewise of the recurrent share.
        bias: of the sums where they are normalised; else it is in the input's share already.
        norm_c: gain of the normalised cell state, `(D, H)`.
        bias_c: its bias, `(D, H)`.
    """

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
        gates: values of the gates, `(N, D, W)`; the input's share of the sums before.
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


def tanh(x: Any) -> Any:
    """The hyperbolic tangent, in compiled code only."""
    raise NotImplementedError


@overload(tanh)
def _compiled_tanh(x):
    if x != types.float32:
        return lambda x: math.tanh(x)
    # A ratio of polynomials becomes vector instructions, libm's function would not. Coefficients of
    # Eigen's float tanh, odd powers over even ones: within 2e-7.
    bound = np.float32(7.90531110763549805)
    a: Any = tuple(map(np.float32, TANH_NUMERATOR))
    b: Any = tuple(map(np.float32, TANH_DENOMINATOR))

    def ratio(x):
        x = bound if x > bound else x  # written so that NaN stays NaN
        x = -bound if x < -bound else x
        s = x * x
        top = a[0] + s * (a[1] + s * (a[2] + s * (a[3] + s * (a[4] + s * (a[5] + s * a[6])))))
        return x * top / (b[0] + s * (b[1] + s * (b[2] + s * b[3])))

    return ratio


@compiled
def _sigmoid_of(values):
    half = values.dtype.type(0.5)
    for j in range(len(values)):
        values[j] = half + half * tanh(half * values[j])


@compiled
def _tanh_of(values):
    for j in range(len(values)):
        values[j] = tanh(values[j])


@compiled
def _copy(target, source):
    for j in range(len(target)):
        target[j] = source[j]


@compiled
def _add_products(target, left, right):
    for j in range(len(target)):
        target[j] += left[j] * right[j]


@compiled
def _scale(target, factors):
    for j in range(len(target)):
        target[j] *= factors[j]


@compiled
def _mix(target, fresh, share):
    """`target` keeps its share of itself and takes the rest from `fresh`."""
    for j in range(len(target)):
        target[j] = fresh[j] + share[j] * (target[j] - fresh[j])


@compiled_sum
def _mean(values):
    total = values.dtype.type(0)
    for j in range(len(values)):
        total += values[j]
    return total / values.dtype.type(len(values))


@compiled_sum
def _mean_of_products(left, right):
    total = left.dtype.type(0)
    for j in range(len(left)):
        total += left[j] * right[j]
    return total / left.dtype.type(len(left))


@compiled
def _normalize(values, epsilon):
    """To mean 0 and variance 1, in place; gives 1 over the deviation they had."""
    mean = _mean(values)
    for j in range(len(values)):
        values[j] -= mean
    variance = _mean_of_products(values, values)
    scale = values.dtype.type(1 / math.sqrt(variance + epsilon))
    for j in range(len(values)):
        values[j] *= scale
    return scale


@compiled
def _normalize_backward(gradient, normed, scale):
    """Gradient of the values that `_normalize` took, in place."""
    mean, slope = _mean(gradient), _mean_of_products(gradient, normed)
    for j in range(len(gradient)):
        gradient[j] = scale * (gradient[j] - mean - normed[j] * slope)


@compiled
def _cell(frame, c, kind, parameters, direction, i, c_next, h):
    """One frame of one utterance: sums to gates in `frame`, c_t to `c_next`, h to `h`.

    `i` is where the input gate goes when it is coupled.
    """
    units, first = len(c), (kind.gates - 2) * len(c)
    # Slices first, then loops from 0: only these become vector instructions.
    g, o = frame[first : first + units], frame[first + units : first + 2 * units]
    f = frame[first - units : first]
    has_peepholes = len(parameters.weight_ch) > 0
    if has_peepholes:
        peepholes = parameters.weight_ch[direction]
        for k in range(kind.gates - 2):
            _add_products(frame[k * units : (k + 1) * units], peepholes[k], c)
    _sigmoid_of(frame[:first])
    _tanh_of(g)
    if kind.gates == 4:
        i = frame[:units]
    else:
        one = frame.dtype.type(1)
        for j in range(units):
            i[j] = one - f[j]
    for j in range(units):
        c_next[j] = f[j] * c[j] + i[j] * g[j]
    if has_peepholes:
        _add_products(o, parameters.weight_ch[direction, kind.gates - 2], c_next)
    _sigmoid_of(o)
    if len(parameters.norm_c) > 0:
        _copy(h, c_next)
        _normalize(h, kind.epsilon)
        gain, bias = parameters.norm_c[direction], parameters.bias_c[direction]
        for j in range(units):
            h[j] = o[j] * tanh(gain[j] * h[j] + bias[j])
    else:
        for j in range(units):
            h[j] = o[j] * tanh(c_next[j])


@compiled
def _normalized_sums(product, place, kind, parameters, kept, direction, keep):
    """Both shares of a frame's sums, each normalised, to their sum in `kept.gates`."""
    frame, bias = kept.gates[place, direction], parameters.bias[direction]
    gain_ih, gain_hh = parameters.norm_ih[direction], parameters.norm_hh[direction]
    scale_ih = _normalize(frame[: len(bias)], kind.epsilon)
    scale_hh = _normalize(product[: len(bias)], kind.epsilon)
    if keep:
        _copy(kept.normed_ih[place, direction], frame)
        _copy(kept.normed_hh[place, direction], product)
        kept.scales[place, direction, 0] = scale_ih
        kept.scales[place, direction, 1] = scale_hh
    for j in range(len(bias)):
        frame[j] = gain_ih[j] * frame[j] + gain_hh[j] * product[j] + bias[j]


@compiled
def run_forward(
    kind, parameters, drawn, kept, h, c, recurrent, output, starts, rows, direction, low, high
):
    """The time loop of one direction for the utterances `low` to `high`, as sorted.

    Args:
        kind: of the cell.
        parameters: of the recurrence.
        drawn: for dropout and zoneout.
        kept: `gates` holds the input's share of the sums; all else is written.
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
    products = np.empty((high - low if has_norm else 0, kept.gates.shape[2]), dtype)
    for step in range(frames):
        t = frames - 1 - step if direction else step
        start = starts[t]
        running = min(starts[t + 1] - start, high)
        if running <= low:
            continue
        count = running - low
        first = start + low
        sums = kept.gates[first : first + count, direction]
        read = recurrent[direction, low:running]
        if keep:
            for b in range(count):
                _copy(kept.recurrent[first + b, direction], recurrent[direction, low + b])
                _copy(kept.c[first + b, direction], c[direction, low + b])
        if has_norm:
            products[:count] = 0
            add_product(products[:count], read, parameters.panels[direction])
            for b in range(count):
                place = first + b
                _normalized_sums(products[b], place, kind, parameters, kept, direction, keep)
        else:
            add_product(sums, read, parameters.panels[direction])
        for b in range(count):
            frame, c_b = kept.gates[first + b, direction], c[direction, low + b]
            _cell(frame, c_b, kind, parameters, direction, i, c_next[b], unprojected[b])
        if has_projection:
            projected[:count] = 0
            add_product(projected[:count], unprojected[:count], parameters.panels_hr[direction])
        for b in range(count):
            h_b, c_b = h[direction, low + b], c[direction, low + b]
            h_next = projected[b] if has_projection else unprojected[b]
            if len(drawn.zone_h) > 0:
                _mix(h_b, h_next, drawn.zone_h[first + b, direction])
                _mix(c_b, c_next[b], drawn.zone_c[first + b, direction])
            else:
                _copy(h_b, h_next)
                _copy(c_b, c_next[b])
            _copy(output[rows[first + b], direction], h_b)
            read_b = recurrent[direction, low + b]
            _copy(read_b, c_b if kind.reads_c else h_b)
            if len(drawn.mask) > 0:
                _scale(read_b, drawn.mask[direction, low + b])
            if keep and has_projection:
                _copy(kept.unprojected[first + b, direction], unprojected[b])


@compiled
def _cell_backward(
    frame, c, d_h, d_c, kind, parameters, gradients, place, utterance, direction, scratch
):
    """The gradients of `_cell`: of the sums to `gradients.input`, of c_{t-1} to `d_c`.

    Args:
        frame: values of the gates.
        c: c_{t-1}.
        d_h: gradient of o * tanh(c_t).
        d_c: gradient of c_t, which becomes that of c_{t-1}.
        kind: of the cell.
        parameters: of the recurrence.
        gradients: those of this frame are written, those of the parameters added to.
        place: packed row of the frame.
        utterance: its place in the batch as sorted.
        direction: 0 or 1.
        scratch: `(4, H)`.
    """
    units, first = len(c), (kind.gates - 2) * len(c)
    d_frame = gradients.input[place, direction]
    f, g = frame[first - units : first], frame[first : first + units]
    o = frame[first + units : first + 2 * units]
    d_f, d_g = d_frame[first - units : first], d_frame[first : first + units]
    d_o = d_frame[first + units : first + 2 * units]
    c_next, seen, d_seen, i = scratch[0], scratch[1], scratch[2], scratch[3]
    one = frame.dtype.type(1)
    if kind.gates == 4:
        i = frame[:units]
    else:
        for j in range(units):
            i[j] = one - f[j]
    for j in range(units):
        c_next[j] = f[j] * c[j] + i[j] * g[j]
    _copy(seen, c_next)
    has_norm = len(parameters.norm_c) > 0
    scale = one
    if has_norm:
        scale = _normalize(seen, kind.epsilon)
        gain, bias = parameters.norm_c[direction], parameters.bias_c[direction]
        for j in range(units):
            value = tanh(gain[j] * seen[j] + bias[j])
            d_o[j] = d_h[j] * value * o[j] * (one - o[j])
            d_seen[j] = d_h[j] * o[j] * (one - value * value)
        d_gain = gradients.norm_c[direction, utterance]
        d_bias = gradients.bias_c[direction, utterance]
        for j in range(units):
            d_gain[j] += d_seen[j] * seen[j]
            d_bias[j] += d_seen[j]
            d_seen[j] *= gain[j]
        _normalize_backward(d_seen, seen, scale)
    else:
        for j in range(units):
            value = tanh(seen[j])
            d_o[j] = d_h[j] * value * o[j] * (one - o[j])
            d_seen[j] = d_h[j] * o[j] * (one - value * value)
    for j in range(units):
        d_c[j] += d_seen[j]
    has_peepholes = len(parameters.weight_ch) > 0
    if has_peepholes:
        _add_products(d_c, parameters.weight_ch[direction, kind.gates - 2], d_o)
        _add_products(gradients.weight_ch[direction, utterance, kind.gates - 2], d_o, c_next)
    if kind.gates == 4:
        d_i = d_frame[:units]
        for j in range(units):
            d_i[j] = d_c[j] * g[j] * i[j] * (one - i[j])
            d_f[j] = d_c[j] * c[j] * f[j] * (one - f[j])
    else:
        for j in range(units):
            d_f[j] = d_c[j] * (c[j] - g[j]) * f[j] * (one - f[j])
    for j in range(units):
        d_g[j] = d_c[j] * i[j] * (one - g[j] * g[j])
        d_c[j] *= f[j]
    if has_peepholes:
        for k in range(kind.gates - 2):
            d_sum = d_frame[k * units : (k + 1) * units]
            _add_products(d_c, parameters.weight_ch[direction, k], d_sum)
            _add_products(gradients.weight_ch[direction, utterance, k], d_sum, c)


@compiled
def _normalized_sums_backward(place, utterance, parameters, kept, gradients, direction):
    """From the gradient of a frame's sums, in `gradients.input`, to that of each share."""
    gain_ih, gain_hh = parameters.norm_ih[direction], parameters.norm_hh[direction]
    d_sums = gradients.input[place, direction][: len(gain_ih)]
    d_product = gradients.recurrent[place, direction][: len(gain_ih)]
    normed_ih = kept.normed_ih[place, direction][: len(gain_ih)]
    normed_hh = kept.normed_hh[place, direction][: len(gain_ih)]
    _add_products(gradients.norm_ih[direction, utterance], d_sums, normed_ih)
    _add_products(gradients.norm_hh[direction, utterance], d_sums, normed_hh)
    d_bias = gradients.bias[direction, utterance]
    for j in range(len(d_bias)):
        d_bias[j] += d_sums[j]
        d_product[j] = d_sums[j] * gain_hh[j]
        d_sums[j] *= gain_ih[j]
    _normalize_backward(d_sums, normed_ih, kept.scales[place, direction, 0])
    _normalize_backward(d_product, normed_hh, kept.scales[place, direction, 1])


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
                _copy(gradients.projected[first + b, direction], fresh)
        if has_projection:
            d_unprojected[:count] = 0
            panels = parameters.panels_hr[direction]
            add_product(d_unprojected[:count], d_fresh[:count], panels)
        for b in range(count):
            d_c_b = d_c[direction, low + b]
            if has_zones:
                zone = drawn.zone_c[first + b, direction]
                for j in range(units):
                    stay[j] = zone[j] * d_c_b[j]
                    d_c_b[j] *= one - zone[j]
            d_h_b = d_unprojected[b] if has_projection else d_fresh[b]
            _cell_backward(
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
                _normalized_sums_backward(place, low + b, parameters, kept, gradients, direction)
        d_read[:count] = 0
        add_product(d_read[:count], d_sums, parameters.panels[direction])
        for b in range(count):
            d_read_b = d_read[b][:read]
            if len(drawn.mask) > 0:
                _scale(d_read_b, drawn.mask[direction, low + b])
            d_state = d_c[direction, low + b] if kind.reads_c else d_h[direction, low + b]
            for j in range(read):
                d_state[j] += d_read_b[j]
