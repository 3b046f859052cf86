"""What the LSTM's Triton kernels are made of: a program's tile, its loads and products.

A program serves a tile of utterances of one direction and a tile of units. Arrays of all frames are
`(B, T, D, ...)`; where a row's frame lies at a step follows from its length, so the second
direction's time is never turned round in memory. Arrays of a step are `(D, B, ...)`; of h and c
there are two, as all programs read one while each writes its part of the other.

Every kernel takes a table of addresses and a `CellKind`, see `triton_launch`. A kernel of one step,
of which a layer's time loop launches one or two for each, finds the number of the step in the
table's first entry and `offset` together, so a captured graph of launches serves any batch.

A kernel of all steps stays on the chip: its part of the recurrent matrix is read once, its h and c
never leave it. Programs of the same direction and utterances, a group, show each other what the
next product reads, and wait for one another once a step, each group for itself. So all must run at
the same time: the launch is a cooperative one.
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
def load_gates(table, SLOT: tl.constexpr, KIND: tl.constexpr, rows, units, mask):
    """The tiles of i, f, g and o of an array of all gates; where they are coupled, i is f."""
    WIDTH: tl.constexpr = KIND.G * KIND.H
    f = load(table, SLOT, KIND, rows, units + (KIND.G - 3) * KIND.H, WIDTH, mask)
    g = load(table, SLOT, KIND, rows, units + (KIND.G - 2) * KIND.H, WIDTH, mask)
    o = load(table, SLOT, KIND, rows, units + (KIND.G - 1) * KIND.H, WIDTH, mask)
    i = f
    if KIND.G == 4:
        i = load(table, SLOT, KIND, rows, units, WIDTH, mask)
    return i, f, g, o


@triton.jit
def load_gate_rows(table, SLOT: tl.constexpr, KIND: tl.constexpr, direction, units):
    """A parameter's rows for i, f, g and o, as `load_gates`."""
    first = direction * KIND.G * KIND.H
    is_unit = units < KIND.H
    f = load_row(table, SLOT, KIND, first + (KIND.G - 3) * KIND.H, units, is_unit)
    g = load_row(table, SLOT, KIND, first + (KIND.G - 2) * KIND.H, units, is_unit)
    o = load_row(table, SLOT, KIND, first + (KIND.G - 1) * KIND.H, units, is_unit)
    i = f
    if KIND.G == 4:
        i = load_row(table, SLOT, KIND, first, units, is_unit)
    return i, f, g, o


@triton.jit
def store_gates(table, SLOT: tl.constexpr, KIND: tl.constexpr, rows, units, mask, i, f, g, o):
    WIDTH: tl.constexpr = KIND.G * KIND.H
    if KIND.G == 4:
        store(table, SLOT, KIND, rows, units, WIDTH, mask, i)
    store(table, SLOT, KIND, rows, units + (KIND.G - 3) * KIND.H, WIDTH, mask, f)
    store(table, SLOT, KIND, rows, units + (KIND.G - 2) * KIND.H, WIDTH, mask, g)
    store(table, SLOT, KIND, rows, units + (KIND.G - 1) * KIND.H, WIDTH, mask, o)


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
def recurrent_matrix(table, KIND: tl.constexpr, direction):
    """The recurrent matrix of a direction, `(G * H, R)`."""
    weights = array_at(table, KIND.AT.weight_hh, KIND.WEIGHT)
    return weights + direction * KIND.G * KIND.H * KIND.R


@triton.jit
def projection_matrix(table, KIND: tl.constexpr, direction):
    """The projection of a direction, `(R, H)`."""
    return array_at(table, KIND.AT.weight_hr, KIND.WEIGHT) + direction * KIND.R * KIND.H


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
def sum_over_gates(KIND: tl.constexpr, i, f, g, o):
    """Sums over the units of all gates."""
    total = f + g + o
    if KIND.G == 4:
        total += i
    return tl.sum(total, axis=1)


@triton.jit
def tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def tanh_of_c(table, KIND: tl.constexpr, c, direction, units, mask):
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


# The group of a kernel of all steps.


@triton.jit
def steps_of_group(table, KIND: tl.constexpr, rows):
    """Those of its longest utterance."""
    lengths = array_at(table, KIND.AT.lengths, tl.int64) + rows
    return tl.max(tl.load(lengths, mask=rows < tl.load(table + KIND.AT.batch), other=0), axis=0)


@triton.jit
def _counter(table, KIND: tl.constexpr):
    """Where the group counts who has arrived."""
    return array_at(table, KIND.AT.arrivals, tl.int32) + tl.program_id(0)


@triton.jit
def arrive(table, KIND: tl.constexpr):
    """Tell the group that what was written until now can be read."""
    tl.debug_barrier()  # all threads' writes come before the one that counts
    tl.atomic_add(_counter(table, KIND), 1, sem="release", scope="gpu")


@triton.jit
def wait(table, KIND: tl.constexpr, times):
    """Until all of the group have arrived so many times."""
    arrivals = times * tl.num_programs(1)
    while tl.atomic_add(_counter(table, KIND), 0, sem="acquire", scope="gpu") < arrivals:
        pass
    tl.debug_barrier()


@triton.jit
def shown_at(table, KIND: tl.constexpr, turn, at, WIDTH: tl.constexpr):
    """Rows of what the group shows each other; there are two, read and written in turns."""
    shown = array_at(table, KIND.AT.shown, KIND.WEIGHT)
    return shown + ((turn % 2) * KIND.D * tl.load(table + KIND.AT.batch) + at) * WIDTH
