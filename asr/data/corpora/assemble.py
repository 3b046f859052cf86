"""From checked utterances to a prepared corpus: texts, audio, manifests and corpus.json."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from asr.data.corpora.audio_files import place_audio, remove_stale_audio
from asr.data.corpora.corpus_folder import json_bytes, sha256, write_if_changed
from asr.data.corpora.prepared import (
    SPLITS,
    PreparedCorpus,
    Progress,
    SplitSummary,
)
from asr.data.corpora.settings import Settings
from asr.data.manifest import Utterance, manifest_bytes
from asr.finding import Finding, Kind, as_lines, describe_error
from asr.text import CharTokenizer, describe_character

FORMAT_VERSION = 1  # of corpus.json
SHOWN_REJECTIONS = 20
SHOWN_NAMES = 8  # of speakers or characters, in a note

Splits = Mapping[str, Sequence[Utterance]]


def assemble_corpus(
    folder: Path,
    splits: Splits,
    settings: Settings,
    progress: Progress,
    *,
    source: str,
    rejected: Sequence[Finding] = (),
    notes: Sequence[str] = (),
) -> PreparedCorpus:
    """Check texts and audio, write what training reads; what is done already stays.

    corpus.json is written last and holds the sha256 of every manifest: where they agree, the
    preparation was completed.

    Args:
        folder: of the corpus, locked; its name is the corpus's.
        splits: utterances by split; train must be among them.
        settings: text rules, audio format and the rest.
        progress: told about every step.
        source: where the corpus comes from, for corpus.json.
        rejected: what could not even be read.
        notes: what the user should know, one sentence each.

    Returns:
        The prepared corpus.

    Raises:
        ValueError: where something is bad and may not be skipped, or nothing is left.
        OSError: where a file cannot be written.
    """
    bad = [*rejected]
    splits = _normalise(splits, settings, bad, progress)
    splits = _keep_existing(splits, bad)
    splits = _check_characters(splits, settings, bad)
    _stop_if_bad(folder, bad, settings, progress)
    overlaps = _overlaps(splits)
    audio = place_audio(folder, splits, settings, progress)
    bad.extend(audio.rejected)
    # Once more: what training lost may have been the only one with some character.
    splits = _check_characters(audio.splits, settings, bad)
    _stop_if_bad(folder, bad, settings, progress)
    _write_rejections(folder, bad)
    _require_all(folder, splits)
    tokenizer = _tokenizer(splits, settings)
    summaries = [_write_split(folder, name, items, progress) for name, items in splits.items()]
    _remove_stale(folder, splits, progress)
    remarks = [*notes, *audio.notes, *overlaps, *_unspelt(tokenizer.alphabet)]
    if bad:
        remarks.append(f"{len(bad)} bad utterances were left out, listed in rejected.jsonl.")
    corpus = PreparedCorpus(
        folder.name, folder, tuple(summaries), tokenizer.alphabet, tuple(remarks)
    )
    content = json_bytes(_description(corpus, settings, source, len(bad)))
    state = "written" if write_if_changed(folder / "corpus.json", content) else "already done"
    progress.say(f"corpus.json: {state}")
    return corpus


def _normalise(
    splits: Splits, settings: Settings, bad: list[Finding], progress: Progress
) -> Splits:
    good: dict[str, list[Utterance]] = {split: [] for split in splits}
    num_changed = 0
    for split, items in splits.items():
        for item in items:
            text = settings.text(item.text)
            num_changed += text != item.text
            if text:
                good[split].append(replace(item, text=text))
            else:
                actual = f"text is {item.text!r}, which the text rules leave empty"
                bad.append(item.finding(Kind.EMPTY_TEXT, f"{actual}, expected words"))
    total = sum(map(len, splits.values()))
    progress.say(f"text: the rules changed {num_changed} of {total} transcripts")
    return good


def _keep_existing(splits: Splits, bad: list[Finding]) -> Splits:
    """What has an audio file: found out for all before the long work on the first begins."""
    good: dict[str, list[Utterance]] = {split: [] for split in splits}
    for split, items in splits.items():
        for item in items:
            reason = _missing(item.audio_filepath)
            if reason is None:
                good[split].append(item)
            else:
                bad.append(item.finding(Kind.MISSING_AUDIO, reason))
    return good


def _missing(audio: Path) -> str | None:
    try:
        audio.stat()
    except (OSError, ValueError) as error:
        return describe_error(error)
    return None if audio.is_file() else f"{audio}: not a regular file, expected audio"


def _tokenizer(splits: Splits, settings: Settings) -> CharTokenizer:
    if settings.alphabet is not None:
        return CharTokenizer(sorted(settings.alphabet))
    return CharTokenizer.from_texts(item.text for item in splits["train"])


def _check_characters(splits: Splits, settings: Settings, bad: list[Finding]) -> Splits:
    if not splits["train"]:
        return splits
    tokenizer = _tokenizer(splits, settings)
    lacking = "the training texts lack" if settings.alphabet is None else "the alphabet lacks"
    good: dict[str, list[Utterance]] = {split: [] for split in splits}
    for split, items in splits.items():
        for item in items:
            unknown = tokenizer.unknown_characters(item.text)
            if unknown:
                reason = (
                    f"text has {describe_character(unknown[0])}, which {lacking}, "
                    f"expected characters of {tokenizer.alphabet!r}"
                )
                bad.append(item.finding(Kind.UNKNOWN_CHARACTER, reason))
            else:
                good[split].append(item)
    return good


def _stop_if_bad(
    folder: Path, bad: Sequence[Finding], settings: Settings, progress: Progress
) -> None:
    if not bad or settings.skip_bad:
        return
    _write_rejections(folder, bad)
    for finding in bad[:SHOWN_REJECTIONS]:
        progress.say(f"bad: {finding.where}: {finding.reason}")
    others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    raise ValueError(
        f"{bad[0].where}: {bad[0].reason}{others}; {folder / 'rejected.jsonl'} lists all, "
        "skip_bad=true leaves them out"
    )


def _require_all(folder: Path, splits: Splits) -> None:
    for name, items in splits.items():
        if not items:
            raise ValueError(f"{folder.name}: no {name} utterance is left, expected at least one")


def _write_rejections(folder: Path, bad: Sequence[Finding]) -> None:
    path = folder / "rejected.jsonl"
    if not bad:
        path.unlink(missing_ok=True)
        return
    write_if_changed(path, as_lines(bad).encode())


def _write_split(
    folder: Path, name: str, utterances: Sequence[Utterance], progress: Progress
) -> SplitSummary:
    path = folder / f"{name}.jsonl"
    written = write_if_changed(path, manifest_bytes(path, utterances))
    progress.say(
        f"{path.name}: {len(utterances)} utterances, {'written' if written else 'already done'}"
    )
    rates = [len(utterance.text) / _seconds(utterance) for utterance in utterances]
    return SplitSummary(
        name=name,
        manifest=path,
        utterances=len(utterances),
        seconds=sum(map(_seconds, utterances)),
        speakers=len({u.speaker for u in utterances if u.speaker is not None}),
        characters_per_second=(min(rates), max(rates)),
    )


def _seconds(utterance: Utterance) -> float:
    assert utterance.duration, "measured when the audio was placed"
    return utterance.duration


def _remove_stale(folder: Path, splits: Splits, progress: Progress) -> None:
    num_files = remove_stale_audio(folder, splits, progress)
    for name in SPLITS:
        path = folder / f"{name}.jsonl"
        if name not in splits and path.exists():
            path.unlink()
            num_files += 1
    if num_files:
        progress.say(f"removed {num_files} files of an earlier preparation")


def _overlaps(splits: Splits) -> list[str]:
    """Notes on what would make error rates look better than they are."""
    notes = []
    pairs = [(a, b) for a in splits for b in splits if SPLITS.index(a) < SPLITS.index(b)]
    for first, second in pairs:
        speakers = _speakers(splits[first]) & _speakers(splits[second])
        if speakers and first == "train":
            notes.append(
                f"{first} and {second} share {len(speakers)} speakers "
                f"({_listed(sorted(speakers))}): error rates are those of known voices."
            )
        audio = _audio(splits[first]) & _audio(splits[second])
        if audio:
            notes.append(f"{first} and {second} share {len(audio)} recordings.")
    return notes


def _speakers(items: Sequence[Utterance]) -> set[str]:
    return {item.speaker for item in items if item.speaker is not None}


def _audio(items: Sequence[Utterance]) -> set[tuple[Path, float]]:
    return {(item.audio_filepath, item.offset) for item in items}


def _unspelt(alphabet: str) -> list[str]:
    strange = [c for c in alphabet if unicodedata.category(c)[0] in "NS" or c in "%&@#"]
    if not strange:
        return []
    return [f"The alphabet has {_listed(strange)}: spell out what is read as words."]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def _description(
    corpus: PreparedCorpus, settings: Settings, source: str, num_rejected: int
) -> dict[str, object]:
    """What corpus.json holds; the same for the same source and settings, on any day."""
    splits: dict[str, dict[str, object]] = {}
    for split in corpus.splits:
        slowest, fastest = split.characters_per_second
        splits[split.name] = {
            "manifest": split.manifest.name,
            "utterances": split.utterances,
            "seconds": round(split.seconds, 3),
            "speakers": split.speakers,
            "characters_per_second": [round(slowest, 3), round(fastest, 3)],
            "sha256": sha256(split.manifest.read_bytes()),
        }
    manifests = " ".join(str(split["sha256"]) for split in splits.values())
    return {
        "format_version": FORMAT_VERSION,
        "name": corpus.name,
        "source": source,
        "splits": splits,
        "alphabet": corpus.alphabet,
        "text": asdict(settings.text),
        "audio": {"format": settings.audio_format, "sample_rate": settings.sample_rate},
        "rejected": num_rejected,
        "notes": list(corpus.notes),
        "fingerprint": sha256(manifests.encode()),
    }
