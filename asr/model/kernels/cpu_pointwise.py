"""What an LSTM cell does with the sums of one frame of one utterance, forward and backward.

Compiled by Numba; one function serves every cell, and what a cell lacks is an empty array.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from asr.model.kernels.compiled import compiled, compiled_sum

TANH_NUMERATOR = (
    4.89352455891786e-3, 6.37261928876435e-4, 1.48572235717979e-5, 5.12229709037114e-8,
    -8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16,
)  # fmt: skip
TANH_DENOMINATOR = (
    4.89352518554385e-3, 2.26843463243900e-3, 1.18534705686654e-4, 1.19825839466702e-6,
)  # fmt: skip


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
def copy(target, source):
    for j in range(len(target)):
        target[j] = source[j]


@compiled
def add(target, source):
    for j in range(len(target)):
        target[j] += source[j]


@compiled
def _add_products(target, left, right):
    for j in range(len(target)):
        target[j] += left[j] * right[j]


@compiled
def multiply(target, factors):
    for j in range(len(target)):
        target[j] *= factors[j]


@compiled
def mix(target, fresh, share):
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


@compiled_sum
def _variance(values, mean):
    total = values.dtype.type(0)
    for j in range(len(values)):
        total += (values[j] - mean) * (values[j] - mean)
    return total / values.dtype.type(len(values))


@compiled
def _normalize(target, values, epsilon):
    """`values` with mean 0 and variance 1, to `target`; gives 1 over the deviation they had.

    Two arrays that do not overlap: where they may, the compiler's vectors give way to scalars.
    """
    mean = _mean(values)
    scale = values.dtype.type(1 / math.sqrt(_variance(values, mean) + epsilon))
    for j in range(len(values)):
        target[j] = (values[j] - mean) * scale
    return scale


@compiled
def _normalize_backward(gradient, normed, scale):
    """Gradient of the values that `_normalize` took, in place."""
    mean, slope = _mean(gradient), _mean_of_products(gradient, normed)
    for j in range(len(gradient)):
        gradient[j] = scale * (gradient[j] - mean - normed[j] * slope)


@compiled
def cell(frame, c, kind, parameters, direction, i, c_next, h):
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
    _output(c_next, o, kind, parameters, direction, h)


@compiled
def _output(c, o, kind, parameters, direction, h):
    """h = o * tanh(c), with c normalised where the cell does so."""
    if len(parameters.norm_c) > 0:
        _normalize(h, c, kind.epsilon)
        gain, bias = parameters.norm_c[direction], parameters.bias_c[direction]
        for j in range(len(h)):
            h[j] = o[j] * tanh(gain[j] * h[j] + bias[j])
    else:
        for j in range(len(h)):
            h[j] = o[j] * tanh(c[j])


@compiled
def _output_backward(
    c, o, d_h, kind, parameters, gradients, utterance, direction, normed, d_o, d_c
):
    """The gradients of `_output`: of the sums of o to `d_o`, of c to `d_c`; room in `normed`."""
    has_norm, one = len(parameters.norm_c) > 0, c.dtype.type(1)
    if not has_norm:
        for j in range(len(c)):
            value = tanh(c[j])
            d_o[j] = d_h[j] * value * o[j] * (one - o[j])
            d_c[j] = d_h[j] * o[j] * (one - value * value)
        return
    scale = _normalize(normed, c, kind.epsilon)
    gain, bias = parameters.norm_c[direction], parameters.bias_c[direction]
    d_gain = gradients.norm_c[direction, utterance]
    d_bias = gradients.bias_c[direction, utterance]
    for j in range(len(c)):
        value = tanh(gain[j] * normed[j] + bias[j])
        d_o[j] = d_h[j] * value * o[j] * (one - o[j])
        d_c[j] = d_h[j] * o[j] * (one - value * value)
    _add_products(d_gain, d_c, normed)
    add(d_bias, d_c)
    multiply(d_c, gain)
    _normalize_backward(d_c, normed, scale)


@compiled
def normalized_sums(frame, product, normed_ih, normed_hh, kind, parameters, direction):
    """Both shares of a frame's sums, each normalised, added up into `frame`.

    Args:
        frame: the input's share.
        product: the recurrent share.
        normed_ih: becomes the input's share normalised, before its gain.
        normed_hh: likewise the recurrent share.
        kind: of the cell.
        parameters: of the recurrence.
        direction: 0 or 1.

    Returns:
        1 over the deviation that each share had.
    """
    bias = parameters.bias[direction]
    gain_ih, gain_hh = parameters.norm_ih[direction], parameters.norm_hh[direction]
    sums, own, read = frame[: len(bias)], normed_ih[: len(bias)], normed_hh[: len(bias)]
    scale_ih = _normalize(own, sums, kind.epsilon)
    scale_hh = _normalize(read, product[: len(bias)], kind.epsilon)
    for j in range(len(bias)):
        sums[j] = gain_ih[j] * own[j] + gain_hh[j] * read[j] + bias[j]
    return scale_ih, scale_hh


@compiled
def cell_backward(
    frame, c, d_h, d_c, kind, parameters, gradients, place, utterance, direction, scratch
):
    """The gradients of `cell`: of the sums to `gradients.input`, of c_{t-1} to `d_c`.

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
    c_next, normed, d_seen, i = scratch[0], scratch[1], scratch[2], scratch[3]
    one = frame.dtype.type(1)
    if kind.gates == 4:
        i = frame[:units]
    else:
        for j in range(units):
            i[j] = one - f[j]
    for j in range(units):
        c_next[j] = f[j] * c[j] + i[j] * g[j]
    _output_backward(
        c_next, o, d_h, kind, parameters, gradients, utterance, direction, normed, d_o, d_seen
    )
    add(d_c, d_seen)
    has_peepholes = len(parameters.weight_ch) > 0
    if has_peepholes:
        _add_products(d_c, parameters.weight_ch[direction, kind.gates - 2], d_o)
        _add_products(gradients.weight_ch[direction, utterance, kind.gates - 2], d_o, c_next)
    if kind.gates == 4:
        d_i = d_frame[:units]
        for j in range(units):
            d_i[j] = d_c[j] * g[j] * i[j] * (one - i[j])
        for j in range(units):
            d_f[j] = d_c[j] * c[j] * f[j] * (one - f[j])
    else:
        for j in range(units):
            d_f[j] = d_c[j] * (c[j] - g[j]) * f[j] * (one - f[j])
    for j in range(units):
        d_g[j] = d_c[j] * i[j] * (one - g[j] * g[j])
    multiply(d_c, f)
    if has_peepholes:
        for k in range(kind.gates - 2):
            d_sum = d_frame[k * units : (k + 1) * units]
            _add_products(d_c, parameters.weight_ch[direction, k], d_sum)
            _add_products(gradients.weight_ch[direction, utterance, k], d_sum, c)


@compiled
def normalized_sums_backward(place, utterance, parameters, kept, gradients, direction):
    """From the gradient of a frame's sums, in `gradients.input`, to that of each share."""
    gain_ih, gain_hh = parameters.norm_ih[direction], parameters.norm_hh[direction]
    d_sums = gradients.input[place, direction][: len(gain_ih)]
    d_product = gradients.recurrent[place, direction][: len(gain_ih)]
    normed_ih = kept.normed_ih[place, direction][: len(gain_ih)]
    normed_hh = kept.normed_hh[place, direction][: len(gain_ih)]
    _add_products(gradients.norm_ih[direction, utterance], d_sums, normed_ih)
    _add_products(gradients.norm_hh[direction, utterance], d_sums, normed_hh)
    # Loops of few arrays each: the compiler makes no vectors of one that writes to three.
    for j in range(len(d_sums)):
        d_product[j] = d_sums[j] * gain_hh[j]
    multiply(d_sums, gain_ih)
    _normalize_backward(d_sums, normed_ih, kept.scales[place, direction, 0])
    _normalize_backward(d_product, normed_hh, kept.scales[place, direction, 1])
