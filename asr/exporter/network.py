"""The acoustic model as a graph: subsampling, LSTM layers of every cell, lookahead and head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper
from torch import Tensor

from asr.exporter.graph import Graph
from asr.model import LSTM, BiLstmCtc
from asr.model.bilstm_ctc import LookaheadConv, MaskedNorm
from asr.model.lstm_cell import CELLS, NORM_EPSILON, Weights


@dataclass(frozen=True)
class State:
    """What a model of one direction remembers of B streams: names of values.

    Attributes:
        num_frames: `(B,)` int64, as `LiveState` has it.
        tail: `(B, K, F)`.
        h: `(num_layers, B, R)`; H wide where the runtime's own LSTM is used.
        c: `(num_layers, B, H)`.
        ahead: `(B, lookahead, width)`; empty where the model has no lookahead.
    """

    num_frames: str
    tail: str
    h: str
    c: str
    ahead: str


def log_probs(g: Graph, model: BiLstmCtc, features: str, lengths: str) -> tuple[str, str]:
    """Run the model on whole utterances; see `BiLstmCtc.forward`.

    Args:
        g: the graph.
        model: in evaluation mode.
        features: `(B, T, F)`, T of at least 1.
        lengths: `(B,)` int64 [frames].

    Returns:
        log_probs `(B, T', V)` and log_prob_lengths `(B,)`.
    """
    x, lengths = _subsampled(g, model, features, lengths)
    x = _normed(g, model.input_norm, x, lengths)
    layers: list[Any] = list(model.layers)
    norms: list[Any] = list(model.norms)
    for layer, norm in zip(layers, norms, strict=True):
        x, _, _ = _layer(g, layer, x, lengths)
        x = _normed(g, norm, x, lengths)
    if model.lookahead is not None:
        pads = g.constant([0, 0, 0, 0, model.lookahead.lookahead, 0])
        x = _filtered(g, model.lookahead, g.op("Pad", _masked(g, x, lengths), pads))
    return _head(g, model, x), g.op("Mul", lengths, g.constant([model.upsampling]))


def step(
    g: Graph, model: BiLstmCtc, features: str, num_valid: str, state: State
) -> tuple[str, State]:
    """Run the next features of streams; see `BiLstmCtc.step`.

    Args:
        g: the graph.
        model: of one direction, in evaluation mode.
        features: `(B, N + live_extra, F)`.
        num_valid: `(B,)` int64.
        state: of the step before.

    Returns:
        log_probs `(B, N / subsampling * upsampling, V)`, and the state.
    """
    factor = model.subsampling_factor
    kept = -(-model.subsampling.seen_behind // factor) * factor
    num_new = g.op("Sub", g.size(features, 1), g.constant([model.live_extra]))
    window = g.op("Concat", state.tail, features, axis=1)
    all_valid = g.op("Add", num_valid, g.constant([kept]))
    missing = g.op("Sub", g.constant([kept]), state.num_frames)
    x, lengths = _subsampled(g, model, window, all_valid, missing)
    begin = g.constant([kept // factor])
    steps = g.op("Div", num_new, g.constant([factor]))
    x = g.slice(x, begin, g.op("Add", begin, steps), 1)
    lengths = g.op("Max", g.op("Sub", lengths, begin), g.constant([0]))
    lengths = g.op("Min", lengths, steps)
    x = _normed(g, model.input_norm, x, lengths)
    hs, cs = [], []
    layers: list[Any] = list(model.layers)
    norms: list[Any] = list(model.norms)
    for number, (layer, norm) in enumerate(zip(layers, norms, strict=True)):
        first, behind = g.constant([number]), g.constant([number + 1])
        h, c = (g.slice(each, first, behind, 0) for each in (state.h, state.c))
        x, h, c = _layer(g, layer, x, lengths, h, c)
        x = _normed(g, norm, x, lengths)
        hs.append(h)
        cs.append(c)
    ahead = ""
    if model.lookahead is not None:
        joined = g.op("Concat", state.ahead, _masked(g, x, lengths), axis=1)
        x = _filtered(g, model.lookahead, joined)
        ahead = g.slice(joined, steps, g.constant([np.iinfo(np.int64).max]), 1)
    come = g.op("Min", g.op("Add", state.num_frames, num_new), g.constant([kept]))
    tail = g.slice(window, num_new, g.op("Add", num_new, g.constant([kept])), 1)
    h, c = (g.op("Concat", *each, axis=0) for each in (hs, cs))
    return _head(g, model, x), State(come, tail, h, c, ahead)


def state_width(layer: LSTM) -> int:
    """Tell how wide h of a layer's state is in the graph."""
    return layer.hidden_size if _is_native(layer) else layer.recurrent_size


