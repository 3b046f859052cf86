"""The mean of several models of one architecture, as of one training's last validations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from asr.checkpoint.model_file import (
    ModelSpec,
    Recognizer,
    complete_spec,
    file_digest,
    load_model,
)


def average_models(paths: Sequence[Path]) -> tuple[Recognizer, dict[str, Any]]:
    """The arithmetic mean of every weight of several model files, summed in float64.

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
    trainings = [training]
    sums = {name: tensor.double() for name, tensor in average.state_dict().items()}
    for path in paths[1:]:
        other, training = load_model(path)
        _check_description(path, other.spec, paths[0], average.spec)
        _check_statistics(path, other, paths[0], average)
        trainings.append(training)
        for name, tensor in other.state_dict().items():
            sums[name] += tensor.double()
    for name, tensor in average.state_dict().items():
        tensor.copy_(sums[name] / len(paths))
    return average, _summary(paths, trainings)


def _check_description(path: Path, spec: ModelSpec, first: Path, expected: ModelSpec) -> None:
    found, wanted = _flat(complete_spec(spec)), _flat(complete_spec(expected))
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            was, expects = found.get(name), wanted.get(name)
            raise ValueError(f"{path}: {name} is {was!r}, expected {expects!r} as in {first}")


def _flat(spec: ModelSpec) -> dict[str, Any]:
    """A spec as one mapping: "model.hidden_size" and the like to values."""
    flat: dict[str, Any] = {"alphabet": spec.alphabet}
    for stage, part in (("features", spec.features), ("model", spec.model)):
        flat[stage] = part.name
        flat |= {f"{stage}.{name}": value for name, value in part.arguments.items()}
    return flat | {f"text.{name}": value for name, value in spec.text.items()}


def _check_statistics(path: Path, other: Recognizer, first: Path, average: Recognizer) -> None:
    """Models that see features of different scales have no mean that makes sense of either."""
    expected = average.features.state_dict()
    for name, tensor in other.features.state_dict().items():
        if not torch.equal(tensor, expected[name]):
            raise ValueError(
                f"{path}: features.{name} has other values than in {first}, expected models of one "
                "training, with the same feature statistics"
            )


def _summary(paths: Sequence[Path], trainings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sources = [
        f"{path.name} (step {training.get('step', 'unknown')}, sha256 {file_digest(path)[:12]})"
        for path, training in zip(paths, trainings, strict=True)
    ]
    summary: dict[str, Any] = {"average_of": ", ".join(sources)}
    data = {training.get("data_fingerprint") for training in trainings}
    return summary | ({"data_fingerprint": data.pop()} if len(data) == 1 else {})
