"""Take a dev split out of the training utterances, the same one for the same seed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from asr.data.manifest import Utterance

CARVE_BY = ("speaker", "utterance")


def carve_dev(
    items: Sequence[Utterance], fraction: float, by: str, seed: int
) -> tuple[list[Utterance], list[Utterance]]:
    """Part training utterances into train and dev.

    Speakers or utterances are drawn in the order of a hash of seed and name, so that neither the
    order of the manifest nor a new utterance changes who is drawn before whom.

    Args:
        items: training utterances.
        fraction: of the utterances that dev is to get, in (0, 1).
        by: "speaker" gives dev whole speakers, as many as bring it nearest to the fraction;
            "utterance" draws single utterances of any speaker.
        seed: of the draw.

    Returns:
        Train and dev, both in the order of the items.

    Raises:
        ValueError: for a value out of range, utterances without a speaker, or too few of either.
    """
    if not isinstance(fraction, int | float) or not 0 < fraction < 1:
        raise ValueError(f"dev_fraction is {fraction!r}, expected between 0 and 1")
    if by not in CARVE_BY:
        raise ValueError(f"dev_by is {by!r}, expected one of {', '.join(CARVE_BY)}")
    names = [_speaker(item) if by == "speaker" else item.id for item in items]
    sizes = Counter(names)
    if len(sizes) < 2:
        raise ValueError(f"dev_by={by}: train has {len(sizes)} of them, expected at least 2")
    drawn = _draw(sizes, fraction * len(items), seed)
    train = [item for item, name in zip(items, names, strict=True) if name not in drawn]
    dev = [item for item, name in zip(items, names, strict=True) if name in drawn]
    return train, dev


def _speaker(utterance: Utterance) -> str:
    if utterance.speaker is None:
        raise ValueError(
            f"{utterance.where}: speaker is missing, expected one; or dev_by=utterance"
        )
    return utterance.speaker


def _draw(sizes: Counter[str], target: float, seed: int) -> set[str]:
    """Names whose sizes sum up to about the target: at least one, and never all."""
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    drawn: set[str] = set()
    total = 0
    for name in order[:-1]:
        nearer = abs(total + sizes[name] - target) < abs(total - target)
        if nearer:
            drawn.add(name)
            total += sizes[name]
    return drawn or {min(order, key=lambda name: (sizes[name], order.index(name)))}
