"""Check 25: error rates are those of Levenshtein, of NIST's sclite, and of any number of ranks."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from asr.metrics.error_rate import character_errors, score_utterance, total, word_errors
from asr.report.evaluation import EvaluatedUtterance
from asr.report.files import hypothesis_trn, reference_trn
from tests.metrics.noisy_texts import noisy_pairs

ADVERSARIAL, REALISTIC = 2000, 1000
LIMIT_S = 120.0
SCLITE = shutil.which("sclite", path="/usr/lib/sctk/bin") or shutil.which("sclite")
Survived = Callable[[str, int, int], None]

# Words that are parts of each other, of several scripts, joined characters, symbols; no spaces.
ODD = (
    *("a", "b", "ab", "ba", "aa", "A", "'", "''", "-", "0", "00", "*", "**", "%", "\\", "[a]"),
    *("ß", "ss", "ä", "a\u0308", "\u4f60", "\u4f60\u597d", "\u0645\u0631\u062d\u0628\u0627"),
    *(
        "\U0001f600",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u0000",
        "\x1b[2J",
        "nan",
        "None",
    ),
)
SPACES = (" ", "  ", "\t", "\n", " \u00a0 ", "\u3000", "\r\n")


def levenshtein(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Fewest substitutions, deletions and insertions (Wagner & Fischer 1974), a row at a time."""
    row = list(range(len(hypothesis) + 1))
    for i, said in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, heard in enumerate(hypothesis, 1):
            diagonal, row[j] = row[j], min(diagonal + (said != heard), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def adversarial_pairs(seed: int) -> list[tuple[str, str]]:
    """Pairs made to mislead an alignment: few different words, repeats, rotations, nothing."""
    draw = random.Random(seed)
    return [_adversarial(draw) for _ in range(ADVERSARIAL)]


def _adversarial(draw: random.Random) -> tuple[str, str]:
    words = draw.sample(ODD, draw.choice((1, 2, 3, len(ODD))))
    reference = draw.choices(words, k=draw.choice((0, 1, 2, 5, 12, 30)))
    turn = draw.randint(0, 5)
    hypothesis = {
        0: lambda: draw.choices(words, k=draw.choice((0, 1, 2, 5, 12, 30))),
        1: lambda: reference[::-1],
        2: lambda: reference[3:] + reference[:3],
        3: lambda: [word for word in reference for _ in range(draw.randint(0, 2))],
        4: lambda: draw.sample(reference, len(reference)),
        5: lambda: ["".join(reference)] if reference else list(words),
    }[turn]()
    return _spaced(reference, draw), _spaced(hypothesis, draw)


def _spaced(words: list[str], draw: random.Random) -> str:
    """The words with white space of any kind between and around them."""
    text = draw.choice(("", *SPACES))
    for word in words:
        text += draw.choice(SPACES) + word
    return text + draw.choice(("", *SPACES))


def fewest_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """In words and in characters, white space only parting words."""
    said, heard = reference.split(), hypothesis.split()
    return levenshtein(said, heard), levenshtein(" ".join(said), " ".join(heard))


def agrees(reference: str, hypothesis: str, errors: tuple[int, int]) -> bool:
    """Whether words and characters of a pair have so many errors, and its counts add up."""
    said, heard = reference.split(), hypothesis.split()
    found = score_utterance("u", reference, hypothesis)
    texts = (" ".join(said), " ".join(heard))
    lengths = (len(said), len(heard)), (len(texts[0]), len(texts[1]))
    steps = found.alignment
    return (
        (found.words.errors, found.characters.errors) == errors
        and all(
            (each.reference_length, each.hits + each.substitutions + each.insertions) == length
            for each, length in zip((found.words, found.characters), lengths, strict=True)
        )
        and [step.reference for step in steps if step.reference is not None] == said
        and [step.hypothesis for step in steps if step.hypothesis is not None] == heard
        and sum(step.kind != "equal" for step in steps) == found.words.errors
    )


def test_totals_equal_an_independent_levenshtein(seed: int, survived: Survived) -> None:
    pairs = [*adversarial_pairs(seed), *noisy_pairs(seed, REALISTIC)]
    references, hypotheses = zip(*pairs, strict=True)
    fewest = [fewest_errors(*pair) for pair in pairs]
    good = sum(agrees(*pair, errors) for pair, errors in zip(pairs, fewest, strict=True))
    survived("WER by Levenshtein", good, len(pairs))
    found = word_errors(references, hypotheses), character_errors(references, hypotheses)
    assert [each.errors for each in found] == [sum(each) for each in zip(*fewest, strict=True)]
    utterances = [score_utterance("u", *pair) for pair in pairs]
    assert total(each.words for each in utterances) == found[0]
    assert total(each.characters for each in utterances) == found[1]


@pytest.mark.skipif(SCLITE is None, reason="NIST sclite (Debian: sctk) is not installed")
def test_a_realistic_set_has_the_errors_that_sclite_counts(
    seed: int, tmp_path: Path, survived: Survived
) -> None:
    pairs = noisy_pairs(seed, REALISTIC)
    utterances = [
        EvaluatedUtterance(f"u{k:04}", "s", 1.0, "a.wav", score_utterance(f"u{k:04}", *pair))
        for k, pair in enumerate(pairs)
    ]
    (tmp_path / "ref.trn").write_text(reference_trn(utterances), encoding="utf-8")
    (tmp_path / "hyp.trn").write_text(hypothesis_trn(utterances), encoding="utf-8")
    files = ("-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "spu_id", "-e", "utf-8", "-s")
    run = subprocess.run(
        [str(SCLITE), *files, "-o", "pralign", "stdout"],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=True,
        timeout=LIMIT_S,
    )
    scores = re.findall(r"^id: \(s-(\w+)\)\nScores: \(#C #S #D #I\) (.*)$", run.stdout, re.M)
    counts = {id: tuple(map(int, numbers.split())) for id, numbers in scores}
    assert len(counts) == REALISTIC
    same = sum(sum(counts[each.id][1:]) == each.errors.words.errors for each in utterances)
    survived("WER by sclite", same, REALISTIC)
    ours = word_errors(*zip(*pairs, strict=True))
    assert sum(sum(each[1:]) for each in counts.values()) == ours.errors


@pytest.mark.slow
def test_any_number_of_ranks_has_the_same_totals(
    seed: int, tmp_path: Path, survived: Survived
) -> None:
    references, hypotheses = zip(*noisy_pairs(seed, REALISTIC), strict=True)
    expected = {
        "words": asdict(word_errors(references, hypotheses)),
        "characters": asdict(character_errors(references, hypotheses)),
    }
    found = [totals(ranks, seed, tmp_path / f"{ranks}.json") for ranks in (1, 2, 3)]
    losses = [each.pop("loss") for each in found]
    survived("WER of 1, 2 and 3 ranks", sum(each == expected for each in found), len(found))
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def totals(ranks: int, seed: int, file: Path) -> dict[str, object]:
    """What a number of processes adds up."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    script = Path(__file__).with_name("ranks.py")
    subprocess.run(
        [sys.executable, *(launcher if ranks > 1 else []), str(script), str(ranks), str(seed),
         str(REALISTIC), str(file)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=LIMIT_S,
    )  # fmt: skip
    content: dict[str, object] = json.loads(file.read_text())
    return content
