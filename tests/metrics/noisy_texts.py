"""Made-up sentences and what a recogniser might make of them, always the same for a seed."""

from __future__ import annotations

import random

FREQUENT = (
    "the of and to a in that is was he for it with as his on be at by i this had not are but "
    "from or have an they which one you were her all she there would their we him been has "
    "when who will more no if out so said what up its about into than them can only other new "
    "some could time these two may then do first any my now such like our over man me even "
    "most made after "
)
WORDS = FREQUENT.split()


def noisy_pairs(seed: int, count: int, rate: float = 0.12, salt: int = 0) -> list[tuple[str, str]]:
    """References of 3 to 25 words, and hypotheses with errors in some of their places.

    Args:
        seed: of the references.
        count: how many pairs.
        rate: probability of an error at a word; six in ten are substitutions.
        salt: sets the errors of several hypotheses of the same references apart.
    """
    references, errors = random.Random(f"{seed}"), random.Random(f"{seed}/{salt}")
    return [
        (" ".join(words), " ".join(_heard(words, rate, errors)))
        for words in (references.choices(WORDS, k=references.randint(3, 25)) for _ in range(count))
    ]


def _heard(words: list[str], rate: float, errors: random.Random) -> list[str]:
    heard: list[str] = []
    for word in words:
        draw = errors.random()
        if draw >= rate:
            heard.append(word)
        elif draw < 0.6 * rate:
            heard.append(errors.choice(WORDS))
        elif draw < 0.8 * rate:
            heard += [word, errors.choice(WORDS)]
    return heard
