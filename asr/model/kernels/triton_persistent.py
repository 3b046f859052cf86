"""Triton kernels that run all steps in one launch, their weights on the chip throughout.

A program serves a tile of utterances and a tile of units, as for a single step, but stays for all
steps: its part of the recurrent matrix is read once, its h and c never leave it. Programs of the
same direction and utterances, a group, show each other what the next product reads, and wait for
one another once a step, each group for itself. So all must run at the same time: the launch is a
cooperative one. `triton_tile` says how tiles and arrays are laid out.
"""

from __future__ import annotations

import triton
import triton.language as tl

from asr.model.kernels.triton_backward import before_zoneout, gates_backward, load_kept
from asr.model.kernels.triton_forward import gate_values, state_after
from asr.model.kernels.triton_tile import (
    array_at,
    load,
    own_frames,
    own_tile,
    recurrent_matrix,
    see,
    store,
    store_gates,
)


@triton.jit
def _counter(table, KIND: tl.constexpr):
    """Where the group counts who has arrived."""
    return array_at(table, KIND.AT.arrivals, tl.int32) + tl.program_id(0)


@triton.jit
def _arrive(table, KIND: tl.constexpr):
    """Tell the group that what was written until now can be read."""
    tl.debug_barrier()  # all threads' writes come before the one that counts
    tl.atomic_add(_counter(table, KIND), 1, sem="release", scope="gpu")


@triton.jit
def _wait(table, KIND: tl.constexpr, times):
    """Until all of the group have arrived so many times."""
    arrivals = times * tl.num_programs(1)
    while tl.atomic_add(_counter(table, KIND), 0, sem="acquire", scope="gpu") < arrivals:
        pass
    tl.debug_barrier()


@triton.jit
def _steps(table, KIND: tl.constexpr, rows):
    """Of the longest utterance of the group."""
    lengths = array_at(table, KIND.AT.lengths, tl.int64) + rows
    return tl.max(tl.load(lengths, mask=rows < tl.load(table + KIND.AT.batch), other=0), axis=0)


@triton.jit
def _shown_at(table, KIND: tl.constexpr, turn, at, WIDTH: tl.constexpr):
    """Rows of what the group shows each other; there are two, read and written in turns."""
    shown = array_at(table, KIND.AT.shown, KIND.WEIGHT)
    return shown + ((turn % 2) * KIND.D * tl.load(table + KIND.AT.batch) + at) * WIDTH


@triton.jit
def _gate_columns(KIND: tl.constexpr):
    """Columns of an array of all gates, a unit's four side by side, and which of them there are."""
    j = tl.arange(0, 4 * KIND.BLOCK_N)
    units, gates = tl.program_id(1) * KIND.BLOCK_N + j // 4, j % 4 - (4 - KIND.G)
    return gates * KIND.H + units, (units < KIND.H) & (gates >= 0)


@triton.jit
def _chunk(KIND: tl.constexpr, n: tl.constexpr):
    """Places of a product's chunk of terms, and which of them there are."""
    k = KIND.CHUNKS[n][0] + tl.arange(0, KIND.CHUNKS[n][1])
    return k, k < KIND.R


@triton.jit
def _weights_forward(table, KIND: tl.constexpr, direction):
    """The recurrent matrix's columns of this program, a chunk `(K, 4 * BLOCK_N)` each."""
    columns, is_column = _gate_columns(KIND)
    weights = recurrent_matrix(table, KIND, direction)
    chunks = tl.tuple([])
    for n in tl.static_range(len(KIND.CHUNKS)):
        k, is_term = _chunk(KIND, n)
        where = weights + columns[None, :] * KIND.R + k[:, None]
        chunks = chunks + (tl.load(where, mask=is_term[:, None] & is_column[None, :], other=0.0),)
    return chunks


@triton.jit
def _shown_forward(table, KIND: tl.constexpr, step, at, real, n: tl.constexpr):
    """A chunk of what the recurrent matrix reads, past the L1 cache, which others do not write."""
    k, is_term = _chunk(KIND, n)
    where = _shown_at(table, KIND, step, at, KIND.R)[:, None] + k[None, :]
    mask = real[:, None] & is_term[None, :]
    return tl.load(where, mask=mask, other=0.0, cache_modifier=".cg")


