"""Model files: what comes back is what was saved, and everything else is refused in one line."""

from __future__ import annotations

import base64
import json
import lzma
import math
import os
import pickle
import random
import resource
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from asr.model_file import (
    FORMAT_VERSION,
    MAX_FILE_BYTES,
    PACKED_VERSION,
    QUANTIZED_VERSION,
    _in_one_order,
    load_model,
    origin_of,
    save_model,
)
from asr.quantization import Storage
from asr.recognizer import ModelSpec, Part, Recognizer

RATE = 8000  # [Hz]
TRAINING = {"step": 12, "dev_wer": 0.25, "data_fingerprint": "abc"}


def recognizer_of(features: dict[str, Any] | None = None, **model: Any) -> Recognizer:
    torch.manual_seed(50)
    recognizer = Recognizer(
        ModelSpec(
            features=Part("LogMel", {"sample_rate": RATE, "n_mels": 10} | (features or {})),
            model=Part("BiLstmCtc", {"hidden_size": 6, "num_layers": 2, "channels": 2} | model),
            alphabet=" ab'é",
            text={"lowercase": False},
        )
    )
    for parameter in recognizer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return recognizer.eval()


def waveforms() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(51)
    return torch.randn(2, 3000, generator=generator), torch.tensor([3000, 1700])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model file."""
    path = tmp_path / "model.safetensors"
    save_model(path, recognizer_of(), TRAINING)
    return path


@pytest.mark.parametrize(
    ("features", "model"),
    [
        ({}, {}),
        ({"mel_scale": "kaldi", "window": "povey", "center": False}, {"subsampling": 2}),
        ({"mel_scale": "htk", "n_fft": 512}, {"norm": "batch", "upsampling": 2}),
        ({"normalizer": "stored"}, {"bidirectional": False, "lookahead": 2, "norm": "none"}),
    ],
    ids=str,
)
def test_round_trip_is_exact(
    tmp_path: Path, features: dict[str, Any], model: dict[str, Any]
) -> None:
    recognizer = recognizer_of(features, **model)
    if features.get("normalizer") == "stored":
        batch = recognizer.features.log_mel(*waveforms())
        recognizer.features.normalizer.measure([batch])  # type: ignore[operator]
    if model.get("norm") == "batch":
        recognizer.train()(*waveforms())  # moves the running statistics
        recognizer.eval()
    save_model(tmp_path / "m.safetensors", recognizer, TRAINING)
    loaded, training = load_model(tmp_path / "m.safetensors")
    assert training == TRAINING
    assert not loaded.training
    assert not any(tensor.is_meta for tensor in [*loaded.parameters(), *loaded.buffers()])
    with torch.inference_mode():
        log_probs, lengths = loaded(*waveforms())
        expected, expected_lengths = recognizer(*waveforms())
    assert torch.equal(log_probs, expected)
    assert torch.equal(lengths, expected_lengths)
    assert log_probs.std() > 0.1


def test_everything_but_the_weights_comes_back_too(path: Path) -> None:
    loaded, _ = load_model(path)
    saved = recognizer_of()
    assert loaded.tokenizer == saved.tokenizer
    assert loaded.text == saved.text
    assert loaded.text("A  b") == "A b"
    assert loaded.frame_shift_s == saved.frame_shift_s == 0.04
    samples = torch.arange(0, 5000, 37)
    assert torch.equal(loaded.output_length(samples), saved.output_length(samples))


def test_a_loaded_model_can_be_trained_and_saved_again(path: Path, tmp_path: Path) -> None:
    loaded, training = load_model(path)
    log_probs, _ = loaded.train()(*waveforms())
    log_probs[..., 1].sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.model.parameters())
    save_model(tmp_path / "again.safetensors", loaded, training)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_the_description_says_every_default(path: Path) -> None:
    header = read_header(path)
    assert header["format_version"] == FORMAT_VERSION == 1
    assert header["training"] == TRAINING
    spec = header["spec"]
    assert spec["alphabet"] == " ab'é"
    assert spec["text"]["unicode_form"] == "NFC"
    assert spec["text"]["lowercase"] is False
    assert spec["model"]["arguments"]["dropout"] == 0.1
    assert spec["model"]["arguments"]["hidden_size"] == 6
    assert not spec["model"]["arguments"].keys() & {"n_mels", "vocab_size"}  # they follow
    assert spec["features"]["arguments"]["frame_shift_ms"] == 10.0


def test_weights_stay_as_they_were_when_the_file_is_replaced(path: Path) -> None:
    loaded, _ = load_model(path)
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    other = recognizer_of()
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    save_model(path, other, TRAINING)
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_quantised_weights_are_float32_in_memory(
    path: Path, tmp_path: Path, storage: Storage
) -> None:
    """Whatever the file has, and what it costs is small beside the model's own differences."""
    small = tmp_path / "small.safetensors"
    save_model(small, recognizer_of(), TRAINING, storage)
    assert read_header(small)["format_version"] == QUANTIZED_VERSION == 2
    assert read_header(small)["storage"] == storage
    assert "storage" not in read_header(path)
    (whole, _), (loaded, training) = load_model(path), load_model(small)
    assert training == TRAINING
    assert loaded.spec == whole.spec
    assert {each.dtype for each in loaded.parameters()} == {torch.float32}
    with torch.inference_mode():
        expected, found = (each(*waveforms())[0] for each in (whole, loaded))
    assert 0 < (found - expected).abs().max() < 0.1 < expected.std()
    save_model(tmp_path / "again.safetensors", loaded, TRAINING, storage)
    again, _ = load_model(tmp_path / "again.safetensors")
    for name, weight in again.state_dict().items():
        torch.testing.assert_close(weight, loaded.state_dict()[name], rtol=1e-6, atol=0)


