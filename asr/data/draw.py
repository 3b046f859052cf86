"""Dev and test that a corpus lacks, drawn from its training utterances."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asr.data.corpus_record import SPLITS
from asr.data.manifest import Utterance
from asr.text import TextNormalizer

SPLIT_BY = ("auto", "speaker", "utterance")


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
