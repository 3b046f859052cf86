"""What a prepared corpus records of itself, and the text rules that a training takes from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from asr.text import AUTO, TextNormalizer
from asr.untrusted import read_json, record

SPLITS = ("train", "dev", "test")  # of a prepared corpus
RECORD_FILE = "corpus.json"  # beside the manifests of a prepared corpus
MAX_RECORD_BYTES = 1 << 24  # 16 MiB; the alphabet of Chinese takes 20 kB


def prepared_rules(manifest: Path) -> TextNormalizer | None:
    """Read the text rules that a manifest was prepared with, in the corpus.json beside it.

    Returns:
        None where the manifest is none that `asr prepare` wrote.

    Raises:
        ValueError: a record that cannot be read.
        OSError: likewise.
    """
    path = manifest.parent / RECORD_FILE
    if not path.is_file():
        return None
    described = read_json(path, "the record of a prepared corpus", MAX_RECORD_BYTES)
    splits = described.get("splits") if isinstance(described, dict) else None
    rules = described.get("text") if isinstance(described, dict) else None
    if not isinstance(splits, dict) or rules is None:
        return None  # somebody else's file of this name
    names = [each.get("manifest") for each in splits.values() if isinstance(each, dict)]
    return record(TextNormalizer, rules, f"{path}: text") if manifest.name in names else None


def agreed_rules(
    prepared: Iterable[tuple[object, TextNormalizer | None]],
    asked: TextNormalizer,
    notice: Callable[[str], None],
) -> TextNormalizer:
    """The text rules of a training: those that its texts were prepared with, where they were.

    Args:
        prepared: folders of train and dev, and the rules of each; None where they are not known.
        asked: by the settings; the defaults ask for nothing.
        notice: told where the rules are not those of the settings.

    Raises:
        ValueError: two were prepared with different rules, or one with others than asked.
    """
    rules, origin = asked, None
    for folder, own in prepared:
        if own is None:
            continue
        # What errors are counted in changes no text, and may be asked for in training alone.
        unit = next((each.unit for each in (asked, rules, own) if each.unit != AUTO), AUTO)
        rules, own = replace(rules, unit=unit), replace(own, unit=unit)
        if origin is None:
            rules, origin = own, folder
        elif differing := _differing(rules, own):
            raise ValueError(
                f"{folder}: prepared with {_settings(own, differing)}, and {origin} with "
                f"{_settings(rules, differing)}: expected the same text rules, prepare one of them "
                f"again with corpus.text.{differing[0]}"
            )
    differing = _differing(asked, rules)
    given = _differing(asked, TextNormalizer())
    if wrong := [name for name in differing if name in given]:
        raise ValueError(
            f"data.text.{_settings(asked, wrong[:1])}, and {origin} was prepared with "
            f"{_settings(rules, wrong[:1])}: expected data.text as it was prepared, or left out; "
            f"corpus.text.{wrong[0]} prepares anew"
        )
    if differing:
        told = _settings(rules, differing)
        notice(f"text rules are those that {origin} was prepared with: {told}")
    return rules


def _differing(first: TextNormalizer, second: TextNormalizer) -> list[str]:
    ones, others = asdict(first), asdict(second)
    return [name for name in ones if ones[name] != others[name]]


def _settings(rules: TextNormalizer, names: Sequence[str]) -> str:
    values = asdict(rules)
    return ", ".join(f"{name}={json.dumps(values[name], ensure_ascii=False)}" for name in names)