MATRIX = "model.layers.0.weight_hh_l0"
Tensors = dict[str, Tensor]
HOSTILE: dict[str, tuple[Storage, Callable[[Tensors], object], str]] = {
    "no scales": (
        "int8", lambda w: w.pop(f"{MATRIX}.scale"),
        f"weight {MATRIX}.scale has shape None, expected [24]",
    ),
    "scales of another shape": (
        "int8", lambda w: w.update({f"{MATRIX}.scale": torch.ones(24, 1)}),
        f"weight {MATRIX}.scale has shape [24, 1], expected [24]",
    ),
    "scales of another type": (
        "int8", lambda w: w.update({f"{MATRIX}.scale": torch.ones(24).half()}),
        f"weight {MATRIX}.scale is torch.float16, expected torch.float32",
    ),
    "scales of a weight that has none": (
        "int8", lambda w: w.update({"model.head.bias.scale": torch.ones(6)}),
        "weight model.head.bias.scale has shape [6], expected None",
    ),
    "scale NaN": (
        "int8", lambda w: w[f"{MATRIX}.scale"].fill_(math.nan), f"weight {MATRIX} is not finite",
    ),
    "scale infinite": (
        "int8", lambda w: w[f"{MATRIX}.scale"].fill_(math.inf), f"weight {MATRIX} is not finite",
    ),
    "scale beyond float32": (
        "int8", lambda w: w[f"{MATRIX}.scale"].fill_(3e38), f"weight {MATRIX} is not finite",
    ),
    "whole numbers of 16 bits": (
        "int8", lambda w: w.update({MATRIX: w[MATRIX].short()}),
        f"weight {MATRIX} is torch.int16, expected torch.int8",
    ),
    "float32 in int8": (
        "int8", lambda w: w.update({MATRIX: w[MATRIX].float()}),
        f"weight {MATRIX} is torch.float32, expected torch.int8",
    ),
    "float32 in float16": (
        "float16", lambda w: w.update({MATRIX: w[MATRIX].float()}),
        f"weight {MATRIX} is torch.float32, expected torch.float16",
    ),
    "a bias in float16": (
        "float16", lambda w: w.update({"model.head.bias": w["model.head.bias"].half()}),
        "weight model.head.bias is torch.float16, expected torch.float32",
    ),
    "half precision NaN": (
        "float16", lambda w: w[MATRIX].fill_(math.nan), f"weight {MATRIX} is not finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_quantised_weights_that_do_not_fit(tmp_path: Path, case: str) -> None:
    storage, change, message = HOSTILE[case]
    path = tmp_path / "small.safetensors"
    save_model(path, recognizer_of(), TRAINING, storage)
    forge(path, weights=change)
    assert message in refusal(path)


def test_descriptions_of_quantised_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    for change, message in (
        (lambda h: h.update(storage="float64"), "storage is 'float64', expected one of float16"),
        (lambda h: h.update(storage="float32"), "storage is 'float32', expected one of float16"),
        (lambda h: h.update(storage=["int8"]), "storage is ['int8'], expected one of float16"),
        (lambda h: h.update(storage="float16"), "is torch.int8, expected torch.float16"),
        (lambda h: h.pop("storage"), "description has"),
        (lambda h: h.update(format_version=1), "description has"),
    ):
        save_model(path, recognizer_of(), TRAINING, "int8")
        forge(path, change)
        assert message in refusal(path)


def test_a_file_that_grows_beyond_the_largest_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.safetensors"
    save_model(path, recognizer_of(), TRAINING, "int8")
    size = path.stat().st_size
    monkeypatch.setattr("asr.model_file.MAX_FILE_BYTES", 4 * size - 1)
    assert f"{size} bytes of int8, expected at most {size - 1}" in refusal(path)


def test_what_half_precision_does_not_hold_is_not_saved(tmp_path: Path) -> None:
    recognizer = recognizer_of()
    with torch.no_grad():
        recognizer.model.head.weight[0, 0] = 70_000.0
    path = tmp_path / "small.safetensors"
    with pytest.raises(ValueError, match=r"weight model\.head\.weight is not finite in float16"):
        save_model(path, recognizer, TRAINING, "float16")
    assert not path.exists()
    save_model(path, recognizer, TRAINING, "int8")


def spoken() -> Recognizer:
    """A model of two phones, with a lexicon of two words."""
    spec = recognizer_of().spec
    phones = {"a": "A", "b": "B"}
    lexicon = "AB\tA B\nBA\tB A"
    return Recognizer(replace(spec, alphabet=" ab", phones=phones, lexicon=lexicon)).eval()


def test_a_small_file_has_its_lexicon_packed(tmp_path: Path) -> None:
    path, whole = tmp_path / "small.safetensors", tmp_path / "whole.safetensors"
    save_model(path, spoken(), TRAINING, "int8")
    save_model(whole, spoken(), TRAINING)
    header = read_header(path)
    assert header["format_version"] == PACKED_VERSION == 3
    assert (
        lzma.decompress(base64.b64decode(header["spec"]["lexicon"])).decode()
        == (read_header(whole)["spec"]["lexicon"])
    )
    for file in (path, whole):
        lexicon = load_model(file)[0].lexicon
        assert lexicon is not None
        assert set(lexicon.pronunciations) == {"AB", "BA"}
    forge(path, lambda h: h.update(format_version=2) or h["spec"].update(lexicon="AB\tA B"))
    assert load_model(path)[0].lexicon is not None  # an older file, not packed


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        ("AB\tA B", "base64"),
        (base64.b64encode(lzma.compress(b"AB\tA B")[:-9]).decode(), "damaged xz"),
        (base64.b64encode(lzma.compress(bytes(1 << 23))).decode(), "lexicon: xz of"),
        (base64.b64encode(lzma.compress(random.Random(0).randbytes((1 << 23) + 1))).decode(),
         "a description of"),
        (base64.b64encode(lzma.compress(b"\xff")).decode(), "utf-8"),
        (base64.b64encode(lzma.compress(b"AB\tX")).decode(), "phone 'X'"),
    ],
    ids=["not base64", "cut", "bomb", "long", "no text", "other phones"],
)  # fmt: skip
def test_packed_lexicons_that_are_none(tmp_path: Path, packed: str, message: str) -> None:
    path = tmp_path / "small.safetensors"
    save_model(path, spoken(), TRAINING, "int8")
    forge(path, lambda h: h["spec"].update(lexicon=packed))
    assert message in refusal(path)


