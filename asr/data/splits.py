"""The utterances a training reads: manifests, text rules and the alphabet, checked together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asr.audio import probe
from asr.data.doctor.checks import check_characters, check_duration, check_file, check_text
from asr.data.folds import check_folds, cut_fold
from asr.data.manifest import Row, Utterance, findings, scan_manifest, sift, utterances
from asr.finding import Finding, Kind, describe_error, summarise
from asr.text import CharTokenizer, TextNormalizer


@dataclass(frozen=True)
class Splits:
    """Utterances to train on and to choose by, with normalised text and known durations.

    Attributes:
        train: utterances to learn from.
        dev: utterances to validate on.
        text: the transcript rules.
        alphabet: characters in the order of their ids, from 1.
        left_out: lines of the training manifests that cannot be used, and why, in their order.
    """

    train: tuple[Utterance, ...]
    dev: tuple[Utterance, ...]
    text: TextNormalizer
    alphabet: str
    left_out: tuple[Finding, ...] = ()

    def fingerprint(self) -> str:
        """sha256 over ids, durations and texts of both splits."""
        digest = hashlib.sha256()
        for name, split in (("train", self.train), ("dev", self.dev)):
            for item in split:
                row = [name, item.id, item.duration, item.offset, item.text]
                digest.update(json.dumps(row).encode())
        return digest.hexdigest()


def load_splits(
    train: str | Sequence[str],
    dev: str | Sequence[str] | None,
    text: TextNormalizer,
    alphabet: str | None = None,
    min_duration_s: float = 0.1,
    max_duration_s: float = 40.0,
    limit: int | None = None,
    folds: int = 0,
    fold: int = 0,
    fold_seed: int = 0,
    notice: Callable[[str], None] = print,
) -> Splits:
    """Read the manifests of a training.

    What cannot be used of the training manifests is left out by name: bad lines, ids that occur
    twice, missing audio files, durations out of bounds, empty texts, characters outside a given
    alphabet. In dev all but the durations is an error, as the error rate of what is left would be
    another one. With `folds`, what is wrong but for the durations is left out before the cut. Audio
    is not decoded.

    Args:
        train: manifest or manifests to learn from; ids of several get their folder's name in front.
        dev: manifest or manifests to validate on; None with `folds`.
        text: rules that make every transcript comparable; applied to both.
        alphabet: characters of the model; None takes those of the training texts. With `folds` it
            takes those of all texts, dev's too: else models of different folds would have different
            sizes and a fold with a rare character could not be validated on.
        min_duration_s: shorter training utterances are left out [s].
        max_duration_s: longer training utterances are left out [s].
        limit: use only so many utterances of each split, the first ones; None uses all.
        folds: cut `train` into so many folds of like duration that share no speaker, and validate
            on one of them (`cut_fold`); 0 does not.
        fold: the one to validate on, from 0.
        fold_seed: decides between speakers of equal duration.
        notice: told in a line how much was left out.

    Returns:
        Both splits, texts normalised, durations known, and what was left out.

    Raises:
        ValueError: a manifest that cannot be read, anything wrong in dev, a limit below 1, a split
            with no utterance left, or folds that cannot be made.
        OSError: a missing manifest.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit}, expected at least 1 utterance of each split")
    check_folds(folds, fold, dev)
    rows = sift(_read(train, text), check_text)
    of_fold: tuple[Utterance, ...] = ()
    if folds:
        # Before the cut: the folds and their alphabet are the same, whichever is dev.
        rows, tokenizer = _writable(rows, alphabet)
        rows, of_fold = _take_fold(rows, folds, fold, fold_seed, notice)
    rows = sift(rows, lambda u: check_duration(u, seconds(u), min_duration_s, max_duration_s))
    _check_some_left(rows)
    if not folds:
        rows, tokenizer = _writable(rows, alphabet)
    rows = _first(rows, limit)
    left_out = findings(rows)
    if left_out:
        notice(
            f"{len(left_out)} of {len(rows)} training utterances left out: {summarise(left_out)}"
        )
    dev_utterances = of_fold[:limit] if folds else read_dev(dev or (), text, tokenizer, limit)
    return Splits(
        tuple(utterances(rows)), dev_utterances, text, tokenizer.alphabet, tuple(left_out)
    )


def read_dev(
    manifests: str | Sequence[str],
    text: TextNormalizer,
    tokenizer: CharTokenizer,
    limit: int | None = None,
) -> tuple[Utterance, ...]:
    """The utterances to validate on, texts normalised and durations known: all of them or none.

    Args:
        manifests: one or several; ids of several get their folder's name in front.
        text: rules that make every transcript comparable.
        tokenizer: that can write every text.
        limit: use only so many utterances, the first ones; None uses all.

    Raises:
        ValueError: a manifest that cannot be read, or anything wrong in one, but for durations.
        OSError: a missing manifest.
    """
    rows = sift(_read(manifests, text), check_text)
    rows = _first(sift(rows, lambda u: check_characters(u, tokenizer)), limit)
    _check_dev(findings(rows))
    return tuple(utterances(rows))