def _masked(g: Graph, x: str, lengths: str) -> str:
    """Set what lies beyond each length to zero, of `(B, T, F)` numbers.

    By a product, which takes a third of the time of a choice: NaN is kept out before.
    """
    inside = g.op("Cast", g.inside(lengths, g.size(x, 1)), to=TensorProto.FLOAT)
    return g.op("Mul", x, g.unsqueeze(inside, 2))


def _subsampled(
    g: Graph, model: BiLstmCtc, features: str, lengths: str, missing: str = ""
) -> tuple[str, str]:
    """See `ConvSubsampling.forward`."""

    def inside(size: str) -> str:
        valid = g.inside(lengths, size)
        return g.op("And", valid, g.op("Not", g.inside(missing, size))) if missing else valid

    of = model.subsampling
    x = g.op("Where", g.unsqueeze(inside(g.size(features, 1)), 2), features, g.number(0.0))
    x = g.unsqueeze(x, 1)  # (B, 1, T, F)
    convolutions: list[Any] = list(of.convolutions)
    for convolution, stride in zip(convolutions, of.strides, strict=True):
        weight, bias = (
            g.constant(each.detach().cpu().numpy())
            for each in (convolution.weight.contiguous(), convolution.bias)
        )
        x = g.op("Conv", x, weight, bias, strides=[stride, 2], pads=[1, 1, 1, 1])
        x = g.op("Relu", x)
        lengths = g.op("Div", g.op("Add", lengths, g.constant([stride - 1])), g.constant([stride]))
        missing = g.op("Div", missing, g.constant([stride])) if missing else ""
        mask = g.op("Cast", inside(g.size(x, 2)), to=TensorProto.FLOAT)
        x = g.op("Mul", x, g.unsqueeze(mask, 1, 3))
    x = g.op("Transpose", x, perm=[0, 2, 1, 3])
    return g.op("Reshape", x, g.constant([0, 0, of.output_size])), lengths


def _normed(g: Graph, norm: MaskedNorm, x: str, lengths: str) -> str:
    """See `MaskedNorm.forward`."""
    if norm.kind == "none":
        return x
    of: Any = norm.norm
    if norm.kind == "layer":
        gain, bias = (g.constant(each.detach().cpu().numpy()) for each in (of.weight, of.bias))
        return _masked(
            g, g.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=of.eps), lengths
        )
    factor = (of.weight / torch.sqrt(of.running_var + of.eps)).detach().cpu()
    shift = of.bias.detach().cpu() - of.running_mean.cpu() * factor
    x = g.op("Mul", x, g.constant(factor.numpy()))
    return _masked(g, g.op("Add", x, g.constant(shift.numpy())), lengths)


def _filtered(g: Graph, lookahead: LookaheadConv, x: str) -> str:
    """See `LookaheadConv.filtered`."""
    of = lookahead.filter
    x = g.op("Transpose", x, perm=[0, 2, 1])  # channels first for the convolution
    x = g.op("Conv", x, g.constant(of.weight.detach().cpu().numpy()), group=of.groups)
    return g.op("Transpose", x, perm=[0, 2, 1])


def _head(g: Graph, model: BiLstmCtc, x: str) -> str:
    x = _linear(g, x, model.head.weight, model.head.bias)
    x = g.op("Reshape", x, g.constant([0, -1, model.vocab_size]))
    return g.op("LogSoftmax", x, axis=-1)


def _linear(g: Graph, x: str, weight: Tensor, bias: Tensor | None) -> str:
    x = g.op("MatMul", x, g.op("Transpose", g.weight(weight), perm=[1, 0]))
    return x if bias is None else g.op("Add", x, g.constant(bias.detach().cpu().numpy()))


# --- a layer -------------------------------------------------------------------------------------


def _is_native(layer: LSTM) -> bool:
    """Tell whether the operator LSTM can run a layer: all but cells that it does not know.

    A projection is none to it: U h = U P (o * tanh(c)), so U P takes the place of U.
    """
    return layer.cell in ("lstm", "peephole", "projection") and not layer.zoneout