@triton.jit
def _add_product(table, KIND: tl.constexpr, step, at, real, weights, total):
    """`total` and the recurrent product; a chunk is on its way while the last is multiplied."""
    left = _shown_forward(table, KIND, step, at, real, 0)
    for n in tl.static_range(len(KIND.CHUNKS)):
        if n + 1 < len(KIND.CHUNKS):
            following = _shown_forward(table, KIND, step, at, real, n + 1)
        total = tl.dot(
            left, weights[n], total, input_precision=KIND.PRECISION, out_dtype=KIND.FLOAT
        )
        if n + 1 < len(KIND.CHUNKS):
            left = following
    return total


@triton.jit
def _by_gate(KIND: tl.constexpr, sums):
    """Columns as of `_gate_columns` to the tiles of i, f, g and o."""
    i_and_g, f_and_o = tl.split(tl.reshape(sums, (KIND.BLOCK_B, KIND.BLOCK_N, 2, 2)))
    i, g = tl.split(i_and_g)
    f, o = tl.split(f_and_o)
    return i, f, g, o


@triton.jit
def loop_forward(table, KIND: tl.constexpr):
    """All steps on the way there."""
    direction, rows, units, at, mask = own_tile(table, KIND, KIND.H)
    weights = _weights_forward(table, KIND, direction)
    columns, is_column = _gate_columns(KIND)
    batch = tl.load(table + KIND.AT.batch)
    real = rows < batch
    h = load(table, KIND.AT.h, KIND, at, units, KIND.R, mask)
    c = load(table, KIND.AT.c, KIND, at, units, KIND.H, mask)
    for step in range(_steps(table, KIND, rows)):
        place, inside = own_frames(table, KIND, step, direction, rows)
        there = inside[:, None] & mask
        read = c if KIND.READS_C else h
        if KIND.MASKED:
            read *= load(table, KIND.AT.mask, KIND, at, units, KIND.R, mask)
        shown = _shown_at(table, KIND, step, at, KIND.R)[:, None] + units[None, :]
        tl.store(shown, read.to(KIND.WEIGHT), mask=mask)
        _arrive(table, KIND)
        if KIND.KEEP:
            store(table, KIND.AT.recurrent, KIND, place, units, KIND.R, there, read)
            store(table, KIND.AT.kept_c, KIND, place, units, KIND.H, there, c)
        is_sum = inside[:, None] & is_column[None, :]
        sums = load(table, KIND.AT.sums, KIND, place, columns, KIND.G * KIND.H, is_sum)
        _wait(table, KIND, step + 1)
        sums = _add_product(table, KIND, step, at, real, weights, sums)
        i, f, g, o = _by_gate(KIND, sums)
        i, f, g, o, c_next = gate_values(table, KIND, direction, units, i, f, g, o, c)
        if KIND.KEEP:
            store_gates(table, KIND.AT.gates, KIND, place, units, there, i, f, g, o)
        seen, _, _ = see(table, KIND, c_next, direction, units, mask)
        h = state_after(
            table, KIND.AT.zone_h, KIND, place, units, KIND.R, mask, inside, o * seen, h
        )
        c = state_after(table, KIND.AT.zone_c, KIND, place, units, KIND.H, mask, inside, c_next, c)
        store(table, KIND.AT.output, KIND, place, units, KIND.R, there, h)
    store(table, KIND.AT.h, KIND, KIND.D * batch + at, units, KIND.R, mask, h)
    store(table, KIND.AT.c, KIND, KIND.D * batch + at, units, KIND.H, mask, c)


