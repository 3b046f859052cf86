"""The Triton kernels of a step on the way there; `triton_tile` says how they are laid out."""

from __future__ import annotations

import triton
import triton.language as tl

from asr.model.kernels.triton_tile import (
    add_dot,
    array_at,
    load,
    load_gate_rows,
    load_gates,
    load_read,
    own_frames,
    own_tile,
    projection_matrix,
    recurrent_matrix,
    rows_times,
    see,
    states_before,
    store,
    store_gates,
    sum_over_gates,
    tanh,
    zeros,
)


@triton.jit(do_not_specialize=["offset"])
def product_forward(table, offset, KIND: tl.constexpr):
    """The recurrent product of a step, for a cell that needs whole rows of it."""
    WIDTH: tl.constexpr = KIND.G * KIND.H
    direction, rows, columns, at, mask = own_tile(table, KIND, WIDTH)
    step = tl.load(table + KIND.AT.base) + offset
    weights = recurrent_matrix(table, KIND, direction)
    real = rows < tl.load(table + KIND.AT.batch)
    total = zeros(KIND)
    for start in range(0, KIND.R, KIND.BLOCK_K):
        k = start + tl.arange(0, KIND.BLOCK_K)
        left = load_read(table, KIND, step, at, k, real[:, None] & (k < KIND.R)[None, :])
        there = (k < KIND.R)[:, None] & (columns < WIDTH)[None, :]
        total = add_dot(KIND, total, left, weights, k, columns, KIND.R, 1, there)
    store(table, KIND.AT.products, KIND, at, columns, WIDTH, mask, total)


@triton.jit
def _normalized(table, KIND: tl.constexpr, direction, at, units, mask, place, inside):
    """The recurrent product normalised, times its gain."""
    WIDTH: tl.constexpr = KIND.G * KIND.H
    i, f, g, o = load_gates(table, KIND.AT.products, KIND, at, units, mask)
    mean = (sum_over_gates(KIND, i, f, g, o) / WIDTH)[:, None]
    i, f = tl.where(mask, i - mean, 0), tl.where(mask, f - mean, 0)
    g, o = tl.where(mask, g - mean, 0), tl.where(mask, o - mean, 0)
    variance = sum_over_gates(KIND, i * i, f * f, g * g, o * o) / WIDTH
    scale = 1 / tl.sqrt(variance + KIND.EPSILON)
    wide = scale[:, None]
    i, f, g, o = i * wide, f * wide, g * wide, o * wide
    if KIND.KEEP:
        there = inside[:, None] & mask
        store_gates(table, KIND.AT.normed, KIND, place, units, there, i, f, g, o)
        tl.store(array_at(table, KIND.AT.scales, KIND.FLOAT) + place, scale, mask=inside)
    gain = load_gate_rows(table, KIND.AT.norm_hh, KIND, direction, units, units < KIND.H)
    return i * gain[0], f * gain[1], g * gain[2], o * gain[3]


@triton.jit
def _products(table, KIND: tl.constexpr, step, direction, rows, at, units):
    """The recurrent product, gate by gate; the rows are read once for all."""
    SIZE: tl.constexpr = KIND.H * KIND.R  # of a gate's part of the matrix
    f = zeros(KIND)
    i, g, o = f, f, f
    of_f = recurrent_matrix(table, KIND, direction) + (KIND.G - 3) * SIZE
    real = rows < tl.load(table + KIND.AT.batch)
    for start in range(0, KIND.R, KIND.BLOCK_K):
        k = start + tl.arange(0, KIND.BLOCK_K)
        left = load_read(table, KIND, step, at, k, real[:, None] & (k < KIND.R)[None, :])
        there = (k < KIND.R)[:, None] & (units < KIND.H)[None, :]
        f = add_dot(KIND, f, left, of_f, k, units, KIND.R, 1, there)
        g = add_dot(KIND, g, left, of_f + SIZE, k, units, KIND.R, 1, there)
        o = add_dot(KIND, o, left, of_f + 2 * SIZE, k, units, KIND.R, 1, there)
        if KIND.G == 4:
            i = add_dot(KIND, i, left, of_f - SIZE, k, units, KIND.R, 1, there)
    return i, f, g, o


@triton.jit
def gate_values(table, KIND: tl.constexpr, direction, units, i, f, g, o, c):
    """The gates of a tile and c_t, from the gates' sums and c_{t-1}."""
    if KIND.PEEPHOLE:
        p_i, p_f, _, p_o = load_gate_rows(
            table, KIND.AT.weight_ch, KIND, direction, units, units < KIND.H
        )
        i, f = i + p_i * c, f + p_f * c
    f, g = tl.sigmoid(f), tanh(g)
    i = tl.sigmoid(i) if KIND.G == 4 else 1 - f
    c_next = f * c + i * g
    if KIND.PEEPHOLE:
        o += p_o * c_next
    return i, f, g, tl.sigmoid(o), c_next