def _layer(
    g: Graph, layer: LSTM, x: str, lengths: str, h: str = "", c: str = ""
) -> tuple[str, str, str]:
    """Run a layer on `(B, T, in)`, from h `(D, B, R)` and c `(D, B, H)`, zeros where not given.

    Returns:
        Its output `(B, T, D * R)`, zero in the padding, and the last h and c.
    """
    suffixes = ["l0", "l0_reverse"][: layer.num_directions]
    weights = [layer.weights(suffix) for suffix in suffixes]
    x = g.op("Transpose", x, perm=[1, 0, 2])  # time first for LSTM and Scan
    run = _native if _is_native(layer) else _scanned
    return run(g, layer, weights, x, lengths, h, c)


def _native(
    g: Graph, layer: LSTM, weights: list[Weights], x: str, lengths: str, h: str, c: str
) -> tuple[str, str, str]:
    """The operator LSTM, whose gates stand in the order i, o, f, c; coupled ones get i = 1 - f."""
    units = layer.hidden_size

    def rows(value: Tensor) -> Tensor:
        *i, f, candidate, o = value.detach().chunk(3 if weights[0].is_coupled else 4)
        return torch.cat([*i, o, f, candidate])

    def with_i(name: str) -> str:
        """Of coupled gates: 1 - sigmoid(z) is sigmoid(-z)."""
        if not weights[0].is_coupled:
            return name
        f = g.slice(name, g.constant([units]), g.constant([2 * units]), 0)
        return g.op("Concat", g.op("Neg", f), name, axis=0)

    def joined(names: list[str]) -> str:
        return g.op("Concat", *(g.unsqueeze(name, 0) for name in names), axis=0)

    matrices = joined([with_i(g.weight(rows(w.weight_ih))) for w in weights])
    recurrent = []
    for w in weights:
        name = with_i(g.weight(rows(w.weight_hh)))
        recurrent.append(
            name if w.weight_hr is None else g.op("MatMul", name, g.weight(w.weight_hr))
        )
    biases = []
    for w in weights:
        own = [
            with_i(g.constant(rows(each).cpu().numpy()))
            for each in (w.bias_ih, w.bias_hh)
            if each is not None  # they always are: a model's layers have biases
        ]
        biases.append(g.op("Concat", *own, axis=0))
    peepholes = _peepholes(g, weights) if layer.cell == "peephole" else ""
    inputs = [x, matrices, joined(recurrent), joined(biases)]
    inputs += [g.op("Cast", lengths, to=TensorProto.INT32), h, c, peepholes]
    while not inputs[-1]:
        inputs.pop()
    # Not DynamicQuantizeLSTM for int8, twice as fast or more: it has one scale for what all
    # recordings of a batch say, so that what is heard would depend on the others.
    y, h, c = g.ops(
        "LSTM", *inputs, count=3, hidden_size=units,
        direction="forward" if len(weights) == 1 else "bidirectional",
    )  # fmt: skip
    y = g.op("Transpose", y, perm=[2, 0, 1, 3])  # (T, D, B, H) to (B, T, D, H)
    if weights[0].weight_hr is None:
        return g.op("Reshape", y, g.constant([0, 0, len(weights) * units])), h, c
    projections = [w.weight_hr for w in weights if w.weight_hr is not None]
    turned = [g.op("Transpose", g.weight(each), perm=[1, 0]) for each in projections]
    y = g.op("Transpose", y, perm=[2, 0, 1, 3])  # (D, B, T, H)
    y = g.op("MatMul", y, g.unsqueeze(joined(turned), 1))
    y = g.op("Transpose", y, perm=[1, 2, 0, 3])
    return g.op("Reshape", y, g.constant([0, 0, layer.output_size])), h, c


def _peepholes(g: Graph, weights: list[Weights]) -> str:
    """The diagonals of a peephole cell in the operator's order, i, o, f."""
    diagonals = []
    for w in weights:
        assert w.weight_ch is not None
        *i, f, o = w.weight_ch.detach().cpu()
        diagonals.append(torch.cat([i[0] if i else -f, o, f]).numpy())
    return g.constant(np.stack(diagonals))


