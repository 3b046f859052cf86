"""Exported models: ONNX files, checked before anything runs them, and run without torch.

A file is one graph with its weights, and in its metadata the description of the model. Its last
bytes are a sha256 over all others. Whoever wrote it, it is data: the graph may hold the operators
of OPERATORS alone, and names no other file.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from asr.memory import require_memory
from asr.model_spec import ModelSpec
from asr.speech_model import Lengths, LogProbs, SpeechModel, Timing, Waveform
from asr.threads import num_threads
from asr.untrusted import checked, parse_json, read_bytes, shown

FORMAT_VERSION = 1
DESCRIPTION, CHECKSUM = "asr", "sha256"  # in the metadata of the file
MAX_FILE_BYTES = 1 << 31  # what a file of protocol buffers can hold
MAX_DESCRIPTION = 1 << 23  # characters: a lexicon of 60,000 words takes 1.5 million
MAX_NODES = 20_000  # a model of 64 layers takes a tenth
MAX_DEPTH = 3  # of graphs in graphs
MAX_SIZE = 1 << 20  # of what a timing counts
# What `asr export` writes. None of them reads a file, or loops for longer than its input is.
OPERATORS = frozenset({
    "Add", "And", "Cast", "Concat", "ConstantOfShape", "Conv", "Div", "Exp", "Gather",
    "GreaterOrEqual", "Identity", "LSTM", "LayerNormalization", "Less", "Log", "LogSoftmax",
    "MatMul", "Max", "Min", "Mul", "Neg", "Not", "Pad", "Pow", "Range", "ReduceMax", "ReduceMean",
    "ReduceSum", "Relu", "Reshape", "Round", "Scan", "ScatterND", "Shape", "Sigmoid", "Slice",
    "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
# Of ModelProto, GraphProto, NodeProto, AttributeProto and TensorProto, by their numbers.
GRAPH, METADATA, TRAINING, FUNCTIONS = 7, 14, 20, 25
NODE, INITIALIZER, SPARSE_INITIALIZER = 1, 5, 15
OPERATOR, ATTRIBUTE, DOMAIN = 4, 5, 7
TENSOR, SUBGRAPH, TENSORS, SUBGRAPHS, SPARSE, SPARSES = 5, 6, 10, 11, 22, 23
EXTERNAL, LOCATION = 13, 14


@dataclass(frozen=True)
class Description:
    """What a file says of its model.

    Attributes:
        format_version: FORMAT_VERSION.
        spec: as of a model file.
        training: the training summary.
        precision: of the weights, as they are stored.
        num_parameters: numbers that were learnt.
        bytes_per_s: of memory, for a second of audio that the network sees at once.
        is_live: whether the graph is a step.
        timing: of its frames.
    """

    format_version: int
    spec: ModelSpec
    training: Mapping[str, Any]
    precision: Literal["float32", "float16", "int8"]
    num_parameters: int
    bytes_per_s: int
    is_live: bool
    timing: Timing


class OnnxModel(SpeechModel):
    """A model of `asr export`, run by onnxruntime.

    Args:
        content: of the file.
        name: of the file, for messages.

    Raises:
        ValueError: no file of `asr export`, damaged, or onnxruntime is not installed.
    """

    def __init__(self, content: bytes, name: object = "model") -> None:
        try:
            description = read_description(content)
            self.describe(description.spec)
            self.description, self.timing = description, description.timing
            self._session = _session(content)
            self._check_graph()
        except (RecursionError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from error
        self._state_inputs = [
            each for each in self._session.get_inputs() if each.name.startswith("state_")
        ]

    @property
    def is_live(self) -> bool:
        """Whether it reads forwards alone, and so runs on a stream without hearing it twice."""
        return self.description.is_live

    @property
    def runs_on(self) -> str:
        """What runs it, for people."""
        return f"onnxruntime on cpu, {self.description.precision}"

    @property
    def num_parameters(self) -> int:
        """Numbers that were learnt."""
        return self.description.num_parameters

    def log_probs(
        self, waveforms: Sequence[Waveform], *, chunk_s: float | None = None
    ) -> tuple[LogProbs, Lengths]:
        """Run recordings of any length; see `SpeechModel.log_probs`.

        A live model goes through long ones step by step; any other sees them whole.
        """
        if self.is_live:
            return self._through(waveforms, chunk_s)
        num_samples = np.array([len(each) for each in waveforms], np.int64)
        self._require_memory(int(num_samples.max()), len(waveforms))
        padded = np.zeros((len(waveforms), max(int(num_samples.max()), 1)), np.float32)
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform)] = waveform
        log_probs, lengths = self._run({"waveforms": padded, "num_samples": num_samples})
        return log_probs, lengths

    def _through(
        self, waveforms: Sequence[Waveform], chunk_s: float | None
    ) -> tuple[LogProbs, Lengths]:
        """Run the steps of a live model, as many frames in each as `chunk_s` says."""
        timing = self.timing
        factor, extra = timing.subsampling, timing.live_extra
        sizes = [len(each) for each in waveforms]
        counts = np.array([timing.feature_count(size) for size in sizes])
        lengths = np.array([timing.output_count(size) for size in sizes], np.int64)
        total = int(lengths.max() + timing.live_delay) // timing.upsampling
        total = max(total, 1)  # frames of the network
        shift_s = factor * timing.hop_length / timing.sample_rate
        at_once = total if chunk_s is None else max(1, round(chunk_s / shift_s))
        self._require_memory(min(max(sizes), round(at_once * shift_s * timing.sample_rate)),
                             len(waveforms))  # fmt: skip
        padded = np.zeros(
            (len(waveforms), timing.window_length(total * factor + extra)), np.float32
        )
        for row, waveform in zip(padded, waveforms, strict=True):
            part = row[timing.silence_before :][: len(waveform)]
            part[:] = waveform[: len(part)]
        parts, state = [], self.begin(len(waveforms))
        for first in range(0, total, at_once):
            num_new = min(at_once, total - first) * factor
            place = first * factor * timing.hop_length
            samples = padded[:, place : place + timing.window_length(num_new + extra)]
            valid = np.clip(counts - first * factor, 0, num_new + extra)
            found, state = self.step(samples, valid, state)
            parts.append(found)
        log_probs = np.concatenate(parts, axis=1)[:, timing.live_delay :]
        return log_probs[:, : lengths.max()], lengths

    def begin(self, num_streams: int = 1) -> dict[str, NDArray[Any]]:
        """Begin B streams, for `step`.

        Raises:
            ValueError: a model that is not live.
        """
        if not self.is_live:
            raise ValueError("a model that is not live, expected one of one direction")
        return {
            each.name: np.zeros(
                [size if isinstance(size, int) else num_streams for size in each.shape],
                _DTYPES[each.type],
            )
            for each in self._state_inputs
        }

    def step(
        self, samples: NDArray[np.float32], num_frames: Lengths, state: dict[str, NDArray[Any]]
    ) -> tuple[LogProbs, dict[str, NDArray[Any]]]:
        """Run the next feature frames of streams; see `SpeechModel.step`."""
        log_probs, *new = self._run(
            {"waveforms": samples, "num_frames": num_frames.astype(np.int64), **state}
        )
        return log_probs, dict(zip(state, new, strict=True))

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            found: list[NDArray[Any]] = self._session.run(None, dict(inputs))
        except Exception as error:  # of its own class, which is no public name
            if "allocate memory" in str(error):
                raise MemoryError("not enough memory") from None
            raise ValueError(f"the model's graph does not run ({shown(str(error))})") from error
        return found

    def _require_memory(self, num_samples: int, num_waveforms: int) -> None:
        seconds = num_samples / self.sample_rate
        many = f"{num_waveforms} recordings of up to " if num_waveforms > 1 else ""
        require_memory(
            num_waveforms * seconds * self.description.bytes_per_s,
            f"{many}{seconds:g} s of audio",
        )

    def _check_graph(self) -> None:
        """Compare inputs and outputs of the graph with the description."""
        inputs = [each.name for each in self._session.get_inputs()]
        outputs = self._session.get_outputs()
        states = [name for name in inputs if name.startswith("state_")]
        expected = ["waveforms", *(["num_frames", *states] if self.is_live else ["num_samples"])]
        if inputs != expected or (self.is_live and not states):
            raise ValueError(f"a graph with inputs {shown(inputs)}, expected those of asr export")
        count = len(states) + 1 if self.is_live else 2
        if len(outputs) != count or outputs[0].shape[-1] != self.tokenizer.vocab_size:
            raise ValueError(
                f"a graph of {shown(outputs[0].shape[-1])} labels, expected "
                f"{self.tokenizer.vocab_size}: the blank and the alphabet"
            )


def load_onnx_model(path: Path) -> tuple[OnnxModel, dict[str, Any]]:
    """Read a file of `asr export`; torch is not needed for it.

    Returns:
        The model, and the training summary.

    Raises:
        ValueError: no such file, damaged, or onnxruntime is not installed.
        OSError: missing or unreadable.
    """
    if path.is_dir():
        raise IsADirectoryError(21, "is a folder, expected a model file", str(path))
    model = OnnxModel(read_bytes(path, "an exported model", MAX_FILE_BYTES), path)
    return model, dict(model.description.training)


def _session(content: bytes) -> Any:
    """Give the graph to onnxruntime."""
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = num_threads()
    options.log_severity_level = 3  # errors, which are raised too
    # Threads that wait for the next piece of work leave the cores to others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of its own classes, which are no public names
        raise ValueError(f"no graph that onnxruntime runs ({shown(str(error))})") from error


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(
            "onnxruntime is not installed, which runs exported models: pip install 'lstm-asr[onnx]'"
        ) from error
    runtime: ModuleType = onnxruntime
    return runtime


_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}


# --- the file ------------------------------------------------------------------------------------


def sealed(content: bytes) -> bytes:
    """Add the sha256 to a model's bytes: one more entry of its metadata, the last of the file."""
    entry = _field(1, CHECKSUM.encode()) + _field(2, hashlib.sha256(content).hexdigest().encode())
    return content + _field(METADATA, entry)


