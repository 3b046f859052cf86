"""A recogniser as the bytes of an ONNX file, which say all that a model file does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from asr.exporter import features, network
from asr.exporter.graph import OPSET, Graph
from asr.features import PcenNormalizer
from asr.model_file import complete_spec
from asr.onnx_model import DESCRIPTION, FORMAT_VERSION, Description, sealed
from asr.quantization import Storage
from asr.recognizer import FIXED_BYTES, Recognizer

IR_VERSION = 10  # that onnxruntime 1.20 reads
MEMORY_S = 60  # [s] of audio, of which the memory that the network takes is estimated
FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


def exported(
    recognizer: Recognizer, training: Mapping[str, Any], precision: Storage = "float32"
) -> bytes:
    """Write a recogniser as an ONNX file.

    The graph of a live model is a step, see `SpeechModel.step`: `waveforms`, `num_frames` and what
    is remembered, `state_...`, to `log_probs` and `next_...`. Any other is `waveforms` `(B, N)` and
    `num_samples` `(B,)` to `log_probs` `(B, T, V)` and `log_prob_lengths` `(B,)`.

    Args:
        recognizer: of any cell and features.
        training: summary, as of a model file.
        precision: of the weights as they are stored; computed is in float32.

    Returns:
        The bytes of the file.
    """
    recognizer.eval()
    g = Graph(precision)
    graph = (_step if recognizer.is_live else _whole)(g, recognizer)
    model: ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
        producer_name="asr",
    )  # fmt: skip
    num_samples = MEMORY_S * recognizer.sample_rate
    needed = recognizer.memory_needed(num_samples) - FIXED_BYTES
    description = Description(
        format_version=FORMAT_VERSION,
        spec=complete_spec(recognizer.spec),
        training=dict(training),
        precision=precision,
        num_parameters=recognizer.num_parameters,
        bytes_per_s=needed // MEMORY_S,
        is_live=recognizer.is_live,
        timing=recognizer.timing,
    )
    text = json.dumps(asdict(description), sort_keys=True)
    helper.set_model_props(model, {DESCRIPTION: text})
    return sealed(model.SerializeToString(deterministic=True))


def _whole(g: Graph, recognizer: Recognizer) -> Any:
    waveforms, num_samples = "waveforms", "num_samples"
    x, lengths = features.features_of_whole(g, recognizer.features, waveforms, num_samples)
    log_probs, lengths = network.log_probs(g, recognizer.model, x, lengths)
    outputs = [
        _named(g, log_probs, "log_probs", FLOAT, ["B", "T", recognizer.model.vocab_size]),
        _named(g, lengths, "log_prob_lengths", INT64, ["B"]),
    ]
    inputs = [_value(waveforms, FLOAT, ["B", "N"]), _value(num_samples, INT64, ["B"])]
    return g.finish("recognizer", inputs, outputs)


def _step(g: Graph, recognizer: Recognizer) -> Any:
    of, model = recognizer.features, recognizer.model
    like = model.begin(1)
    layers: list[Any] = list(model.layers)
    kinds: dict[str, tuple[int, list[Any]]] = {
        "num_frames": (INT64, ["B"]),
        "tail": (FLOAT, ["B", like.tail.shape[1], of.n_mels]),
        "h": (FLOAT, [len(layers), "B", network.state_width(layers[0])]),
        "c": (FLOAT, [len(layers), "B", layers[0].hidden_size]),
    }
    if model.lookahead is not None:
        kinds["ahead"] = (FLOAT, ["B", *like.ahead.shape[1:]])
    if isinstance(of.normalizer, PcenNormalizer):
        kinds["smooth"] = (DOUBLE, ["B", 1, of.n_mels])
    waveforms, num_valid = "waveforms", "num_frames"
    names = {name: f"state_{name}" for name in kinds}
    is_first = g.op("Less", names["num_frames"], g.constant([1]))
    x, smooth = features.features_of_step(
        g, of, waveforms, model.live_extra, is_first, names.get("smooth", "")
    )
    state = network.State(
        names["num_frames"], names["tail"], names["h"], names["c"], names.get("ahead", "")
    )
    log_probs, state = network.step(g, model, x, num_valid, state)
    new = {**vars(state), "smooth": smooth}
    outputs = [
        _named(g, log_probs, "log_probs", FLOAT, ["B", "T", model.vocab_size]),
        *(_named(g, new[name], f"next_{name}", *kind) for name, kind in kinds.items()),
    ]
    inputs = [
        _value(waveforms, FLOAT, ["B", "N"]), _value(num_valid, INT64, ["B"]),
        *(_value(names[name], *kind) for name, kind in kinds.items()),
    ]  # fmt: skip
    return g.finish("step", inputs, outputs)


def _value(name: str, kind: int, shape: list[Any]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _named(g: Graph, value: str, name: str, kind: int, shape: list[Any]) -> ValueInfoProto:
    """Give a value the name of an output."""
    g.rename(value, name)
    return _value(name, kind, shape)
