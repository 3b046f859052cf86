"""What the LSTM's loops on a CPU are made of, compiled by Numba.

A matrix product in tiles, whose inner loop is written in LLVM's vectors so that sums stay in
registers, the panels that it reads, and loops over the numbers of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import extending, types
from numba.core import cgutils, config

import asr.compiled
from asr.model.lstm_cell import NORM_EPSILON

# Called without its first argument, the typing context, which its types do not say.
intrinsic: Any = extending.intrinsic
# None of these liberties in arithmetic lets a NaN pass for a number.
FASTMATH = {"contract", "nsz", "arcp"}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of arrays and numbers; it runs without the interpreter's lock."""
    return asr.compiled.compiled(function, Path(__file__).parent, FASTMATH)


def compiled_sum(function: Callable[..., Any]) -> Callable[..., Any]:
    """`compiled`, and sums may be taken in any order: only then do they become vectors."""
    return asr.compiled.compiled(function, Path(__file__).parent, FASTMATH | {"reassoc"})


@intrinsic
def borrowed(typing_context: Any, value: Any) -> Any:
    """The array, or the named tuple of arrays, without its owner, who must outlive it.

    References to an owner are counted with locked instructions, several a row of every array.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _without_owner(context, builder, value, arguments[0])

    return value(value), codegen


def _without_owner(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        array.parent = cgutils.get_null_value(array.parent.type)
        return array._getvalue()
    if isinstance(kind, types.NamedTuple | types.NamedUniTuple):
        for k, part in enumerate(kind.types):
            own = _without_owner(context, builder, part, builder.extract_value(value, k))
            value = builder.insert_value(value, own, k)
    return value


SCALARS = {32: ir.FloatType(), 64: ir.DoubleType()}  # by their bits
COLUMNS = 16  # of a panel: two vectors of AVX2, one of AVX-512, four of NEON
ROWS = 6  # of a tile, at most
BLOCK = 96  # rows of frames multiplied at once: they and their sums stay in the L2 cache
_set_by_user = getattr(config, "CPU_FEATURES", None)
HAS_AVX512 = (
    bool(binding.get_host_cpu_features().get("avx512f"))
    if _set_by_user is None
    else "+avx512f" in _set_by_user
)
# Panels taken at once for so many rows. AVX2's 16 registers hold the sums of 6 rows of one panel,
# two a row, with 2 for weights and 1 for the factor; AVX-512's 32 those of four panels. As many as
# go in, because a sum's next addition waits some four cycles for its last, and because the more
# rows and panels, the fewer loads a sum: so with few rows more panels.
WIDTHS = (4,) * (ROWS + 1) if HAS_AVX512 else (1, 4, 2, 1, 1, 1, 1)


@intrinsic
def _copy_columns(typing_context: Any, like: Any, to: Any, of: Any) -> Any:
    """16 numbers from one address to another; a loop over so few does not become vectors."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        size = like.dtype.bitwidth // 8
        pointer = ir.VectorType(SCALARS[like.dtype.bitwidth], COLUMNS).as_pointer()
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
        pointer = ir.VectorType(SCALARS[like.dtype.bitwidth], COLUMNS).as_pointer()

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
                _emit_tile(builder, SCALARS[like.dtype.bitwidth], rows, panels, *places)
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
    undefined = ir.Constant(vector, ir.Undefined)
    to_all_lanes = ir.Constant(ir.VectorType(number, COLUMNS), [0] * COLUMNS)
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
            first = builder.insert_element(undefined, value, ir.Constant(number, 0))
            factor = builder.shuffle_vector(first, undefined, to_all_lanes)
            for p in range(panels):
                total = builder.load(sums[row, p])
                builder.store(builder.call(fma, [factor, weights[p], total]), sums[row, p])
    for key, place in places.items():
        to = builder.inttoptr(place, vector.as_pointer())
        builder.store(builder.load(sums[key]), to, align=size)


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


@compiled
def pack(panels, matrix):
    """A matrix `(K, columns)` in panels of `add_product`, `(ceil(columns / 16), K, 16)`."""
    panels[matrix.shape[1] // COLUMNS :] = 0
    for k in range(len(matrix)):
        to_panels(panels, k, matrix[k])


@compiled
def pack_transposed(panels, matrix):
    """The transpose of a matrix `(columns, K)` in panels, `(ceil(columns / 16), K, 16)`."""
    columns, depth = matrix.shape
    whole, squares = columns // COLUMNS, depth // COLUMNS
    for p in range(whole):
        of = matrix.ctypes.data + p * COLUMNS * matrix.strides[0]
        to = panels.ctypes.data + p * panels.strides[0]
        for k in range(squares):
            start = k * COLUMNS
            place = to + start * panels.strides[1]
            turn_square(matrix, place, of + start * matrix.itemsize, matrix.strides[0])
        for k in range(squares * COLUMNS, depth):
            for j in range(COLUMNS):
                panels[p, k, j] = matrix[p * COLUMNS + j, k]
    panels[whole:] = 0
    for j in range(columns - whole * COLUMNS):
        for k in range(depth):
            panels[whole, k, j] = matrix[whole * COLUMNS + j, k]


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


@extending.overload(tanh)
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
def sigmoid_of(values):
    half = values.dtype.type(0.5)
    for j in range(len(values)):
        values[j] = half + half * tanh(half * values[j])


@compiled
def tanh_of(values):
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
def add_products(target, left, right):
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
def mean_of(values):
    total = values.dtype.type(0)
    for j in range(len(values)):
        total += values[j]
    return total / values.dtype.type(len(values))


@compiled_sum
def mean_of_products(left, right):
    total = left.dtype.type(0)
    for j in range(len(left)):
        total += left[j] * right[j]
    return total / left.dtype.type(len(left))


@compiled_sum
def variance_of(values, mean):
    total = values.dtype.type(0)
    for j in range(len(values)):
        total += (values[j] - mean) * (values[j] - mean)
    return total / values.dtype.type(len(values))


@compiled
def normalize(target, values):
    """`values` with mean 0 and variance 1, to `target`; gives 1 over the deviation they had.

    Two arrays that do not overlap: where they may, the compiler's vectors give way to scalars.
    """
    mean = mean_of(values)
    scale = values.dtype.type(1 / math.sqrt(variance_of(values, mean) + NORM_EPSILON))
    for j in range(len(values)):
        target[j] = (values[j] - mean) * scale
    return scale


@compiled
def normalize_backward(gradient, normed, scale):
    """Gradient of the values that `normalize` took, in place."""
    mean, slope = mean_of(gradient), mean_of_products(gradient, normed)
    for j in range(len(gradient)):
        gradient[j] = scale * (gradient[j] - mean - normed[j] * slope)
