"""Files for other programs: golden lines, and what others read and count in them."""

import errno
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from asr.metrics.error_rate import score_utterance, total
from asr.report.comparison import compare_evaluations, comparison_to_json
from asr.report.evaluation import (
    EvaluatedUtterance,
    Evaluation,
    ModelDescription,
    word_outcomes,
)
from asr.report.evaluation_file import read_evaluation
from asr.report.files import (
    ctm,
    has_times,
    hypothesis_ctm,
    hypothesis_trn,
    reference_stm,
    reference_trn,
    textgrid,
    write_report,
)
from asr.report.terminal import slice_table, summary, worst_utterances
from asr.word import Character, Word
from tests.report.textgrids import read_textgrid

VALIDATOR = Path("/usr/lib/sctk/bin/ctmValidator.pl")
SCLITE = shutil.which("sclite", path="/usr/lib/sctk/bin") or shutil.which("sclite")
TRN = ("-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "spu_id")
STM = ("-r", "ref.stm", "stm", "-h", "hyp.ctm", "ctm")
needs_sclite = pytest.mark.skipif(
    SCLITE is None, reason="NIST sclite (Debian: sctk) is not installed"
)

# --- Praat ---------------------------------------------------------------------------------------


@pytest.fixture
def chinese() -> EvaluatedUtterance:
    """Errors by characters: one of five is another, one is too much."""
    words = [
        Word("今", 0.0, 0.2, 0.9),
        Word("天", 0.2, 0.4, 0.8, is_joined=True),
        Word("天汽", 0.5, 0.9, 0.5),  # as a letter and its mark would be
        Word("好", 0.9, 1.0, 0.7, is_joined=True),
        Word("啊", 1.0, 1.1, 0.6, is_joined=True),
    ]
    errors = score_utterance("a", "今天 天气好", "今天 天汽好啊", "character")
    return EvaluatedUtterance("a", "s", 1.2, "a.wav", errors, words=tuple(words))


def test_without_spaces_a_character_is_what_sclite_counts(chinese: EvaluatedUtterance) -> None:
    assert reference_trn([chinese]) == "今 天 天 气 好 (s-a)\n"
    assert hypothesis_trn([chinese]) == "今 天 天 汽 好 啊 (s-a)\n"
    assert reference_stm([chinese]) == "s-a 1 s 0.00 1.200 今 天 天 气 好\n"
    assert hypothesis_ctm([chinese]).splitlines()[2:4] == [
        "s-a 1 0.500 0.200 天 0.5000",
        "s-a 1 0.700 0.200 汽 0.5000",
    ]
    assert word_outcomes([chinese]) == ([0.9, 0.8, 0.5, 0.7, 0.6], [True, True, False, True, False])


@pytest.fixture
def chinese_report(chinese: EvaluatedUtterance, tmp_path: Path) -> tuple[Evaluation, Path]:
    """Its report, and the folder of it."""
    evaluation = Evaluation(
        title="t", model=ModelDescription("m", 1), manifest="t.jsonl", real_time_factor=None,
        utterances=(chinese,), slice_by=("reference_length",),
    )  # fmt: skip
    write_report(evaluation, tmp_path)
    return evaluation, tmp_path


def test_a_report_by_characters_tells_the_cer_alone(
    chinese_report: tuple[Evaluation, Path],
) -> None:
    evaluation, folder = chinese_report
    assert (evaluation.unit, evaluation.rate_name) == ("character", "CER")
    assert evaluation.words == evaluation.characters
    assert evaluation.words.rate == 2 / 5
    assert read_evaluation(folder / "evaluation.json") == evaluation
    content = json.loads((folder / "evaluation.json").read_text())
    assert (content["unit"], content["wer"], content["cer"]) == ("character", 0.4, 0.4)
    page = (folder / "report.html").read_text()
    text = re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL)
    assert "<title>40.00\u202f% CER" in text
    assert not re.search(r"\bWER\b|[Ww]ord error", text)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(summary(evaluation), slice_table(evaluation, "reference_length"))
    console.print(worst_utterances(evaluation))
    told = console.export_text()
    assert "CER 40.00" in told
    assert "2 errors in 5 characters" in told
    assert "WER" not in told
    assert "word" not in told


def test_evaluations_of_another_unit_are_not_compared(
    chinese_report: tuple[Evaluation, Path],
) -> None:
    by_characters, _ = chinese_report
    errors = score_utterance("a", "今天 天气好", "今天 天汽好啊")
    utterance = replace(by_characters.utterances[0], errors=errors, words=())
    by_words = replace(by_characters, utterances=(utterance,))
    with pytest.raises(ValueError, match="b: its unit is the word, expected the character as of a"):
        compare_evaluations([("a", by_characters), ("b", by_words)])
    better = score_utterance("a", "今天 天气好", "今天天气好", "character")
    utterance = replace(by_characters.utterances[0], errors=better, words=())
    found = compare_evaluations(
        [("a", by_characters), ("b", replace(by_characters, utterances=(utterance,)))]
    )
    assert found.pairs[0].words.difference == -2 / 5
    assert json.loads(comparison_to_json(found))["unit"] == "character"
    with pytest.raises(ValueError, match="units are"):
        replace(by_characters, utterances=(by_characters.utterances[0], by_words.utterances[0]))


