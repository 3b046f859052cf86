"""Exported graphs against the models that they were made of: every cell, feature and step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from asr.exporter import TOLERANCES, compare, exported, made_sound
from asr.exporter.check import MADE_S
from asr.exporter.features import transform_of
from asr.model.lstm_cell import CELLS
from asr.model_spec import ModelSpec, Part
from asr.onnx_model import OnnxModel
from asr.quantization import dequantized, quantized
from asr.recognizer import Recognizer
from asr.speech_model import Waveform
from asr.transcriber import Transcriber

RATE = 8000  # [Hz]
LIVE = {"remove_mean": False, "remove_dc_offset": True, "normalizer": "pcen"}
PROJECTED = {"cell": "projection", "proj_size": 5}


def recognizer_of(features: dict[str, Any], **model: Any) -> Recognizer:
    """A model that was never trained, whose weights and statistics are of order one."""
    torch.manual_seed(4)
    recognizer = Recognizer(
        ModelSpec(
            features=Part("LogMel", {"sample_rate": RATE, "n_mels": 12} | features),
            model=Part("BiLstmCtc", {"hidden_size": 8, "num_layers": 2, "channels": 4} | model),
            alphabet=" ab'", text={},
        )
    )  # fmt: skip
    for parameter in recognizer.parameters():
        nn.init.normal_(parameter, std=0.7)
    for name, buffer in recognizer.named_buffers():
        if name.endswith(("mean", "running_mean", "std", "running_var")):
            nn.init.uniform_(buffer, 0.5, 2.0)
        if name.endswith("is_measured"):
            buffer.fill_(True)
    return recognizer.eval()


def waveforms() -> list[Waveform]:
    """Noise of many lengths that grows and falls, one of them empty."""
    draws = np.random.default_rng(1)
    found = []
    for size in (4000, 11_111, 8000, 37, 0):
        swell = 1 + np.sin(np.arange(size) / 900)
        found.append((0.1 * draws.standard_normal(size) * swell).astype(np.float32))
    return found


def assert_same(recognizer: Recognizer, model: OnnxModel, tolerance: float = 2e-4) -> None:
    """In a batch as the recogniser does, and alone as in a batch."""
    given = waveforms()
    expected, lengths = recognizer.log_probs(given)
    found, own = model.log_probs(given)
    assert own.tolist() == lengths.tolist()
    assert found.dtype == np.float32
    for row, one, length, waveform in zip(expected, found, lengths, given, strict=True):
        np.testing.assert_allclose(one[:length], row[:length], atol=tolerance, rtol=tolerance)
        alone, (count,) = model.log_probs([waveform])
        assert count == length
        np.testing.assert_allclose(one[:length], alone[0, :length], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"coupled_gates": True}, {"zoneout": 0.2}], ids=str)
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("cell", list(CELLS))
def test_every_cell_has_a_graph(cell: str, bidirectional: bool, options: dict[str, Any]) -> None:
    sizes = PROJECTED if cell == "projection" else {"cell": cell}
    recognizer = recognizer_of({}, bidirectional=bidirectional, **sizes, **options)
    assert_same(recognizer, OnnxModel(exported(recognizer, {})))


@pytest.mark.parametrize(
    "model",
    [
        {"subsampling": 1, "norm": "none"},
        {"subsampling": 2, "norm": "batch"},
        {"subsampling": 3},
        {"subsampling": 8, "upsampling": 2},
        {"bidirectional": False, "lookahead": 3},
    ],
    ids=str,
)
def test_every_part_of_the_network_has_a_graph(model: dict[str, Any]) -> None:
    recognizer = recognizer_of({}, **model)
    assert_same(recognizer, OnnxModel(exported(recognizer, {})))


@pytest.mark.parametrize(
    "features",
    [
        {"normalizer": "active"},
        {"normalizer": "pcen"},
        {"normalizer": "stored"},
        {"normalizer": "none", "remove_mean": False},
        {"center": False, "window": "povey", "mel_scale": "kaldi", "preemphasis": 0.97,
         "remove_dc_offset": True, "scale": 32768.0, "log_floor": 1.1920929e-07},
        {"n_fft": 331, "frame_length_ms": 40.0, "mel_scale": "htk"},
    ],
    ids=str,
)  # fmt: skip
def test_all_features_have_a_graph(features: dict[str, Any]) -> None:
    recognizer = recognizer_of(features)
    assert_same(recognizer, OnnxModel(exported(recognizer, {})))


@pytest.mark.parametrize("features", [{}, {"normalizer": "stored"}, {"center": False}], ids=str)
@pytest.mark.parametrize(
    "model",
    [{}, {"lookahead": 3}, {"upsampling": 2, "lookahead": 1, "subsampling": 8},
     {"subsampling": 1}, PROJECTED, {"cell": "layer_norm", "zoneout": 0.1}],
    ids=str,
)  # fmt: skip
def test_steps_are_the_whole(model: dict[str, Any], features: dict[str, Any]) -> None:
    recognizer = recognizer_of(LIVE | features, bidirectional=False, **model)
    live = OnnxModel(exported(recognizer, {}))
    assert live.is_live
    assert_same(recognizer, live)
    given = waveforms()
    whole, lengths = live.log_probs(given)
    parts, own = live.log_probs(given, chunk_s=0.2)
    assert own.tolist() == lengths.tolist()
    for one, row, length in zip(parts, whole, lengths, strict=True):
        np.testing.assert_allclose(one[:length], row[:length], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_few_bytes_are_those_of_a_small_model_file(precision: Any) -> None:
    recognizer = recognizer_of({}, hidden_size=40)
    content = exported(recognizer, {}, precision)
    small = recognizer_of({}, hidden_size=40)
    small.load_state_dict(dequantized(quantized(small.state_dict(), precision)))
    assert_same(small, OnnxModel(content))
    saved = len(exported(recognizer, {})) - len(content)
    matrices = sum(each.numel() for each in recognizer.parameters() if each.ndim == 2)
    assert saved > matrices * (1.8 if precision == "float16" else 2.6)


def test_padding_may_hold_anything() -> None:
    recognizer = recognizer_of({"normalizer": "active"})
    model = OnnxModel(exported(recognizer, {}))
    clean = np.zeros((2, 9000), np.float32)
    clean[0], clean[1, :5000] = waveforms()[1][:9000], waveforms()[2][:5000]
    dirty = clean.copy()
    dirty[1, 5000:] = np.nan
    sizes = np.array([9000, 5000])
    found, expected = (
        model._run({"waveforms": each, "num_samples": sizes})[0] for each in (dirty, clean)
    )
    count = model.timing.output_count(5000)
    assert np.array_equal(found[1, :count], expected[1, :count])


@pytest.mark.parametrize("n_fft", [1, 2, 12, 256, 331, 400])
def test_the_transform_in_two_steps_is_the_transform(n_fft: int) -> None:
    x = np.random.default_rng(0).standard_normal(n_fft)
    wave = transform_of(n_fft)
    num_k1, n2 = wave.turn.shape
    first = (wave.first @ x.reshape(-1, n2)).reshape(num_k1, 2, n2)
    turned = (first[:, 0] + 1j * first[:, 1]) * wave.turn  # (K1, N2)
    power = np.abs(turned @ wave.second) ** 2
    expected = np.abs(np.fft.rfft(x)) ** 2
    np.testing.assert_allclose(power.reshape(-1)[wave.bins], expected, atol=1e-9 * n_fft)


@pytest.mark.parametrize("is_live", [True, False])
def test_a_stream_says_what_that_of_the_original_does(is_live: bool) -> None:
    recognizer = recognizer_of(LIVE if is_live else {}, bidirectional=not is_live)
    model = OnnxModel(exported(recognizer, {}))
    samples = np.concatenate([waveforms()[1], np.zeros(RATE, np.float32), waveforms()[2]])
    said = []
    for each in (recognizer, model):
        stream, segments = Transcriber(each).stream(), []
        for start in range(0, len(samples), 1001):
            segments += stream.push(samples[start : start + 1001])
        segments += stream.finish()
        said.append([(segment.text, segment.start, segment.end) for segment in segments])
    assert said[0]
    assert said[0] == said[1]


def test_the_sound_that_is_made_is_heard_alike() -> None:
    recognizer = recognizer_of(LIVE, bidirectional=False, lookahead=2)
    sound = made_sound(RATE)
    assert len(sound) == MADE_S * RATE
    assert 0.2 < np.abs(sound).max() <= 0.31
    agreement = compare(recognizer, OnnxModel(exported(recognizer, {})), sound)
    assert agreement.largest < TOLERANCES["float32"]
    assert agreement.num_changed == 0
    other = recognizer_of(LIVE, bidirectional=False, lookahead=2)
    nn.init.zeros_(other.model.head.weight)
    assert compare(other, OnnxModel(exported(recognizer, {})), sound).largest > 1
