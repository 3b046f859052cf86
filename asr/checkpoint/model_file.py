"""Model files: one self-describing .safetensors that loads without a config and runs no code.

Beside the weights a file has two texts: the description (`asr`), and a sha256 over it and all
weights (`sha256`), which older files do not have.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from asr.atomic_file import replace_bytes
from asr.features import LogMel
from asr.model import BiLstmCtc
from asr.text import CharTokenizer, TextNormalizer
from asr.untrusted import check_arguments, checked, open_regular, shown

FORMAT_VERSION = 1
DESCRIPTION, CHECKSUM = "asr", "sha256"  # in the metadata of safetensors
MAX_FILE_BYTES = 1 << 33  # 8 GiB: two thousand million weights
MAX_HEADER_BYTES = 1 << 24  # names, shapes and places of all weights, and the metadata
MAX_DESCRIPTION = 1 << 22  # characters
MAX_TRAINING_TEXT = 1 << 16  # characters; an average names all its models in one
MAX_ARGUMENT_TEXT = 1000  # characters
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
        training: summary for people: data fingerprint, step, dev WER and the like; numbers, short
            texts, true, false and null.

    Raises:
        ValueError: weights that are not finite, or a summary of something else.
        OSError: the file cannot be written; a former one is untouched.
    """
    header = {
        "format_version": FORMAT_VERSION,
        "spec": asdict(complete_spec(recognizer.spec)),
        "training": dict(training),
    }
    description = json.dumps(header, sort_keys=True)
    _check_training(training)
    weights = {name: tensor.contiguous().cpu() for name, tensor in recognizer.state_dict().items()}
    _check_finite(path, weights)
    metadata = {DESCRIPTION: description, CHECKSUM: _digest(description, weights)}
    replace_bytes(path, _in_one_order(safetensors.torch.save(weights, metadata)))


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
    _check_header_size(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            description, checksum = _metadata(file.metadata() or {})
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = _read_header(description)
        if checksum not in (None, _digest(description, weights)):
            raise ValueError("damaged, its description and weights are not those of its sha256")
        spec = checked(header["spec"], ModelSpec, "spec")
        recognizer = _skeleton(spec)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a model file or damaged ({error})") from error
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    _check_shapes(path, recognizer, {name: list(each.shape) for name, each in weights.items()})
    _check_types(path, recognizer, weights)
    _check_finite(path, weights)
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
    digest = hashlib.sha256()
    with open_regular(path, "a model file") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _digest(description: str, weights: Mapping[str, Tensor]) -> str:
    """sha256 over the description and, by name, dtype, shape and bytes of every weight."""
    names = sorted(weights)
    rows = [[name, str(weights[name].dtype), list(weights[name].shape)] for name in names]
    digest = hashlib.sha256(json.dumps([description, rows]).encode())
    for name in names:
        digest.update(weights[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _in_one_order(content: bytes) -> bytes:
    """A file whose metadata is sorted: safetensors writes it in another order in every process."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # the weights stay aligned
    return b"".join((len(encoded).to_bytes(8, "little"), encoded, memoryview(content)[start:]))


def _check_header_size(path: Path) -> None:
    """safetensors itself would parse 100 MB, and a file of holes could be any size."""
    with open_regular(path, "a model file") as file:
        size, total = int.from_bytes(file.read(8), "little"), file.seek(0, os.SEEK_END)
    if total > MAX_FILE_BYTES:
        raise ValueError(
            f"{path}: {total} bytes, expected a model file of at most {MAX_FILE_BYTES}"
        )
    if size > MAX_HEADER_BYTES:
        raise ValueError(
            f"{path}: not a model file or damaged (a header of {size} bytes, expected at most "
            f"{MAX_HEADER_BYTES})"
        )


def _metadata(metadata: Mapping[str, str]) -> tuple[str, str | None]:
    """The description, and the checksum where there is one."""
    if DESCRIPTION not in metadata:
        raise ValueError("holds weights but no description, expected a model file of asr")
    unknown = sorted(metadata.keys() - {DESCRIPTION, CHECKSUM})
    if unknown:  # a checksum whose name is damaged must not look like none
        raise ValueError(f"damaged, has {shown(unknown[0])} beside its description")
    description = metadata[DESCRIPTION]
    if len(description) > MAX_DESCRIPTION:
        raise ValueError(
            f"a description of {len(description)} characters, expected at most {MAX_DESCRIPTION}"
        )
    return description, metadata.get(CHECKSUM)


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


def _check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise ValueError(f"{path}: weight {name} is not finite, expected numbers")


def _read_header(description: str) -> dict[str, Any]:
    try:
        content = json.loads(description)
    except ValueError as error:
        raise ValueError(f"damaged, its description is not JSON ({error})") from error
    header = checked(content, Mapping[str, Any], "description")
    version = header.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"model format version {shown(version)}, expected {FORMAT_VERSION}: "
            "load it with the asr version that wrote it"
        )
    names = {"format_version", "spec", "training"}
    if header.keys() != names:
        raise ValueError(f"description has {shown(sorted(header))}, expected {sorted(names)}")
    _check_training(checked(header["training"], Mapping[str, Any], "training"))
    return dict(header)


def _check_training(training: Mapping[str, Any]) -> None:
    for name, value in training.items():
        is_text = isinstance(value, str) and len(value) <= MAX_TRAINING_TEXT
        if not (is_text or value is None or isinstance(value, bool | int | float)):
            raise ValueError(
                f"training[{shown(name)}] is {shown(value)}, expected a number, true, false, null "
                f"or a text of at most {MAX_TRAINING_TEXT} characters"
            )


def _complete(known: Mapping[str, Callable[..., nn.Module]], part: Part) -> Part:
    signature = inspect.signature(known[part.name])
    arguments = {
        name: part.arguments.get(name, parameter.default)
        for name, parameter in signature.parameters.items()
        if name in part.arguments or parameter.default is not inspect.Parameter.empty
    }
    return Part(part.name, arguments)


def _build_part(
    known: Mapping[str, Callable[..., nn.Module]], what: str, part: Part, **derived: Any
) -> Any:
    if part.name not in known:
        raise ValueError(f"{what} {shown(part.name)}, expected one of {', '.join(known)}")
    for name, value in part.arguments.items():
        bound = MAX_OF.get(name, MAX_ARGUMENT)
        if isinstance(value, int | float) and not abs(value) <= bound:
            raise ValueError(f"{what}: {name} is {value!r}, expected at most {bound}")
    return _build(known[part.name], what, {**part.arguments, **derived})


def _build(constructor: Callable[..., Any], what: str, arguments: Mapping[str, Any]) -> Any:
    for name, value in arguments.items():
        if isinstance(value, str) and not (len(value) <= MAX_ARGUMENT_TEXT and value.isprintable()):
            raise ValueError(
                f"{what}.{name} is {shown(value)}, expected at most {MAX_ARGUMENT_TEXT} printable "
                "characters"
            )
    return constructor(**check_arguments(constructor, arguments, what))
