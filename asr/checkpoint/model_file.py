"""Model files: one self-describing .safetensors that loads without a config and runs no code."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from asr.atomic_file import replace_bytes
from asr.features import LogMel
from asr.model import BiLstmCtc
from asr.text.normalize import TextNormalizer
from asr.text.tokenizer import CharTokenizer

FORMAT_VERSION = 1
# No size in a real model comes near; a forged one must not exhaust memory.
MAX_ARGUMENT = 1 << 20
MAX_OF = {
    "num_layers": 64,
    "n_mels": 512,
    "n_fft": 1 << 16,
    "frame_length_ms": 100.0,
    "sample_rate": 384_000,  # [Hz]
}

MODELS: dict[str, Callable[..., nn.Module]] = {"BiLstmCtc": BiLstmCtc}
FEATURES: dict[str, Callable[..., nn.Module]] = {"LogMel": LogMel}


@dataclass(frozen=True)
class Part:
    """A class of this package by name, and its constructor's arguments: data, never code."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSpec:
    """Everything but the weights that turns a waveform into text.

    Attributes:
        features: of FEATURES.
        model: of MODELS, without n_mels and vocab_size, which follow from the rest.
        alphabet: characters in the order of their ids, from 1.
        text: the transcript rules' settings.
    """

    features: Part
    model: Part
    alphabet: str
    text: Mapping[str, Any]


class Recognizer(nn.Module):
    """Features, acoustic model, tokenizer and text rules, built from a `ModelSpec`.

    Args:
        spec: what to build.

    Raises:
        ValueError: an unknown part or an argument that its constructor refuses.
    """

    features: LogMel
    model: BiLstmCtc

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.tokenizer = CharTokenizer(spec.alphabet)
        self.text = _build(TextNormalizer, "text", spec.text)
        # Windows and filterbanks are derived, not stored: real even where the weights are not yet.
        with torch.device("cpu"):
            self.features = _build_part(FEATURES, "features", spec.features)
        self.model = _build_part(
            MODELS,
            "model",
            spec.model,
            n_mels=self.features.n_mels,
            vocab_size=self.tokenizer.vocab_size,
        )

    @property
    def frame_shift_s(self) -> float:
        """Time between output frames [s]."""
        return self.features.frame_shift_s * self.model.frame_ratio

    def output_length(self, num_samples: Tensor) -> Tensor:
        """Output frames of waveforms of these lengths: int64, the same shape."""
        return self.model.output_length(self.features.frame_count(num_samples))

    def forward(self, waveforms: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms to log-probabilities, without augmentation.

        Args:
            waveforms: `(B, N)` float32 at the features' sample rate.
            num_samples: `(B,)` int64.

        Returns:
            log_probs `(B, T, V)` float32 and log_prob_lengths `(B,)` int64 [output frames].
        """
        features, lengths = self.features(waveforms, num_samples)
        log_probs, log_prob_lengths = self.model(features, lengths)
        return log_probs, log_prob_lengths


def save_model(path: Path, recognizer: Recognizer, training: Mapping[str, Any]) -> None:
    """Write a model file atomically.

    Args:
        path: ends in .safetensors.
        recognizer: what to save.
        training: summary for people: data fingerprint, step, dev WER and the like; JSON values.

    Raises:
        OSError: the file cannot be written; a former one is untouched.
    """
    header = {
        "format_version": FORMAT_VERSION,
        "spec": asdict(complete_spec(recognizer.spec)),
        "training": dict(training),
    }
    weights = {name: tensor.contiguous().cpu() for name, tensor in recognizer.state_dict().items()}
    content = safetensors.torch.save(weights, {"asr": json.dumps(header, sort_keys=True)})
    replace_bytes(path, content)


def load_model(path: Path, device: torch.device | str = "cpu") -> tuple[Recognizer, dict[str, Any]]:
    """Read a model file; runs no code from it and needs no config.

    Args:
        path: a file of `save_model`.
        device: where the model is to live.

    Returns:
        The recogniser in evaluation mode, and the training summary.

    Raises:
        ValueError: not a model file, damaged, of another format version, or its weights do not fit
            its own description.
        OSError: missing or unreadable.
    """
    if path.is_dir():
        raise IsADirectoryError(21, "is a folder, expected a model file", str(path))
    path.stat()  # FileNotFoundError with the name, where safetensors would word its own
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = _read_header(path, file.metadata() or {})
            spec = _parse_spec(header["spec"])
            recognizer = _skeleton(spec)
            _check_shapes(path, recognizer, {n: file.get_slice(n).get_shape() for n in file.keys()})  # noqa: SIM118
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a model file or damaged ({error})") from error
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        reason = error.args[0] if error.args else error
        message = str(reason) if str(reason).startswith(str(path)) else f"{path}: {reason}"
        raise ValueError(message) from error
    _check_types(path, recognizer, weights)
    recognizer.load_state_dict(weights, assign=True)
    return recognizer.to(device).eval(), header["training"]


def complete_spec(spec: ModelSpec) -> ModelSpec:
    """The same with every default written out, so that a later default changes no old model."""
    return ModelSpec(
        features=_complete(FEATURES, spec.features),
        model=_complete(MODELS, spec.model),
        alphabet=spec.alphabet,
        text=asdict(_build(TextNormalizer, "text", spec.text)),
    )


def file_digest(path: Path) -> str:
    """sha256 of a file, 64 hexadecimal digits.

    Raises:
        OSError: missing or unreadable.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _skeleton(spec: ModelSpec) -> Recognizer:
    """The modules without memory for weights, so that forged sizes cost nothing."""
    try:
        with torch.device("meta"):
            return Recognizer(spec)
    except (ArithmeticError, AttributeError, RuntimeError) as error:
        # What constructors make of arguments of the wrong kind, and torch of sizes it cannot count.
        raise ValueError(f"description does not make a model ({error})") from error


def _check_shapes(path: Path, recognizer: Recognizer, found: dict[str, list[int]]) -> None:
    expected = {name: list(tensor.shape) for name, tensor in recognizer.state_dict().items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{path}: weight {name} has shape {found.get(name)}, expected {expected.get(name)}"
            )


def _check_types(path: Path, recognizer: Recognizer, weights: Mapping[str, Tensor]) -> None:
    for name, tensor in recognizer.state_dict().items():
        if weights[name].dtype != tensor.dtype:
            raise ValueError(
                f"{path}: weight {name} is {weights[name].dtype}, expected {tensor.dtype}"
            )


def _read_header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if "asr" not in metadata:
        raise ValueError(f"{path}: holds weights but no description, expected a model file of asr")
    header = _mapping("description", json.loads(metadata["asr"]))
    version = header.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: model format version {version}, expected {FORMAT_VERSION}: "
            "load it with the asr version that wrote it"
        )
    names = {"format_version", "spec", "training"}
    if header.keys() != names:
        raise ValueError(f"description has {sorted(header)}, expected {sorted(names)}")
    _mapping("training", header["training"])
    return header


