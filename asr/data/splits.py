"""What a training reads: train and dev, by manifests or by folds, with text rules and alphabet."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from asr.data.checks import (
    check_characters,
    check_duration,
    check_file,
    check_text,
    check_words,
    with_duration,
)
from asr.data.manifest import Row, Utterance, findings, scan_manifests, sift, utterances
from asr.data.remarks import amount_remark, space_remark
from asr.finding import Finding, Kind, summarise
from asr.lexicon import Lexicon, read_lexicon
from asr.text import AUTO, WORD, CharTokenizer, TextNormalizer, settled
from asr.untrusted import read_json, record

SPLITS = ("train", "dev", "test")  # of a prepared corpus
RECORD_FILE = "corpus.json"  # beside the manifests of a prepared corpus
MAX_RECORD_BYTES = 1 << 24  # 16 MiB; the alphabet of Chinese takes 20 kB
SPLIT_BY = ("auto", "speaker", "utterance")
OF_START = "auto"  # the lexicon of the model that a training begins with


@dataclass(frozen=True)
class Splits:
    """Utterances to train on and to choose by, with normalised text and known durations.

    Attributes:
        train: utterances to learn from.
        dev: utterances to validate on.
        text: the transcript rules.
        alphabet: characters in the order of their ids, from 1.
        lexicon: by which the texts are written as they are said; None where they are as written.
        left_out: lines of the training manifests that cannot be used, and why, in their order.
    """

    train: tuple[Utterance, ...]
    dev: tuple[Utterance, ...]
    text: TextNormalizer
    alphabet: str
    left_out: tuple[Finding, ...] = ()
    lexicon: Lexicon | None = None

    def remarks(self) -> list[str]:
        """Say what to expect of the training utterances as a whole, a sentence or two each."""
        spoken, learnt_s = [each.text for each in self.train], sum(map(seconds, self.train))
        remarks = space_remark("train", spoken), amount_remark("train", learnt_s, spoken)
        return [remark for remark in remarks if remark is not None]

    def fingerprint(self) -> str:
        """sha256 over ids, durations and texts of both splits."""
        digest = hashlib.sha256()
        for name, split in (("train", self.train), ("dev", self.dev)):
            for item in split:
                row = [name, item.id, *item.part, item.text]
                digest.update(json.dumps(row).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Start:
    """What the model that a training begins with writes.

    Attributes:
        alphabet: its characters.
        lexicon: by which they are phones; None where they are not.
    """

    alphabet: str
    lexicon: Lexicon | None


def alphabet_of(characters: Iterable[str], start: Start | None) -> str:
    """The characters of texts, and those that the model of the start writes: it forgets none."""
    own = "" if start is None or start.lexicon is not None else start.alphabet
    return "".join(sorted({*characters, *own}))


def load_splits(
    train: str | Sequence[str],
    dev: str | Sequence[str] | None,
    text: TextNormalizer,
    alphabet: str | None = None,
    lexicon: str | None = OF_START,
    min_duration_s: float = 0.1,
    max_duration_s: float = 40.0,
    limit: int | None = None,
    folds: int = 0,
    fold: int = 0,
    fold_seed: int = 0,
    start: Start | None = None,
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
        text: rules that make every transcript comparable; applied to both. The default ones give
            way to those that the manifests were prepared with.
        alphabet: characters of the model; None takes those of the training texts, and of the start.
            With `folds` it takes those of all texts, dev's too: else models of different folds
            would have different sizes and a fold with a rare character could not be validated on.
        lexicon: a file of words and their phones (`read_lexicon`), which the model then writes
            instead of characters. Texts with words that it has not are left out, of dev too.
            OF_START takes that of the start, where it has one and no alphabet is given, and adds
            the words that it has not, said as its own teach; None none.
        min_duration_s: shorter training utterances are left out [s].
        max_duration_s: longer training utterances are left out [s].
        limit: use only so many utterances of each split, the first ones; None uses all.
        folds: cut `train` into so many folds of like duration that share no speaker, and validate
            on one of them (`cut_fold`); 0 does not.
        fold: the one to validate on, from 0.
        fold_seed: decides between speakers of equal duration.
        start: of the model that the training begins with, if it does with one.
        notice: told in a line how much was left out.

    Returns:
        Both splits, texts normalised, durations known, and what was left out.

    Raises:
        ValueError: a manifest that cannot be read, anything wrong in dev, a limit below 1, a split
            with no utterance left, folds that cannot be made, or text rules that are not those that
            a manifest was prepared with.
        OSError: a missing manifest.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit}, expected at least 1 utterance of each split")
    _check_fold(folds, fold, dev)
    manifests = [*_paths(train), *_paths(dev or ())]
    text = agreed_rules([(path.parent, prepared_rules(path)) for path in manifests], text, notice)
    rows = sift(_read(train, text), check_text)
    said = _lexicon(lexicon, alphabet, start, text)
    if said is not None:
        if lexicon == OF_START:
            from asr.pronounce import completed, describe_said  # slow to import

            texts = [each.text for each in utterances(rows)]
            texts += [text(each.text) for each in utterances(scan_manifests(_paths(dev or ())))]
            said, given = completed(said, texts)
            if given:
                notice(describe_said(given))
        alphabet, text = said.alphabet, replace(text, unit=WORD)
    rows = _spoken(rows, said)
    dev_utterances: tuple[Utterance, ...] = ()
    if folds:
        # Before the cut: the folds and their alphabet are the same, whichever is dev.
        rows, tokenizer = _writable(rows, alphabet, start)
        dev_utterances = cut_fold(utterances(rows), folds, fold, fold_seed, notice).dev
        held_out = {utterance.id for utterance in dev_utterances}
        rows = [row for row in rows if isinstance(row, Finding) or row.id not in held_out]
    rows = sift(rows, lambda u: check_duration(u, seconds(u), min_duration_s, max_duration_s))
    _check_some_left(rows)
    if not folds:
        rows, tokenizer = _writable(rows, alphabet, start)
    rows = _first(rows, limit)
    left_out = tuple(findings(rows))
    if left_out:
        notice(
            f"{len(left_out)} of {len(rows)} training utterances left out: {summarise(left_out)}"
        )
    if not folds:
        dev_utterances = read_dev(dev or (), text, tokenizer, limit, said, notice)
    kept = tuple(utterances(rows))
    text = settled(text, (each.text for each in kept))
    return Splits(kept, dev_utterances[:limit], text, tokenizer.alphabet, left_out, said)


def read_dev(
    manifests: str | Sequence[str],
    text: TextNormalizer,
    tokenizer: CharTokenizer,
    limit: int | None = None,
    lexicon: Lexicon | None = None,
    notice: Callable[[str], None] = print,
) -> tuple[Utterance, ...]:
    """The utterances to validate on, texts normalised and durations known: all of them or none.

    Args:
        manifests: one or several; ids of several get their folder's name in front.
        text: rules that make every transcript comparable.
        tokenizer: that can write every text.
        limit: use only so many utterances, the first ones; None uses all.
        lexicon: that texts are said by; those with words that it has not are left out.
        notice: told in a line how many those are.

    Raises:
        ValueError: a manifest that cannot be read, or anything else wrong in one, but for
            durations.
        OSError: a missing manifest.
    """
    rows = _spoken(sift(_read(manifests, text), check_text), lexicon)
    if unknown := [each for each in findings(rows) if each.kind is Kind.UNKNOWN_WORD]:
        notice(f"{len(unknown)} of {len(rows)} dev utterances left out: first: {unknown[0]}")
        rows = [row for row in rows if row not in unknown]
        if not rows:
            raise ValueError("dev: no utterance whose words are all in the lexicon, expected some")
    rows = _first(sift(rows, lambda u: check_characters(u, tokenizer)), limit)
    if bad := findings(rows):
        first, *others = bad
        more = f" (and {len(others)} more in dev: {summarise(others)})" if others else ""
        is_text = first.kind is Kind.UNKNOWN_CHARACTER
        remedy = "; correct the text, its rules (data.text) or data.alphabet" if is_text else ""
        raise ValueError(f"dev: {first}{more}{remedy}")
    return tuple(utterances(rows))


def seconds(utterance: Utterance) -> float:
    """The duration [s] of an utterance of `Splits`, where none is unknown."""
    assert utterance.duration is not None, "filled in when read"
    return utterance.duration


def _read(manifests: str | Sequence[str], text: TextNormalizer) -> list[Row]:
    """The lines of a split, whose utterances have normalised text, audio and a duration."""
    paths = _paths(manifests)
    if not paths:
        raise ValueError("no manifest given, expected at least one path")
    rows = [
        replace(row, text=text(row.text)) if isinstance(row, Utterance) else row
        for row in scan_manifests(paths)
    ]
    rows = sift(rows, check_file)
    return [with_duration(row) if isinstance(row, Utterance) else row for row in rows]


def _lexicon(
    lexicon: str | None, alphabet: str | None, start: Start | None, text: TextNormalizer
) -> Lexicon | None:
    """The lexicon that a training asks for, its words as the rules write them."""
    if lexicon == OF_START:
        return start.lexicon if start is not None and alphabet is None else None
    if lexicon is None:
        return None
    if alphabet is not None:
        raise ValueError("data.alphabet and data.lexicon, expected one of them")
    return read_lexicon(lexicon).under(text)


def _spoken(rows: Sequence[Row], lexicon: Lexicon | None) -> list[Row]:
    """The rows with their texts as they are said, where a lexicon says how."""
    if lexicon is None:
        return list(rows)
    return [
        replace(row, text=lexicon.spell(row.text)) if isinstance(row, Utterance) else row
        for row in sift(rows, lambda utterance: check_words(utterance, lexicon))
    ]


def _paths(manifests: str | Sequence[str]) -> list[Path]:
    return [Path(manifests)] if isinstance(manifests, str) else [Path(path) for path in manifests]


def _writable(
    rows: Sequence[Row], alphabet: str | None, start: Start | None
) -> tuple[list[Row], CharTokenizer]:
    """The rows that the alphabet can write; without one, that of all their characters."""
    _check_some_left(rows)
    if alphabet is None:
        texts = (each.text for each in utterances(rows))
        alphabet = alphabet_of(CharTokenizer.from_texts(texts).alphabet, start)
    tokenizer = CharTokenizer(alphabet)
    kept = sift(rows, lambda u: check_characters(u, tokenizer))
    _check_some_left(kept)
    return kept, tokenizer


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


# --- text rules of a preparation ---------------------------------------------------------------


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


# --- folds -------------------------------------------------------------------------------------


class Fold(NamedTuple):
    """One fold to validate on, and the others to learn from, each in the order of the manifest."""

    train: tuple[Utterance, ...]
    dev: tuple[Utterance, ...]


def cut_fold(
    everything: Sequence[Utterance],
    folds: int,
    fold: int,
    seed: int = 0,
    notice: Callable[[str], None] = print,
) -> Fold:
    """Cut utterances into folds without a shared speaker and take one of them out.

    Greedy: the speakers, longest first, each go into the fold that is shortest so far (Graham,
    "Bounds on Multiprocessing Timing Anomalies", 1969), so that the longest fold is at most a third
    longer than that of the best possible cut. The same utterances, in any order, give the same
    folds.

    Args:
        everything: all utterances, durations known; equal names of speakers are one speaker.
        folds: how many, 2 or more.
        fold: the one to validate on, from 0.
        seed: decides the order of speakers whose durations [s] are equal.
        notice: told in a line how many utterances name no speaker; each of them counts as a speaker
            of its own.

    Raises:
        ValueError: fewer speakers than folds.
    """
    nameless = sum(utterance.speaker is None for utterance in everything)
    if nameless:
        notice(
            f"{nameless} of {len(everything)} utterances name no speaker: each counts as a speaker "
            "of its own, and a voice may be in several folds"
        )
    parts: defaultdict[str, list[float]] = defaultdict(list)
    for utterance in everything:
        parts[_speaker(utterance)].append(seconds(utterance))
    if len(parts) < folds:
        raise ValueError(f"{len(parts)} speakers, expected at least {folds} for data.folds")
    # Sorted before they are added up: the sum must not depend on the order of the manifest.
    durations = {speaker: sum(sorted(own)) for speaker, own in parts.items()}

    def place(speaker: str) -> tuple[float, str]:
        return -durations[speaker], hashlib.sha256(f"{seed} {speaker}".encode()).hexdigest()

    # Not scikit-learn's GroupKFold: it makes folds of like numbers of utterances, not seconds.
    totals = [0.0] * folds
    fold_of: dict[str, int] = {}
    for speaker in sorted(durations, key=place):
        shortest = totals.index(min(totals))
        fold_of[speaker] = shortest
        totals[shortest] += durations[speaker]
    return Fold(
        train=tuple(u for u in everything if fold_of[_speaker(u)] != fold),
        dev=tuple(u for u in everything if fold_of[_speaker(u)] == fold),
    )


def _speaker(utterance: Utterance) -> str:
    """A name that no utterance's id can be mistaken for."""
    if utterance.speaker is None:
        return f"utterance {utterance.id}"
    return f"speaker {utterance.speaker}"