@triton.jit
def state_after(
    table, ZONE: tl.constexpr, KIND: tl.constexpr, place, columns, WIDTH: tl.constexpr, mask,
    inside, fresh, old,
):  # fmt: skip
    """A state's new value, after zoneout, where the row has a frame, else the old."""
    if KIND.ZONED:
        zone = load(table, ZONE, KIND, place, columns, WIDTH, inside[:, None] & mask)
        fresh += zone * (old - fresh)
    return tl.where(inside[:, None], fresh, old)


@triton.jit
def _advance(
    table, STATE: tl.constexpr, ZONE: tl.constexpr, KIND: tl.constexpr, step, at, columns,
    WIDTH: tl.constexpr, mask, place, inside, fresh,
):  # fmt: skip
    """`state_after` of a state in memory: written, and given."""
    first = states_before(table, KIND, step)
    old = load(table, STATE, KIND, first + at, columns, WIDTH, mask)
    value = state_after(table, ZONE, KIND, place, columns, WIDTH, mask, inside, fresh, old)
    after = states_before(table, KIND, step + 1)
    store(table, STATE, KIND, after + at, columns, WIDTH, mask, value)
    return value


@triton.jit
def _give_h(table, KIND: tl.constexpr, step, at, columns, mask, place, inside, fresh):
    """h of a step: into the state and the output; and what was read is kept for the way back."""
    there = inside[:, None] & mask
    if KIND.KEEP:
        read = load_read(table, KIND, step, at, columns, there)
        store(table, KIND.AT.recurrent, KIND, place, columns, KIND.R, there, read)
    h = _advance(
        table, KIND.AT.h, KIND.AT.zone_h, KIND, step, at, columns, KIND.R, mask, place, inside,
        fresh,
    )  # fmt: skip
    store(table, KIND.AT.output, KIND, place, columns, KIND.R, there, h)


@triton.jit(do_not_specialize=["offset"])
def cell_forward(table, offset, KIND: tl.constexpr):
    """The recurrent product and the gates of a step, up to h where nothing projects it."""
    direction, rows, units, at, mask = own_tile(table, KIND, KIND.H)
    step = tl.load(table + KIND.AT.base) + offset
    place, inside = own_frames(table, KIND, step, direction, rows)
    there = inside[:, None] & mask
    if KIND.NORM:
        i, f, g, o = _normalized(table, KIND, direction, at, units, mask, place, inside)
    else:
        i, f, g, o = _products(table, KIND, step, direction, rows, at, units)
    of_i, of_f, of_g, of_o = load_gates(table, KIND.AT.sums, KIND, place, units, there)
    i, f, g, o = i + of_i, f + of_f, g + of_g, o + of_o
    c = load(table, KIND.AT.c, KIND, states_before(table, KIND, step) + at, units, KIND.H, mask)
    i, f, g, o, c_next = gate_values(table, KIND, direction, units, i, f, g, o, c)
    seen, _, _ = see(table, KIND, c_next, direction, units, mask)
    if KIND.KEEP:
        store_gates(table, KIND.AT.gates, KIND, place, units, there, i, f, g, o)
        store(table, KIND.AT.kept_c, KIND, place, units, KIND.H, there, c)
    if KIND.PROJECTED:
        store(table, KIND.AT.unprojected, KIND, place, units, KIND.H, there, o * seen)
    else:
        _give_h(table, KIND, step, at, units, mask, place, inside, o * seen)
    _advance(
        table, KIND.AT.c, KIND.AT.zone_c, KIND, step, at, units, KIND.H, mask, place, inside,
        c_next,
    )  # fmt: skip


@triton.jit(do_not_specialize=["offset"])
def projection_forward(table, offset, KIND: tl.constexpr):
    """h of a step, the projection of what `cell_forward` left."""
    direction, rows, columns, at, mask = own_tile(table, KIND, KIND.R)
    step = tl.load(table + KIND.AT.base) + offset
    place, inside = own_frames(table, KIND, step, direction, rows)
    weights = projection_matrix(table, KIND, direction)
    fresh = rows_times(
        table, KIND.AT.unprojected, KIND, place, inside, weights, columns, KIND.H, 1, KIND.H,
        KIND.R,
    )  # fmt: skip
    _give_h(table, KIND, step, at, columns, mask, place, inside, fresh)
