"""asr lexicon: how the words of texts are said: as lexicons have it, as these teach, by rules."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from asr.cli.options import Parser, check_outputs
from asr.cli.terminal import say, tell, track
from asr.cli.texts import SOURCES, Sentences, normalizer, rules_parser
from asr.untrusted import open_regular, shown, whole_lines

if TYPE_CHECKING:
    from asr.lexicon import Lexicon

NAMED = 5  # words without a pronunciation, in the message
VARIANT = re.compile(rb"^(\S+)\(\d+\)(?=\s)")  # CMUdict's mark of a second pronunciation
STRESSED = re.compile(r"(?<=[A-Z])[0-2]$")  # as CMUdict writes it


def main(arguments: list[str]) -> int:
    """Write the lexicon of the words of some texts."""
    options = make_parser().parse_args(arguments)
    if not options.text and not options.all_of:
        raise ValueError("no text and no --all-of, expected texts")
    if not options.known and options.voice is None:
        raise ValueError("no --known lexicon and no --voice, expected one of them")
    if options.min_count < 1 or (options.max_words is not None and options.max_words < 1):
        raise ValueError("--min-count and --max-words, expected at least 1")
    if not options.output.parent.is_dir():
        raise NotADirectoryError(
            20, "is no folder, expected one to write to", str(options.output.parent)
        )
    check_outputs([options.output], [*options.text, *options.all_of, *options.known, options.rules])
    # Imported here: `--help` and a mistake in the call need none of it.
    from asr.atomic_file import replace_text
    from asr.pronounce import fill

    rules = normalizer(options)
    all_of, texts = Sentences(options.all_of, rules), Sentences(options.text, rules)
    kept = Counter(word for words in all_of for word in words)
    counts = kept.copy()
    for words in track(texts, "reading", "sentences"):
        counts.update(words)
    often = {word for word, n in counts.most_common(options.max_words) if n >= options.min_count}
    wanted = sorted(often | kept.keys())
    if not wanted:
        sources = ", ".join([*options.text, *options.all_of])
        raise ValueError(f"{sources}: no words, expected some")
    lexicon = _known(options, rules)
    strange = [word for word in wanted if word not in lexicon.pronunciations]
    lexicon, guess = _guesser(options, lexicon, strange)
    made, missing = fill(lexicon, wanted, guess)
    if not made.pronunciations:
        raise ValueError(f"none of {len(wanted)} words can be said, expected another lexicon")
    replace_text(options.output, "".join(f"{line}\n" for line in made.lines()))
    guessed = len(strange) - len(missing)
    how = f"by {options.voice} of espeak-ng" if options.voice else "as the known words teach"
    say(
        f"{options.output}: {len(made.pronunciations):,} words, {len(wanted) - len(strange):,} of "
        f"them known, {guessed:,} {how}" + all_of.left_out() + texts.left_out()
    )
    if missing:
        more = ", ..." if len(missing) > NAMED else ""
        named = ", ".join(map(shown, missing[:NAMED]))
        tell(f"{len(missing):,} words have no pronunciation and are left out: {named}{more}")
    say(f"next: asr train data.lexicon={options.output} ...")
    return 0


def _known(options: argparse.Namespace, rules: Callable[[str], str]) -> Lexicon:
    """All known pronunciations as one lexicon, its words as the rules write them."""
    from asr.lexicon import Lexicon, parse_lexicon

    if not options.known:
        return Lexicon({}, {})

    def lines() -> Iterator[tuple[int, bytes]]:
        for path in options.known:
            with open_regular(path, "a lexicon") as file:
                for number, line in whole_lines(file, path):
                    line = VARIANT.sub(rb"\1", line.partition(b" #")[0])
                    if not line.startswith(b";;;"):
                        yield number, line if options.stress else _without_stress(line)

    return parse_lexicon(lines(), ", ".join(map(str, options.known))).under(rules)


def _without_stress(line: bytes) -> bytes:
    word, *phones = line.decode(errors="surrogateescape").split() or [""]
    plain = [STRESSED.sub("", phone) for phone in phones]
    return " ".join([word, *plain]).encode(errors="surrogateescape")


def _guesser(
    options: argparse.Namespace, lexicon: Lexicon, strange: list[str]
) -> tuple[Lexicon, Callable[[str], str | None]]:
    """The lexicon, with the phones of guesses, and what guesses."""
    from asr.lexicon import Lexicon, characters_of
    from asr.pronounce import FEWEST_WORDS, Pronouncer, pronounce_by_rules

    if not strange or (options.only_known and not options.voice):
        return lexicon, lambda word: None
    if not options.voice:
        return lexicon, Pronouncer(lexicon)
    said, foreign = pronounce_by_rules(strange, options.voice)
    if len(said) < FEWEST_WORDS:  # too few to say the foreign ones as a speaker of this language
        said, foreign = said | foreign, {}
    names = {name for phones in said.values() for name in phones}
    phones = characters_of([*lexicon.phones.values(), *names])
    characters = {name: character for character, name in phones.items()}
    renamed = {old: characters[name] for old, name in lexicon.phones.items()}
    known = {
        word: tuple("".join(renamed[each] for each in way) for way in ways)
        for word, ways in lexicon.pronunciations.items()
    }
    guessed = {word: "".join(characters[name] for name in own) for word, own in said.items()}
    if foreign:
        taught = Pronouncer(Lexicon(phones, {word: (own,) for word, own in guessed.items()}))
        adapted = {word: own for word in foreign if (own := taught(word)) is not None}
        tell(f"{len(adapted):,} foreign words are said as the others are")
        guessed |= adapted
    return Lexicon(phones, known), guessed.get


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr lexicon",
        description="Write how the words of texts are said: as known lexicons have them, others as "
        "those teach, or by the rules of espeak-ng.",
        parents=[rules_parser()],
    )
    parser.add_argument("text", nargs="*", help=SOURCES)
    parser.add_argument(
        "--known", type=Path, action="append", default=[], metavar="FILE",
        help="a lexicon: a word and its phones a line, as CMUdict has them; may be repeated",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, help="the lexicon that is written")
    guesses = parser.add_mutually_exclusive_group()
    guesses.add_argument(
        "--voice", metavar="NAME",
        help="ask espeak-ng, in this language or accent (fr, en-us), for words that are not known",
    )  # fmt: skip
    guesses.add_argument(
        "--only-known", action="store_true", help="leave out words that are not known"
    )
    parser.add_argument(
        "--stress", action="store_true", help="keep CMUdict's numbers of stress: AH0, AH1"
    )
    parser.add_argument(
        "--min-count", type=int, default=1, help="leave out words that occur less often; default: 1"
    )
    parser.add_argument("--max-words", type=int, help="the most frequent words, so many")
    parser.add_argument(
        "--all-of", action="append", default=[], metavar="TEXT",
        help="another text, of which each word is kept, however rare: the manifest to train on; "
        "may be repeated",
    )  # fmt: skip
    return parser
