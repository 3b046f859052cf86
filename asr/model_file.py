"""Model files: saved and loaded, started from, averaged.

A model is one self-describing .safetensors file that loads without a config and runs no code.
Beside the weights a file has two texts: the description (`asr`), and a sha256 over it and all
weights (`sha256`), which older files do not have. Weights are float32, or quantised; in memory
they are float32 always.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import io
import json
import lzma
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from asr.atomic_file import replace_bytes
from asr.model_spec import ModelSpec, Part, construct
from asr.packed import unpacked
from asr.quantization import EXPANSION, Storage, dequantized, like_quantized, quantized
from asr.recognizer import FEATURES, MODELS, Recognizer
from asr.starter_model import EXPORTED, weights_path
from asr.text import AUTO, BLANK_ID, TextNormalizer
from asr.untrusted import checked, open_regular, shown

FORMAT_VERSION = 1
QUANTIZED_VERSION = 2  # the same with `storage`, in which the weights are: float16 or int8
PACKED_VERSION = 3  # the same with the lexicon as base64 of xz, a third of its bytes
DESCRIPTION, CHECKSUM = "asr", "sha256"  # in the metadata of safetensors
MAX_FILE_BYTES = 1 << 33  # 8 GiB: two thousand million weights
MAX_HEADER_BYTES = 1 << 24  # names, shapes and places of all weights, and the metadata
MAX_DESCRIPTION = 1 << 23  # characters: a lexicon of 60,000 words takes 1.5 million
MAX_TRAINING_TEXT = 1 << 16  # characters; an average names all its models in one
# Arguments of a model that no weight depends on: they act in training or choose a kernel.
TRAINING_ARGUMENTS = ("dropout", "recurrent_dropout", "zoneout", "backend")
# Arguments of the features that decide whether a frame depends on later ones.
LIVE_FEATURES = ("remove_mean", "remove_dc_offset", "normalizer")
HEAD = ("model.head.weight", "model.head.bias")


def save_model(
    path: Path,
    recognizer: Recognizer,
    training: Mapping[str, Any],
    storage: Storage = "float32",
) -> None:
    """Write a model file atomically.

    Args:
        path: ends in .safetensors.
        recognizer: what to save.
        training: summary for people: data fingerprint, step, dev WER and the like; numbers, short
            texts, true, false and null.
        storage: of the weights; fewer bytes are for files that are handed on.

    Raises:
        ValueError: weights that are not finite, in float16 for instance, or a summary of something
            else.
        OSError: the file cannot be written; a former one is untouched.
    """
    fields = _fields(complete_spec(recognizer.spec))
    header = {"format_version": FORMAT_VERSION, "spec": fields, "training": dict(training)}
    if storage != "float32":
        header |= {"format_version": QUANTIZED_VERSION, "storage": storage}
        if "lexicon" in fields:
            fields["lexicon"] = _packed_text(fields["lexicon"])
            header["format_version"] = PACKED_VERSION
    description = json.dumps(header, sort_keys=True)
    _check_training(training)
    weights = {name: tensor.contiguous().cpu() for name, tensor in recognizer.state_dict().items()}
    _check_finite(path, weights)
    stored = quantized(weights, storage)
    _check_finite(path, stored, f" in {storage}")
    metadata = {DESCRIPTION: description, CHECKSUM: _digest(description, stored)}
    replace_bytes(path, _in_one_order(safetensors.torch.save(stored, metadata)))


def load_model(path: Path, device: torch.device | str = "cpu") -> tuple[Recognizer, dict[str, Any]]:
    """Read a model file; runs no code from it and needs no config.

    Args:
        path: a file of `save_model`, or one of a model's folder that names another.
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
    if path.suffix.lower() == EXPORTED:
        raise ValueError(f"{path}: an exported model, expected the model that it was made of")
    path = weights_path(path)
    total = _bounded_size(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            description, checksum = _metadata(file.metadata() or {})
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = _read_header(description)
        if checksum not in (None, _digest(description, stored)):
            raise ValueError("damaged, its description and weights are not those of its sha256")
        storage: Storage = header.get("storage", "float32")
        if total > MAX_FILE_BYTES // EXPANSION[storage]:
            raise ValueError(
                f"{total} bytes of {storage}, expected at most "
                f"{MAX_FILE_BYTES // EXPANSION[storage]}"
            )
        spec = _spec_of(header)
        try:
            with torch.device("meta"):  # no memory for weights yet: forged sizes cost nothing
                recognizer = Recognizer(spec)
        except (ArithmeticError, AttributeError, RuntimeError) as error:
            # What constructors make of arguments of a wrong kind, torch of sizes it cannot count.
            raise ValueError(f"description does not make a model ({error})") from error
        _check_shapes(stored, like_quantized(recognizer.state_dict(), storage))
        weights = dequantized(stored)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a model file or damaged ({error})") from error
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    _check_finite(path, weights)
    recognizer.load_state_dict(weights, assign=True)
    return recognizer.to(device).eval(), header["training"]


def _bounded_size(path: Path) -> int:
    """Measure a model file [bytes]; safetensors itself would parse 100 MB, and holes have any size.

    Raises:
        ValueError: it, or its header, is too large.
        OSError: missing or unreadable.
    """
    with open_regular(path, "a model file") as raw:
        size, total = int.from_bytes(raw.read(8), "little"), raw.seek(0, os.SEEK_END)
    if total > MAX_FILE_BYTES:
        raise ValueError(
            f"{path}: {total} bytes, expected a model file of at most {MAX_FILE_BYTES}"
        )
    if size > MAX_HEADER_BYTES:
        raise ValueError(
            f"{path}: not a model file or damaged (a header of {size} bytes, expected at most "
            f"{MAX_HEADER_BYTES})"
        )
    return total


def complete_spec(spec: ModelSpec) -> ModelSpec:
    """Write every default out, so that a later default changes no old model."""
    return ModelSpec(
        features=_complete(FEATURES, spec.features),
        model=_complete(MODELS, spec.model),
        alphabet=spec.alphabet,
        text=asdict(construct(TextNormalizer, "text", spec.text)),
        phones=spec.phones,
        lexicon=spec.lexicon,
    )


def _fields(spec: ModelSpec) -> dict[str, Any]:
    """Tell a spec as the file has it, which says nothing of phones where there are none."""
    fields = asdict(spec)
    return {k: v for k, v in fields.items() if v or k not in ("phones", "lexicon")}


def file_digest(path: Path) -> str:
    """Compute the sha256 of the file that holds a model, 64 hexadecimal digits.

    Raises:
        OSError: missing or unreadable.
    """
    digest = hashlib.sha256()
    with open_regular(weights_path(path), "a model file") as file:
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
    """Sort a file's metadata, which safetensors writes in another order in every process."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # the weights stay aligned
    return b"".join((len(encoded).to_bytes(8, "little"), encoded, memoryview(content)[start:]))


def _metadata(metadata: Mapping[str, str]) -> tuple[str, str | None]:
    """Find the description, and the checksum where there is one."""
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


def _check_shapes(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Compare the names, shapes and dtypes of weights with those of a model."""
    for name in sorted(expected.keys() | weights.keys()):
        found, wanted = (
            list(each[name].shape) if name in each else None for each in (weights, expected)
        )
        if found != wanted:
            raise ValueError(f"weight {name} has shape {found}, expected {wanted}")
        if weights[name].dtype != expected[name].dtype:
            raise ValueError(
                f"weight {name} is {weights[name].dtype}, expected {expected[name].dtype}"
            )


def _check_finite(path: Path, weights: Mapping[str, Tensor], where: str = "") -> None:
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise ValueError(f"{path}: weight {name} is not finite{where}, expected numbers")


def _read_header(description: str) -> dict[str, Any]:
    try:
        content = json.loads(description)
    except ValueError as error:
        raise ValueError(f"damaged, its description is not JSON ({error})") from error
    header = checked(content, Mapping[str, Any], "description")
    version = header.get("format_version")
    if version not in (FORMAT_VERSION, QUANTIZED_VERSION, PACKED_VERSION):
        raise ValueError(
            f"model format version {shown(version)}, expected {FORMAT_VERSION} to "
            f"{PACKED_VERSION}: load it with the asr version that wrote it"
        )
    names = {"format_version", "spec", "training"}
    if version != FORMAT_VERSION:
        names.add("storage")
    if header.keys() != names:
        raise ValueError(f"description has {shown(sorted(header))}, expected {sorted(names)}")
    checked(header.get("storage", "float16"), Literal["float16", "int8"], "storage")
    _check_training(checked(header["training"], Mapping[str, Any], "training"))
    return dict(header)


def _packed_text(text: str) -> str:
    return base64.b64encode(lzma.compress(text.encode())).decode()


def _unpacked_text(packed: str) -> str:
    """Undo `_packed_text`, of a file by whomever, within the bounds of a description."""
    file = unpacked(
        io.BufferedReader(io.BytesIO(base64.b64decode(packed, validate=True))), "lexicon"
    )
    content = file.read(MAX_DESCRIPTION + 1)
    if len(content) > MAX_DESCRIPTION:
        raise ValueError(f"a lexicon of more than {MAX_DESCRIPTION} bytes, expected fewer")
    return content.decode()


def _spec_of(header: Mapping[str, Any]) -> ModelSpec:
    """The description of the model, its lexicon as a text."""
    spec: ModelSpec = checked(header["spec"], ModelSpec, "spec")
    if header["format_version"] != PACKED_VERSION:
        return spec
    return replace(spec, lexicon=_unpacked_text(spec.lexicon))


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


# --- a start from another model ------------------------------------------------------------------


@dataclass(frozen=True)
class Transfer:
    """A recogniser to train, made from a trained one.

    Attributes:
        recognizer: in training mode.
        training: the training summary of the model file.
        notes: a line each on what the settings asked for and the model file decided, and on the
            characters.
    """

    recognizer: Recognizer
    training: Mapping[str, Any]
    notes: tuple[str, ...]


def transfer_model(path: Path, settings: ModelSpec) -> Transfer:
    """Start from a model file.

    Features and model are those of the file but for TRAINING_ARGUMENTS; these, the alphabet and the
    text rules are those of the settings. Stored feature statistics are weights like any other.

    Where the settings ask for a model that is not bidirectional and the file's is, it becomes one
    that runs forward in time (`one_way`), with the lookahead and the LIVE_FEATURES of the settings.

    Args:
        path: the model file.
        settings: what the training asks for.

    Raises:
        ValueError: not a model file, or settings that its model refuses.
        OSError: missing or unreadable.
    """
    trained, training = load_model(path)
    theirs, ours = complete_spec(trained.spec), complete_spec(settings)
    notes: list[str] = []
    if theirs.model.arguments["bidirectional"] and not ours.model.arguments["bidirectional"]:
        cell = theirs.model.arguments["cell"]
        if cell != "lstm":
            raise ValueError(
                f"{path}: a bidirectional model of the cell {cell}, expected the cell lstm to make "
                "one for live use of, or model.bidirectional=true"
            )
        trained = _forward_in_time(trained, ours)
        theirs = complete_spec(trained.spec)
        units = theirs.model.arguments["hidden_size"]
        notes.append(f"{path.name}: both directions run forward in time, {units} units")
    chosen = {name: ours.model.arguments[name] for name in TRAINING_ARGUMENTS}
    model = Part(theirs.model.name, {**theirs.model.arguments, **chosen})
    recognizer = Recognizer(replace(ours, features=theirs.features, model=model))
    carry_weights(trained, recognizer)
    return Transfer(recognizer, training, (*notes, *_notes(path.name, theirs, ours)))


def _forward_in_time(trained: Recognizer, settings: ModelSpec) -> Recognizer:
    """Make a model that may run live of a bidirectional one."""
    from asr.model.one_way import one_way  # not for a transcript, which starts nothing

    spec = complete_spec(trained.spec)
    shape = {
        "bidirectional": False,
        "hidden_size": 2 * spec.model.arguments["hidden_size"],
        "lookahead": settings.model.arguments["lookahead"],
    }
    live = {name: settings.features.arguments[name] for name in LIVE_FEATURES}
    model = Part(spec.model.name, {**spec.model.arguments, **shape})
    features = Part(spec.features.name, {**spec.features.arguments, **live})
    made = Recognizer(replace(spec, model=model, features=features))
    weights = one_way(trained.model.state_dict())
    fresh = {n: v for n, v in made.model.state_dict().items() if n.startswith("lookahead.")}
    made.model.load_state_dict({**weights, **fresh})
    if spec.features.arguments["normalizer"] == live["normalizer"]:
        made.features.load_state_dict(trained.features.state_dict())
    return made


def origin_of(path: Path) -> dict[str, str]:
    """Tell what the training summary of a new model says of the file that it started from.

    Raises:
        OSError: missing or unreadable.
    """
    return {"init_from": path.name, "init_from_sha256": file_digest(path)}


@torch.no_grad()
def carry_weights(trained: Recognizer, fresh: Recognizer) -> None:
    """Copy all weights and statistics; the head's go by character or phone, see `head_rows`.

    Args:
        trained: where they come from.
        fresh: where they go to; its alphabet may be another.

    Raises:
        ValueError: a weight of another shape than the fresh model's, which is then untouched.
    """
    weights, targets = trained.state_dict(), fresh.state_dict()
    old, new = trained.label_names, fresh.label_names
    for name in HEAD:
        weights[name] = head_rows(weights[name], trained.model.upsampling, old, new)
    _check_shapes(weights, targets)
    for name, target in targets.items():
        target.copy_(weights[name])


def head_rows(rows: Tensor, upsampling: int, old: Sequence[str], new: Sequence[str]) -> Tensor:
    """Make the head's weight or bias for another alphabet, or other phones.

    The blank and the characters of both alphabets keep their rows. A character that is new gets the
    mean of the old characters' rows, so its logit is the mean of theirs and its probability their
    geometric mean: at no input more than an average character's, and next to nothing wherever the
    model is sure of one. It starts as some character or other and leaves the ratios of the rest
    alone (Hewitt, "Initializing new word embeddings for pretrained language models", 2021).

    Args:
        rows: `(upsampling * V, ...)`.
        upsampling: output frames that the head reads off one LSTM frame.
        old: characters of the rows, or phones by name, V - 1.
        new: those of the result, V' - 1.

    Returns:
        `(upsampling * V', ...)`.
    """
    of_phases = rows.reshape(upsampling, len(old) + 1, *rows.shape[1:])  # (upsampling, V, ...)
    mean = of_phases[:, BLANK_ID + 1 :].mean(dim=1, keepdim=True)
    with_mean = torch.cat([of_phases, mean], dim=1)  # at V
    ids = {character: i for i, character in enumerate(old, BLANK_ID + 1)}
    chosen = [BLANK_ID, *(ids.get(character, len(old) + 1) for character in new)]
    return with_mean[:, chosen].flatten(0, 1)


def _notes(file: str, theirs: ModelSpec, ours: ModelSpec) -> Iterator[str]:
    decided = [
        f"{name} {value} of the model file, not {our.arguments[name]} of the settings"
        for their, our in ((theirs.features, ours.features), (theirs.model, ours.model))
        for name, value in their.arguments.items()
        if name not in TRAINING_ARGUMENTS and our.arguments[name] != value
    ]
    if decided:
        yield f"{file}: {'; '.join(decided)}"
    was, is_now = (spec.model.arguments["zoneout"] for spec in (theirs, ours))
    if was != is_now:
        yield (
            f"{file}: zoneout {is_now} of the settings, not {was} of the model file: evaluation "
            "keeps that share of the state too, so the start is not quite that model"
        )
    rules = [
        f"{name} {ours.text[name]} of the settings, not {value} of the model file"
        for name, value in theirs.text.items()
        if ours.text[name] != value and (name, value) != ("unit", AUTO)  # older files have none
    ]
    if rules:
        yield f"{file}: text rules: {'; '.join(rules)}"
    old, new = ([spec.phones.get(each, each) for each in spec.alphabet] for spec in (theirs, ours))
    sign = " " if theirs.phones or ours.phones else ""
    told = [
        f"{len(names)} {what} ({sign.join(names)!r})" if names else f"none {what}"
        for what, names in (
            ("kept", [character for character in new if character in old]),
            ("added", [character for character in new if character not in old]),
            ("dropped", [character for character in old if character not in new]),
        )
    ]
    what = "phones" if theirs.phones or ours.phones else "characters"
    yield f"{file}: {what}: {', '.join(told)}"


# --- the average of several ----------------------------------------------------------------------


def average_models(paths: Sequence[Path]) -> tuple[Recognizer, dict[str, Any]]:
    """Average every weight of several model files, summed in float64.

    Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018.
    Batch norm's running statistics are averaged like the weights, though those of the averaged
    weights are not quite their mean; its count of batches, which nothing reads, is rounded down.

    Args:
        paths: model files, two or more.

    Returns:
        The recogniser in evaluation mode, and a training summary that names the files.

    Raises:
        ValueError: fewer than two, one given twice, not a model file, or one whose description or
            feature statistics are not those of the first.
        OSError: missing or unreadable.
    """
    if len(paths) < 2:
        raise ValueError(f"{len(paths)} model to average, expected 2 or more")
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is given twice, expected each model once")
    average, training = load_model(paths[0])
    trainings, expected = [training], _flat(average.spec)
    statistics = average.features.state_dict()
    sums = {name: tensor.double() for name, tensor in average.state_dict().items()}
    for path in paths[1:]:
        other, training = load_model(path)
        found = _flat(other.spec)
        for name in sorted(found.keys() | expected.keys()):
            was, wanted = found.get(name), expected.get(name)
            if was != wanted:
                raise ValueError(f"{path}: {name} is {was!r}, expected {wanted!r} as in {paths[0]}")
        # Models that see features of different scales have no mean that makes sense of either.
        for name, tensor in other.features.state_dict().items():
            if not torch.equal(tensor, statistics[name]):
                raise ValueError(
                    f"{path}: features.{name} has other values than in {paths[0]}, expected models "
                    "of one training, with the same feature statistics"
                )
        trainings.append(training)
        for name, tensor in other.state_dict().items():
            sums[name] += tensor.double()
    for name, tensor in average.state_dict().items():
        tensor.copy_(sums[name] / len(paths))
    sources = [
        f"{path.name} (step {training.get('step', 'unknown')}, sha256 {file_digest(path)[:12]})"
        for path, training in zip(paths, trainings, strict=True)
    ]
    summary: dict[str, Any] = {"average_of": ", ".join(sources)}
    data = {training.get("data_fingerprint") for training in trainings}
    if len(data) == 1:
        summary["data_fingerprint"] = data.pop()
    return average, summary


def _flat(spec: ModelSpec) -> dict[str, Any]:
    """Tell a complete spec as one mapping: "model.hidden_size" and the like to values."""
    spec = complete_spec(spec)
    flat: dict[str, Any] = {
        "alphabet": spec.alphabet, "phones": spec.phones, "lexicon": spec.lexicon,
    }  # fmt: skip
    for stage, part in (("features", spec.features), ("model", spec.model)):
        flat[stage] = part.name
        flat |= {f"{stage}.{name}": value for name, value in part.arguments.items()}
    return flat | {f"text.{name}": value for name, value in spec.text.items()}
