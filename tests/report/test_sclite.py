"""Files for sclite: golden lines, and NIST's program counts the same errors in them."""

import re
import shutil
import subprocess

import pytest

from asr.metrics.error_rate import score_utterance, total
from asr.report.evaluation import EvaluatedUtterance, HeardWord
from asr.report.sclite import (
    has_times,
    hypothesis_ctm,
    hypothesis_trn,
    reference_stm,
    reference_trn,
)

SCLITE = shutil.which("sclite", path="/usr/lib/sctk/bin") or shutil.which("sclite")
TRN = ("-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "spu_id")
STM = ("-r", "ref.stm", "stm", "-h", "hyp.ctm", "ctm")
needs_sclite = pytest.mark.skipif(
    SCLITE is None, reason="NIST sclite (Debian: sctk) is not installed"
)


def utterance(id, reference, hypothesis, speaker="s1"):
    words = hypothesis.split()
    heard = tuple(HeardWord(word, 0.5 * k, 0.5 * k + 0.4, 0.75) for k, word in enumerate(words))
    errors = score_utterance(id, reference, hypothesis)
    return EvaluatedUtterance(id, speaker, 20.0, "a.wav", errors, words=heard)


# Characters that sclite gives a meaning to, in ids, speakers and words; empty texts; other scripts.
HOSTILE = (
    utterance("plain", "the cat sat", "the cat"),
    utterance("b (x)/1_2-3", "a b", "a b", speaker="s-1_(2)"),
    utterance("größe;;", "schöne größe", "schöne grösse", speaker=None),
    utterance("empty", "one two", ""),
    utterance("noise", "", "uh"),
    utterance("braces", "{ a / b } (c) @ ;; d", "{ a / x } (c) @ ;; d"),
    utterance("PLAIN", "Case Matters here", "case Matters here", speaker="S1"),
    utterance("percent", "5 % and %28", "5 % and ( 28"),
)


def test_lines_by_hand():
    assert reference_trn(HOSTILE).splitlines()[:5] == [
        "the cat sat (s1-plain)",
        "a b (s%2d1%5f%282%29-b%20%28x%29%2f1_2-3)",
        "schöne größe (unknown-gr%c3%b6%c3%9fe%3b%3b)",
        "one two (s1-empty)",
        " (s1-noise)",
    ]
    assert hypothesis_trn(HOSTILE).splitlines()[3] == " (s1-empty)"
    assert "%7b a %2f b %7d %28c%29 %40 %3b%3b d (s1-braces)" in reference_trn(HOSTILE)
    assert reference_stm(HOSTILE[:1]) == "s1-plain 1 s1 0.00 20.000 the cat sat\n"
    assert hypothesis_ctm(HOSTILE[:1]) == (
        "s1-plain 1 0.000 0.400 the 0.7500\ns1-plain 1 0.500 0.400 cat 0.7500\n"
    )


def test_ids_stay_different_and_words_stay_equal_or_different():
    ids = ["a b", "a%20b", "a-b", "a_b", "A-b", "ä", "a\ud800"]
    made = [utterance(id, "x", "x") for id in ids]
    assert len(set(reference_trn(made).splitlines())) == len(ids)
    assert reference_trn(made).isascii()


def test_controls_and_lone_surrogates_of_words_are_written_out():
    made = [utterance("u", "\x1b[2J \x9b \ud800", "\x7f")]
    assert reference_trn(made) == "%1b[2J %c2%9b %ed%a0%80 (s1-u)\n"
    assert hypothesis_trn(made) == "%7f (s1-u)\n"


def test_a_word_that_ends_where_it_begins_has_a_duration():
    errors = score_utterance("u", "a", "a")
    made = EvaluatedUtterance("u", None, 0.0, "u.wav", errors, words=(HeardWord("a", 0, 0, 1),))
    assert hypothesis_ctm([made]) == "unknown-u 1 0.000 0.010 a 1.0000\n"
    assert reference_stm([made]) == "unknown-u 1 unknown 0.00 0.010 a\n"


def test_times_are_there_or_not():
    errors = score_utterance("u", "a", "a")
    timeless = EvaluatedUtterance("u", None, 1.0, "u.wav", errors)
    assert not has_times([*HOSTILE, timeless])
    assert has_times(HOSTILE)


def sclite_sums(folder, *arguments):
    """Sentences, words, correct, substituted, deleted and inserted by sclite's own count."""
    run = subprocess.run(
        [SCLITE, *arguments, "-e", "utf-8", "-s", "-o", "rsum", "stdout"],
        cwd=folder,
        text=True,
        capture_output=True,
        check=True,
    )
    row = re.search(r"\| Sum +\| +(\d+) +(\d+) \| +(\d+) +(\d+) +(\d+) +(\d+)", run.stdout)
    assert row, run.stdout
    return tuple(map(int, row.groups()))


def write(folder, utterances):
    for name, text in (
        ("ref.trn", reference_trn(utterances)),
        ("hyp.trn", hypothesis_trn(utterances)),
        ("ref.stm", reference_stm(utterances)),
        ("hyp.ctm", hypothesis_ctm(utterances)),
    ):
        (folder / name).write_text(text, encoding="utf-8")


@needs_sclite
def test_sclite_counts_the_same_in_trn_and_in_ctm_with_stm(tmp_path):
    write(tmp_path, HOSTILE)
    words = total(each.errors.words for each in HOSTILE)
    expected = (
        len(HOSTILE), words.reference_length, words.hits, words.substitutions, words.deletions,
        words.insertions,
    )  # fmt: skip
    assert sclite_sums(tmp_path, *TRN) == expected
    assert sclite_sums(tmp_path, *STM) == expected


@needs_sclite
def test_sclite_finds_the_speakers(tmp_path):
    write(tmp_path, HOSTILE)
    run = subprocess.run(
        [SCLITE, *TRN, "-e", "utf-8", "-s", "-o", "sum", "stdout"],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=True,
    )
    found = set(re.findall(r"^ *\| ([sS]\S*1\S*|unknown) *\|", run.stdout, re.M))
    assert found == {"s1", "s%2d1%5f%282%29", "S1", "unknown"}