@triton.jit
def _terms(KIND: tl.constexpr, n: tl.constexpr):
    """Of the product on the way back, 4 * PARTS by K: gates, terms of each, and which there are.

    Each gate's terms are cut in PARTS, so that as many warps work on one tile.
    """
    LENGTH: tl.constexpr = KIND.CHUNKS[n][1] // KIND.PARTS
    b = tl.arange(0, 4 * KIND.PARTS)
    gates = (b // KIND.PARTS - (4 - KIND.G))[:, None]
    k = KIND.CHUNKS[n][0] + (b % KIND.PARTS)[:, None] * LENGTH + tl.arange(0, LENGTH)[None, :]
    return gates * KIND.H + k, (gates >= 0) & (k < KIND.H)


@triton.jit
def _weights_backward(table, KIND: tl.constexpr, direction, units):
    """The recurrent matrix's columns of this program, chunks `(4 * PARTS, K, BLOCK_N)`."""
    weights = recurrent_matrix(table, KIND, direction)
    chunks = tl.tuple([])
    for n in tl.static_range(len(KIND.CHUNKS)):
        k, is_term = _terms(KIND, n)
        where = weights + k[:, :, None] * KIND.R + units[None, None, :]
        mask = is_term[:, :, None] & (units < KIND.R)[None, None, :]
        chunks = chunks + (tl.load(where, mask=mask, other=0.0),)
    return chunks


@triton.jit
def _shown_backward(table, KIND: tl.constexpr, turn, at, real, n: tl.constexpr):
    """A chunk of the following step's gradients, `(4 * PARTS, BLOCK_B, K)`."""
    k, is_term = _terms(KIND, n)
    where = _shown_at(table, KIND, turn, at, KIND.G * KIND.H)[None, :, None] + k[:, None, :]
    mask = real[None, :, None] & is_term[:, None, :]
    return tl.load(where, mask=mask, other=0.0, cache_modifier=".cg")


@triton.jit
def _d_product(table, KIND: tl.constexpr, turn, at, real, weights):
    """The gradient through the following step's product."""
    PARTS: tl.constexpr = 4 * KIND.PARTS
    ROWS: tl.constexpr = KIND.BLOCK_B
    COLUMNS: tl.constexpr = KIND.BLOCK_N
    left = _shown_backward(table, KIND, turn, at, real, 0)
    total = tl.zeros((PARTS, ROWS, COLUMNS), KIND.FLOAT)
    for n in tl.static_range(len(KIND.CHUNKS)):
        if n + 1 < len(KIND.CHUNKS):
            following = _shown_backward(table, KIND, turn, at, real, n + 1)
        total = tl.dot(
            left, weights[n], total, input_precision=KIND.PRECISION, out_dtype=KIND.FLOAT
        )
        if n + 1 < len(KIND.CHUNKS):
            left = following
    return tl.sum(total, axis=0)


@triton.jit
def _show_gates(table, KIND: tl.constexpr, turn, at, units, mask, i, f, g, o):
    """Show the group the gradients of a step's sums."""
    shown = _shown_at(table, KIND, turn, at, KIND.G * KIND.H)[:, None] + units[None, :]
    if KIND.G == 4:
        tl.store(shown, i.to(KIND.WEIGHT), mask=mask)
    tl.store(shown + (KIND.G - 3) * KIND.H, f.to(KIND.WEIGHT), mask=mask)
    tl.store(shown + (KIND.G - 2) * KIND.H, g.to(KIND.WEIGHT), mask=mask)
    tl.store(shown + (KIND.G - 1) * KIND.H, o.to(KIND.WEIGHT), mask=mask)


@triton.jit
def loop_backward(table, KIND: tl.constexpr):
    """All steps on the way back, and the first step's product."""
    direction, rows, units, at, mask = own_tile(table, KIND, KIND.H)
    weights = _weights_backward(table, KIND, direction, units)
    real = rows < tl.load(table + KIND.AT.batch)
    d_h = load(table, KIND.AT.d_h, KIND, at, units, KIND.R, mask)
    d_c = load(table, KIND.AT.d_c, KIND, at, units, KIND.H, mask)
    steps = _steps(table, KIND, rows)
    for turn in range(steps + 1):
        place, inside = own_frames(table, KIND, steps - 1 - turn, direction, rows)
        there = inside[:, None] & mask
        d_h += load(table, KIND.AT.d_output, KIND, place, units, KIND.R, there)
        kept = load_kept(table, KIND, place, units, there)
        _wait(table, KIND, turn)
        d_read = _d_product(table, KIND, turn + 1, at, real, weights)
        if KIND.MASKED:
            d_read *= load(table, KIND.AT.mask, KIND, at, units, KIND.R, mask)
        if KIND.READS_C:
            d_c += d_read
        else:
            d_h += d_read
        fresh, d_h = before_zoneout(table, KIND.AT.zone_h, KIND, place, units, KIND.R, there, d_h)
        d_c, d_i, d_f, d_g, d_o = gates_backward(
            table, KIND, direction, at, units, mask, place, there, kept, fresh, d_c
        )
        _show_gates(table, KIND, turn, at, units, mask, d_i, d_f, d_g, d_o)
        _arrive(table, KIND)
        store_gates(table, KIND.AT.d_sums, KIND, place, units, there, d_i, d_f, d_g, d_o)
    store(table, KIND.AT.d_h, KIND, at, units, KIND.R, mask, d_h)
    store(table, KIND.AT.d_c, KIND, at, units, KIND.H, mask, d_c)
