"""What a training reads: train and dev, by manifests or by folds, with text rules and alphabet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asr.data.checks import (
    check_characters,
    check_duration,
    check_file,
    check_text,
    check_words,
    with_duration,
)
from asr.data.corpus_record import agreed_rules, prepared_rules
from asr.data.folds import check_fold, cut_fold
from asr.data.manifest import Row, Utterance, findings, scan_manifests, seconds, sift, utterances
from asr.data.remarks import amount_remark, space_remark
from asr.finding import Finding, Kind, summarise
from asr.lexicon import Lexicon, read_lexicon
from asr.text import WORD, CharTokenizer, TextNormalizer, settled

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
    check_fold(folds, fold, dev)
    manifests = [*_paths(train), *_paths(dev or ())]
    text = agreed_rules([(path.parent, prepared_rules(path)) for path in manifests], text, notice)
    rows = sift(_read(train, text), check_text)
    said = _lexicon(lexicon, alphabet, start, text)
    if said is not None:
        if lexicon == OF_START:
            said = _with_words_of(said, [*rows, *scan_manifests(_paths(dev or ()))], text, notice)
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


def _with_words_of(
    lexicon: Lexicon, rows: Sequence[Row], text: TextNormalizer, notice: Callable[[str], None]
) -> Lexicon:
    """The lexicon and the words of texts that it has not, said as its own teach."""
    from asr.pronounce import completed, describe_said  # slow to import

    lexicon, given = completed(lexicon, (text(each.text) for each in utterances(rows)))
    if given:
        notice(describe_said(given))
    return lexicon


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
