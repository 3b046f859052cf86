"""A matrix product, its inner loop written in LLVM's vectors so that sums stay in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config

from asr.model.kernels.compiled import compiled, intrinsic

COLUMNS = 16  # of a panel: two vectors of AVX2, one of AVX-512, four of NEON
ROWS = 6  # of a tile, at most


def _has_avx512() -> bool:
    """Whether Numba compiles for it, hence for 32 registers of 16 numbers."""
    features = getattr(config, "CPU_FEATURES", None)  # where the user sets them
    if features is not None:
        return "+avx512f" in features
    return bool(binding.get_host_cpu_features().get("avx512f"))


# Panels taken at once for so many rows. AVX2's 16 registers hold the sums of 6 rows of one panel,
# two a row, with 2 for weights and 1 for the factor; AVX-512's 32 those of four panels. As many as
# go in, because a sum's next addition waits some four cycles for its last, and because the more
# rows and panels, the fewer loads a sum: so with few rows more panels.
WIDTHS = (4,) * (ROWS + 1) if _has_avx512() else (1, 4, 2, 1, 1, 1, 1)


@intrinsic
def _copy_columns(typing_context: Any, like: Any, to: Any, of: Any) -> Any:
    """16 numbers from one address to another; a loop over so few does not become vectors."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        size = like.dtype.bitwidth // 8
        scalar = ir.FloatType() if size == 4 else ir.DoubleType()
        pointer = ir.VectorType(scalar, COLUMNS).as_pointer()
        to, of = (builder.inttoptr(address, pointer) for address in arguments[1:])
        builder.store(builder.load(of, align=size), to, align=size)
        return context.get_dummy_value()

    return types.void(like, types.intp, types.intp), codegen


@intrinsic
def turn_square(typing_context: Any, like: Any, to: Any, of: Any, of_stride: Any) -> Any:
    """The transpose of 16 x 16 numbers, `to` contiguous; addresses and stride in bytes."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, to, of, stride = arguments
        size = like.dtype.bitwidth // 8
        scalar = ir.FloatType() if size == 4 else ir.DoubleType()
        pointer = ir.VectorType(scalar, COLUMNS).as_pointer()

        def place(base: Any, row: int, step: Any) -> Any:
            address = builder.add(base, builder.mul(step, ir.Constant(step.type, row)))
            return builder.inttoptr(address, pointer)

        def mix(left: Any, right: Any, lanes: list[int]) -> Any:
            mask = ir.Constant(ir.VectorType(ir.IntType(32), COLUMNS), lanes)
            return builder.shuffle_vector(left, right, mask)

        rows = [builder.load(place(of, row, stride), align=size) for row in range(COLUMNS)]
        for apart in (8, 4, 2, 1):  # squares off the diagonal change places, then smaller ones
            for row in range(COLUMNS):
                if row & apart:
                    continue
                pair = rows[row], rows[row + apart]
                upper = [j - apart + COLUMNS if j & apart else j for j in range(COLUMNS)]
                lower = [j + COLUMNS if j & apart else j + apart for j in range(COLUMNS)]
                rows[row], rows[row + apart] = mix(*pair, upper), mix(*pair, lower)
        for row, values in enumerate(rows):
            step = ir.Constant(stride.type, COLUMNS * size)
            builder.store(values, place(to, row, step), align=size)
        return context.get_dummy_value()

    return types.void(like, *[types.intp] * 3), codegen


@compiled
def to_panels(panels, row, values):
    """`values` as one row of a matrix in panels; nothing is written beyond them."""
    whole, size = len(values) // COLUMNS, values.itemsize
    to, of = panels.ctypes.data + row * panels.strides[1], values.ctypes.data
    for p in range(whole):
        _copy_columns(values, to + p * panels.strides[0], of + p * COLUMNS * size)
    for j in range(whole * COLUMNS, len(values)):
        panels[whole, row, j - whole * COLUMNS] = values[j]


@intrinsic
def _add_tile(
    typing_context: Any, like: Any, rows: Any, panels: Any, out: Any, out_stride: Any, initial: Any,
    initial_stride: Any, a: Any, a_stride: Any, a_step: Any, panel: Any, panel_stride: Any,
    depth: Any,
) -> Any:  # fmt: skip
    """`out = initial + a @ weights` for 1 to 6 rows, and for one panel or `WIDTHS[rows]`.

    Addresses are in bytes: of the first element of `out`, `initial` and `a` (whose rows are so many
    bytes apart, and the elements of a row of `a` `a_step`) and of the first panel `(depth, 16)`,
    which is contiguous, the next one `panel_stride` bytes after; `like` is any array of their
    dtype.
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

    return types.void(like, *[types.intp] * 12), codegen


