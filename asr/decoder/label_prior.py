"""How often labels occur: what a network expects before it has heard anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from asr.decoder.ngram import MARKS, NgramModel
from asr.decoder.token_trie import SPACE


def label_prior(
    model: NgramModel, spellings: Mapping[str, Sequence[str]] | None, alphabet: str
) -> NDArray[np.float64]:
    """Find how likely each label is in what a language model expects, without context.

    A network that learnt from little speech hears a frequent label too readily. Its log-probability
    less this prior says how well the sound alone fits (Miao, Gowayyed & Metze, "EESEN", 2015).

    Args:
        model: of words.
        spellings: of the words, in characters of the alphabet; words without are passed over. None
            where each is its own.
        alphabet: of the acoustic model.

    Returns:
        `(V,)` float64 [nats], 0 for the blank. A label that no word has counts as the rarest.

    Raises:
        ValueError: none of the words can be written.
    """
    unigrams = np.exp(model.log_probs[1 : 1 + len(model.words)].astype(np.float64))
    written, shares = list[str](), list[float]()
    for word, share in zip(model.words, unigrams.tolist(), strict=True):
        if word not in MARKS:
            ways = (word,) if spellings is None else spellings.get(word, ())
            for way in ways:
                written.append(way + SPACE)
                shares.append(share / len(ways))
    characters = np.frombuffer("".join(written).encode("utf-32-le"), np.uint32)
    weights = np.repeat(shares, [len(each) for each in written])
    labels = np.array([ord(each) for each in alphabet])  # in the order of their ids, from 1
    own = np.bincount(characters, weights, int(labels.max()) + 1)[labels]
    if not own.any():
        raise ValueError(f"none of {len(model.words)} words can be written, expected some")
    own = np.maximum(own, own[own > 0].min())
    return np.concatenate([[0.0], np.log(own / own.sum())])