def read_description(content: bytes) -> Description:
    """Check the bytes of a file, and read the description in its metadata.

    Raises:
        ValueError: no file of `asr export`, or a damaged one; a graph of other operators, or of
            weights in other files.
    """
    seal = len(sealed(b""))
    if content[-seal:] != sealed(content[:-seal])[-seal:]:
        if content[-seal:-64] == sealed(b"")[:-64]:
            raise ValueError("damaged, its content is not that of its sha256")
        raise ValueError("not a model of asr export, or damaged (it does not end in a sha256)")
    texts: dict[str, str] = {}
    for number, value in _fields(memoryview(content)):
        if number in (TRAINING, FUNCTIONS):
            raise ValueError("a graph with functions of its own, expected one of asr export")
        if number == GRAPH:
            _check_nodes(value)
        if number == METADATA:
            entry = dict(_fields(value))
            texts[bytes(entry.get(1, b"")).decode()] = bytes(entry.get(2, b"")).decode()
    if texts.keys() != {DESCRIPTION, CHECKSUM}:
        raise ValueError(f"metadata {shown(sorted(texts))}, expected {DESCRIPTION} and {CHECKSUM}")
    text = texts[DESCRIPTION]
    if len(text) > MAX_DESCRIPTION:
        raise ValueError(
            f"a description of {len(text)} characters, expected at most {MAX_DESCRIPTION}"
        )
    fields = parse_json(text, "its description", "that of asr export")
    version = fields.get("format_version") if isinstance(fields, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"format version {shown(version)}, expected {FORMAT_VERSION}: load it with the asr "
            "version that wrote it"
        )
    description: Description = checked(fields, Description, "description")
    for name, size in vars(description.timing).items():
        least = 0 if name.startswith(("live_", "is_")) else 1
        if not least <= size <= MAX_SIZE:
            raise ValueError(f"timing.{name} is {size}, expected {least} to {MAX_SIZE}")
    return description


