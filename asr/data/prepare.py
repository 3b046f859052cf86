"""From checked utterances to a prepared corpus: texts, audio, manifests and corpus.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from asr.data.checks import check_characters, check_file, check_text
from asr.data.corpus_folder import (
    Advance,
    Conversion,
    Corpus,
    Say,
    place_audio,
    remove_stale_audio,
    write_if_changed,
)
from asr.data.corpus_record import RECORD_FILE, SPLITS
from asr.data.manifest import Row, Utterance, findings, manifest_bytes, seconds, sift, utterances
from asr.data.remarks import amount_remark, figure_remark, space_remark, tag_remark
from asr.finding import Finding, as_lines
from asr.text import CharTokenizer, TextNormalizer

FORMAT_VERSION = 1  # of corpus.json
SHOWN_REJECTIONS = 20
SHOWN_NAMES = 8  # of speakers, in a note


@dataclass(frozen=True)
class Settings:
    """How a corpus is to be written, and what to do with what is bad.

    Attributes:
        conversion: what becomes of the audio.
        text: rules for every transcript.
        alphabet: characters that texts may have; None takes those of the training texts.
        skip_bad: leave out what is bad and list it, instead of stopping.

    Raises:
        ValueError: for a value out of range.
    """

    conversion: Conversion = field(default_factory=Conversion)
    text: TextNormalizer = field(default_factory=TextNormalizer)
    alphabet: str | None = None
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.skip_bad, bool):
            raise ValueError(f"skip_bad is {self.skip_bad!r}, expected true or false")
        if self.alphabet is not None:
            CharTokenizer(self.alphabet)


@dataclass(frozen=True)
class SplitSummary:
    """Totals of one split.

    Attributes:
        name: "train", "dev" or "test".
        manifest: the JSON lines file.
        utterances: how many.
        seconds: of audio [s].
        speakers: how many different ones are named.
        characters_per_second: of the slowest and of the fastest utterance [1/s].
    """

    name: str
    manifest: Path
    utterances: int
    seconds: float
    speakers: int
    characters_per_second: tuple[float, float]


@dataclass(frozen=True)
class PreparedCorpus:
    """A corpus that is ready for training.

    Attributes:
        name: of the corpus.
        folder: holds the manifests, corpus.json, and the audio where it was converted.
        splits: those the corpus has, in the order train, dev, test.
        alphabet: characters of the training texts, or those asked for, sorted.
        notes: what the user should know, one sentence each.
    """

    name: str
    folder: Path
    splits: tuple[SplitSummary, ...]
    alphabet: str
    notes: tuple[str, ...]


def silent(*told: object) -> None:
    """Say nothing of what is told."""


def prepare_corpus(
    folder: Path,
    splits: Corpus,
    settings: Settings,
    *,
    source: str,
    rejected: Sequence[Finding] = (),
    notes: Sequence[str] = (),
    say: Say = silent,
    progress: Advance = silent,
) -> PreparedCorpus:
    """Check texts and audio, write what training reads; what is done already stays.

    corpus.json is written last and holds the sha256 of every manifest: where they agree, the
    preparation was completed.

    Args:
        folder: of the corpus, locked; its name is the corpus's.
        splits: utterances by split; train must be among them.
        settings: text rules, audio format and the rest.
        source: where the corpus comes from, for corpus.json.
        rejected: what could not even be read.
        notes: what the user should know, one sentence each.
        say: told of every step, and of what is bad.
        progress: told how far a long step is: what is done, its unit, how many of how many.

    Returns:
        The prepared corpus.

    Raises:
        ValueError: where something is bad and may not be skipped, or nothing is left.
        OSError: where a file cannot be written.
    """
    bad = [*rejected]
    written = [each.text for items in splits.values() for each in items]
    splits = _normalise(splits, settings.text, bad, say)
    # Found out for all before the long work on the first begins.
    splits = _sift(splits, check_file, bad)
    splits = _sift_characters(splits, settings, bad)
    _stop_if_bad(folder, bad, settings.skip_bad, say)
    overlaps = _overlaps(splits)
    audio = place_audio(folder, splits, settings.conversion, say, progress)
    bad.extend(audio.rejected)
    # Once more: what training lost may have been the only one with some character.
    splits = _sift_characters(audio.splits, settings, bad)
    _stop_if_bad(folder, bad, settings.skip_bad, say)
    _write_rejected(folder, bad)
    for name, items in splits.items():
        if not items:
            raise ValueError(f"{folder.name}: no {name} utterance is left, expected at least one")
    alphabet = _tokenizer(splits, settings).alphabet
    summaries = [_write_split(folder, name, items, say) for name, items in splits.items()]
    num_stale = remove_stale_audio(folder, splits, say)
    for stale in (folder / f"{name}.jsonl" for name in SPLITS if name not in splits):
        num_stale += stale.exists()
        stale.unlink(missing_ok=True)
    if num_stale:
        say(f"removed {num_stale} files of an earlier preparation")
    remarks = [*notes, *audio.notes, *overlaps]
    spoken = [each.text for each in splits["train"]]
    remarks += filter(None, (
        tag_remark(written, settings.text),
        figure_remark(spoken),
        space_remark("train", spoken),
        amount_remark("train", summaries[0].seconds, spoken),
    ))  # fmt: skip
    if bad:
        remarks.append(f"{len(bad)} bad utterances were left out, listed in rejected.jsonl.")
    corpus = PreparedCorpus(folder.name, folder, tuple(summaries), alphabet, tuple(remarks))
    description = _description(corpus, settings, source, len(bad))
    content = json.dumps(description, ensure_ascii=False, indent=2) + "\n"
    is_new = write_if_changed(folder / RECORD_FILE, content.encode())
    say(f"corpus.json: {'written' if is_new else 'already done'}")
    return corpus


# --- what is checked ---------------------------------------------------------------------------


def _normalise(
    splits: Corpus, text: TextNormalizer, bad: list[Finding], say: Say
) -> dict[str, list[Utterance]]:
    good: dict[str, list[Utterance]] = {}
    num_changed = 0
    for split, items in splits.items():
        rows: list[Row] = []
        for item in items:
            normal = replace(item, text=text(item.text))
            num_changed += normal.text != item.text
            rows.append(check_text(normal, item.text) or normal)
        bad.extend(findings(rows))
        good[split] = utterances(rows)
    total = sum(map(len, splits.values()))
    say(f"text: the rules changed {num_changed} of {total} transcripts")
    return good


def _sift(
    splits: Corpus, check: Callable[[Utterance], Finding | None], bad: list[Finding]
) -> Corpus:
    """What a check does not object to; what it says of the rest is added to `bad`."""
    rows = {split: sift(items, check) for split, items in splits.items()}
    bad.extend(finding for own in rows.values() for finding in findings(own))
    return {split: utterances(own) for split, own in rows.items()}


def _sift_characters(splits: Corpus, settings: Settings, bad: list[Finding]) -> Corpus:
    if not splits["train"]:
        return splits
    tokenizer = _tokenizer(splits, settings)
    lacking = "the training texts lack" if settings.alphabet is None else "the alphabet lacks"
    return _sift(splits, lambda each: check_characters(each, tokenizer, lacking), bad)


def _tokenizer(splits: Corpus, settings: Settings) -> CharTokenizer:
    if settings.alphabet is not None:
        return CharTokenizer(sorted(settings.alphabet))
    return CharTokenizer.from_texts(utterance.text for utterance in splits["train"])


def _stop_if_bad(folder: Path, bad: Sequence[Finding], skip_bad: bool, say: Say) -> None:
    if not bad or skip_bad:
        return
    _write_rejected(folder, bad)
    for finding in bad[:SHOWN_REJECTIONS]:
        say(f"bad: {finding.where}: {finding.reason}")
    others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    raise ValueError(
        f"{bad[0].where}: {bad[0].reason}{others}; {folder / 'rejected.jsonl'} lists all, "
        "skip_bad=true leaves them out"
    )


def _overlaps(splits: Corpus) -> list[str]:
    """Notes on what would make error rates look better than they are."""
    notes = []
    speakers = {
        split: {each.speaker for each in items if each.speaker is not None}
        for split, items in splits.items()
    }
    audio = {split: {each.place for each in items} for split, items in splits.items()}
    pairs = [(a, b) for a in splits for b in splits if SPLITS.index(a) < SPLITS.index(b)]
    for first, second in pairs:
        shared = sorted(speakers[first] & speakers[second])
        if shared and first == "train":
            notes.append(
                f"{first} and {second} share {len(shared)} speakers "
                f"({_listed(shared)}): error rates are those of known voices."
            )
        if again := audio[first] & audio[second]:
            notes.append(f"{first} and {second} share {len(again)} recordings.")
    return notes


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


# --- what is written ---------------------------------------------------------------------------


def _write_rejected(folder: Path, bad: Sequence[Finding]) -> None:
    path = folder / "rejected.jsonl"
    if bad:
        write_if_changed(path, as_lines(bad).encode())
    else:
        path.unlink(missing_ok=True)


def _write_split(folder: Path, name: str, items: Sequence[Utterance], say: Say) -> SplitSummary:
    path = folder / f"{name}.jsonl"
    is_new = write_if_changed(path, manifest_bytes(path, items))
    say(f"{path.name}: {len(items)} utterances, {'written' if is_new else 'already done'}")
    rates = [len(utterance.text) / seconds(utterance) for utterance in items]
    return SplitSummary(
        name=name,
        manifest=path,
        utterances=len(items),
        seconds=sum(map(seconds, items)),
        speakers=len({each.speaker for each in items if each.speaker is not None}),
        characters_per_second=(min(rates), max(rates)),
    )


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
            "sha256": hashlib.sha256(split.manifest.read_bytes()).hexdigest(),
        }
    manifests = " ".join(str(split["sha256"]) for split in splits.values())
    conversion = settings.conversion
    return {
        "format_version": FORMAT_VERSION,
        "name": corpus.name,
        "source": source,
        "splits": splits,
        "alphabet": corpus.alphabet,
        "text": settings.text.settings(),
        "audio": {"format": conversion.audio_format, "sample_rate": conversion.sample_rate},
        "rejected": num_rejected,
        "notes": list(corpus.notes),
        "fingerprint": hashlib.sha256(manifests.encode()).hexdigest(),
    }
