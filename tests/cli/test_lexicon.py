"""`asr lexicon`: words of texts with their pronunciations, known and guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from asr.cli.main import main
from asr.lexicon import read_lexicon

CMUDICT = """\
;;; a comment
the DH AH0
the(2) DH IY0
read R EH1 D # past
read(2) R IY1 D
"""


@pytest.fixture
def known(tmp_path: Path) -> Path:
    path = tmp_path / "cmu.dict"
    path.write_text(CMUDICT)
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("The books, the read.\nRead books the\n")
    return path


def test_known_words_and_what_is_left_out(
    known: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lexicon.txt"
    assert main(
        ["lexicon", str(text), "--known", str(known), "--only-known", "--output", str(out)]
    ) == 0  # fmt: skip
    captured = capsys.readouterr()
    assert out.read_text() == "read\tR EH D\nread\tR IY D\nthe\tDH AH\nthe\tDH IY\n"
    assert "2 words, 2 of them known, 0 as the known words teach" in captured.out
    assert "1 words have no pronunciation and are left out: 'books'" in captured.err


def test_stress_is_kept_where_asked(known: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "lexicon.txt"
    arguments = ["lexicon", str(text), "--known", str(known), "--only-known", "--output", str(out)]
    assert main([*arguments, "--stress", "--max-words", "1"]) == 0
    assert out.read_text() == "the\tDH AH0\nthe\tDH IY0\n"


def test_each_word_of_a_text_to_train_on_is_kept(known: Path, text: Path, tmp_path: Path) -> None:
    out, manifest = tmp_path / "lexicon.txt", tmp_path / "train.jsonl"
    text.write_text("The books, the, the.")
    manifest.write_text('{"audio_filepath": "a.wav", "text": "Read."}\n')
    arguments = ["lexicon", str(text), "--known", str(known), "--only-known", "--output", str(out)]
    assert main([*arguments, "--max-words", "1", "--all-of", str(manifest)]) == 0
    assert out.read_text() == "read\tR EH D\nread\tR IY D\nthe\tDH AH\nthe\tDH IY\n"
    arguments.remove(str(text))
    assert main([*arguments, "--all-of", str(manifest)]) == 0
    assert out.read_text() == "read\tR EH D\nread\tR IY D\n"


def test_rules_say_the_others(
    known: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "asr.pronounce.pronounce_by_rules",
        lambda words, voice: ({word: ("b", "\u028a", "K") for word in words if voice == "xx"}, {}),
    )
    out = tmp_path / "lexicon.txt"
    arguments = ["lexicon", str(text), "--known", str(known), "--voice", "xx", "--output", str(out)]
    assert main(arguments) == 0
    lexicon = read_lexicon(out)
    assert lexicon.names(lexicon.spell("the books")) == "DH AH | b \u028a K"


def test_foreign_words_are_said_as_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "klmnpr"]
    text, out = tmp_path / "text", tmp_path / "out"
    monkeypatch.setattr(
        "asr.pronounce.pronounce_by_rules",
        lambda words, voice: (
            {word: tuple(word.upper()) for word in words if word in own},
            {word: ("TH",) for word in words if word not in own},
        ),
    )
    arguments = ["lexicon", str(text), "--voice", "xx", "--output", str(out)]
    text.write_text(" ".join([*own, "gakmun", "x"]))
    assert main(arguments) == 0
    lexicon = read_lexicon(out)
    assert lexicon.names(lexicon.spell("gakmun")) == "G A K M U N"
    assert "TH" not in lexicon.phones.values()
    captured = capsys.readouterr()
    assert "1 foreign words are said as the others are" in captured.err
    assert "1 words have no pronunciation and are left out: 'x'" in captured.err
    text.write_text("bak gakmun")  # too few to learn from
    assert main(arguments) == 0
    lexicon = read_lexicon(out)
    assert lexicon.names(lexicon.spell("gakmun")) == "TH"


def test_words_of_a_made_language_are_guessed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known, text, out = tmp_path / "known", tmp_path / "text", tmp_path / "out"
    pairs = [(a, b, c) for a in "bdfg" for b in "aeiou" for c in "klmnpr"]
    known.write_text("".join(f"{''.join(each)} {' '.join(each).upper()}\n" for each in pairs[::2]))
    text.write_text("".join(f"{''.join(each)}\n" for each in pairs) + "zzz\n")
    assert main(["lexicon", str(text), "--known", str(known), "--output", str(out)]) == 2
    assert "a lexicon of 60 words, expected at least 100" in capsys.readouterr().err
    known.write_text("".join(f"{''.join(each)} {' '.join(each).upper()}\n" for each in pairs[:110]))
    assert main(["lexicon", str(text), "--known", str(known), "--output", str(out)]) == 0
    assert "120 words, 110 of them known, 10 as the known words teach" in capsys.readouterr().out
    assert "gup\tG U P" in out.read_text().splitlines()


def test_mistakes_are_one_line(
    known: Path, text: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    out = ("--output", str(tmp_path / "out.txt"))
    assert "no --known lexicon and no --voice" in fails("lexicon", str(text), *out)
    assert "no text and no --all-of" in fails("lexicon", "--voice", "fr", *out)
    arguments = ("lexicon", str(text), "--known", str(known))
    assert "would be overwritten" in fails(*arguments, "--output", str(known))
    assert "is no folder" in fails(*arguments, "--output", str(tmp_path / "no" / "x"))
    assert "expected at least 1" in fails(*arguments, *out, "--max-words", "0")
    known.write_text("the\n")
    assert "'the' has no phones" in fails(*arguments, *out)
    text.write_text("...\n")
    assert "no words, expected some" in fails(*arguments, *out)
    assert not Path(out[1]).exists()
