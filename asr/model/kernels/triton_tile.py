"""What the Triton kernels of a time step are made of: a program's tile, its loads and products.

A program serves a tile of utterances of one direction and a tile of units. Arrays of all frames are
`(B, T, D, ...)`; where a row's frame lies at a step follows from its length, so the second
direction's time is never turned round in memory. Arrays of a step are `(D, B, ...)`; of h and c
there are two, as all programs read one while each writes its part of the other.

Every kernel takes a table of addresses and a `Kind`, see `triton_launch`; the number of the step is
the table's first entry and `offset` together, so a captured graph of launches serves any batch.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def array_at(table, SLOT: tl.constexpr, DTYPE: tl.constexpr):
    address = tl.load(table + SLOT).to(tl.pointer_type(DTYPE))
    return tl.multiple_of(address, 16)


@triton.jit
def load(table, SLOT: tl.constexpr, KIND: tl.constexpr, rows, columns, WIDTH: tl.constexpr, mask):
    """A tile of an array whose rows are WIDTH long; 0 outside of the mask."""
    where = array_at(table, SLOT, KIND.FLOAT) + rows[:, None] * WIDTH + columns[None, :]
    return tl.load(where, mask=mask, other=0.0)


@triton.jit
def store(
    table, SLOT: tl.constexpr, KIND: tl.constexpr, rows, columns, WIDTH: tl.constexpr, mask, value
):
    where = array_at(table, SLOT, KIND.FLOAT) + rows[:, None] * WIDTH + columns[None, :]
    tl.store(where, value, mask=mask)


@triton.jit
def load_row(table, SLOT: tl.constexpr, KIND: tl.constexpr, first, columns, mask):
    """Some values of an array, from element `first` on, as a tile of one row."""
    where = array_at(table, SLOT, KIND.FLOAT) + first + columns
    return tl.load(where, mask=mask, other=0.0)[None, :]


@triton.jit
def own_tile(table, KIND: tl.constexpr, WIDTH: tl.constexpr):
    """Direction, rows, columns, the rows' places in `(D, B)`, and which elements there are."""
    place = tl.program_id(0)
    direction, batch = place % KIND.D, tl.load(table + KIND.AT.batch)
    rows = (place // KIND.D).to(tl.int64) * KIND.BLOCK_B + tl.arange(0, KIND.BLOCK_B)
    columns = tl.program_id(1) * KIND.BLOCK_N + tl.arange(0, KIND.BLOCK_N)
    mask = (rows < batch)[:, None] & (columns < WIDTH)[None, :]
    return direction, rows, columns, direction * batch + rows, mask


@triton.jit
def own_frames(table, KIND: tl.constexpr, step, direction, rows):
    """Places of the rows' frames in `(B, T, D)`, and which rows have a frame at this step."""
    batch, frames = tl.load(table + KIND.AT.batch), tl.load(table + KIND.AT.frames)
    lengths = array_at(table, KIND.AT.lengths, tl.int64)
    lengths = tl.load(lengths + rows, mask=rows < batch, other=0)
    time = tl.where(direction == 0, step, lengths - 1 - step)
    return (rows * frames + time) * KIND.D + direction, (step >= 0) & (step < lengths)


@triton.jit
def states_before(table, KIND: tl.constexpr, step):
    """The first row of the states that a step reads, `(D * B)` rows each."""
    return (step % 2) * KIND.D * tl.load(table + KIND.AT.batch)


@triton.jit
def tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def zeros(KIND: tl.constexpr):
    ROWS: tl.constexpr = KIND.BLOCK_B
    COLUMNS: tl.constexpr = KIND.BLOCK_N
    return tl.zeros((ROWS, COLUMNS), KIND.FLOAT)


@triton.jit
def add_dot(KIND: tl.constexpr, total, left, weights, k, columns, ACROSS: tl.constexpr,
         DOWN: tl.constexpr, mask):  # fmt: skip
    """`total + left @ weights`, whose elements lie ACROSS and DOWN apart."""
    where = weights + k[:, None] * DOWN + columns[None, :] * ACROSS
    right = tl.load(where, mask=mask, other=0.0)
    return tl.dot(
        left.to(KIND.WEIGHT), right, total, input_precision=KIND.PRECISION, out_dtype=KIND.FLOAT
    )


@triton.jit
def rows_times(
    table, LEFT: tl.constexpr, KIND: tl.constexpr, rows, is_row, weights, columns,
    ACROSS: tl.constexpr, DOWN: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Rows of an array, K long, times columns of weights."""
    total = zeros(KIND)
    for start in range(0, K, KIND.BLOCK_K):
        k = start + tl.arange(0, KIND.BLOCK_K)
        left = load(table, LEFT, KIND, rows, k, K, is_row[:, None] & (k < K)[None, :])
        mask = (k < K)[:, None] & (columns < WIDTH)[None, :]
        total = add_dot(KIND, total, left, weights, k, columns, ACROSS, DOWN, mask)
    return total


@triton.jit
def load_read(table, KIND: tl.constexpr, step, at, columns, mask):
    """What the recurrent matrix reads at a step, after dropout."""
    STATE: tl.constexpr = KIND.AT.c if KIND.READS_C else KIND.AT.h
    value = load(table, STATE, KIND, states_before(table, KIND, step) + at, columns, KIND.R, mask)
    if KIND.MASKED:
        value *= load(table, KIND.AT.mask, KIND, at, columns, KIND.R, mask)
    return value


@triton.jit
def recurrent_matrix(table, KIND: tl.constexpr, direction):
    """The recurrent matrix of a direction, `(G * H, R)`."""
    weights = array_at(table, KIND.AT.weight_hh, KIND.WEIGHT)
    return weights + direction * KIND.G * KIND.H * KIND.R


@triton.jit
def projection_matrix(table, KIND: tl.constexpr, direction):
    """The projection of a direction, `(R, H)`."""
    return array_at(table, KIND.AT.weight_hr, KIND.WEIGHT) + direction * KIND.R * KIND.H


@triton.jit
def load_gate(table, SLOT: tl.constexpr, KIND: tl.constexpr, rows, units, GATE: tl.constexpr, mask):
    """A gate's tile of an array of all gates."""
    return load(table, SLOT, KIND, rows, units + GATE * KIND.H, KIND.G * KIND.H, mask)


@triton.jit
def store_gates(table, SLOT: tl.constexpr, KIND: tl.constexpr, rows, units, mask, i, f, g, o):
    WIDTH: tl.constexpr = KIND.G * KIND.H
    if KIND.G == 4:
        store(table, SLOT, KIND, rows, units, WIDTH, mask, i)
    store(table, SLOT, KIND, rows, units + (KIND.G - 3) * KIND.H, WIDTH, mask, f)
    store(table, SLOT, KIND, rows, units + (KIND.G - 2) * KIND.H, WIDTH, mask, g)
    store(table, SLOT, KIND, rows, units + (KIND.G - 1) * KIND.H, WIDTH, mask, o)


@triton.jit
def load_gates(table, SLOT: tl.constexpr, KIND: tl.constexpr, rows, units, mask):
    """The tiles of i, f, g and o; where gates are coupled, i is that of f."""
    f = load_gate(table, SLOT, KIND, rows, units, KIND.G - 3, mask)
    g = load_gate(table, SLOT, KIND, rows, units, KIND.G - 2, mask)
    o = load_gate(table, SLOT, KIND, rows, units, KIND.G - 1, mask)
    i = f
    if KIND.G == 4:
        i = load_gate(table, SLOT, KIND, rows, units, 0, mask)
    return i, f, g, o


@triton.jit
def load_gate_rows(table, SLOT: tl.constexpr, KIND: tl.constexpr, direction, units, is_unit):
    """A parameter's rows for i, f, g and o, as `_gates`."""
    first = direction * KIND.G * KIND.H
    f = load_row(table, SLOT, KIND, first + (KIND.G - 3) * KIND.H, units, is_unit)
    g = load_row(table, SLOT, KIND, first + (KIND.G - 2) * KIND.H, units, is_unit)
    o = load_row(table, SLOT, KIND, first + (KIND.G - 1) * KIND.H, units, is_unit)
    i = f
    if KIND.G == 4:
        i = load_row(table, SLOT, KIND, first, units, is_unit)
    return i, f, g, o


@triton.jit
def sum_over_gates(KIND: tl.constexpr, i, f, g, o):
    """Sums over the units of all gates."""
    total = f + g + o
    if KIND.G == 4:
        total += i
    return tl.sum(total, axis=1)


@triton.jit
def see(table, KIND: tl.constexpr, c, direction, units, mask):
    """tanh of c, normalised where the cell does; c normalised, and 1 over its deviation."""
    normed, scale = c, tl.sum(c, axis=1)
    if KIND.NORM:
        mean = tl.sum(tl.where(mask, c, 0), axis=1) / KIND.H
        normed = tl.where(mask, c - mean[:, None], 0)
        scale = 1 / tl.sqrt(tl.sum(normed * normed, axis=1) / KIND.H + KIND.EPSILON)
        normed *= scale[:, None]
        is_unit = units < KIND.H
        c = normed * load_row(table, KIND.AT.norm_c, KIND, direction * KIND.H, units, is_unit)
        c += load_row(table, KIND.AT.bias_c, KIND, direction * KIND.H, units, is_unit)
    return tanh(c), normed, scale
