"""Exported models of strangers: what is wrong with a file is told in a line, and nothing runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from asr.exporter import exported
from asr.loading import load_speech_model
from asr.model_spec import ModelSpec, Part
from asr.onnx_model import DESCRIPTION, OnnxModel, load_onnx_model, read_description, sealed
from asr.recognizer import Recognizer
from tests.forgeries import forgeries

SEAL = len(sealed(b""))


@pytest.fixture(scope="module")
def content() -> bytes:
    torch.manual_seed(0)
    spec = ModelSpec(
        Part("LogMel", {"sample_rate": 8000, "n_mels": 8}),
        Part("BiLstmCtc", {"hidden_size": 4, "num_layers": 1, "channels": 2}), "ab ", {},
    )  # fmt: skip
    return exported(Recognizer(spec), {"step": 3, "dev_wer": 0.5})


def resealed(content: bytes, change: Callable[[onnx.ModelProto], object]) -> bytes:
    """The file with a change, and a sha256 that fits it: anybody can make one."""
    model = onnx.load_from_string(content[:-SEAL])
    change(model)
    return sealed(model.SerializeToString())


def test_a_file_says_all_that_a_model_file_does(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    model, training = load_onnx_model(path)
    assert training == {"step": 3, "dev_wer": 0.5}
    assert model.tokenizer.alphabet == "ab "
    assert (model.sample_rate, model.unit, model.is_live) == (8000, "word", False)
    assert model.num_parameters > 100
    assert model.text("A  b!") == "a b"
    with pytest.raises(ValueError, match="a model that is not live, expected one of one direction"):
        model.begin()
    with pytest.raises(ValueError, match=r"device 'cuda' for .*, expected cpu"):
        load_speech_model(path, "cuda")


def test_no_damaged_file_is_used(content: bytes) -> None:
    for size in (0, 1, SEAL, len(content) // 2, len(content) - 1):
        with pytest.raises(ValueError, match="not a model of asr export, or damaged"):
            OnnxModel(content[:size])
    draws = np.random.default_rng(0)
    for place in draws.integers(len(content), size=200):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(draws.integers(8))
        with pytest.raises(ValueError, match="damaged"):
            OnnxModel(bytes(damaged))


def test_onnx_of_others_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "b.onnx"
    path.write_bytes(content[:-SEAL])
    with pytest.raises(ValueError, match=r"b\.onnx: not a model of asr export"):
        load_onnx_model(path)
    with pytest.raises(IsADirectoryError):
        load_onnx_model(tmp_path)


def _external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def _external_in_body(model: onnx.ModelProto) -> None:
    body = next(
        each.g for node in model.graph.node for each in node.attribute if each.name == "body"
    )
    body.initializer.add(name="x").external_data.add(key="location", value="../secret")


def _external_in_attribute(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "ConstantOfShape")
    node.attribute[0].t.external_data.add(key="location", value="secret")


def _another_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Loop"


def _another_domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.microsoft"


def _function(model: onnx.ModelProto) -> None:
    model.functions.add(name="f", domain="d")


def _sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


def _nodes(model: onnx.ModelProto) -> None:
    for _ in range(20_000):
        model.graph.node.add(op_type="Add")


def _metadata(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="more", value="")


def _wires(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nothing"


def _output(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_external, "weights in another file, expected all of them in this one"),
        (_external_in_body, "weights in another file"),
        (_external_in_attribute, "weights in another file"),
        (_another_operator, "operator 'Loop', expected those of asr export"),
        (_another_domain, "operators of b'com.microsoft', expected those of ONNX"),
        (_function, "a graph with functions of its own"),
        (_sparse, "sparse weights"),
        (_nodes, "more than 20000 operators"),
        (_metadata, "metadata .'asr', 'more', 'sha256'., expected asr and sha256"),
        (_wires, "no graph that onnxruntime runs"),
        (_output, "a graph of 4 labels"),
    ],
)
def test_what_is_no_graph_of_ours(
    content: bytes, change: Callable[[onnx.ModelProto], object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        OnnxModel(resealed(content, change))


def test_a_graph_that_does_not_run_is_told(content: bytes) -> None:
    def change(model: onnx.ModelProto) -> None:
        (reshape, *_) = [node for node in model.graph.node if node.op_type == "Reshape"]
        name = "wrong"
        tensor = onnx.numpy_helper.from_array(np.array([7, 11, 13], np.int64), name)
        model.graph.initializer.append(tensor)
        reshape.input[1] = name

    model = OnnxModel(resealed(content, change))
    with pytest.raises(ValueError, match="the model's graph does not run"):
        model.log_probs([np.zeros(900, np.float32)])


def test_forged_descriptions_are_checked(content: bytes) -> None:
    proto, model, refused = onnx.load_from_string(content[:-SEAL]), OnnxModel(content), 0
    text = next(each.value for each in proto.metadata_props if each.key == DESCRIPTION)
    proto.graph.Clear()
    for _, changed in forgeries(json.loads(text), (None, -1, "x", [], {})):
        proto.metadata_props[0].value = json.dumps(changed)
        with suppress(ValueError):
            model.describe(read_description(sealed(proto.SerializeToString())).spec)
            continue
        refused += 1
    assert refused > 150


def test_without_onnxruntime(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"onnxruntime is not installed.*'lstm-asr\[onnx\]'"):
        OnnxModel(content)
