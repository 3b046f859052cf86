"""`asr lm`: from text to a model that answers, and mistakes in one line."""

# ruff: noqa: RUF001 - Turkish
from __future__ import annotations

import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.cli.main import main
from asr.cli.texts import Sentences
from asr.decoder.ngram_file import load_ngram_model
from asr.model_file import save_model
from asr.recognizer import ModelSpec, Part, Recognizer

TEXT = "A b!\n\n\u201cA\u201d\n"  # the toy of tests/decoder/test_kneser_ney.py
FALLBACK = ("--discount-fallback",)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Two sentences as people write them, and a line without words."""
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def model(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A bigram model of them."""
    path = tmp_path / "model.ngram"
    assert main(["lm", "train", str(text), "--order", "2", "--output", str(path), *FALLBACK]) == 0
    capsys.readouterr()
    return path


def test_text_becomes_a_model(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.arpa"
    command = ["lm", "train", str(text), "--order", "2", "--output", str(path), "--prune", "0", "1"]
    assert main([*command, *FALLBACK]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "text: 2 sentences, 3 words, 2 different ones in the vocabulary "
        "(1 lines without words left out)",
        "1-grams: 4, discounts 0.5000 1.0000 1.5000 (fallback: too few counts to estimate them)",
        "2-grams: 1 of 4, discounts 0.5000 1.0000 1.5000 "
        "(fallback: too few counts to estimate them)",
        f"{path}: 0.0 MB",
        f"next: asr lm perplexity {path} OTHER_TEXT",
    ]
    assert load_ngram_model(path).words[3:] == ("a", "b")
    assert main([*command, "--discount-fallback", "0.25", "1", "1"]) == 0
    assert "1-grams: 4, discounts 0.2500 1.0000 1.0000" in capsys.readouterr().out


def test_lines_of_the_tests_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = ["b a c a d a e a f", "a b c d e", "b b a a b", "c d", "e"]
    gone = ["x A B, c d e f x", "e f g h", "x e f g h x"]
    text, long, short = tmp_path / "text.txt", tmp_path / "long.jsonl", tmp_path / "short.txt"
    text.write_text("".join(f"{line}\n" for pair in zip(kept, gone + kept, strict=False)
                            for line in pair))  # fmt: skip
    long.write_text(json.dumps({"audio_filepath": "a", "duration": 1, "text": "A b c d e f g h"}))
    short.write_text("e f g h\nc d\n b b a\n")
    path = tmp_path / "model.arpa"
    tests = ["--without", str(long), "--without", str(short)]
    command = ["lm", "train", str(text), "--order", "2", "--output", str(path), *tests]
    assert main([*command, *FALLBACK]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.endswith("(3 lines of the tests left out)")
    assert first.startswith("text: 7 sentences")
    assert not {"x", "g", "h"} & set(load_ngram_model(path).words)
    assert main([*command, *FALLBACK, "--without", str(path)]) == 2  # which is written


def test_text_comes_from_files_packed_ones_manifests_and_standard_input(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "packed.txt"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbfone two"))
    xz = tmp_path / "news.txt.xz"
    xz.write_bytes(lzma.compress(b"six\n"))
    manifest = tmp_path / "train.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": "x.wav", "text": "Three."}) + "\n")
    table = tmp_path / "train.tsv"
    table.write_text("audio_filepath\ttext\nx.wav\tfour\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"five\r\n"))))
    sources = [str(packed), str(manifest), str(table), "-", str(xz), str(text)]
    sentences = Sentences(sources, str.upper)
    assert [" ".join(words) for words in sentences] == [
        "ONE TWO", "THREE.", "FOUR", "FIVE", "SIX", "A B!", "\u201cA\u201d",
    ]  # fmt: skip
    assert sentences.without_words == 1


def test_the_vocabulary_can_be_limited(text: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.ngram"
    for option in ("--max-words=1", "--min-count=2"):
        assert main(["lm", "train", str(text), "--output", str(path), option, *FALLBACK]) == 0
        assert load_ngram_model(path).words[3:] == ("a",)


def test_text_rules_are_those_asked_for(text: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.ngram"
    for options, words in (
        (["--raw"], ("A", "b!", "\u201cA\u201d")),
        (["--no-lowercase"], ("A", "b")),
        (["--no-remove-punctuation"], ("a", "b!", "\u201ca\u201d")),
    ):
        assert main(["lm", "train", str(text), "--output", str(path), *FALLBACK, *options]) == 0
        assert load_ngram_model(path).words[3:] == words
    text.write_text("well-known \ufb01ne")
    options = ["--keep", "-", "--unicode-form", "NFKC"]
    assert main(["lm", "train", str(text), "--output", str(path), *FALLBACK, *options]) == 0
    assert load_ngram_model(path).words[3:] == ("fine", "well-known")


def test_the_rules_of_a_recogniser_are_taken_or_each_given(
    text: Path, tmp_path: Path, fails: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "model.ngram"
    text.write_text("[noise] Dr. IŞIK 3%\n")
    rules = [
        "--language", "tr", "--drop-in", "[]", "--numbers", "tr",
        "--replace", r"\bDr\.", "doktor", "--replace", "%", " yüzde",
    ]  # fmt: skip
    theirs = tmp_path / "turkish.safetensors"
    spec = ModelSpec(
        features=Part("LogMel", {"sample_rate": 8000, "n_mels": 8}),
        model=Part("BiLstmCtc", {"hidden_size": 4, "num_layers": 1, "channels": 4}),
        alphabet=" ab",
        text={
            "language": "tr", "drop_in": "[]", "numbers": "tr",
            "replace": [[r"\bDr\.", "doktor"], ["%", " yüzde"]],
        },
    )  # fmt: skip
    save_model(theirs, Recognizer(spec), {})
    for options in (rules, ["--rules", str(theirs)]):
        path.unlink(missing_ok=True)
        assert main(["lm", "train", str(text), "--output", str(path), *FALLBACK, *options]) == 0
        assert load_ngram_model(path).words[3:] == ("doktor", "yüzde", "üç", "ışık")
        capsys.readouterr()
        assert main(["lm", "query", str(path), "3 IŞIK", *options]) == 0
        assert capsys.readouterr().out.endswith("total\tüç ışık\n")
        assert main(["lm", "perplexity", str(path), str(text), *options]) == 0
        assert "unknown words: 0 of 4" in capsys.readouterr().out
    told = fails("lm", "query", str(path), "a", "--rules", str(theirs), "--numbers", "tr")
    assert "--rules and --numbers: expected one of them" in told
    told = fails("lm", "perplexity", str(path), str(text), "--numbers", "hi")
    assert f"{text}:1: numbers is 'hi'" in told
    told = fails("lm", "train", str(text), "--output", str(path), "--rules", str(path))
    assert "would be overwritten and is read" in told


def test_a_model_answers(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # log10 of 5/8, 3/8, 1/2 * 1/8 and 3/8, worked out in test_kneser_ney.
    assert main(["lm", "query", str(model), "A b.", "x"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "-0.204120\t2\ta",
        "-0.425969\t2\tb",
        "-0.162727\t2\t</s>",
        "-0.792816\ttotal\ta b",
        "-1.204120\t1\tx <unk>",
        "-0.425969\t1\t</s>",
        "-1.630089\ttotal\tx",
    ]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"A b.\nx\n"))))
    assert main(["lm", "query", str(model)]) == 0
    assert capsys.readouterr().out == out


def test_perplexity_is_reported(
    model: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text.write_text("a\n.\nx\n")
    assert main(["lm", "perplexity", str(model), str(text)]) == 0
    # log10 of 5/8 * 7/16 * 3/8 is -0.9891, an unknown word after <s> adds log10(1/16).
    assert capsys.readouterr().out.splitlines() == [
        "perplexity: 2.1365 without unknown words, 3.5343 with",
        "unknown words: 1 of 2 (50.00 %)",
        "log10 of the probability: -2.1932, without unknown words -0.9891",
        "n-grams found, by their words: 2 of 1, 2 of 2",
        "sentences: 2 (1 lines without words left out)",
    ]


def test_models_are_converted_and_back(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arpa, back = tmp_path / "model.arpa.gz", tmp_path / "back.ngram"
    assert main(["lm", "convert", str(model), str(arpa)]) == 0
    assert capsys.readouterr().out == f"{arpa}: order 2, 5 + 4 n-grams, 0.0 MB\n"
    assert main(["lm", "convert", str(arpa), str(back)]) == 0
    assert back.read_bytes() == model.read_bytes()


def test_mistakes_are_one_line(
    model: Path, text: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    out = ("--output", str(tmp_path / "new.ngram"))
    assert "discounts cannot be estimated: no 1-gram has" in fails("lm", "train", str(text), *out)
    assert "expected a name that ends in" in fails("lm", "train", str(text), "--output", "x.lm")
    assert "nowhere: is no folder" in fails(
        "lm", "train", str(text), "--output", str(tmp_path / "nowhere" / "x.arpa")
    )
    assert "none.txt: No such file" in fails("lm", "train", str(tmp_path / "none.txt"), *out)
    assert "Is a directory" in fails("lm", "train", str(tmp_path), *out)
    assert "--raw and --keep: expected one" in fails(
        "lm", "query", str(model), "a", "--raw", "--keep", "-"
    )
    assert "keep is ' '" in fails("lm", "query", str(model), "a", "--keep", " ")
    assert "the word <s> is a mark" in fails("lm", "query", str(model), "<s>", "--raw")
    assert "expected a name that ends in" in fails("lm", "convert", str(model), "x.lm")
    assert f"{text}:4: the file ends, expected \\data\\" in fails("lm", "query", str(text), "a")
    assert not (tmp_path / "new.ngram").exists()
    text.write_text("a\nb <s>\n")
    assert f"{text}:2: the word <s> is a mark" in fails("lm", "train", str(text), *out, "--raw")
    text.write_bytes(b"a\nm\xfcde\n")
    assert f"{text}:2: byte 0xfc at 2, expected UTF-8" in fails("lm", "train", str(text), *out)
    text.write_bytes(gzip.compress(b"a b c" * 100)[:-9])
    assert f"{text}:1: damaged gzip" in fails("lm", "train", str(text), *out)
    text.write_bytes(lzma.compress(b"a b c" * 100)[:-9])
    assert f"{text}:1: damaged xz" in fails("lm", "train", str(text), *out)
    packed = tmp_path / "train.jsonl.xz"
    told = f"{packed}: a packed manifest, expected it unpacked, or plain texts"
    assert fails("lm", "train", str(packed), *out) == told
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "a"}\n{"text": 5}\n')
    assert f"{bad}:2: text is 5, expected a text" in fails("lm", "train", str(bad), *out)
    bad.write_text("{")
    assert f"{bad}:1: bad JSON" in fails("lm", "perplexity", str(model), str(bad))
    bad.write_text('{"text": "."}\n')
    assert "no sentences to measure" in fails("lm", "perplexity", str(model), str(bad))


@pytest.mark.parametrize("discounts", [["0.5", "1"], ["0", "1", "1"], ["0.5", "1", "4"]])
def test_bad_fallback_discounts_are_refused(
    discounts: list[str], text: Path, fails: Callable[..., str]
) -> None:
    line = fails("lm", "train", str(text), "--output", "x.arpa", "--discount-fallback", *discounts)
    assert "expected nothing, or three numbers above 0" in line