def test_textgrid_by_hand() -> None:
    # The example of the Praat manual, "TextGrid file formats", with other numbers.
    assert textgrid(2.3, {"words": [Character('a "b"', 0.5, 1.25, 0.0)]}) == (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0 \nxmax = 2.3 \n'
        "tiers? <exists> \nsize = 1 \nitem []: \n    item [1]:\n"
        '        class = "IntervalTier" \n        name = "words" \n        xmin = 0 \n'
        "        xmax = 2.3 \n        intervals: size = 3 \n"
        "        intervals [1]:\n            xmin = 0 \n            xmax = 0.5 \n"
        '            text = "" \n'
        "        intervals [2]:\n            xmin = 0.5 \n            xmax = 1.25 \n"
        '            text = "a ""b""" \n'
        "        intervals [3]:\n            xmin = 1.25 \n            xmax = 2.3 \n"
        '            text = "" \n'
    )


def test_read_back_with_silences_between() -> None:
    words = [
        Word('say "é"', 0.0, 0.4, 1.0),
        Word("二", 0.4, 1.0, 1.0),
        Word('"', 3599.98, 3600, 1.0),
    ]
    characters = [Character("é", 0.0, 0.4, -0.5)]
    grid = read_textgrid(textgrid(3600.0, {'w"s': words, "none": [], "c": characters}))
    assert grid.duration == 3600
    assert grid.tiers == {
        'w"s': [
            (0.0, 0.4, 'say "é"'),
            (0.4, 1.0, "二"),
            (1.0, 3599.98, ""),
            (3599.98, 3600, '"'),
        ],
        "none": [(0, 3600, "")],
        "c": [(0, 0.4, "é"), (0.4, 3600, "")],
    }


@pytest.mark.parametrize(
    "intervals",
    [
        pytest.param([Character("a", 0.5, 0.5, 0.0)], id="no length"),
        pytest.param([Character("b", 0.5, 0.7, 0.0), Character("a", 0.6, 0.8, 0.0)], id="overlap"),
        pytest.param([Character("a", 0.5, 1.1, 0.0)], id="beyond the end"),
        pytest.param([Character("a", -0.1, 0.1, 0.0)], id="before the start"),
    ],
)
def test_intervals_that_praat_would_refuse(intervals: list[Character]) -> None:
    with pytest.raises(ValueError, match=r"tier words: 'a' from .* s, expected a length, and with"):
        textgrid(1.0, {"words": intervals})


# --- NIST ----------------------------------------------------------------------------------------


def test_ctm_by_hand(tmp_path: Path) -> None:
    words = [Word("don't", 0.5, 0.9, 0.75), Word("stop", 3661.25, 3661.9, 1.0)]
    text = ctm("clip_1-a", words)
    assert text == ("clip_1-a 1 0.500 0.400 don't 0.7500\nclip_1-a 1 3661.250 0.650 stop 1.0000\n")
    if not VALIDATOR.is_file():
        pytest.skip("NIST's ctmValidator.pl is not here (Debian: sctk)")
    path = tmp_path / "a.ctm"
    path.write_text(text)
    checked = subprocess.run(
        ["perl", VALIDATOR, "-i", path], capture_output=True, text=True, check=False
    )
    assert checked.stdout.strip() == f"Validated {path}"


def test_ctm_of_no_words() -> None:
    assert ctm("clip", []) == ""


@pytest.mark.parametrize(("name", "word"), [("my clip", "a"), ("clip", "a b"), ("", "a")])
def test_fields_that_would_be_two(name: str, word: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in a CTM file, expected no white space"):
        ctm(name, [Word(word, 0, 1, 1)])


def utterance(id, reference, hypothesis, speaker="s1"):
    words = hypothesis.split()
    heard = tuple(Word(word, 0.5 * k, 0.5 * k + 0.4, 0.75) for k, word in enumerate(words))
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


def test_sclite_lines_by_hand():
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
    made = EvaluatedUtterance("u", None, 0.0, "u.wav", errors, words=(Word("a", 0, 0, 1),))
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


# --- the folder of a report ----------------------------------------------------------------------


def test_all_files_and_no_other(tmp_path, make_evaluation):
    evaluation = make_evaluation(text="\ud800")
    paths = write_report(evaluation, tmp_path / "new" / "folder")
    assert paths.json == tmp_path / "new" / "folder" / "evaluation.json"
    assert paths.html == tmp_path / "new" / "folder" / "report.html"
    folder = paths.json.parent
    # No times of words, so nothing with times for sclite.
    assert paths.sclite == (folder / "ref.trn", folder / "hyp.trn")
    assert set(folder.iterdir()) == {paths.json, paths.html, *paths.sclite}
    assert read_evaluation(paths.json) == evaluation
    assert paths.html.read_text(encoding="utf-8").startswith("<!doctype html>")
    (tmp_path / "other").touch()
    assert paths.html.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_earlier_report_is_replaced(tmp_path, make_evaluation):
    write_report(make_evaluation(text="earlier"), tmp_path)
    paths = write_report(make_evaluation(text="later"), tmp_path)
    for path in (paths.json, paths.html):
        assert "later" in path.read_text(encoding="utf-8")
        assert "earlier" not in path.read_text(encoding="utf-8")


def test_failure_leaves_what_was_there(tmp_path, make_evaluation, monkeypatch):
    paths = write_report(make_evaluation(text="earlier"), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(source, target):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(
        OSError, match=r"cannot be written, \d+ bytes needed: No space left on device"
    ):
        write_report(make_evaluation(text="later"), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert paths.json in before
