"""Manifests without what was found wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from asr.data.doctor.examine import Examination
from asr.data.doctor.examined import ExaminedManifest
from asr.data.manifest import Utterance, write_manifest
from asr.finding import Kind, Severity

# Of whole manifests: no utterance is the one to drop.
OF_MANIFESTS = (Kind.SPEAKER_OVERLAP, Kind.TEXT_OVERLAP)


def clean_utterances(
    examination: Examination, manifest: ExaminedManifest, also: Collection[Kind] = ()
) -> list[Utterance]:
    """The utterances of a manifest, as it has them, without those with an error.

    Args:
        examination: what was found.
        manifest: one of its manifests.
        also: kinds of warnings whose utterances go as well.
    """
    dropped = {
        finding.line
        for finding in examination.findings
        if finding.manifest == manifest.manifest
        and (finding.kind.severity is Severity.ERROR or finding.kind in also)
    }
    return [each.utterance for each in manifest.utterances if each.utterance.line not in dropped]


def clean_paths(manifests: Sequence[Path], target: Path) -> list[Path]:
    """Where the cleaned manifests go: one to the target itself, several into it as a folder.

    Raises:
        ValueError: a name that is not a JSONL file's, two manifests of one name, or a file that
            would overwrite a manifest that is examined.
    """
    if len(manifests) == 1:
        if target.suffix != ".jsonl":
            raise ValueError(f"{target}: not a name for a manifest, expected one ending in .jsonl")
        paths = [target]
    else:
        paths = [target / f"{path.stem}.jsonl" for path in manifests]
        twice = next((path for path in paths if paths.count(path) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice}: two manifests would be written to it, expected one each")
    read = {path.resolve() for path in manifests}
    over = next((path for path in paths if path.resolve() in read), None)
    if over is not None:
        raise ValueError(f"{over}: is examined, expected another file to write what is left of it")
    return paths


def write_clean(
    examination: Examination, paths: Sequence[Path], also: Collection[Kind] = ()
) -> list[int]:
    """Write the cleaned manifests; returns the number of utterances of each.

    Raises:
        ValueError: a manifest of which nothing is left; nothing is written then.
        OSError: from writing.
    """
    cleaned = [clean_utterances(examination, each, also) for each in examination.manifests]
    for manifest, utterances in zip(examination.manifests, cleaned, strict=True):
        if not utterances:
            raise ValueError(f"{manifest.manifest}: no utterance is left, expected at least one")
    for path, utterances in zip(paths, cleaned, strict=True):
        write_manifest(path, utterances)
    return [len(utterances) for utterances in cleaned]