def _check_fold(folds: int, fold: int, dev: object) -> None:
    if folds < 0 or folds == 1:
        raise ValueError(f"data.folds {folds}, expected 0 (off) or 2 and more")
    if not folds and fold:
        raise ValueError(f"data.fold {fold} of data.folds 0, expected data.folds of 2 and more")
    if folds and not 0 <= fold < folds:
        raise ValueError(f"data.fold {fold}, expected 0 to {folds - 1} of data.folds {folds}")
    if folds and dev is not None:
        raise ValueError(
            f"data.dev {dev} beside data.folds {folds}, which takes dev from the train manifests: "
            "expected data.dev=null"
        )
    if not folds and dev is None:
        raise ValueError("data.dev is missing, expected data.dev=MANIFEST (or data.folds=5)")


# --- dev and test out of train -------------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """How splits that a corpus lacks are drawn from its training utterances.

    Attributes:
        dev_fraction: of all utterances that dev is to get; 0 for no dev.
        test_fraction: of all utterances that test is to get; 0 for no test.
        split_by: "speaker" gives a split whole speakers, "utterance" draws single utterances of
            any speaker, "auto" is "speaker" where enough of them are named.
        seed: of the draw.

    Raises:
        ValueError: for a value out of range.
    """

    dev_fraction: float = 0.0
    test_fraction: float = 0.0
    split_by: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dev_fraction", "test_fraction"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < 1:
                raise ValueError(f"{name} is {value!r}, expected from 0 to below 1")
        if self.dev_fraction + self.test_fraction >= 1:
            both = f"{self.dev_fraction} and {self.test_fraction}"
            raise ValueError(f"dev_fraction and test_fraction are {both}, expected less than all")
        if self.split_by not in SPLIT_BY:
            expected = f"one of {', '.join(SPLIT_BY)}"
            raise ValueError(f"split_by is {self.split_by!r}, expected {expected}")


def draw_splits(
    splits: Mapping[str, Sequence[Utterance]], draw: Draw, text: TextNormalizer
) -> tuple[dict[str, list[Utterance]], list[str]]:
    """Draw the splits that a corpus lacks from its training utterances; its own stay.

    Args:
        splits: those of the corpus, by name.
        draw: how large, and by what.
        text: rules by which the characters of the texts are known.

    Returns:
        All splits, in the order of SPLITS, and what was done about those that were not there, a
        sentence each.

    Raises:
        ValueError: utterances without a speaker, or too few of either.
    """
    parts = {split: list(items) for split, items in splits.items()}
    everything = parts["train"] = parts.get("train", [])
    fractions = {"test": draw.test_fraction, "dev": draw.dev_fraction}
    missing = [split for split, share in fractions.items() if share and split not in parts]
    notes: list[str] = []
    by, why = draw.split_by, ""
    if missing and by == "auto":
        named = {each.speaker for each in everything}
        by = "speaker" if None not in named and len(named) > len(missing) else "utterance"
        if by == "utterance":
            who = "no speaker is named" if named == {None} else "not all speakers are named"
            who = who if None in named else f"there are {len(named)} speakers"
            why = f", as {who}: error rates are those of known voices"
    taken = 0.0
    for split in missing if everything else ():
        share = fractions[split] / (1 - taken)
        parts["train"], parts[split] = carve(parts["train"], split, share, by, draw.seed, text)
        taken += fractions[split]
        actual = len(parts[split]) / len(everything)
        notes.append(f"{split} was taken from train by {by}: {actual:.1%} of its utterances{why}.")
    if "dev" not in parts:
        notes.append("There is no dev split; dev_fraction takes one from train.")
    return {split: parts[split] for split in SPLITS if split in parts}, notes


def carve(
    items: Sequence[Utterance],
    split: str,
    fraction: float,
    by: str,
    seed: int,
    text: TextNormalizer,
) -> tuple[list[Utterance], list[Utterance]]:
    """Part training utterances into train and another split, the same for the same seed.

    Speakers or utterances are drawn in the order of a hash of seed and name, so that neither the
    order of the manifest nor a new utterance changes who is drawn before whom. Who alone has some
    character is not drawn: what train lacks no model can write.

    Args:
        items: training utterances.
        split: that is carved, for messages.
        fraction: of the utterances that it is to get, in (0, 1).
        by: "speaker" gives it whole speakers, as many as bring it nearest to the fraction;
            "utterance" draws single utterances of any speaker.
        seed: of the draw.
        text: rules by which the characters of the texts are known.

    Returns:
        Train and the other split, both in the order of the items.

    Raises:
        ValueError: utterances without a speaker, or too few of either.
    """
    names = []
    characters: defaultdict[str, set[str]] = defaultdict(set)
    for item in items:
        if by == "speaker" and item.speaker is None:
            raise ValueError(
                f"{item.where}: speaker is missing, expected one; or split_by=utterance"
            )
        names.append(item.speaker if by == "speaker" and item.speaker is not None else item.id)
        characters[names[-1]].update(text(item.text))
    sizes = Counter(names)
    if len(sizes) < 2:
        raise ValueError(
            f"{split} by {by}: train has {len(sizes)} of them, expected at least 2 "
            f"(split_by, {split}_fraction)"
        )
    who_has = Counter(character for own in characters.values() for character in own)
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    target, drawn, total = fraction * len(items), set[str](), 0
    for name in order[:-1]:  # never all
        is_nearer = abs(total + sizes[name] - target) < abs(total - target)
        if is_nearer and all(who_has[character] > 1 for character in characters[name]):
            drawn.add(name)
            total += sizes[name]
            who_has -= Counter(characters[name])
    if not drawn:
        drawn = {min(order, key=lambda name: (sizes[name], order.index(name)))}
    train = [item for item, name in zip(items, names, strict=True) if name not in drawn]
    others = [item for item, name in zip(items, names, strict=True) if name in drawn]
    return train, others
