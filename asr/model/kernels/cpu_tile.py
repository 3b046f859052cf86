"""A matrix product whose inner loop is written in LLVM's vectors, so that sums stay in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from asr.model.kernels.compiled import compiled

COLUMNS = 16  # of a panel: two vectors of AVX2, one of AVX-512, four of NEON
ROWS = 6  # of a tile, at most


def _has_avx512() -> bool:
    """Whether Numba compiles for it, hence for 32 registers of 16 numbers."""
    if config.CPU_FEATURES is not None:
        return "+avx512f" in config.CPU_FEATURES
    return bool(binding.get_host_cpu_features().get("avx512f"))


# Panels taken at once for so many rows. AVX2's 16 registers hold the sums of 6 rows of one panel,
# two a row, with 2 for weights and 1 for the factor; AVX-512's 32 those of four panels. As many as
# go in, because a sum's next addition waits some four cycles for its last, and because the more
# rows and panels, the fewer loads a sum: so with few rows more panels.
WIDTHS = (4,) * (ROWS + 1) if _has_avx512() else (1, 4, 2, 1, 1, 1, 1)


@intrinsic
def _add_tile(
    typing_context: Any, like: Any, rows: Any, panels: Any, out: Any, out_stride: Any, a: Any,
    a_stride: Any, panel: Any, panel_stride: Any, depth: Any,
) -> Any:  # fmt: skip
    """`out += a @ weights` for 1 to 6 rows, and for one panel or `WIDTHS[rows]`.

    Addresses are in bytes: of the first element of `out` and `a` (rows `out_stride` and `a_stride`
    bytes apart) and of the first panel `(depth, 16)`, which is contiguous, the next one
    `panel_stride` bytes after; `like` is any array of their dtype.
    """
    scalar = ir.FloatType() if like.dtype.bitwidth == 32 else ir.DoubleType()

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, rows, panels, *places = arguments
        integer, end = rows.type, builder.append_basic_block("tile.end")
        shape = builder.add(builder.mul(rows, ir.Constant(integer, COLUMNS)), panels)
        switch = builder.switch(shape, end)
        for rows in range(1, ROWS + 1):
            for panels in {1, WIDTHS[rows]}:
                block = builder.append_basic_block(f"tile.{rows}.{panels}")
                switch.add_case(ir.Constant(integer, COLUMNS * rows + panels), block)
                builder.position_at_end(block)
                _emit_tile(builder, scalar, rows, panels, *places)
                builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(like, *[types.intp] * 9), codegen


def _emit_tile(
    builder: Any, scalar: Any, rows: int, panels: int, out: Any, out_stride: Any, a: Any,
    a_stride: Any, panel: Any, panel_stride: Any, depth: Any,
) -> None:  # fmt: skip
    """The instructions of `_add_tile` for one shape."""
    size = 4 if isinstance(scalar, ir.FloatType) else 8
    vector = ir.VectorType(scalar, COLUMNS)

    def times(stride: Any, count: int) -> Any:
        return builder.mul(stride, ir.Constant(depth.type, count))

    def load(address: Any, kind: Any) -> Any:
        return builder.load(builder.inttoptr(address, kind.as_pointer()), align=size)

    fma = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(vector, [vector] * 3),
        f"llvm.fma.v{COLUMNS}f{size * 8}",
    )
    # LLVM promotes these to registers: nothing else points at them.
    places, sums = {}, {}
    for row in range(rows):
        for p in range(panels):
            across = ir.Constant(depth.type, p * COLUMNS * size)
            places[row, p] = builder.add(builder.add(out, times(out_stride, row)), across)
            sums[row, p] = cgutils.alloca_once_value(builder, load(places[row, p], vector))
    with cgutils.for_range(builder, depth) as loop:
        down, across = times(loop.index, COLUMNS * size), times(loop.index, size)
        weights = [
            load(builder.add(builder.add(panel, times(panel_stride, p)), down), vector)
            for p in range(panels)
        ]
        for row in range(rows):
            value = load(builder.add(builder.add(a, times(a_stride, row)), across), scalar)
            factor = _splat(builder, value, vector)
            for p in range(panels):
                total = builder.load(sums[row, p])
                builder.store(builder.call(fma, [factor, weights[p], total]), sums[row, p])
    for key, place in places.items():
        to = builder.inttoptr(place, vector.as_pointer())
        builder.store(builder.load(sums[key]), to, align=size)


def _splat(builder: Any, value: Any, vector: Any) -> Any:
    """A vector of which every lane is `value`."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), COLUMNS), [0] * COLUMNS)
    return builder.shuffle_vector(first, undefined, lanes)


@compiled
def add_product(out, a, panels, backwards):
    """`out += a @ weights`, with weights in panels of 16 columns.

    Rows are cut into tiles of at most 6, alike in size; a row is the same number in any company.

    Args:
        out: `(n, panels * 16)`, rows contiguous.
        a: `(n, K)`, rows contiguous, of the same dtype.
        panels: `(panels, K, 16)`, each contiguous: `panels[p, k, j]` is `weights[k, 16 * p + j]`.
        backwards: go through the panels from the last. Who alternates finds in the cache what
            the last product left there, where going round in the same order would find nothing.
    """
    rows, depth = a.shape
    count, tiles = panels.shape[0], (rows + ROWS - 1) // ROWS
    least = rows // max(1, tiles)
    larger = rows - least * tiles  # tiles of one row more
    done = 0
    while done < count:
        at_once = WIDTHS[least]
        if at_once > count - done:
            at_once = 1
        first = count - done - at_once if backwards else done
        done += at_once
        panel = panels.ctypes.data + first * panels.strides[0]
        to = out.ctypes.data + first * COLUMNS * out.itemsize
        of = a.ctypes.data
        for tile in range(tiles):
            own = least + 1 if tile < larger else least
            _add_tile(
                out, own, at_once, to, out.strides[0], of, a.strides[0], panel, panels.strides[0],
                depth,
            )  # fmt: skip
            to += own * out.strides[0]
            of += own * a.strides[0]