def seconds(utterance: Utterance) -> float:
    """The duration [s] of an utterance of `Splits`, where none is unknown."""
    assert utterance.duration is not None, "filled in when read"
    return utterance.duration


def _read(manifests: str | Sequence[str], text: TextNormalizer) -> list[Row]:
    """The lines of a split, whose utterances have normalised text, audio and a duration."""
    paths = [Path(manifests)] if isinstance(manifests, str) else [Path(path) for path in manifests]
    if not paths:
        raise ValueError("no manifest given, expected at least one path")
    rows: list[Row] = []
    for path in paths:
        prefix = f"{path.resolve().parent.name}/" if len(paths) > 1 else ""
        for row in scan_manifest(path):
            if isinstance(row, Utterance):
                row = replace(row, text=text(row.text), id=f"{prefix}{row.id}")
            rows.append(row)
    if len(paths) > 1:
        rows = _without_shared_ids(rows)
    rows = sift(rows, check_file)
    return [row if isinstance(row, Finding) else _with_duration(row) for row in rows]


def _writable(rows: Sequence[Row], alphabet: str | None) -> tuple[list[Row], CharTokenizer]:
    """The rows that the alphabet can write; without one, that of all their characters."""
    _check_some_left(rows)
    texts = [each.text for each in utterances(rows)]
    tokenizer = CharTokenizer.from_texts(texts) if alphabet is None else CharTokenizer(alphabet)
    kept = sift(rows, lambda u: check_characters(u, tokenizer))
    _check_some_left(kept)
    return kept, tokenizer


def _take_fold(
    rows: Sequence[Row], folds: int, fold: int, seed: int, notice: Callable[[str], None]
) -> tuple[list[Row], tuple[Utterance, ...]]:
    """The rows to learn from, and the utterances of the fold to validate on."""
    dev = cut_fold(utterances(rows), folds, fold, seed, notice).dev
    names = {utterance.id for utterance in dev}
    kept = [row for row in rows if isinstance(row, Finding) or row.id not in names]
    return kept, dev


def _without_shared_ids(rows: Sequence[Row]) -> list[Row]:
    first: dict[str, Utterance] = {}
    kept: list[Row] = []
    for row in rows:
        if isinstance(row, Utterance) and first.setdefault(row.id, row) is not row:
            earlier = first[row.id]
            reason = (
                f"id {row.id!r} is that of {earlier.manifest}:{earlier.line} already: "
                "folders of several manifests need different names, or their utterances other ids"
            )
            row = row.finding(Kind.DUPLICATE_ID, reason)
        kept.append(row)
    return kept


def _with_duration(utterance: Utterance) -> Row:
    """The utterance with the duration of its file where the manifest has none."""
    if utterance.duration is not None:
        return utterance
    try:
        length = probe(utterance.audio_filepath).duration
    except (ValueError, OSError) as error:
        return utterance.finding(Kind.UNREADABLE_AUDIO, describe_error(error))
    duration = length - utterance.offset
    if duration <= 0:
        reason = f"offset {utterance.offset:g} s, expected less than the file's {length:g} s"
        return utterance.finding(Kind.UNREADABLE_AUDIO, reason)
    return replace(utterance, duration=duration)


def _first(rows: Sequence[Row], limit: int | None) -> list[Row]:
    """The rows up to the limit's last utterance: what comes later is neither used nor left out."""
    kept: list[Row] = []
    used = 0
    for row in rows:
        if used == limit:
            break
        used += isinstance(row, Utterance)
        kept.append(row)
    return kept


def _check_some_left(rows: Sequence[Row]) -> None:
    if not utterances(rows):
        left_out = findings(rows)
        bounded = any(each.kind in (Kind.TOO_SHORT, Kind.TOO_LONG) for each in left_out)
        raise ValueError(
            f"no training utterance left of {len(rows)}: {summarise(left_out)}"
            f"{' (data.min_duration_s, data.max_duration_s)' if bounded else ''}; "
            f"first: {left_out[0]}"
        )


def _check_dev(faults: Sequence[Finding]) -> None:
    if not faults:
        return
    first, *others = faults
    more = f" (and {len(others)} more in dev: {summarise(others)})" if others else ""
    remedy = "; correct the text, its rules (data.text) or data.alphabet"
    raise ValueError(f"dev: {first}{more}{remedy if first.kind is Kind.UNKNOWN_CHARACTER else ''}")