def _complete(known: Mapping[str, Callable[..., nn.Module]], part: Part) -> Part:
    signature = inspect.signature(known[part.name])
    arguments = {
        name: part.arguments.get(name, parameter.default)
        for name, parameter in signature.parameters.items()
        if name in part.arguments or parameter.default is not inspect.Parameter.empty
    }
    return Part(part.name, arguments)


def _parse_spec(data: Any) -> ModelSpec:
    names = {field.name for field in fields(ModelSpec)}
    if _mapping("spec", data).keys() != names:
        raise ValueError(f"spec has {sorted(data)}, expected {sorted(names)}")
    parts = {key: _parse_part(key, data[key]) for key in ("features", "model")}
    return ModelSpec(**parts, alphabet=data["alphabet"], text=_mapping("text", data["text"]))


def _parse_part(what: str, data: Any) -> Part:
    names = {field.name for field in fields(Part)}
    if _mapping(what, data).keys() != names:
        raise ValueError(f"{what} has {sorted(data)}, expected {sorted(names)}")
    return Part(data["name"], _mapping(f"{what} arguments", data["arguments"]))


def _mapping(what: str, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{what} is a {type(data).__name__}, expected names and values")
    return data


def _build_part(
    known: Mapping[str, Callable[..., nn.Module]], what: str, part: Part, **derived: Any
) -> Any:
    if part.name not in known:
        raise ValueError(f"{what} {part.name!r}, expected one of {', '.join(known)}")
    for name, value in part.arguments.items():
        bound = MAX_OF.get(name, MAX_ARGUMENT)
        if isinstance(value, int | float) and not abs(value) <= bound:
            raise ValueError(f"{what}: {name} is {value!r}, expected at most {bound}")
    return _build(known[part.name], what, {**part.arguments, **derived})


def _build(constructor: Callable[..., Any], what: str, arguments: Mapping[str, Any]) -> Any:
    unknown = arguments.keys() - inspect.signature(constructor).parameters.keys()
    if unknown:
        raise ValueError(f"{what}: unknown argument {sorted(unknown)[0]!r}")
    return constructor(**arguments)