def read_header(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt") as file:
        header: dict[str, Any] = json.loads(file.metadata()["asr"])
    return header


def metadata_of(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata


def forge(
    path: Path,
    change: Callable[[dict[str, Any]], object] = lambda header: None,
    weights: Callable[[dict[str, Tensor]], object] = lambda tensors: None,
) -> None:
    """Rewrite a model file with another description or other weights, and no checksum."""
    header = read_header(path)
    tensors = safetensors.torch.load_file(path)
    change(header)
    weights(tensors)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    path.write_bytes(safetensors.torch.save(tensors, {"asr": json.dumps(header)}))


def refusal(path: Path) -> str:
    """The message of the ValueError, which has one line and names the file."""
    with pytest.raises(ValueError, match=r".") as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.count(str(path)) == 1
    assert "\n" not in message
    return message


@pytest.mark.parametrize("version", [0, 4, None, "1", [1]])
def test_another_format_version(path: Path, version: object) -> None:
    forge(path, lambda header: header.update(format_version=version))
    assert f"model format version {version!r}, expected 1 to 3" in refusal(path)


def test_weights_of_somebody_else(path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    assert "holds weights but no description" in refusal(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.99])
def test_a_file_cut_short(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "not a model file or damaged" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        b"This is a text, and a long enough one.\n" * 10,
        pickle.dumps({"state_dict": [1, 2, 3]}),
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 2) + b"{}" + bytes(100),
        bytes(100),
    ],
    ids=["text", "pickle", "giant header", "no tensors", "zeros"],
)
def test_files_of_another_kind(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "not a model file or damaged" in refusal(path)


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder, expected a model file"):
        load_model(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        load_model(tmp_path / "gone.safetensors")


def test_weights_of_another_shape(path: Path) -> None:
    forge(path, lambda header: header["spec"]["model"]["arguments"].update(hidden_size=7))
    assert "has shape" in refusal(path)


def test_a_weight_of_another_shape(path: Path) -> None:
    forge(path, weights=lambda tensors: tensors.update({"model.head.bias": torch.zeros(9)}))
    assert "weight model.head.bias has shape [9], expected [6]" in refusal(path)


def test_a_weight_missing_and_one_too_many(path: Path) -> None:
    forge(path, weights=lambda tensors: tensors.pop("model.head.bias"))
    assert "weight model.head.bias has shape None, expected [6]" in refusal(path)
    forge(
        path,
        weights=lambda tensors: tensors.update(
            {"model.head.bias": torch.zeros(6), "extra": torch.zeros(1)}
        ),
    )
    assert "weight extra has shape [1], expected None" in refusal(path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
def test_a_weight_of_another_type(path: Path, dtype: torch.dtype) -> None:
    forge(
        path, weights=lambda tensors: tensors.update({"model.head.bias": torch.zeros(6).to(dtype)})
    )
    assert f"weight model.head.bias is {dtype}, expected torch.float32" in refusal(path)


def spec_of(header: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = header["spec"]
    return spec


FORGED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown key": (lambda h: h.update(hooks=["x"]), "description has"),
    "no training": (lambda h: h.pop("training"), "description has"),
    "training a list": (lambda h: h.update(training=[1]), "training is [1], expected names"),
    "spec a list": (lambda h: h.update(spec=[1]), "spec is [1], expected names and values"),
    "key in spec": (lambda h: spec_of(h).update(code="x"), "spec has"),
    "no alphabet": (lambda h: spec_of(h).pop("alphabet"), "spec has"),
    "empty alphabet": (lambda h: spec_of(h).update(alphabet=""), "the alphabet is empty"),
    "alphabet a number": (
        lambda h: spec_of(h).update(alphabet=5),
        "spec.alphabet is 5, expected a text",
    ),
    "alphabet of words": (
        lambda h: spec_of(h).update(alphabet=["ab"]),
        "spec.alphabet is ['ab'], expected a text",
    ),
    "text a list": (
        lambda h: spec_of(h).update(text=["x"]),
        "spec.text is ['x'], expected names and values",
    ),
    "text rule": (
        lambda h: spec_of(h)["text"].update(run="x"),
        "unknown setting text.run: expected one of",
    ),
    "text value": (lambda h: spec_of(h)["text"].update(unicode_form="X"), "unicode_form is 'X'"),
    "class": (
        lambda h: spec_of(h)["model"].update(name="os.system"),
        "model 'os.system', expected one of BiLstmCtc",
    ),
    "class a list": (
        lambda h: spec_of(h)["model"].update(name=["x"]),
        "spec.model.name is ['x'], expected a text",
    ),
    "features class": (
        lambda h: spec_of(h)["features"].update(name="Mfcc"),
        "features 'Mfcc', expected one of LogMel",
    ),
    "_target_": (lambda h: spec_of(h)["model"].update(_target_="os.system"), "model has"),
    "argument": (
        lambda h: spec_of(h)["model"]["arguments"].update(hook="x"),
        "unknown setting model.hook: expected one of",
    ),
    "features argument": (
        lambda h: spec_of(h)["features"]["arguments"].update(path="/etc/passwd"),
        "unknown setting features.path: expected one of",
    ),
    "arguments a list": (
        lambda h: spec_of(h)["model"].update(arguments=[1]),
        "spec.model.arguments is [1], expected names and values",
    ),
    "part a text": (
        lambda h: spec_of(h).update(model="BiLstmCtc"),
        "spec.model is 'BiLstmCtc', expected names and values",
    ),
    "size a text": (
        lambda h: spec_of(h)["model"]["arguments"].update(hidden_size="9"),
        "model.hidden_size is '9', expected a whole number",
    ),
    "size a fraction": (
        lambda h: spec_of(h)["model"]["arguments"].update(hidden_size=2.5),
        "model.hidden_size is 2.5, expected a whole number",
    ),
    "size below 0": (
        lambda h: spec_of(h)["model"]["arguments"].update(hidden_size=-1),
        "hidden_size -1, expected 1 or more",
    ),
    "rate 0": (lambda h: spec_of(h)["features"]["arguments"].update(sample_rate=0), ""),
    "escape in an alphabet": (
        lambda h: spec_of(h).update(alphabet="ab\x1bcd"),
        "alphabet entry '\\x1b' (U+001B unnamed) is a control or format character",
    ),
    "escape in a rule": (
        lambda h: spec_of(h)["text"].update(keep="\x1b[31m"),
        "text.keep is '\\x1b[31m', expected at most 1000 printable characters",
    ),
    "giant text": (
        lambda h: spec_of(h)["model"]["arguments"].update(backend="x" * 10**5),
        "model.backend is 'xxx",
    ),
    "summary of lists": (
        lambda h: h["training"].update(step=[1]),
        "training['step'] is [1], expected a number, true, false, null or a text",
    ),
    "giant summary": (lambda h: h["training"].update(step="x" * 10**5), "training['step'] is 'xxx"),
    "giant description": (
        lambda h: h["training"].update({f"{k}": "x" * 60_000 for k in range(160)}),
        "a description of 96",
    ),
    "no backend": (
        lambda h: spec_of(h)["model"]["arguments"].update(backend="evil"),
        "backend 'evil', expected one of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FORGED)
def test_descriptions_that_are_none(path: Path, case: str) -> None:
    change, message = FORGED[case]
    forge(path, change)
    assert message in refusal(path)


def test_every_flipped_bit_of_the_weights_is_found(path: Path) -> None:
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    generator = random.Random(52)
    for _ in range(50):
        damaged = bytearray(content)
        damaged[generator.randrange(start, len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        assert "damaged, its description and weights are not those of its sha256" in refusal(path)


def test_a_description_of_another_file(path: Path) -> None:
    tensors, metadata = safetensors.torch.load_file(path), metadata_of(path)
    other = metadata | {"asr": metadata["asr"].replace('"step": 12', '"step": 13')}
    path.write_bytes(safetensors.torch.save(tensors, other))
    assert "damaged, its description and weights" in refusal(path)


def test_a_checksum_whose_name_is_damaged_is_not_none(path: Path) -> None:
    tensors, metadata = safetensors.torch.load_file(path), metadata_of(path)
    metadata["sha257"] = metadata.pop("sha256")
    path.write_bytes(safetensors.torch.save(tensors, metadata))
    assert "damaged, has 'sha257' beside its description" in refusal(path)


def test_a_file_from_before_checksums_loads(path: Path) -> None:
    assert metadata_of(path).keys() == {"asr", "sha256"}
    forge(path)
    assert metadata_of(path).keys() == {"asr"}
    assert load_model(path)[1] == TRAINING


def test_the_same_model_is_the_same_file_in_every_process(path: Path) -> None:
    tensors, metadata = safetensors.torch.load_file(path), metadata_of(path)
    backwards = dict(sorted(metadata.items(), reverse=True))
    written = {_in_one_order(safetensors.torch.save(tensors, backwards)) for _ in range(20)}
    assert written == {path.read_bytes()}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_neither_loaded_nor_saved(path: Path, value: float) -> None:
    before = path.read_bytes()
    recognizer = recognizer_of()
    with torch.no_grad():
        recognizer.model.head.bias[3] = value
    with pytest.raises(ValueError, match=r"weight model\.head\.bias is not finite"):
        save_model(path, recognizer, TRAINING)
    assert path.read_bytes() == before
    forge(path, weights=lambda tensors: tensors.update(recognizer.state_dict()))
    assert "weight model.head.bias is not finite, expected numbers" in refusal(path)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.safetensors")
    for path in (tmp_path / "fifo.safetensors", Path("/dev/zero")):
        for read in (load_model, origin_of):
            with pytest.raises(ValueError, match=f"^{path}: not a regular file, expected a model"):
                read(path)


def test_a_file_of_holes_is_not_read(path: Path) -> None:
    os.truncate(path, MAX_FILE_BYTES + 1)
    with pytest.raises(ValueError, match=f"{MAX_FILE_BYTES + 1} bytes, expected a model file of"):
        load_model(path)


@pytest.mark.parametrize("text", ["no JSON", "[1]", "null", "[" * 100_000, '"x"'])
def test_descriptions_that_are_no_mapping(path: Path, text: str) -> None:
    tensors = safetensors.torch.load_file(path)
    path.write_bytes(safetensors.torch.save(tensors, {"asr": text}))
    refusal(path)


GIANT = 10**9
MOST = 1 << 20  # the largest size that is not refused at sight


@pytest.mark.parametrize(
    ("part", "argument", "value"),
    [
        ("model", "hidden_size", GIANT),
        ("model", "num_layers", 65),
        ("model", "lookahead", GIANT),
        ("features", "n_mels", 513),
        ("features", "n_fft", MOST),
        ("features", "n_fft", 1 << 40),
        ("features", "sample_rate", GIANT),
        ("features", "frame_length_ms", 1e6),
        ("features", "frame_length_ms", float("inf")),
        ("features", "frame_length_ms", float("nan")),
    ],
)
def test_sizes_beyond_any_real_model(path: Path, part: str, argument: str, value: float) -> None:
    forge(path, lambda header: spec_of(header)[part]["arguments"].update({argument: value}))
    message = refusal(path)
    assert f"{part}: {argument} is {value!r}, expected at most" in message


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_size": MOST},
        {"channels": MOST},
        {"upsampling": MOST},
        {"channels": MOST, "hidden_size": MOST, "num_layers": 64},
    ],
    ids=str,
)
def test_sizes_that_the_weights_do_not_have_take_no_memory(
    path: Path, sizes: dict[str, int]
) -> None:
    forge(path, lambda header: spec_of(header)["model"]["arguments"].update(sizes))
    before = peak_memory()
    assert "has shape" in refusal(path)
    assert peak_memory() - before < 50e6


def peak_memory() -> float:
    """The most that this process has held so far [bytes]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_a_giant_tensor_without_its_bytes(path: Path) -> None:
    header = {"w": {"dtype": "F32", "shape": [1 << 20, 1 << 20], "data_offsets": [0, 1 << 42]}}
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + bytes(16))
    assert "not a model file or damaged" in refusal(path)


def test_what_could_not_be_loaded_is_not_built_either() -> None:
    with pytest.raises(ValueError, match="features: n_mels is 1000, expected at most 512"):
        recognizer_of({"n_mels": 1000})
    with pytest.raises(ValueError, match=r"unknown setting model\.hidden: did you mean hidden"):
        recognizer_of(hidden=3)


def test_settings_that_are_no_json_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_model(tmp_path / "m.safetensors", recognizer_of(), {"path": tmp_path})
    assert list(tmp_path.iterdir()) == []
