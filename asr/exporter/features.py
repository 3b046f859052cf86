"""Log-mel features and their normalisers as a graph; equal to `asr.features`."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from asr.exporter.graph import Graph
from asr.features import (
    ACTIVE_DB,
    ACTIVE_ROUNDS,
    LOWEST,
    MEAN_STEP,
    PCEN_BIAS,
    PCEN_BLOCK,
    PCEN_EPSILON,
    PCEN_GAIN,
    PCEN_POWER,
    STD_FLOOR,
    ActiveNormalizer,
    LogMel,
    NoNormalizer,
    PcenNormalizer,
    StoredNormalizer,
)

FRAMES_AT_ONCE = 32  # they stay in a CPU's cache, and memory does not grow with the samples


class Transform(NamedTuple):
    """The discrete Fourier transform of N = N1 * N2 samples in two steps of small matrices.

    With n = N2 n1 + n2 and k = k1 + N1 k2 (Cooley and Tukey, "An algorithm for the machine
    calculation of complex Fourier series", 1965): first over n1, then for each k1 over n2. k1 goes
    up to N1 / 2 alone: the samples are real, and bin N - k has the power of bin k.

    Attributes:
        first: `(2 K1, N1)` float64, the real and the imaginary part of each k1.
        turn: `(K1, N2)` complex128, between the steps.
        second: `(N2, N2)` complex128.
        bins: `(N // 2 + 1,)` int64, where the power of each bin is in `(K1 N2,)`.
    """

    first: NDArray[np.float64]
    turn: NDArray[np.complex128]
    second: NDArray[np.complex128]
    bins: NDArray[np.int64]


def transform_of(n_fft: int) -> Transform:
    """Split a transform of any length; of a prime one the second step does nothing."""
    n2 = max(d for d in range(1, math.isqrt(n_fft) + 1) if n_fft % d == 0)
    n1 = n_fft // n2
    k1, k2 = np.arange(n1 // 2 + 1), np.arange(n2)

    def wave(turns: NDArray[np.int64], size: int) -> NDArray[np.complex128]:
        found: NDArray[np.complex128] = np.exp(-2j * np.pi / size * (turns % size))
        return found

    each = wave(np.outer(k1, np.arange(n1)), n1)
    first = np.stack([each.real, each.imag], axis=1).reshape(-1, n1)
    k = np.arange(n_fft // 2 + 1)
    k = np.where(k % n1 <= n1 // 2, k, n_fft - k)
    turn, second = wave(np.outer(k1, k2), n_fft), wave(np.outer(k2, k2), n2)
    return Transform(first, turn, second, k % n1 * n2 + k // n1)


def _second(g: Graph, of: Transform) -> str:
    """The second step with the turns, `(K1, 2 N2, 2 N2)`: a constant expression, of few numbers.

    Rows and columns are first the real parts of all n2 or k2, then the imaginary ones.
    """
    turn, second = of.turn[:, :, None], of.second[None]
    a, b, c, d = (g.constant(each) for each in (turn.real, turn.imag, second.real, second.imag))
    real = g.op("Sub", g.op("Mul", a, c), g.op("Mul", b, d))  # (K1, N2, N2)
    imaginary = g.op("Add", g.op("Mul", a, d), g.op("Mul", b, c))
    rows = [
        g.op("Concat", real, imaginary, axis=2),
        g.op("Concat", g.op("Neg", imaginary), real, axis=2),
    ]
    return g.op("Concat", *rows, axis=1)


def _filterbank(g: Graph, of: LogMel, wave: Transform) -> str:
    """The mel filters `(K1 N2, F)` where the bins are; nearly all of its numbers are zero."""
    bank = of.filterbank.cpu().numpy()
    shape = g.constant([wave.turn.size, of.n_mels])
    zeros = g.op(
        "ConstantOfShape", shape, value=helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
    )
    bins, mels = np.nonzero(bank)
    places = np.stack([wave.bins[bins], mels], axis=1)
    return g.op("ScatterND", zeros, g.constant(places), g.constant(bank[bins, mels]))


def log_mel(g: Graph, of: LogMel, waveforms: str, num_frames: str) -> str:
    """Compute features before normalisation, of the first frames of padded waveforms.

    Args:
        g: the graph.
        of: the features.
        waveforms: `(B, N)` float32, scaled; the windows may reach beyond.
        num_frames: T, `(1,)` int64, at least 1.

    Returns:
        `(B, T, F)` float32.
    """
    hop, at_once = of.hop_length, FRAMES_AT_ONCE
    num_pieces = -(-of.win_length // hop)
    blocks = g.op("Div", g.op("Add", num_frames, g.constant([at_once - 1])), g.constant([at_once]))
    pieces = g.op("Add", g.op("Mul", blocks, g.constant([at_once])), g.constant([num_pieces - 1]))
    needed = g.op("Mul", pieces, g.constant([hop]))
    after = g.op("Sub", needed, g.size(waveforms, 1))  # below zero it cuts off
    padded = g.op("Pad", waveforms, g.op("Concat", g.constant([0, 0, 0]), after, axis=0))
    hops = g.op("Reshape", padded, g.constant([0, -1, hop]))  # (B, pieces, hop)
    firsts = g.unsqueeze(g.op("Mul", g.range(blocks), g.constant(at_once)), 1)
    (found,) = g.scan(_block(g, of, hops, num_pieces), [], [firsts], scan_output_axes=[1])
    features = g.op("Reshape", found, g.constant([0, -1, of.n_mels]))
    return g.slice(features, g.constant([0]), num_frames, 1)


def _block(g: Graph, of: LogMel, hops: str, num_pieces: int) -> Graph:
    """Features `(B, FRAMES_AT_ONCE, F)` of the frames from one on, each of some hops in a row."""
    body, wave = Graph(g.precision, g), transform_of(of.n_fft)
    num_k1, n2 = wave.turn.shape
    second, bank = _second(g, wave), _filterbank(g, of, wave)  # outside of the loop
    first = body.name("first")
    pieces = []
    for number in range(num_pieces):
        begin = body.op("Add", first, body.constant([number]))
        end = body.op("Add", begin, body.constant([FRAMES_AT_ONCE]))
        pieces.append(body.slice(hops, begin, end, 1))
    x = body.op("Concat", *pieces, axis=2) if num_pieces > 1 else pieces[0]
    x = body.slice(x, body.constant([0]), body.constant([of.win_length]), 2)
    x = body.op("Cast", x, to=TensorProto.DOUBLE)
    if of.remove_dc_offset:
        x = body.op("Sub", x, body.op("ReduceMean", x, axes=[2], keepdims=1))
    if of.preemphasis:
        begin, last = body.constant([0]), body.constant([of.win_length - 1])
        previous = body.op(
            "Concat", body.slice(x, begin, body.constant([1]), 2), body.slice(x, begin, last, 2),
            axis=2,
        )  # fmt: skip
        share = body.op("Mul", previous, body.number(of.preemphasis, np.float64))
        x = body.op("Sub", x, share)
    x = body.op("Mul", x, body.constant(of.window.cpu().numpy()))
    x = body.op("Pad", x, body.constant([0, 0, 0, 0, 0, of.n_fft - of.win_length]))
    x = body.op("Reshape", x, body.constant([-1, of.n_fft // n2, n2]))
    x = body.op("MatMul", body.constant(wave.first), x)  # (B * FRAMES_AT_ONCE, 2 K1, N2)
    x = body.op("Reshape", x, body.constant([-1, num_k1, 2 * n2]))
    x = body.op("MatMul", body.op("Transpose", x, perm=[1, 0, 2]), second)
    x = body.op("Mul", x, x)
    real, imaginary = body.ops("Split", x, body.constant([n2, n2]), count=2, axis=2)
    x = body.op("Transpose", body.op("Add", real, imaginary), perm=[1, 0, 2])
    x = body.op("Cast", x, to=TensorProto.FLOAT)
    x = body.op("Reshape", x, body.constant([-1, FRAMES_AT_ONCE, num_k1 * n2]))
    x = body.op("MatMul", x, bank)
    x = body.op("Log", body.op("Max", x, body.number(of.log_floor)))
    body.finish(
        "frames",
        [helper.make_tensor_value_info(first, TensorProto.INT64, [1])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, None)],
    )
    return body


def features_of_whole(g: Graph, of: LogMel, waveforms: str, num_samples: str) -> tuple[str, str]:
    """Compute normalised features of waveforms; see `LogMel.forward`.

    Args:
        g: the graph.
        of: the features.
        waveforms: `(B, N)` float32; what lies beyond a clip's end is ignored.
        num_samples: `(B,)` int64.

    Returns:
        features `(B, T, F)` float32 with T of at least 1, and lengths `(B,)` int64 [frames].
    """
    hop = g.constant([of.hop_length])
    if of.center:
        lengths = g.op("Add", g.op("Div", num_samples, hop), g.constant([1]))
    else:
        reach = g.op("Sub", num_samples, g.constant([of.win_length - of.hop_length]))
        lengths = g.op("Div", g.op("Max", reach, g.constant([0])), hop)
    zero = g.number(0.0)
    inside = g.inside(num_samples, g.size(waveforms, 1))
    x = g.op("Where", inside, waveforms, zero)  # no product: NaN in the padding must not spread
    if of.remove_mean:
        # As there, in float64 and rounded: the order of the sum must not depend on the padding.
        wide = g.op("Cast", x, to=TensorProto.DOUBLE)
        count = g.op("Max", num_samples, g.constant([1]))
        total = g.op("ReduceSum", wide, g.constant([1]), keepdims=0)
        mean = g.op("Div", total, g.op("Cast", count, to=TensorProto.DOUBLE))
        step = g.number(MEAN_STEP, np.float64)
        mean = g.op("Mul", g.op("Round", g.op("Div", mean, step)), step)
        mean = g.unsqueeze(g.op("Cast", mean, to=TensorProto.FLOAT), 1)
        x = g.op("Where", inside, g.op("Sub", x, mean), zero)
    if of.scale != 1.0:
        x = g.op("Mul", x, g.number(of.scale))
    before = (of.win_length + 1) // 2 if of.center else 0
    if before:
        x = g.op("Pad", x, g.constant([0, before, 0, 0]))
    longest = g.op("ReduceMax", lengths, axes=[0], keepdims=1)
    num_frames = g.op("Max", longest, g.constant([1]))
    features = log_mel(g, of, x, num_frames)
    valid = g.unsqueeze(g.inside(lengths, num_frames), 2)
    normal = _normalized(g, of, g.op("Where", valid, features, zero), valid)
    return g.op("Where", valid, normal, zero), lengths


def features_of_step(
    g: Graph, of: LogMel, waveforms: str, num_again: int, is_first: str, smooth: str
) -> tuple[str, str]:
    """Compute the next normalised features of streams; see `LogMel.step`.

    Args:
        g: the graph.
        of: the features.
        waveforms: `(B, n)`, whole windows.
        num_again: frames at the end that come again.
        is_first: `(B,)` bool, where a stream begins.
        smooth: `(B, 1, F)` float64, what PCEN remembers.

    Returns:
        features `(B, T, F)`, and what PCEN remembers now.
    """
    x = g.op("Mul", waveforms, g.number(of.scale)) if of.scale != 1.0 else waveforms
    reach = g.op("Sub", g.size(x, 1), g.constant([of.win_length - of.hop_length]))
    num_frames = g.op("Div", reach, g.constant([of.hop_length]))
    features = log_mel(g, of, x, num_frames)
    if isinstance(of.normalizer, PcenNormalizer):
        energy = _energy(g, features)
        first = g.slice(energy, g.constant([0]), g.constant([1]), 1)
        begin = g.op("Where", g.unsqueeze(is_first, 1, 2), first, smooth)
        followed = _followed(g, of.normalizer, energy, begin, of.n_mels)
        num_new = g.op("Sub", num_frames, g.constant([num_again]))
        last = g.op("Sub", num_new, g.constant([1]))
        smooth = g.slice(followed, last, num_new, 1)
        features = _compressed(g, energy, followed)
    if isinstance(of.normalizer, StoredNormalizer):
        features = _by_stored(g, of.normalizer, features)
    return features, smooth


def _normalized(g: Graph, of: LogMel, features: str, valid: str) -> str:
    """Normalise whole utterances `(B, T, F)`, valid `(B, T, 1)`; any value in the padding."""
    normalizer = of.normalizer
    if isinstance(normalizer, NoNormalizer):
        return features
    if isinstance(normalizer, StoredNormalizer):
        if isinstance(normalizer, PcenNormalizer):
            energy = _energy(g, features)
            first = g.slice(energy, g.constant([0]), g.constant([1]), 1)
            followed = _followed(g, normalizer, energy, first, of.n_mels)
            features = _compressed(g, energy, followed)
        return _by_stored(g, normalizer, features)
    if not isinstance(normalizer, ActiveNormalizer):
        return _standardized(g, features, valid)
    power = g.op("ReduceMean", _energy(g, features), axes=[2], keepdims=1)
    zero = g.number(0.0, np.float64)
    power = g.op("Where", valid, power, zero)  # (B, T, 1)
    active = valid
    for _ in range(ACTIVE_ROUNDS):
        level = g.op("ReduceSum", g.op("Where", active, power, zero), g.constant([1]), keepdims=1)
        count = g.op("ReduceSum", g.op("Cast", active, to=TensorProto.DOUBLE), g.constant([1]))
        level = g.op("Div", level, g.op("Max", count, g.number(1.0, np.float64)))
        least = g.op("Mul", level, g.number(10 ** (-ACTIVE_DB / 10), np.float64))
        active = g.op("And", valid, g.op("GreaterOrEqual", power, least))
    return g.op("Max", _standardized(g, features, active), g.number(-LOWEST))


def _standardized(g: Graph, features: str, chosen: str) -> str:
    """Features less the mean, over the deviation, of the `(B, T, 1)` chosen frames."""
    zero, time = g.number(0.0), g.constant([1])
    count = g.op("ReduceSum", g.op("Cast", chosen, to=TensorProto.FLOAT), time, keepdims=1)
    count = g.op("Max", count, g.number(1.0))
    total = g.op("ReduceSum", g.op("Where", chosen, features, zero), time, keepdims=1)
    centred = g.op("Sub", features, g.op("Div", total, count))
    own = g.op("Where", chosen, centred, zero)
    variance = g.op("Div", g.op("ReduceSum", g.op("Mul", own, own), time, keepdims=1), count)
    return g.op("Div", centred, g.op("Max", g.op("Sqrt", variance), g.number(STD_FLOOR)))


def _by_stored(g: Graph, normalizer: StoredNormalizer, features: str) -> str:
    mean, std = (g.constant(each.cpu().numpy()) for each in (normalizer.mean, normalizer.std))
    return g.op("Div", g.op("Sub", features, mean), std)


def _energy(g: Graph, features: str) -> str:
    return g.op("Exp", g.op("Cast", features, to=TensorProto.DOUBLE))


def _followed(g: Graph, of: PcenNormalizer, energy: str, begin: str, n_mels: int) -> str:
    """What PCEN divides by, `(B, T, F)` float64, from `begin` `(B, 1, F)`, block by block."""
    count = g.size(energy, 1)
    blocks = g.op("Div", g.op("Add", count, g.constant([PCEN_BLOCK - 1])), g.constant([PCEN_BLOCK]))
    whole = g.op("Mul", blocks, g.constant([PCEN_BLOCK]))
    pads = g.op(
        "Concat", g.constant([0, 0, 0, 0]), g.op("Sub", whole, count), g.constant([0]), axis=0
    )
    padded = g.op("Pad", energy, pads)
    split = g.op("Reshape", padded, g.constant([0, -1, PCEN_BLOCK, n_mels]))
    own = g.op("MatMul", g.constant(of.weights.cpu().numpy()), split)  # (B, blocks, PCEN_BLOCK, F)
    body = Graph(g.precision, g)
    before, part = body.name("before"), body.name("part")
    carry = body.op("Mul", body.constant(of.carry.cpu().numpy()[:, None]), before)
    found = body.op("Add", part, carry)
    last = body.slice(found, body.constant([PCEN_BLOCK - 1]), body.constant([PCEN_BLOCK]), 1)
    body.finish(
        "smooth",
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in (before, part)],
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in (last, found)],
    )
    _, parts = g.scan(body, [begin], [own], scan_input_axes=[1], scan_output_axes=[1])
    joined = g.op("Reshape", parts, g.constant([0, -1, n_mels]))
    return g.slice(joined, g.constant([0]), count, 1)


def _compressed(g: Graph, energy: str, followed: str) -> str:
    def number(value: float) -> str:
        return g.number(value, np.float64)

    base = g.op("Pow", g.op("Add", followed, number(PCEN_EPSILON)), number(PCEN_GAIN))
    ratio = g.op("Add", g.op("Div", energy, base), number(PCEN_BIAS))
    root = g.op("Pow", ratio, number(PCEN_POWER))
    return g.op("Cast", g.op("Sub", root, number(PCEN_BIAS**PCEN_POWER)), to=TensorProto.FLOAT)