def _emit_tile(
    builder: Any, scalar: Any, rows: int, panels: int, out: Any, out_stride: Any, initial: Any,
    initial_stride: Any, a: Any, a_stride: Any, a_step: Any, panel: Any, panel_stride: Any,
    depth: Any,
) -> None:  # fmt: skip
    """The instructions of `_add_tile` for one shape."""
    size = 4 if isinstance(scalar, ir.FloatType) else 8
    vector = ir.VectorType(scalar, COLUMNS)

    def times(stride: Any, count: int) -> Any:
        return builder.mul(stride, ir.Constant(depth.type, count))

    def load(address: Any, kind: Any) -> Any:
        return builder.load(builder.inttoptr(address, kind.as_pointer()), align=size)

    def declare(name: str, result: Any, *kinds: Any) -> Any:
        return cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(result, kinds), f"llvm.{name}"
        )

    fma = declare(f"fma.v{COLUMNS}f{size * 8}", vector, vector, vector, vector)
    number = ir.IntType(32)
    prefetch = declare("prefetch.p0", ir.VoidType(), ir.PointerType(), number, number, number)
    for_writing_to_all_caches = [ir.Constant(number, value) for value in (1, 3, 1)]
    # LLVM promotes these to registers: nothing else points at them.
    places, sums = {}, {}
    for row in range(rows):
        for p in range(panels):
            across = ir.Constant(depth.type, p * COLUMNS * size)
            start = builder.add(builder.add(initial, times(initial_stride, row)), across)
            places[row, p] = builder.add(builder.add(out, times(out_stride, row)), across)
            sums[row, p] = cgutils.alloca_once_value(builder, load(start, vector))
            # The next tile is most likely below; beyond the last row this does nothing.
            below = builder.inttoptr(
                builder.add(places[row, p], times(out_stride, rows)), ir.PointerType()
            )
            builder.call(prefetch, [below, *for_writing_to_all_caches])
    with cgutils.for_range(builder, depth) as loop:
        down, across = times(loop.index, COLUMNS * size), builder.mul(loop.index, a_step)
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
def add_product(out, initial, a, panels, backwards):
    """`out = initial + a @ weights`, with weights in panels of 16 columns.

    Rows are cut into tiles of at most 6, alike in size; a row is the same number in any company.

    Args:
        out: `(n, panels * 16)`, rows contiguous.
        initial: likewise, and may be `out` itself; or one row for all.
        a: `(n, K)`, of the same dtype.
        panels: `(panels, K, 16)`, each contiguous: `panels[p, k, j]` is `weights[k, 16 * p + j]`.
        backwards: go through the panels from the last. Who alternates finds in the cache what
            the last product left there, where going round in the same order would find nothing.
    """
    rows, depth = a.shape
    count, tiles = panels.shape[0], (rows + ROWS - 1) // ROWS
    least = rows // max(1, tiles)
    larger = rows - least * tiles  # tiles of one row more
    initial_stride = initial.strides[0] if len(initial) > 1 else 0
    done = 0
    while done < count:
        at_once = WIDTHS[least]
        if at_once > count - done:
            at_once = 1
        first = count - done - at_once if backwards else done
        done += at_once
        panel = panels.ctypes.data + first * panels.strides[0]
        to = out.ctypes.data + first * COLUMNS * out.itemsize
        start = initial.ctypes.data + first * COLUMNS * out.itemsize
        of = a.ctypes.data
        for tile in range(tiles):
            own = least + 1 if tile < larger else least
            _add_tile(
                out, own, at_once, to, out.strides[0], start, initial_stride, of, a.strides[0],
                a.strides[1], panel, panels.strides[0], depth,
            )  # fmt: skip
            to += own * out.strides[0]
            start += own * initial_stride
            of += own * a.strides[0]