def _check_nodes(graph: memoryview, depth: int = 0) -> int:
    """Refuse what `asr export` does not write; return the number of nodes, also of bodies."""
    if depth > MAX_DEPTH:
        raise ValueError(f"graphs in graphs, expected at most {MAX_DEPTH}")
    count = 0
    for number, value in _fields(graph):
        if number == SPARSE_INITIALIZER:
            raise ValueError("sparse weights, expected a graph of asr export")
        if number == INITIALIZER:
            _check_tensor(value)
        if number != NODE:
            continue
        count += 1
        for part, content in _fields(value):
            if part == OPERATOR and bytes(content).decode(errors="replace") not in OPERATORS:
                raise ValueError(
                    f"operator {shown(bytes(content).decode(errors='replace'))}, expected those of "
                    "asr export"
                )
            if part == DOMAIN and content:
                raise ValueError(f"operators of {shown(bytes(content))}, expected those of ONNX")
            if part != ATTRIBUTE:
                continue
            for kind, inner in _fields(content):
                if kind in (TENSOR, TENSORS):
                    _check_tensor(inner)
                elif kind in (SUBGRAPH, SUBGRAPHS):
                    count += _check_nodes(inner, depth + 1)
                elif kind in (SPARSE, SPARSES):
                    raise ValueError("sparse weights, expected a graph of asr export")
        if count > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} operators, expected fewer")
    return count


def _check_tensor(tensor: memoryview) -> None:
    for number, value in _fields(tensor):
        if number == EXTERNAL or (number == LOCATION and bytes(value) != b"\0"):
            raise ValueError("weights in another file, expected all of them in this one")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Read the fields of a message of protocol buffers: their numbers, and their bytes.

    Raises:
        ValueError: no such message.
    """
    place, size = 0, len(message)
    while place < size:
        key, place = _varint(message, place)
        begin = place
        match key & 7:
            case 0:
                value, place = _varint(message, place)
                yield key >> 3, memoryview(struct.pack("<Q", value & (1 << 64) - 1).rstrip(b"\0")
                                           or b"\0")  # fmt: skip
                continue
            case 1:
                place += 8
            case 2:
                length, begin = _varint(message, place)
                place = begin + length
            case 5:
                place += 4
            case _:
                raise ValueError("not a model of asr export, or damaged")
        if place > size:
            raise ValueError("not a model of asr export, or damaged (it breaks off)")
        yield key >> 3, message[begin:place]


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("not a model of asr export, or damaged (it breaks off)")


def _field(number: int, content: bytes) -> bytes:
    """Write a field of bytes, fewer than 16,384."""
    size = len(content)
    head = (
        bytes([number << 3 | 2, size])
        if size < 128
        else bytes([number << 3 | 2, size & 127 | 128, size >> 7])
    )
    return head + content