def _scanned(
    g: Graph, layer: LSTM, weights: list[Weights], x: str, lengths: str, h: str, c: str
) -> tuple[str, str, str]:
    """A Scan over the cell's step, each direction by itself.

    Beyond an utterance's end the state stays as it is: so the backward direction, which comes from
    there, begins at each utterance's own end.
    """
    inside = g.inside(lengths, g.size(x, 0))  # (B, T)
    inside = g.unsqueeze(g.op("Transpose", inside, perm=[1, 0]), 2)
    if not h:
        batch = g.size(x, 1)
        h, c = (
            g.op(
                "ConstantOfShape",
                g.op("Concat", g.constant([len(weights)]), batch, g.constant([width]), axis=0),
                value=helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
            )
            for width in (layer.recurrent_size, layer.hidden_size)
        )
    found = []
    for number, w in enumerate(weights):
        begin = [g.op("Gather", each, g.constant(number), axis=0) for each in (h, c)]
        sums = _input_sums(g, w, x)
        found.append(
            g.scan(
                _step(g, layer, w), begin, [sums, inside],
                scan_input_directions=[number, number], scan_output_directions=[number],
            )
        )  # fmt: skip
    hs, cs, outputs = (list(each) for each in zip(*found, strict=True))
    y = g.op("Concat", *outputs, axis=2) if len(outputs) > 1 else outputs[0]
    h, c = (g.op("Concat", *(g.unsqueeze(each, 0) for each in part), axis=0) for part in (hs, cs))
    return g.op("Transpose", y, perm=[1, 0, 2]), h, c


def _input_sums(g: Graph, w: Weights, x: str) -> str:
    """See `lstm_cell.input_sums`, of one direction."""
    sums = _linear(g, x, w.weight_ih, None)
    if w.norm_ih is not None:
        sums = _layer_norm(g, sums, w.norm_ih, None)
    if w.bias_ih is None or w.bias_hh is None:
        return sums
    return g.op("Add", sums, g.constant((w.bias_ih + w.bias_hh).detach().cpu().numpy()))


def _layer_norm(g: Graph, x: str, gain: Tensor, bias: Tensor | None) -> str:
    parts = [g.constant(each.detach().cpu().numpy()) for each in (gain, bias) if each is not None]
    return g.op("LayerNormalization", x, *parts, axis=-1, epsilon=NORM_EPSILON)


def _step(g: Graph, layer: LSTM, w: Weights) -> Graph:
    """The body of the Scan: h, c, the input's sums and what is inside to h, c and the output."""
    matrix = g.op("Transpose", g.weight(w.weight_hh), perm=[1, 0])  # outside of the loop
    projection = (
        "" if w.weight_hr is None else g.op("Transpose", g.weight(w.weight_hr), perm=[1, 0])
    )
    b = Graph(g.precision, g)
    h, c, sums, inside = (b.name(stem) for stem in ("h", "c", "sums", "inside"))
    recurrent = b.op("MatMul", c if CELLS[layer.cell].reads_c else h, matrix)
    if w.norm_hh is not None:
        recurrent = _layer_norm(b, recurrent, w.norm_hh, None)
    total = b.op("Add", sums, recurrent)
    count = 3 if w.is_coupled else 4
    parts = b.ops("Split", total, b.constant([layer.hidden_size] * count), count=count, axis=1)
    *i, f, candidate, o = parts

    def peeped(gate: str, state: str, row: int) -> str:
        if w.weight_ch is None:
            return gate
        weight = b.constant(w.weight_ch.detach()[row].cpu().numpy())
        return b.op("Add", gate, b.op("Mul", weight, state))

    f = b.op("Sigmoid", peeped(f, c, len(i)))
    opened = b.op("Sigmoid", peeped(i[0], c, 0)) if i else b.op("Sub", b.number(1.0), f)
    new_c = b.op("Add", b.op("Mul", f, c), b.op("Mul", opened, b.op("Tanh", candidate)))
    o = b.op("Sigmoid", peeped(o, new_c, -1))
    shown = new_c
    if w.norm_c is not None:
        shown = _layer_norm(b, new_c, w.norm_c, w.bias_c)
    new_h = b.op("Mul", o, b.op("Tanh", shown))
    if projection:
        new_h = b.op("MatMul", new_h, projection)
    if layer.zoneout:  # the mean of what training draws
        share = b.number(layer.zoneout)
        new_h, new_c = (
            b.op("Add", new, b.op("Mul", share, b.op("Sub", old, new)))
            for new, old in ((new_h, h), (new_c, c))
        )
    output = b.op("Where", inside, new_h, b.number(0.0))
    last_h, last_c = (b.op("Where", inside, new, old) for new, old in ((new_h, h), (new_c, c)))
    kinds = {inside: TensorProto.BOOL}
    b.finish(
        "step",
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None)
            for name in (h, c, sums, inside)
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in (last_h, last_c, output)
        ],
    )
    return b
